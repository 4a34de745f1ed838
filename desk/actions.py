"""The actions of an operator on a screen: each is one call of a service and one entry in the record of actions.

Every function takes the user and returns the result to show. The caller has checked the permission.
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
from aegis.trading_state import TradingState
from infra import clock
from kis.factory import broker
from orders import journal, kill_switch, reconcile, risk, stop_polling, stops
from orders.management import changing
from orders.management.changing import OrderChange, after_cancel, describe_change
from orders.models import StopRule, TradeOrder
from orders.service import OrderService


@dataclass(frozen=True, slots=True)
class ActionResult:
    """The result of an action: whether it was done, and a text in the operator's language."""

    is_done: bool
    text: str


def log_action(user: User, on: Model | type[Model], text: str) -> None:
    """Record an action of a user on a row, or on a whole table."""
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
    log_action(user, table, _("exported"))


def _service() -> OrderService:
    return OrderService(broker(), clock.now)


def _note(order: TradeOrder, user: User, text: str) -> None:
    journal.append_event(order, OrderEventKind.OPERATOR, f"{user.get_username()}: {text}", at=clock.now())
    log_action(user, order, text)


def cancel(order: TradeOrder, *, by: User) -> ActionResult:
    """Ask the broker to cancel the open quantity of an order, and end its chase."""
    if order.is_done and order.chase_at is not None:
        _note(order, by, _("cancel"))
        _service().end_chase(order, _("cancelled by {name}").format(name=by.get_username()))
        return ActionResult(True, _("It will not be re-ordered: {order}").format(order=name_of(order)))
    if order.is_done:
        return ActionResult(False, _("Nothing is left to cancel of {order}").format(order=name_of(order)))
    _note(order, by, _("cancel"))
    try:
        _service().cancel(order, by=RequestedBy.OPERATOR, who=by.get_username())
    except BrokerError as error:
        return ActionResult(
            False, _("{order} is not cancelled: {error}").format(order=name_of(order), error=risk.error_text(error))
        )
    if order.state in UNANSWERED:
        return ActionResult(True, changing.cancel_deferred(name_of(order)))
    return ActionResult(True, _("Cancel sent: {order}").format(order=name_of(order)) + ". " + after_cancel(order))


def amend(order: TradeOrder, change: OrderChange, *, by: User) -> ActionResult:
    """Move an open order to another price, or reduce it."""
    _note(order, by, _("amend: {change}").format(change=describe_change(order, change)))
    result = changing.amend(order, change, who=by.get_username())
    return ActionResult(result.is_done, result.text)


def chase_now(order: TradeOrder, *, by: User) -> ActionResult:
    """Let the chase of an order take its next step at once."""
    if not order.is_open:
        return ActionResult(False, _("{order} is not open: there is nothing to chase").format(order=name_of(order)))
    _note(order, by, _("chase now"))
    _service().chase_now(order)
    return ActionResult(True, _("The chase takes its next step: {order}").format(order=name_of(order)))


def reconcile_now(*, by: User, order: TradeOrder | None = None) -> ActionResult:
    """Reconcile all orders with the broker's list."""
    if order is None:
        log_action(by, TradeOrder, _("reconcile"))
    else:
        _note(order, by, _("reconcile"))
    try:
        report = reconcile.reconcile(broker(), clock.now)
    except BrokerError as error:
        return ActionResult(False, _("The broker could not be asked: {error}").format(error=risk.error_text(error)))
    template = _(
        "Reconciled: {seen} orders at the broker, {corrected} corrected, {adopted} external orders recorded,"
        " {resolved} resolved"
    )
    figures = {name: getattr(report, name) for name in ("seen", "corrected", "adopted", "resolved")}
    text = template.format(**figures)
    if report.error:
        text += "; " + _("lines that cannot be read: {why}").format(why=report.error)
    return ActionResult(True, text)


def decide(order: TradeOrder, order_no: str | None, *, by: User) -> ActionResult:
    """Settle an unknown outcome by an operator's decision: it is the broker's `order_no`, or None: it never arrived."""
    try:
        _service().decide(order, order_no, by=by.get_username())
    except ValueError as error:
        return ActionResult(False, str(error))
    text = _("decided: it is {number}").format(number=order_no) if order_no else _("decided: it never arrived")
    log_action(by, order, text)
    return ActionResult(True, f"{name_of(order)}: {text}")


def switch_to(state: TradingState, *, by: User, reason: str) -> ActionResult:
    """Change the trading state."""
    change = kill_switch.set_state(state, by=by.get_username(), reason=reason, at=clock.now())
    log_action(by, change, f"{change.get_to_state_display()}: {reason}".rstrip(": "))
    return ActionResult(True, _("Trading switch: {state}").format(state=change.get_to_state_display()))


def stop_buying(*, by: User, reason: str) -> ActionResult:
    """Change the trading state to REDUCING, also from HALTED: only sales pass, stops among them."""
    change = kill_switch.reduce(by=by.get_username(), reason=reason, at=clock.now())
    log_action(by, change, f"{change.get_to_state_display()}: {reason}".rstrip(": "))
    return ActionResult(True, _("Trading switch: {state}").format(state=change.get_to_state_display()))


def cancel_all(*, by: User) -> Sequence[ActionResult]:
    """Cancel all our open orders; external orders stay. An order that the list still shows open is not done."""
    log_action(by, TradeOrder, _("cancel all"))
    report = _service().cancel_all(who=by.get_username())
    template = _("{count} orders are no longer open by the broker's list")
    results = [ActionResult(True, template.format(count=len(report.cancelled)))]
    results += [
        ActionResult(False, _("{order} is not confirmed: {why}").format(order=number, why=why))
        for number, why in report.unconfirmed.items()
    ]
    results += [
        ActionResult(False, _("{order} is not cancelled: {error}").format(order=number, error=why))
        for number, why in report.failed.items()
    ]
    if report.left:
        template = _("{count} orders placed outside AEGIS are left open: {numbers}")
        results.append(ActionResult(True, template.format(count=len(report.left), numbers=", ".join(report.left))))
    if report.unseen:
        results.append(ActionResult(False, _("Other orders may still be open: {error}").format(error=report.unseen)))
    return results


def disarm(stop: StopRule, *, by: User) -> ActionResult:
    """Disarm a stop."""
    try:
        stops.disarm(stop, why=by.get_username(), at=clock.now())
    except ValidationError as error:
        return ActionResult(False, f"{stop}: {' '.join(error.messages)}")
    log_action(by, stop, _("disarmed"))
    return ActionResult(True, _("Disarmed: {stop}").format(stop=stop))


def rearm(stop: StopRule, *, by: User) -> ActionResult:
    """Arm a stop again whose order was cancelled or amended externally."""
    try:
        quote = stop_polling.quote_before(stop.stock_code, stop.sources, broker(), clock.now)
        # the dialog says that it may sell at once
        stops.rearm(stop, by=by.get_username(), at=clock.now(), may_trigger_now=True, quote=quote)
    except ValidationError as error:
        return ActionResult(False, f"{stop}: {' '.join(error.messages)}")
    log_action(by, stop, _("armed again"))
    return ActionResult(True, _("Armed again: {stop}").format(stop=stop))


def name_of(order: TradeOrder) -> str:
    return f"{order.stock_name or order.stock_code} {order.get_order_type_display()} {order.qty:,} #{order.pk}"
