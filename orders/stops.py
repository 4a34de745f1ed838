"""Stops on holdings: armed, triggered once, then sold by `orders.stop_sale` until no guarded share is held.

A row changes from ARMED to TRIGGERED by compare-and-set, so it triggers once even if several processes see the price.
Any worker may continue the sale of a worker that died.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import TypeGuard

from django.core.exceptions import ValidationError
from django.db import DatabaseError, connection, transaction
from django.db.models import Q, Sum
from django.utils.translation import gettext

from aegis import sessions, stops
from aegis.broker import Broker, Quote
from aegis.chase import AUCTION_RESULT_AFTER
from aegis.denials import gettext_noop
from aegis.lifecycle import UNSETTLED
from aegis.order_events import StopEventKind
from aegis.requests import RequestedBy
from aegis.sessions import KST
from aegis.stops import ATR_DAYS, StopKind, StopUnit
from aegis.terms import Market
from market import codes, queries
from orders import cancel, krx_prices, risk
from orders.models import StopEvent, StopRule
from orders.stop_rows import LIVE, SELLING, State, append_stop_event, claim_row, move, move_judged
from orders.stop_sale import GONE_AFTER, PAUSE_MAX, StopSale, is_gone
from portfolio.models import Portfolio, PortfolioEvent
from portfolio.service import PortfolioService

log = logging.getLogger(__name__)

CLAIM = timedelta(seconds=5)
# the message of a step may take this long to arrive: the sweep restarts a stop that is overdue by more
OVERDUE = timedelta(seconds=2)
RENEW_SECONDS = 2.0
STEPS_AT_ONCE = 4
# the operator's text of each event
SAID: Mapping[str, str] = {
    StopEventKind.ARMED: gettext_noop("armed"),
    StopEventKind.EDITED: gettext_noop("changed"),
    StopEventKind.DISARMED: gettext_noop("disarmed"),
    StopEventKind.TRIGGERED: gettext_noop("triggered"),
    StopEventKind.WAITS: gettext_noop("not sold yet"),
    StopEventKind.ORDERED: gettext_noop("ordered"),
    StopEventKind.AGAIN: gettext_noop("ordered again"),
    StopEventKind.OPPOSITE: gettext_noop("own buys could trade against the sale"),
    StopEventKind.LOCKED: gettext_noop("shares that cannot be sold"),
    StopEventKind.NO_BID: gettext_noop("no bids"),
    StopEventKind.LOWER_LIMIT: gettext_noop("locked at the lower limit"),
    StopEventKind.REFUSED: gettext_noop("refused several times"),
    StopEventKind.DONE: gettext_noop("done"),
    StopEventKind.HELD_EXTERNALLY: gettext_noop("HELD: it guards nothing until it is armed again"),
    StopEventKind.REARMED: gettext_noop("armed again"),
    StopEventKind.FAILED: gettext_noop("FAILED"),
    StopEventKind.REBASED: gettext_noop("moved with the shares"),
    StopEventKind.HOLDS_FIRE: gettext_noop("holds fire"),
    StopEventKind.SILENT: gettext_noop("its feed is silent"),
    StopEventKind.HEARD: gettext_noop("its feed is heard again"),
    StopEventKind.IMPLAUSIBLE: gettext_noop("an impossible price"),
}
# calendar days of daily prices to read, so that they contain ATR_DAYS trading days
ATR_SPAN = timedelta(days=3 * ATR_DAYS)
# a smaller relative change of the base price comes from rounding, and is not reported
SMALLEST_REPORTED_CHANGE = Decimal("0.005")


# --- arming, editing and disarming ---------------------------------------------------------------


def draft_stop(
    code: str,
    kind: StopKind,
    unit: StopUnit,
    value: Decimal,
    *,
    by: str,
    at: datetime,
    quantity: int | None = None,
    sources: str = "",
    may_trigger_now: bool = False,
    quote: Quote | None = None,
) -> StopRule:
    """Return the unsaved row of a valid stop: `value` in won, percent, or multiples of the true range.

    `code` is a stock code or name. `quantity` is in shares, None for the whole holding, shares bought later included.
    `sources` names the venues whose trades may trigger the stop, as `KRX,NXT`, empty for those of the settings. `quote`
    was requested just before (`stop_polling.quote_before`): it gives the current price, and the day of its prices.
    Raises ValidationError, by field: the stock is unknown, no shares or fewer than `quantity` are held, the stop could
    never trigger, or it would trigger at once without the confirmation `may_trigger_now`.
    """
    try:
        code = codes.resolve(code)
    except ValueError as error:
        raise ValidationError({"stock_code": codes.explain(error)}) from error
    holding = PortfolioService().get_holding(code)
    if holding is None:
        message = gettext("{code}: a stop guards shares that are held, and none are").format(code=code)
        raise ValidationError({"stock_code": message})
    row = StopRule(
        stock_code=code,
        stock_name=holding.stock_name,
        quantity=quantity,
        kind=kind,
        unit=unit,
        value=value,
        atr=true_range(code, at) if unit is StopUnit.ATR else Decimal(0),
        high=_first_high(holding, quote, at),
        state_at=at,
        armed_at=at,
        armed_by=by,
        adjusted_through=_newest_change(code),
        sources=named_sources(sources),
        counts_from=at,
        based_on=base_day(at),
    )
    _note_base(row, quote, at)
    _check(row, _price_now(row, holding, quote, at), holding, may_trigger_now=may_trigger_now)
    return row


def arm(
    code: str,
    kind: StopKind,
    unit: StopUnit,
    value: Decimal,
    *,
    by: str,
    at: datetime,
    quantity: int | None = None,
    sources: str = "",
    may_trigger_now: bool = False,
    quote: Quote | None = None,
) -> StopRule:
    """Arm a stop on a holding and return its row. Raises ValidationError as `draft` does.

    With a `quote`, a later poll recognizes a trade since the arming by a rise of the quote's running total of shares.
    """
    row = draft_stop(
        code,
        kind,
        unit,
        value,
        by=by,
        at=at,
        quantity=quantity,
        sources=sources,
        may_trigger_now=may_trigger_now,
        quote=quote,
    )
    row.poll_state = _first_poll_state(quote, at)
    with transaction.atomic():
        row.save(force_insert=True)
        append_stop_event(row, StopEventKind.ARMED, f"{row.get_kind_display()} {current_limit(row):,} ({by})", at=at)
    return row


def preview_edit(
    row: StopRule,
    unit: StopUnit,
    value: Decimal,
    *,
    at: datetime,
    sources: str | None = None,
    may_trigger_now: bool = False,
    quote: Quote | None = None,
) -> StopRule:
    """Return a stop as an edit would leave it, not saved. Raises ValidationError, by field, as `draft` does.

    Without `sources` the venues that may trigger it stay the same.
    """
    holding = PortfolioService().get_holding(row.stock_code)
    if holding is None:
        raise ValidationError({"value": gettext("its shares are not held any more")})
    row.unit, row.value = unit, value
    row.atr = true_range(row.stock_code, at) if unit is StopUnit.ATR else Decimal(0)
    row.sources = row.sources if sources is None else named_sources(sources)
    _note_base(row, quote, at)
    _check(row, _price_now(row, holding, quote, at), holding, may_trigger_now=may_trigger_now)
    return row


def edit(
    row: StopRule,
    unit: StopUnit,
    value: Decimal,
    *,
    by: str,
    at: datetime,
    sources: str | None = None,
    may_trigger_now: bool = False,
    quote: Quote | None = None,
) -> None:
    """Change the limit of an armed stop from now on. Raises ValidationError, by field, as `draft` does.

    `quote` as in `arm`.
    """
    row = preview_edit(row, unit, value, at=at, sources=sources, may_trigger_now=may_trigger_now, quote=quote)
    changes = {"unit": unit, "value": value, "atr": row.atr, "sources": row.sources, "counts_from": at}
    latest = StopRule.objects.filter(pk=row.pk).first() or row  # polls continue while a person decides
    changes |= {"poll_state": _first_poll_state(quote, at, _known_totals(latest, at)), "feed_totals": {}}
    changes |= {"based_on": row.based_on, "base_price": row.base_price, "moved_by": row.moved_by}
    with transaction.atomic():
        if not move(row, [State.ARMED], at=at, **changes):
            raise ValidationError(_state_message(row))
        append_stop_event(row, StopEventKind.EDITED, f"{current_limit(row):,} ({by})", at=at)


def disarm(row: StopRule, *, why: str, at: datetime, who: str = "") -> None:
    """Disarm a stop: it sells nothing from now on. A cancel of its order at the broker is requested.

    Raises ValidationError if the stop has ended.
    """
    with transaction.atomic():
        if not move(row, LIVE, at=at, state=State.DISARMED, try_at=None, note=why[:300]):
            raise ValidationError(_state_message(row))
        append_stop_event(row, StopEventKind.DISARMED, why, at=at)
        for order in row.sales.filter(status__in=UNSETTLED, order_date=at.astimezone(KST).date()):
            cancel.request_cancel(order, by=RequestedBy.OPERATOR, who=who or why, at=at)


def rearm(
    row: StopRule,
    *,
    by: str,
    at: datetime,
    may_trigger_now: bool = False,
    quote: Quote | None = None,
) -> None:
    """Arm a stop again that is HELD_EXTERNALLY. It triggers at the next trade that reaches its limit.

    `quote` as in `arm`. Raises ValidationError if the stop is not held externally, if no share is held, or if it would
    trigger at once without the confirmation `may_trigger_now`.
    """
    holding = PortfolioService().get_holding(row.stock_code)
    if holding is None:
        raise ValidationError(gettext("its shares are not held any more"))
    _check(row, _price_now(row, holding, quote, at), holding, may_trigger_now=may_trigger_now, is_new=False)
    fields = {
        "state": State.ARMED,
        "order": None,
        "try_at": None,
        "note": "",
        "step": 0,
        "armed_at": at,
        "armed_by": by,
        "counts_from": at,
        "poll_state": _first_poll_state(quote, at),
        "feed_totals": {},
    }
    with transaction.atomic():
        if not move(row, [State.HELD_EXTERNALLY], at=at, generation=row.generation + 1, **fields):
            raise ValidationError(_state_message(row))
        append_stop_event(row, StopEventKind.REARMED, by, at=at)


def _first_poll_state(quote: Quote | None, at: datetime, totals: dict[str, int] | None = None) -> dict[str, object]:
    """Return the poll state of a stop whose trades count from now: the totals, or nothing before the first phase.

    `totals` are the earlier ones by venue; the quote's own total replaces that of its venue.
    """
    volumes = dict(totals or {})
    if quote is not None:
        volumes[quote.market.value] = quote.volume
    if not volumes or _is_before_open(at):
        return {}
    return {"day": at.astimezone(KST).date().isoformat(), "volumes": volumes}


def _known_totals(row: StopRule, at: datetime) -> dict[str, int]:
    """Return today's running total of shares by venue: the larger of those that the polls and the feed reported."""
    day = at.astimezone(KST).date().isoformat()
    polls = row.poll_state.get("volumes", {}) if row.poll_state.get("day") == day else {}
    feed = row.feed_totals if row.feed_totals.get("day") == day else {}
    totals = {venue: max(polls.get(venue, 0), feed.get(venue, 0)) for venue in Market if venue in {*polls, *feed}}
    return {venue.value: total for venue, total in totals.items()}


