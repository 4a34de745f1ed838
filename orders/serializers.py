"""Rows as JSON: the shapes that commands print and tasks return. docs/commands.md documents them as stable.

Whole won and shares are numbers, decimals are text, and times are ISO 8601 in Korean time.
"""

from datetime import datetime
from decimal import Decimal
from typing import Any, TypedDict

from aegis.broker import OpenOrder
from aegis.chase import Plan
from aegis.denials import Denial
from aegis.execution_quality import Gap, Savings
from aegis.sessions import KST
from orders import risk, stops
from orders.execution_quality import QualityLine
from orders.models import OrderEvent, StopRule, SwitchChange, TradeExecution, TradeOrder
from orders.service import CancelAllResult, PricedOrder
from portfolio.models import AccountSnapshot, Portfolio


class PlanShape(TypedDict):
    wait_seconds: float
    max_retries: int
    step_ticks: int
    market_after: bool


class OrderShape(TypedDict):
    """An order. `price` is in won, 0 if it has none. `root` is the first order of its family, null for that order.

    `strategy` is its pricing style, `strategy_id` the caller's own text. `replaces` is the original order, if an amend
    produced this one. `withdrawn_qty` shares were cancelled or amended away while it was open; `end_cause` is the end
    cause. `missing_since`: the broker's list lacks it. `unlisted_since`: the list lacks fills that a notice reported.
    `cancel_wanted_at`: its cancel was requested; while it is open, that does not mean that it is cancelled.
    """

    id: int
    request_id: str
    root: int | None
    attempt: int
    origin: str
    code: str
    name: str
    side: str
    market: str
    kind: str
    strategy: str
    strategy_id: str
    tick_offset: int | None
    replaces: int | None
    qty: int
    price: int
    trigger: int
    arrival_price: int
    status: str
    order_date: str
    order_no: str | None
    filled_qty: int
    filled_amount: int
    average_fill: str | None
    withdrawn_qty: int
    end_cause: str
    refusal: str
    cancel_wanted_at: str | None
    missing_since: str | None
    unlisted_since: str | None
    chase: PlanShape
    chase_at: str | None
    chase_note: str
    created_at: str
    status_at: str


class CandidateShape(TypedDict):
    order_no: str
    branch: str
    market: str
    placed_at: str
    qty: int
    price: int
    filled_qty: int
    open_qty: int
    cancelled_qty: int


class EventShape(TypedDict):
    at: str
    kind: str
    detail: str


class ExecutionShape(TypedDict):
    """A fill. `source` is its first source, a notice or the broker's list; `voided_at` is set if it was not true."""

    id: int
    order: int
    order_no: str
    code: str
    name: str
    side: str
    strategy_id: str
    qty: int
    price: str
    amount: int
    cumulative_qty: int
    fee: int
    tax: int
    realized_profit: int | None
    source: str
    executed_at: str
    voided_at: str | None


class DraftShape(TypedDict):
    """An order that was priced and checked, and not sent. `cost` is the cash that the broker would reserve, in won.

    `changed` says why its kind differs from the intent's, empty if it does not.
    """

    code: str
    name: str
    side: str
    market: str
    kind: str
    strategy: str
    strategy_id: str
    tick_offset: int | None
    qty: int
    price: int
    trigger: int
    last_price: int
    cost: int
    changed: str
    chase: PlanShape


class ReasonShape(TypedDict):
    code: str
    message: str


class HoldingShape(TypedDict):
    code: str
    name: str
    qty: int
    average_price: str
    price: int
    profit_rate: str


class AccountShape(TypedDict):
    at: str
    deposit: int
    deposit_d1: int
    deposit_d2: int
    valuation: int
    total_asset: int
    net_profit_today: int


class SwitchShape(TypedDict):
    """A change of the trading state."""

    state: str
    from_state: str
    reason: str
    by: str
    at: str


class StopShape(TypedDict):
    """A stop. `limit` is the price, in won, that triggers it now, 0 without shares. `order` is its sale, null before.

    `quantity` is in shares, null for the whole holding. `sources` are the venues whose trades may trigger it.
    """

    id: int
    code: str
    name: str
    kind: str
    unit: str
    value: str
    quantity: int | None
    limit: int
    high: int
    state: str
    state_at: str
    armed_by: str
    trigger_price: int
    order: int | None
    is_silent: bool
    sources: list[str]
    note: str


class GapShape(TypedDict):
    """The distance from a benchmark: in ticks and basis points per share, and in won in total. Positive is a cost."""

    ticks: str
    bp: str
    won: int


