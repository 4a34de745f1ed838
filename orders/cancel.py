"""A cancel as a request: written ahead, sent, recorded. `orders.cancel_driver` drives it until the list confirms it.

A cancel that was requested is a fact about us, not about the order. No order counts as cancelled while the broker's
list shows it open.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from django.db import transaction

from aegis.broker import Acceptance, Broker, BrokerError, HeldBack, OutcomeUnknown, Placed
from aegis.requests import RequestedBy, RequestKind, resend_after
from orders import journal, requests, switch
from orders.models import BrokerRequest, TradeOrder
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
        """Request the cancel of what is left of an order, or of `qty` shares of it; return the request.

        A chase's cancel leaves its chase running; any other ends it. With `grounds` the last check looks at all that
        may have changed since. Raises Refused if the broker refused it, NotSent if it surely never left, ValueError
        for an order without a number. A lost answer is no error: the order is looked up.
        """
        placed, now = order.placed, self._now()
        with transaction.atomic():
            request = requests.create(order, RequestKind.CANCEL, by=by, who=who, qty=qty, at=now)
            _want(order, by, now, is_whole=qty is None)
            journal.write(order, "CANCEL_SENT", _described(request), at=now)
        check = requests.change_check(request, order, grounds, self._now)
        try:
            acceptance = self._send(replace(placed, last_check=check), qty)
        except BrokerError as error:
            requests.record_failure(request, error, at=self._now())
            kind = "CANCEL_UNKNOWN" if isinstance(error, OutcomeUnknown) else "CANCEL_REFUSED"
            journal.write(order, kind, str(error), at=self._now())
            if isinstance(error, OutcomeUnknown):
                return request
            if isinstance(error, HeldBack):
                _withdraw(order)
            raise
        requests.record_acknowledged(request, acceptance, at=self._now())
        journal.write(order, "CANCEL_TAKEN", acceptance.order_no, at=self._now())
        return request

    def _send(self, placed: Placed, qty: int | None) -> Acceptance:
        return self._broker.cancel(placed) if qty is None else self._broker.cancel_part(placed, qty)


@transaction.atomic
def end_chase(order: TradeOrder, why: str, *, at: datetime) -> None:
    """End an order's chase, by somebody's will: nothing of it is ordered again, not even what is being committed.

    A cancel that it wants and that has not left is not sent any more. A chase that ended by itself says why in its
    note; this one has none, and a stop does not go on from there.
    """
    journal.note(order, chase_at=None, chase_note="")
    order.replaced_by.filter(origin=TradeOrder.Origin.AEGIS).update(chase_at=None, chase_note="")
    _withdraw(order)
    journal.write(order, "CHASE_ENDED", why, at=at)
    switch.overtake()


@transaction.atomic
def inherit(pk: int, made: TradeOrder) -> None:
    """Let what an amend led to have the wishes that were uttered of its original meanwhile: cancelled, or not chased.

    A wish of before the amend stands in its way, so any that is there now came after it.
    """
    order = journal.locked(pk)
    is_wanted = order.cancel_wanted_at is not None and order.cancel_wanted_by != RequestedBy.CHASE
    if made.chase_at is not None and (is_wanted or order.chase_at is None):
        journal.note(made, chase_at=None)
    if is_wanted:
        wish = {"cancel_wanted_at": order.cancel_wanted_at, "cancel_wanted_by": order.cancel_wanted_by}
        journal.note(made, cancel_due_at=order.cancel_wanted_at, look_wanted=True, **wish)


def _want(order: TradeOrder, by: RequestedBy, now: datetime, *, is_whole: bool) -> None:
    """Note that an order is wanted cancelled, and when the next look at it is due. A person's wish outranks others."""
    if not is_whole:
        journal.want_look(order)
        return
    sent = order.requests.filter(kind=RequestKind.CANCEL).count()
    wish = {"cancel_wanted_at": order.cancel_wanted_at or now, "cancel_wanted_by": by.value}
    if order.cancel_wanted_at and RequestedBy(order.cancel_wanted_by).is_person:
        del wish["cancel_wanted_by"]
    ended = {} if by is RequestedBy.CHASE else {"chase_at": None}
    journal.note(order, cancel_due_at=now + resend_after(sent), look_wanted=True, lookup_at=None, **wish, **ended)


def _withdraw(order: TradeOrder) -> None:
    """Take back a chase's wish to cancel, if no cancel of it is on its way: only the chase may send one then."""
    if not requests.live_changes(order):
        wanted = TradeOrder.objects.filter(pk=order.pk, cancel_wanted_by=RequestedBy.CHASE)
        wanted.update(cancel_wanted_at=None, cancel_wanted_by="", cancel_due_at=None)


def _described(request: BrokerRequest) -> str:
    return request.requested_by if request.is_whole else f"{request.requested_by}: {request.qty}"
