"""The chase of an unfilled order: wait, cancel, confirm, re-order nearer, at last go to market.

Source: spec §9.6. This module decides; `orders/chase.py` carries out. A decision rests on rows alone,
so that any worker can take the next step after another has died.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from aegis.lifecycle import DONE, OPEN, Status

# a cancel that the broker has not confirmed within this time is asked for again
CANCEL_PATIENCE = timedelta(seconds=5)


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
    what was asked for at the root and is not filled by any order of the family.
    """

    status: Status
    attempt: int
    due_at: datetime | None
    cancel_sent_at: datetime | None
    looked_at: datetime | None
    family_open_qty: int
    has_successor: bool


@dataclass(frozen=True, slots=True)
class Decision:
    step: Step
    why: str = ""


def next_step(order: Chased, plan: Plan, *, may_order: bool, now: datetime) -> Decision:
    """Return what to do with an order at `now`; `may_order` is false while switch, venue or stock forbid new orders.

    The figures are looked at before a cancel and again after it: what is ordered anew is what the
    broker confirms as unfilled after the cancel, never what we thought before it.
    """
    if order.due_at is None or order.has_successor or order.family_open_qty <= 0:
        return Decision(Step.REST)
    if now < order.due_at:
        return Decision(Step.WAIT)
    if order.status in OPEN:
        return _open_step(order, now=now)
    if order.status not in DONE:
        return Decision(Step.LOOK, "its fate is not known yet")
    if order.status is not Status.CANCELLED or order.cancel_sent_at is None:
        return Decision(Step.STOP, f"the order is {order.status}, and not by our cancel")
    if order.looked_at is None or order.looked_at < order.cancel_sent_at:
        return Decision(Step.LOOK, "the broker has not confirmed what was filled before the cancel")
    if order.attempt >= plan.max_retries + plan.market_after:
        return Decision(Step.STOP, "every retry is used up")
    if not may_order:
        return Decision(Step.STOP, "no new order may go now")
    return Decision(Step.REORDER)


def _open_step(order: Chased, *, now: datetime) -> Decision:
    if order.cancel_sent_at is None:
        if order.looked_at is None or order.due_at is None or order.looked_at < order.due_at:
            return Decision(Step.LOOK, "it is due: first see what is filled")
        return Decision(Step.CANCEL)
    if order.looked_at is None or order.looked_at < order.cancel_sent_at:
        return Decision(Step.LOOK, "see whether the cancel took effect")
    if now - order.cancel_sent_at >= CANCEL_PATIENCE:
        return Decision(Step.CANCEL, "the cancel was lost: cancelling twice harms nothing")
    return Decision(Step.LOOK, "the cancel is on its way")


def goes_to_market(attempt: int, plan: Plan) -> bool:
    """Whether the re-order numbered `attempt` (1 is the first) is the last one, at market."""
    return plan.market_after and attempt > plan.max_retries
