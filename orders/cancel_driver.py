"""Drives requested cancels until the broker's list confirms them, whoever requested them, and reports the others."""

import logging
from collections.abc import Callable
from datetime import datetime

from django.db import transaction

from aegis.broker import Broker, BrokerError
from aegis.lifecycle import OPEN, UNANSWERED
from aegis.order_events import OrderEventKind
from aegis.requests import CANCEL_BACKOFF_MAX, CANCEL_REPORT_AFTER, RequestedBy, RequestKind, resend_after
from aegis.risk import TradingState
from aegis.sessions import KST
from infra import log_context, sql
from orders import journal, reconcile, settle
from orders.cancel import Canceller
from orders.models import TradeOrder, TradingSwitch

log = logging.getLogger(__name__)

UNCONFIRMED = OrderEventKind.CANCEL_UNCONFIRMED
AUTOMATIC = (RequestedBy.CHASE, RequestedBy.STOP)
# a chase that goes on drives its own cancel, and does not report it
_IS_CHASED = f"(chase_at IS NOT NULL AND cancel_wanted_by = '{RequestedBy.CHASE.value}')"


# a turn that is too far ahead was set before the clock was put back
_HAS_COME = "(cancel_due_at <= %(now)s OR cancel_due_at > %(too_far)s)"
_DUE = f"""
    SELECT id FROM trade_orders
    WHERE cancel_due_at IS NOT NULL AND order_date = %(today)s AND status NOT IN ({sql.literals(UNANSWERED)})
      AND CASE WHEN {_IS_CHASED} THEN
              status IN ({sql.literals(OPEN)}) AND cancel_wanted_at <= %(late)s
              AND NOT EXISTS (SELECT FROM order_events
                              WHERE order_id = trade_orders.id AND kind = '{UNCONFIRMED}' AND at >= cancel_wanted_at)
          ELSE {_HAS_COME} END
      AND (cancel_wanted_by NOT IN ({sql.literals(AUTOMATIC)}) OR NOT EXISTS (
          SELECT FROM trading_switch WHERE id = {TradingSwitch.ONLY_PK} AND state = '{TradingState.HALTED.value}'))
    ORDER BY cancel_due_at
"""  # noqa: S608
_TAKE = f"""
    UPDATE trade_orders SET cancel_due_at = %(next)s WHERE id = %(pk)s AND cancel_due_at = %(seen)s AND {_HAS_COME}
"""  # noqa: S608


def due(now: datetime) -> list[int]:
    """Return the orders whose requested cancel is to be taken on, or reported. One without an answer waits for that.

    While trading is halted only what a person, `cancel_all` or a caller requested leaves: no cancel of a chase or stop.
    """
    values = {"today": now.astimezone(KST).date(), "late": now - CANCEL_REPORT_AFTER, **_turns(now)}
    return [pk for (pk,) in sql.fetch(_DUE, values)]


def _turns(now: datetime) -> dict[str, datetime]:
    return {"now": now, "too_far": now + CANCEL_BACKOFF_MAX}


@log_context.named
def drive(pk: int, broker: Broker, now: Callable[[], datetime]) -> None:
    """Take a requested cancel on: look whether the list confirms it, send it again if not, report it in time."""
    order = TradeOrder.objects.get(pk=pk)
    if order.is_open and order.chase_at is not None and order.cancel_wanted_by == RequestedBy.CHASE:
        _report(order, now())
        return
    if order.state in UNANSWERED or not _claim(order, now()):
        return
    if order.is_open:
        _look(order, broker, now)
    if not order.is_open or settle.has_ended(order, now()):
        # what was given up as lost may turn up, and is not wanted then either
        is_over = not order.is_open and not order.never_arrived
        journal.update_fields(order, cancel_due_at=None, **({"cancel_wanted_at": None} if is_over else {}))
        return
    if order.cancel_wanted_at is None:
        return  # the request was withdrawn meanwhile
    _report(order, now())
    try:
        Canceller(broker, now).cancel(order, by=RequestedBy(order.cancel_wanted_by))
    except BrokerError as error:
        log.warning("order %s: its cancel is sent again later: %s", order.pk, error)


def _look(order: TradeOrder, broker: Broker, now: Callable[[], datetime]) -> None:
    """Have the list read. Without it the cancel is sent again and reported all the same."""
    try:
        reconcile.reconcile_now(broker, now)
    except BrokerError as error:
        log.warning("order %s: no list says whether it is cancelled: %s", order.pk, error)
    sql.refresh(order)


def _report(order: TradeOrder, now: datetime) -> None:
    """Report, once for each wish, a cancel that the list has not confirmed in time."""
    wanted_at = order.cancel_wanted_at
    if wanted_at is None or now - wanted_at < CANCEL_REPORT_AFTER:
        return
    with transaction.atomic():
        journal.locked(order.pk)
        if order.events.filter(kind=UNCONFIRMED, at__gte=wanted_at).exists():
            return
        journal.append_event(order, UNCONFIRMED, at=now)
    log.error("order %s: no list confirms its cancel, %s after it was wanted", order.pk, CANCEL_REPORT_AFTER)


def _claim(order: TradeOrder, now: datetime) -> bool:
    """Take the turn to drive a cancel; False if another worker has, or nothing is due."""
    sent = order.requests.filter(kind=RequestKind.CANCEL).count()
    turn = {"pk": order.pk, "seen": order.cancel_due_at, "next": now + resend_after(sent), **_turns(now)}
    return sql.execute(_TAKE, turn) == 1
