"""A PostgreSQL advisory lock for long jobs that only one process on all machines may run at a time."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import DatabaseError, InterfaceError, connection


@contextmanager
def advisory_lock(job: str) -> Iterator[bool]:
    """Hold the lock of a job, until our connection ends at the latest. Yields False immediately if it is taken."""
    is_ours = _ask("SELECT pg_try_advisory_lock(hashtext(%s))", job)
    try:
        yield is_ours
    finally:
        if is_ours:
            # if the connection is lost, the lock has ended with it
            with suppress(DatabaseError, InterfaceError):
                _ask("SELECT pg_advisory_unlock(hashtext(%s))", job)


def _ask(statement: str, job: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(statement, [f"aegis:{job}"])
        return bool(cursor.fetchone()[0])
