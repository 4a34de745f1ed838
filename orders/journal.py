"""The only writer of an order's state: the row and its event change together, or neither does.

Every change is a compare-and-set on the state that was seen, or runs under the row's lock.
"""

from datetime import datetime, timedelta
from functools import cache
from typing import Any

from django.db import connection, transaction
from django.utils.translation import gettext

from aegis import lifecycle
from aegis.broker import Acceptance, BrokerError, NotSent
from aegis.guards import TradingState
from aegis.lifecycle import Event, Status
from kis.errors import advice
from orders import ground, rows
from orders.ground import Crowd
from orders.models import OrderEvent, TradeOrder, TradingSwitch

# a committed order leaves within this, or not at all
SEND_WITHIN = timedelta(seconds=20)
# a chase whose re-order never reached the broker tries again after this
LOST_PAUSE = timedelta(seconds=5)


def write(order: TradeOrder, kind: str, detail: str = "", *, at: datetime) -> None:
    """Add an event to an order's history."""
    rows.insert(OrderEvent(order=order, kind=kind, detail=detail[:300], at=at))


@transaction.atomic(savepoint=False)
def found(order: TradeOrder, acceptance: Acceptance, *, placed_at: datetime, at: datetime, evidence: str) -> None:
    """Write the row of an order that the broker has and we did not place."""
    order.status = Status.SUBMITTING
    order.status_at = order.created_at = placed_at
    rows.insert(order)
    write(order, "CREATED", _created(order), at=placed_at)
    accepted(order, acceptance, at=at, evidence=evidence)


def _created(order: TradeOrder) -> str:
    return f"{order.order_type} {order.qty} @ {order.price} {order.market}/{order.order_kind}"


@cache
def _commit() -> str:
    names, places = rows.places(TradeOrder)
    return f"""
WITH turn AS ({ground.TAKE_TURN}),
intent AS (INSERT INTO trade_orders ({names}) SELECT {places} FROM turn RETURNING id)
INSERT INTO order_events (order_id, kind, detail, at)
SELECT intent.id, event.kind, event.detail, %(created_at)s
FROM intent, unnest(%(kinds)s::text[], %(details)s::text[]) AS event (kind, detail)
RETURNING order_id
"""  # noqa: S608


def commit(order: TradeOrder, crowd: Crowd, *, at: datetime, changed: str = "", follows: int | None = None) -> bool:
    """Commit an order that is about to leave; False, and nothing written, where the crowd is not as it was seen.

    One statement asks and writes, so that nothing comes between; `changed` says why it goes as another kind, and the
    chase of the order that it `follows` must go on. Raises IntegrityError where the request has a row already.
    """
    order.status = Status.SUBMITTING
    order.status_at = order.created_at = at
    events = {"CREATED": _created(order)} | ({"KIND_CHANGED": changed[:300]} if changed else {})
    figures = rows.values(order) | ground.seen(crowd, now=at)
    figures |= {"kinds": list(events), "details": list(events.values()), "follows": follows}
    with connection.cursor() as cursor:
        cursor.execute(_commit(), figures)
        written = cursor.fetchone()
    if written is None:
        return False
    rows.added(order, written[0])
    return True


# the mark must be seen at once and need not survive a crash of the database: what is lost then is looked for all
# the same, by the row that was committed before; so no order waits for a disk twice
_LEAVES = """
WITH hasty AS (SELECT set_config('synchronous_commit', 'off', true))
UPDATE trade_orders SET sent_at = %(at)s FROM hasty
WHERE id = %(id)s AND status = 'SUBMITTING' AND sent_at IS NULL AND created_at > %(since)s
  AND coalesce((SELECT state FROM trading_switch WHERE id = %(switch)s), 'ACTIVE') = ANY(%(passing)s)
"""


def leaves(order: TradeOrder, *, at: datetime) -> bool:
    """Whether a committed order may go now: once, as the switch lets it pass, and by no sender that slept meanwhile.

    One statement asks and marks it, so that nothing comes between.
    """
    figures = {
        "at": at,
        "id": order.pk,
        "since": at - SEND_WITHIN,
        "switch": TradingSwitch.ONLY_PK,
        "passing": [state.value for state in TradingState if state.lets_pass(order.side)],
    }
    with connection.cursor() as cursor:
        cursor.execute(_LEAVES, figures)
        if cursor.rowcount != 1:
            return False
    order.sent_at = at
    return True


def accepted(order: TradeOrder, acceptance: Acceptance, *, at: datetime, evidence: str) -> bool:
    """Record the broker's number for an order; False when another process was first."""
    fields: dict[str, Any] = {
        "branch": acceptance.branch,
        "order_no": acceptance.order_no,
        "accepted_at": at,
        "absent_looks": 0,
        "never_arrived": False,
        "candidates": [],
    }
    if order.wait_seconds:
        fields["chase_at"] = at + timedelta(seconds=order.wait_seconds)
    return move(order, Event.ACCEPTED, at=at, detail=f"{acceptance.order_no} {evidence}", **fields)


def refused(order: TradeOrder, error: BrokerError, *, at: datetime) -> bool:
    """Record that the broker said no, or that the order surely never reached it."""
    words = f"{error.code} {error.message}".strip()
    if what := advice(error.code, error.message):
        words += f" ({gettext(what)})"
    lost = _lost(order, at) if isinstance(error, NotSent) else {}
    return move(order, Event.REFUSED, at=at, detail=words, refusal=words[:200], **lost)


def denied(order: TradeOrder, words: str, *, at: datetime) -> bool:
    """Record that a committed order was held back at the last moment: nothing was sent."""
    return move(order, Event.REFUSED, at=at, detail=words, refusal=words[:200])


def absent(order: TradeOrder, words: str, *, at: datetime) -> bool:
    """Record that an order with no answer never arrived."""
    return move(order, Event.ABSENT, at=at, detail=words, refusal=words[:200], look_wanted=False, **_lost(order, at))


def _lost(order: TradeOrder, at: datetime) -> dict[str, Any]:
    """Mark what never reached the broker. A chase goes on from there; a first order is its caller's to send again."""
    return {"never_arrived": True, "chase_at": at + LOST_PAUSE if order.root_id else None}


def unanswered(order: TradeOrder, error: BrokerError, *, at: datetime) -> bool:
    """Record that the order may or may not have arrived. It is resolved by looking, never by sending again."""
    return move(order, Event.NO_ANSWER, at=at, detail=str(error), look_wanted=True)


def move(order: TradeOrder, event: Event, *, at: datetime, detail: str = "", **fields: Any) -> bool:
    """Apply `event`; False when someone else moved the order first: read it again, decide again.

    Raises IllegalMove where the event cannot happen in the order's state.
    """
    status = lifecycle.after(order.state, event)
    # no savepoint of its own: the two stand or fall with whatever they are part of
    with transaction.atomic(savepoint=False):
        changes = {"status": status, "status_at": at, **fields}
        if not rows.update(TradeOrder, order.pk, changes, seen={"status": order.status}):
            return False
        write(order, event, detail, at=at)
    order.status, order.status_at = status, at
    for name, value in fields.items():
        setattr(order, name, value)
    return True


def note(order: TradeOrder, **fields: Any) -> None:
    """Change columns that are not the order's state, and only those."""
    rows.update(TradeOrder, order.pk, fields)
    for name, value in fields.items():
        setattr(order, name, value)


def locked(pk: int) -> TradeOrder:
    """Return an order under its row lock. Call it inside a transaction."""
    return TradeOrder.objects.select_for_update().get(pk=pk)
