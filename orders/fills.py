"""Notices of our own orders into the tables: inbox first, then one transaction for all they change.

A notice carries no number of its own and no total, and may come twice, late, early or never. So it is
counted only where it plainly can be; every doubt is left to the broker's list (`orders.reconcile`).
"""

import logging
import time
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from django.db import connection, transaction

from aegis import lifecycle
from aegis.broker import Notice, NoticeKind
from aegis.fees import calc_fill_cost
from aegis.lifecycle import Event, Status
from aegis.order_events import OrderEventKind
from aegis.requests import EndCause
from aegis.sessions import KST
from aegis.terms import Board, Instrument, Market, Side
from infra import db_limits, log_context, sql
from kis import codec
from market.models import Stock
from market.queries import canonical_codes
from orders import entry_stops, journal, requests, risk
from orders.models import RawNotice, TradeExecution, TradeOrder
from orders.order_list import same_branch
from portfolio import ledger

log = logging.getLogger(__name__)

Source = TradeExecution.Source
State = RawNotice.State


def ingest(notice: Notice, *, account: str, now: datetime, arrived: float) -> RawNotice:
    """Store a notice, then apply it; return its inbox row.

    `arrived` is the `time.perf_counter()` of its arrival. A notice of another account under the same
    HTS id is counted and not read further; its text is not kept.
    """
    foreign = notice.account != account
    raw = sql.insert(
        RawNotice(
            received_at=now,
            kind=notice.kind,
            order_date=now.astimezone(KST).date(),
            order_no=notice.order_no,
            original_no=notice.original_no,
            text="" if foreign else notice.text,
            state=State.FOREIGN if foreign else State.WAITING,
        )
    )
    if foreign:
        log.warning("a notice of another account: not ours to count")
        return raw
    if apply_notice(raw, notice, now=now):
        committed_ms = (time.perf_counter() - arrived) * 1000
        sql.update(RawNotice, raw.pk, {"committed_ms": committed_ms})
    return raw


def replay(order: TradeOrder) -> None:
    """Apply the notices that came before the order's number was known."""
    for raw in sql.find(RawNotice, _EARLY, {"day": order.order_date, "number": order.order_no}):
        _apply_late(raw, order)


_EARLY = (
    """state = 'WAITING' AND order_date = %(day)s AND (order_no = %(number)s OR original_no = %(number)s) ORDER BY id"""
)
# as `_number_of` has it
_STRANDED = f"""
    state = 'WAITING' AND EXISTS (
        SELECT FROM trade_orders
        WHERE order_date = raw_notices.order_date
          AND order_no = CASE WHEN kind = '{NoticeKind.FILLED.value}' THEN raw_notices.order_no
                              ELSE coalesce(nullif(original_no, ''), raw_notices.order_no) END)
    ORDER BY id
"""


def replay_stranded() -> None:
    """Apply the notices that still wait though their order is known: who took them in died or failed over them."""
    for raw in sql.find(RawNotice, _STRANDED, {}):
        for order in TradeOrder.objects.filter(order_date=raw.order_date, order_no=_number_of(raw)):
            _apply_late(raw, order)


def _number_of(notice: Notice | RawNotice) -> str:
    """Return the number of the order that a notice is about.

    A fill is of its own number, though the order came of an amend and the notice names the original too. A cancel,
    an amend or a refusal of one is about the original.
    """
    return notice.order_no if notice.kind == NoticeKind.FILLED else notice.original_no or notice.order_no


def _apply_late(raw: RawNotice, order: TradeOrder) -> None:
    """Apply a stored notice; one that cannot be is left to the broker's list, so that it does not wait for ever.

    Raises what `limits.AWAY` names, where it may well be applied later.
    """
    try:
        apply_notice(raw, stored_notice(raw), now=raw.received_at)
    except db_limits.AWAY:
        raise
    except Exception:  # whatever is wrong with it would be wrong the next time too
        log.exception("notice %s of order %s cannot be applied: the broker's list is asked", raw.pk, order.pk)
        _mark_for_review(raw, order)


@transaction.atomic
def _mark_for_review(raw: RawNotice, order: TradeOrder) -> None:
    journal.locked(order.pk)
    if RawNotice.objects.filter(pk=raw.pk, state=State.WAITING).update(state=State.DOUBTFUL, order=order):
        journal.request_confirmation(order)


def delete_notices_before(before: datetime, at_most: int) -> int:
    """Delete notices of before then that are of no order we know; return how many. An order's own stay with it."""
    strange = RawNotice.objects.filter(received_at__lt=before, order=None, execution=None)
    keys = list(strange.order_by("id").values_list("pk", flat=True)[:at_most])
    # one whose order was found meanwhile stays
    return RawNotice.objects.filter(pk__in=keys, order=None).delete()[0]