class FamilyShape(TypedDict):
    """One order family and its execution quality; the quality fields are null if nothing is filled."""

    order: int
    code: str
    name: str
    side: str
    style: str
    order_date: str
    retries: int
    asked_qty: int
    filled_qty: int
    arrival_price: int
    average: str | None
    market_price: str | None
    is_estimated: bool | None
    against_arrival: GapShape | None
    against_market: GapShape | None
    fee: int
    tax: int


class SavingsShape(TypedDict):
    """A line of the savings table; `style` is empty in the line of the total. Positive percentages are savings."""

    style: str
    families: int
    filled_families: int
    estimated: int
    fill_pct: str
    turnover_won: int
    fees_won: int
    arrival_pct: str
    market_pct: str
    saved_won: int
    yearly_usual_won: int
    yearly_own_won: int


class OpenOrderShape(TypedDict):
    """An open order by the broker's own list. `qty` shares are open; `order` is the key of our row, null if none."""

    order: int | None
    order_no: str
    order_date: str
    branch: str
    market: str
    code: str
    side: str
    qty: int


class CancelAllResultShape(TypedDict):
    """The result for every order that was open, by order number.

    `cancelled`: the broker's list no longer shows them as open. `unconfirmed`: the cancel was sent, and the list still
    shows them or could not be read. `failed`: the cancel failed, with the reason. `left` are external orders that were
    not cancelled. `unseen` says why not all open orders are known, empty if they are.
    """

    cancelled: list[str]
    unconfirmed: list[dict[str, str]]
    failed: list[dict[str, str]]
    left: list[str]
    unseen: str


def moment(at: datetime | None) -> str | None:
    return at.astimezone(KST).isoformat(timespec="milliseconds") if at else None


def _moment(at: datetime) -> str:
    return at.astimezone(KST).isoformat(timespec="milliseconds")


def _text(figure: Decimal | None) -> str | None:
    return f"{figure:f}" if figure is not None else None


def plan(chase_plan: Plan) -> PlanShape:
    return {
        "wait_seconds": chase_plan.wait_seconds,
        "max_retries": chase_plan.max_retries,
        "step_ticks": chase_plan.step_ticks,
        "market_after": chase_plan.market_after,
    }


def order(row: TradeOrder) -> OrderShape:
    average = row.average_fill
    return {
        "id": row.pk,
        "request_id": row.request_id,
        "root": row.root_id,
        "attempt": row.attempt,
        "origin": str(row.origin),
        "code": row.stock_code,
        "name": row.stock_name,
        "side": str(row.order_type),
        "market": str(row.market),
        "kind": str(row.order_kind),
        "strategy": row.strategy,
        "strategy_id": row.strategy_id,
        "tick_offset": row.tick_offset,
        "replaces": row.replaces_id,
        "qty": row.qty,
        "price": row.price,
        "trigger": row.trigger_price,
        "arrival_price": row.arrival_price,
        "status": str(row.status),
        "order_date": row.order_date.isoformat(),
        "order_no": row.order_no,
        "filled_qty": row.filled_qty,
        "filled_amount": row.filled_amount,
        "average_fill": _text(average.quantize(Decimal("0.0001"))) if average is not None else None,
        "withdrawn_qty": row.withdrawn_qty,
        "end_cause": str(row.end_cause),
        "refusal": row.refusal,
        "cancel_wanted_at": moment(row.cancel_requested_at),
        "missing_since": moment(row.missing_since),
        "unlisted_since": moment(row.unlisted_since),
        "chase": plan(row.plan),
        "chase_at": moment(row.chase_at),
        "chase_note": row.chase_note,
        "created_at": _moment(row.created_at),
        "status_at": _moment(row.status_at),
    }


def candidate(fields: dict[str, Any]) -> CandidateShape:
    return {
        "order_no": fields["order_no"],
        "branch": fields["branch"],
        "market": fields["market"],
        "placed_at": fields["placed_at"],
        "qty": fields["qty"],
        "price": fields["price"],
        "filled_qty": fields["filled_qty"],
        "open_qty": fields["open_qty"],
        "cancelled_qty": fields["cancelled_qty"],
    }


def event(row: OrderEvent) -> EventShape:
    return {"at": _moment(row.at), "kind": row.kind, "detail": row.detail}


def execution(row: TradeExecution) -> ExecutionShape:
    """`row.order` is read: fetch it with the row."""
    return {
        "id": row.pk,
        "order": row.order_id,
        "order_no": row.order_no,
        "code": row.stock_code,
        "name": row.order.stock_name,
        "side": str(row.order.order_type),
        "strategy_id": row.order.strategy_id,
        "qty": row.exec_qty,
        "price": f"{row.exec_price:f}",
        "amount": row.exec_amount,
        "cumulative_qty": row.cumulative_qty,
        "fee": row.fee,
        "tax": row.tax,
        "realized_profit": row.realized_profit,
        "source": str(row.source),
        "executed_at": _moment(row.executed_at),
        "voided_at": moment(row.voided_at),
    }


