"""Order books in the stream worker: the newest of each requested book, written each second."""

import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from django.db import DatabaseError

from aegis.terms import Market
from infra import clock
from kis.realtime import BookTick
from kis.subscriptions import Topic
from market import order_books
from stream.consumers import Consumer, PeriodicJob, SubscriptionPriority, SubscriptionRequest

WRITE_SECONDS = 1.0
FEEDS: Mapping[Market, str] = {Market.KRX: "H0STASP0", Market.NXT: "H0NXASP0", Market.SOR: "H0UNASP0"}


class Books:
    """The books of one session of the leader. Handlers run on the socket's thread, the job on its own."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._newest: dict[tuple[str, Market], BookTick] = {}

    def on_books(self, ticks: Sequence[BookTick], arrived: float) -> None:
        with self._lock:
            for tick in ticks:
                self._newest[tick.code, tick.market] = tick

    def write(self) -> None:
        """Write the books that changed since the last call. Raises DatabaseError; the next call then writes them."""
        with self._lock:
            changed, self._newest = self._newest, {}
        now = clock.now()
        try:
            order_books.write([_snapshot(tick, now) for tick in changed.values()])
        except DatabaseError:
            with self._lock:
                self._newest = changed | self._newest
            raise


def _snapshot(tick: BookTick, at: datetime) -> order_books.Snapshot:
    return order_books.Snapshot(
        time=at,
        code=tick.code,
        market=tick.market,
        ask_prices=tick.ask_prices,
        ask_qtys=tick.ask_qtys,
        bid_prices=tick.bid_prices,
        bid_qtys=tick.bid_qtys,
        total_ask_qty=tick.total_ask_qty,
        total_bid_qty=tick.total_bid_qty,
        expected_price=tick.expected_price,
        expected_qty=tick.expected_qty,
    )


def book_topics() -> Iterable[Topic]:
    return [Topic(FEEDS[market], code) for market, code in order_books.requested_books(clock.now())]


def consumer() -> Consumer:
    """Subscribe to the requested order books, and write them."""
    books = Books()
    return Consumer(
        handlers=dict.fromkeys(FEEDS.values(), books.on_books),
        requests=(SubscriptionRequest(SubscriptionPriority.BOOKS, book_topics),),
        jobs=(PeriodicJob("books", WRITE_SECONDS, books.write),),
    )
