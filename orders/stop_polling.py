"""Polls the broker's price for armed stops whose feed has no trades, and reports feeds that fail.

A stock without trades is not a failed feed: a feed is reported if it is not registered, or if the broker's total shows
a trade that the feed did not deliver. While its feed is registered, a quiet stock is polled less and less often;
otherwise it is polled every few seconds.

A polled price counts as a trade if the venue's running total of shares rose since the stop was armed.
"""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, time, timedelta
from decimal import Decimal
from typing import Any

from django.db import InterfaceError, OperationalError
from django.utils.translation import gettext

from aegis import stops as rules
from aegis.broker import Broker, BrokerError, Quote
from aegis.sessions import KST, Matching, auction_at, is_trading
from aegis.stops import Crossing, Fired, NewHigh, StopTrade, TriggerRule
from aegis.terms import Market
from infra.advisory_lock import advisory_lock
from kis.catalogue import CallPriority
from kis.serving import serving
from kis.status import StreamStatus
from market import queries
from market.models import DailyPrice, Stock
from orders import base_prices, stops
from orders.models import StopRule
from portfolio.models import PortfolioEvent

log = logging.getLogger(__name__)

FEEDS = {Market.KRX: "H0STCNT0", Market.NXT: "H0NXCNT0"}
# a stock without a trade for this long is polled
SILENT_AFTER = timedelta(seconds=15)
# a new stop's feed, or any feed after a start, is registered within this time: until then its absence is not reported
GRACE_SECONDS = 15.0
# the watch runs every five seconds: after a longer break the times at which feeds were registered count from zero
BREAK_SECONDS = 30.0
WRITE_SECONDS = 10.0
# a person who arms a stop waits no longer for a quote
QUOTE_PATIENCE_SECONDS = 3.0
# the clocks of two machines may differ by this much
SKEW_SECONDS = 1.0
_MOMENTS = ("looked_at", "held_since", "unheld_since", "asked_at", "untold_at")
# seconds between two polls of a quiet stock whose feed is registered: doubled with each poll
SHORTEST_PAUSE, LONGEST_PAUSE = 5.0, 160.0


@dataclass(slots=True)
class PollState:
    """The polling state of one stop, stored in its row. Times are seconds since 1970, 0 for never.

    `volumes` has the newest running total of shares on `day` by venue. `withheld` has the total up to which trades were
    judged when the stop had to wait for its base price. `crossing` and `rise` are those of `TriggerRule`. `untold_at`
    is when a poll first showed a trade that the feed had not delivered. `base_at` and `base_pause` belong to
    `base_prices`.
    """

    day: str = ""
    volumes: dict[str, int] = field(default_factory=dict)
    withheld: dict[str, int] = field(default_factory=dict)
    crossing: tuple[int, int, int] | None = None
    rise: tuple[int, int, int] | None = None
    looked_at: float = 0.0
    held_since: float = 0.0
    unheld_since: float = 0.0
    asked_at: float = 0.0
    pause: float = 0.0
    untold_at: float = 0.0
    base_at: float = 0.0
    base_pause: float = 0.0

    @classmethod
    def of(cls, row: StopRule, at: datetime) -> "PollState":
        """Return the state that a row stores, without the totals and crossings of another day.

        A time in the future, because the clock was set back, becomes 0 (never).
        """
        poll_state = cls(
            **{item.name: row.poll_state[item.name] for item in fields(cls) if item.name in row.poll_state}
        )
        day = at.astimezone(KST).date().isoformat()
        if poll_state.day != day:
            poll_state.day, poll_state.volumes, poll_state.withheld = day, {}, {}
            poll_state.crossing, poll_state.rise, poll_state.untold_at = None, None, 0.0
        for name in _MOMENTS:
            if not _is_past(getattr(poll_state, name), at):
                setattr(poll_state, name, 0.0)
        second = rules.second_of(f"{at.astimezone(KST):%H%M%S}")
        poll_state.crossing, poll_state.rise = (
            None if crossing is not None and crossing[0] > second + SKEW_SECONDS else crossing
            for crossing in (poll_state.crossing, poll_state.rise)
        )
        return poll_state

    def note_feed(self, *, is_held: bool, at: float) -> None:
        """Record whether the feed is registered at `at`; after a break of the watch its time counts from then."""
        if at - self.looked_at > BREAK_SECONDS:
            self.held_since = self.unheld_since = 0.0
        self.held_since = (self.held_since or at) if is_held else 0.0
        self.unheld_since = 0.0 if is_held else (self.unheld_since or at)
        self.looked_at = at

    def is_traded(self, row: StopRule, quote: Quote, at: datetime) -> bool:
        """Record the running total; return whether it shows a trade since the stop was armed, or last judged."""
        total = self.withheld.pop(quote.market, None)
        total = self._judged_total(row, quote, at) if total is None else total
        self.volumes[quote.market] = quote.volume
        return total is not None and quote.volume > total

    def withhold(self, row: StopRule, quote: Quote, at: datetime) -> None:
        """Record the running total without judging it: trades since the last judged total are judged later."""
        if quote.market not in self.withheld:
            total = self._judged_total(row, quote, at)
            self.withheld[quote.market] = quote.volume if total is None else total
        self.volumes[quote.market] = quote.volume

    def _judged_total(self, row: StopRule, quote: Quote, at: datetime) -> int | None:
        """Return the newest total that was judged, or from which the stop's trades count; None if there is none."""
        total: int | None = self.volumes.get(quote.market)
        if total is None and row.feed_totals.get("day") == self.day:
            total = row.feed_totals.get(quote.market)
        if total is None and row.counts_since < _first_trade_at(quote.market, at):
            total = 0  # the stop was armed before the first trade of the day, so all trades of today count
        return total

    def keep(self, row: StopRule) -> None:
        """Store the state if it changed; if only `looked_at` did, at most every `WRITE_SECONDS`."""
        state = asdict(self)
        is_same = {**state, "looked_at": 0} == {**row.poll_state, "looked_at": 0}
        if not is_same or abs(self.looked_at - row.poll_state.get("looked_at", 0.0)) >= WRITE_SECONDS:
            row.poll_state = state
            stops.save_poll_state(row.pk, state)


