"""A cancel as a request: written ahead, sent, recorded. `orders.cancel_driver` drives it until the list confirms it.

A requested cancel is a fact about AEGIS, not about the order. No order counts as cancelled while the broker's list
shows it open.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from django.db import transaction
from django.db.models import Q

from aegis.broker import Acceptance, Broker, BrokerError, BrokerOrderRef, HeldBack, OpenOrder, OutcomeUnknown
from aegis.denials import Denial, DenialCode, gettext_noop
from aegis.lifecycle import DONE, UNANSWERED, UNSETTLED
from aegis.order_events import OrderEventKind
from aegis.requests import RequestedBy, RequestKind, resend_after
from aegis.sessions import KST
from aegis.terms import Side
from orders import journal, pretrade_context, requests, risk
from orders.models import BrokerRequest, TradeOrder
from orders.order_list import same_branch
from orders.requests import Grounds


class Canceller:
    """Requests cancels of one broker, by one clock."""

    def __init__(self, broker: Broker, now: Callable[[], datetime]) -> None:
        self._broker = broker
        self._now = now

    def cancel(
        self,
        order: TradeOrder,
        *,
        by: RequestedBy,
        who: str = "",
        qty: int | None = None,
        grounds: Grounds | None = None,
    ) -> BrokerRequest:
        """Request the cancel of all open shares of an order, or of `qty` of them; return the request.

        A chase's cancel leaves its chase running; any other ends it. With `grounds` the last check covers everything
        that may have changed since. Raises Refused if the broker refused it, NotSent if it provably never left
        (HeldBack for an order of another day, whose number belongs to another order by now), ValueError for an order
        without a number. A lost answer raises nothing: the order is looked up in the list.
        """
        placed, now = order.placed, self._now()
        _check_day(order, now)
        with transaction.atomic():
            request = requests.create(order, RequestKind.CANCEL, by=by, who=who, qty=qty, at=now)
            _mark_requested(order, by, now, is_whole=qty is None)
            journal.append_event(order, OrderEventKind.CANCEL_SENT, _describe(request), at=now)
        check = requests.change_check(request, order, grounds, self._now)
        try:
            acceptance = self._send(replace(placed, last_check=check), qty)
        except BrokerError as error:
            requests.record_failure(request, error, at=self._now())
            kind = OrderEventKind.CANCEL_UNKNOWN if isinstance(error, OutcomeUnknown) else OrderEventKind.CANCEL_REFUSED
            journal.append_event(order, kind, str(error), at=self._now())
            if isinstance(error, OutcomeUnknown):
                return request
            if isinstance(error, HeldBack):
                _withdraw(order, by=by)
            raise
        requests.record_acknowledged(request, acceptance, at=self._now())
        journal.append_event(order, OrderEventKind.CANCEL_TAKEN, acceptance.order_no, at=self._now())
        return request

    def _send(self, placed: BrokerOrderRef, qty: int | None) -> Acceptance:
        return self._broker.cancel(placed) if qty is None else self._broker.cancel_part(placed, qty)


@transaction.atomic
def end_chase(order: TradeOrder, why: str, *, at: datetime) -> None:
    """End an order's chase on request: none of its shares are ordered again, not even by an order being committed.

    A cancel that the chase requested is not sent any more, not even as a repeat. A chase that ends by itself has the
    reason in its note; here the note is empty, so that a stop does not continue from this order.
    """
    journal.update_fields(order, chase_at=None, chase_note="")
    order.replaced_by.filter(origin=TradeOrder.Origin.AEGIS).update(chase_at=None, chase_note="")
    _withdraw(order)
    journal.append_event(order, OrderEventKind.CHASE_ENDED, why, at=at)
    pretrade_context.bump_commits()


def why_not_today(order: TradeOrder, now: datetime) -> Denial | None:
    """Return why an order of another day can be neither cancelled nor amended, None for an order of today.

    Order numbers start again each day, and a request to the broker names no date.
    """
    if order.order_date == now.astimezone(KST).date():
        return None
    template = gettext_noop("order {order} is of {day}: the broker gives its number to another order today")
    return Denial(DenialCode.NOT_TODAY, template, {"order": f"#{order.pk}", "day": order.order_date})


def _check_day(order: TradeOrder, now: datetime) -> None:
    if why := why_not_today(order, now):
        raise HeldBack(risk.denial_text(why), code=why.code)


@transaction.atomic
def defer_cancel(order: TradeOrder, *, by: RequestedBy, who: str = "", at: datetime) -> bool:
    """Record a cancel of an order without an answer. `orders.cancel_driver` sends it once the order has a number.

    Return False if the order has an answer by now. Raises HeldBack for an order of another day.
    """
    _check_day(order, at)
    row = journal.locked(order.pk)
    if row.state not in UNANSWERED:
        return False
    is_new = row.cancel_requested_at is None
    _mark_requested(row, by, at, is_whole=True)
    if is_new:
        journal.append_event(row, OrderEventKind.CANCEL_DEFERRED, f"{by.value} {who}".strip(), at=at)
    return True


@transaction.atomic
def request_cancel(order: TradeOrder, *, by: RequestedBy, who: str = "", at: datetime) -> None:
    """Record that an order's cancel is requested, without a call: `orders.cancel_driver` sends it within seconds."""
    row = journal.locked(order.pk)
    if row.cancel_requested_at is not None or row.is_done:
        return
    _mark_requested(row, by, at, is_whole=True)
    journal.update_fields(row, cancel_due_at=at)
    journal.append_event(row, OrderEventKind.CANCEL_WANTED, f"{by.value} {who}".strip(), at=at)


