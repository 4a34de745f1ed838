"""Every trade of a stock with an armed stop is held against it, on the socket's thread, in memory alone.

What fires is handed to a thread of its own, which marks the row and calls a worker; the row decides that it is
once. Rules are read again every second: what is edited, armed or bought more of counts from then on.
"""

import logging
import queue
import threading
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from time import monotonic

from django.db import Error as DatabaseError

from aegis import stops as rules
from aegis.broker import Trade
from aegis.stops import Fired, NewHigh, Rule
from desk.plugs import Chore, Plug, Rank, StockWish
from desk.ticks import TRADE_FEEDS
from kis import clock
from orders import stop_watch, stops
from orders.models import StopRule
from orders.tasks import ask_for_stop, stop
from portfolio.service import PortfolioService

log = logging.getLogger(__name__)

READ_SECONDS = 1.0
WRITE_SECONDS = 2.0
# a price that the day cannot have is asked about so often, while trades tell it
ASK_AGAIN_SECONDS = 5.0
# how long the firing thread waits for something to do before it looks whether its term is over
LISTEN_SECONDS = 0.5


@dataclass(slots=True)
class Armed:
    """A stop as the socket's thread knows it: its rule, the day's possible prices, the newest price heard."""

    pk: int
    rule: Rule
    possible: range
    price: int = 0
    is_unwritten: bool = False
    ask_at: float = 0.0  # when an impossible price is asked about again, by the monotonic clock


@dataclass(frozen=True, slots=True)
class Shot:
    """What a trade at `price` won did when it was heard: it fired the stop, or was no possible price of the day."""

    pk: int
    price: int
    at: datetime
    is_possible: bool = True


class Stops:
    """The armed stops of one term of the lease."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for moments: by the socket's thread for one frame
        self._armed: dict[str, list[Armed]] = {}
        self._shots: queue.SimpleQueue[Shot] = queue.SimpleQueue()

    def on_trades(self, trades: Sequence[Trade], arrived: float) -> None:
        if not self._armed:
            return
        with self._lock:
            for trade in trades:
                if trade.code in self._armed:
                    self._armed[trade.code] = [each for each in self._armed[trade.code] if self._stays(each, trade)]

    def _stays(self, armed: Armed, trade: Trade) -> bool:
        """Hold one stop against one trade; False where that fired it."""
        price = trade.price
        if price not in armed.possible:
            if monotonic() >= armed.ask_at:
                armed.ask_at = monotonic() + ASK_AGAIN_SECONDS
                self._shots.put(Shot(armed.pk, price, clock.now(), is_possible=False))
            return True
        armed.price, armed.is_unwritten = price, True
        verdict = rules.evaluate(armed.rule, price)
        if isinstance(verdict, NewHigh):
            armed.rule = replace(armed.rule, high=verdict.price)
        if isinstance(verdict, Fired):
            self._shots.put(Shot(armed.pk, price, clock.now()))
            return False
        return True

    def read(self) -> None:
        """Read the armed stops again. Highest prices that are not written yet are kept. Raises DatabaseError."""
        rows = stops.armed()
        held = {holding.stock_code: holding.avg_price for holding in PortfolioService().get_portfolio()}
        lacking = {row.stock_code for row in rows} - held.keys()
        average = held | {code: stops.average_price(code, clock.now()) for code in lacking}
        closes = stop_watch.closes(sorted({row.stock_code for row in rows}), clock.now())
        armed = defaultdict(list)
        with self._lock:
            known = {each.pk: each for one in self._armed.values() for each in one}
            for row in rows:
                price = average[row.stock_code]
                if price is not None:
                    rule = row.rule(price)
                    possible = rules.plausible(closes.get(row.stock_code))
                    armed[row.stock_code].append(_renewed(row, rule, possible, known.get(row.pk)))
            self._armed = dict(armed)

    def write(self) -> None:
        """Write what was heard since the last time. Raises DatabaseError, and the next time writes it."""
        with self._lock:
            heard = [each for one in self._armed.values() for each in one if each.is_unwritten]
            prices = {each.pk: (each.price, each.rule.high) for each in heard}
            for each in heard:
                each.is_unwritten = False
        try:
            stops.note_heard(prices, clock.now())
        except DatabaseError:
            with self._lock:
                for each in heard:
                    each.is_unwritten = True
            raise

    def fire(self) -> None:
        """Mark what fired and call a worker for it. A shot is put back where the database is away."""
        try:
            shot = self._shots.get(timeout=LISTEN_SECONDS)
        except queue.Empty:
            return
        try:
            if not shot.is_possible:
                ask_for_stop.delay(shot.pk)
            elif stops.trigger(shot.pk, shot.price, shot.at, seen="feed"):
                stop.delay(shot.pk)
        except DatabaseError:
            self._shots.put(shot)
            raise


def _renewed(row: StopRule, rule: Rule, possible: range, known: Armed | None) -> Armed:
    if known is None:
        return Armed(row.pk, rule, possible)
    # a split moves the highest price down: what the table says then counts, not what was heard before
    high = max(rule.high, known.rule.high) if known.rule.average_price == rule.average_price else rule.high
    return Armed(row.pk, replace(rule, high=high), possible, known.price, known.is_unwritten, known.ask_at)


def stopped_stocks() -> Iterable[str]:
    rows = StopRule.objects.filter(state__in=stops.LIVE).order_by("pk")
    return dict.fromkeys(rows.values_list("stock_code", flat=True))


def plug() -> Plug:
    """Hold trades against stops."""
    heard = Stops()
    return Plug(
        handlers=dict.fromkeys(TRADE_FEEDS, heard.on_trades),
        stocks=(StockWish(Rank.STOPS, stopped_stocks),),
        chores=(
            Chore("stops", READ_SECONDS, heard.read),
            Chore("stops-heard", WRITE_SECONDS, heard.write),
            Chore("stops-fire", 0.0, heard.fire),
        ),
    )
