"""The chase of an unfilled order: wait, cancel, confirm, re-order nearer, at last go to market.

Source: spec §9.6. This module decides; `orders/chase.py` carries out. A decision rests on rows alone,
so that any worker can take the next step after another has died.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from aegis.broker import Quote
from aegis.guards import gettext_noop
from aegis.lifecycle import DONE, OPEN, Status

# a cancel that the broker has not confirmed within this time is asked for again
CANCEL_PATIENCE = timedelta(seconds=5)
# so many orders of one family that never reached the broker are no accident
MOST_LOST = 3


class Step(StrEnum):
    REST = "REST"  # nothing more to do
    WAIT = "WAIT"  # not yet due
    LOOK = "LOOK"  # ask the broker what became of it
    CANCEL = "CANCEL"
    REORDER = "REORDER"
    STOP = "STOP"  # give up, and say why


@dataclass(frozen=True, slots=True)
class Plan:
    """How an order is chased: seconds between looks, how many re-orders, ticks nearer with each, and how it ends."""

    wait_seconds: float
    max_retries: int
    step_ticks: int
    market_after: bool


@dataclass(frozen=True, slots=True)
class Chased:
    """What the rows say of an order under chase.

    `looked_at` is when the broker last confirmed its figures on a complete list. `family_open_qty` is
    what was asked for at the root and is not filled by any order of the family. `family_lost` counts
    the family's orders that never reached the broker: they use up no retry.
    """

    status: Status
    attempt: int
    due_at: datetime | None
    cancel_sent_at: datetime | None
    looked_at: datetime | None
    family_open_qty: int
    has_successor: bool
    never_arrived: bool = False
    family_lost: int = 0


@dataclass(frozen=True, slots=True)
class Decision:
    """`why` is a sentence to translate. `retry` is the place in the plan, from 1, of the re-order that this step
    makes or prepares; 0 where none follows.
    """

    step: Step
    why: str = ""
    retry: int = 0


def next_step(order: Chased, plan: Plan, *, may_order: bool, now: datetime) -> Decision:
    """Return what to do with an order at `now`; `may_order` is false while the switch forbids new orders.

    The figures are looked at before a cancel and again after it: what is ordered anew is what the
    broker confirms as unfilled after the cancel, never what we thought before it.
    """
    if order.due_at is None:
        return Decision(Step.REST)
    if now < order.due_at:
        return Decision(Step.WAIT)
    if order.status in OPEN:
        return _open_step(order, plan, may_order=may_order, now=now)
    if _is_surplus(order):
        return Decision(Step.REST)
    if order.status not in DONE:
        return Decision(Step.LOOK, gettext_noop("its fate is not known yet"))
    if order.status is Status.REJECTED and order.never_arrived:
        return _reorder(order, plan, may_order=may_order)
    if order.status is not Status.CANCELLED or order.cancel_sent_at is None:
        return Decision(Step.STOP, gettext_noop("the order ended, and not by our cancel"))
    if order.looked_at is None or order.looked_at < order.cancel_sent_at:
        return Decision(Step.LOOK, gettext_noop("the broker has not confirmed what was filled before the cancel"))
    return _reorder(order, plan, may_order=may_order)


def _is_surplus(order: Chased) -> bool:
    """Whether its shares are not wanted any more: the family has them all, or another order goes for them.

    So it is where a fill of before a cancel, or an order given up for lost, turns up after the re-order has left.
    """
    return order.has_successor or order.family_open_qty <= 0


def _retry(order: Chased) -> int:
    """Return the place in the plan of the re-order that would follow."""
    return order.attempt + 1 - order.family_lost


def _obstacle(order: Chased, plan: Plan, *, may_order: bool) -> str:
    """Return why no re-order may follow, empty where one may."""
    if _retry(order) > plan.max_retries + plan.market_after:
        return gettext_noop("every retry is used up")
    if order.family_lost >= MOST_LOST:
        return gettext_noop("too many orders of it never reached the broker")
    return "" if may_order else gettext_noop("the switch forbids new orders")


def _reorder(order: Chased, plan: Plan, *, may_order: bool) -> Decision:
    if why := _obstacle(order, plan, may_order=may_order):
        return Decision(Step.STOP, why)
    return Decision(Step.REORDER, retry=_retry(order))


def _open_step(order: Chased, plan: Plan, *, may_order: bool, now: datetime) -> Decision:
    if order.cancel_sent_at is None:
        if order.looked_at is None or order.due_at is None or order.looked_at < order.due_at:
            return Decision(Step.LOOK, gettext_noop("it is due: first see what is filled"))
        # even with nothing to follow, nothing is left resting that nobody watches
        is_last = _is_surplus(order) or bool(_obstacle(order, plan, may_order=may_order))
        return Decision(Step.CANCEL, retry=0 if is_last else _retry(order))
    if order.looked_at is None or order.looked_at < order.cancel_sent_at:
        return Decision(Step.LOOK, gettext_noop("see whether the cancel took effect"))
    if now - order.cancel_sent_at >= CANCEL_PATIENCE:
        return Decision(Step.CANCEL, gettext_noop("the cancel was lost: cancelling twice harms nothing"))
    return Decision(Step.LOOK, gettext_noop("the cancel is on its way"))


def held_up(quote: Quote) -> str:
    """Return why a chase pauses at this quote, empty where it goes on: no price is made while a stock is held."""
    if quote.is_halted:
        return gettext_noop("the stock is halted by the exchange")
    return gettext_noop("a volatility interruption holds the stock") if quote.in_vi else ""


def goes_to_market(retry: int, plan: Plan) -> bool:
    """Whether the re-order numbered `retry` (1 is the first) is the last one, at market."""
    return plan.market_after and retry > plan.max_retries