def priced_order(priced: PricedOrder) -> DraftShape:
    request = priced.request
    return {
        "code": request.code,
        "name": priced.stock.name,
        "side": request.side.value,
        "market": request.market.value,
        "kind": request.kind.value,
        "strategy": priced.strategy,
        "strategy_id": priced.strategy_id,
        "tick_offset": priced.tick_offset,
        "qty": request.qty,
        "price": request.price if request.kind.is_priced else 0,
        "trigger": request.trigger,
        "last_price": priced.quote.price,
        "cost": priced.cost_won,
        "changed": risk.denial_text(priced.changed) if priced.changed else "",
        "chase": plan(priced.plan),
    }


def reason(denial: Denial) -> ReasonShape:
    return {"code": denial.code, "message": risk.denial_text(denial)}


def holding(row: Portfolio) -> HoldingShape:
    return {
        "code": row.stock_code,
        "name": row.stock_name,
        "qty": row.quantity,
        "average_price": f"{row.avg_price:f}",
        "price": row.current_price,
        "profit_rate": f"{row.profit_rate:f}",
    }


def account(row: AccountSnapshot) -> AccountShape:
    return {
        "at": _moment(row.timestamp),
        "deposit": row.deposit,
        "deposit_d1": row.deposit_d1,
        "deposit_d2": row.deposit_d2,
        "valuation": row.valuation,
        "total_asset": row.total_asset,
        "net_profit_today": row.net_profit_today,
    }


def open_order(item: OpenOrder, row: TradeOrder | None) -> OpenOrderShape:
    ref = item.placed
    return {
        "order": row.pk if row else None,
        "order_no": ref.order_no,
        "order_date": ref.order_date.isoformat(),
        "branch": ref.branch,
        "market": ref.market.value,
        "code": item.code,
        "side": item.side.value,
        "qty": item.qty,
    }


def swept(result: CancelAllResult) -> CancelAllResultShape:
    return {
        "cancelled": result.cancelled,
        "unconfirmed": [{"order_no": number, "message": why} for number, why in result.unconfirmed.items()],
        "failed": [{"order_no": number, "message": why} for number, why in result.failed.items()],
        "left": result.left,
        "unseen": result.unseen,
    }


def gap(distance: Gap) -> GapShape:
    return {"ticks": f"{distance.ticks:f}", "bp": f"{distance.bp:f}", "won": distance.won}


def family(line: QualityLine) -> FamilyShape:
    figures, measured = line.family, line.quality
    return {
        "order": line.root.pk,
        "code": line.root.stock_code,
        "name": line.root.stock_name,
        "side": figures.side.value,
        "style": figures.style,
        "order_date": figures.on.isoformat(),
        "retries": line.retries,
        "asked_qty": figures.asked_qty,
        "filled_qty": figures.filled_qty,
        "arrival_price": figures.arrival_price,
        "average": f"{measured.average:.4f}" if measured else None,
        "market_price": f"{measured.market_price:.4f}" if measured else None,
        "is_estimated": measured.is_estimated if measured else None,
        "against_arrival": gap(measured.against_arrival) if measured else None,
        "against_market": gap(measured.against_market) if measured else None,
        "fee": figures.fees,
        "tax": figures.tax,
    }


def savings(line: Savings) -> SavingsShape:
    return {
        "style": line.style,
        "families": line.families,
        "filled_families": line.filled_families,
        "estimated": line.estimated,
        "fill_pct": f"{line.fill_pct:f}",
        "turnover_won": line.turnover_won,
        "fees_won": line.fees_won,
        "arrival_pct": f"{line.arrival_pct:f}",
        "market_pct": f"{line.market_pct:f}",
        "saved_won": line.saved_won,
        "yearly_usual_won": line.yearly_usual_won,
        "yearly_own_won": line.yearly_own_won,
    }


def stop_rule(row: StopRule) -> StopShape:
    return {
        "id": row.pk,
        "code": row.stock_code,
        "name": row.stock_name,
        "kind": str(row.kind),
        "unit": str(row.unit),
        "value": f"{row.value.normalize():f}",
        "quantity": row.quantity,
        "limit": stops.current_limit(row),
        "high": row.high,
        "state": str(row.state),
        "state_at": _moment(row.state_at),
        "armed_by": row.armed_by,
        "trigger_price": row.trigger_price,
        "order": row.order_id,
        "is_silent": row.is_silent,
        "sources": sorted(venue.value for venue in row.venues),
        "note": row.note,
    }


def turned(change: SwitchChange) -> SwitchShape:
    return {
        "state": str(change.to_state),
        "from_state": str(change.from_state),
        "reason": change.reason,
        "by": change.by,
        "at": _moment(change.at),
    }
