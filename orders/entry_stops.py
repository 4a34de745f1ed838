"""Stops attached to an order: armed in each fill's own transaction, for the shares that were filled.

The order's row stores the stops to arm. No second confirmation is needed: a stop that a fill arms may trigger at once.
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
from orders.stop_rows import SELLING, State, append_stop_event, move
from portfolio.models import PortfolioEvent

ARMED_BY = "entry order #{order}"


def to_json(stops: Sequence[EntryStop], atr: Decimal) -> list[dict[str, str]]:
    """Return the form in which an order's row stores its stops; `atr` in won, 0 if no stop has that unit."""
    return [
        {"kind": stop.kind.value, "unit": stop.unit.value, "value": f"{stop.value:f}", "atr": f"{atr:f}"}
        for stop in stops
    ]


def arm_filled(order: TradeOrder, qty: int, price: int, *, at: datetime) -> None:
    """Arm an order's stops for `qty` more shares that were filled at `price` won. Call it in the fill's transaction."""
    for stop in order.entry_stops:
        row = _rows(order, stop, [State.ARMED]).select_for_update().first()
        if row is not None:
            move(row, [State.ARMED], quantity=F("quantity") + qty)
        else:
            row = _new_row(order, stop, qty, price, at)
            row.save(force_insert=True)
        append_stop_event(row, StopEventKind.ARMED, f"+{qty:,} ({row.armed_by})", at=at)


def disarm_voided(order: TradeOrder, qty: int, *, at: datetime) -> None:
    """Take back what a voided fill of `qty` shares armed, from the newest row of each stop first."""
    for stop in order.entry_stops:
        remaining_qty = qty
        for row in _rows(order, stop, [State.ARMED, *SELLING]).select_for_update():
            row_qty = min(remaining_qty, row.quantity or 0)
            if row_qty:
                _take_back(row, row_qty, at)
            remaining_qty -= row_qty


def _take_back(row: StopRule, qty: int, at: datetime) -> None:
    rest_qty = (row.quantity or 0) - qty
    fields: dict[str, Any] = {"quantity": rest_qty} if rest_qty > 0 else {"state": State.DISARMED, "try_at": None}
    move(row, [State.ARMED, *SELLING], at=at, **fields)
    append_stop_event(
        row, StopEventKind.ARMED if rest_qty > 0 else StopEventKind.DISARMED, f"-{qty:,} ({row.armed_by})", at=at
    )


def _rows(order: TradeOrder, stop: dict[str, Any], states: Sequence[StopRule.State]) -> Any:
    terms = {"kind": stop["kind"], "unit": stop["unit"], "value": Decimal(stop["value"])}
    return StopRule.objects.filter(entry_id=order.root_pk, state__in=states, **terms)


def _new_row(order: TradeOrder, stop: dict[str, Any], qty: int, price: int, at: datetime) -> StopRule:
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
