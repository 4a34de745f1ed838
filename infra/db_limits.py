"""Time limits of SQL statements and lock waits: seconds in the order path, longer for maintenance.

Every connection starts with the limits of the settings; the web server's allow longer statements. Migrations and the
deletion of old rows have their own.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

from django.conf import settings
from django.db import DatabaseError, InterfaceError, InternalError, OperationalError, connection

# raised if the database does not reply in time or ends a session; an idle transaction that was ended raises
# InternalError
CONNECTION_ERRORS = (OperationalError, InterfaceError, InternalError)
NAMES = ("lock_timeout", "statement_timeout", "idle_in_transaction_session_timeout")
_SET = "SELECT " + ", ".join(f"set_config('{name}', %s, false)" for name in NAMES)


@contextmanager
def extended_limits(seconds: float) -> Iterator[None]:
    """Let each statement of this thread take up to `seconds`, and wait as long for locks."""
    set_limits(lock=seconds, statement=seconds, idle=seconds)
    try:
        yield
    finally:
        # if the connection was lost, the next one starts with the limits of the settings
        with suppress(DatabaseError, InterfaceError):
            reset_limits()


def set_limits(*, lock: float, statement: float, idle: float) -> None:
    """Set the limits of this thread's connection, in seconds; 0 disables a limit."""
    with connection.cursor() as cursor:
        cursor.execute(_SET, [f"{round(seconds * 1000)}ms" for seconds in (lock, statement, idle)])


def set_default_statement_limit(seconds: int) -> None:
    """Let each statement of this process's next connections take `seconds`, unless the settings allow more.

    A limit in the options of `DATABASE_URL` still holds.
    """
    limit = f"statement_timeout={settings.DATABASE_STATEMENT_SECONDS}s"
    longer = f"statement_timeout={max(seconds, settings.DATABASE_STATEMENT_SECONDS)}s"
    options = connection.settings_dict["OPTIONS"]
    # the options of the URL are the last
    options["options"] = options["options"].replace(limit, longer, 1)


def reset_limits() -> None:
    """Reset the limits to those of the settings."""
    with connection.cursor() as cursor:
        for name in NAMES:
            cursor.execute(f"RESET {name}")
