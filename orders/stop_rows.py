"""Rows of stops. Every change of a stop's state is made here, as a compare-and-set.

`orders.stops` arms and triggers stops, `orders.stop_sale` sells for them.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from django.db.models import Q, QuerySet

from infra import sql
from orders.models import StopEvent, StopRule

State = StopRule.State
# states of stops that still guard shares, or wait for a person
LIVE = (State.ARMED, State.TRIGGERED, State.ORDERED, State.HELD_EXTERNALLY)
SELLING = (State.TRIGGERED, State.ORDERED)
_UNCLAIMED = """
    id = %(stop)s AND (claimed_until IS NULL OR claimed_until < %(now)s OR claimed_until > %(far)s)
"""


def move(row: StopRule, states: Sequence[StopRule.State], at: datetime | None = None, **fields: Any) -> bool:
    """Update a row that is in one of `states`; return False if it is not any more."""
    return _change(StopRule.objects.filter(pk=row.pk, state__in=states), at, fields)


def move_judged(row: StopRule, judged_from: datetime, at: datetime, **fields: Any) -> bool:
    """Update an armed stop, if it was neither moved nor armed again since trades counted from `judged_from`."""
    same = Q(counts_from=judged_from) | Q(counts_from=None, armed_at=judged_from)
    return _change(StopRule.objects.filter(same, pk=row.pk, state=State.ARMED), at, fields)


def move_generation(row: StopRule, at: datetime | None = None, **fields: Any) -> bool:
    """Update a stop that sells, if neither its state nor its generation has changed since it was read."""
    rows = StopRule.objects.filter(pk=row.pk, state=row.state, generation=row.generation)
    return _change(rows, at, fields)


def claim_row(pk: int, now: datetime, until: datetime) -> StopRule | None:
    """Claim a stop that no worker has claimed, and return it; None if another has.

    The statement does not wait for the disk: a claim need not survive a crash of the database. A claim that ends more
    than two claim periods from now was made before the clock was set back, and does not count.
    """
    params = {"stop": pk, "now": now, "until": until, "far": until + (until - now)}
    rows = sql.update_where(StopRule, "claimed_until = %(until)s", _UNCLAIMED, params, is_durable=False)
    return rows[0] if rows else None


def _change(rows: QuerySet[StopRule], at: datetime | None, fields: dict[str, Any]) -> bool:
    if "state" in fields:
        fields["state_at"] = at
    return (rows.update(**fields) if fields else rows.count()) == 1


def append_stop_event(row: StopRule, kind: str, detail: str, *, at: datetime) -> None:
    StopEvent.objects.create(stop_id=row.pk, kind=kind, detail=detail[:300], at=at)
