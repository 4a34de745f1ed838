"""Order books that somebody asked for: from the feed into the table, and back to whoever asked."""

from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from django.db import OperationalError

from aegis.terms import Market
from infra import clock
from kis import realtime
from kis.codec import Codec, Data
from kis.stream import Stream
from kis.subscriptions import Topic
from market import order_books
from market.models import BookSnapshot, KeptBook
from monitor import retention
from simulator.api.server import Simulator
from stream import books as desk_books
from stream.consumers import Consumer, SubscriptionPriority
from tests.desk.test_stream import asked, stream, term, wait_for
from tests.kis.test_codec import SAMPLES

__all__ = ("asked", "stream", "term")

pytestmark = pytest.mark.django_db
ClockAt = Callable[[str], datetime]
CODE = "005930"
FRAME = "ws_h0stasp0_20260720_005930_vts_62f.txt"


@pytest.fixture(autouse=True)
def _morning(clock_at: ClockAt) -> None:
    clock_at("2026-11-23 10:00:30")


@pytest.fixture
def consumer() -> Consumer:
    return desk_books.consumer()


def hear(consumer: Consumer) -> realtime.BookTick:
    data = Codec().read((SAMPLES / FRAME).read_text(encoding="utf-8").strip())
    assert isinstance(data, Data)
    ticks = realtime.read_records(data)
    consumer.handlers[data.tr_id](ticks, 0.0)
    return ticks[-1]


def write(consumer: Consumer) -> None:
    (job,) = consumer.jobs
    job.run()


def topics(consumer: Consumer) -> list[Topic]:
    return [topic for request in consumer.requests for topic in request.topics()]


def in_minutes(count: float) -> datetime:
    return clock.now() + timedelta(minutes=count)


def test_nobody_listens_to_a_book_that_nobody_asked_for(consumer: Consumer) -> None:
    assert topics(consumer) == []
    assert [request.priority for request in consumer.requests] == [SubscriptionPriority.BOOKS]


def test_a_book_is_listened_to_on_its_venue_for_as_long_as_asked(consumer: Consumer, clock_at: ClockAt) -> None:
    order_books.request_books([CODE, "000660"], until=in_minutes(10))
    order_books.request_books([CODE], until=in_minutes(30), market=Market.NXT)
    assert topics(consumer) == [Topic("H0STASP0", "000660"), Topic("H0STASP0", CODE), Topic("H0NXASP0", CODE)]
    clock_at("2026-11-23 10:20:00")
    assert topics(consumer) == [Topic("H0NXASP0", CODE)]


def test_whoever_asks_for_longer_prevails(consumer: Consumer) -> None:
    later = in_minutes(30)
    order_books.request_books([CODE], until=later)
    order_books.request_books([CODE, CODE], until=in_minutes(5))
    assert KeptBook.objects.get().until == later


def test_ten_levels_come_back_as_they_were_heard(consumer: Consumer) -> None:
    tick = hear(consumer)
    write(consumer)
    book = order_books.newest_book(CODE, now=clock.now())
    assert book is not None
    assert (book.ask_prices, book.ask_qtys, book.bid_prices, book.bid_qtys) == (
        tick.ask_prices,
        tick.ask_qtys,
        tick.bid_prices,
        tick.bid_qtys,
    )
    assert len(book.ask_prices) == 10
    assert (book.total_ask_qty, book.total_bid_qty) == (tick.total_ask_qty, tick.total_bid_qty)
    assert (book.code, book.market) == (CODE, Market.KRX)
    assert in_minutes(-1) < book.time <= clock.now()


def test_what_did_not_change_is_not_written_again(consumer: Consumer, clock_at: ClockAt) -> None:
    hear(consumer)
    hear(consumer)
    write(consumer)
    clock_at("2026-11-23 10:00:31")
    write(consumer)
    assert BookSnapshot.objects.count() == 1
    hear(consumer)
    write(consumer)
    first, second = order_books.between(CODE, in_minutes(-1), in_minutes(1))
    assert first.time < second.time


def test_yesterdays_book_is_not_the_newest(consumer: Consumer, clock_at: ClockAt) -> None:
    hear(consumer)
    write(consumer)
    clock_at("2026-11-24 09:00:00")
    assert order_books.newest_book(CODE, now=clock.now()) is None
    assert order_books.newest_book("000660", now=clock.now()) is None


def test_the_newest_is_found_on_a_leap_day_too(consumer: Consumer, clock_at: ClockAt) -> None:
    clock_at("2028-02-29 10:00:00")
    hear(consumer)
    write(consumer)
    assert order_books.newest_book(CODE, now=clock.now()) is not None


def test_what_could_not_be_written_is_written_the_next_time(
    consumer: Consumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(snapshots: object) -> None:
        raise OperationalError("server closed the connection unexpectedly")

    hear(consumer)
    with monkeypatch.context() as patch:
        patch.setattr(order_books, "write", away)
        with pytest.raises(OperationalError):
            write(consumer)
    write(consumer)
    assert BookSnapshot.objects.count() == 1


def test_old_books_and_wishes_go_at_night(consumer: Consumer, clock_at: ClockAt, settings) -> None:
    settings.KEEP_BOOKS_DAYS = 7
    order_books.request_books([CODE], until=in_minutes(1))
    hear(consumer)
    write(consumer)
    assert retention.delete_expired(clock_at("2026-11-24 23:00:00")) == {}
    assert retention.delete_expired(clock_at("2026-12-01 23:00:00")) == {"books": 2}
    assert not BookSnapshot.objects.exists()
    assert not KeptBook.objects.exists()


def test_the_exchanges_book_comes_through_the_socket(stream: Stream, simulator: Simulator) -> None:
    order_books.request_books([CODE], until=in_minutes(60))
    wait_for(lambda: Topic("H0STASP0", CODE) in stream.held)
    simulator.set_price(CODE, 70_000, freeze=False)
    simulator.step(5)
    wait_for(lambda: order_books.newest_book(CODE, now=clock.now()) is not None)
    book = order_books.newest_book(CODE, now=clock.now())
    assert book is not None
    assert book.bid_prices[0] < book.ask_prices[0]
    assert list(book.ask_prices) == sorted(book.ask_prices)
