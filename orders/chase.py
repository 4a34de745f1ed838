"""Walks the orders that are due and carries out what `aegis.chase` decides, one step at a time.

The deadline and the claim live in the row, so a worker may die at any line: the claim runs out and the
sweep hands the order to the next. No step is harmful when done twice.
"""

import logging
from collections.abc import Callable
from datetime import datetime, timedelta

from django.db import IntegrityError
from django.db.models import Q, Sum
from django.utils.translation import gettext

from aegis import chase
from aegis.broker import Broker, BrokerError, Refused
from aegis.chase import Chased, Decision, Step
from aegis.guards import gettext_noop
from aegis.lifecycle import Status
from aegis.terms import Market
from kis import about
from market import service as market
from orders import guards, journal, reconcile
from orders.models import TradeOrder
from orders.service import OrderDenied, OrderService

log = logging.getLogger(__name__)

CLAIM = timedelta(seconds=30)
STEPS_AT_ONCE = 8
# while a stock or its venue does not trade, a chase that is due looks again after this
PAUSE = timedelta(seconds=10)


def due(now: datetime) -> list[int]:
    """Return the orders whose next step is due and that nobody is working on."""
    free = Q(chase_claimed_until__isnull=True) | Q(chase_claimed_until__lt=now)
    return list(TradeOrder.objects.filter(free, chase_at__lte=now).order_by("chase_at").values_list("pk", flat=True))


@about.named
def advance(pk: int, broker: Broker, now: Callable[[], datetime]) -> Step:
    """Take one order as far as it goes now; return the last step taken. BrokerErrors wait for the next sweep."""
    if not _claim(pk, now()):
        return Step.REST
    step = Step.REST
    try:
        for _ in range(STEPS_AT_ONCE):
            order = TradeOrder.objects.get(pk=pk)
            decision = _decide(order, now())
            step = decision.step
            if step is Step.REST and order.chase_at is not None:
                journal.note(order, chase_at=None)
            if step in (Step.REST, Step.WAIT) or not _carry_out(order, decision, broker, now):
                break
    except BrokerError as error:
        log.warning("order %s: chase step %s waits: %s", pk, step, error)
    finally:
        TradeOrder.objects.filter(pk=pk).update(chase_claimed_until=None)
    return step


def _claim(pk: int, now: datetime) -> bool:
    free = Q(chase_claimed_until__isnull=True) | Q(chase_claimed_until__lt=now)
    return TradeOrder.objects.filter(free, pk=pk).update(chase_claimed_until=now + CLAIM) == 1


def _decide(order: TradeOrder, now: datetime) -> Decision:
    lost = TradeOrder.objects.filter(root_id=order.root_pk, never_arrived=True).count()
    facts = Chased(
        status=order.state,
        attempt=order.attempt,
        due_at=order.chase_at,
        cancel_sent_at=order.cancel_sent_at,
        looked_at=order.looked_at,
        family_open_qty=_family_open_qty(order),
        has_successor=TradeOrder.objects.filter(root_id=order.root_pk, attempt__gt=order.attempt).exists(),
        never_arrived=order.never_arrived,
        family_lost=lost,
    )
    return chase.next_step(facts, order.plan, may_order=guards.trading_state().lets_pass(order.side), now=now)


def _family_open_qty(order: TradeOrder) -> int:
    """Return the shares that the root asked for and no order of the family has filled."""
    family = TradeOrder.objects.filter(Q(pk=order.root_pk) | Q(root_id=order.root_pk))
    filled = family.aggregate(total=Sum("filled_qty"))["total"] or 0
    asked = order.root.qty if order.root else order.qty
    return asked - filled


def _carry_out(order: TradeOrder, decision: Decision, broker: Broker, now: Callable[[], datetime]) -> bool:
    """Do one step; False where nothing more can be done at once."""
    if decision.step is Step.LOOK:
        seen = order.looked_at
        reconcile.look(broker, now)
        order.refresh_from_db()
        return order.looked_at != seen and not (order.is_open and order.cancel_sent_at)
    if decision.step is Step.CANCEL:
        return _cancel(order, decision.retry, broker, now)
    if decision.step is Step.REORDER:
        _reorder(order, decision.retry, broker, now)
    else:
        _stop(order, gettext(decision.why), now())
    return False


def _cancel(order: TradeOrder, retry: int, broker: Broker, now: Callable[[], datetime]) -> bool:
    """Cancel; where a re-order is to follow, only if it could go. False where the chase waits or ends instead."""
    service = OrderService(broker, now)
    if retry:
        if why := _closed(order, now()):
            return _pause(order, why, now())
        try:
            quote = service.prospect(order, retry)
        except OrderDenied as denied:
            return _denied(order, denied, now())
        if why := chase.held_up(quote):
            return _pause(order, why, now())
    try:
        service.cancel(order, goes_on=True)
    except Refused as refusal:
        # most likely filled meanwhile; the list will say
        log.info("order %s: cancel refused: %s", order.pk, refusal)
    return True


def _closed(order: TradeOrder, now: datetime) -> str:
    """Return why nothing can be ordered on its venue at this hour, empty where it can."""
    is_open = market.is_market_open(Market(order.market), now)
    return "" if is_open else gettext_noop("its venue takes no orders at this hour")


def _pause(order: TradeOrder, why: str, at: datetime) -> bool:
    """Leave the order where it rests, and look again a little later; False, for nothing more is done now."""
    # unless somebody has ended the chase meanwhile
    TradeOrder.objects.filter(pk=order.pk, chase_at__isnull=False).update(chase_at=at + PAUSE)
    newest = order.events.order_by("-id").values_list("kind", flat=True).first()
    if newest != "CHASE_PAUSED":
        journal.write(order, "CHASE_PAUSED", gettext(why), at=at)
    return False


def _reorder(order: TradeOrder, retry: int, broker: Broker, now: Callable[[], datetime]) -> None:
    """Re-order what the broker confirmed as unfilled after the cancel."""
    try:
        successor = OrderService(broker, now).retry(order, _family_open_qty(order), retry)
    except IntegrityError:
        log.info("order %s: its re-order is already on its way", order.pk)
        return
    except OrderDenied as denied:
        _denied(order, denied, now())
        return
    journal.note(order, chase_at=None)
    if successor.state is Status.REJECTED and not successor.never_arrived:
        _stop(successor, successor.refusal, now())


def _denied(order: TradeOrder, denied: OrderDenied, at: datetime) -> bool:
    """End the chase, or let it wait for what goes away by itself; False, for nothing more is done now."""
    words = guards.say_all(denied.reasons)
    passes = all(reason.passes for reason in denied.reasons)
    return _pause(order, words, at) if passes else _stop(order, words, at)


def _stop(order: TradeOrder, why: str, at: datetime) -> bool:
    """End the chase, and say why; False, for nothing more is done."""
    journal.note(order, chase_at=None, chase_note=why[:200])
    journal.write(order, "CHASE_ENDED", why, at=at)
    return False
