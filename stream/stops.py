"""Checks each trade of a stock against its armed stops, on the socket's thread and in memory only.

A trigger is passed to a thread of its own, which updates the row and calls a worker; the row makes sure that this
happens once. Rules are read again every second: edits, newly armed stops and further buys count from then on.

Triggers are written before the leader gives up the lease. While the database is away they are kept.
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
from aegis.stops import Fired, Hours, StopTrade, TriggerRule
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
from stream.consumers import Consumer, PeriodicJob, StockSubscriptions, SubscriptionPriority

log = logging.getLogger(__name__)

READ_SECONDS = 1.0
WRITE_SECONDS = 2.0
# the interval at which an impossible price of the day is checked, while trades have it
CHECK_AGAIN_SECONDS = 5.0
# how long the triggering thread waits for work before it checks whether its session is over
LISTEN_SECONDS = 0.5


@dataclass(slots=True)
class ArmedStop:
    """A stop in the memory of the socket's thread: its rule, the day's possible prices, the newest price received.

    Only trades of `venues` from the time of day `since` on count. While `awaits_base_price` is true no trade triggers
    it; the last of these trades is evaluated afterwards.
    """

    pk: int
    rule: TriggerRule
    possible: range
    venues: frozenset[Market]
    since: str
    awaits_base_price: bool
    price: int = 0
    totals: dict[str, int] = field(default_factory=dict)  # the day's running totals by venue, since it was armed
    is_unwritten: bool = False
    check_again_at: float = 0.0  # when an impossible price is checked again, by the monotonic clock
    judged_from: datetime | None = None
    deferred_trade: Trade | None = None  # the newest trade that counts, received while it held fire


@dataclass(frozen=True, slots=True)
class StopTrigger:
    """A trade at `price` won that triggered a stop, or that has an impossible price of the day (not `is_possible`)."""

    pk: int
    price: int
    at: datetime
    judged_from: datetime | None = None
    is_possible: bool = True


class Stops:
    """The armed stops of one session of the leader."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # held briefly: by the socket's thread for one frame
        self._armed: dict[str, list[ArmedStop]] = {}
        self._triggers: queue.SimpleQueue[StopTrigger] = queue.SimpleQueue()
        self._day: date | None = None
        self._hours = Hours()
        # the day's running totals of shares, by stock and venue: a trade that does not raise one is not new
        self._totals: dict[tuple[str, Market], int] = {}

    def on_trades(self, trades: Sequence[Trade], arrived: float) -> None:
        if not self._armed:
            return
        with self._lock:
            for trade in trades:
                if trade.code in self._armed and self._is_new(trade):
                    self._armed[trade.code] = [
                        armed for armed in self._armed[trade.code] if self._stays_armed(armed, trade)
                    ]

    def _is_new(self, trade: Trade) -> bool:
        """Whether the trade is of today and was not in an earlier frame."""
        key = trade.code, trade.market
        total = self._totals.get(key, 0)
        if not rules.is_new(trade.qty, trade.volume, total):
            return False
        # most trades continue the total; another one may be of an earlier day, whose total would hide today's trades
        if trade.volume - trade.qty != total and self._is_of_earlier_day(trade):
            return False
        self._totals[key] = trade.volume
        return True

    def _is_of_earlier_day(self, trade: Trade) -> bool:
        day = trade_date(trade)
        return self._day is not None and len(day) == 8 and day < f"{self._day:%Y%m%d}"

    def _stays_armed(self, armed: ArmedStop, trade: Trade) -> bool:
        """Check one stop against one trade. Return False if the trade triggers it."""
        if trade.market not in armed.venues or trade.hhmmss < armed.since:
            return True
        if armed.awaits_base_price:
            armed.deferred_trade = trade
        return self._evaluate(armed, trade)

    def _evaluate(self, armed: ArmedStop, trade: Trade) -> bool:
        """Evaluate one trade that counts. Return False if it triggers the stop; none does while it holds fire."""
        price = trade.price
        if price not in armed.possible:
            if monotonic() >= armed.check_again_at:
                armed.check_again_at = monotonic() + CHECK_AGAIN_SECONDS
                self._triggers.put(StopTrigger(armed.pk, price, clock.now(), armed.judged_from, is_possible=False))
            return True
        armed.price, armed.is_unwritten = price, True
        if not armed.awaits_base_price:
            armed.totals[trade.market.value] = trade.volume
        if armed.awaits_base_price or not armed.rule.concerns(price):
            return True
        if isinstance(armed.rule.hear(self._to_heard(trade)), Fired):
            self._triggers.put(StopTrigger(armed.pk, price, clock.now(), armed.judged_from))
            return False
        return True

    def _to_heard(self, trade: Trade) -> StopTrade:
        return StopTrade(
            trade.price,
            rules.second_of(trade.hhmmss),
            value=trade.price * trade.qty,
            ask=trade.ask,
            bid=trade.bid,
            counts_alone=self._hours.count_alone(trade.market, trade.hhmmss),
        )

    def read(self) -> None:
        """Read the armed stops again, and keep highest prices that are not written yet. Raises DatabaseError."""
        now = clock.now()
        phases = queries.today(now)
        day = now.astimezone(KST).date()
        rows = stops.armed()
        averages = _averages(rows, now)
        closes = stop_polling.closes(sorted({row.stock_code for row in rows}), now)
        armed = defaultdict(list)
        with self._lock:
            previous = {old.pk: old for old_stops in self._armed.values() for old in old_stops}
            is_new_day = day != self._day
            if is_new_day:
                self._day = day
                self._totals.clear()
            self._hours = rules.hours_of(phases)
            for row in rows:
                self._read_totals(row, day)
                average_price = averages[row.stock_code]
                if average_price is not None:
                    fresh = ArmedStop(
                        row.pk,
                        TriggerRule(row.rule(average_price), settings.STOP_WITNESS_WON),
                        rules.plausible(closes.get(row.stock_code)),
                        _venues(row),
                        _since(row, now),
                        stops.awaits_base_price(row, day if phases else None),
                        judged_from=row.counts_since,
                    )
                    current = _carry_over(fresh, previous.get(row.pk), is_new_day=is_new_day)
                    if self._survives_deferred_trade(current):
                        armed[row.stock_code].append(current)
            self._armed = dict(armed)

    def _survives_deferred_trade(self, armed: ArmedStop) -> bool:
        """Evaluate the trade received while the stop held fire, if it no longer does. Return False if it triggers."""
        trade = armed.deferred_trade
        if trade is None or armed.awaits_base_price:
            return True
        armed.deferred_trade = None
        return self._evaluate(armed, trade)

    def _read_totals(self, row: StopRule, day: date) -> None:
        """Take over the running totals of an earlier session today: a frame that does not raise them is not new."""
        if row.feed_totals.get("day") != day.isoformat():
            return
        for venue, total in row.feed_totals.items():
            if venue in Market.__members__.values():
                key = row.stock_code, Market(venue)
                self._totals[key] = max(total, self._totals.get(key, 0))

    def write(self) -> None:
        """Write the prices received since the last call. Raises DatabaseError; the next call then writes them."""
        with self._lock:
            unwritten = [armed for armed_stops in self._armed.values() for armed in armed_stops if armed.is_unwritten]
            day = self._day or clock.now().astimezone(KST).date()
            trades_by_stop = {
                armed.pk: stops.FeedTrades(armed.price, armed.rule.rule.high, day, dict(armed.totals))
                for armed in unwritten
            }
            for armed in unwritten:
                armed.is_unwritten = False
        try:
            stops.save_last_prices(trades_by_stop, clock.now())
        except DatabaseError:
            with self._lock:
                for armed in unwritten:
                    armed.is_unwritten = True
            raise

    def write_triggers(self) -> None:
        """Write all triggers, and call a worker for each. A trigger is put back if the database is away."""
        try:
            trigger = self._triggers.get(timeout=LISTEN_SECONDS)
            while True:
                self._write_trigger(trigger)
                trigger = self._triggers.get_nowait()
        except queue.Empty:
            return

    def _write_trigger(self, trigger: StopTrigger) -> None:
        try:
            is_triggered = trigger.is_possible and stops.trigger(
                trigger.pk, trigger.price, trigger.at, seen="feed", judged_from=trigger.judged_from
            )
        except DatabaseError:
            self._triggers.put(trigger)
            sleep(LISTEN_SECONDS)
            raise
        task = stop if is_triggered else ask_for_stop
        if is_triggered or not trigger.is_possible:
            try:
                task.delay(trigger.pk)
            except Exception:  # the row is TRIGGERED, and the sweep finds it; the other triggers must be written too
                log.exception("stop %s: no worker can be called; the next sweep takes it up", trigger.pk)

    @property
    def has_unwritten_triggers(self) -> bool:
        """Whether a trigger is not written yet."""
        return not self._triggers.empty()


