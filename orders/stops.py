"""Stops on holdings: armed, triggered once, sold by an order family. The only writer of their rows and events.

A row goes ARMED → TRIGGERED by compare-and-set, whoever saw the price, and however often. What follows is
an errand that any worker may take up where another died: `request_id` names the order of each generation, so
that a generation has one order whatever happens. What is refused for a while is tried again, and told.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal

from django.core.exceptions import ValidationError
from django.db import IntegrityError, transaction
from django.db.models import Q, Sum
from django.utils.translation import gettext

from aegis import stops
from aegis.broker import Broker, BrokerError
from aegis.guards import gettext_noop
from aegis.lifecycle import OPEN, UNSETTLED, Status
from aegis.requests import CANCEL_PATIENCE, EndCause, RequestedBy
from aegis.sessions import KST
from aegis.stops import ATR_DAYS, StopKind, StopUnit
from aegis.terms import Side
from market import codes
from market import service as market
from orders import guards
from orders.models import StopEvent, StopRule, TradeOrder
from orders.service import Intent, OrderDenied, OrderService
from portfolio.models import Portfolio, PortfolioEvent
from portfolio.service import PortfolioService

log = logging.getLogger(__name__)

State = StopRule.State
LIVE = (State.ARMED, State.TRIGGERED, State.ORDERED)
CLAIM = timedelta(seconds=30)
# an order of ours that holds the shares back is cancelled first: this long for the broker to let go of them
LET_GO = timedelta(seconds=1)
LOOK_AGAIN = timedelta(seconds=2)
PAUSE = timedelta(seconds=5)
# own buys that a sale could trade against are cancelled first: it sells after this, whether that is confirmed or not
OPPOSITE_PATIENCE = timedelta(seconds=2)
# shares that went without a trade may be back with the next balance: so long one that lacks them proves nothing
VANISHED = timedelta(minutes=10)
# refusals of the broker itself, after which a person is called instead
MOST_REFUSALS = 5
# what an event says to an operator, in its own words
SAID = {
    "ARMED": gettext_noop("armed"),
    "EDITED": gettext_noop("changed"),
    "DISARMED": gettext_noop("disarmed"),
    "TRIGGERED": gettext_noop("triggered"),
    "WAITS": gettext_noop("not sold yet"),
    "ORDERED": gettext_noop("ordered"),
    "AGAIN": gettext_noop("ordered anew"),
    "OPPOSITE": gettext_noop("own buys stand against the sale"),
    "DONE": gettext_noop("done"),
    "FAILED": gettext_noop("FAILED"),
    "REBASED": gettext_noop("moved with the shares"),
    "HOLDS_FIRE": gettext_noop("holds fire"),
    "SILENT": gettext_noop("its feed is silent"),
    "HEARD": gettext_noop("its feed is heard again"),
    "IMPLAUSIBLE": gettext_noop("an impossible price"),
}
# days asked for so that a true range of ATR_DAYS trading days is among them
ATR_SPAN = timedelta(days=3 * ATR_DAYS)
# a change of the base price by less is what rounding leaves, and is not reported
TOLD_FROM = Decimal("0.005")


# --- by hand -------------------------------------------------------------------------------------


def draft(
    code: str,
    kind: StopKind,
    unit: StopUnit,
    value: Decimal,
    *,
    by: str,
    at: datetime,
    sources: str = "",
    may_trigger_now: bool = False,
) -> StopRule:
    """Return the row of a stop that may be armed, not saved: `value` in won, percent, or multiples of the true range.

    `code` may be a name too; `sources` names the venues whose trades may trigger it, as `KRX,NXT`, empty for those
    that the settings name. Raises ValidationError, by field: it is no stock, no shares are held, the value could
    never fire, or would at once and nobody confirmed that it may (`may_trigger_now`), or a stop of this kind is live
    already.
    """
    try:
        code = codes.resolve(code)
    except ValueError as error:
        raise ValidationError({"stock_code": codes.explain(error)}) from error
    holding = PortfolioService().get_holding(code)
    if holding is None:
        words = gettext("{code}: a stop guards shares that are held, and none are").format(code=code)
        raise ValidationError({"stock_code": words})
    row = StopRule(
        stock_code=code,
        stock_name=holding.stock_name,
        kind=kind,
        unit=unit,
        value=value,
        atr=_true_range(code, at) if unit is StopUnit.ATR else Decimal(0),
        high=holding.current_price,
        state_at=at,
        armed_at=at,
        armed_by=by,
        adjusted_through=_newest_change(code),
        sources=_named(sources),
        counts_from=at,
        based_on=base_day(at),
    )
    _check(row, holding, may_trigger_now=may_trigger_now)
    if StopRule.objects.filter(stock_code=code, kind=kind, state__in=LIVE).exists():
        raise _taken(row)
    return row


def arm(
    code: str,
    kind: StopKind,
    unit: StopUnit,
    value: Decimal,
    *,
    by: str,
    at: datetime,
    sources: str = "",
    may_trigger_now: bool = False,
) -> StopRule:
    """Arm a stop on a holding and return its row. Raises ValidationError as `draft` does."""
    row = draft(code, kind, unit, value, by=by, at=at, sources=sources, may_trigger_now=may_trigger_now)
    try:
        with transaction.atomic():
            row.save(force_insert=True)
            _write(row, "ARMED", f"{row.get_kind_display()} {limit(row):,} ({by})", at=at)
    except IntegrityError as error:
        raise _taken(row) from error
    return row


def _taken(row: StopRule) -> ValidationError:
    words = gettext("{stock} has a live {kind} already: edit or disarm that one")
    return ValidationError({"kind": words.format(stock=row.stock_name, kind=row.get_kind_display())})


def edited(
    row: StopRule,
    unit: StopUnit,
    value: Decimal,
    *,
    at: datetime,
    sources: str | None = None,
    may_trigger_now: bool = False,
) -> StopRule:
    """Return a stop as it would be, not saved. Raises ValidationError, by field, as `draft` does.

    Without `sources` the venues that may trigger it stay as they are.
    """
    holding = PortfolioService().get_holding(row.stock_code)
    if holding is None:
        raise ValidationError({"value": gettext("its shares are not held any more")})
    row.unit, row.value = unit, value
    row.atr = _true_range(row.stock_code, at) if unit is StopUnit.ATR else Decimal(0)
    row.sources = row.sources if sources is None else _named(sources)
    _check(row, holding, may_trigger_now=may_trigger_now)
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
) -> None:
    """Change what an armed stop fires at, from now on. Raises ValidationError, by field, as `draft` does."""
    row = edited(row, unit, value, at=at, sources=sources, may_trigger_now=may_trigger_now)
    changes = {"unit": unit, "value": value, "atr": row.atr, "sources": row.sources, "counts_from": at}
    with transaction.atomic():
        if not _move(row, [State.ARMED], at=at, **changes):
            raise ValidationError(_not_any_more(row))
        _write(row, "EDITED", f"{limit(row):,} ({by})", at=at)


def disarm(row: StopRule, *, why: str, at: datetime) -> None:
    """Take a stop back before it has an order. Raises ValidationError where it has one, or is over."""
    with transaction.atomic():
        if not _move(row, [State.ARMED, State.TRIGGERED], at=at, state=State.DISARMED, try_at=None, note=why[:300]):
            raise ValidationError(_not_any_more(row))
        _write(row, "DISARMED", why, at=at)


def limit(row: StopRule) -> int:
    """Return the price, in won, at which a stop fires now, by the average price of what is held; 0 without shares."""
    holding = PortfolioService().get_holding(row.stock_code)
    return stops.limit(row.rule(holding.avg_price)) if holding else 0


def _not_any_more(row: StopRule) -> str:
    row.refresh_from_db()
    return gettext("it is {state} by now").format(state=row.get_state_display())


def _named(sources: str) -> str:
    """Return the venues that may trigger a stop as its row holds them. Raises ValidationError."""
    names = [name.strip().upper() for name in sources.split(",") if name.strip()]
    text = ",".join(sorted(set(names)))
    if text not in dict(StopRule.SOURCES):
        words = gettext("{sources} names no venues whose trades may trigger a stop: KRX, NXT or KRX,NXT")
        raise ValidationError({"sources": words.format(sources=repr(sources))})
    return text


def base_day(at: datetime) -> date:
    """Return the newest trading day of which prices at `at` are: today's from its first phase on."""
    phases = market.today(at)
    is_begun = bool(phases) and at.astimezone(KST).time() >= min(phase.starts_at for phase in phases)
    return at.astimezone(KST).date() if is_begun else market.last_final_day(at)


