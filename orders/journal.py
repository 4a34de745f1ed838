"""The only writer of an order's state: the row and its event change together, or not at all.

Every change is a compare-and-set on the state that was read, or runs under the row's lock.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any, ParamSpec

from django.db import connection, transaction
from django.db.models import OuterRef, Q, Subquery
from django.utils.translation import gettext

from aegis import lifecycle
from aegis.broker import Acceptance, BrokerError, HeldBack, NotSent
from aegis.chase import ChaseStep
from aegis.lifecycle import Event, Status
from aegis.order_events import OrderEventKind
from aegis.requests import RequestedBy, RequestState
from infra import db_limits, sql
from kis.errors import advice
from orders import pretrade_context
from orders.models import BrokerRequest, OrderEvent, TradeOrder
from orders.pretrade_context import CompetingOrders

log = logging.getLogger(__name__)

P = ParamSpec("P")

# how soon an order that is to be confirmed is looked up again: at first, and at the latest
LOOK_UP_AFTER = timedelta(seconds=5)
LOOK_UP_MAX = timedelta(seconds=60)
# a chase whose re-order never reached the broker tries again after this
LOST_PAUSE = timedelta(seconds=5)

# the evidence of an external order starts with this
RECORD_TRIES = 3
# the states of a request that the outcome of its order may still change
UNSETTLED_REQUEST = (RequestState.REQUESTED, RequestState.SENT, RequestState.UNKNOWN, RequestState.NOT_SENT)
EXTERNAL = "external order"


def with_retry(write: Callable[P, object], *args: P.args, **kwargs: P.kwargs) -> None:
    """Record the broker's answer, by a new connection if the old one was lost. `write` must be safe to repeat."""
    for _ in range(RECORD_TRIES - 1):
        try:
            write(*args, **kwargs)
        except db_limits.CONNECTION_ERRORS:
            log.exception("the broker's answer cannot be recorded; trying again")
            connection.close_if_unusable_or_obsolete()
        else:
            return
    write(*args, **kwargs)


def append_event(order: TradeOrder, kind: OrderEventKind, detail: str = "", *, at: datetime) -> None:
    """Add an event to an order's history."""
    sql.insert(_event(order, kind, detail, at))


def _event(order: TradeOrder, kind: Event | OrderEventKind, detail: str, at: datetime) -> OrderEvent:
    return OrderEvent(order=order, kind=kind, detail=detail[:300], at=at)


@transaction.atomic(savepoint=False)
def record_external(
    order: TradeOrder, acceptance: Acceptance, *, placed_at: datetime, at: datetime, evidence: str
) -> None:
    """Write the row of an order that the broker has and AEGIS did not place."""
    order.status = Status.SUBMITTING
    order.status_at = order.created_at = placed_at
    sql.insert(order)
    append_event(order, OrderEventKind.CREATED, _creation_detail(order), at=placed_at)
    record_accepted(order, acceptance, at=at, evidence=f"{EXTERNAL}; {evidence}")


def _creation_detail(order: TradeOrder) -> str:
    return f"{order.order_type} {order.qty} @ {order.price} {order.market}/{order.order_kind}"


# the columns without a value before an order leaves: the insert leaves them to the database's defaults
_DEFAULT_COLUMNS = frozenset(
    {
        "order_no",
        "branch",
        "sent_at",
        "accepted_at",
        "confirmed_at",
        "needs_reconciliation",
        "lookup_at",
        "not_found_count",
        "missing_since",
        "unlisted_since",
        "filled_qty",
        "filled_amount",
        "withdrawn_qty",
        "end_cause",
        "refusal",
        "decided_by",
        "never_arrived",
        "cancel_requested_at",
        "cancel_requested_by",
        "cancel_due_at",
        "chase_at",
        "chase_step",
        "chase_claimed_until",
        "chase_note",
    }
)


@cache
def _commit() -> str:
    names, places = sql.placeholders(TradeOrder, _DEFAULT_COLUMNS)
    statement = f"""
WITH turn AS ({pretrade_context.COMPARE_AND_COUNT}),
intent AS (INSERT INTO trade_orders ({names}) SELECT {places} FROM turn RETURNING id),
request AS (
    INSERT INTO broker_requests (order_id, makes_id, kind, state, state_at, requested_at, requested_by, who, qty,
                                 is_whole, price)
    SELECT coalesce(%(replaces_id)s, intent.id), CASE WHEN %(replaces_id)s IS NULL THEN NULL ELSE intent.id END,
           CASE WHEN %(replaces_id)s IS NULL THEN 'NEW' ELSE 'AMEND' END, 'REQUESTED', %(created_at)s, %(created_at)s,
           %(requested_by)s, %(who)s, %(qty)s, %(is_whole)s, %(price)s
    FROM intent
)
INSERT INTO order_events (order_id, kind, detail, at)
SELECT intent.id, event.kind, event.detail, %(created_at)s
FROM intent, unnest(%(kinds)s::text[], %(details)s::text[]) AS event (kind, detail)
RETURNING order_id
"""  # noqa: S608
    # psycopg keeps its parse of a statement of at most 4,096 bytes and 50 parameters
    return " ".join(statement.split())