def _averages(rows: Sequence[StopRule], now: datetime) -> dict[str, Decimal | None]:
    averages: dict[str, Decimal | None] = {
        holding.stock_code: holding.avg_price for holding in PortfolioService().get_portfolio()
    }
    missing_codes = {row.stock_code for row in rows} - averages.keys()
    return averages | {code: stops.average_price(code, now) for code in missing_codes}


def _since(row: StopRule, now: datetime) -> str:
    """Return the time of day, as six digits, from which trades count; trades in the second of arming count.

    Return an empty text, so that all trades count, if that time is in the future because the clock was set back.
    """
    since, today = row.counts_since.astimezone(KST), now.astimezone(KST).date()
    return f"{since:%H%M%S}" if since.date() == today and since <= now else ""


def _venues(row: StopRule) -> frozenset[Market]:
    """Return the venues whose trades may trigger a stop. The feed of both venues does not show the venue of a trade."""
    return row.venues | {Market.SOR} if len(row.venues) > 1 else row.venues


def _carry_over(fresh: ArmedStop, previous: ArmedStop | None, *, is_new_day: bool) -> ArmedStop:
    """Return the stop of a row, with the prices and totals that were received for it before."""
    if previous is None:
        return fresh
    rule, old_rule = fresh.rule.rule, previous.rule.rule
    # a change of the average price, the value or the unit may lower the highest price: the row's highest price counts
    is_same = (rule.average_price, rule.value, rule.unit) == (old_rule.average_price, old_rule.value, old_rule.unit)
    high = max(rule.high, old_rule.high) if is_same and fresh.since == previous.since else rule.high
    rule = replace(rule, high=high)
    fresh.rule = (
        TriggerRule(rule, fresh.rule.least_value)
        if is_new_day
        else previous.rule.with_rule(rule, fresh.rule.least_value)
    )
    fresh.price, fresh.is_unwritten = previous.price, previous.is_unwritten
    fresh.check_again_at = previous.check_again_at
    if not is_new_day and fresh.since == previous.since:
        fresh.totals = previous.totals
    # a trade received before an operator edited the stop does not count for the new limit
    if not is_new_day and (fresh.since == previous.since or not fresh.awaits_base_price):
        fresh.deferred_trade = previous.deferred_trade
    return fresh