AT_ONCE = gettext_noop(
    "To arm it all the same, confirm that it may sell at once: --confirm-immediate on the command line, the box of the"
    " form, may_trigger_now=True in Python"
)


def _check(row: StopRule, holding: Portfolio, *, may_trigger_now: bool) -> None:
    reason = stops.against(row.rule(holding.avg_price), holding.current_price)
    if reason is None or (reason.code == "STOP_AT_ONCE" and may_trigger_now):
        return
    words = guards.say(reason)
    raise ValidationError({"value": f"{words}. {gettext(AT_ONCE)}" if reason.code == "STOP_AT_ONCE" else words})


def _true_range(code: str, at: datetime) -> Decimal:
    """Return the average true range in won, 0 where too few daily prices are known."""
    last = market.last_final_day(at)
    days = market.daily_prices(code, last - ATR_SPAN, last)
    return stops.average_true_range([stops.Day(day.high, day.low, day.close) for day in days]) or Decimal(0)


def _newest_change(code: str) -> int:
    newest = PortfolioEvent.objects.filter(stock_code=code).order_by("-id").values_list("pk", flat=True).first()
    return newest or 0


# --- by price ------------------------------------------------------------------------------------


def trigger(pk: int, price: int, at: datetime, *, seen: str) -> bool:
    """Trigger an armed stop for a trade at `price` won; False where it is not armed any more: once, whoever calls.

    `seen` says by what the price is known.
    """
    row = StopRule(pk=pk)
    with transaction.atomic():
        fields = {"state": State.TRIGGERED, "trigger_price": price, "triggered_at": at, "try_at": at}
        if not _move(row, [State.ARMED], at=at, **fields):
            return False
        _write(row, "TRIGGERED", f"{price:,} ({seen})", at=at)
    log.warning("stop %s: triggered at %s won, seen by %s", pk, price, seen)
    return True


