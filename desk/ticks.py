"""What trades become in the stream worker: minute bars, and the prices of what we hold.

The socket's thread only folds in memory. Chores write: bars each second, prices twice a second, each one
statement for all. While the database is away nothing is lost: a day's bars wait in memory, and of prices
the newest. What a process that died had not written is found missing by the running totals, and mended
from the broker's chart (`market.mending`).
"""

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from time import monotonic

from aegis.broker import Trade
from aegis.candles import Bar, MinuteFold
from aegis.sessions import Matching, phases_at
from aegis.terms import Market
from desk.plugs import Chore, Plug, Rank, Wish
from kis import clock
from kis.subscriptions import Topic
from market import candles
from market import service as market
from market.models import Stock, WatchedStock
from portfolio import ledger
from portfolio.models import PriceSource
from portfolio.service import PortfolioService

log = logging.getLogger(__name__)

CANDLE_SECONDS = 1.0
PRICE_SECONDS = 0.5
# registrations follow a new connection one by one: by then all of them have, and what they missed is missing
REGISTERED_SECONDS = 15.0
# frames that wait while the day's bars are read back; those beyond make gaps, and gaps are mended
EARLY_FRAMES = 200_000

TRADE_FEEDS: Mapping[str, Market] = {"H0STCNT0": Market.KRX, "H0NXCNT0": Market.NXT, "H0UNCNT0": Market.SOR}
Key = tuple[str, Market, date, str]


class Ticks:
    """The trades of one term of the lease. Handlers run on the socket's thread, the rest on those of chores."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._day: date | None = None
        self._folds: dict[Market, MinuteFold] = {}
        self._early: list[Sequence[Trade]] | None = []
        self._unwritten: dict[Key, Bar] = {}
        self._moved: dict[str, int] = {}
        self._tear_at: float | None = None

    def on_trades(self, trades: Sequence[Trade], arrived: float) -> None:
        """Take a frame's trades, all of one venue."""
        moved = self._moved
        with self._lock:
            if self._early is None:
                self._folds[trades[0].market].add(trades)
            elif len(self._early) < EARLY_FRAMES:
                self._early.append(trades)
            for trade in trades:
                moved[trade.code] = trade.price

    def connected(self) -> None:
        """Doubt every newest bar: nobody listened for a while."""
        self._tear()
        self._tear_at = monotonic() + REGISTERED_SECONDS

    def _tear(self) -> None:
        with self._lock:
            for fold in self._folds.values():
                fold.tear()

    def write_candles(self) -> None:
        """Write what changed since the last time. Raises DatabaseError, and the next time writes it."""
        if self._tear_at is not None and monotonic() > self._tear_at:
            self._tear_at = None
            self._tear()
        self._begin(clock.now().date())
        self._collect()
        candles.write_heard(list(self._unwritten.values()))
        self._unwritten.clear()

    def _collect(self) -> None:
        with self._lock:
            changed = [bar for fold in self._folds.values() for bar in fold.changed()]
        self._unwritten.update(((bar.code, bar.market, bar.day, bar.minute), bar) for bar in changed)

    def _begin(self, day: date) -> None:
        """Go on with the bars of `day` as the table has them; frames wait meanwhile."""
        if day == self._day:
            return
        self._collect()
        with self._lock:
            self._folds = {each: MinuteFold(each, day) for each in Market}
            self._early = [] if self._early is None else self._early
        kept = candles.newest(day)
        with self._lock:
            for fold in self._folds.values():
                fold.resume(bar for bar in kept if bar.market is fold.market)
            for trades in self._early:
                self._folds[trades[0].market].add(trades)
            self._early, self._day = None, day

    def write_prices(self) -> None:
        """Write the newest prices. Raises DatabaseError, and the next time writes them."""
        with self._lock:
            moved, self._moved = self._moved, {}
        again = frozenset(moved)
        try:
            again = ledger.mark(moved, PriceSource.FEED, at=clock.now())
        finally:
            self._put_back({code: moved[code] for code in again})

    def _put_back(self, prices: Mapping[str, int]) -> None:
        with self._lock:
            self._moved.update({code: price for code, price in prices.items() if code not in self._moved})


def watched_stocks() -> Iterable[Topic]:
    return (Topic("H0STCNT0", code) for code in WatchedStock.objects.values_list("pk", flat=True))


def nxt_stocks() -> Iterable[Topic]:
    """Return the NXT feeds of what we hold and NXT trades, while NXT trades."""
    held = [holding.stock_code for holding in PortfolioService().get_portfolio()]
    on_nxt = Stock.objects.filter(pk__in=held, trades_on_nxt=True).values_list("pk", flat=True)
    return [Topic("H0NXCNT0", code) for code in on_nxt] if is_trading(Market.NXT) else []


def is_trading(venue: Market) -> bool:
    now = clock.now()
    return any(phase.matching is Matching.CONTINUOUS for phase in phases_at(market.today(now), venue, now))


def plug() -> Plug:
    """Fold trades, write bars and prices."""
    ticks = Ticks()
    return Plug(
        handlers=dict.fromkeys(TRADE_FEEDS, ticks.on_trades),
        wishes=(
            # before nine and in the evening NXT's is the price there is; beside KRX it is a second one
            Wish(Rank.HELD, lambda: () if is_trading(Market.KRX) else nxt_stocks()),
            Wish(Rank.WATCHED, watched_stocks),
            Wish(Rank.OTHER, nxt_stocks),
        ),
        chores=(
            Chore("candles", CANDLE_SECONDS, ticks.write_candles),
            Chore("prices", PRICE_SECONDS, ticks.write_prices),
        ),
        connected=ticks.connected,
    )