def _first_trade_at(venue: Market, at: datetime) -> datetime:
    """Return when a venue's first trade of the day of `at` is possible, that of an opening auction included."""
    times = [
        phase.ends_at if phase.matching is Matching.AUCTION else phase.starts_at
        for phase in queries.today(at)
        if phase.market is venue and phase.matching is not Matching.FIXED
    ]
    return datetime.combine(at.astimezone(KST), min(times, default=time.min), KST)


def quote_before(code: str, sources: str, broker: Broker, now: Callable[[], datetime]) -> Quote | None:
    """Return a quote for the moment before a stop is armed or edited, of the venue that its first poll uses.

    In an auction it is that of the auction's venue: the result of the auction is then a trade since the arming. Before
    the first venue opens it is KRX's, for the base price. None if no venue trades, or if the broker does not answer
    within `QUOTE_PATIENCE_SECONDS`: an outage must not delay the arming of a stop. `sources` as for `stops.arm`. Raises
    ValidationError if they name no venues.
    """
    at = now()
    row = StopRule(stock_code=code, sources=stops.named_sources(sources))
    venue = _venue(row, at) or next((market for market in _venues(row, at) if _is_in_later_auction(market, at)), None)
    if venue is None and queries.today(at) and stops.base_day(at) < at.astimezone(KST).date():
        venue = Market.KRX
    return _quote_soon(code, venue, broker) if venue is not None else None


def _quote_soon(code: str, venue: Market, broker: Broker) -> Quote | None:
    """Return the broker's quote, None if it fails or does not arrive within `QUOTE_PATIENCE_SECONDS`."""
    answers: queue.SimpleQueue[Quote | None] = queue.SimpleQueue()

    def ask_broker() -> None:
        try:
            with serving(CallPriority.ORDER):
                answers.put(broker.quote(code, venue))
        except BrokerError as error:
            log.info("stock %s: no quote for the arming of a stop: %s", code, error)
            answers.put(None)

    threading.Thread(target=ask_broker, name="quote-before", daemon=True).start()
    try:
        return answers.get(timeout=QUOTE_PATIENCE_SECONDS)
    except queue.Empty:
        log.info("stock %s: no quote in time for the arming of a stop", code)
        return None


def check_stops(broker: Broker, status: StreamStatus, now: Callable[[], datetime]) -> list[int]:
    """Adjust armed stops to their holdings and base prices, and poll those whose feed is silent.

    Return the ids of the stops that a polled price triggered. Only one process polls at a time.
    """
    stops.sync_with_holdings(now())
    with advisory_lock("stop-watch") as is_ours:
        if not is_ours:
            return []
        base_prices.count_in_base_prices(broker, now)
        if queries.get_available_market(now()) is None:
            return []
        return [row.pk for row in stops.armed() if _poll_stop(row, broker, status, now)]


def _poll_stop(row: StopRule, broker: Broker, status: StreamStatus, now: Callable[[], datetime]) -> bool:
    try:
        venue = _venue(row, now())
        return venue is not None and _look(row, venue, broker, status, now)
    except (OperationalError, InterfaceError):
        raise
    except Exception:  # an error of one stop must not keep the others from being polled
        log.exception("stop %s: it cannot be watched", row.pk)
        return False


