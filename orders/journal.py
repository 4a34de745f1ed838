"""The only writer of an order's state: the row and its event change together, or neither does.

Every change is a compare-and-set on the state that was seen, or runs under the row's lock.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from django.db import connection, transaction
from django.db.models import OuterRef, Q, Subquery
from django.utils.translation import gettext

from aegis import lifecycle
from aegis.broker import Acceptance, BrokerError, HeldBack, NotSent
from aegis.chase import ChaseStep
from aegis.lifecycle import Event, Status
from aegis.order_events import OrderEventKind
from aegis.requests import RequestedBy, RequestState
from infra import sql
from kis.errors import advice
from orders import pretrade_context
from orders.models import BrokerRequest, OrderEvent, TradeOrder
from orders.pretrade_context import CompetingOrders

# how often an order that is to be confirmed is looked up: at first, and at most this far apart
LOOK_UP_AFTER = timedelta(seconds=5)
LOOK_UP_MAX = timedelta(seconds=60)
# a chase whose re-order never reached the broker tries again after this
LOST_PAUSE = timedelta(seconds=5)

# how the evidence of an external order begins
EXTERNAL = "external order"


def append_event(order: TradeOrder, kind: str, detail: str = "", *, at: datetime) -> None:
    """Add an event to an order's history."""
    sql.insert(OrderEvent(order=order, kind=kind, detail=detail[:300], at=at))


@transaction.atomic(savepoint=False)
def record_external(
    order: TradeOrder, acceptance: Acceptance, *, placed_at: datetime, at: datetime, evidence: str
) -> None:
    """Write the row of an order that the broker has and we did not place."""
    order.status = Status.SUBMITTING
    order.status_at = order.created_at = placed_at
    sql.insert(order)
    append_event(order, OrderEventKind.CREATED, _created(order), at=placed_at)
    record_accepted(order, acceptance, at=at, evidence=f"{EXTERNAL}; {evidence}")


def _created(order: TradeOrder) -> str:
    return f"{order.order_type} {order.qty} @ {order.price} {order.market}/{order.order_kind}"


# what nobody knows of an order that has not left yet: the database's own defaults say so
_LATER = frozenset(
    {
        "order_no",
        "branch",
        "sent_at",
        "accepted_at",
        "looked_at",
        "look_wanted",
        "lookup_at",
        "absent_looks",
        "missing_since",
        "unlisted_since",
        "filled_qty",
        "filled_amount",
        "withdrawn_qty",
        "end_cause",
        "refusal",
        "decided_by",
        "never_arrived",
        "cancel_wanted_at",
        "cancel_wanted_by",
        "cancel_due_at",
        "chase_at",
        "chase_step",
        "chase_claimed_until",
        "chase_note",
    }
)


@cache
def _commit() -> str:
    names, places = sql.places(TradeOrder, _LATER)
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
    """Commit an order that is about to leave, and its request; False, and nothing written, if what it saw has changed.

    One statement asks and writes, so that nothing comes between; `changed` says why it goes as another kind, and the
    chase of the order that it `follows` must go on. An order that `replaces` another is an amend's: `is_whole` says
    that it takes all that is open. Raises IntegrityError if the request id has a row already.
    """
    order.status = Status.SUBMITTING
    order.status_at = order.created_at = at
    events: dict[str, str] = {OrderEventKind.CREATED.value: _created(order)}
    if changed:
        events[OrderEventKind.KIND_CHANGED.value] = changed[:300]
    params = sql.values(order, _LATER) | pretrade_context.version_params(competing, now=at)
    params |= {"kinds": list(events), "details": list(events.values()), "follows": follows}
    params |= {"requested_by": by.value, "who": who[:150], "is_whole": is_whole}
    with connection.cursor() as cursor:
        cursor.execute(_commit(), params)
        written = cursor.fetchone()
    if written is None:
        return False
    sql.added(order, written[0])
    return True


def record_accepted(order: TradeOrder, acceptance: Acceptance, *, at: datetime, evidence: str, **fields: Any) -> bool:
    """Record the broker's number for an order; False when another process was first."""
    fields |= {
        "branch": acceptance.branch,
        "order_no": acceptance.order_no,
        "accepted_at": at,
        "absent_looks": 0,
        "lookup_at": None,
        "never_arrived": False,
        "candidates": [],
    }
    if order.wait_seconds and is_to_be_chased(order):
        # one that turns up beside its successor is not wanted any more: its chase takes it back at once
        wait = 0.0 if order.root_id and has_successor(order) else order.wait_seconds
        fields |= {"chase_at": at + timedelta(seconds=wait), "chase_step": ChaseStep.CHECK.value}
    with transaction.atomic(savepoint=False):
        if not apply_event(order, Event.ACCEPTED, at=at, detail=f"{acceptance.order_no} {evidence}", **fields):
            return False
        _move_request(order, RequestState.ACKNOWLEDGED, at, branch=acceptance.branch, order_no=acceptance.order_no)
    return True


