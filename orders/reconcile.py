"""Reads the broker's order list and settles our orders by it.

The absence of an order from one list proves nothing, and the absence from a list with unparsed lines never does. Known
orders are settled by their own lines (`orders.settle`). Orders whose answer was lost are matched with the other lines,
and the remaining lines are external orders (`orders.unknown`).
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
from orders.order_list import ASKED_FOR, LIST_LAG, KnownOrders, OrderList, collect_unparsed
from orders.pretrade_context import FRESH, MAX_CLOCK_SKEW
from orders.settle import agrees, settle

__all__ = [
    "ASKED_FOR",
    "LIST_LAG",
    "ReconcileReport",
    "delete_before",
    "invalidate",
    "is_fresh",
    "reconcile",
    "reconcile_now",
    "settle",
]

log = logging.getLogger(__name__)

Outcome = Reconciliation.Outcome
# outcomes that show the state of our orders
READ = (Outcome.WHOLE, Outcome.PARTLY)

# the maximum wait for another worker that reads the list: two readings of nine seconds, with their waits
LOOK_PATIENCE_SECONDS = 25.0
LOOK_PAUSE_SECONDS = 0.1
# a reconciliation runs each minute: if the list was not read for this long, the worker that holds the lock has stopped
LOOK_STOPPED_AFTER = timedelta(seconds=90)


@dataclass(slots=True)
class ReconcileReport:
    """Result of one reconciliation, as numbers of orders; `error` lists the unparsed lines.

    `adopted` counts the external orders that were recorded. `turned_up` are orders that had been given up as lost.
    """

    seen: int = 0
    corrected: int = 0
    adopted: int = 0
    resolved: int = 0
    error: str = ""
    turned_up: list[TradeOrder] = field(default_factory=list)


def is_fresh(now: datetime) -> bool:
    """Whether the newest reconciliation succeeded and is not stale. Nothing is sent before that."""
    newest = _newest(now)
    return newest is not None and newest.outcome in READ and now - newest.at <= FRESH


def _newest(now: datetime) -> Reconciliation | None:
    """Return the newest reconciliation that is not in the future; such rows date from before the clock was set back."""
    condition = "at <= %(latest)s ORDER BY at DESC, id DESC LIMIT 1"
    return next(iter(sql.find(Reconciliation, condition, {"latest": now + MAX_CLOCK_SKEW})), None)


def invalidate(now: datetime) -> None:
    """Invalidate earlier reconciliations when the workers start: the list is read again before an order is sent."""
    Reconciliation.objects.create(at=now, outcome=Outcome.BEGUN)


def reconcile(broker: Broker, now: Callable[[], datetime]) -> ReconcileReport:
    """Read the order list of every day with an unsettled order, settle the orders, and record the reconciliation.

    The row names the lines that cannot be parsed or that violate a constraint of our tables; the others count. Raises
    BrokerError if the list cannot be read, or if an unparsed line may be an unsettled order of ours.
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
        log.error("the broker's order list is incomplete: %s", report.error)
    outcome = _outcome(answer)
    counts = {name: getattr(report, name) for name in ("seen", "corrected", "adopted", "resolved", "error")}
    sql.insert(Reconciliation(at=asked_at, outcome=outcome, **counts))
    unknown.remind(answer.now, answer.phases)
    _cancel_surplus(report.turned_up, broker, now)
    if outcome == Outcome.FAILED:
        raise PartialResponse(records, unread)
    return report


def _outcome(answer: OrderList) -> Outcome:
    """Return the outcome of a list: FAILED if an unparsed line may be an unsettled order of ours."""
    if answer.is_complete:
        return Outcome.WHOLE
    return Outcome.FAILED if answer.may_hide_our_orders() else Outcome.PARTLY


def delete_before(before: datetime, at_most: int) -> int:
    """Delete up to `at_most` reconciliations before `before` that changed nothing; return the number deleted.

    The others stay: they explain the state of an order.
    """
    unchanged_rows = Reconciliation.objects.filter(at__lt=before, corrected=0, adopted=0, resolved=0)
    return Reconciliation.objects.filter(
        pk__in=list(unchanged_rows.order_by("id").values_list("pk", flat=True)[:at_most])
    ).delete()[0]


def reconcile_now(broker: Broker, now: Callable[[], datetime]) -> None:
    """Reconcile, or wait for another worker's reconciliation that starts after this call. Raises BrokerError.

    For any number of simultaneous callers the list is read at most twice. A caller does not wait in the database, and
    waits at most LOOK_PATIENCE_SECONDS for another worker.
    """
    requested_at, deadline = now(), monotonic() + LOOK_PATIENCE_SECONDS
    while not _is_read_since(requested_at, now()):
        with advisory_lock("reconcile_now") as is_ours:
            if is_ours and not _is_read_since(requested_at, now()):
                reconcile(broker, now)
                return
        if not is_ours and monotonic() > deadline:
            _take_over(broker, now)
            return
        if not is_ours:
            sleep(LOOK_PAUSE_SECONDS)


def _is_read_since(requested_at: datetime, now: datetime) -> bool:
    newest = _newest(now)
    return newest is not None and newest.outcome in READ and newest.at >= requested_at


