"""Looks at armed stops whose feed says nothing: the broker is asked for the price instead, and people are told.

A quiet stock is no deaf feed: what is told is a feed that nobody holds, or a trade that it did not tell. While its
feed is held a quiet stock is asked about less and less; one whose feed is not held, every few seconds.

A price that was asked for counts as a trade if the venue's running total of shares rose since the stop was armed.
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
from aegis.stops import Crossing, Fired, Heard, NewHigh, TriggerRule
from aegis.terms import Market
from infra.advisory_lock import advisory_lock
from kis.catalogue import Urgency
from kis.serving import serving
from kis.status import StreamStatus
from market import queries
from market.models import DailyPrice, Stock
from orders import base_prices, stops
from orders.models import StopRule
from portfolio.models import PortfolioEvent

log = logging.getLogger(__name__)

FEEDS = {Market.KRX: "H0STCNT0", Market.NXT: "H0NXCNT0"}
# no trade for so long is worth a question
SILENT_AFTER = timedelta(seconds=15)
# a new stop's feed, or one after a start, is registered within so long: until then its absence is no news
GRACE_SECONDS = 15.0
# a turn of the watch comes every five seconds: after a longer break the feeds begin anew
BREAK_SECONDS = 30.0
WRITE_SECONDS = 10.0
# a person who arms a stop waits no longer for a quote
QUOTE_PATIENCE_SECONDS = 3.0
# the clocks of two machines may differ by so much
SKEW_SECONDS = 1.0
_MOMENTS = ("looked_at", "held_since", "unheld_since", "asked_at", "untold_at")
# between two questions about a quiet stock whose feed is held: doubled from question to question
SHORTEST_PAUSE, LONGEST_PAUSE = 5.0, 160.0


@dataclass(slots=True)
class Looks:
    """What earlier looks at one stop showed, kept in its row. Moments are seconds since 1970, 0 for never.

    `volumes` are each venue's running total of shares of `day`, `withheld` those up to which trades were judged when
    the stop began to hold fire; `crossing` and `rise` are those of `TriggerRule`.
    `untold_at` is when the total had risen by a trade that the feed had not told; `base_at` and `base_pause` are of
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
    def of(cls, row: StopRule, at: datetime) -> "Looks":
        """Return what a row keeps, without what another day's trades showed.

        A moment that is still to come, because the clock was set back, is forgotten: it is as good as never.
        """
        looks = cls(**{each.name: row.looks[each.name] for each in fields(cls) if each.name in row.looks})
        day = at.astimezone(KST).date().isoformat()
        if looks.day != day:
            looks.day, looks.volumes, looks.withheld = day, {}, {}
            looks.crossing, looks.rise, looks.untold_at = None, None, 0.0
        for name in _MOMENTS:
            if not _is_past(getattr(looks, name), at):
                setattr(looks, name, 0.0)
        second = rules.second_of(f"{at.astimezone(KST):%H%M%S}")
        looks.crossing, looks.rise = (
            None if each is not None and each[0] > second + SKEW_SECONDS else each
            for each in (looks.crossing, looks.rise)
        )
        return looks

    def note_feed(self, *, is_held: bool, at: float) -> None:
        """Note whether the feed is held now; after a break of the watch it counts from now."""
        if at - self.looked_at > BREAK_SECONDS:
            self.held_since = self.unheld_since = 0.0
        self.held_since = (self.held_since or at) if is_held else 0.0
        self.unheld_since = 0.0 if is_held else (self.unheld_since or at)
        self.looked_at = at

    def is_traded(self, row: StopRule, quote: Quote, at: datetime) -> bool:
        """Whether the running total says that the price is of a trade since the stop was armed, and note the total."""
        known = self.withheld.pop(quote.market, None)
        known = self._known(row, quote, at) if known is None else known
        self.volumes[quote.market] = quote.volume
        return known is not None and quote.volume > known

    def withhold(self, row: StopRule, quote: Quote, at: datetime) -> None:
        """Note the total, but judge nothing: what was traded since the last judged one is judged later."""
        if quote.market not in self.withheld:
            known = self._known(row, quote, at)
            self.withheld[quote.market] = quote.volume if known is None else known
        self.volumes[quote.market] = quote.volume

    def _known(self, row: StopRule, quote: Quote, at: datetime) -> int | None:
        """Return the newest total that was judged, or of which the stop counts; None if none is known."""
        known: int | None = self.volumes.get(quote.market)
        if known is None and row.heard_totals.get("day") == self.day:
            known = row.heard_totals.get(quote.market)
        if known is None and row.counts_since < _first_trade_at(quote.market, at):
            known = 0  # whatever was traded today was traded since
        return known

    def keep(self, row: StopRule) -> None:
        """Write what changed; that nothing did is written now and then."""
        kept = asdict(self)
        is_same = {**kept, "looked_at": 0} == {**row.looks, "looked_at": 0}
        if not is_same or abs(self.looked_at - row.looks.get("looked_at", 0.0)) >= WRITE_SECONDS:
            row.looks = kept
            stops.note_looks(row.pk, kept)


