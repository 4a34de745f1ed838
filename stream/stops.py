"""Every trade of a stock with an armed stop is held against it, on the socket's thread, in memory alone.

What fires is handed to a thread of its own, which marks the row and calls a worker; the row decides that it is
once. Rules are read again every second: what is edited, armed or bought more of counts from then on.

What fired is marked before the term is given up, and while the database is away it is kept until it is marked.
"""

import logging
import queue
import threading
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal
from time import monotonic, sleep

from django.conf import settings
from django.db import Error as DatabaseError

from aegis import stops as rules
from aegis.broker import Trade
from aegis.sessions import KST
from aegis.stops import Fired, Heard, Hours, TriggerRule
from aegis.terms import Market
from infra import clock
from kis.realtime import trade_date
from market import queries
from orders import stop_polling, stops
from orders.models import StopRule
from orders.stop_rows import LIVE
from orders.tasks import ask_for_stop, stop
from portfolio.service import PortfolioService
from stream.candles import TRADE_FEEDS
from stream.consumers import Consumer, FeedPriority, PeriodicJob, StockSubscriptions

log = logging.getLogger(__name__)

READ_SECONDS = 1.0
WRITE_SECONDS = 2.0
# a price that the day cannot have is asked about so often, while trades tell it
ASK_AGAIN_SECONDS = 5.0
# how long the firing thread waits for something to do before it looks whether its term is over
LISTEN_SECONDS = 0.5


@dataclass(slots=True)
class ArmedStop:
    """A stop as the socket's thread knows it: its rule, the day's possible prices, the newest price heard.

    Only trades of `venues`, from the time of day `since` on, count; while it holds fire none triggers it, and the last
    is judged afterwards.
    """

    pk: int
    rule: TriggerRule
    possible: range
    venues: frozenset[Market]
    since: str
    holds_fire: bool
    price: int = 0
    totals: dict[str, int] = field(default_factory=dict)  # since it was armed, today
    is_unwritten: bool = False
    ask_at: float = 0.0  # when an impossible price is asked about again, by the monotonic clock
    judged_from: datetime | None = None
    withheld: Trade | None = None  # the newest that counts, heard while it held fire


@dataclass(frozen=True, slots=True)
class StopTrigger:
    """What a trade at `price` won did when it was heard: it fired the stop, or was no possible price of the day."""

    pk: int
    price: int
    at: datetime
    judged_from: datetime | None = None
    is_possible: bool = True