def stop_codes() -> Iterable[str]:
    """Return the stocks of stops. Stops that are held for an operator come last: they neither trigger nor sell."""
    rows = StopRule.objects.filter(state__in=LIVE).order_by("pk").values_list("stock_code", "state")
    return dict.fromkeys(code for code, _ in sorted(rows, key=lambda row: row[1] == StopRule.State.HELD_EXTERNALLY))


def triggering_venues() -> Mapping[str, frozenset[Market]]:
    """Return, by stock, the venues whose trades may trigger one of its stops."""
    venues: dict[str, frozenset[Market]] = {}
    for row in StopRule.objects.filter(state__in=LIVE):
        venues[row.stock_code] = venues.get(row.stock_code, frozenset()) | row.venues
    return venues


def consumer() -> Consumer:
    """Check trades against stops."""
    armed_stops = Stops()
    return Consumer(
        handlers=dict.fromkeys(TRADE_FEEDS, armed_stops.on_trades),
        stocks=(StockSubscriptions(SubscriptionPriority.STOPS, stop_codes, triggering_venues),),
        jobs=(
            PeriodicJob("stops", READ_SECONDS, armed_stops.read),
            PeriodicJob("stops-heard", WRITE_SECONDS, armed_stops.write),
            PeriodicJob(
                "stops-fire", 0.0, armed_stops.write_triggers, has_more=lambda: armed_stops.has_unwritten_triggers
            ),
        ),
    )