def _first_trade_at(venue: Market, at: datetime) -> datetime:
    """Return when a venue trades first on the day of `at`, its opening auction included."""
    begins = [
        phase.ends_at if phase.matching is Matching.AUCTION else phase.starts_at
        for phase in queries.today(at)
        if phase.market is venue and phase.matching is not Matching.FIXED
    ]
    return datetime.combine(at.astimezone(KST), min(begins, default=time.min), KST)


def quote_before(code: str, sources: str, broker: Broker, now: Callable[[], datetime]) -> Quote | None:
    """Return a quote of just before a stop is armed or moved: of the venue that its first poll asks.

    In an auction it is of the venue whose trades come from it: its result is a trade since then.
    Before the first venue opens it is KRX's, for the base price. None if nothing trades, or if the broker does not tell
    it soon: no stop waits for an outage to be armed.
    `sources` as for `stops.arm`. Raises ValidationError if they name no venues.
    """
    at = now()
    row = StopRule(stock_code=code, sources=stops.named_sources(sources))
    venue = _venue(row, at) or next((each for each in _venues(row, at) if _is_in_later_auction(each, at)), None)
    if venue is None and queries.today(at) and stops.base_day(at) < at.astimezone(KST).date():
        venue = Market.KRX
    return _quote_soon(code, venue, broker) if venue is not None else None


def _quote_soon(code: str, venue: Market, broker: Broker) -> Quote | None:
    """Ask for a quote, and give up waiting for it after a while."""
    answers: queue.SimpleQueue[Quote | None] = queue.SimpleQueue()

    def ask_broker() -> None:
        try:
            with serving(Urgency.ORDER):
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


def watch(broker: Broker, status: StreamStatus, now: Callable[[], datetime]) -> list[int]:
    """Keep armed stops in step with their shares, look where their feed is silent; return what that triggered."""
    stops.sync_with_holdings(now())
    with advisory_lock("stop-watch") as is_ours:
        if not is_ours:
            return []
        base_prices.settle(broker, now)
        if queries.get_available_market(now()) is None:
            return []
        return [row.pk for row in stops.armed() if _is_fired(row, broker, status, now)]


def _is_fired(row: StopRule, broker: Broker, status: StreamStatus, now: Callable[[], datetime]) -> bool:
    try:
        venue = _venue(row, now())
        return venue is not None and _look(row, venue, broker, status, now)
    except (OperationalError, InterfaceError):
        raise
    except Exception:  # whatever is wrong with one stop, the others are looked at
        log.exception("stop %s: it cannot be watched", row.pk)
        return False


def ask(pk: int, broker: Broker, now: Callable[[], datetime]) -> bool:
    """Ask what the stock of an armed stop trades at, for its feed told a price that the day cannot have; whether it
    fired. Raises BrokerError.
    """
    row = StopRule.objects.filter(pk=pk, state=StopRule.State.ARMED).first()
    venue = _venue(row, now()) if row else None
    if row is None or venue is None:
        return False
    return judge(row, broker.quote(row.stock_code, venue), now(), broker, is_traded=True)


def _venue(row: StopRule, now: datetime) -> Market | None:
    """Return the venue that trades a stop's stock now and may trigger it, None if none does; the preferred one first.

    Before and after hours some stocks trade on KRX alone.
    """
    return next((venue for venue in _venues(row, now) if _trades(venue, now)), None)