def _first_high(holding: Portfolio, quote: Quote | None, at: datetime) -> int:
    """Return the first highest price of a trailing stop, in won: never above a price that could trigger one.

    The holding's current price may be that of one trade on NXT. A trade that counts raises the highest price later.
    """
    if _is_krx_trade(quote, at):
        return quote.price
    reference = krx_prices.reference(holding.stock_code, at)
    return min(holding.current_price or reference, reference) if reference else holding.current_price


def _price_now(row: StopRule, holding: Portfolio, quote: Quote | None, at: datetime) -> int:
    """Return the price, in won, that a new limit is checked against: today's, if the broker reported one."""
    if row.base_price and row.based_on == at.astimezone(KST).date() and _is_before_open(at):
        return row.base_price
    return quote.price if _is_krx_trade(quote, at) else holding.current_price


def _is_krx_trade(quote: Quote | None, at: datetime) -> TypeGuard[Quote]:
    """Whether a quote is of a trade on KRX that needs no second witness."""
    hours = stops.hours_of(queries.today(at))
    return (
        quote is not None
        and quote.volume > 0
        and quote.price > 0
        and hours.count_alone(quote.market, f"{at.astimezone(KST):%H%M%S}")
    )


def _is_before_open(at: datetime) -> bool:
    """Whether today is a trading day whose first phase has not begun."""
    return bool(queries.today(at)) and base_day(at) < at.astimezone(KST).date()