# --- the errand ----------------------------------------------------------------------------------


def due(now: datetime) -> list[int]:
    """Return the stops whose next step is due and that nobody is working on."""
    waiting = StopRule.objects.filter(_free(now), state__in=[State.TRIGGERED, State.ORDERED], try_at__lte=now)
    return list(waiting.order_by("try_at").values_list("pk", flat=True))


def _free(now: datetime) -> Q:
    return Q(claimed_until__isnull=True) | Q(claimed_until__lt=now)


def advance(pk: int, broker: Broker, now: Callable[[], datetime]) -> State | None:
    """Take a triggered stop as far as it goes now; return where it stands, None where another is at it."""
    if StopRule.objects.filter(_free(now()), pk=pk).update(claimed_until=now() + CLAIM) != 1:
        return None
    try:
        row = StopRule.objects.get(pk=pk)
        if row.state == State.TRIGGERED:
            _sell(row, broker, now)
        elif row.state == State.ORDERED:
            _follow(row, now())
        row.refresh_from_db(fields=["state"])
        return State(row.state)
    finally:
        StopRule.objects.filter(pk=pk).update(claimed_until=None)


def _sell(row: StopRule, broker: Broker, now: Callable[[], datetime]) -> None:
    """Sell what can be sold, or note why not and try again."""
    service = OrderService(broker, now)
    try:
        # the order of a sender that died before it could be noted here
        order = TradeOrder.objects.filter(request_id=row.request_id).first()
        if order is None:
            qty = _sellable(row, service, broker, now)
            if qty == 0:
                return
            intent = Intent(row.stock_code, Side.SELL, qty, _strategy(row), request_id=row.request_id)
            order = service.place(intent, may_self_cross=_has_cleared_opposite(row, now()))
    except OrderDenied as denied:
        if [reason.code for reason in denied.reasons] == ["SELF_CROSS"]:
            _clear_opposite(row, service, now())
        else:
            _wait(row, guards.say_all(denied.reasons), now())
    except BrokerError as error:
        _wait(row, guards.say_error(error), now())
    else:
        _ordered(row, order, now())


