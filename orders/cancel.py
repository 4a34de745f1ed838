"""A cancel as a request: written ahead, sent, recorded. `orders.cancel_driver` drives it until the list confirms it.

A cancel that was requested is a fact about us, not about the order. No order counts as cancelled while the broker's
list shows it open.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from django.db import transaction
from django.utils.translation import gettext

from aegis.broker import Acceptance, Broker, BrokerError, HeldBack, OpenOrder, OutcomeUnknown, Placed
from aegis.lifecycle import UNANSWERED
from aegis.requests import RequestedBy, RequestKind, resend_after
from aegis.sessions import KST
from orders import journal, requests, switch
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
        """Request the cancel of what is left of an order, or of `qty` shares of it; return the request.

        A chase's cancel leaves its chase running; any other ends it. With `grounds` the last check looks at all that
        may have changed since. Raises Refused if the broker refused it, NotSent if it surely never left (HeldBack for
        an order of another day, whose number is somebody else's by now), ValueError for an order without a number. A
        lost answer is no error: the order is looked up.
        """
        placed, now = order.placed, self._now()
        check_day(order, now)
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

    A cancel that it wants is not sent any more, not even again. A chase that ended by itself says why in its note; this
    one has none, and a stop does not go on from there.
    """
    journal.note(order, chase_at=None, chase_note="")
    order.replaced_by.filter(origin=TradeOrder.Origin.AEGIS).update(chase_at=None, chase_note="")
    _withdraw(order)
    journal.write(order, "CHASE_ENDED", why, at=at)
    switch.overtake()


def check_day(order: TradeOrder, now: datetime) -> None:
    """Raise HeldBack for an order of another day: the broker numbers anew each day, and is told no date."""
    if order.order_date != now.astimezone(KST).date():
        words = gettext("order {order} is of {day}: the broker gives its number to another order today")
        raise HeldBack(words.format(order=f"#{order.pk}", day=order.order_date), code="DAY")


@transaction.atomic
def keep_wish(order: TradeOrder, *, by: RequestedBy, who: str = "", at: datetime) -> bool:
    """Keep the wish to cancel an order without an answer: `orders.cancel_driver` cancels it once it has a number.

    False if it has an answer by now. Raises HeldBack for an order of another day.
    """
    check_day(order, at)
    row = journal.locked(order.pk)
    if row.state not in UNANSWERED:
        return False
    is_new = row.cancel_wanted_at is None
    _want(row, by, at, is_whole=True)
    if is_new:
        journal.write(row, "CANCEL_KEPT", f"{by.value} {who}".strip(), at=at)
    return True


def take_over(order: TradeOrder, *, at: datetime) -> None:
    """Hand a row that just got its number the wish to cancel that was uttered before: see `name_stranger`."""
    order.refresh_from_db(fields=["cancel_wanted_at", "cancel_wanted_by"])
    by, wanted_at, due_at = order.cancel_wanted_by, order.cancel_wanted_at, at
    if found := _requests_without_row(order):
        BrokerRequest.objects.filter(pk__in=[each.pk for each in found]).update(order=order)
        wanted_at = wanted_at or found[0].requested_at
        by, due_at = found[-1].requested_by, found[-1].requested_at + resend_after(len(found))
    elif not order.is_cancel_requested:
        return
    _want(order, RequestedBy(by), at, is_whole=True)
    journal.note(order, cancel_wanted_at=wanted_at, cancel_due_at=due_at)


def name_stranger(found: OpenOrder) -> str:
    """Return by what `take_over` knows the request to cancel an open order that no row of ours is."""
    placed = found.placed
    return f"{placed.order_date} {placed.branch} {placed.order_no} {found.code} {found.side}"


def _requests_without_row(order: TradeOrder) -> list[BrokerRequest]:
    """Return the requests to cancel this order that were sent before it had its row, oldest first."""
    placed, strangers = order.placed, BrokerRequest.objects.filter(order=None, kind=RequestKind.CANCEL)
    number = f" {placed.order_no} {order.stock_code} {order.order_type}"
    same = strangers.filter(message__startswith=f"{placed.order_date} ", message__contains=number).order_by("id")
    return [each for each in same if same_branch(placed.branch, each.message.split(" ")[1])]


@transaction.atomic
def inherit(pk: int, made: TradeOrder) -> None:
    """Let what an amend led to have the wishes that were uttered of its original meanwhile: cancelled, or not chased.

    A wish of before the amend stands in its way, so any that is there now came after it.
    """
    order = journal.locked(pk)
    is_wanted = order.is_cancel_requested
    if made.chase_at is not None and (is_wanted or order.chase_at is None or made.is_cancel_requested):
        journal.note(made, chase_at=None)
    if is_wanted:
        wish = {"cancel_wanted_at": order.cancel_wanted_at, "cancel_wanted_by": order.cancel_wanted_by}
        journal.note(made, cancel_due_at=order.cancel_wanted_at, look_wanted=True, **wish)
    if made.order_no is not None and made.accepted_at is not None:
        take_over(made, at=made.accepted_at)


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
    """Take back a chase's wish to cancel if the chase was ended, or no cancel of it is on its way."""
    wanted = TradeOrder.objects.filter(pk=order.pk, cancel_wanted_by=RequestedBy.CHASE)
    if requests.live_changes(order):
        wanted = wanted.filter(chase_at=None)
    wanted.update(cancel_wanted_at=None, cancel_wanted_by="", cancel_due_at=None)


def _described(request: BrokerRequest) -> str:
    return request.requested_by if request.is_whole else f"{request.requested_by}: {request.qty}"