def _note_base(row: StopRule, quote: Quote | None, at: datetime) -> None:
    """Note the trading day to whose prices a limit in won belongs, if a person names it before the first venue opens.

    If the broker already reports today's base price, the limit belongs to today and is not adjusted by it. If it still
    reports that of the day before, `base_price` keeps it. Percentages, true ranges and distances are based on earlier
    prices, so they are always adjusted.
    """
    if not _names_a_price(row) or not _is_before_open(at):
        return
    is_new = quote is not None and quote.base_price > 0 and krx_prices.is_of_today(quote, at)
    row.based_on = at.astimezone(KST).date() if is_new else base_day(at)
    row.base_price, row.moved_by = quote.base_price if quote else 0, Decimal(1)


def _names_a_price(row: StopRule) -> bool:
    """Whether a stop triggers at a price that a person named, independent of average price and highest price."""
    return row.unit == StopUnit.PRICE and row.kind != StopKind.TRAILING


def is_in_todays_won(row: StopRule, base_price: int, day: date) -> bool:
    """Whether a stop, not settled for `day` yet, names a price of that day: it was armed or edited that morning.

    False if the broker still reported the base price of the day before at that time, and if the stop would trigger at
    today's base price: arming such a stop needs a confirmation.
    """
    if not _names_a_price(row) or row.base_price not in (0, base_price):
        return False
    named_at = (
        row.events.filter(kind__in=[StopEventKind.ARMED, StopEventKind.EDITED])
        .order_by("-id")
        .values_list("at", flat=True)
        .first()
    )
    is_named_today = named_at is not None and named_at.astimezone(KST).date() == day
    return is_named_today and not isinstance(stops.evaluate(row.rule(Decimal(0)), base_price), stops.Fired)