@transaction.atomic
def cancel_resting_buys(why: str, *, at: datetime) -> int:
    """Request the cancel of every buy of ours that rests or is on its way; return how many requests are new.

    A chase between its cancel and its next order ends too: its cancelled shares are not bought again. A row that
    another process is changing is left to the next call.
    """
    buys = TradeOrder.objects.filter(
        order_type=Side.BUY, origin=TradeOrder.Origin.AEGIS, order_date=at.astimezone(KST).date()
    ).select_for_update(skip_locked=True, of=("self",))
    resting = buys.filter(Q(cancel_requested_at=None) | Q(cancel_requested_by=RequestedBy.CHASE), status__in=UNSETTLED)
    resting_orders = list(resting.order_by("pk"))
    for order in resting_orders:
        _mark_requested(order, RequestedBy.CANCEL_ALL, at, is_whole=True)
        journal.update_fields(order, cancel_due_at=at)
        journal.append_event(order, OrderEventKind.CANCEL_WANTED, why, at=at)
    for order in buys.filter(status__in=DONE, chase_at__isnull=False).order_by("pk"):
        journal.update_fields(order, chase_at=None, chase_note="")
        journal.append_event(order, OrderEventKind.CHASE_ENDED, why, at=at)
    return len(resting_orders)


def apply_deferred_cancel(order: TradeOrder, *, at: datetime) -> None:
    """Apply the cancel that was requested before a row had its number: of the row, or by its `open_order_key`."""
    order.refresh_from_db(fields=["cancel_requested_at", "cancel_requested_by"])
    by, wanted_at, due_at = order.cancel_requested_by, order.cancel_requested_at, at
    if cancels := _requests_without_row(order):
        BrokerRequest.objects.filter(pk__in=[request.pk for request in cancels]).update(order=order)
        wanted_at = wanted_at or cancels[0].requested_at
        by, due_at = cancels[-1].requested_by, cancels[-1].requested_at + resend_after(len(cancels))
    elif not order.is_cancel_requested:
        return
    _mark_requested(order, RequestedBy(by), at, is_whole=True)
    journal.update_fields(order, cancel_requested_at=wanted_at, cancel_due_at=due_at)