def _strategy(row: StopRule) -> str:
    return "sell_stop" if StopKind(row.kind).falls else "sell_profit"


def _sellable(row: StopRule, service: OrderService, broker: Broker, now: Callable[[], datetime]) -> int:
    """Return the shares to sell; 0, with all noted, where there are none, or where our own orders hold them."""
    if _is_gone(row.stock_code, now()):
        _end(row, State.DONE, "DONE", gettext("nothing is held any more"), now())
        return 0
    if StopKind(row.kind).falls and _cancel_sales(row.stock_code, service, now()):
        _again_at(row, now() + LET_GO)
        return 0
    qty = broker.sellable_qty(row.stock_code)
    if qty == 0:
        _wait(row, gettext("the broker lets no share be sold: open orders may hold them"), now())
    return qty


def _clear_opposite(row: StopRule, service: OrderService, at: datetime) -> None:
    """Cancel the buys that the sale could trade against, external ones too, report it, and try again soon."""
    buys = TradeOrder.objects.filter(stock_code=row.stock_code, order_type=Side.BUY, status__in=OPEN)
    for order in buys.exclude(order_no=None):
        if order.cancel_wanted_at is None:
            service.cancel(order, by=RequestedBy.STOP)
    names = ", ".join(f"#{pk}" for pk in buys.values_list("pk", flat=True))
    with transaction.atomic():
        _write(row, "OPPOSITE", gettext("{orders}: own buys are cancelled first").format(orders=names), at=at)
        _again_at(row, at + OPPOSITE_PATIENCE)


def _has_cleared_opposite(row: StopRule, at: datetime) -> bool:
    """Whether own buys were cancelled for this sale, and long enough ago to sell in any case."""
    cleared = row.events.filter(kind="OPPOSITE", at__gte=row.triggered_at, at__lte=at - OPPOSITE_PATIENCE)
    return row.triggered_at is not None and cleared.exists()


def _cancel_sales(code: str, service: OrderService, at: datetime) -> bool:
    """Cancel our other sales of a stock, such as a profit waited for: out comes first. Whether any holds shares.

    One on its way holds them too. A cancel that the broker has not confirmed may never have left: it is asked for
    again. Raises BrokerError.
    """
    sales = TradeOrder.objects.filter(stock_code=code, order_type=Side.SELL, origin=TradeOrder.Origin.AEGIS)
    for order in sales.exclude(chase_at=None):
        service.end_chase(order, gettext("a stop sells its shares"))
    holding = list(sales.filter(status__in=[*OPEN, Status.SUBMITTING]))
    for order in holding:
        is_asked = order.cancel_sent_at is not None and at - order.cancel_sent_at < CANCEL_PATIENCE
        if order.order_no is not None and not is_asked:
            service.cancel(order, by=RequestedBy.STOP)
    return bool(holding)