def ask(pk: int, broker: Broker, now: Callable[[], datetime]) -> bool:
    """Poll the price of an armed stop whose feed reported a price beyond the day's limits; return whether it triggered.

    Raises BrokerError.
    """
    row = StopRule.objects.filter(pk=pk, state=StopRule.State.ARMED).first()
    venue = _venue(row, now()) if row else None
    if row is None or venue is None:
        return False
    return judge(row, broker.quote(row.stock_code, venue), now(), broker, is_traded=True)


def _venue(row: StopRule, now: datetime) -> Market | None:
    """Return a venue that trades a stop's stock now and may trigger it, preferably the preferred one; None without one.

    Before and after hours some stocks trade on KRX alone.
    """
    return next((venue for venue in _venues(row, now) if _trades(venue, now)), None)


def _venues(row: StopRule, now: datetime) -> list[Market]:
    """Return the venues that may trigger a stop and trade its stock, the preferred one first."""
    is_on_nxt = Stock.objects.filter(pk=row.stock_code, trades_on_nxt=True).exists()
    preferred = queries.get_available_market(now)
    venues = sorted(row.venues, key=lambda venue: venue is not preferred)
    return [venue for venue in venues if venue is Market.KRX or is_on_nxt]


def _is_in_later_auction(venue: Market, now: datetime) -> bool:
    """Whether a venue is in an auction after its first trade of the day: before, a total may be of the day before."""
    return auction_at(queries.today(now), venue, now) is not None and now >= _first_trade_at(venue, now)


def _trades(venue: Market, now: datetime) -> bool:
    """Whether a venue has trades now: it matches continuously, or its closing auction has just ended."""
    phases = queries.today(now)
    if is_trading(venue, phases, now):
        return True
    return _counts_alone(venue, now) and auction_at(phases, venue, now) is None


def _counts_alone(venue: Market, now: datetime) -> bool:
    return rules.hours_of(queries.today(now)).count_alone(venue, f"{now.astimezone(KST):%H%M%S}")


def _look(row: StopRule, venue: Market, broker: Broker, status: StreamStatus, now: Callable[[], datetime]) -> bool:
    """Poll and judge the price if the feed has had no trade lately; return whether the stop triggered."""
    at, poll_state = now(), PollState.of(row, now())
    is_held = status.is_alive and f"{FEEDS[venue]}:{row.stock_code}" in status.held
    poll_state.note_feed(is_held=is_held, at=at.timestamp())
    if is_held and 0.0 < _heard_at(row, at) > at.timestamp() - SILENT_AFTER.total_seconds():
        poll_state.pause = poll_state.untold_at = 0.0
        poll_state.keep(row)
        stops.note_silence(row, is_silent=False, words=gettext("its trades are heard again"), at=at)
        return False
    if is_held and not row.is_silent and at.timestamp() < poll_state.asked_at + poll_state.pause:
        poll_state.keep(row)
        return False
    try:
        quote = broker.quote(row.stock_code, venue)
    except BrokerError as error:
        poll_state.keep(row)
        if not is_held and _is_over_grace(row, poll_state, at):
            message = gettext("its trades are not heard, and its price cannot be asked for: {error}").format(
                error=error
            )
            stops.note_silence(row, is_silent=True, words=message, at=now())
        log.warning("stop %s: its price cannot be polled: %s", row.pk, error)
        return False
    _note_silence(row, poll_state, quote, is_held=is_held, at=now())
    return judge(row, quote, now(), broker, poll_state=poll_state)


def _is_past(moment: float, at: datetime) -> bool:
    return moment <= at.timestamp() + SKEW_SECONDS


def _heard_at(row: StopRule, at: datetime) -> float:
    """Return when the feed last reported a trade, in seconds since 1970; 0 for never and for a time in the future."""
    moment = row.feed_at.timestamp() if row.feed_at else 0.0
    return moment if _is_past(moment, at) else 0.0


def _is_over_grace(row: StopRule, poll_state: PollState, at: datetime) -> bool:
    since = row.counts_since.timestamp()
    return poll_state.looked_at - max(poll_state.unheld_since, since if _is_past(since, at) else 0.0) >= GRACE_SECONDS


