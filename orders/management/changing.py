"""Amends and cancels by a person: judged, sent, and told in sentences that say what to do next."""

from dataclasses import dataclass

from django.utils.translation import gettext as _

from aegis.broker import BrokerError, Refused
from aegis.lifecycle import Status
from aegis.requests import CANCEL_REPORT_AFTER, RequestedBy, RequestKind, RequestState
from infra import clock
from kis.factory import broker
from orders import risk
from orders.amend import describe
from orders.models import TradeOrder
from orders.pretrade import PricedOrder
from orders.service import OrderDenied, OrderService


@dataclass(frozen=True, slots=True)
class OrderChange:
    """An open order's new price in won, or how many of its shares it is about; None leaves that as it is.

    A price alone moves all that is open, a quantity alone reduces the order to so many open shares.
    """

    price: int | None = None
    qty: int | None = None


@dataclass(frozen=True, slots=True)
class Changed:
    """What became of an amend, in words. `code` is stable and empty if it went, `row` is the order that it led to."""

    code: str
    text: str
    row: TradeOrder | None = None
    broker_code: str = ""

    @property
    def is_done(self) -> bool:
        return not self.code


def preview(order: TradeOrder, change: OrderChange) -> PricedOrder | None:
    """Judge an amend without sending it; return what would go, None if shares are only taken off.

    Raises OrderDenied, and BrokerError if the broker could not be asked.
    """
    return OrderService(broker(), clock.now).preview_amend(order, price=change.price, qty=change.qty)


def wanted(order: TradeOrder, change: OrderChange) -> str:
    """Return what an amend is to do, in one line."""
    start = f"#{order.pk} {order.stock_name} ({order.stock_code}) {order.get_order_type_display()}"
    if change.price is None:
        words = _("{order}: {open:,} open shares, {qty:,} are to stay, at {price:,} won")
    else:
        words = _("{order}: {qty:,} of {open:,} open shares from {old:,} to {price:,} won")
    return words.format(
        order=start,
        open=order.open_qty,
        qty=order.open_qty if change.qty is None else change.qty,
        old=order.price,
        price=order.price if change.price is None else change.price,
    )


def amend(order: TradeOrder, change: OrderChange, *, who: str) -> Changed:
    """Amend an open order by a person's word and return what became of it."""
    service, open_qty = OrderService(broker(), clock.now), order.open_qty
    try:
        row = service.amend(order, price=change.price, qty=change.qty, by=RequestedBy.OPERATOR, who=who)
    except OrderDenied as denied:
        return Changed("DENIED", _not_amended(order, risk.say_all(denied.reasons)))
    except Refused as error:
        advice = _("look at the order first: it may have filled")
        return Changed("NOT_AMENDED", _not_amended(order, risk.say_error(error), advice), broker_code=error.code)
    except BrokerError as error:
        advice = _("nothing was sent: try again")
        return Changed("NOT_AMENDED", _not_amended(order, risk.say_error(error), advice), broker_code=error.code)
    if row.pk == order.pk:
        return _reduced(row, open_qty, change.qty or 0)
    return _moved(order, row)


def _not_amended(order: TradeOrder, why: str, advice: str = "") -> str:
    words = _("#{pk} is not amended: {why}").format(pk=order.pk, why=why)
    return f"{words}; {advice}" if advice else words


def _moved(order: TradeOrder, row: TradeOrder) -> Changed:
    line = describe(order, row)
    if row.state is Status.REJECTED:
        advice = _("look at the order first: it may have filled")
        return Changed("REFUSED", _not_amended(order, row.refusal, advice), row)
    if row.state is Status.UNKNOWN:
        words = _("amend without an answer: {line}. It is being looked up: neither amend nor order it again")
        return Changed("UNKNOWN", words.format(line=line), row)
    words = _("amend sent: {line}. How many shares it moved is known once the broker's list shows it")
    return Changed("", words.format(line=line), row)


def _reduced(order: TradeOrder, open_qty: int, qty: int) -> Changed:
    figures = {"pk": order.pk, "taken": open_qty - qty, "qty": qty}
    if _has_no_answer(order):
        words = _("cancel of {taken:,} shares of #{pk} without an answer: it is being looked up, do not repeat it")
        return Changed("UNKNOWN", words.format(**figures), order)
    words = _("cancel of {taken:,} shares of #{pk} sent: {qty:,} stay open once the broker's list confirms it")
    return Changed("", words.format(**figures), order)


def _has_no_answer(order: TradeOrder) -> bool:
    """Whether the newest cancel of an order got no answer."""
    newest = order.requests.filter(kind=RequestKind.CANCEL).order_by("-id").first()
    return newest is not None and newest.state == RequestState.UNKNOWN


def cancel_deferred(order: str) -> str:
    """Return what happens to the cancel of an order without an answer, by what the order is called."""
    words = _("{order} has no answer yet: it is cancelled as soon as the broker's list shows it, and not chased")
    return words.format(order=order)


def after_cancel(order: TradeOrder) -> str:
    """Return what happens after an order's cancel was sent: nothing is cancelled before the list says so."""
    words = _("The broker's list confirms it; until then the cancel is sent again, and after {seconds} s you are told")
    if _has_no_answer(order):
        words = _(
            "No answer came: it is sent again until the broker's list confirms it, and after {seconds} s you are told"
        )
    return words.format(seconds=int(CANCEL_REPORT_AFTER.total_seconds()))