class Stops:
    """The armed stops of one term of the lease."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held for moments: by the socket's thread for one frame
        self._armed: dict[str, list[ArmedStop]] = {}
        self._shots: queue.SimpleQueue[StopTrigger] = queue.SimpleQueue()
        self._day: date | None = None
        self._hours = Hours()
        # the day's running totals of shares, by stock and venue: what does not raise one is no new trade
        self._totals: dict[tuple[str, Market], int] = {}

    def on_trades(self, trades: Sequence[Trade], arrived: float) -> None:
        if not self._armed:
            return
        with self._lock:
            for trade in trades:
                if trade.code in self._armed and self._is_new(trade):
                    self._armed[trade.code] = [each for each in self._armed[trade.code] if self._stays(each, trade)]

    def _is_new(self, trade: Trade) -> bool:
        """Whether a frame tells a trade of today that none before it told."""
        key = trade.code, trade.market
        total = self._totals.get(key, 0)
        if not rules.is_new(trade.qty, trade.volume, total):
            return False
        # most trades continue the total; one that does not may be of another day, whose total would hide all others
        if trade.volume - trade.qty != total and self._is_of_before(trade):
            return False
        self._totals[key] = trade.volume
        return True

    def _is_of_before(self, trade: Trade) -> bool:
        day = trade_date(trade)
        return self._day is not None and len(day) == 8 and day < f"{self._day:%Y%m%d}"

    def _stays(self, armed: ArmedStop, trade: Trade) -> bool:
        """Hold one stop against one trade; False if that fired it."""
        if trade.market not in armed.venues or trade.hhmmss < armed.since:
            return True
        if armed.holds_fire:
            armed.withheld = trade
        return self._is_inside(armed, trade)

    def _is_inside(self, armed: ArmedStop, trade: Trade) -> bool:
        """Judge one trade that counts; False if it fired the stop. While it holds fire, none does."""
        price = trade.price
        if price not in armed.possible:
            if monotonic() >= armed.ask_at:
                armed.ask_at = monotonic() + ASK_AGAIN_SECONDS
                self._shots.put(StopTrigger(armed.pk, price, clock.now(), armed.judged_from, is_possible=False))
            return True
        armed.price, armed.is_unwritten = price, True
        if not armed.holds_fire:
            armed.totals[trade.market.value] = trade.volume
        if armed.holds_fire or not armed.rule.concerns(price):
            return True
        if isinstance(armed.rule.hear(self._heard(trade)), Fired):
            self._shots.put(StopTrigger(armed.pk, price, clock.now(), armed.judged_from))
            return False
        return True

    def _heard(self, trade: Trade) -> Heard:
        return Heard(
            trade.price,
            rules.second_of(trade.hhmmss),
            value=trade.price * trade.qty,
            ask=trade.ask,
            bid=trade.bid,
            counts_alone=self._hours.count_alone(trade.market, trade.hhmmss),
        )

    def read(self) -> None:
        """Read the armed stops again. Highest prices that are not written yet are kept. Raises DatabaseError."""
        now = clock.now()
        phases = queries.today(now)
        day = now.astimezone(KST).date()
        rows = stops.armed()
        average = _averages(rows, now)
        closes = stop_polling.closes(sorted({row.stock_code for row in rows}), now)
        armed = defaultdict(list)
        with self._lock:
            known = {each.pk: each for one in self._armed.values() for each in one}
            is_new_day = day != self._day
            if is_new_day:
                self._day = day
                self._totals.clear()
            self._hours = rules.hours_of(phases)
            for row in rows:
                self._read_totals(row, day)
                price = average[row.stock_code]
                if price is not None:
                    fresh = ArmedStop(
                        row.pk,
                        TriggerRule(row.rule(price), settings.STOP_WITNESS_WON),
                        rules.plausible(closes.get(row.stock_code)),
                        _venues(row),
                        _since(row, now),
                        stops.holds_fire(row, day if phases else None),
                        judged_from=row.counts_since,
                    )
                    renewed = _renewed(fresh, known.get(row.pk), is_new_day=is_new_day)
                    if self._outlasts_withheld(renewed):
                        armed[row.stock_code].append(renewed)
            self._armed = dict(armed)

    def _outlasts_withheld(self, armed: ArmedStop) -> bool:
        """Judge the trade that a stop heard while it held fire, once it does not; False if that fired it."""
        trade = armed.withheld
        if trade is None or armed.holds_fire:
            return True
        armed.withheld = None
        return self._is_inside(armed, trade)

    def _read_totals(self, row: StopRule, day: date) -> None:
        """Take over what another term heard today: a frame of before its totals is no new trade."""
        if row.heard_totals.get("day") != day.isoformat():
            return
        for venue, total in row.heard_totals.items():
            if venue in Market.__members__.values():
                key = row.stock_code, Market(venue)
                self._totals[key] = max(total, self._totals.get(key, 0))

    def write(self) -> None:
        """Write what was heard since the last time. Raises DatabaseError, and the next time writes it."""
        with self._lock:
            heard = [each for one in self._armed.values() for each in one if each.is_unwritten]
            day = self._day or clock.now().astimezone(KST).date()
            told = {
                each.pk: stops.HeardTrades(each.price, each.rule.rule.high, day, dict(each.totals)) for each in heard
            }
            for each in heard:
                each.is_unwritten = False
        try:
            stops.save_last_prices(told, clock.now())
        except DatabaseError:
            with self._lock:
                for each in heard:
                    each.is_unwritten = True
            raise

    def fire(self) -> None:
        """Mark all that fired, and call a worker for each. A shot is put back if the database is away."""
        try:
            shot = self._shots.get(timeout=LISTEN_SECONDS)
            while True:
                self._mark(shot)
                shot = self._shots.get_nowait()
        except queue.Empty:
            return

    def _mark(self, shot: StopTrigger) -> None:
        try:
            is_triggered = shot.is_possible and stops.trigger(
                shot.pk, shot.price, shot.at, seen="feed", judged_from=shot.judged_from
            )
        except DatabaseError:
            self._shots.put(shot)
            sleep(LISTEN_SECONDS)
            raise
        task = stop if is_triggered else ask_for_stop
        if is_triggered or not shot.is_possible:
            try:
                task.delay(shot.pk)
            except Exception:  # the row is marked, and the sweep finds it; what else fired must be marked, too
                log.exception("stop %s: no worker can be called; the next sweep takes it up", shot.pk)

    @property
    def has_fired(self) -> bool:
        """Whether something fired that is not marked yet."""
        return not self._shots.empty()


def _averages(rows: Sequence[StopRule], now: datetime) -> dict[str, Decimal | None]:
    held: dict[str, Decimal | None] = {each.stock_code: each.avg_price for each in PortfolioService().get_portfolio()}
    lacking = {row.stock_code for row in rows} - held.keys()
    return held | {code: stops.average_price(code, now) for code in lacking}


def _since(row: StopRule, now: datetime) -> str:
    """Return the time of day, as six digits, from which trades count: those of the second of arming do.

    A moment that is still to come, because the clock was set back, is no bound.
    """
    since, today = row.counts_since.astimezone(KST), now.astimezone(KST).date()
    return f"{since:%H%M%S}" if since.date() == today and since <= now else ""


def _venues(row: StopRule) -> frozenset[Market]:
    """Return whose trades may trigger a stop; the feed of both venues together does not say which of them it was."""
    return row.venues | {Market.SOR} if len(row.venues) > 1 else row.venues


def _renewed(fresh: ArmedStop, known: ArmedStop | None, *, is_new_day: bool) -> ArmedStop:
    """Return a stop as its row says, with what was heard of it before."""
    if known is None:
        return fresh
    rule, before = fresh.rule.rule, known.rule.rule
    # a change of the basis moves the highest price down: what the table says then counts, not what was heard before
    is_same = (rule.average_price, rule.value, rule.unit) == (before.average_price, before.value, before.unit)
    high = max(rule.high, before.high) if is_same and fresh.since == known.since else rule.high
    rule = replace(rule, high=high)
    fresh.rule = (
        TriggerRule(rule, fresh.rule.least_value) if is_new_day else known.rule.renewed(rule, fresh.rule.least_value)
    )
    fresh.price, fresh.is_unwritten, fresh.ask_at = known.price, known.is_unwritten, known.ask_at
    if not is_new_day and fresh.since == known.since:
        fresh.totals = known.totals
    # what was heard before a person moved it is no trade for the new line
    if not is_new_day and (fresh.since == known.since or not fresh.holds_fire):
        fresh.withheld = known.withheld
    return fresh


def stopped_stocks() -> Iterable[str]:
    """Return the stocks of stops, those first that may trigger or sell: one that is held for a person does neither."""
    rows = StopRule.objects.filter(state__in=LIVE).order_by("pk").values_list("stock_code", "state")
    return dict.fromkeys(code for code, _ in sorted(rows, key=lambda row: row[1] == StopRule.State.HELD_EXTERNALLY))


def triggering_venues() -> Mapping[str, frozenset[Market]]:
    """Return, by stock, the venues whose trades may trigger one of its stops."""
    found: dict[str, frozenset[Market]] = {}
    for row in StopRule.objects.filter(state__in=LIVE):
        found[row.stock_code] = found.get(row.stock_code, frozenset()) | row.venues
    return found


def consumer() -> Consumer:
    """Hold trades against stops."""
    heard = Stops()
    return Consumer(
        handlers=dict.fromkeys(TRADE_FEEDS, heard.on_trades),
        stocks=(StockSubscriptions(FeedPriority.STOPS, stopped_stocks, triggering_venues),),
        chores=(
            PeriodicJob("stops", READ_SECONDS, heard.read),
            PeriodicJob("stops-heard", WRITE_SECONDS, heard.write),
            PeriodicJob("stops-fire", 0.0, heard.fire, has_more=lambda: heard.has_fired),
        ),
    )
