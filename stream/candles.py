"""Builds minute bars, and prices of held stocks, from trades in the stream worker.

The socket's thread only queues frames. Jobs aggregate and write them: bars each second, prices twice a second, all in
one statement each. While the database is away nothing is lost: the day's bars and the newest prices wait in memory.
Bars that a process did not write before it died are detected by the running totals, and repaired from the broker's
chart (`market.candle_repair`).
"""

import threading
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import date
from itertools import chain
from time import monotonic

from aegis.broker import Trade
from aegis.candles import Bar, MinuteBarAggregator
from aegis.terms import Market
from infra import clock
from market import candles, queries
from portfolio import ledger
from portfolio.models import PriceSource
from stream.consumers import Consumer, Handler, PeriodicJob, StockSubscriptions, SubscriptionPriority

CANDLE_SECONDS = 1.0
PRICE_SECONDS = 0.5
DAYS_END_SECONDS = 60.0
# after a new connection feeds are registered one by one; by then all are registered, and no further gap starts
REGISTERED_SECONDS = 15.0
# the most frames that wait while the day's bars are read; more drop the oldest, which leaves gaps to repair
MAX_FRAMES = 200_000

TRADE_FEEDS: Mapping[str, Market] = {"H0STCNT0": Market.KRX, "H0NXCNT0": Market.NXT, "H0UNCNT0": Market.SOR}
Key = tuple[str, Market, date, str]


Frames = dict[Market, deque[Sequence[Trade]]]


def _no_frames() -> Frames:
    return {venue: deque(maxlen=MAX_FRAMES) for venue in Market}


class CandleWriter:
    """The trades of one session of the leader. Handlers run on the socket's thread, the rest on threads of jobs."""

    def __init__(self) -> None:
        # the socket's thread appends and jobs pop: a deque needs no lock for that. The frames of a connection that
        # ended wait in `_closed`
        self._frames = _no_frames()
        self._closed: deque[Frames] = deque()
        self._mark_suspect_at: float | None = None
        self._lock = threading.Lock()  # guards `_folds` among the jobs
        self._day: date | None = None
        self._ended_day: date | None = None
        self._folds: dict[Market, MinuteBarAggregator] = {}
        self._unwritten: dict[Key, Bar] = {}
        self._written: dict[str, Trade] = {}  # of each stock, the trade whose price was written last

    def on_trades(self, venue: Market) -> Handler:
        """Return the handler that queues the trade frames of one venue."""

        def queue_frame(trades: Sequence[Trade], arrived: float) -> None:
            self._frames[venue].append(trades)

        return queue_frame

    def on_connected(self) -> None:
        """Mark every newest bar as suspect: no trades were received for a while."""
        self._close_frames()
        self._mark_suspect_at = monotonic() + REGISTERED_SECONDS

    def _close_frames(self) -> None:
        self._closed.append(self._frames)
        self._frames = _no_frames()

    def _fold(self) -> None:
        """Aggregate the queued frames into bars, if a day is open. The caller holds the lock."""
        if self._day is None:
            return
        while self._closed:
            self._fold_all(self._closed.popleft())
            for fold in self._folds.values():
                fold.mark_suspect()
        self._fold_all(self._frames)

    def _fold_all(self, frames: Frames) -> None:
        for venue, queued in frames.items():
            batch = [queued.popleft() for _ in range(len(queued))]
            self._folds[venue].add(chain.from_iterable(batch))

    def write_candles(self) -> None:
        """Write the bars that changed since the last call. Raises DatabaseError; the next call then writes them."""
        if self._mark_suspect_at is not None and monotonic() > self._mark_suspect_at:
            self._mark_suspect_at = None
            self._mark_suspect()
        self._open_day(clock.now().date())
        self._collect()
        candles.write_feed_bars(list(self._unwritten.values()))
        self._unwritten.clear()

    def mark_suspect_at_days_end(self) -> None:
        """Mark every newest bar as suspect after the day's last phase: no later trade shows whether it is complete."""
        now = clock.now()
        if self._day is not None and self._ended_day != self._day and queries.is_day_over(now):
            self._ended_day = self._day
            self._mark_suspect()

    def _mark_suspect(self) -> None:
        with self._lock:
            self._fold()
            for fold in self._folds.values():
                fold.mark_suspect()

    def _collect(self) -> None:
        with self._lock:
            self._fold()
            changed = [bar for fold in self._folds.values() for bar in fold.changed()]
        self._unwritten.update(((bar.code, bar.market, bar.day, bar.minute), bar) for bar in changed)

    def _open_day(self, day: date) -> None:
        """Continue with the bars of `day` in the database. Frames wait meanwhile."""
        if day == self._day:
            return
        self._collect()
        with self._lock:
            self._day, self._folds = None, {}
        stored_bars = candles.newest_bars(day)
        with self._lock:
            self._folds = {venue: MinuteBarAggregator(venue, day) for venue in Market}
            for fold in self._folds.values():
                fold.resume(bar for bar in stored_bars if bar.market is fold.market)
            self._day = day

    def write_prices(self) -> None:
        """Write the prices of new trades. Raises DatabaseError; the next call then writes them.

        A new trade counts even if its price did not change: a balance that lags may have written another price.
        """
        with self._lock:
            self._fold()
            newest = self._newest()
        unwritten = {code: trade for code, trade in newest.items() if self._written.get(code) is not trade}
        prices = {code: trade.price for code, trade in unwritten.items()}
        retry_codes = ledger.mark(prices, PriceSource.FEED, at=clock.now())
        self._written |= {code: trade for code, trade in unwritten.items() if code not in retry_codes}

    def _newest(self) -> dict[str, Trade]:
        """Return the last trade of each stock on any venue."""
        newest: dict[str, Trade] = {}
        for fold in self._folds.values():
            for code, trade in fold.newest():
                if code not in newest or newest[code].hhmmss < trade.hhmmss:
                    newest[code] = trade
        return newest


def consumer() -> Consumer:
    """Aggregate trades into bars, and write bars and prices."""
    writer = CandleWriter()
    return Consumer(
        handlers={tr_id: writer.on_trades(venue) for tr_id, venue in TRADE_FEEDS.items()},
        stocks=(StockSubscriptions(SubscriptionPriority.WATCHED, queries.watched_codes),),
        jobs=(
            PeriodicJob("candles", CANDLE_SECONDS, writer.write_candles),
            PeriodicJob("prices", PRICE_SECONDS, writer.write_prices),
            PeriodicJob("days-end", DAYS_END_SECONDS, writer.mark_suspect_at_days_end),
        ),
        on_connected=writer.on_connected,
    )
