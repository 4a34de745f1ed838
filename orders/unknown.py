"""Orders with an unknown outcome: found in the broker's list, decided by an operator, or given up as lost.

Conversely, a line of the list without a row is an external order, unless it may be ours.
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
from orders.order_list import KnownOrders, OrderList, collect_unparsed, describe_record, same_branch
from orders.settle import settle

log = logging.getLogger(__name__)

# an order without an answer never arrived if this many complete lists, over this long, lack it; with all waits and
# time-outs of the client, no request takes longer to arrive
ABSENT_LISTS = 3
ABSENT_AFTER = timedelta(seconds=90)
# a sender without an answer after this is dead, or its last check will stop it
SENDER_TIMEOUT = timedelta(seconds=60)
# the broker stamps by its own clock and ours may be wrong: that must not hide a lost order
CLOCK_TOLERANCE = timedelta(minutes=2)
# a line stamped further than this from the time of sending may be an external order: an operator decides
CLAIM_TOLERANCE = timedelta(seconds=10)
# an open order is reported if this many lists, over `MISSING_AFTER`, lack it; from the first one on, it blocks new
# orders of its stock and side
MISSING_LISTS = 3
# the maximum of the column `not_found_count`
MAX_LISTS_COUNTED = 32_767
MISSING_AFTER = timedelta(seconds=60)
# how long before the day's first session the operator is reminded of undecided orders
REMIND_BEFORE = timedelta(minutes=10)


def resolve_unanswered(unmatched: Sequence[OrderRecord], answer: OrderList) -> int:
    """Match the orders whose answer was lost with the lines without a row; return the number of resolved orders.

    A list with unparsed lines matches no order and proves no absence. The operator decides if a line fits two orders,
    if two lines fit one order, or if a line's time does not fit the time of sending.
    """
    orders = _unanswered(answer.now)
    if answer.unread:
        _look_up_later(orders, now=answer.now)
        return 0
    matches = {order.pk: [record for record in unmatched if could_be(order, record)] for order in orders}
    claim_counts = Counter(id(record) for records in matches.values() for record in records)
    resolved = 0
    for order in orders:
        records = matches[order.pk]
        if len(records) == 1 and claim_counts[id(records[0])] == 1 and is_in_time(order, records[0]):
            with collect_unparsed(records[0], answer.unread):
                resolved += _claim(order, records[0], answer)
        elif records:
            _leave_to_operator(order, records, now=answer.now)
        elif answer.proves_absence:
            resolved += _count_absence(order, now=answer.now)
        else:
            _look_up_later([order], now=answer.now)
    return resolved


def _look_up_later(orders: Sequence[TradeOrder], *, now: datetime) -> None:
    """Delay the next lookup while lists prove nothing, in the end to the reconciliation of each minute."""
    for order in orders:
        if order.needs_reconciliation:
            journal.update_fields(order, lookup_at=journal.next_lookup(order, now))


_LOST = f"""
    (status = '{Status.UNKNOWN.value}' OR status = '{Status.SUBMITTING.value}' AND created_at < %(stale)s) ORDER BY id
"""


def _unanswered(now: datetime) -> Sequence[TradeOrder]:
    """Return the orders to match: UNKNOWN ones, and those whose sender died before recording an answer.

    The new order of an amend is not among them: settling its original finds it by the line that references it.
    """
    orders = sql.find(TradeOrder, _LOST, {"stale": now - SENDER_TIMEOUT})
    if not orders:
        return []
    for order in orders:
        if order.state is Status.SUBMITTING:
            reason = "its sender did not come back"
            journal.apply_event(
                order, Event.NO_ANSWER, at=now, detail=reason, needs_reconciliation=True, lookup_at=None
            )
    amends = set(BrokerRequest.objects.filter(makes__in=orders).values_list("makes_id", flat=True))
    return [order for order in orders if order.pk not in amends]


def could_be(order: TradeOrder, record: OrderRecord) -> bool:
    """Whether a line has the fields of an order, and was stamped while its request may have been in transit.

    The price is compared only for kinds that are sent with a price: the list may print a price for other kinds too.
    UNVERIFIED: the price that it prints for 03 to 06, 15 and 16; a recorded list with such an order settles it.
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
    """Whether a line was stamped while the request was in transit; a later line may be an equal external order."""
    sent_at = order.sent_at or order.created_at
    return sent_at - CLAIM_TOLERANCE <= record.stamped_at <= sent_at + REPLY_DEADLINE + CLAIM_TOLERANCE


