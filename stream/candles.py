"""What trades become in the stream worker: minute bars, and the prices of what we hold.

The socket's thread only sets frames aside. Chores fold them and write: bars each second, prices twice a
second, each one statement for all. While the database is away nothing is lost: a day's bars wait in memory,
and of prices the newest. What a process that died had not written is found missing by the running totals,
and mended from the broker's chart (`market.candle_repair`).
"""

import threading
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from itertools import chain
from time import monotonic

from aegis.broker import Trade
from aegis.candles import Bar, MinuteBarAggregator
from aegis.terms import Market
from infra import clock
from market import candles, queries
from market.models import WatchedStock
from portfolio import ledger
from portfolio.models import PriceSource
from stream.consumers import Consumer, FeedPriority, Handler, PeriodicJob, StockSubscriptions

CANDLE_SECONDS = 1.0
PRICE_SECONDS = 0.5
DAYS_END_SECONDS = 60.0
# registrations follow a new connection one by one: by then all of them have, and what they missed is missing
REGISTERED_SECONDS = 15.0
# frames that wait while the day's bars are read back; beyond them the oldest make gaps, and gaps are mended
FRAMES_AT_MOST = 200_000

TRADE_FEEDS: Mapping[str, Market] = {"H0STCNT0": Market.KRX, "H0NXCNT0": Market.NXT, "H0UNCNT0": Market.SOR}
Key = tuple[str, Market, date, str]


Frames = dict[Market, deque[Sequence[Trade]]]


def _no_frames() -> Frames:
    return {venue: deque(maxlen=FRAMES_AT_MOST) for venue in Market}


class Ticks:
    """The trades of one term of the lease. Handlers run on the socket's thread, the rest on those of chores."""

    def __init__(self) -> None:
        # the socket's thread sets aside, chores take: a deque needs no lock for that. Those of a connection
        # that is over wait, closed, for their turn
        self._frames = _no_frames()
        self._closed: deque[Frames] = deque()
        self._tear_at: float | None = None
        self._lock = threading.Lock()  # of the folds, among chores
        self._day: date | None = None
        self._ended: date | None = None
        self._folds: dict[Market, MinuteBarAggregator] = {}
        self._unwritten: dict[Key, Bar] = {}
        self._told: dict[str, Trade] = {}  # of each stock, the trade whose price was written last

    def on_trades(self, venue: Market) -> Handler:
        """Return what takes the frames of one venue's trades."""

        def take(trades: Sequence[Trade], arrived: float) -> None:
            self._frames[venue].append(trades)

        return take

    def connected(self) -> None:
        """Doubt every newest bar: nobody listened for a while."""
        self._close()
        self._tear_at = monotonic() + REGISTERED_SECONDS

    def _close(self) -> None:
        self._closed.append(self._frames)
        self._frames = _no_frames()

    def _fold(self) -> None:
        """Fold what was set aside, once there is a day to fold it into. Call it with the lock held."""
        if self._day is None:
            return
        while self._closed:
            self._fold_all(self._closed.popleft())
            for fold in self._folds.values():
                fold.tear()
        self._fold_all(self._frames)

    def _fold_all(self, frames: Frames) -> None:
        for venue, waiting in frames.items():
            taken = [waiting.popleft() for _ in range(len(waiting))]
            self._folds[venue].add(chain.from_iterable(taken))

    def write_candles(self) -> None:
        """Write what changed since the last time. Raises DatabaseError, and the next time writes it."""
        if self._tear_at is not None and monotonic() > self._tear_at:
            self._tear_at = None
            self._tear()
        self._begin(clock.now().date())
        self._collect()
        candles.write_heard(list(self._unwritten.values()))
        self._unwritten.clear()

    def doubt_at_days_end(self) -> None:
        """Doubt every newest bar once the day's last phase is over: no next trade will tell what followed it."""
        now = clock.now()
        if self._day is not None and self._ended != self._day and queries.days_over(now):
            self._ended = self._day
            self._tear()

    def _tear(self) -> None:
        with self._lock:
            self._fold()
            for fold in self._folds.values():
                fold.tear()

    def _collect(self) -> None:
        with self._lock:
            self._fold()
            changed = [bar for fold in self._folds.values() for bar in fold.changed()]
        self._unwritten.update(((bar.code, bar.market, bar.day, bar.minute), bar) for bar in changed)

    def _begin(self, day: date) -> None:
        """Go on with the bars of `day` as the table has them; frames wait meanwhile."""
        if day == self._day:
            return
        self._collect()
        with self._lock:
            self._day, self._folds = None, {}
        kept = candles.newest(day)
        with self._lock:
            self._folds = {each: MinuteBarAggregator(each, day) for each in Market}
            for fold in self._folds.values():
                fold.resume(bar for bar in kept if bar.market is fold.market)
            self._day = day

    def write_prices(self) -> None:
        """Write what was traded since the last time. Raises DatabaseError, and the next time writes it.

        A trade counts though its price is the one before: a balance that lags may have written another meanwhile.
        """
        with self._lock:
            self._fold()
            newest = self._newest()
        traded = {code: trade for code, trade in newest.items() if self._told.get(code) is not trade}
        prices = {code: trade.price for code, trade in traded.items()}
        again = ledger.mark(prices, PriceSource.FEED, at=clock.now())
        self._told |= {code: trade for code, trade in traded.items() if code not in again}

    def _newest(self) -> dict[str, Trade]:
        """Return what each stock traded at last, on whichever venue that was."""
        newest: dict[str, Trade] = {}
        for fold in self._folds.values():
            for code, trade in fold.newest():
                if code not in newest or newest[code].hhmmss < trade.hhmmss:
                    newest[code] = trade
        return newest


def watched_stocks() -> Iterable[str]:
    return WatchedStock.objects.values_list("pk", flat=True)


def consumer() -> Consumer:
    """Fold trades, write bars and prices."""
    ticks = Ticks()
    return Consumer(
        handlers={tr_id: ticks.on_trades(venue) for tr_id, venue in TRADE_FEEDS.items()},
        stocks=(StockSubscriptions(FeedPriority.WATCHED, watched_stocks),),
        chores=(
            PeriodicJob("candles", CANDLE_SECONDS, ticks.write_candles),
            PeriodicJob("prices", PRICE_SECONDS, ticks.write_prices),
            PeriodicJob("days-end", DAYS_END_SECONDS, ticks.doubt_at_days_end),
        ),
        connected=ticks.connected,
    )
