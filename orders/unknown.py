"""Orders whose outcome is unknown: found again in the broker's list, decided by an operator, or given up as lost.

And the other way round: lines of the list that no row claims are external orders, unless one may be ours.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from datetime import datetime, time, timedelta
from typing import Any

from django.db import IntegrityError, transaction
from django.db.models import Exists, OuterRef, Q, QuerySet
from django.utils.translation import gettext

from aegis import sessions
from aegis.broker import Acceptance, OrderRecord
from aegis.lifecycle import OPEN, UNANSWERED, Event, Status
from aegis.order_events import OrderEventKind
from aegis.requests import LIVE, REPLY_DEADLINE, EndCause, RequestKind
from aegis.sessions import Phase
from aegis.terms import Market, OrderKind
from infra import sql
from orders import cancel, fills, journal
from orders.models import BrokerRequest, OrderEvent, TradeOrder
from orders.order_list import KnownOrders, OrderList, as_unread, describe, same_branch
from orders.settle import settle

log = logging.getLogger(__name__)

# an order with no answer that is absent from so many complete lists, over so long, never arrived; no request of
# ours is on its way for longer, with every wait and time-out of the client
ABSENT_LOOKS = 3
ABSENT_AFTER = timedelta(seconds=90)
# a sender that has not come back by now is dead, or will find that it may not send any more
SENDER_GONE = timedelta(seconds=60)
# the broker stamps by its own clock, and ours may be wrong: a lost order must not be missed for that
CLOCK_TOLERANCE = timedelta(minutes=2)
# a line that was stamped further than this from the sending may be somebody else's: an operator decides
CLAIM_TOLERANCE = timedelta(seconds=10)
# an open order that lists lack so often, over so long, is reported; from the first on nothing is ordered beside it
MISSING_LOOKS = 3
# what its column counts to
MOST_LOOKS = 32_767
MISSING_AFTER = timedelta(seconds=60)
# how long before the day's first session an operator is reminded of what is still to be decided
REMIND_BEFORE = timedelta(minutes=10)


def resolve(unmatched: Sequence[OrderRecord], answer: OrderList) -> int:
    """Look for the orders whose answer was lost among the lines that no row claims; return how many were resolved.

    A list with unparsed lines claims nothing and proves no absence. A line that fits two orders, an order that two
    lines fit, and a line that was stamped while the request was hardly on its way are left to an operator.
    """
    lost = _unanswered(answer.now)
    if answer.unread:
        _look_up_later(lost, now=answer.now)
        return 0
    fitting = {order.pk: [record for record in unmatched if could_be(order, record)] for order in lost}
    claims = Counter(id(record) for found in fitting.values() for record in found)
    resolved = 0
    for order in lost:
        found = fitting[order.pk]
        if len(found) == 1 and claims[id(found[0])] == 1 and is_in_time(order, found[0]):
            with as_unread(found[0], answer.unread):
                resolved += _claim(order, found[0], answer)
        elif found:
            _leave_to_operator(order, found, now=answer.now)
        elif answer.proves_absence:
            resolved += _count_absence(order, now=answer.now)
        else:
            _look_up_later([order], now=answer.now)
    return resolved


def _look_up_later(lost: Sequence[TradeOrder], *, now: datetime) -> None:
    """Have lists that prove nothing read less and less often, in the end by the minute's turn alone."""
    for order in lost:
        if order.look_wanted:
            journal.update_fields(order, lookup_at=journal.next_lookup(order, now))


_LOST = f"""
    (status = '{Status.UNKNOWN.value}' OR status = '{Status.SUBMITTING.value}' AND created_at < %(stale)s) ORDER BY id
"""


def _unanswered(now: datetime) -> Sequence[TradeOrder]:
    """Return the orders to look for: UNKNOWN ones, and those whose sender died before recording an answer.

    An amend's new order is found by the line that references its original, when that is settled.
    """
    orders = sql.find(TradeOrder, _LOST, {"stale": now - SENDER_GONE})
    if not orders:
        return []
    for order in orders:
        if order.state is Status.SUBMITTING:
            why = "its sender did not come back"
            journal.apply_event(order, Event.NO_ANSWER, at=now, detail=why, look_wanted=True, lookup_at=None)
    amends = set(BrokerRequest.objects.filter(makes__in=orders).values_list("makes_id", flat=True))
    return [order for order in orders if order.pk not in amends]


def could_be(order: TradeOrder, record: OrderRecord) -> bool:
    """Whether a line is what was asked for, placed while the request may have been on its way and not hours later.

    The price is compared only for kinds that are sent with one: the list may print what the others stand at.
    UNVERIFIED: what it prints for 03 to 06, 15 and 16; a recorded list with such an order settles it.
    """
    latest = (order.sent_at or order.created_at) + ABSENT_AFTER + CLOCK_TOLERANCE
    return (
        record.code == order.stock_code
        and record.side == order.side
        and record.qty == order.qty
        and record.kind.value == order.order_kind
        and (record.price == order.price or not OrderKind(order.order_kind).is_priced)
        and (record.market == Market(order.market) or order.market == Market.SOR)
        and not record.original_no
        and order.created_at - CLOCK_TOLERANCE <= record.stamped_at <= latest
    )