def _venues(row: StopRule, now: datetime) -> list[Market]:
    """Return the venues of a stop that its stock trades on, the preferred one first."""
    is_on_nxt = Stock.objects.filter(pk=row.stock_code, trades_on_nxt=True).exists()
    preferred = queries.get_available_market(now)
    venues = sorted(row.venues, key=lambda each: each is not preferred)
    return [venue for venue in venues if venue is Market.KRX or is_on_nxt]


def _is_in_later_auction(venue: Market, now: datetime) -> bool:
    """Whether a venue is in an auction and has traded before it: before its first trade a total may be of yesterday."""
    return auction_at(queries.today(now), venue, now) is not None and now >= _first_trade_at(venue, now)


def _trades(venue: Market, now: datetime) -> bool:
    """Whether trades come from a venue: it matches continuously, or its closing auction has just ended."""
    phases = queries.today(now)
    if is_trading(venue, phases, now):
        return True
    return _counts_alone(venue, now) and auction_at(phases, venue, now) is None


def _counts_alone(venue: Market, now: datetime) -> bool:
    return rules.hours_of(queries.today(now)).count_alone(venue, f"{now.astimezone(KST):%H%M%S}")


def _look(row: StopRule, venue: Market, broker: Broker, status: StreamStatus, now: Callable[[], datetime]) -> bool:
    """Ask for the price if the feed told none lately, and judge it; whether the stop fired."""
    at, looks = now(), Looks.of(row, now())
    is_held = status.is_alive and f"{FEEDS[venue]}:{row.stock_code}" in status.held
    looks.note_feed(is_held=is_held, at=at.timestamp())
    if is_held and 0.0 < _heard_at(row, at) > at.timestamp() - SILENT_AFTER.total_seconds():
        looks.pause = looks.untold_at = 0.0
        looks.keep(row)
        stops.note_silence(row, is_silent=False, words=gettext("its trades are heard again"), at=at)
        return False
    if is_held and not row.is_silent and at.timestamp() < looks.asked_at + looks.pause:
        looks.keep(row)
        return False
    try:
        quote = broker.quote(row.stock_code, venue)
    except BrokerError as error:
        looks.keep(row)
        if not is_held and _is_over_grace(row, looks, at):
            words = gettext("its trades are not heard, and its price cannot be asked for: {error}").format(error=error)
            stops.note_silence(row, is_silent=True, words=words, at=now())
        log.warning("stop %s: its price cannot be asked for: %s", row.pk, error)
        return False
    _note_silence(row, looks, quote, is_held=is_held, at=now())
    return judge(row, quote, now(), broker, looks=looks)


def _is_past(moment: float, at: datetime) -> bool:
    return moment <= at.timestamp() + SKEW_SECONDS


def _heard_at(row: StopRule, at: datetime) -> float:
    """Return when the feed last told a trade, 0 for never and for a moment that is still to come."""
    moment = row.heard_at.timestamp() if row.heard_at else 0.0
    return moment if _is_past(moment, at) else 0.0


def _is_over_grace(row: StopRule, looks: Looks, at: datetime) -> bool:
    since = row.counts_since.timestamp()
    return looks.looked_at - max(looks.unheld_since, since if _is_past(since, at) else 0.0) >= GRACE_SECONDS


def _note_silence(row: StopRule, looks: Looks, quote: Quote, *, is_held: bool, at: datetime) -> None:
    """Report a feed that is not held, or did not tell a trade; choose when a quiet stock is asked about next."""
    moment, asked_at = at.timestamp(), looks.asked_at
    looks.asked_at = moment
    if not is_held:
        looks.pause = looks.untold_at = 0.0
        is_silent = _is_over_grace(row, looks, at)
    else:
        before = looks.volumes.get(quote.market)
        is_untold = before is not None and quote.volume > before and 0.0 < looks.held_since <= asked_at
        heard_at = _heard_at(row, at)
        # what was traded a moment ago may still be on its way: the next look decides
        is_silent = looks.untold_at > 0.0 and heard_at < looks.untold_at
        if is_untold and heard_at < asked_at and not looks.untold_at:
            looks.untold_at = moment
        looks.pause = 0.0 if looks.untold_at else min(LONGEST_PAUSE, max(SHORTEST_PAUSE, 2 * looks.pause))
        if not is_silent and not looks.untold_at and moment - looks.held_since >= GRACE_SECONDS:
            stops.note_silence(row, is_silent=False, words=gettext("its feed is held again"), at=at)
    if is_silent:
        words = gettext("its trades are not heard: the broker is asked every few seconds instead ({price:,} won)")
        stops.note_silence(row, is_silent=True, words=words.format(price=quote.price), at=at)


