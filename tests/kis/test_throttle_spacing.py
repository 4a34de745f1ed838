"""Who is spaced out: a call with a deadline of 0 gets its slot at once, or not at all."""

from contextlib import ExitStack

import redis

from aegis.broker import NotSent
from kis.catalogue import CallPriority
from kis.throttle import BURST, Throttle

CALLS = 10


def served_at_once(store: redis.Redis, priority: CallPriority) -> int:
    """Return how many calls in a row get a slot without waiting, of as many as there are slots."""
    throttle, count = Throttle(store, f"test:{priority.name}", CALLS), 0
    with ExitStack() as slots:
        for _ in range(CALLS):
            try:
                slots.enter_context(throttle.slot(priority, deadline_seconds=0))
            except NotSent:
                break
            count += 1
    return count


def test_orders_take_every_free_slot_at_once(store: redis.Redis) -> None:
    for priority in (CallPriority.STOP, CallPriority.CANCEL, CallPriority.ORDER):
        assert served_at_once(store, priority) == CALLS


def test_all_others_are_spaced_out_after_a_burst(store: redis.Redis) -> None:
    for priority in (CallPriority.CHASE, CallPriority.ACCOUNT, CallPriority.QUOTE, CallPriority.BACKFILL):
        assert BURST <= served_at_once(store, priority) < CALLS
