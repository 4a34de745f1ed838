"""Writes notices of our own orders to the tables: the inbox first, then one transaction for all their changes.

A notice has no number of its own and no total, and may arrive twice, late, early or never. So a fill is counted only if
it is certain; in doubt the broker's list decides (`orders.reconcile`).
"""

import logging
import time
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from django.db import connection, transaction
from django.db.models import Q

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

    `arrived` is the `time.perf_counter()` of its arrival. A notice of another account under the same HTS id gets a row
    without its text, and is not applied.
    """
    is_foreign = notice.account != account
    raw = sql.insert(
        RawNotice(
            received_at=now,
            kind=notice.kind,
            order_date=now.astimezone(KST).date(),
            order_no=notice.order_no,
            original_no=notice.original_no,
            text="" if is_foreign else notice.text,
            state=State.FOREIGN if is_foreign else State.WAITING,
        ),
        # the commit of the fill waits for the disk; a notice that a crash takes before is in the order list
        is_durable=False,
    )
    if is_foreign:
        log.warning("a notice of another account is not counted")
        return raw
    if apply_notice(raw, notice, now=now):
        committed_ms = (time.perf_counter() - arrived) * 1000
        sql.update(RawNotice, raw.pk, {"committed_ms": committed_ms})
    return raw


def replay(order: TradeOrder) -> None:
    """Apply the notices that arrived before the order's number was known."""
    names_it = Q(order_no=order.order_no) | Q(original_no=order.order_no)
    waiting = RawNotice.objects.filter(names_it, state=RawNotice.State.WAITING, order_date=order.order_date)
    for raw in waiting.order_by("id"):
        _apply_late(raw, order)


# finds an order by the same rule as `_number_of`
_STRANDED = f"""
    state = 'WAITING' AND EXISTS (
        SELECT FROM trade_orders
        WHERE order_date = raw_notices.order_date
          AND order_no = CASE WHEN kind = '{NoticeKind.FILLED.value}' THEN raw_notices.order_no
                              ELSE coalesce(nullif(original_no, ''), raw_notices.order_no) END)
    ORDER BY id
"""


def replay_stranded() -> None:
    """Apply the notices that still wait though their order is known: the process that stored them died or failed."""
    for raw in sql.find(RawNotice, _STRANDED, {}):
        for order in TradeOrder.objects.filter(order_date=raw.order_date, order_no=_number_of(raw)):
            _apply_late(raw, order)


def _number_of(notice: Notice | RawNotice) -> str:
    """Return the number of the order that a notice is about.

    A fill is about its own number, even if an amend created the order and the notice names the original too. A cancel,
    an amend, or the refusal of one is about the original.
    """
    return notice.order_no if notice.kind == NoticeKind.FILLED else notice.original_no or notice.order_no


def _apply_late(raw: RawNotice, order: TradeOrder) -> None:
    """Apply a stored notice. If that fails, the broker's list decides, so that the notice does not wait for ever.

    Raises the errors in `db_limits.CONNECTION_ERRORS`: after these the notice may be applied later.
    """
    try:
        apply_notice(raw, stored_notice(raw), now=raw.received_at)
    except db_limits.CONNECTION_ERRORS:
        raise
    except Exception:  # any other error would occur again the next time
        log.exception("notice %s of order %s cannot be applied: the broker's list is asked", raw.pk, order.pk)
        _mark_for_review(raw, order)


@transaction.atomic
def _mark_for_review(raw: RawNotice, order: TradeOrder) -> None:
    journal.locked(order.pk)
    if RawNotice.objects.filter(pk=raw.pk, state=State.WAITING).update(state=State.DOUBTFUL, order=order):
        journal.request_confirmation(order)


def delete_notices_before(before: datetime, at_most: int) -> int:
    """Delete up to `at_most` notices received before `before` without a known order; return how many were deleted."""
    unmatched = RawNotice.objects.filter(received_at__lt=before, order=None, execution=None)
    keys = list(unmatched.order_by("id").values_list("pk", flat=True)[:at_most])
    # a notice whose order was found meanwhile stays
    return RawNotice.objects.filter(pk__in=keys, order=None).delete()[0]


def stored_notice(raw: RawNotice) -> Notice:
    """Return the notice that is stored in an inbox row."""
    return codec.notices(codec.Data("H0STCNI0", 1, raw.text))[0]


def readable_notice(raw: RawNotice) -> Notice | None:
    """Return the notice that is stored in an inbox row, None for a text that cannot be parsed."""
    try:
        return stored_notice(raw)
    except codec.BadFrame:
        return None


@transaction.atomic
def apply_notice(raw: RawNotice, notice: Notice, *, now: datetime) -> bool:
    """Apply one notice under its order's lock; return False while its order is not known."""
    # each branch has its own numbers: an order of another branch may have the same number
    orders = sql.select(TradeOrder, {"order_date": raw.order_date, "order_no": _number_of(notice)}, lock=True)
    newest_first = sorted(orders, key=lambda candidate: (candidate.created_at, candidate.pk), reverse=True)
    order = _pick([candidate for candidate in newest_first if _is_of(candidate, notice)], notice)
    if order is None:
        return False
    # a notice changes only under its order's lock, which is held here
    if not _waits(raw):
        return True  # another worker was first
    with log_context.order_context(order.pk):
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
    """Return the order of the notice's own branch, else the newest of the others: then the list decides."""
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
    """Return the fill that a notice reports."""
    return Fill(
        qty=notice.qty,
        price=Decimal(notice.price),
        amount=notice.qty * notice.price,
        executed_at=datetime.combine(raw.order_date, notice.at, KST),
        source=Source.NOTICE,
        market=notice.market,
        notice=raw,
    )


