"""The only writer of `market_candles`: bars from the feed, and from the broker's chart if the feed missed trades.

A candle is final (closed) five seconds after its interval has ended: see `market.queries.CLOSED_AFTER`.
"""

import logging
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from datetime import date, datetime, time, timedelta
from typing import Any

from django.db import IntegrityError, connection, transaction

from aegis.candles import Bar
from aegis.sessions import KST
from aegis.terms import Market
from market import partitions
from market.models import MarketCandle

log = logging.getLogger(__name__)

MINUTE = MarketCandle.Interval.MINUTE.value
FEED, PARTIAL, CHART, UNSURE = (source.value for source in MarketCandle.Source)
_DAY = timedelta(days=1)

# One statement for any number of bars. A bar that was repaired from a chart is not overwritten.
_COLUMNS = (
    "time, symbol, venue, open, high, low, close, volume, value, trade_count, day_volume, day_value, source, interval"
)
_ARRAYS = "timestamptz[] text[] text[] " + "int8[] " * 6 + "int4[] int8[] int8[] text[]"
_SET = ", ".join(f"{name} = excluded.{name}" for name in _COLUMNS.split(", ")[3:-1])
_VALUES = ", ".join(f"%s::{array}" for array in _ARRAYS.split())
_WRITE = (
    f"INSERT INTO market_candles ({_COLUMNS}) SELECT *, '{MINUTE}' FROM unnest({_VALUES}) "  # noqa: S608 constants
    f"ON CONFLICT (symbol, interval, venue, time) DO UPDATE SET {_SET}"
)
WRITE_HEARD = f"{_WRITE} WHERE market_candles.source <> '{CHART}'"
WRITE_MENDED = f"{_WRITE} WHERE market_candles.source = '{PARTIAL}'"


def write_feed_bars(bars: Sequence[Bar]) -> None:
    """Store bars from the feed. Raises DatabaseError, and then stores none."""
    _write(WRITE_HEARD, bars, doubtful=PARTIAL)


def write_repaired_bars(bars: Sequence[Bar]) -> None:
    """Store repaired bars in place of stored bars with gaps. Raises DatabaseError, and then stores none."""
    _write(WRITE_MENDED, bars, doubtful=UNSURE)


def _write(statement: str, bars: Sequence[Bar], *, doubtful: str) -> None:
    if not bars:
        return
    columns = [list(column) for column in zip(*(_row(bar, doubtful) for bar in bars), strict=True)]
    try:
        _execute(statement, columns)
    except IntegrityError as error:
        if getattr(error.__cause__, "sqlstate", "") != _NO_PARTITION:
            raise
        partition_names = partitions.ensure({bar.day for bar in bars})
        log.warning("created the missing partitions %s", ", ".join(partition_names))
        _execute(statement, columns)


# check_violation: among others, PostgreSQL's error if no partition takes a row
_NO_PARTITION = "23514"


def _execute(statement: str, columns: list[list[Any]]) -> None:
    # inside a transaction, a savepoint keeps a failure from breaking it; outside, the statement is its own transaction
    savepoint = transaction.atomic() if connection.in_atomic_block else nullcontext()
    with savepoint, connection.cursor() as cursor:
        cursor.execute(statement, columns)


def _row(bar: Bar, doubtful: str) -> tuple[Any, ...]:
    return (
        bar.time,
        bar.code,
        bar.market.value,
        bar.open,
        bar.high,
        bar.low,
        bar.close,
        bar.volume,
        bar.value,
        bar.count,
        bar.day_volume,
        bar.day_value,
        doubtful if not bar.is_whole else CHART if bar.count is None else FEED,
    )


def midnight(day: date) -> datetime:
    return datetime.combine(day, time(), KST)


def at_minute(day: date, minute: str) -> datetime:
    return datetime.combine(day, time(int(minute[:2]), int(minute[2:])), KST)


def _of(day: date) -> Any:
    return MarketCandle.objects.filter(interval=MINUTE, time__gte=midnight(day), time__lt=midnight(day + _DAY))


def days_bars(code: str, market: Market, day: date) -> list[Bar]:
    """Return a stock's bars of a day, the oldest first; bars that no chart can repair count as whole."""
    rows = _of(day).filter(symbol=code, venue=market.value).order_by("time")
    return [replace(_bar(row), is_whole=row.source != PARTIAL) for row in rows]


def newest_bars(day: date) -> list[Bar]:
    """Return the newest bar of `day` of each stock on each venue: an aggregator resumes from it."""
    rows = _of(day).order_by("symbol", "venue", "-time").distinct("symbol", "venue")
    return [_bar(row) for row in rows]


def bars_of(code: str, market: Market, since: datetime, until: datetime) -> list[Bar]:
    """Return a stock's bars that start in `[since, until]`, the oldest first."""
    rows = MarketCandle.objects.filter(
        symbol=code, interval=MINUTE, venue=market.value, time__range=(since, until)
    ).order_by("time")
    return [_bar(row) for row in rows]


def days_with_gaps(since: datetime) -> list[tuple[str, Market, date]]:
    """Return the days with bars that need the chart, from `since` on: (code, venue, day), newest days first."""
    rows = MarketCandle.objects.filter(source=PARTIAL, time__gte=since).values_list("symbol", "venue", "time")
    days = {(code, Market(venue), at.astimezone(KST).date()) for code, venue, at in rows}
    return sorted(days, key=lambda key: (-key[2].toordinal(), key[0], key[1]))


def _bar(row: MarketCandle) -> Bar:
    at = row.time.astimezone(KST)
    return Bar(
        code=row.symbol,
        market=Market(row.venue),
        day=at.date(),
        minute=f"{at:%H%M}",
        open=row.open,
        high=row.high,
        low=row.low,
        close=row.close,
        volume=row.volume,
        value=row.value,
        count=row.trade_count,
        day_volume=row.day_volume,
        day_value=row.day_value,
        is_whole=row.source in (FEED, CHART),
    )
