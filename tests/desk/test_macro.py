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
from stream.consumers import Consumer, SubscriptionPriority
from tests.kis.test_codec import SAMPLES

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _morning(clock_at) -> None:
    clock_at("2026-11-23 10:00:30")


@pytest.fixture
def consumer() -> Consumer:
    return macro.consumer()


def hear(consumer: Consumer, sample: str) -> None:
    data = Codec().read((SAMPLES / sample).read_text(encoding="utf-8").strip())
    assert isinstance(data, Data)
    consumer.handlers[data.tr_id](realtime.read_records(data), 0.0)


def write(consumer: Consumer) -> None:
    (job,) = consumer.jobs
    job.run()


def topics(consumer: Consumer, rank: SubscriptionPriority) -> list[Topic]:
    return [topic for request in consumer.requests if request.priority is rank for topic in request.topics()]


def test_what_the_feeds_tell_becomes_the_minutes_figures(consumer: Consumer) -> None:
    hear(consumer, "ws_h0upcnt0_20261001_2001_30f.txt")
    hear(consumer, "ws_h0ifcnt0_20260722_A05608_1.txt")
    write(consumer)
    row = MarketMacro.objects.get()
    assert row.kospi200 is not None
    assert row.futures_code == "A05608"
    assert row.basis == (row.kospi200_futures - row.kospi200).quantize(Decimal("0.01"))


def test_what_was_not_heard_again_is_not_written_again(consumer: Consumer, clock_at) -> None:
    hear(consumer, "ws_h0upcnt0_20261001_2001_30f.txt")
    write(consumer)
    clock_at("2026-11-23 10:01:30")
    write(consumer)
    assert MarketMacro.objects.count() == 1


def test_programs_are_kept_by_stock(consumer: Consumer) -> None:
    hear(consumer, "doc_ws_h0stpgm0.txt")
    write(consumer)
    row = ProgramTrade.objects.get()
    assert row.net_qty == row.bought_qty - row.sold_qty


def test_indexes_the_days_future_and_programs_of_what_is_watched_are_listened_to(consumer: Consumer) -> None:
    assert Topic("H0UPCNT0", "2001") in topics(consumer, SubscriptionPriority.INDEX)
    assert not [topic for topic in topics(consumer, SubscriptionPriority.INDEX) if topic.tr_id == "H0IFCNT0"]
    figures.store_figures({"futures_code": "A01612"}, at=clock.now())
    WatchedStock.objects.create(stock_code="005930")
    assert Topic("H0IFCNT0", "A01612") in topics(consumer, SubscriptionPriority.INDEX)
    assert topics(consumer, SubscriptionPriority.PROGRAM) == [Topic("H0STPGM0", "005930")]
