"""Stops attached to an order: armed in each fill's own transaction, for the shares that were filled.

The order's row keeps what to arm. It needs no second confirmation: a stop that a fill arms may trigger at once.
"""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db.models import F

from aegis.order_events import StopEventKind
from aegis.stops import StopUnit
from orders.intents import EntryStop
from orders.models import StopRule, TradeOrder
from orders.stop_rows import SELLING, State, append_event, move
from portfolio.models import PortfolioEvent

ARMED_BY = "entry order #{order}"


def as_stored(stops: Sequence[EntryStop], atr: Decimal) -> list[dict[str, str]]:
    """Return what an order's row keeps of its stops; `atr` in won, 0 if no stop is measured by it."""
    return [
        {"kind": each.kind.value, "unit": each.unit.value, "value": f"{each.value:f}", "atr": f"{atr:f}"}
        for each in stops
    ]


def arm_filled(order: TradeOrder, qty: int, price: int, *, at: datetime) -> None:
    """Arm an order's stops for `qty` more shares that were filled at `price` won. Call it in the fill's transaction."""
    for stop in order.entry_stops:
        row = _of(order, stop, [State.ARMED]).select_for_update().first()
        if row is not None:
            move(row, [State.ARMED], quantity=F("quantity") + qty)
        else:
            row = _new(order, stop, qty, price, at)
            row.save(force_insert=True)
        append_event(row, StopEventKind.ARMED, f"+{qty:,} ({row.armed_by})", at=at)


def disarm_voided(order: TradeOrder, qty: int, *, at: datetime) -> None:
    """Take back what a fill armed that was none, first from the newest of the rows that a stop has."""
    for stop in order.entry_stops:
        rest = qty
        for row in _of(order, stop, [State.ARMED, *SELLING]).select_for_update():
            taken = min(rest, row.quantity or 0)
            if taken:
                _take_back(row, taken, at)
            rest -= taken


def _take_back(row: StopRule, qty: int, at: datetime) -> None:
    left = (row.quantity or 0) - qty
    fields: dict[str, Any] = {"quantity": left} if left > 0 else {"state": State.DISARMED, "try_at": None}
    move(row, [State.ARMED, *SELLING], at=at, **fields)
    append_event(row, StopEventKind.ARMED if left > 0 else StopEventKind.DISARMED, f"-{qty:,} ({row.armed_by})", at=at)


def _of(order: TradeOrder, stop: dict[str, Any], states: Sequence[StopRule.State]) -> Any:
    same = {"kind": stop["kind"], "unit": stop["unit"], "value": Decimal(stop["value"])}
    return StopRule.objects.filter(entry_id=order.root_pk, state__in=states, **same)


def _new(order: TradeOrder, stop: dict[str, Any], qty: int, price: int, at: datetime) -> StopRule:
    newest = PortfolioEvent.objects.filter(stock_code=order.stock_code).order_by("-id").first()
    return StopRule(
        stock_code=order.stock_code,
        stock_name=order.stock_name,
        kind=stop["kind"],
        unit=stop["unit"],
        value=Decimal(stop["value"]),
        atr=Decimal(stop["atr"]) if stop["unit"] == StopUnit.ATR else Decimal(0),
        high=price,
        quantity=qty,
        entry_id=order.root_pk,
        state=State.ARMED,
        state_at=at,
        armed_at=at,
        armed_by=ARMED_BY.format(order=order.root_pk),
        counts_from=at,
        based_on=order.order_date,
        adjusted_through=newest.pk if newest else 0,
    )