def _take_over(broker: Broker, now: Callable[[], datetime]) -> None:
    """Stop waiting for another worker: raise NotSent, or reconcile here if that worker has stopped."""
    newest = _newest(now())
    if newest is not None and now() - newest.at <= LOOK_STOPPED_AFTER:
        raise NotSent(gettext("another worker has been reading the broker's list of orders for too long"))
    log.error("another worker holds the lock and has not read the broker's list since %s: reading it here", newest)
    reconcile(broker, now)


def _reconcile(answer: OrderList) -> ReconcileReport:
    report, listed_pks = ReconcileReport(seen=len(answer.orders)), set[int]()
    unmatched = _settle_known(answer.orders, answer, report, listed_pks)
    # settling an original may have given the number to the new order of our amend
    unmatched = _settle_known(unmatched, answer, report, listed_pks)
    _note_missing(answer, listed_pks)
    report.resolved += unknown.resolve_unanswered(unmatched, answer)
    _record_external(_settle_known(unmatched, answer, report, listed_pks), answer, report)
    return report


def _settle_known(
    records: Sequence[OrderRecord], answer: OrderList, report: ReconcileReport, listed_pks: set[int]
) -> list[OrderRecord]:
    """Settle the records that have rows, and add the rows' keys to `listed_pks`; return the other records."""
    if not records:
        return []
    known_orders, unmatched, confirmed_pks = KnownOrders(records, answer.orders), [], list[int]()
    phases, changing_pks = answer.phases, requests.orders_with_live_changes()
    for record in records:
        order = known_orders.row_of(record)
        if order is None:
            unmatched.append(record)
            continue
        listed_pks.add(order.pk)
        if order.pk not in changing_pks and agrees(order, record, answer.asked_at, phases):
            confirmed_pks.append(order.pk)
        elif order.pk in changing_pks or _needs_settling(order, record):
            with collect_unparsed(record, answer.unread):
                report.corrected += settle(order.pk, record, phases=phases, **answer.evidence_for(record))
    journal.note_confirmed(confirmed_pks, answer.asked_at)
    return unmatched


def _needs_settling(order: TradeOrder, record: OrderRecord) -> bool:
    """Whether the record may change the row; a settled order is skipped without a lock."""
    return (
        order.needs_reconciliation
        or not order.is_done
        or (order.state is Status.CANCELLED and (not order.end_cause or record.open_qty > 0))
        or (order.state is Status.REJECTED and record.open_qty > 0)
        or order.filled_qty != record.filled_qty
        or order.filled_amount != record.filled_amount
    )


def _cancel_surplus(orders: Sequence[TradeOrder], broker: Broker, now: Callable[[], datetime]) -> None:
    """Cancel the orders that reappeared after their successor was sent: both could fill more than the intent."""
    for order in orders:
        order.refresh_from_db()
        if order.is_open and journal.has_successor(order):
            try:
                Canceller(broker, now).cancel(order, by=RequestedBy.CHASE)
            except BrokerError as error:
                log.warning("order %s: the cancel failed, its chase repeats it: %s", order.pk, error)


_MISSING = f"""
    status IN ({sql.literals(OPEN)}) AND order_no IS NOT NULL AND order_date >= %(since)s AND accepted_at < %(lag)s
    AND id <> ALL(%(listed)s)
    ORDER BY created_at DESC, id DESC
"""


def _missing_orders(answer: OrderList, listed_pks: Collection[int]) -> list[TradeOrder]:
    """Return the open orders that the list should show and does not. `listed_pks` are the keys of those it shows."""
    params = {"since": answer.since, "lag": answer.asked_at - LIST_LAG, "listed": list(listed_pks)}
    return sql.find(TradeOrder, _MISSING, params)


def _note_missing(answer: OrderList, listed_pks: Collection[int]) -> None:
    """Count the lists that lack an open order of ours, and report it after several.

    `listed_pks` are the keys of the orders just settled.
    """
    if answer.unread or not _missing_orders(answer, listed_pks):
        return
    # since then another worker may have recorded an order, or its number
    known_orders = KnownOrders(answer.orders)
    listed_pks = {row.pk for record in answer.orders if (row := known_orders.row_of(record)) is not None}
    for order in _missing_orders(answer, listed_pks):
        since = order.missing_since or answer.asked_at
        count = min(order.not_found_count + 1, unknown.MAX_LISTS_COUNTED)
        journal.update_fields(order, not_found_count=count, missing_since=since)
        is_long = order.not_found_count >= unknown.MISSING_LISTS and answer.asked_at - since >= unknown.MISSING_AFTER
        if is_long and not order.events.filter(kind=OrderEventKind.NOT_LISTED, at__gte=since).exists():
            log.error("order %s is open here, but missing from %d lists of the broker", order.pk, order.not_found_count)
            journal.append_event(order, OrderEventKind.NOT_LISTED, str(order.not_found_count), at=answer.now)


def _record_external(unmatched: Sequence[OrderRecord], answer: OrderList, report: ReconcileReport) -> None:
    """Record external orders. A record that may belong to a request of ours waits for that request's answer."""
    for record in unmatched:
        with collect_unparsed(record, answer.unread):
            candidates = unknown.find_given_up(record)
            if candidates and answer.unread:
                continue  # it may be ours; only a list without unparsed lines decides that
            if claimed_order := unknown.claim_given_up(record, candidates, answer):
                report.resolved += 1
                report.turned_up.append(claimed_order)
            elif not unknown.could_be_unanswered(record) and (order := unknown.add_external_order(record, answer)):
                report.adopted += 1
                fills.replay(order)  # notices that arrived before its row was committed