def is_in_time(order: TradeOrder, record: OrderRecord) -> bool:
    """Whether a line was stamped while the request was on its way, and not by somebody who ordered the same later."""
    sent_at = order.sent_at or order.created_at
    return sent_at - CLAIM_TOLERANCE <= record.stamped_at <= sent_at + REPLY_DEADLINE + CLAIM_TOLERANCE


def _claim(order: TradeOrder, record: OrderRecord, answer: OrderList) -> bool:
    """Take a line of the list for the order whose answer was lost; False if another row was first."""
    acceptance = Acceptance(record.branch, record.order_no, record.placed_at)
    try:
        with transaction.atomic():
            if not journal.record_accepted(order, acceptance, at=answer.now, evidence=describe(record)):
                return False
            cancel.apply_deferred_cancel(order, at=answer.now)
    except IntegrityError:
        log.warning("order %s: number %s has just been taken by another row", order.pk, record.order_no)
        return False
    fills.replay(order)
    # asked at this moment, as far as an order is concerned that has only now been found
    settle(order.pk, record, **answer.evidence_for(record) | {"asked_at": answer.now})
    return True


def _leave_to_operator(order: TradeOrder, found: Sequence[OrderRecord], *, now: datetime) -> None:
    """Keep what the order could be, for an operator to decide; reported once for each set of candidates.

    It is not looked up more often than the minute's reconciliation does.
    """
    candidates = [_candidate(record) for record in found]
    numbers = ", ".join(each["order_no"] for each in candidates)
    if [each["order_no"] for each in order.candidates] != [each["order_no"] for each in candidates]:
        log.error("order %s could be any of %s at the broker: an operator must decide", order.pk, numbers)
        journal.append_event(order, OrderEventKind.UNDECIDED, numbers, at=now)
    journal.update_fields(order, candidates=candidates, absent_looks=0, look_wanted=False)


def _candidate(record: OrderRecord) -> dict[str, Any]:
    """Return what an operator needs to tell two orders apart."""
    return {
        "order_no": record.order_no,
        "branch": record.branch,
        "market": record.market.value,
        "placed_at": f"{record.placed_at:%H:%M:%S}",
        "qty": record.qty,
        "price": record.price,
        "filled_qty": record.filled_qty,
        "open_qty": record.open_qty,
        "cancelled_qty": record.cancelled_qty,
    }


def _count_absence(order: TradeOrder, *, now: datetime) -> bool:
    looks = min(order.absent_looks + 1, MOST_LOOKS)
    journal.update_fields(order, absent_looks=looks, look_wanted=True, lookup_at=journal.next_lookup(order, now))
    if looks >= ABSENT_LOOKS and now - (order.sent_at or order.created_at) >= ABSENT_AFTER:
        return journal.record_not_found(order, f"absent from {looks} complete lists", at=now)
    return False


def decide(order: TradeOrder, order_no: str | None, *, by: str, at: datetime) -> TradeOrder:
    """Settle an UNKNOWN order by an operator's decision: it is the broker's `order_no`, or (None) it never arrived.

    The decision is final: no later list changes what the order is. None for an open order that lists lack says that
    the broker does not have it (any more); a list that shows it open again opens it again. Raises ValueError if there
    is nothing to decide, or the number is no candidate.
    """
    evidence = f"decided by {by}"
    if order_no is None and undecided().filter(pk=order.pk, status__in=OPEN).exists():
        return _end_missing(order, evidence, by=by, at=at)
    if order.state is not Status.UNKNOWN:
        words = gettext("order #{order} is {status}: only an UNKNOWN order, or one that lists lack, is left to decide")
        raise ValueError(words.format(order=order.pk, status=order.status))
    if order_no is None:
        journal.record_not_found(order, evidence, at=at, decided_by=by[:150])
        return order
    known = {each["order_no"]: each for each in order.candidates}
    if order_no not in known:
        raise ValueError(f"order number {order_no} is no candidate of order {order.pk}: {', '.join(known) or 'none'}")
    placed_at = time.fromisoformat(known[order_no]["placed_at"])
    acceptance = Acceptance(known[order_no]["branch"], order_no, placed_at)
    try:
        with transaction.atomic():
            journal.record_accepted(order, acceptance, at=at, evidence=evidence, decided_by=by[:150])
            cancel.apply_deferred_cancel(order, at=at)
    except IntegrityError as error:
        raise ValueError(f"order number {order_no} belongs to another order of ours by now") from error
    journal.request_confirmation(order)
    fills.replay(order)
    order.refresh_from_db()
    return order


