"""Bars into the table and back."""

from dataclasses import replace
from datetime import date, datetime

import pytest
from django.db import IntegrityError, connection
from django.test.utils import CaptureQueriesContext

from aegis.candles import Bar
from aegis.sessions import KST
from aegis.terms import Market
from market import candles, partitions
from market.models import MarketCandle

pytestmark = pytest.mark.django_db
DAY = date(2026, 11, 23)
BAR = Bar(
    code="005930",
    market=Market.KRX,
    day=DAY,
    minute="0900",
    open=100,
    high=110,
    low=90,
    close=105,
    volume=7,
    value=700,
    count=2,
    day_volume=7,
    day_value=700,
    is_whole=True,
)
LATER = replace(BAR, minute="0901", volume=3, value=300, day_volume=10, day_value=1_000)


def sources() -> dict[str, str]:
    return {f"{row.time.astimezone(KST):%H%M}": row.source for row in MarketCandle.objects.all()}


def test_a_bar_is_kept_as_it_was_told() -> None:
    candles.write_feed_bars([BAR, LATER])
    assert candles.newest_bars(DAY) == [LATER]
    assert candles.bars_of("005930", Market.KRX, BAR.time, LATER.time) == [BAR, LATER]
    assert MarketCandle.objects.first().time == datetime(2026, 11, 23, 9, 1, tzinfo=KST)


def test_any_number_of_bars_is_one_statement_beside_its_savepoint() -> None:
    partitions.ensure([DAY])
    bars = [replace(BAR, code=f"{number:06}") for number in range(40)]
    with CaptureQueriesContext(
        connection,
    ) as queries:
        candles.write_feed_bars(bars)
    assert sum("INSERT" in query["sql"] for query in queries) == 1
    assert len(queries) == 3
    assert MarketCandle.objects.count() == 40


def test_the_newest_word_on_a_bar_counts() -> None:
    candles.write_feed_bars([replace(BAR, count=1, volume=5)])
    candles.write_feed_bars([BAR])
    assert candles.newest_bars(DAY) == [BAR]


@pytest.mark.django_db(transaction=True)
def test_a_missing_month_is_made_when_its_first_bar_comes() -> None:
    old = replace(BAR, day=date(2024, 2, 29))
    candles.write_feed_bars([old, BAR])
    assert candles.newest_bars(old.day) == [old]


@pytest.mark.django_db(transaction=True)
def test_a_bar_against_all_reason_is_refused() -> None:
    partitions.ensure([DAY])
    with pytest.raises(IntegrityError):
        candles.write_feed_bars([replace(BAR, low=101)])


def test_what_a_chart_has_mended_the_feed_does_not_touch() -> None:
    candles.write_feed_bars([replace(BAR, is_whole=False)])
    assert sources() == {"0900": "PARTIAL"}
    candles.write_repaired_bars([replace(BAR, high=120, count=None)])
    candles.write_feed_bars([replace(BAR, is_whole=False)])
    assert sources() == {"0900": "CHART"}
    assert candles.newest_bars(DAY)[0].high == 120


def test_what_the_feed_heard_whole_a_chart_does_not_touch() -> None:
    candles.write_feed_bars([BAR])
    candles.write_repaired_bars([replace(BAR, high=120, count=None), replace(LATER, count=None)])
    assert sources() == {"0900": "FEED", "0901": "CHART"}
    assert candles.bars_of("005930", Market.KRX, BAR.time, BAR.time) == [BAR]


def test_venues_have_their_own_bars() -> None:
    nxt = replace(BAR, market=Market.NXT, close=104)
    candles.write_feed_bars([BAR, nxt])
    assert candles.newest_bars(DAY) == [BAR, nxt]
