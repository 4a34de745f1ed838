"""How long a statement may take, or wait for a lock: seconds on the way of an order, longer for what may take its time.

Every connection begins with the limits of the settings. Migrations and the deletion of old rows have their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.db import DatabaseError, InterfaceError, InternalError, OperationalError, connection

# what the database raises if it does not answer in time or ends a session; that of a transaction that slept is an
# InternalError
AWAY = (OperationalError, InterfaceError, InternalError)
NAMES = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
_SET = "SELECT " + ", ".join(f"set_config('{name}', %s, false)" for name in NAMES)


@contextmanager
def longer(seconds: float) -> Iterator[None]:
    """Let the statements of this thread take up to `seconds` each, and wait as long for locks."""
    set_limits(lock=seconds, statement=seconds, idle=seconds)
    try:
        yield
    finally:
        # a connection that was lost comes back with the limits of the settings
        with suppress(DatabaseError, InterfaceError):
            reset_limits()


def set_limits(*, lock: float, statement: float, idle: float) -> None:
    """Set the limits of this thread's connection, in seconds; 0 stands for none."""
    with connection.cursor() as cursor:
        cursor.execute(_SET, [f"{round(seconds * 1000)}ms" for seconds in (lock, statement, idle)])


def reset_limits() -> None:
    """Set the limits back to those of the settings."""
    with connection.cursor() as cursor:
        for name in NAMES:
            cursor.execute(f"RESET {name}")
