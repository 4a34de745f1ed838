"""What an operator does from a screen: one call downstairs, one line in the record of who did what and when.

Every function takes the user who asked and returns what to tell them; whether they may is decided before.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import User
from django.contrib.contenttypes.models import ContentType
from django.core.exceptions import ValidationError
from django.db.models import Model
from django.utils.translation import gettext as _

from aegis.broker import BrokerError
from aegis.lifecycle import UNANSWERED
from aegis.order_events import OrderEventKind
from aegis.requests import RequestedBy
from aegis.risk import TradingState
from infra import clock
from kis.factory import broker
from orders import journal, kill_switch, reconcile, risk, stop_polling, stops
from orders.management import changing
from orders.management.changing import OrderChange, after_cancel, wanted
from orders.models import StopRule, TradeOrder
from orders.service import OrderService


@dataclass(frozen=True, slots=True)
class ActionResult:
    """What became of it, in the operator's language."""

    is_done: bool
    text: str


def log_act(user: User, on: Model | type[Model], text: str) -> None:
    """Write down who did what: on a row, or on a table as a whole."""
    is_row = isinstance(on, Model)
    LogEntry.objects.create(
        action_time=clock.now(),
        user_id=user.pk,
        content_type=ContentType.objects.get_for_model(on),
        object_id=str(on.pk) if is_row else None,
        object_repr=str(on)[:200] if is_row else str(on._meta.verbose_name_plural),
        action_flag=CHANGE,
        change_message=text,
    )


def log_export(user: User, table: type[Model]) -> None:
    log_act(user, table, _("exported"))


def _service() -> OrderService:
    return OrderService(broker(), clock.now)


def _note(order: TradeOrder, user: User, text: str) -> None:
    journal.append_event(order, OrderEventKind.OPERATOR, f"{user.get_username()}: {text}", at=clock.now())
    log_act(user, order, text)


def cancel(order: TradeOrder, *, by: User) -> ActionResult:
    """Ask the broker to cancel what is left of an order, and end its chase."""
    if order.is_done and order.chase_at is not None:
        _note(order, by, _("cancel"))
        _service().end_chase(order, _("cancelled by {name}").format(name=by.get_username()))
        return ActionResult(True, _("Nothing of it is ordered anew: {order}").format(order=name_of(order)))
    if order.is_done:
        return ActionResult(False, _("Nothing is left to cancel of {order}").format(order=name_of(order)))
    _note(order, by, _("cancel"))
    try:
        _service().cancel(order, by=RequestedBy.OPERATOR, who=by.get_username())
    except BrokerError as error:
        return ActionResult(
            False, _("{order} is not cancelled: {error}").format(order=name_of(order), error=risk.say_error(error))
        )
    if order.state in UNANSWERED:
        return ActionResult(True, changing.cancel_deferred(name_of(order)))
    return ActionResult(True, _("Cancel sent: {order}").format(order=name_of(order)) + ". " + after_cancel(order))


def amend(order: TradeOrder, change: OrderChange, *, by: User) -> ActionResult:
    """Move an open order to another price, or reduce it."""
    _note(order, by, _("amend: {change}").format(change=wanted(order, change)))
    changed = changing.amend(order, change, who=by.get_username())
    return ActionResult(changed.is_done, changed.text)


def chase_now(order: TradeOrder, *, by: User) -> ActionResult:
    """Let the chase of an order take its next step at once."""
    if not order.is_open:
        return ActionResult(False, _("{order} is not open: there is nothing to chase").format(order=name_of(order)))
    _note(order, by, _("chase now"))
    _service().chase_now(order)
    return ActionResult(True, _("The chase takes its next step: {order}").format(order=name_of(order)))