def judge(
    row: StopRule,
    quote: Quote,
    at: datetime,
    broker: Broker | None = None,
    *,
    is_traded: bool = False,
    looks: Looks | None = None,
) -> bool:
    """Hold an armed stop against a price that was asked for; whether it fired.

    `is_traded` says that it is known to be of a trade since the stop was armed. `broker` is asked for the best quote
    if the price needs a second witness.
    """
    looks = looks or Looks.of(row, at)
    average = stops.average_price(row.stock_code, at)
    day = at.astimezone(KST).date() if queries.today(at) else None
    try:
        is_moved = _counts_alone(quote.market, at) and base_prices.settle_again(row, quote, at)
        if is_moved or average is None or stops.holds_fire(row, day):
            looks.withhold(row, quote, at)
            return False
        is_traded = looks.is_traded(row, quote, at) or is_traded
        return _is_judged_fired(row, quote, at, broker, looks, average) if is_traded else False
    finally:
        looks.keep(row)


def _is_judged_fired(
    row: StopRule, quote: Quote, at: datetime, broker: Broker | None, looks: Looks, average: Decimal
) -> bool:
    close = closes([row.stock_code], at).get(row.stock_code)
    if quote.price not in rules.plausible(close, quote):
        stops.note_implausible(row.pk, quote.price, at)
        return False
    rule = TriggerRule(row.rule(average), crossing=_crossing(looks.crossing), rise=_crossing(looks.rise))
    if not rule.concerns(quote.price):
        return False
    verdict = rule.hear(_heard(quote, at, broker))
    looks.crossing, looks.rise = _kept(rule.crossing), _kept(rule.rise)
    if isinstance(verdict, NewHigh):
        stops.note_high(row.pk, verdict.price)
    return isinstance(verdict, Fired) and stops.trigger(
        row.pk, quote.price, at, seen="REST", judged_from=row.counts_since
    )


def _heard(quote: Quote, at: datetime, broker: Broker | None) -> Heard:
    """Return a polled price as a trade, with the best quotes if it needs them for a witness."""
    second = rules.second_of(f"{at.astimezone(KST):%H%M%S}")
    if _counts_alone(quote.market, at):
        return Heard(quote.price, second, counts_alone=True)
    try:
        book = broker.book(quote.code, quote.market) if broker is not None else None
    except BrokerError as error:
        log.info("stop on %s: no book for a witness: %s", quote.code, error)
        book = None
    if book is None:
        return Heard(quote.price, second)
    ask, bid = (levels[0].price if levels else 0 for levels in (book.asks, book.bids))
    return Heard(quote.price, second, ask=ask, bid=bid)


def _crossing(kept: Any) -> Crossing | None:
    return Crossing(*kept) if kept else None


def _kept(crossing: Crossing | None) -> tuple[int, int, int] | None:
    return (crossing.since, crossing.price, crossing.value) if crossing else None


def closes(codes: list[str], now: datetime) -> dict[str, int]:
    """Return the won that each stock closed at last, of those whose close says something about today.

    One that is not the last day's says nothing, nor does one of before a split of today, nor one whose base price of
    today is another.
    """
    today = now.astimezone(KST).date()
    last = queries.last_final_day(now)
    known = dict(DailyPrice.objects.filter(date=last, stock_code__in=codes).values_list("stock_code", "close"))
    changed = PortfolioEvent.objects.filter(stock_code__in=codes, at__date=today).values_list("stock_code", flat=True)
    based = StopRule.objects.filter(stock_code__in=known, state=StopRule.State.ARMED, based_on=today, base_price__gt=0)
    bases = dict(based.values_list("stock_code", "base_price")) if last < today else {}
    return {code: bases.get(code, close) for code, close in known.items() if code not in set(changed)}
