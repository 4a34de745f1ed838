"""Rows as JSON: the shapes that commands print and tasks return. What they hold is promised in docs/commands.md.

Whole won and shares are numbers, figures with decimals are text, moments are ISO 8601 in Korean time.
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
    """An order. `price` is 0 if it names none; `root` is the order it chases for, null for a first one.

    `strategy` is its pricing style, `strategy_id` the caller's own text. `replaces` is the order that an amend moved to
    this one. `withdrawn_qty` shares of it were cancelled or amended away while it was open; `end_cause` says what ended
    it. `missing_since`: the broker's list lacks it; `unlisted_since`: the list lacks fills that a notice told of;
    `cancel_wanted_at`: its cancel was requested, which proves nothing while it is open.
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
    """A fill. `source` says who told of it first, a notice or the broker's list; `voided_at` that it was not true."""

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
    """An order that was judged and priced, and not sent. `cost` is what the broker would hold back, in won.

    `changed` says why it would go as another kind than was asked for, empty where it would not.
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
    """The kill switch after it was turned."""

    state: str
    from_state: str
    reason: str
    by: str
    at: str


class StopShape(TypedDict):
    """A stop. `limit` is where it fires now, in won, 0 without shares; `order` what it sold with, null before.

    `quantity` in shares, null for the whole holding. `sources` are the venues whose trades may trigger it.
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
    """How far from a benchmark: ticks and basis points a share, won in all. Positive: it cost money."""

    ticks: str
    bp: str
    won: int


class FamilyShape(TypedDict):
    """One intent with its re-orders, and how well it was executed; null where nothing is filled."""

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
    """A line of the savings table; `style` is empty for all of them. Percentages are positive where money was saved."""

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
    """An open order by the broker's own list; `qty` shares are open, `order` is our own number of it, null without."""

    order: int | None
    order_no: str
    order_date: str
    branch: str
    market: str
    code: str
    side: str
    qty: int


class CancelAllResultShape(TypedDict):
    """What became of everything that was open, by order number.

    `cancelled`: the broker's list no longer shows them. `unconfirmed`: the cancel was sent, and the list still shows
    them or could not be read. `left` are external orders, left alone.
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


def plan(each: Plan) -> PlanShape:
    return {
        "wait_seconds": each.wait_seconds,
        "max_retries": each.max_retries,
        "step_ticks": each.step_ticks,
        "market_after": each.market_after,
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
        "cancel_wanted_at": moment(row.cancel_wanted_at),
        "missing_since": moment(row.missing_since),
        "unlisted_since": moment(row.unlisted_since),
        "chase": plan(row.plan),
        "chase_at": moment(row.chase_at),
        "chase_note": row.chase_note,
        "created_at": _moment(row.created_at),
        "status_at": _moment(row.status_at),
    }


def candidate(each: dict[str, Any]) -> CandidateShape:
    return {
        "order_no": each["order_no"],
        "branch": each["branch"],
        "market": each["market"],
        "placed_at": each["placed_at"],
        "qty": each["qty"],
        "price": each["price"],
        "filled_qty": each["filled_qty"],
        "open_qty": each["open_qty"],
        "cancelled_qty": each["cancelled_qty"],
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


def draft(each: PricedOrder) -> DraftShape:
    request = each.request
    return {
        "code": request.code,
        "name": each.stock.name,
        "side": request.side.value,
        "market": request.market.value,
        "kind": request.kind.value,
        "strategy": each.strategy,
        "strategy_id": each.strategy_id,
        "tick_offset": each.tick_offset,
        "qty": request.qty,
        "price": request.price if request.kind.is_priced else 0,
        "trigger": request.trigger,
        "last_price": each.quote.price,
        "cost": each.cost_won,
        "changed": risk.say(each.changed) if each.changed else "",
        "chase": plan(each.plan),
    }


def reason(each: Denial) -> ReasonShape:
    return {"code": each.code, "message": risk.say(each)}


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


def open_order(each: OpenOrder, row: TradeOrder | None) -> OpenOrderShape:
    placed = each.placed
    return {
        "order": row.pk if row else None,
        "order_no": placed.order_no,
        "order_date": placed.order_date.isoformat(),
        "branch": placed.branch,
        "market": placed.market.value,
        "code": each.code,
        "side": each.side.value,
        "qty": each.qty,
    }


def swept(each: CancelAllResult) -> CancelAllResultShape:
    return {
        "cancelled": each.cancelled,
        "unconfirmed": [{"order_no": number, "message": why} for number, why in each.unconfirmed.items()],
        "failed": [{"order_no": number, "message": why} for number, why in each.failed.items()],
        "left": each.left,
        "unseen": each.unseen,
    }


def gap(each: Gap) -> GapShape:
    return {"ticks": f"{each.ticks:f}", "bp": f"{each.bp:f}", "won": each.won}


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


def savings(each: Savings) -> SavingsShape:
    return {
        "style": each.style,
        "families": each.families,
        "filled_families": each.filled_families,
        "estimated": each.estimated,
        "fill_pct": f"{each.fill_pct:f}",
        "turnover_won": each.turnover_won,
        "fees_won": each.fees_won,
        "arrival_pct": f"{each.arrival_pct:f}",
        "market_pct": f"{each.market_pct:f}",
        "saved_won": each.saved_won,
        "yearly_usual_won": each.yearly_usual_won,
        "yearly_own_won": each.yearly_own_won,
    }


def stop(row: StopRule) -> StopShape:
    return {
        "id": row.pk,
        "code": row.stock_code,
        "name": row.stock_name,
        "kind": str(row.kind),
        "unit": str(row.unit),
        "value": f"{row.value.normalize():f}",
        "quantity": row.quantity,
        "limit": stops.limit(row),
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
