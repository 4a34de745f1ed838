"""Amends and cancels by an operator: check, send, and describe the result and the operator's next step."""

from dataclasses import dataclass

from django.utils.translation import gettext as _

from aegis.broker import BrokerError, Refused
from aegis.lifecycle import Status
from aegis.requests import CANCEL_REPORT_AFTER, RequestedBy, RequestKind, RequestState
from infra import clock
from kis.factory import broker
from orders import risk
from orders.amend import describe_amend
from orders.models import TradeOrder
from orders.pretrade import PricedOrder
from orders.service import OrderDenied, OrderService


@dataclass(frozen=True, slots=True)
class OrderChange:
    """A change of an open order: its new price in won, and a quantity in shares; None changes nothing.

    A price alone moves all open shares; a quantity alone reduces the order to that number of open shares.
    """

    price: int | None = None
    qty: int | None = None


@dataclass(frozen=True, slots=True)
class AmendResult:
    """The result of an amend. `text` is for the operator; `code` is stable, and empty on success.

    `row` is the new order of the amend, or the order itself if it was reduced.
    """

    code: str
    text: str
    row: TradeOrder | None = None
    broker_code: str = ""

    @property
    def is_done(self) -> bool:
        return not self.code


def preview(order: TradeOrder, change: OrderChange) -> PricedOrder | None:
    """Check an amend without sending it; return the priced order, None if shares are only taken off.

    Raises OrderDenied, and BrokerError if the broker could not be asked.
    """
    return OrderService(broker(), clock.now).preview_amend(order, price=change.price, qty=change.qty)


def describe_change(order: TradeOrder, change: OrderChange) -> str:
    """Return the description of a change, in one line."""
    head = f"#{order.pk} {order.stock_name} ({order.stock_code}) {order.get_order_type_display()}"
    if change.price is None:
        template = _("{order}: {open:,} open shares, {qty:,} are to stay, at {price:,} won")
    else:
        template = _("{order}: {qty:,} of {open:,} open shares from {old:,} to {price:,} won")
    return template.format(
        order=head,
        open=order.open_qty,
        qty=order.open_qty if change.qty is None else change.qty,
        old=order.price,
        price=order.price if change.price is None else change.price,
    )


def amend(order: TradeOrder, change: OrderChange, *, who: str) -> AmendResult:
    """Amend an open order for the operator `who` and return the result."""
    service, open_qty = OrderService(broker(), clock.now), order.open_qty
    try:
        row = service.amend(order, price=change.price, qty=change.qty, by=RequestedBy.OPERATOR, who=who)
    except OrderDenied as error:
        return AmendResult("DENIED", _not_amended(order, risk.denial_texts(error.reasons)))
    except Refused as error:
        advice = _("look at the order first: it may have filled")
        return AmendResult("NOT_AMENDED", _not_amended(order, risk.error_text(error), advice), broker_code=error.code)
    except BrokerError as error:
        advice = _("nothing was sent: try again")
        return AmendResult("NOT_AMENDED", _not_amended(order, risk.error_text(error), advice), broker_code=error.code)
    if row.pk == order.pk:
        return _reduced(row, open_qty, change.qty or 0)
    return _moved(order, row)


def _not_amended(order: TradeOrder, reason: str, advice: str = "") -> str:
    text = _("#{pk} is not amended: {why}").format(pk=order.pk, why=reason)
    return f"{text}; {advice}" if advice else text


def _moved(order: TradeOrder, row: TradeOrder) -> AmendResult:
    line = describe_amend(order, row)
    if row.state is Status.REJECTED:
        advice = _("look at the order first: it may have filled")
        return AmendResult("REFUSED", _not_amended(order, row.refusal, advice), row)
    if row.state is Status.UNKNOWN:
        template = _("amend without an answer: {line}. It is being looked up: neither amend nor order it again")
        return AmendResult("UNKNOWN", template.format(line=line), row)
    template = _("amend sent: {line}. How many shares it moved is known once the broker's list shows it")
    return AmendResult("", template.format(line=line), row)


def _reduced(order: TradeOrder, open_qty: int, qty: int) -> AmendResult:
    params = {"pk": order.pk, "taken": open_qty - qty, "qty": qty}
    if _has_no_answer(order):
        template = _("cancel of {taken:,} shares of #{pk} without an answer: it is being looked up, do not repeat it")
        return AmendResult("UNKNOWN", template.format(**params), order)
    template = _("cancel of {taken:,} shares of #{pk} sent: {qty:,} stay open once the broker's list confirms it")
    return AmendResult("", template.format(**params), order)


def _has_no_answer(order: TradeOrder) -> bool:
    """Whether the newest cancel of an order got no answer."""
    newest = order.requests.filter(kind=RequestKind.CANCEL).order_by("-id").first()
    return newest is not None and newest.state == RequestState.UNKNOWN


def cancel_deferred(order: str) -> str:
    """Return what happens to the cancel of an order without an answer; `order` is the order's name."""
    template = _("{order} has no answer yet: it is cancelled as soon as the broker's list shows it, and not chased")
    return template.format(order=order)


def after_cancel(order: TradeOrder) -> str:
    """Return what happens after an order's cancel was sent: it is not cancelled before the list confirms it."""
    template = _(
        "The broker's list confirms it; until then the cancel is sent again, and after {seconds} s you are told"
    )
    if _has_no_answer(order):
        template = _(
            "No answer came: it is sent again until the broker's list confirms it, and after {seconds} s you are told"
        )
    return template.format(seconds=int(CANCEL_REPORT_AFTER.total_seconds()))
