"""Drives requested cancels until the broker's list confirms them, whoever requested them, and reports the others."""

import logging
from collections.abc import Callable
from datetime import datetime

from django.db.models import Q

from aegis.broker import Broker, BrokerError
from aegis.requests import CANCEL_REPORT_AFTER, RequestedBy, RequestKind, resend_after
from aegis.sessions import KST
from kis import about
from orders import journal, reconcile, settle
from orders.cancel import Canceller
from orders.models import TradeOrder

log = logging.getLogger(__name__)


def due(now: datetime) -> list[int]:
    """Return the orders whose requested cancel is to be taken on. A chase that goes on drives its own."""
    is_driven = Q(chase_at__isnull=True) | ~Q(cancel_wanted_by=RequestedBy.CHASE)
    orders = TradeOrder.objects.filter(is_driven, cancel_due_at__lte=now, order_date=now.astimezone(KST).date())
    return list(orders.order_by("cancel_due_at").values_list("pk", flat=True))


@about.named
def drive(pk: int, broker: Broker, now: Callable[[], datetime]) -> None:
    """Take a requested cancel on: look whether the list confirms it, send it again if not, report it in time."""
    order = TradeOrder.objects.get(pk=pk)
    if not _claim(order, now()):
        return
    if order.is_open:
        reconcile.look(broker, now)
        order.refresh_from_db()
    if not order.is_open or settle.has_ended(order, now()):
        journal.note(order, cancel_due_at=None, **({} if order.is_open else {"cancel_wanted_at": None}))
        return
    _report(order, now())
    try:
        Canceller(broker, now).cancel(order, by=RequestedBy(order.cancel_wanted_by))
    except BrokerError as error:
        log.warning("order %s: its cancel is sent again later: %s", order.pk, error)


def _report(order: TradeOrder, now: datetime) -> None:
    """Report, once for each wish, a cancel that the list has not confirmed in time."""
    wanted_at = order.cancel_wanted_at
    if wanted_at is None or now - wanted_at < CANCEL_REPORT_AFTER:
        return
    if not order.events.filter(kind="CANCEL_UNCONFIRMED", at__gte=wanted_at).exists():
        log.error("order %s: the broker's list shows it open, %s after its cancel", order.pk, CANCEL_REPORT_AFTER)
        journal.write(order, "CANCEL_UNCONFIRMED", at=now)


def _claim(order: TradeOrder, now: datetime) -> bool:
    """Take the turn to drive a cancel; False if another worker has, or nothing is due."""
    if order.cancel_due_at is None or order.cancel_due_at > now:
        return False
    sent = order.requests.filter(kind=RequestKind.CANCEL).count()
    seen = TradeOrder.objects.filter(pk=order.pk, cancel_due_at=order.cancel_due_at)
    return seen.update(cancel_due_at=now + resend_after(sent)) == 1
