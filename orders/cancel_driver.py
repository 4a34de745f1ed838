"""Drives requested cancels until the broker's list confirms them, whoever requested them, and reports the others."""

import logging
from collections.abc import Callable
from datetime import datetime

from django.db import transaction
from django.db.models import Exists, OuterRef, Q

from aegis.broker import Broker, BrokerError
from aegis.guards import TradingState
from aegis.lifecycle import OPEN, UNANSWERED
from aegis.requests import CANCEL_BACKOFF_MAX, CANCEL_REPORT_AFTER, RequestedBy, RequestKind, resend_after
from aegis.sessions import KST
from kis import about
from orders import guards, journal, reconcile, settle
from orders.cancel import Canceller
from orders.models import OrderEvent, TradeOrder

log = logging.getLogger(__name__)

UNCONFIRMED = "CANCEL_UNCONFIRMED"
AUTOMATIC = (RequestedBy.CHASE, RequestedBy.STOP)
# a chase that goes on drives its own cancel, and does not report it
_IS_CHASED = Q(chase_at__isnull=False, cancel_wanted_by=RequestedBy.CHASE)


def due(now: datetime) -> list[int]:
    """Return the orders whose requested cancel is to be taken on, or reported. One without an answer waits for that.

    While trading is halted only what a person, `cancel_all` or a caller requested leaves: no cancel of a chase or stop.
    """
    told = OrderEvent.objects.filter(order=OuterRef("pk"), kind=UNCONFIRMED, at__gte=OuterRef("cancel_wanted_at"))
    is_late = Q(_IS_CHASED, ~Exists(told), cancel_wanted_at__lte=now - CANCEL_REPORT_AFTER, status__in=OPEN)
    is_driven = Q(~_IS_CHASED, _is_due(now))
    wanted = TradeOrder.objects.filter(cancel_due_at__isnull=False, order_date=now.astimezone(KST).date())
    orders = wanted.filter(is_driven | is_late).exclude(status__in=UNANSWERED)
    if guards.trading_state() is TradingState.HALTED:
        orders = orders.exclude(cancel_wanted_by__in=AUTOMATIC)
    return list(orders.order_by("cancel_due_at").values_list("pk", flat=True))


def _is_due(now: datetime) -> Q:
    """Return which turns have come; one that is too far ahead was set before the clock was put back."""
    return Q(cancel_due_at__lte=now) | Q(cancel_due_at__gt=now + CANCEL_BACKOFF_MAX)


@about.named
def drive(pk: int, broker: Broker, now: Callable[[], datetime]) -> None:
    """Take a requested cancel on: look whether the list confirms it, send it again if not, report it in time."""
    order = TradeOrder.objects.get(pk=pk)
    if order.is_open and TradeOrder.objects.filter(_IS_CHASED, pk=pk).exists():
        _report(order, now())
        return
    if order.state in UNANSWERED or not _claim(order, now()):
        return
    if order.is_open:
        _look(order, broker, now)
    if not order.is_open or settle.has_ended(order, now()):
        # what was given up as lost may turn up, and is not wanted then either
        is_over = not order.is_open and not order.never_arrived
        journal.note(order, cancel_due_at=None, **({"cancel_wanted_at": None} if is_over else {}))
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
        reconcile.look(broker, now)
    except BrokerError as error:
        log.warning("order %s: no list says whether it is cancelled: %s", order.pk, error)
    order.refresh_from_db()


def _report(order: TradeOrder, now: datetime) -> None:
    """Report, once for each wish, a cancel that the list has not confirmed in time."""
    wanted_at = order.cancel_wanted_at
    if wanted_at is None or now - wanted_at < CANCEL_REPORT_AFTER:
        return
    with transaction.atomic():
        journal.locked(order.pk)
        if order.events.filter(kind=UNCONFIRMED, at__gte=wanted_at).exists():
            return
        journal.write(order, UNCONFIRMED, at=now)
    log.error("order %s: no list confirms its cancel, %s after it was wanted", order.pk, CANCEL_REPORT_AFTER)


def _claim(order: TradeOrder, now: datetime) -> bool:
    """Take the turn to drive a cancel; False if another worker has, or nothing is due."""
    sent = order.requests.filter(kind=RequestKind.CANCEL).count()
    seen = TradeOrder.objects.filter(_is_due(now), pk=order.pk, cancel_due_at=order.cancel_due_at)
    return seen.update(cancel_due_at=now + resend_after(sent)) == 1