def stored_notice(raw: RawNotice) -> Notice:
    """Return the notice that an inbox row holds."""
    return codec.notices(codec.Data("H0STCNI0", 1, raw.text))[0]


def readable_notice(raw: RawNotice) -> Notice | None:
    """Return the notice that an inbox row holds, None for a text that cannot be parsed."""
    try:
        return stored_notice(raw)
    except codec.BadFrame:
        return None


@transaction.atomic
def apply_notice(raw: RawNotice, notice: Notice, *, now: datetime) -> bool:
    """Apply one notice under its order's lock; False while its order is not known."""
    # branches number for themselves: another's order may have the number of ours
    same = sql.select(TradeOrder, {"order_date": raw.order_date, "order_no": _number_of(notice)}, lock=True)
    newest_first = sorted(same, key=lambda each: (each.created_at, each.pk), reverse=True)
    order = _pick([each for each in newest_first if _is_of(each, notice)], notice)
    if order is None:
        return False
    # whoever changes it holds the order's lock, as we do now
    if not _waits(raw):
        return True  # another worker was first
    with log_context.order(order.pk):
        is_sure = same_branch(order.branch, notice.branch)
        state = _HANDLERS[notice.kind](order, raw, notice, now) if is_sure else _leave_to_list(order)
    raw.state, raw.order = state, order
    sql.update(RawNotice, raw.pk, {"state": state, "order": order.pk})
    return True


def _is_of(order: TradeOrder, notice: Notice) -> bool:
    if order.side is not notice.side:
        return False
    return order.stock_code == notice.code or canonical_codes({notice.code}).get(notice.code) == order.stock_code


def _pick(orders: list[TradeOrder], notice: Notice) -> TradeOrder | None:
    """Return the order of the notice's own branch, else the only other one: the list is asked then."""
    exact = [order for order in orders if same_branch(order.branch, notice.branch)]
    return next(iter(exact or orders), None)


def _leave_to_list(order: TradeOrder) -> str:
    journal.request_confirmation(order)
    return State.DOUBTFUL


def _waits(raw: RawNotice) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT state = 'WAITING' FROM raw_notices WHERE id = %s", [raw.pk])
        return bool(cursor.fetchone()[0])


def _on_fill(order: TradeOrder, raw: RawNotice, notice: Notice, now: datetime) -> str:
    if _is_doubtful(order, raw, notice):
        journal.request_confirmation(order)
        return State.DOUBTFUL
    apply_fill(order, noticed_fill(raw, notice), now=now)
    return State.APPLIED


def noticed_fill(raw: RawNotice, notice: Notice) -> "Fill":
    """Return the fill that a notice tells of."""
    return Fill(
        qty=notice.qty,
        price=Decimal(notice.price),
        amount=notice.qty * notice.price,
        executed_at=datetime.combine(raw.order_date, notice.at, KST),
        source=Source.NOTICE,
        market=notice.market,
        notice=raw,
    )


# told word for word before; or the list told of fills that no notice explained: this may be one of them, come late
_TOLD = """
    SELECT EXISTS (SELECT FROM raw_notices
                   WHERE order_id = %(order)s AND text = %(text)s AND id <> %(raw)s
                     AND state IN ('APPLIED', 'DOUBTFUL'))
        OR EXISTS (SELECT FROM trade_executions
                   WHERE order_id = %(order)s AND source = 'LIST' AND voided_at IS NULL)
"""


def _is_doubtful(order: TradeOrder, raw: RawNotice, notice: Notice) -> bool:
    """Whether this fill may have been counted already, or cannot be true."""
    if order.filled_qty + notice.qty > order.qty:
        return True
    with connection.cursor() as cursor:
        cursor.execute(_TOLD, {"order": order.pk, "text": raw.text, "raw": raw.pk})
        return bool(cursor.fetchone()[0])


def _on_cancelled(order: TradeOrder, raw: RawNotice, notice: Notice, now: datetime) -> str:
    """The cancel of `original_no`, or an immediate order's remainder: nothing is left in the book.

    A cancel of fewer shares than we hold for open is of a part, by hand, or fills of before it are still to come:
    the broker's list says which.
    """
    is_of_part = bool(notice.original_no) and 0 < notice.qty < order.open_qty
    if order.is_open and not is_of_part:
        immediate = {"end_cause": EndCause.IMMEDIATE_REMAINDER.value} if not notice.original_no else {}
        _move(order, Event.CANCELLED, now, f"notice {raw.pk}", **immediate)
    journal.request_confirmation(order)
    return State.APPLIED


def _on_refused(order: TradeOrder, raw: RawNotice, notice: Notice, now: datetime) -> str:
    """The exchange turned away the order itself, or (with an original number) our cancel of it."""
    if not notice.original_no and order.state is Status.PENDING and not order.filled_qty:
        _move(order, Event.REFUSED, now, f"notice {raw.pk}")
    else:
        journal.append_event(order, OrderEventKind.REFUSED_BY_NOTICE, f"notice {raw.pk}", at=now)
    journal.request_confirmation(order)
    return State.APPLIED


