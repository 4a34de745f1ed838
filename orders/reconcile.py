"""Reads the broker's order list and settles our orders by it.

An order that is missing from a list once proves nothing, and one that is missing from a list with unparsed lines never
does. Orders we know are settled against their own lines (`orders.settle`), those whose answer was lost are looked for,
and the rest are external orders (`orders.unknown`).
"""

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from time import monotonic, sleep

from django.utils.translation import gettext

from aegis.broker import Broker, BrokerError, NotSent, OrderRecord, PartialResponse
from aegis.lifecycle import OPEN, Status
from aegis.order_events import OrderEventKind
from aegis.requests import RequestedBy
from infra import sql
from infra.advisory_lock import advisory_lock
from orders import fills, journal, order_list, requests, unknown
from orders.cancel import Canceller
from orders.models import Reconciliation, TradeOrder
from orders.order_list import ASKED_FOR, LIST_LAG, KnownOrders, OrderList, as_unread
from orders.pretrade_context import CLOCKS_APART, FRESH
from orders.settle import agrees, settle

__all__ = [
    "ASKED_FOR",
    "LIST_LAG",
    "ReconcileReport",
    "begin_anew",
    "delete_before",
    "is_fresh",
    "reconcile",
    "reconcile_now",
    "settle",
]

log = logging.getLogger(__name__)

Outcome = Reconciliation.Outcome
# outcomes that say what our orders are
READ = (Outcome.WHOLE, Outcome.PARTLY)

# how long another worker's reading of the list is waited for: two readings of nine seconds, with their waits
LOOK_PATIENCE_SECONDS = 25.0
LOOK_PAUSE_SECONDS = 0.1
# each minute has a turn of its own: if none has read the list for so long, the worker that has its turn has stopped
LOOK_STOPPED_AFTER = timedelta(seconds=90)


@dataclass(slots=True)
class ReconcileReport:
    """What one reconciliation did; `error` names what of the list could not be taken.

    `turned_up` are orders that were given up as lost.
    """

    seen: int = 0
    corrected: int = 0
    adopted: int = 0
    resolved: int = 0
    error: str = ""
    turned_up: list[TradeOrder] = field(default_factory=list)


def is_fresh(now: datetime) -> bool:
    """Whether the newest look at the broker's list told of our orders, not long ago. Nothing is sent before that."""
    newest = _newest(now)
    return newest is not None and newest.outcome in READ and now - newest.at <= FRESH


def _newest(now: datetime) -> Reconciliation | None:
    """Return the newest reading; one of a time to come, as before the clock was set back, is none."""
    condition = "at <= %(latest)s ORDER BY at DESC, id DESC LIMIT 1"
    return next(iter(sql.find(Reconciliation, condition, {"latest": now + CLOCKS_APART})), None)


def begin_anew(now: datetime) -> None:
    """Forget what was reconciled before the workers started: it must be seen again before anything is sent."""
    Reconciliation.objects.create(at=now, outcome=Outcome.BEGUN)


def reconcile(broker: Broker, now: Callable[[], datetime]) -> ReconcileReport:
    """Ask for the orders of every day that is not settled yet, settle them, and record it.

    Lines that cannot be parsed, or that our tables refuse, are named in the row; the others count. Raises BrokerError
    if the list cannot be had, or hides an order of ours.
    """
    fills.replay_stranded()
    asked_at = now()
    since = order_list.first_day(asked_at)
    try:
        records, unread = order_list.fetch(broker, since, asked_at)
    except BrokerError as error:
        Reconciliation.objects.create(at=asked_at, outcome=Outcome.FAILED, error=str(error)[:300])
        raise
    answer = order_list.arrange(records, unread, since=since, asked_at=asked_at, now=now())
    report = _reconcile(answer)
    report.error = answer.complaint
    if report.error:
        log.error("the broker's list of orders cannot be taken whole: %s", report.error)
    outcome = _outcome(answer)
    counts = {name: getattr(report, name) for name in ("seen", "corrected", "adopted", "resolved", "error")}
    sql.insert(Reconciliation(at=asked_at, outcome=outcome, **counts))
    unknown.remind(answer.now, answer.phases)
    _cancel_surplus(report.turned_up, broker, now)
    if outcome == Outcome.FAILED:
        raise PartialResponse(records, unread)
    return report


def _outcome(answer: OrderList) -> Outcome:
    """Return what a list is worth: one that hides an order of ours says nothing that could be traded on."""
    if answer.is_complete:
        return Outcome.WHOLE
    return Outcome.FAILED if answer.hides_ours() else Outcome.PARTLY


def delete_before(before: datetime, at_most: int) -> int:
    """Delete looks of before then that changed nothing; return how many. The others tell why an order is as it is."""
    idle = Reconciliation.objects.filter(at__lt=before, corrected=0, adopted=0, resolved=0)
    return Reconciliation.objects.filter(
        pk__in=list(idle.order_by("id").values_list("pk", flat=True)[:at_most])
    ).delete()[0]


def reconcile_now(broker: Broker, now: Callable[[], datetime]) -> None:
    """Have the list read, by us or by another worker who begins after this was wanted. Raises BrokerError.

    However many want it at once, it is read twice at most. Nobody waits in the database, and none longer than
    LOOK_PATIENCE_SECONDS for another's reading.
    """
    wanted_at, gives_up_at = now(), monotonic() + LOOK_PATIENCE_SECONDS
    while not _is_read_since(wanted_at, now()):
        with advisory_lock("reconcile_now") as is_ours:
            if is_ours and not _is_read_since(wanted_at, now()):
                reconcile(broker, now)
                return
        if not is_ours and monotonic() > gives_up_at:
            _go_on_without(broker, now)
            return
        if not is_ours:
            sleep(LOOK_PAUSE_SECONDS)