# a notice has the same text; or the list had fills that no notice explained, and this notice may be of one, but late
_MAY_BE_COUNTED = """
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
        cursor.execute(_MAY_BE_COUNTED, {"order": order.pk, "text": raw.text, "raw": raw.pk})
        return bool(cursor.fetchone()[0])


def _on_cancelled(order: TradeOrder, raw: RawNotice, notice: Notice, now: datetime) -> str:
    """Handle the cancel of `original_no` or of an immediate order's remainder: nothing rests in the book any more.

    If fewer shares are cancelled than we count as open, it is an external cancel of a part, or earlier fills are still
    to be reported: the broker's list decides.
    """
    is_of_part = bool(notice.original_no) and 0 < notice.qty < order.open_qty
    if order.is_open and not is_of_part:
        immediate = {"end_cause": EndCause.IMMEDIATE_REMAINDER.value} if not notice.original_no else {}
        _move(order, Event.CANCELLED, now, f"notice {raw.pk}", **immediate)
    journal.request_confirmation(order)
    return State.APPLIED


def _on_refused(order: TradeOrder, raw: RawNotice, notice: Notice, now: datetime) -> str:
    """Handle the exchange's refusal of the order itself, or (with an original number) of our cancel of it."""
    if not notice.original_no and order.state is Status.PENDING and not order.filled_qty:
        _move(order, Event.REFUSED, now, f"notice {raw.pk}")
    else:
        journal.append_event(order, OrderEventKind.REFUSED_BY_NOTICE, f"notice {raw.pk}", at=now)
    journal.request_confirmation(order)
    return State.APPLIED


def _on_acknowledged(order: TradeOrder, raw: RawNotice, notice: Notice, now: datetime) -> str:
    """Handle an acceptance or an amend from elsewhere: nothing is counted; an amend is looked up in the list."""
    if notice.kind is NoticeKind.AMENDED:
        journal.request_confirmation(order)
    return State.APPLIED


_HANDLERS = {
    NoticeKind.FILLED: _on_fill,
    NoticeKind.CANCELLED: _on_cancelled,
    NoticeKind.REMAINDER_CANCELLED: _on_cancelled,
    NoticeKind.REFUSED: _on_refused,
    NoticeKind.ACCEPTED: _on_acknowledged,
    NoticeKind.AMENDED: _on_acknowledged,
}


@dataclass(frozen=True, slots=True)
class Fill:
    """A fill to count: shares, won per share, won in total."""

    qty: int
    price: Decimal
    amount: int
    executed_at: datetime
    source: str
    market: Market
    notice: RawNotice | None = None


def apply_fill(order: TradeOrder, fill: Fill, *, now: datetime) -> TradeExecution:
    """Count a fill in the execution, order, event and holding together. Call it under the order's lock."""
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
    chase_fields = {"chase_at": None} if event is Event.FULLY_FILLED else {}
    _move(
        order,
        event,
        now,
        f"{fill.qty} @ {fill.price:f} ({fill.source})",
        filled_qty=total,
        filled_amount=order.filled_amount + fill.amount,
        **chase_fields,
    )
    if order.entry_stops:
        entry_stops.arm_filled(order, fill.qty, int(fill.price), at=now)
    return execution


def realized_profit(average: Decimal, fill: Fill, cost: int) -> int | None:
    """Return a sale's profit in whole won: its amount minus the `average` price of its shares and minus its `cost`.

    None if the average price is not known. The average leaves out the buy's commission, as the broker's does.
    """
    return int(fill.amount - average * fill.qty - cost) if average else None


def void_fill(execution: TradeExecution, order: TradeOrder, *, now: datetime, why: str) -> None:
    """Take back a fill that the broker does not have. Call it under the order's lock."""
    execution.voided_at = now
    execution.save(update_fields=["voided_at"])
    total = order.filled_qty - execution.exec_qty
    # the order's chase ended with the fill that is taken back
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


def _move(order: TradeOrder, event: Event, now: datetime, detail: str, **fields: Any) -> None:
    """Apply an event to an order whose lock is held."""
    if not journal.apply_event(order, event, at=now, detail=detail, **fields):
        raise RuntimeError(f"order {order.pk} moved under our lock")


def _cost(order: TradeOrder, fill: Fill) -> tuple[int, int]:
    rows = sql.query("SELECT board, instrument FROM stocks WHERE code = %(code)s", {"code": order.stock_code})
    board, instrument = rows[0] if rows else (Board.KOSPI, Instrument.STOCK)
    cost = calc_fill_cost(
        fill.amount,
        fill.market,
        order.side,
        filled_before=order.filled_amount,
        on=fill.executed_at.date(),
        board=Board(board),
        instrument=Instrument(instrument),
        rates=risk.rates(),
    )
    return cost.fee, cost.tax
