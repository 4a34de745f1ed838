"""Creates the partitions of `market_candles`: one per month in Korean time, before its first minute."""

from collections.abc import Iterable
from datetime import date, timedelta

from django.db import connection, transaction
from django.db.backends.utils import CursorWrapper

# how many months have a partition, the current month included
MONTHS_AHEAD = 3
# advisory lock: a process that creates partitions waits for another that does
_LOCK = 0x6361_6E64_6C65


def ensure(days: Iterable[date]) -> list[str]:
    """Create the missing partitions for the months of `days`; return the names of the new ones."""
    months = sorted({day.replace(day=1) for day in days})
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", [_LOCK])
        missing = [month for month in months if not _exists(cursor, month)]
        for month in missing:
            cursor.execute(
                f"CREATE TABLE {_name(month)} PARTITION OF market_candles "
                f"FOR VALUES FROM ('{month} 00:00+09') TO ('{_next(month)} 00:00+09')"
            )
    return [_name(month) for month in missing]


def ensure_ahead(today: date) -> list[str]:
    """Create the partitions of this month and the next ones, as `ensure` does."""
    months = [today.replace(day=1)]
    while len(months) < MONTHS_AHEAD:
        months.append(_next(months[-1]))
    return ensure(months)


def _next(month: date) -> date:
    return (month + timedelta(days=31)).replace(day=1)


def _name(month: date) -> str:
    return f"market_candles_{month:%Y_%m}"


def _exists(cursor: CursorWrapper, month: date) -> bool:
    cursor.execute("SELECT to_regclass(%s)", [_name(month)])
    return cursor.fetchone()[0] is not None