def has_successor(order: TradeOrder) -> bool:
    """Whether a later order of its family was one at the broker."""
    later = order.family.filter(attempt__gt=order.attempt, never_arrived=False)
    return later.exclude(status=Status.REJECTED).exists()


def is_to_be_chased(order: TradeOrder) -> bool:
    """Whether no cancel is requested and the chase has not ended. Later evidence restarts no chase that ended."""
    marks = OrderEvent.objects.filter(
        order=OuterRef("pk"), kind__in=[OrderEventKind.CHASE_ENDED, OrderEventKind.CHASE_WANTED]
    ).order_by("-id")
    row = (
        TradeOrder.objects.annotate(mark=Subquery(marks.values("kind")[:1]))
        .only("cancel_wanted_at", "cancel_wanted_by")
        .get(pk=order.pk)
    )
    return row.mark != OrderEventKind.CHASE_ENDED and not row.is_cancel_requested


def _move_request(order: TradeOrder, state: RequestState, at: datetime, **fields: Any) -> None:
    """Bring the request that made an order, new or by an amend, in step with it."""
    made_it = Q(order_id=order.pk, kind="NEW") | Q(makes_id=order.pk)
    unsettled = [RequestState.REQUESTED, RequestState.SENT, RequestState.UNKNOWN, RequestState.NOT_SENT]
    BrokerRequest.objects.filter(made_it, state__in=unsettled).update(state=state, state_at=at, **fields)


def record_rejected(order: TradeOrder, error: BrokerError, *, at: datetime) -> bool:
    """Record that the broker said no, or that the order surely never reached it."""
    # a held-back order never met the broker: its code is a name of ours
    words = error.message if isinstance(error, HeldBack) else f"{error.code} {error.message}".strip()
    if what := advice(error.code, error.message):
        words += f" ({gettext(what)})"
    lost = _lost(order, at) if isinstance(error, NotSent) else {}
    if isinstance(error, HeldBack):  # a first try may have been turned away unread: nothing of it is at the broker
        lost["sent_at"] = None
    with transaction.atomic(savepoint=False):
        if not apply_event(order, Event.REFUSED, at=at, detail=words, refusal=words[:200], **lost):
            return False
        state = RequestState.NOT_SENT if lost else RequestState.REJECTED
        _move_request(order, state, at, code=error.code[:12], message=error.message[:200])
    return True


def record_not_found(order: TradeOrder, words: str, *, at: datetime, **fields: Any) -> bool:
    """Record that an order with no answer never arrived."""
    fields |= {"refusal": words[:200], "look_wanted": False, "lookup_at": None, **_lost(order, at)}
    with transaction.atomic(savepoint=False):
        if not apply_event(order, Event.ABSENT, at=at, detail=words, **fields):
            return False
        _move_request(order, RequestState.NOT_SENT, at)
    return True


def _lost(order: TradeOrder, at: datetime) -> dict[str, Any]:
    """Mark what never reached the broker. A chase goes on from there; a first order is its caller's to send again."""
    # if an amend is lost, its original is still there
    goes_on = order.root_id and not order.replaces_id and is_to_be_chased(order)
    return {"never_arrived": True, "chase_at": at + LOST_PAUSE if goes_on else None}


def record_unknown(order: TradeOrder, error: BrokerError, *, at: datetime) -> bool:
    """Record that the order may or may not have arrived. It is resolved by looking, never by sending again."""
    sent = {} if order.sent_at else {"sent_at": at}
    with transaction.atomic(savepoint=False):
        if not apply_event(order, Event.NO_ANSWER, at=at, detail=str(error), look_wanted=True, lookup_at=None, **sent):
            return False
        _move_request(order, RequestState.UNKNOWN, at, code=error.code[:12], message=error.message[:200])
    return True


def request_confirmation(order: TradeOrder) -> None:
    """Have the order confirmed by the next list, whatever it waited for until now."""
    update_fields(order, look_wanted=True, lookup_at=None)


def note_confirmed(orders: Sequence[int], at: datetime) -> None:
    """Note that the list confirmed these orders, as they are; an older list changes nothing."""
    older = Q(looked_at__isnull=True) | Q(looked_at__lt=at)
    if orders:
        TradeOrder.objects.filter(older, pk__in=orders).update(looked_at=at)


def next_lookup(order: TradeOrder, now: datetime) -> datetime:
    """Return when an order that is still to be confirmed is looked up again: the longer it waits, the later."""
    waited = now - (order.sent_at or order.status_at)
    return now + min(max(LOOK_UP_AFTER, waited / 4), LOOK_UP_MAX)


def apply_event(order: TradeOrder, event: Event, *, at: datetime, detail: str = "", **fields: Any) -> bool:
    """Apply `event`; False when someone else moved the order first: read it again, decide again.

    Raises IllegalMove where the event cannot happen in the order's state.
    """
    status = lifecycle.after(order.state, event)
    # no savepoint of its own: the two stand or fall with whatever they are part of
    with transaction.atomic(savepoint=False):
        changes = {"status": status, "status_at": at, **fields}
        if not sql.update(TradeOrder, order.pk, changes, seen={"status": order.status}):
            return False
        append_event(order, event, detail, at=at)
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