def _claim(order: TradeOrder, record: OrderRecord, answer: OrderList) -> bool:
    """Assign a line of the list to the order whose answer was lost; False if another row has the number already."""
    acceptance = Acceptance(record.branch, record.order_no, record.placed_at)
    try:
        with transaction.atomic():
            if not journal.record_accepted(order, acceptance, at=answer.now, evidence=describe_record(record)):
                return False
            cancel.apply_deferred_cancel(order, at=answer.now)
    except IntegrityError:
        log.warning("order %s: another row has just taken number %s", order.pk, record.order_no)
        return False
    fills.replay(order)
    # the order has its number only now, so for it the list counts as requested now
    settle(order.pk, record, **answer.evidence_for(record) | {"asked_at": answer.now})
    return True


def _leave_to_operator(order: TradeOrder, records: Sequence[OrderRecord], *, now: datetime) -> None:
    """Record the candidates of an order for the operator to decide, and report each set of candidates once.

    The order is not looked up more often than by the reconciliation of each minute.
    """
    candidates = [_candidate(record) for record in records]
    numbers = ", ".join(candidate["order_no"] for candidate in candidates)
    if [candidate["order_no"] for candidate in order.candidates] != [candidate["order_no"] for candidate in candidates]:
        log.error("order %s could be any of %s at the broker: an operator must decide", order.pk, numbers)
        journal.append_event(order, OrderEventKind.UNDECIDED, numbers, at=now)
    journal.update_fields(order, candidates=candidates, not_found_count=0, needs_reconciliation=False)


def _candidate(record: OrderRecord) -> dict[str, Any]:
    """Return the fields by which an operator distinguishes two orders."""
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
    count = min(order.not_found_count + 1, MAX_LISTS_COUNTED)
    journal.update_fields(
        order, not_found_count=count, needs_reconciliation=True, lookup_at=journal.next_lookup(order, now)
    )
    if count >= ABSENT_LISTS and now - (order.sent_at or order.created_at) >= ABSENT_AFTER:
        return journal.record_not_found(order, f"absent from {count} complete lists", at=now)
    return False


def decide(order: TradeOrder, order_no: str | None, *, by: str, at: datetime) -> TradeOrder:
    """Settle an UNKNOWN order by an operator's decision: it is the broker's `order_no`, or (None) it never arrived.

    The decision is final: no later list changes the order's identity. For an open order that lists lack, None means
    that the broker does not have it (any more); a list that shows it as open reopens it. Raises ValueError if there is
    nothing to decide, or the number is not a candidate.
    """
    evidence = f"decided by {by}"
    if order_no is None and undecided().filter(pk=order.pk, status__in=OPEN).exists():
        return _end_missing(order, evidence, by=by, at=at)
    if order.state is not Status.UNKNOWN:
        template = gettext(
            "order #{order} is {status}: only an UNKNOWN order, or one that lists lack, is left to decide"
        )
        raise ValueError(template.format(order=order.pk, status=order.status))
    if order_no is None:
        journal.record_not_found(order, evidence, at=at, decided_by=by[:150])
        return order
    candidates = {candidate["order_no"]: candidate for candidate in order.candidates}
    if order_no not in candidates:
        raise ValueError(
            f"order number {order_no} is no candidate of order {order.pk}: {', '.join(candidates) or 'none'}"
        )
    placed_at = time.fromisoformat(candidates[order_no]["placed_at"])
    acceptance = Acceptance(candidates[order_no]["branch"], order_no, placed_at)
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
    """Return the orders that an operator may decide: UNKNOWN ones, and open ones missing from complete lists."""
    is_missing = Q(status__in=OPEN, missing_since__isnull=False, not_found_count__gte=MISSING_LISTS)
    return TradeOrder.objects.filter(Q(status=Status.UNKNOWN) | is_missing).order_by("id")


