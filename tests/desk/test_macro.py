"""Indexes, the future and programs, from the feed into the tables."""

from decimal import Decimal

import pytest

from infra import clock
from kis import realtime
from kis.codec import Codec, Data
from kis.subscriptions import Topic
from market import macro as figures
from market.models import MarketMacro, ProgramTrade, WatchedStock
from stream import macro
from stream.consumers import Consumer, FeedPriority
from tests.kis.test_codec import SAMPLES

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _morning(clock_at) -> None:
    clock_at("2026-11-23 10:00:30")


@pytest.fixture
def plug() -> Consumer:
    return macro.consumer()


def hear(plug: Consumer, sample: str) -> None:
    data = Codec().read((SAMPLES / sample).read_text(encoding="utf-8").strip())
    assert isinstance(data, Data)
    plug.handlers[data.tr_id](realtime.read(data), 0.0)


def write(plug: Consumer) -> None:
    (chore,) = plug.chores
    chore.run()


def topics(plug: Consumer, rank: FeedPriority) -> list[Topic]:
    return [topic for wish in plug.wishes if wish.rank is rank for topic in wish.topics()]


def test_what_the_feeds_tell_becomes_the_minutes_figures(plug: Consumer) -> None:
    hear(plug, "ws_h0upcnt0_20261001_2001_30f.txt")
    hear(plug, "ws_h0ifcnt0_20260722_A05608_1.txt")
    write(plug)
    row = MarketMacro.objects.get()
    assert row.kospi200 is not None
    assert row.futures_code == "A05608"
    assert row.basis == (row.kospi200_futures - row.kospi200).quantize(Decimal("0.01"))


def test_what_was_not_heard_again_is_not_written_again(plug: Consumer, clock_at) -> None:
    hear(plug, "ws_h0upcnt0_20261001_2001_30f.txt")
    write(plug)
    clock_at("2026-11-23 10:01:30")
    write(plug)
    assert MarketMacro.objects.count() == 1


def test_programs_are_kept_by_stock(plug: Consumer) -> None:
    hear(plug, "doc_ws_h0stpgm0.txt")
    write(plug)
    row = ProgramTrade.objects.get()
    assert row.net_qty == row.bought_qty - row.sold_qty


def test_indexes_the_days_future_and_programs_of_what_is_watched_are_listened_to(plug: Consumer) -> None:
    assert Topic("H0UPCNT0", "2001") in topics(plug, FeedPriority.INDEX)
    assert not [topic for topic in topics(plug, FeedPriority.INDEX) if topic.tr_id == "H0IFCNT0"]
    figures.keep({"futures_code": "A01612"}, at=clock.now())
    WatchedStock.objects.create(stock_code="005930")
    assert Topic("H0IFCNT0", "A01612") in topics(plug, FeedPriority.INDEX)
    assert topics(plug, FeedPriority.PROGRAM) == [Topic("H0STPGM0", "005930")]
