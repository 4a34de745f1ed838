"""Drives every requested cancel until the broker's list confirms it, and reports those that stay unconfirmed."""

import logging
from collections.abc import Callable
from datetime import datetime

from django.db import transaction

from aegis.broker import Broker, BrokerError
from aegis.lifecycle import OPEN, UNANSWERED
from aegis.order_events import OrderEventKind
from aegis.requests import CANCEL_BACKOFF_MAX, CANCEL_REPORT_AFTER, RequestedBy, RequestKind, resend_after
from aegis.sessions import KST
from aegis.trading_state import TradingState
from infra import log_context, sql
from orders import journal, reconcile, settle
from orders.cancel import Canceller
from orders.models import TradeOrder, TradingSwitch

log = logging.getLogger(__name__)

UNCONFIRMED = OrderEventKind.CANCEL_UNCONFIRMED
AUTOMATIC = (RequestedBy.CHASE, RequestedBy.STOP)
# a running chase drives its own cancel, and does not report it
_IS_CHASED = f"(chase_at IS NOT NULL AND cancel_requested_by = '{RequestedBy.CHASE.value}')"


# a due time that is too far ahead was set before the clock was put back
_IS_DUE = "(cancel_due_at <= %(now)s OR cancel_due_at > %(too_far)s)"
_DUE = f"""
    SELECT id FROM trade_orders
    WHERE cancel_due_at IS NOT NULL AND order_date = %(today)s AND status NOT IN ({sql.literals(UNANSWERED)})
      AND CASE WHEN {_IS_CHASED} THEN
              status IN ({sql.literals(OPEN)}) AND cancel_requested_at <= %(late)s
              AND NOT EXISTS (SELECT FROM order_events
                              WHERE order_id = trade_orders.id AND kind = '{UNCONFIRMED}' AND at >= cancel_requested_at)
          ELSE {_IS_DUE} END
      AND (cancel_requested_by NOT IN ({sql.literals(AUTOMATIC)}) OR NOT EXISTS (
          SELECT FROM trading_switch WHERE id = {TradingSwitch.ONLY_PK} AND state = '{TradingState.HALTED.value}'))
    ORDER BY cancel_due_at
"""  # noqa: S608
_CLAIM = f"""
    UPDATE trade_orders SET cancel_due_at = %(next)s WHERE id = %(pk)s AND cancel_due_at = %(seen)s AND {_IS_DUE}
"""  # noqa: S608


def due_cancels(now: datetime) -> list[int]:
    """Return the orders whose requested cancel is due to be driven, or reported. An unanswered order waits.

    While trading is halted, only the cancels of a person, `cancel_all` or a caller leave, none of a chase or a stop.
    """
    params = {"today": now.astimezone(KST).date(), "late": now - CANCEL_REPORT_AFTER, **_due_params(now)}
    return [pk for (pk,) in sql.query(_DUE, params)]


def _due_params(now: datetime) -> dict[str, datetime]:
    return {"now": now, "too_far": now + CANCEL_BACKOFF_MAX}


@log_context.with_order_context
def drive(pk: int, broker: Broker, now: Callable[[], datetime]) -> None:
    """Drive a requested cancel: check whether the list confirms it, send it again if not, report it in time."""
    order = TradeOrder.objects.get(pk=pk)
    if order.is_open and order.chase_at is not None and order.cancel_requested_by == RequestedBy.CHASE:
        _report(order, now())
        return
    if order.state in UNANSWERED or not _claim(order, now()):
        return
    if order.is_open:
        _read_list(order, broker, now)
    if not order.is_open or settle.has_ended(order, now()):
        # an order that was given up as lost may still appear: its cancel stays requested
        is_over = not order.is_open and not order.never_arrived
        journal.update_fields(order, cancel_due_at=None, **({"cancel_requested_at": None} if is_over else {}))
        return
    if order.cancel_requested_at is None:
        return  # the request was withdrawn meanwhile
    _report(order, now())
    try:
        Canceller(broker, now).cancel(order, by=RequestedBy(order.cancel_requested_by))
    except BrokerError as error:
        log.warning("order %s: its cancel is sent again later: %s", order.pk, error)


def _read_list(order: TradeOrder, broker: Broker, now: Callable[[], datetime]) -> None:
    """Read the order list. If that fails, the cancel is still sent again and reported."""
    try:
        reconcile.reconcile_now(broker, now)
    except BrokerError as error:
        log.warning("order %s: the order list cannot be read to confirm its cancel: %s", order.pk, error)
    sql.refresh(order)


def _report(order: TradeOrder, now: datetime) -> None:
    """Report a cancel that the list has not confirmed in time, once for each request."""
    wanted_at = order.cancel_requested_at
    if wanted_at is None or now - wanted_at < CANCEL_REPORT_AFTER:
        return
    with transaction.atomic():
        journal.locked(order.pk)
        if order.events.filter(kind=UNCONFIRMED, at__gte=wanted_at).exists():
            return
        journal.append_event(order, UNCONFIRMED, at=now)
    log.error("order %s: no list confirms its cancel, %s after it was requested", order.pk, CANCEL_REPORT_AFTER)


def _claim(order: TradeOrder, now: datetime) -> bool:
    """Claim the next send of a cancel; return False if another worker has it, or nothing is due."""
    cancel_count = order.requests.filter(kind=RequestKind.CANCEL).count()
    params = {"pk": order.pk, "seen": order.cancel_due_at, "next": now + resend_after(cancel_count), **_due_params(now)}
    return sql.execute(_CLAIM, params) == 1