def current_limit(row: StopRule) -> int:
    """Return the price, in won, at which a stop triggers now, by the holding's average price; 0 without a holding."""
    holding = PortfolioService().get_holding(row.stock_code)
    return stops.trigger_limit(row.rule(holding.avg_price)) if holding else 0


def _state_message(row: StopRule) -> str:
    """Return the message for a change that came too late; it reloads the row."""
    row.refresh_from_db()
    return gettext("it is {state} by now").format(state=row.get_state_display())


def named_sources(sources: str) -> str:
    """Return the venues that may trigger a stop as its row stores them, as `KRX,NXT`. Raises ValidationError."""
    names = [name.strip().upper() for name in sources.split(",") if name.strip()]
    text = ",".join(sorted(set(names)))
    if text not in dict(StopRule.SOURCES):
        template = gettext("{sources} names no venues whose trades may trigger a stop: KRX, NXT or KRX,NXT")
        raise ValidationError({"sources": template.format(sources=repr(sources))})
    return text


def base_day(at: datetime) -> date:
    """Return the newest trading day to which prices at `at` belong: today from its first phase on."""
    starts_at = sessions.first_start(queries.today(at), at)
    is_begun = starts_at is not None and at >= starts_at
    return at.astimezone(KST).date() if is_begun else queries.last_final_day(at)


AT_ONCE = gettext_noop(
    "To arm it anyway, confirm that it may sell at once: --confirm-immediate on the command line, the box of the"
    " form, may_trigger_now=True in Python"
)


def _check_venues(row: StopRule) -> None:
    """Raise ValidationError if no venue whose trades may trigger the stop trades its stock."""
    stock = queries.get_stock(row.stock_code)
    if Market.KRX in row.venues or stock is None or not stock.synced_at or stock.trades_on_nxt:
        return
    template = gettext(
        "{stock} does not trade on NXT: a stop of NXT alone never triggers; name KRX (AEGIS_STOP_SOURCES)"
    )
    raise ValidationError({"sources": template.format(stock=row.stock_name or row.stock_code)})