def look(*, by: User, order: TradeOrder | None = None) -> ActionResult:
    """Hold all orders against the broker's list."""
    if order is None:
        log_act(by, TradeOrder, _("reconcile"))
    else:
        _note(order, by, _("reconcile"))
    try:
        report = reconcile.reconcile(broker(), clock.now)
    except BrokerError as error:
        return ActionResult(False, _("The broker could not be asked: {error}").format(error=risk.say_error(error)))
    words = _("Reconciled: {seen} orders at the broker, {corrected} corrected, {adopted} adopted, {resolved} resolved")
    figures = {name: getattr(report, name) for name in ("seen", "corrected", "adopted", "resolved")}
    text = words.format(**figures)
    if report.error:
        text += "; " + _("lines that cannot be read: {why}").format(why=report.error)
    return ActionResult(True, text)


def decide(order: TradeOrder, order_no: str | None, *, by: User) -> ActionResult:
    """Settle an unknown outcome by a person's word: it is the broker's `order_no`, or it never arrived."""
    try:
        _service().decide(order, order_no, by=by.get_username())
    except ValueError as error:
        return ActionResult(False, str(error))
    text = _("decided: it is {number}").format(number=order_no) if order_no else _("decided: it never arrived")
    log_act(by, order, text)
    return ActionResult(True, f"{name_of(order)}: {text}")


def switch_to(state: TradingState, *, by: User, reason: str) -> ActionResult:
    """Turn the kill switch."""
    change = kill_switch.set_state(state, by=by.get_username(), reason=reason, at=clock.now())
    log_act(by, change, f"{change.get_to_state_display()}: {reason}".rstrip(": "))
    return ActionResult(True, _("Trading switch: {state}").format(state=change.get_to_state_display()))


def stop_buying(*, by: User, reason: str) -> ActionResult:
    """Let only sales pass, stops among them; halted trading is halted no more."""
    change = kill_switch.reduce(by=by.get_username(), reason=reason, at=clock.now())
    log_act(by, change, f"{change.get_to_state_display()}: {reason}".rstrip(": "))
    return ActionResult(True, _("Trading switch: {state}").format(state=change.get_to_state_display()))


def cancel_all(*, by: User) -> Sequence[ActionResult]:
    """Cancel everything of ours that is open; external orders stay. What the list still shows is not done."""
    log_act(by, TradeOrder, _("cancel all"))
    swept = _service().cancel_all(who=by.get_username())
    words = _("{count} orders are no longer open by the broker's list")
    told = [ActionResult(True, words.format(count=len(swept.cancelled)))]
    told += [
        ActionResult(False, _("{order} is not confirmed: {why}").format(order=number, why=why))
        for number, why in swept.unconfirmed.items()
    ]
    told += [
        ActionResult(False, _("{order} is not cancelled: {error}").format(order=number, error=why))
        for number, why in swept.failed.items()
    ]
    if swept.left:
        words = _("{count} orders placed outside AEGIS are left open: {numbers}")
        told.append(ActionResult(True, words.format(count=len(swept.left), numbers=", ".join(swept.left))))
    if swept.unseen:
        told.append(ActionResult(False, _("Not all that is open is known: {error}").format(error=swept.unseen)))
    return told


def disarm(stop: StopRule, *, by: User) -> ActionResult:
    """Take a stop back."""
    try:
        stops.disarm(stop, why=by.get_username(), at=clock.now())
    except ValidationError as error:
        return ActionResult(False, f"{stop}: {' '.join(error.messages)}")
    log_act(by, stop, _("disarmed"))
    return ActionResult(True, _("Disarmed: {stop}").format(stop=stop))


def rearm(stop: StopRule, *, by: User) -> ActionResult:
    """Arm a stop again whose order somebody else changed."""
    try:
        quote = stop_polling.quote_before(stop.stock_code, stop.sources, broker(), clock.now)
        # the dialog says that it may sell at once
        stops.rearm(stop, by=by.get_username(), at=clock.now(), may_trigger_now=True, quote=quote)
    except ValidationError as error:
        return ActionResult(False, f"{stop}: {' '.join(error.messages)}")
    log_act(by, stop, _("armed again"))
    return ActionResult(True, _("Armed again: {stop}").format(stop=stop))


def name_of(order: TradeOrder) -> str:
    return f"{order.stock_name or order.stock_code} {order.get_order_type_display()} {order.qty:,} #{order.pk}"