def _wait(row: StopRule, why: str, at: datetime) -> None:
    """Try again a little later; another reason than the last is told."""
    with transaction.atomic():
        if _move(row, [State.TRIGGERED], try_at=at + PAUSE, note=why[:300]) and row.note != why[:300]:
            _write(row, "WAITS", why, at=at)
    log.warning("stop %s: not sold yet: %s", row.pk, why)


def _again_at(row: StopRule, at: datetime) -> None:
    _move(row, [State.TRIGGERED, State.ORDERED], try_at=at)


def _ordered(row: StopRule, order: TradeOrder, at: datetime) -> None:
    fields = {"state": State.ORDERED, "order": order, "try_at": at + LOOK_AGAIN, "note": ""}
    with transaction.atomic():
        if _move(row, [State.TRIGGERED], at=at, **fields):
            _write(row, "ORDERED", f"#{order.pk} {order.qty:,} @ {order.price:,} {order.status}", at=at)


def _follow(row: StopRule, at: datetime) -> None:
    """Look how the order family of a stop stands, and end the stop or go on."""
    root = TradeOrder.objects.get(pk=row.order_id)
    family = root.family.order_by("attempt")
    newest = family.last() or root
    if newest.status in UNSETTLED or newest.chase_at is not None:
        _again_at(row, at + LOOK_AGAIN)
        return
    sold = family.aggregate(sum=Sum("filled_qty"))["sum"] or 0
    left = root.qty - sold
    if left <= 0:
        _end(row, State.DONE, "DONE", gettext("{qty:,} shares sold").format(qty=sold), at)
    elif _is_gone(row.stock_code, at):
        _end(row, State.DONE, "DONE", gettext("nothing is held any more"), at)
    elif why := _gives_up(row, newest):
        words = gettext("{left:,} shares are not sold: {why}. Sell them by hand, or arm a new stop")
        _end(row, State.FAILED, "FAILED", words.format(left=left, why=why), at)
    else:
        _next_generation(row, newest, left, at)


def _gives_up(row: StopRule, newest: TradeOrder) -> str:
    """Return why a stop whose order is over without selling all is left to a person, empty where it goes on."""
    if newest.state is Status.CANCELLED and newest.end_cause != EndCause.SESSION_END and not newest.chase_note:
        return gettext("its order was cancelled, by hand or for another stop")
    refused = TradeOrder.objects.filter(
        request_id__startswith=f"stop:{row.pk}:", status=Status.REJECTED, never_arrived=False
    ).count()
    if refused >= MOST_REFUSALS:
        return gettext("refused {count} times, last: {why}").format(count=refused, why=newest.refusal)
    return ""


def _next_generation(row: StopRule, newest: TradeOrder, left: int, at: datetime) -> None:
    why = newest.refusal or newest.chase_note or str(newest.get_status_display())
    fields = {"state": State.TRIGGERED, "order": None, "generation": row.generation + 1, "try_at": at + PAUSE}
    with transaction.atomic():
        if _move(row, [State.ORDERED], at=at, note=why[:300], **fields):
            words = gettext("{left:,} shares are not sold ({why}): ordered anew").format(left=left, why=why)
            _write(row, "AGAIN", words, at=at)


def _end(row: StopRule, state: StopRule.State, kind: str, words: str, at: datetime) -> None:
    with transaction.atomic():
        if _move(row, [State.TRIGGERED, State.ORDERED], at=at, state=state, try_at=None, note=words[:300]):
            _write(row, kind, words, at=at)


# --- what becomes of armed ones ------------------------------------------------------------------


def armed() -> list[StopRule]:
    return list(StopRule.objects.filter(state=State.ARMED).order_by("pk"))


def keep(now: datetime) -> None:
    """Let armed stops follow their shares: a split moves amounts in won, and what is gone needs none."""
    held = {holding.stock_code for holding in PortfolioService().get_portfolio()}
    for row in armed():
        if row.stock_code not in held:
            if _is_gone(row.stock_code, now):
                _leave(row, gettext("nothing is held any more"), now)
            continue
        changes = PortfolioEvent.objects.filter(stock_code=row.stock_code, pk__gt=row.adjusted_through)
        for change in changes.order_by("pk"):
            _adjust(row, change, now)