def _check(row: StopRule, price: int, holding: Portfolio, *, may_trigger_now: bool, is_new: bool = True) -> None:
    """Raise ValidationError, by field, if a stop is not valid at `price` won."""
    _check_venues(row)
    if is_new and row.quantity is not None and not 0 < row.quantity <= holding.quantity:
        template = gettext("{qty:,} shares: from 1 to the {held:,} that are held can be guarded")
        raise ValidationError({"quantity": template.format(qty=row.quantity, held=holding.quantity)})
    reason = stops.why_invalid(row.rule(holding.avg_price), price)
    if reason is None or (reason.code == "STOP_AT_ONCE" and may_trigger_now):
        return
    message = risk.denial_text(reason)
    raise ValidationError({"value": f"{message}. {gettext(AT_ONCE)}" if reason.code == "STOP_AT_ONCE" else message})


def true_range(code: str, at: datetime) -> Decimal:
    """Return the average true range in won, 0 if there are too few daily prices."""
    last = queries.last_final_day(at)
    days = queries.daily_prices(code, last - ATR_SPAN, last)
    return stops.average_true_range([stops.DayRange(day.high, day.low, day.close) for day in days]) or Decimal(0)


def _newest_change(code: str) -> int:
    newest = PortfolioEvent.objects.filter(stock_code=code).order_by("-id").values_list("pk", flat=True).first()
    return newest or 0


# --- triggering ----------------------------------------------------------------------------------


def trigger(pk: int, price: int, at: datetime, *, seen: str, judged_from: datetime | None = None) -> bool:
    """Trigger an armed stop for a trade at `price` won; False if it is not armed any more. Only one caller succeeds.

    `seen` names the source of the price. `judged_from` is the row's `counts_since` when the trade was judged: a stop
    that a person or a base price moved since then is not triggered by its old limit.
    """
    row = StopRule(pk=pk)
    with transaction.atomic():
        fields = {"state": State.TRIGGERED, "trigger_price": price, "triggered_at": at, "try_at": at}
        is_moved = (
            move_judged(row, judged_from, at, **fields) if judged_from else move(row, [State.ARMED], at, **fields)
        )
        if not is_moved:
            return False
        append_stop_event(row, StopEventKind.TRIGGERED, f"{price:,} ({seen})", at=at)
    log.warning("stop %s: triggered at %s won, seen by %s", pk, price, seen)
    return True


# --- the sale ------------------------------------------------------------------------------------


def due_stops(now: datetime) -> list[int]:
    """Return the ids of the stops whose next step is due and that no worker has claimed."""
    return _due_stops(now, due_before=now)


def overdue_stops(now: datetime) -> list[int]:
    """Return the ids of the stops whose step is overdue: their message was lost, or their worker was killed."""
    return _due_stops(now, due_before=now - OVERDUE)


def _due_stops(now: datetime, *, due_before: datetime) -> list[int]:
    is_due = Q(try_at__lte=due_before) | Q(try_at__gt=_latest_try(now))
    rows = StopRule.objects.filter(is_due, _is_unclaimed(now), state__in=SELLING)
    return list(rows.order_by("try_at").values_list("pk", flat=True))


def _latest_try(now: datetime) -> datetime:
    """Return the latest time for which a step can be planned now: after a pause, or once an auction has ended.

    A step with a later time was planned before the clock was set back.
    """
    auctions = (sessions.auction_at(queries.today(now), venue, now) for venue in Market)
    ends = [datetime.combine(now.astimezone(KST), auction.ends_at, KST) for auction in auctions if auction]
    return max([now + PAUSE_MAX] + [end + AUCTION_RESULT_AFTER for end in ends]) + OVERDUE


def _is_unclaimed(now: datetime) -> Q:
    return Q(claimed_until__isnull=True) | Q(claimed_until__lt=now) | Q(claimed_until__gt=now + 2 * CLAIM)


def seconds_to_next_step(pk: int, now: datetime) -> float | None:
    """Return the seconds until a stop's next step is due, None if it has none."""
    try_at = StopRule.objects.filter(pk=pk, state__in=SELLING).values_list("try_at", flat=True).first()
    if try_at is None:
        return None
    if try_at > now + PAUSE_MAX and try_at > _latest_try(now):
        return 0.0
    return max(0.0, (try_at - now).total_seconds())


