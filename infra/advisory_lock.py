"""Long errands that only one process runs at a time, whichever machine it is on."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import DatabaseError, InterfaceError, connection


@contextmanager
def advisory_lock(errand: str) -> Iterator[bool]:
    """Hold an errand, by a lock that ends with our connection; False, at once, where another holds it."""
    is_ours = _ask("SELECT pg_try_advisory_lock(hashtext(%s))", errand)
    try:
        yield is_ours
    finally:
        if is_ours:
            # it ended with our connection if that is lost
            with suppress(DatabaseError, InterfaceError):
                _ask("SELECT pg_advisory_unlock(hashtext(%s))", errand)


def _ask(statement: str, errand: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute(statement, [f"aegis:{errand}"])
        return bool(cursor.fetchone()[0])
