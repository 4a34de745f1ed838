"""Who is spaced out: a call with a deadline of 0 gets its slot at once, or not at all."""

from contextlib import ExitStack

import redis

from aegis.broker import NotSent
from kis.catalogue import Urgency
from kis.throttle import BURST, Throttle

CALLS = 10


def served_at_once(store: redis.Redis, urgency: Urgency) -> int:
    """Return how many calls in a row get a slot without waiting, of as many as there are slots."""
    throttle, count = Throttle(store, f"test:{urgency.name}", CALLS), 0
    with ExitStack() as slots:
        for _ in range(CALLS):
            try:
                slots.enter_context(throttle.slot(urgency, deadline_seconds=0))
            except NotSent:
                break
            count += 1
    return count


def test_orders_take_every_free_slot_at_once(store: redis.Redis) -> None:
    for urgency in (Urgency.STOP, Urgency.CANCEL, Urgency.ORDER):
        assert served_at_once(store, urgency) == CALLS


def test_all_others_are_spaced_out_after_a_burst(store: redis.Redis) -> None:
    for urgency in (Urgency.CHASE, Urgency.ACCOUNT, Urgency.QUOTE, Urgency.BACKFILL):
        assert BURST <= served_at_once(store, urgency) < CALLS