def _is_gone(code: str, now: datetime) -> bool:
    """Whether no share is held, by a sale or for good."""
    return average_price(code, now) is None


def average_price(code: str, now: datetime) -> Decimal | None:
    """Return the average price, in won, of what is held, None where nothing is.

    What one balance lacks without a trade counts as held for a while, at the price of before.
    """
    if holding := PortfolioService().get_holding(code):
        return holding.avg_price
    vanished = PortfolioEvent.objects.filter(stock_code=code, qty_after=0, at__gt=now - VANISHED)
    return vanished.order_by("-id").values_list("avg_price_before", flat=True).first()


def _leave(row: StopRule, why: str, at: datetime) -> None:
    try:
        disarm(row, why=why, at=at)
    except ValidationError:
        log.info("stop %s: it fired a moment before its shares were gone", row.pk)


def _adjust(row: StopRule, change: PortfolioEvent, at: datetime) -> None:
    """Count in one change of the holding that no trade explains.

    A stop whose base price of that day is counted in, or was adjusted on an ex-rights day before, stays where it is:
    only its average price changes. Any other moves by the change, and `settle_base` counts the rest.
    """
    fields: dict[str, object] = {"adjusted_through": change.pk}
    is_moved = False
    if change.is_of_count:
        ratio = change.avg_price_after / change.avg_price_before
        day = _base_day_of(change)
        if row.basis != 1 or (row.base_price and row.based_on == day):
            fields |= {"basis": _factor(row.basis / ratio)}
        else:
            is_moved = True
            fields |= _moved(row, ratio)
            if row.based_on is not None and row.based_on < day:
                fields |= {"moved_by": _factor(row.moved_by * ratio)}
    with transaction.atomic():
        if not _move(row, [State.ARMED], **fields):
            return
        for name, value in fields.items():
            setattr(row, name, value)
        if is_moved:
            _write(row, "REBASED", f"{change.get_kind_display()}: {row.value.normalize():f} {row.unit}", at=at)


def _base_day_of(change: PortfolioEvent) -> date:
    """Return the day whose base price a change of the holding belongs to: the next one's once a day is over."""
    day = change.at.astimezone(KST).date()
    return day + timedelta(days=1) if market.days_over(change.at) else day


def _factor(value: Decimal) -> Decimal:
    return value.quantize(Decimal("0.000000000001"))


def _moved(row: StopRule, ratio: Decimal) -> dict[str, object]:
    """Return the amounts in won of a stop, once prices are `ratio` of what they were."""
    fields: dict[str, object] = {
        "high": int(stops.rebased(Decimal(row.high), ratio)),
        "atr": stops.rebased(row.atr, ratio),
    }
    if row.unit == StopUnit.PRICE:
        fields |= {"value": max(Decimal(1), stops.rebased(row.value, ratio).to_integral_value())}
    return fields


def settle_base(row: StopRule, base_price: int, ratio: Decimal, why: str, *, day: date, at: datetime) -> bool:
    """Count in the base price (기준가) of a trading day: `ratio` of the prices that an armed stop's figures are of.

    Once a day, whoever comes; False if it was counted in already, or the stop is not armed any more. What a change of
    the holding moved before counts as part of it.
    """
    rest = ratio / row.moved_by
    fields: dict[str, object] = {"based_on": day, "base_price": base_price, "moved_by": Decimal(1)}
    if rest != 1:
        fields |= _moved(row, rest) | {"basis": _factor(row.basis * rest), "counts_from": at}
    with transaction.atomic():
        seen = StopRule.objects.filter(pk=row.pk, state=State.ARMED, based_on=row.based_on, base_price=row.base_price)
        if seen.filter(moved_by=row.moved_by, basis=row.basis, value=row.value).update(**fields) != 1:
            return False
        for name, value in fields.items():
            setattr(row, name, value)
        if abs(rest - 1) > TOLD_FROM:
            words = gettext("{why}: it triggers at {limit:,} won now")
            _write(row, "REBASED", words.format(why=why, limit=limit(row)), at=at)
    return True