def open_order_key(open_order: OpenOrder) -> str:
    """Return the key by which `apply_deferred_cancel` finds the cancel of an open order that has no row."""
    placed = open_order.placed
    return f"{placed.order_date} {placed.branch} {placed.order_no} {open_order.code} {open_order.side}"


def _requests_without_row(order: TradeOrder) -> list[BrokerRequest]:
    """Return the requests to cancel this order that were sent before it had a row, oldest first."""
    placed, unmatched = order.placed, BrokerRequest.objects.filter(order=None, kind=RequestKind.CANCEL)
    number = f" {placed.order_no} {order.stock_code} {order.order_type}"
    candidates = unmatched.filter(message__startswith=f"{placed.order_date} ", message__contains=number).order_by("id")
    return [request for request in candidates if same_branch(placed.branch, request.message.split(" ")[1])]


@transaction.atomic
def inherit(pk: int, new_order: TradeOrder) -> None:
    """Apply to an amend's new order what was requested of its original meanwhile: a cancel, or the end of the chase.

    An order with a requested cancel is not amended, so a request that exists now came after the amend.
    """
    order = journal.locked(pk)
    is_requested = order.is_cancel_requested
    if new_order.chase_at is not None and (is_requested or order.chase_at is None or new_order.is_cancel_requested):
        journal.update_fields(new_order, chase_at=None)
    if is_requested:
        request_fields = {
            "cancel_requested_at": order.cancel_requested_at,
            "cancel_requested_by": order.cancel_requested_by,
        }
        journal.update_fields(
            new_order, cancel_due_at=order.cancel_requested_at, needs_reconciliation=True, **request_fields
        )
    if new_order.order_no is not None and new_order.accepted_at is not None:
        apply_deferred_cancel(new_order, at=new_order.accepted_at)


def _mark_requested(order: TradeOrder, by: RequestedBy, now: datetime, *, is_whole: bool) -> None:
    """Record that a cancel is requested, and when it is checked next."""
    if not is_whole:
        journal.request_confirmation(order)
        return
    cancel_count = order.requests.filter(kind=RequestKind.CANCEL).count()
    request_fields = {"cancel_requested_at": order.cancel_requested_at or now, "cancel_requested_by": by.value}
    if order.cancel_requested_at and _outranks(RequestedBy(order.cancel_requested_by), by):
        del request_fields["cancel_requested_by"]
    chase_fields = {} if by is RequestedBy.CHASE else {"chase_at": None}
    journal.update_fields(
        order,
        cancel_due_at=now + resend_after(cancel_count),
        needs_reconciliation=True,
        lookup_at=None,
        **request_fields,
        **chase_fields,
    )


def _outranks(former: RequestedBy, by: RequestedBy) -> bool:
    """Whether a requested cancel keeps its first requester: a person always, a caller if only a stop follows."""
    return former.is_person or (by is RequestedBy.STOP and former is RequestedBy.CALLER)


def _withdraw(order: TradeOrder, *, by: RequestedBy = RequestedBy.CHASE) -> None:
    """Withdraw a chase's request to cancel if the chase was ended, or if no cancel of the order is on its way.

    A stop's request is withdrawn too if its own cancel did not leave: the stop requests it again if it still sells.
    """
    if by is RequestedBy.STOP and not requests.live_changes(order):
        requested_by_stop = TradeOrder.objects.filter(pk=order.pk, cancel_requested_by=by)
        requested_by_stop.update(cancel_requested_at=None, cancel_requested_by="", cancel_due_at=None)
    requested_by_chase = TradeOrder.objects.filter(pk=order.pk, cancel_requested_by=RequestedBy.CHASE)
    if requests.live_changes(order):
        requested_by_chase = requested_by_chase.filter(chase_at=None)
    requested_by_chase.update(cancel_requested_at=None, cancel_requested_by="", cancel_due_at=None)


def _describe(request: BrokerRequest) -> str:
    return request.requested_by if request.is_whole else f"{request.requested_by}: {request.qty}"