def run_sale_step(pk: int, broker: Broker, now: Callable[[], datetime]) -> State | None:
    """Take the steps of a triggered stop that are due now; return its state, None if another worker has claimed it.

    The claim is short and is renewed while this process works on the step: a killed worker delays the stop by seconds,
    and no other worker takes over a step that waits long for the call limit.
    """
    claim = Claim(pk, now)
    row = claim.take()
    if row is None:
        return None
    try:
        for _ in range(STEPS_AT_ONCE):
            StopSale(row, broker, now).run()
            row.refresh_from_db()
            if row.state not in SELLING or row.try_at is None or row.try_at > now():
                break
        return State(row.state)
    finally:
        claim.release()


class Claim:
    """One worker's claim on one stop. It expires soon after its process was killed."""

    def __init__(self, pk: int, now: Callable[[], datetime]) -> None:
        self._pk, self._now = pk, now
        self._until: datetime | None = None
        self._lock = threading.Lock()
        self._timer: threading.Timer | None = None

    def take(self) -> StopRule | None:
        """Return the claimed stop, None if another worker has it. A crash of the database may lose the claim."""
        row = claim_row(self._pk, self._now(), self._now() + CLAIM)
        if row is not None:
            self._until = row.claimed_until
            self._renew_later()
        return row

    def release(self) -> None:
        with self._lock:
            until, self._until = self._until, None
            if self._timer is not None:
                self._timer.cancel()
        StopRule.objects.filter(pk=self._pk, claimed_until=until).update(claimed_until=None)

    def _renew_later(self) -> None:
        self._timer = threading.Timer(RENEW_SECONDS, self._renew)
        self._timer.daemon = True
        self._timer.start()

    def _renew(self) -> None:
        """Renew the claim on a thread of its own; without the database it expires."""
        with self._lock:
            if self._until is None:
                return
            until = self._now() + CLAIM
            try:
                rows = StopRule.objects.filter(pk=self._pk, claimed_until=self._until)
                if rows.update(claimed_until=until) != 1:
                    return
            except DatabaseError as error:
                log.warning("stop %s: its claim cannot be with_rule: %s", self._pk, error)
                return
            finally:
                connection.close()
            self._until = until
            self._renew_later()


# --- armed stops and their holdings --------------------------------------------------------------


def armed() -> list[StopRule]:
    return list(StopRule.objects.filter(state=State.ARMED).order_by("pk"))


def sync_with_holdings(now: datetime) -> None:
    """Adjust stops to changes of their holdings: a split moves amounts in won, a stop without shares is disarmed."""
    held_codes = {holding.stock_code for holding in PortfolioService().get_portfolio()}
    for row in armed():
        if row.stock_code not in held_codes:
            if is_gone(row.stock_code, now):
                _disarm_if_armed(row, gettext("nothing is held any more"), now)
            continue
        changes = PortfolioEvent.objects.filter(stock_code=row.stock_code, pk__gt=row.adjusted_through)
        for change in changes.order_by("pk"):
            _adjust(row, change, now)
    for row in StopRule.objects.filter(state__in=SELLING, quantity__isnull=False):
        _adjust_selling(row)
    for row in StopRule.objects.filter(state=State.HELD_EXTERNALLY):
        _end_if_gone(row, now)


def _end_if_gone(row: StopRule, now: datetime) -> None:
    """End a stop that is held externally, once a complete balance read after the hold shows no share of its stock."""
    balance = PortfolioService().get_snapshot()
    if balance is None or balance.left_out or balance.asked_at is None or balance.asked_at <= row.state_at:
        return
    # the broker lists a stock that was sold today with 0 shares, and drops it the next day; a line that lags behind our
    # own fills is not taken over
    line = Portfolio.objects.filter(stock_code=row.stock_code).first()
    if line is not None and (line.lags_since or line.synced_at is None or line.synced_at < balance.asked_at):
        return
    if not is_gone(row.stock_code, now):
        return
    reason = gettext("nothing is held any more")
    with transaction.atomic():
        if move(row, [State.HELD_EXTERNALLY], at=now, state=State.DONE, try_at=None, note=reason[:300]):
            append_stop_event(row, StopEventKind.DONE, reason, at=now)