def insert_if_unchanged(
    order: TradeOrder,
    competing: CompetingOrders,
    *,
    at: datetime,
    by: RequestedBy,
    who: str = "",
    is_whole: bool = True,
    changed: str = "",
    follows: int | None = None,
) -> bool:
    """Commit an order that is about to leave, and its request.

    Return False, with nothing written, if the competing orders have changed since they were read, or if the chase of
    the order that it `follows` has ended. One statement compares and writes, so that nothing can change in between.
    `changed` is why the order is sent as another kind. An order that `replaces` another is the new order of an amend;
    `is_whole` means that the amend takes all open shares.
    Raises IntegrityError if the request id has a row already, NotSent if the database does not write it in time.
    """
    order.status = Status.SUBMITTING
    order.status_at = order.created_at = at
    events: dict[str, str] = {OrderEventKind.CREATED.value: _creation_detail(order)}
    if changed:
        events[OrderEventKind.KIND_CHANGED.value] = changed[:300]
    params = pretrade_context.version_params(competing, now=at) | sql.values(order, _DEFAULT_COLUMNS)
    params |= {"kinds": list(events), "details": list(events.values()), "follows": follows}
    params |= {"requested_by": by.value, "who": who[:150], "is_whole": is_whole}
    try:
        with connection.cursor() as cursor:
            cursor.execute(_commit(), params)
            inserted = cursor.fetchone()
    except db_limits.CONNECTION_ERRORS as error:
        raise _not_sent(error) from error
    if inserted is None:
        return False
    sql.set_pk(order, inserted[0])
    return True


def _not_sent(error: Exception) -> NotSent:
    """Return the failure of an order without a row: the database did not write it in time, or ended the session."""
    connection.close_if_unusable_or_obsolete()
    template = gettext("the database did not take the order in time, and nothing was sent: {error}")
    return NotSent(template.format(error=str(error).partition("\n")[0]))


def record_accepted(order: TradeOrder, acceptance: Acceptance, *, at: datetime, evidence: str, **fields: Any) -> bool:
    """Record the broker's number for an order; return False if another process was first."""
    fields |= {
        "branch": acceptance.branch,
        "order_no": acceptance.order_no,
        "accepted_at": at,
        "not_found_count": 0,
        "lookup_at": None,
        "never_arrived": False,
        "candidates": [],
    }
    if order.wait_seconds and is_to_be_chased(order):
        # an order that appears after its successor was sent is not wanted any more: its chase cancels it at once
        wait_seconds = 0.0 if order.root_id and has_successor(order) else order.wait_seconds
        fields |= {"chase_at": at + timedelta(seconds=wait_seconds), "chase_step": ChaseStep.CHECK.value}
    request = {"state": RequestState.ACKNOWLEDGED, "branch": acceptance.branch, "order_no": acceptance.order_no}
    detail = f"{acceptance.order_no} {evidence}"
    return apply_event(order, Event.ACCEPTED, at=at, detail=detail, request=request, **fields)


def has_successor(order: TradeOrder) -> bool:
    """Whether a later order of the family has reached the broker."""
    later = order.family.filter(attempt__gt=order.attempt, never_arrived=False)
    return later.exclude(status=Status.REJECTED).exists()


def is_to_be_chased(order: TradeOrder) -> bool:
    """Whether no cancel is requested and the chase has not ended. Later evidence does not restart an ended chase."""
    marks = OrderEvent.objects.filter(
        order=OuterRef("pk"), kind__in=[OrderEventKind.CHASE_ENDED, OrderEventKind.CHASE_WANTED]
    ).order_by("-id")
    row = (
        TradeOrder.objects.annotate(mark=Subquery(marks.values("kind")[:1]))
        .only("cancel_requested_at", "cancel_requested_by")
        .get(pk=order.pk)
    )
    return row.mark != OrderEventKind.CHASE_ENDED and not row.is_cancel_requested