def holds_fire(row: StopRule, day: date | None) -> bool:
    """Whether the base price of `day`, today if it is a trading day, is not counted in yet: nothing triggers then."""
    return day is not None and row.based_on is not None and row.based_on < day


def note_held(row: StopRule, why: str, at: datetime) -> None:
    """Report once a day that a stop holds fire, because its base price cannot be compared."""
    day = at.astimezone(KST).replace(hour=0, minute=0, second=0, microsecond=0)
    if not StopEvent.objects.filter(stop_id=row.pk, kind="HOLDS_FIRE", at__gte=day).exists():
        _write(row, "HOLDS_FIRE", why, at=at)


def note_looks(pk: int, looks: dict[str, object]) -> None:
    """Keep what polled prices showed of an armed stop."""
    StopRule.objects.filter(pk=pk, state=State.ARMED).update(looks=looks)


@dataclass(frozen=True, slots=True)
class HeardTrades:
    """What the feeds told of an armed stop since the last time: the last price, the highest one, in won, and totals.

    `totals` are the running totals of shares, by venue, of the trades that count for it; `day` is theirs.
    """

    price: int
    high: int
    day: date
    totals: dict[str, int]


def note_heard(heard: dict[int, HeardTrades], at: datetime) -> None:
    """Write down what the feed told of armed stops, by the stop's number."""
    for pk, each in sorted(heard.items()):
        totals = {"day": each.day.isoformat(), **each.totals}
        armed = StopRule.objects.filter(pk=pk, state=State.ARMED)
        armed.update(heard_at=at, heard_price=each.price, heard_totals=totals)
        note_high(pk, each.high)


def note_high(pk: int, price: int) -> None:
    """Move the highest price since it was armed up to `price` won, never down."""
    StopRule.objects.filter(pk=pk, state=State.ARMED, high__lt=price).update(high=price)


def note_silence(row: StopRule, *, is_silent: bool, words: str, at: datetime) -> None:
    """Note that a stop's feed fell silent or is heard again, and tell it."""
    with transaction.atomic():
        changed = StopRule.objects.filter(pk=row.pk, state=State.ARMED, is_silent=not is_silent)
        if changed.update(is_silent=is_silent) == 1:
            _write(row, "SILENT" if is_silent else "HEARD", words, at=at)


def note_implausible(pk: int, price: int, at: datetime) -> None:
    """Tell once that a stop did not fire at a price which the day cannot have: the count of shares may change."""
    words = gettext(
        "a price of {price:,} won is beyond the day's limits and fires nothing: look at the share's notices"
    )
    row = StopRule(pk=pk)
    with transaction.atomic():
        told = StopEvent.objects.filter(stop_id=pk, kind="IMPLAUSIBLE", at__gt=at - timedelta(hours=12))
        if not told.exists() and _move(row, [State.ARMED]):
            _write(row, "IMPLAUSIBLE", words.format(price=price), at=at)


# --- rows ----------------------------------------------------------------------------------------


def _move(row: StopRule, states: Sequence[StopRule.State], at: datetime | None = None, **fields: object) -> bool:
    """Change a row that is in one of `states`; False where it is not any more."""
    if "state" in fields:
        fields["state_at"] = at
    rows = StopRule.objects.filter(pk=row.pk, state__in=states)
    return (rows.update(**fields) if fields else rows.count()) == 1


def _write(row: StopRule, kind: str, detail: str, *, at: datetime) -> None:
    StopEvent.objects.create(stop_id=row.pk, kind=kind, detail=detail[:300], at=at)