def _adjust_selling(row: StopRule) -> None:
    """Apply changes of the number of shares, such as a split, to the unsold rest of a fixed quantity being sold."""
    changes = PortfolioEvent.objects.filter(stock_code=row.stock_code, pk__gt=row.adjusted_through).order_by("pk")
    for change in changes:
        fields: dict[str, object] = {"adjusted_through": change.pk}
        if change.is_corporate_action and change.qty_before and row.quantity:
            sold = row.sales.aggregate(sum=Sum("filled_qty"))["sum"] or 0
            unsold = max(0, row.quantity - sold) * change.qty_after // change.qty_before
            fields["quantity"] = max(1, sold + unsold)
        if move(row, SELLING, at=None, **fields):
            for name, value in fields.items():
                setattr(row, name, value)


def average_price(code: str, now: datetime) -> Decimal | None:
    """Return the holding's average price in won, None without a holding.

    A holding that a balance lacks without a trade counts as held for `GONE_AFTER`, at its last average price.
    """
    if holding := PortfolioService().get_holding(code):
        return holding.avg_price
    events = PortfolioEvent.objects.filter(stock_code=code, qty_after=0, at__gt=now - GONE_AFTER)
    return events.order_by("-id").values_list("avg_price_before", flat=True).first()


def _disarm_if_armed(row: StopRule, why: str, at: datetime) -> None:
    try:
        disarm(row, why=why, at=at)
    except ValidationError:
        log.info("stop %s: it triggered just before its shares were gone", row.pk)


def _adjust(row: StopRule, change: PortfolioEvent, at: datetime) -> None:
    """Apply one change of the holding that no trade explains.

    A stop that the base price of that day, or of an earlier ex-rights day, has adjusted already keeps its limit: only
    its average price changes. Any other stop moves by the change, and `settle_base` applies the rest.
    """
    fields: dict[str, object] = {"adjusted_through": change.pk}
    is_moved = False
    if change.is_corporate_action:
        ratio = change.avg_price_after / change.avg_price_before
        if row.quantity and change.qty_before:
            fields |= {"quantity": max(1, round(row.quantity * change.qty_after / change.qty_before))}
        day = _base_day_of(change)
        if row.basis != 1 or (row.base_price and row.based_on == day):
            fields |= {"basis": _quantize_ratio(row.basis / ratio)}
        else:
            is_moved = True
            fields |= _scaled_amounts(row, ratio)
            if row.based_on is not None and row.based_on < day:
                fields |= {"moved_by": _quantize_ratio(row.moved_by * ratio)}
    with transaction.atomic():
        if not move(row, [State.ARMED], at=None, **fields):
            return
        for name, value in fields.items():
            setattr(row, name, value)
        if is_moved:
            append_stop_event(
                row, StopEventKind.REBASED, f"{change.get_kind_display()}: {row.value.normalize():f} {row.unit}", at=at
            )


def _base_day_of(change: PortfolioEvent) -> date:
    """Return the day whose base price contains a change of the holding: the next day once that day is over."""
    day = change.at.astimezone(KST).date()
    return day + timedelta(days=1) if queries.is_day_over(change.at) else day


