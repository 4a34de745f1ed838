"""The rank of a call is that of what it serves."""

import threading

import pytest

from kis import catalogue
from kis.catalogue import OPERATIONS, CallPriority
from kis.client import COMMAND_SECONDS, DEADLINE_SECONDS, STEP_SECONDS
from kis.serving import current_step, priority_of, serving
from tests.kis.test_client import Wire


@pytest.mark.parametrize("tr", OPERATIONS, ids=lambda tr: tr.name)
def test_every_call_below_has_the_rank_of_what_it_serves(tr: catalogue.TR) -> None:
    assert priority_of(tr) is tr.priority
    with serving(CallPriority.STOP):
        assert priority_of(tr) is CallPriority.STOP
        with serving(CallPriority.ORDER):
            assert priority_of(tr) is CallPriority.STOP, "an order that a stop places is the stop's"
    with serving(CallPriority.CHASE):
        assert priority_of(tr) is CallPriority.CHASE
    assert priority_of(tr) is tr.priority


def test_the_calls_of_a_stop_belong_to_one_step_and_the_next_stop_has_its_own() -> None:
    assert current_step() is None
    with serving(CallPriority.STOP):
        step = current_step()
        with serving(CallPriority.ORDER), serving(CallPriority.STOP):
            assert current_step() is step is not None
    with serving(CallPriority.STOP):
        assert current_step() is not step
    with serving(CallPriority.ORDER):
        assert current_step() is None


def test_what_a_stop_reads_first_waits_for_the_stops_before_it() -> None:
    wire = Wire({"rt_cd": "0", "output": {}})
    with serving(CallPriority.STOP):
        wire.client.call(catalogue.SELLABLE, {})
        assert wire.throttle.deadline_seconds == STEP_SECONDS
        step = current_step()
        assert step is not None
        step.has_called = True
        wire.client.call(catalogue.SELLABLE, {})
        assert wire.throttle.deadline_seconds == DEADLINE_SECONDS[CallPriority.ACCOUNT]
        wire.client.call(catalogue.SELL, {})
        assert wire.throttle.deadline_seconds == COMMAND_SECONDS
    with serving(CallPriority.STOP):
        wire.client.call(catalogue.SELL, {})
        assert wire.throttle.deadline_seconds == COMMAND_SECONDS, "what it was judged by is old then"


def test_the_limiter_is_told_the_rank() -> None:
    wire = Wire({"rt_cd": "0", "output": {}})
    for priority in CallPriority:
        with serving(priority):
            wire.client.call(catalogue.PRICE, {})
        assert wire.throttle.priority is priority
    wire.client.call(catalogue.SELLABLE, {})
    assert wire.throttle.priority is CallPriority.ACCOUNT


def test_a_function_serves_for_as_long_as_it_runs_and_in_its_own_thread() -> None:
    seen: list[CallPriority] = []

    @serving(CallPriority.CANCEL)
    def ask() -> None:
        thread = threading.Thread(target=lambda: seen.append(priority_of(catalogue.PRICE)))
        thread.start()
        thread.join()
        seen.append(priority_of(catalogue.PRICE))

    for _ in range(2):
        ask()
    assert seen == [CallPriority.QUOTE, CallPriority.CANCEL] * 2
    assert priority_of(catalogue.PRICE) is CallPriority.QUOTE
