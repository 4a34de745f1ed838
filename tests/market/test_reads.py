"""What strategies and screens read of the market."""

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from aegis.sessions import KST
from aegis.terms import Market
from market import candles, macro, queries
from tests.market.test_candles import BAR

pytestmark = pytest.mark.django_db
CODE = BAR.code
OPEN, CLOSE = datetime(2026, 11, 23, 9, 0, tzinfo=KST), datetime(2026, 11, 23, 15, 31, tzinfo=KST)


@pytest.fixture(autouse=True)
def morning(clock_at: Callable[[str], datetime]) -> None:
    clock_at("2026-11-23 15:40")
    bars = [
        replace(BAR, minute=f"09{minute:02}", open=100 + minute, high=200 + minute, low=50 + minute, close=101 + minute)
        for minute in (0, 1, 4, 5, 9, 59)
    ]
    candles.write_feed_bars(
        [*bars, replace(BAR, minute="1000"), replace(BAR, minute="0901", market=Market.NXT, close=99)]
    )


def test_minutes_come_as_they_are_kept() -> None:
    with CaptureQueriesContext(connection) as captured:
        found = queries.candles(CODE, OPEN, CLOSE)
    assert len(captured) == 1
    assert [candle.time.minute for candle in found] == [0, 1, 4, 5, 9, 59, 0]
    assert (found[1].open, found[1].high, found[1].low, found[1].close) == (101, 201, 51, 102)
    assert (found[1].volume, found[1].value, found[1].trade_count, found[1].is_whole) == (7, 700, 2, True)


def test_longer_intervals_are_made_of_minutes() -> None:
    five = queries.candles(CODE, OPEN, CLOSE, minutes=5)
    assert [f"{candle.time:%H:%M}" for candle in five] == ["09:00", "09:05", "09:55", "10:00"]
    first = five[0]
    assert (first.open, first.high, first.low, first.close) == (100, 204, 50, 105)
    assert (first.volume, first.value, first.trade_count) == (21, 2_100, 6)
    assert [f"{each.time:%H:%M}" for each in queries.candles(CODE, OPEN, CLOSE, minutes=60)] == ["09:00", "10:00"]


@pytest.mark.parametrize(
    ("now", "minutes", "newest", "newest_with_open"),
    [
        ("2026-11-23 10:00:30", 1, "09:59", "10:00"),
        ("2026-11-23 10:01:04", 1, "09:59", "10:00"),
        ("2026-11-23 10:01:05", 1, "10:00", "10:00"),
        ("2026-11-23 10:01:05", 5, "09:55", "10:00"),
        ("2026-11-23 10:05:05", 5, "10:00", "10:00"),
    ],
)
def test_an_interval_that_is_still_traded_comes_only_if_asked_for(
    clock_at: Callable[[str], datetime], now: str, minutes: int, newest: str, newest_with_open: str
) -> None:
    clock_at(now)
    closed = queries.candles(CODE, OPEN, CLOSE, minutes=minutes)
    assert f"{closed[-1].time:%H:%M}" == newest
    assert all(candle.is_closed for candle in closed)
    everything = queries.candles(CODE, OPEN, CLOSE, minutes=minutes, with_open=True)
    assert f"{everything[-1].time:%H:%M}" == newest_with_open
    assert everything[-1].is_closed is (newest == newest_with_open)
    frame = queries.candles_frame(CODE, OPEN, CLOSE, minutes=minutes, with_open=True)
    assert list(frame["is_closed"]) == [candle.is_closed for candle in everything]


def test_a_long_interval_is_only_as_whole_as_its_minutes() -> None:
    candles.write_feed_bars([replace(BAR, minute="0901", count=None, is_whole=False)])
    first, second, *_ = queries.candles(CODE, OPEN, CLOSE, minutes=5)
    assert (first.is_whole, first.trade_count) == (False, None)
    assert (second.is_whole, second.trade_count) == (True, 4)


def test_a_venue_is_read_by_itself() -> None:
    assert [candle.close for candle in queries.candles(CODE, OPEN, CLOSE, market=Market.NXT)] == [99]


def test_an_interval_that_divides_no_hour_is_refused() -> None:
    with pytest.raises(ValueError, match="minutes 7"):
        queries.candles(CODE, OPEN, CLOSE, minutes=7)


def test_the_frame_has_a_row_a_candle_by_its_time() -> None:
    frame = queries.candles_frame(CODE, OPEN, CLOSE, minutes=5)
    rows = queries.candles(CODE, OPEN, CLOSE, minutes=5)
    assert list(frame.columns) == [
        "open",
        "high",
        "low",
        "close",
        "volume",
        "value",
        "trade_count",
        "is_whole",
        "is_closed",
    ]
    assert list(frame.index) == [row.time for row in rows]
    assert str(frame.index.tz) == "Asia/Seoul"
    assert frame.loc[OPEN].to_dict() == {name: getattr(rows[0], name) for name in frame.columns}, (
        "whole won and shares, as the rows have them"
    )
    assert {str(kind) for name, kind in frame.dtypes.items() if name not in ("is_whole", "is_closed")} == {"int64"}


def test_a_frame_without_candles_has_its_columns() -> None:
    frame = queries.candles_frame("000000", OPEN, CLOSE)
    assert len(frame) == 0
    assert "close" in frame.columns


def test_without_pandas_the_frame_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ImportError, match="pip install pandas"):
        queries.candles_frame(CODE, OPEN, CLOSE)


def test_the_last_quote_is_the_newest_close_of_any_venue() -> None:
    with CaptureQueriesContext(connection) as captured:
        quote = queries.last_quote(CODE)
    assert len(captured) == 1
    assert quote == queries.LastQuote(CODE, Market.KRX, BAR.close, datetime(2026, 11, 23, 10, 0, tzinfo=KST))
    assert queries.last_quote("000660") is None


def test_the_newest_macro_figures_are_read(clock_at: Callable[[str], datetime]) -> None:
    assert queries.macro(CLOSE) is None
    macro.store_figures({"kospi200": Decimal("400.00")}, at=OPEN)
    macro.store_figures({"kospi200": Decimal("401.00")}, at=CLOSE)
    assert queries.macro(CLOSE).kospi200 == Decimal("401.00")
    assert queries.macro(OPEN).kospi200 == Decimal("400.00")