def _quantize_ratio(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.000000000001"))


def _scaled_amounts(row: StopRule, ratio: Decimal) -> dict[str, object]:
    """Return the stop's fields in won, multiplied by `ratio` as prices are."""
    fields: dict[str, object] = {
        "high": int(stops.adjust_for_ratio(Decimal(row.high), ratio)),
        "atr": stops.adjust_for_ratio(row.atr, ratio),
    }
    if row.unit == StopUnit.PRICE:
        fields |= {"value": max(Decimal(1), stops.adjust_for_ratio(row.value, ratio).to_integral_value())}
    return fields


def settle_base(row: StopRule, base_price: int, ratio: Decimal, why: str, *, day: date, at: datetime) -> bool:
    """Apply the base price (기준가) of a trading day to an armed stop.

    `ratio` is that price divided by the previous one. Once a day, by compare-and-set: False if it is applied already,
    or if the stop is not armed any more. A ratio by which a change of the holding moved the stop before (`moved_by`) is
    part of `ratio`, and is not applied twice.
    """
    remaining_ratio = ratio / row.moved_by
    fields: dict[str, object] = {"based_on": day, "base_price": base_price, "moved_by": Decimal(1)}
    if remaining_ratio != 1:
        fields |= _scaled_amounts(row, remaining_ratio) | {
            "basis": _quantize_ratio(row.basis * remaining_ratio),
            "counts_from": at,
        }
    with transaction.atomic():
        rows = StopRule.objects.filter(pk=row.pk, state=State.ARMED, based_on=row.based_on, base_price=row.base_price)
        if rows.filter(moved_by=row.moved_by, basis=row.basis, value=row.value).update(**fields) != 1:
            return False
        for name, value in fields.items():
            setattr(row, name, value)
        if abs(remaining_ratio - 1) > SMALLEST_REPORTED_CHANGE:
            template = gettext("{why}: it triggers at {limit:,} won now")
            append_stop_event(row, StopEventKind.REBASED, template.format(why=why, limit=current_limit(row)), at=at)
    return True


def awaits_base_price(row: StopRule, day: date | None) -> bool:
    """Whether a stop must not trigger yet: the base price of `day` is not applied to it.

    `day` is today, None if today is no trading day.
    """
    return day is not None and row.based_on is not None and row.based_on < day


def report_awaiting_base_price(row: StopRule, why: str, at: datetime) -> None:
    """Report once a day that a stop does not trigger, because its base price cannot be compared."""
    day = at.astimezone(KST).replace(hour=0, minute=0, second=0, microsecond=0)
    if not StopEvent.objects.filter(stop_id=row.pk, kind=StopEventKind.HOLDS_FIRE, at__gte=day).exists():
        append_stop_event(row, StopEventKind.HOLDS_FIRE, why, at=at)


def save_poll_state(pk: int, poll_state: dict[str, object]) -> None:
    """Store the polling state of an armed stop."""
    StopRule.objects.filter(pk=pk, state=State.ARMED).update(poll_state=poll_state)


@dataclass(frozen=True, slots=True)
class FeedTrades:
    """The trades of the feeds for one armed stop since the last save: the last and the highest price, in won.

    `totals` are the running totals of shares, by venue, of the trades that count for the stop, on `day`.
    """

    price: int
    high: int
    day: date
    totals: dict[str, int]


def save_last_prices(heard: dict[int, FeedTrades], at: datetime) -> None:
    """Save the trades that the feeds reported for armed stops; `heard` maps stop ids to them."""
    for pk, trades in sorted(heard.items()):
        totals = {"day": trades.day.isoformat(), **trades.totals}
        rows = StopRule.objects.filter(pk=pk, state=State.ARMED)
        rows.update(feed_at=at, feed_price=trades.price, feed_totals=totals)
        note_high(pk, trades.high)


def note_high(pk: int, price: int) -> None:
    """Raise the highest price since the stop was armed to `price` won; never lower it."""
    StopRule.objects.filter(pk=pk, state=State.ARMED, high__lt=price).update(high=price)


def note_silence(row: StopRule, *, is_silent: bool, words: str, at: datetime) -> None:
    """Record that a stop's feed became silent or has trades again, and report the change once."""
    with transaction.atomic():
        rows = StopRule.objects.filter(pk=row.pk, state=State.ARMED, is_silent=not is_silent)
        if rows.update(is_silent=is_silent) == 1:
            append_stop_event(row, StopEventKind.SILENT if is_silent else StopEventKind.HEARD, words, at=at)


def note_implausible(pk: int, price: int, at: datetime) -> None:
    """Report that a stop did not trigger at a price beyond the day's limits: the number of shares may have changed.

    At most one report in twelve hours.
    """
    template = gettext(
        "a price of {price:,} won is beyond the day's limits and triggers no stop: check the stock's disclosures"
    )
    row = StopRule(pk=pk)
    with transaction.atomic():
        events = StopEvent.objects.filter(stop_id=pk, kind=StopEventKind.IMPLAUSIBLE, at__gt=at - timedelta(hours=12))
        if not events.exists() and move(row, [State.ARMED]):
            append_stop_event(row, StopEventKind.IMPLAUSIBLE, template.format(price=price), at=at)