def _is_read_since(wanted_at: datetime, now: datetime) -> bool:
    newest = _newest(now)
    return newest is not None and newest.outcome in READ and newest.at >= wanted_at


def _go_on_without(broker: Broker, now: Callable[[], datetime]) -> None:
    """Give up another worker's reading. One that has stopped in the middle of it keeps nobody from the list."""
    newest = _newest(now())
    if newest is not None and now() - newest.at <= LOOK_STOPPED_AFTER:
        raise NotSent(gettext("another worker has been reading the broker's list of orders for too long"))
    log.error("nobody has read the broker's list since %s, though a worker has its turn: it is read", newest)
    reconcile(broker, now)


def _reconcile(answer: OrderList) -> ReconcileReport:
    report, listed = ReconcileReport(seen=len(answer.orders)), set[int]()
    unmatched = _settle_known(answer.orders, answer, report, listed)
    # an amend of ours may have got its number while its original was settled
    unmatched = _settle_known(unmatched, answer, report, listed)
    _note_missing(answer, listed)
    report.resolved += unknown.resolve(unmatched, answer)
    _record_external(_settle_known(unmatched, answer, report, listed), answer, report)
    return report


def _settle_known(
    records: Sequence[OrderRecord], answer: OrderList, report: ReconcileReport, listed: set[int]
) -> list[OrderRecord]:
    """Settle the orders that have rows, and add these to `listed`; return the lines of the others."""
    if not records:
        return []
    known, unmatched, agreeing = KnownOrders(records, answer.orders), [], list[int]()
    phases, changing = answer.phases, requests.orders_with_live_changes()
    for record in records:
        order = known.row_of(record)
        if order is None:
            unmatched.append(record)
            continue
        listed.add(order.pk)
        if order.pk not in changing and agrees(order, record, answer.asked_at, phases):
            agreeing.append(order.pk)
        elif order.pk in changing or _needs_settling(order, record):
            with as_unread(record, answer.unread):
                report.corrected += settle(order.pk, record, phases=phases, **answer.evidence_for(record))
    journal.note_confirmed(agreeing, answer.asked_at)
    return unmatched


def _needs_settling(order: TradeOrder, record: OrderRecord) -> bool:
    """Whether the list may tell more than the row knows; a settled order is passed over without a lock."""
    return (
        order.look_wanted
        or not order.is_done
        or (order.state is Status.CANCELLED and (not order.end_cause or record.open_qty > 0))
        or (order.state is Status.REJECTED and record.open_qty > 0)
        or order.filled_qty != record.filled_qty
        or order.filled_amount != record.filled_amount
    )


def _cancel_surplus(orders: Sequence[TradeOrder], broker: Broker, now: Callable[[], datetime]) -> None:
    """Cancel at once what turned up beside its successor: together they could fill more than was asked for."""
    for order in orders:
        order.refresh_from_db()
        if order.is_open and journal.has_successor(order):
            try:
                Canceller(broker, now).cancel(order, by=RequestedBy.CHASE)
            except BrokerError as error:
                log.warning("order %s: its chase cancels it: %s", order.pk, error)


_LACKING = f"""
    status IN ({sql.literals(OPEN)}) AND order_no IS NOT NULL AND order_date >= %(since)s AND accepted_at < %(lag)s
    AND id <> ALL(%(listed)s)
    ORDER BY created_at DESC, id DESC
"""


def _lacking(answer: OrderList, listed: Collection[int]) -> list[TradeOrder]:
    """Return the open orders that a list should show, and that are not among those it does."""
    values = {"since": answer.since, "lag": answer.asked_at - LIST_LAG, "listed": list(listed)}
    return sql.find(TradeOrder, _LACKING, values)


def _note_missing(answer: OrderList, listed: Collection[int]) -> None:
    """Count how often lists lack an open order of ours, and report it in time. `listed` are those just settled."""
    if answer.unread or not _lacking(answer, listed):
        return
    # another worker may have given one its row, or its number, since
    known = KnownOrders(answer.orders)
    listed = {row.pk for record in answer.orders if (row := known.row_of(record)) is not None}
    for order in _lacking(answer, listed):
        since = order.missing_since or answer.asked_at
        looks = min(order.absent_looks + 1, unknown.MOST_LOOKS)
        journal.update_fields(order, absent_looks=looks, missing_since=since)
        is_long = order.absent_looks >= unknown.MISSING_LOOKS and answer.asked_at - since >= unknown.MISSING_AFTER
        if is_long and not order.events.filter(kind=OrderEventKind.NOT_LISTED, at__gte=since).exists():
            log.error("order %s is open here, and %d lists of the broker lack it", order.pk, order.absent_looks)
            journal.append_event(order, OrderEventKind.NOT_LISTED, str(order.absent_looks), at=answer.now)


def _record_external(unmatched: Sequence[OrderRecord], answer: OrderList, report: ReconcileReport) -> None:
    """Record the orders placed elsewhere. One that a request of ours may be waits for that answer."""
    for record in unmatched:
        with as_unread(record, answer.unread):
            lost = unknown.find_given_up(record)
            if lost and answer.unread:
                continue  # it may be ours: a list with every line parsed says so
            if found := unknown.claim_given_up(record, lost, answer):
                report.resolved += 1
                report.turned_up.append(found)
            elif not unknown.may_be_ours(record) and (order := unknown.record_external(record, answer)):
                report.adopted += 1
                fills.replay(order)  # what came before its row was to be seen