def _note_silence(row: StopRule, poll_state: PollState, quote: Quote, *, is_held: bool, at: datetime) -> None:
    """Report a feed that is not registered, or missed a trade; choose when a quiet stock is polled next."""
    moment, asked_at = at.timestamp(), poll_state.asked_at
    poll_state.asked_at = moment
    if not is_held:
        poll_state.pause = poll_state.untold_at = 0.0
        is_silent = _is_over_grace(row, poll_state, at)
    else:
        total = poll_state.volumes.get(quote.market)
        is_missed = total is not None and quote.volume > total and 0.0 < poll_state.held_since <= asked_at
        feed_at = _heard_at(row, at)
        # a trade of a moment ago may still arrive by the feed: the next poll decides
        is_silent = poll_state.untold_at > 0.0 and feed_at < poll_state.untold_at
        if is_missed and feed_at < asked_at and not poll_state.untold_at:
            poll_state.untold_at = moment
        poll_state.pause = (
            0.0 if poll_state.untold_at else min(LONGEST_PAUSE, max(SHORTEST_PAUSE, 2 * poll_state.pause))
        )
        if not is_silent and not poll_state.untold_at and moment - poll_state.held_since >= GRACE_SECONDS:
            stops.note_silence(row, is_silent=False, words=gettext("its feed is held again"), at=at)
    if is_silent:
        template = gettext("its trades are not heard: the broker is asked every few seconds instead ({price:,} won)")
        stops.note_silence(row, is_silent=True, words=template.format(price=quote.price), at=at)


def judge(
    row: StopRule,
    quote: Quote,
    at: datetime,
    broker: Broker | None = None,
    *,
    is_traded: bool = False,
    poll_state: PollState | None = None,
) -> bool:
    """Check an armed stop against a polled price; return whether it triggered.

    `is_traded`: the price is known to be of a trade since the stop was armed. `broker` is asked for the order book if
    the price needs a second witness.
    """
    poll_state = poll_state or PollState.of(row, at)
    average = stops.average_price(row.stock_code, at)
    day = at.astimezone(KST).date() if queries.today(at) else None
    try:
        is_moved = _counts_alone(quote.market, at) and base_prices.correct_base_price(row, quote, at)
        if is_moved or average is None or stops.awaits_base_price(row, day):
            poll_state.withhold(row, quote, at)
            return False
        is_traded = poll_state.is_traded(row, quote, at) or is_traded
        return _judge_trade(row, quote, at, broker, poll_state, average) if is_traded else False
    finally:
        poll_state.keep(row)


def _judge_trade(
    row: StopRule, quote: Quote, at: datetime, broker: Broker | None, poll_state: PollState, average: Decimal
) -> bool:
    close = closes([row.stock_code], at).get(row.stock_code)
    if quote.price not in rules.plausible(close, quote):
        stops.note_implausible(row.pk, quote.price, at)
        return False
    rule = TriggerRule(
        row.rule(average), crossing=_read_crossing(poll_state.crossing), rise=_read_crossing(poll_state.rise)
    )
    if not rule.concerns(quote.price):
        return False
    verdict = rule.hear(_polled_trade(quote, at, broker))
    poll_state.crossing, poll_state.rise = _crossing_fields(rule.crossing), _crossing_fields(rule.rise)
    if isinstance(verdict, NewHigh):
        stops.note_high(row.pk, verdict.price)
    return isinstance(verdict, Fired) and stops.trigger(
        row.pk, quote.price, at, seen="REST", judged_from=row.counts_since
    )


def _polled_trade(quote: Quote, at: datetime, broker: Broker | None) -> StopTrade:
    """Return a polled price as a trade, with the best bid and ask if it needs a second witness."""
    second = rules.second_of(f"{at.astimezone(KST):%H%M%S}")
    if _counts_alone(quote.market, at):
        return StopTrade(quote.price, second, counts_alone=True)
    try:
        book = broker.book(quote.code, quote.market) if broker is not None else None
    except BrokerError as error:
        log.info("stop on %s: no book for a witness: %s", quote.code, error)
        book = None
    if book is None:
        return StopTrade(quote.price, second)
    ask, bid = (levels[0].price if levels else 0 for levels in (book.asks, book.bids))
    return StopTrade(quote.price, second, ask=ask, bid=bid)


def _read_crossing(values: Any) -> Crossing | None:
    return Crossing(*values) if values else None


def _crossing_fields(crossing: Crossing | None) -> tuple[int, int, int] | None:
    return (crossing.since, crossing.price, crossing.value) if crossing else None


def closes(codes: list[str], now: datetime) -> dict[str, int]:
    """Return the reference price of today's limits by stock, in won: the base price of today, or else the last close.

    A stock has none if the last trading day has no close of it, or if its holding changed without a trade today: it may
    have split.
    """
    today = now.astimezone(KST).date()
    last = queries.last_final_day(now)
    prices = dict(DailyPrice.objects.filter(date=last, stock_code__in=codes).values_list("stock_code", "close"))
    events = PortfolioEvent.objects.filter(stock_code__in=codes, at__date=today).values_list("stock_code", flat=True)
    rows = StopRule.objects.filter(stock_code__in=prices, state=StopRule.State.ARMED, based_on=today, base_price__gt=0)
    bases = dict(rows.values_list("stock_code", "base_price")) if last < today else {}
    return {code: bases.get(code, close) for code, close in prices.items() if code not in set(events)}