def record_rejected(order: TradeOrder, error: BrokerError, *, at: datetime) -> bool:
    """Record that the broker refused the order, or that the order provably never reached the broker."""
    # a held-back order never reached the broker: its code is one of our own names
    detail = error.message if isinstance(error, HeldBack) else f"{error.code} {error.message}".strip()
    if hint := advice(error.code, error.message):
        detail += f" ({gettext(hint)})"
    lost = _lost_fields(order, at) if isinstance(error, NotSent) else {}
    if isinstance(error, HeldBack):  # a first try may have been turned away unread: the broker has nothing of it
        lost["sent_at"] = None
    request = _failure(RequestState.NOT_SENT if lost else RequestState.REJECTED, error)
    return apply_event(order, Event.REFUSED, at=at, detail=detail, request=request, refusal=detail[:200], **lost)


def record_not_found(order: TradeOrder, evidence: str, *, at: datetime, **fields: Any) -> bool:
    """Record that an order without an answer never arrived."""
    fields |= {"refusal": evidence[:200], "needs_reconciliation": False, "lookup_at": None, **_lost_fields(order, at)}
    request = {"state": RequestState.NOT_SENT}
    return apply_event(order, Event.ABSENT, at=at, detail=evidence, request=request, **fields)


def _lost_fields(order: TradeOrder, at: datetime) -> dict[str, Any]:
    """Return the columns of an order that never reached the broker.

    A chase continues after a lost re-order; a lost first order is left to its caller to send again.
    """
    # after a lost amend its original is still open
    is_chase_continued = order.root_id and not order.replaces_id and is_to_be_chased(order)
    return {"never_arrived": True, "chase_at": at + LOST_PAUSE if is_chase_continued else None}


def record_unknown(order: TradeOrder, error: BrokerError, *, at: datetime) -> bool:
    """Record that the order may or may not have arrived. The order list decides; the order is never sent again."""
    fields: dict[str, Any] = {"needs_reconciliation": True, "lookup_at": None}
    if not order.sent_at:
        fields["sent_at"] = at
    request = _failure(RequestState.UNKNOWN, error)
    return apply_event(order, Event.NO_ANSWER, at=at, detail=str(error), request=request, **fields)


def _failure(state: RequestState, error: BrokerError) -> dict[str, Any]:
    """Return the fields of a request that was not accepted."""
    return {"state": state, "code": error.code[:12], "message": error.message[:200]}


def request_confirmation(order: TradeOrder) -> None:
    """Have the order confirmed by the next list, without waiting for its next lookup."""
    update_fields(order, needs_reconciliation=True, lookup_at=None)


def note_confirmed(orders: Sequence[int], at: datetime) -> None:
    """Note that the list of `at` confirmed these orders as they are; an older list changes nothing."""
    is_older = Q(confirmed_at__isnull=True) | Q(confirmed_at__lt=at)
    if orders:
        TradeOrder.objects.filter(is_older, pk__in=orders).update(confirmed_at=at)


def next_lookup(order: TradeOrder, now: datetime) -> datetime:
    """Return when an order that is still to be confirmed is looked up again: the longer it waits, the later."""
    waited = now - (order.sent_at or order.status_at)
    return now + min(max(LOOK_UP_AFTER, waited / 4), LOOK_UP_MAX)


def apply_event(
    order: TradeOrder,
    event: Event,
    *,
    at: datetime,
    detail: str = "",
    request: Mapping[str, Any] | None = None,
    **fields: Any,
) -> bool:
    """Apply `event`; return False if another process moved the order first: read it again, and decide again.

    `request` has the matching fields of the broker request that created the order, a new order or an amend. Raises
    IllegalMove if the event is not possible in the order's state.
    """
    row = _event(order, event, detail, at)
    status = lifecycle.after(Status(order.status), event)
    # no savepoint of its own: the changes are part of the caller's transaction, if it has one
    with transaction.atomic(savepoint=False):
        changes = {"status": status, "status_at": at, **fields}
        if not sql.update(TradeOrder, order.pk, changes, expected={"status": order.status}):
            return False
        sql.insert(row)
        if request is not None:
            is_origin = Q(order_id=order.pk, kind="NEW") | Q(makes_id=order.pk)
            BrokerRequest.objects.filter(is_origin, state__in=UNSETTLED_REQUEST).update(state_at=at, **request)
    order.status, order.status_at = status, at
    for name, value in fields.items():
        setattr(order, name, value)
    return True


def update_fields(order: TradeOrder, **fields: Any) -> None:
    """Change columns that are not the order's state, and only those."""
    sql.update(TradeOrder, order.pk, fields)
    for name, value in fields.items():
        setattr(order, name, value)


def locked(pk: int) -> TradeOrder:
    """Return an order under its row lock. Call it inside a transaction."""
    return TradeOrder.objects.select_for_update().get(pk=pk)