def undecided() -> "QuerySet[TradeOrder]":
    """Return the orders that an operator may decide: UNKNOWN ones, and open ones that complete lists lack."""
    is_missing = Q(status__in=OPEN, missing_since__isnull=False, absent_looks__gte=MISSING_LOOKS)
    return TradeOrder.objects.filter(Q(status=Status.UNKNOWN) | is_missing).order_by("id")


def _end_missing(order: TradeOrder, evidence: str, *, by: str, at: datetime) -> TradeOrder:
    ended = {"end_cause": EndCause.UNEXPLAINED.value, "chase_at": None, "cancel_wanted_at": None, "cancel_due_at": None}
    journal.apply_event(order, Event.CANCELLED, at=at, detail=evidence, decided_by=by[:150], look_wanted=False, **ended)
    return order


def remind(now: datetime, phases: Sequence[Phase]) -> None:
    """Remind the operator, once before the day's first session, of what is still to be decided."""
    starts_at = sessions.first_start(phases, now)
    if starts_at is None or not starts_at - REMIND_BEFORE <= now < starts_at:
        return
    since = starts_at - REMIND_BEFORE
    for order in undecided():
        if not OrderEvent.objects.filter(order=order, kind=OrderEventKind.STILL_UNDECIDED, at__gte=since).exists():
            journal.append_event(order, OrderEventKind.STILL_UNDECIDED, at=now)


# --- external orders -------------------------------------------------------------------------------------------------


def may_be_ours(record: OrderRecord) -> bool:
    """Whether a line that no row claims may be an order, or an amend, of ours that waits for its answer."""
    if any(could_be(order, record) for order in _alike(record).filter(status__in=UNANSWERED)):
        return True
    amends = BrokerRequest.objects.filter(
        kind=RequestKind.AMEND, state__in=LIVE, order__order_no=record.original_no or None
    ).filter(order__order_date=record.order_date, order__stock_code=record.code, order__order_type=record.side)
    orders = (amend.order for amend in amends.select_related("order"))
    return any(order is not None and same_branch(order.branch, record.branch) for order in orders)


def find_given_up(record: OrderRecord) -> list[TradeOrder]:
    """Return the orders of ours that were given up as lost and that a line may be after all.

    Not among them: orders that were never sent, those that an operator decided, and what an amend was to lead to,
    which no new order is.
    """
    absent = Exists(OrderEvent.objects.filter(order=OuterRef("pk"), kind=Event.ABSENT))
    lost = _alike(record).filter(absent, never_arrived=True, decided_by="", replaces=None).order_by("-id")
    return [order for order in lost if could_be(order, record) and is_in_time(order, record)]


def _alike(record: OrderRecord) -> QuerySet[TradeOrder]:
    """Return the orders of a line's day, stock and side."""
    day, code, side = record.order_date, record.code, record.side
    return TradeOrder.objects.filter(order_date=day, stock_code=code, order_type=side)


def claim_given_up(record: OrderRecord, found: Sequence[TradeOrder], answer: OrderList) -> TradeOrder | None:
    """Claim a line for the only order that was `find_given_up` for lost and fits it; return that order."""
    return found[0] if len(found) == 1 and _claim(found[0], record, answer) else None


@transaction.atomic
def record_external(record: OrderRecord, answer: OrderList) -> TradeOrder | None:
    """Write the row of an order placed elsewhere, and its fills; None if somebody else has just done so.

    An order of ours that was amended elsewhere goes on in it: it belongs to the family, and is not chased.
    """
    original = _original(record)
    row = TradeOrder(
        request_id=f"external:{record.order_date:%Y%m%d}:{record.branch}:{record.order_no}:{record.code}",
        root_id=original.root_pk if original else None,
        replaces=original,
        origin=TradeOrder.Origin.EXTERNAL,
        stock_code=record.code,
        stock_name=record.name,
        order_type=record.side,
        market=record.market,
        order_kind=record.kind,
        qty=record.qty,
        price=record.price,
        order_date=record.order_date,
    )
    acceptance = Acceptance(record.branch, record.order_no, record.placed_at)
    try:
        with transaction.atomic():
            journal.record_external(
                row, acceptance, placed_at=record.stamped_at, at=answer.now, evidence=describe(record)
            )
            cancel.apply_deferred_cancel(row, at=answer.now)
    except IntegrityError:
        if KnownOrders([record]).row_of(record) is not None:
            return None
        raise
    fills.replay(row)
    settle(row.pk, record, **answer.evidence_for(record))
    return row


def _original(record: OrderRecord) -> TradeOrder | None:
    """Return the order that an amend moved to this line, None for an order of its own."""
    if not record.original_no:
        return None
    rows = TradeOrder.objects.filter(
        order_date=record.order_date,
        order_no=record.original_no,
        stock_code=record.code,
        order_type=record.side,
    )
    return next((row for row in rows if same_branch(row.branch, record.branch)), None)


def looked_up_text(order: TradeOrder) -> str:
    """Return how often complete lists lacked an order, for an operator."""
    return gettext("missing from {looks} complete lists of the broker's").format(looks=order.absent_looks)