def _on_word(order: TradeOrder, raw: RawNotice, notice: Notice, now: datetime) -> str:
    """Received, or amended elsewhere: nothing to count; an amend is looked up."""
    if notice.kind is NoticeKind.AMENDED:
        journal.request_confirmation(order)
    return State.APPLIED


_HANDLERS = {
    NoticeKind.FILLED: _on_fill,
    NoticeKind.CANCELLED: _on_cancelled,
    NoticeKind.REMAINDER_CANCELLED: _on_cancelled,
    NoticeKind.REFUSED: _on_refused,
    NoticeKind.ACCEPTED: _on_word,
    NoticeKind.AMENDED: _on_word,
}


@dataclass(frozen=True, slots=True)
class Fill:
    """A fill to count: shares, won a share, won in all."""

    qty: int
    price: Decimal
    amount: int
    executed_at: datetime
    source: str
    market: Market
    notice: RawNotice | None = None


def apply_fill(order: TradeOrder, fill: Fill, *, now: datetime) -> TradeExecution:
    """Count a fill: execution, order, event and holding together. Call it under the order's lock."""
    total = order.filled_qty + fill.qty
    fee, tax = _cost(order, fill)
    average = ledger.count_fill(
        order.stock_code,
        order.stock_name,
        order.side,
        fill.qty,
        fill.price,
        executed_at=fill.executed_at,
        cost_won=fee + tax,
    )
    execution = sql.insert(
        TradeExecution(
            order=order,
            order_no=order.order_no or "",
            stock_code=order.stock_code,
            exec_qty=fill.qty,
            exec_price=fill.price,
            exec_amount=fill.amount,
            cumulative_qty=total,
            executed_at=fill.executed_at,
            recorded_at=now,
            source=fill.source,
            notice=fill.notice,
            fee=fee,
            tax=tax,
            realized_profit=realized_profit(average, fill, fee + tax) if order.side is Side.SELL else None,
        )
    )
    event = lifecycle.fill_event(total, order.qty)
    done = {"chase_at": None} if event is Event.FULLY_FILLED else {}
    _move(
        order,
        event,
        now,
        f"{fill.qty} @ {fill.price:f} ({fill.source})",
        filled_qty=total,
        filled_amount=order.filled_amount + fill.amount,
        **done,
    )
    if order.entry_stops:
        entry_stops.arm_filled(order, fill.qty, int(fill.price), at=now)
    return execution


def realized_profit(average: Decimal, fill: Fill, cost: int) -> int | None:
    """Return what a sale earned, in whole won, over the `average` price of its shares and its `cost`.

    None where nobody knows what the shares had cost. The broker leaves the buy's commission out of its average too.
    """
    return int(fill.amount - average * fill.qty - cost) if average else None


def void_fill(execution: TradeExecution, order: TradeOrder, *, now: datetime, why: str) -> None:
    """Take back a fill that was not the broker's. Call it under the order's lock."""
    execution.voided_at = now
    execution.save(update_fields=["voided_at"])
    total = order.filled_qty - execution.exec_qty
    # its chase ended with the fill that was none
    is_idle = order.state is Status.FILLED and not requests.live_changes(order)
    is_chased = is_idle and order.wait_seconds and journal.is_to_be_chased(order)
    _move(
        order,
        lifecycle.fill_event(total, order.qty),
        now,
        f"void {execution.exec_qty} @ {execution.exec_price:f}: {why}",
        filled_qty=total,
        filled_amount=order.filled_amount - execution.exec_amount,
        **({"chase_at": now} if is_chased else {}),
    )
    if order.entry_stops:
        entry_stops.disarm_voided(order, execution.exec_qty, at=now)
    ledger.count_fill(
        order.stock_code,
        order.stock_name,
        order.side,
        -execution.exec_qty,
        execution.exec_price,
        executed_at=execution.executed_at,
        cost_won=-(execution.fee + execution.tax),
    )


def _move(order: TradeOrder, event: Event, now: datetime, detail: str, **fields: object) -> None:
    """Move an order whose lock we hold."""
    if not journal.apply_event(order, event, at=now, detail=detail, **fields):
        raise RuntimeError(f"order {order.pk} moved under our lock")


def _cost(order: TradeOrder, fill: Fill) -> tuple[int, int]:
    stock = next(iter(sql.select(Stock, {"code": order.stock_code})), None)
    cost = calc_fill_cost(
        fill.amount,
        fill.market,
        order.side,
        filled_before=order.filled_amount,
        on=fill.executed_at.date(),
        board=Board(stock.board) if stock else Board.KOSPI,
        instrument=Instrument(stock.instrument) if stock else Instrument.STOCK,
        rates=risk.rates(),
    )
    return cost.fee, cost.tax