def _end_missing(order: TradeOrder, evidence: str, *, by: str, at: datetime) -> TradeOrder:
    fields: dict[str, Any] = {
        "end_cause": EndCause.UNEXPLAINED.value,
        "chase_at": None,
        "cancel_requested_at": None,
        "cancel_due_at": None,
    }
    journal.apply_event(
        order, Event.CANCELLED, at=at, detail=evidence, decided_by=by[:150], needs_reconciliation=False, **fields
    )
    return order


def remind(now: datetime, phases: Sequence[Phase]) -> None:
    """Remind the operator of undecided orders, once before the day's first session."""
    starts_at = sessions.first_start(phases, now)
    if starts_at is None or not starts_at - REMIND_BEFORE <= now < starts_at:
        return
    since = starts_at - REMIND_BEFORE
    for order in undecided():
        if not OrderEvent.objects.filter(order=order, kind=OrderEventKind.STILL_UNDECIDED, at__gte=since).exists():
            journal.append_event(order, OrderEventKind.STILL_UNDECIDED, at=now)


# --- external orders -------------------------------------------------------------------------------------------------


def could_be_unanswered(record: OrderRecord) -> bool:
    """Whether a line without a row may be an order or an amend of ours that waits for its answer."""
    if any(could_be(order, record) for order in _alike(record).filter(status__in=UNANSWERED)):
        return True
    amends = BrokerRequest.objects.filter(
        kind=RequestKind.AMEND, state__in=LIVE, order__order_no=record.original_no or None
    ).filter(order__order_date=record.order_date, order__stock_code=record.code, order__order_type=record.side)
    orders = (amend.order for amend in amends.select_related("order"))
    return any(order is not None and same_branch(order.branch, record.branch) for order in orders)


def find_given_up(record: OrderRecord) -> list[TradeOrder]:
    """Return our orders that were given up as lost and that a line may be after all.

    Not among them: orders that were never sent, orders that an operator decided, and the new orders of amends.
    """
    was_given_up = Exists(OrderEvent.objects.filter(order=OuterRef("pk"), kind=Event.ABSENT))
    rows = _alike(record).filter(was_given_up, never_arrived=True, decided_by="", replaces=None).order_by("-id")
    return [order for order in rows if could_be(order, record) and is_in_time(order, record)]


def _alike(record: OrderRecord) -> QuerySet[TradeOrder]:
    """Return our orders of a line's day, stock and side."""
    day, code, side = record.order_date, record.code, record.side
    return TradeOrder.objects.filter(order_date=day, stock_code=code, order_type=side)


def claim_given_up(record: OrderRecord, orders: Sequence[TradeOrder], answer: OrderList) -> TradeOrder | None:
    """Assign a line to the order of `find_given_up`, if there is only one; return that order."""
    return orders[0] if len(orders) == 1 and _claim(orders[0], record, answer) else None


@transaction.atomic
def add_external_order(record: OrderRecord, answer: OrderList) -> TradeOrder | None:
    """Write the row of an external order, and its fills; None if another process has just written it.

    If it is an external amend of our order, it belongs to that order's family. It is not chased.
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
                row, acceptance, placed_at=record.stamped_at, at=answer.now, evidence=describe_record(record)
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
    """Return the original order if the line is the new order of an amend, else None."""
    if not record.original_no:
        return None
    rows = TradeOrder.objects.filter(
        order_date=record.order_date,
        order_no=record.original_no,
        stock_code=record.code,
        order_type=record.side,
    )
    return next((row for row in rows if same_branch(row.branch, record.branch)), None)


def absence_text(order: TradeOrder) -> str:
    """Return the operator's text of how many complete lists lack an order."""
    return gettext("missing from {looks} complete lists of the broker's").format(looks=order.not_found_count)
