"""The rank of a call is that of what it serves."""

import threading

import pytest

from kis import catalogue
from kis.catalogue import OPERATIONS, Urgency
from kis.client import COMMAND_SECONDS, DEADLINE_SECONDS, STEP_SECONDS
from kis.serving import current_step, serving, urgency_of
from tests.kis.test_client import Wire


@pytest.mark.parametrize("tr", OPERATIONS, ids=lambda tr: tr.name)
def test_every_call_below_has_the_rank_of_what_it_serves(tr: catalogue.TR) -> None:
    assert urgency_of(tr) is tr.urgency
    with serving(Urgency.STOP):
        assert urgency_of(tr) is Urgency.STOP
        with serving(Urgency.ORDER):
            assert urgency_of(tr) is Urgency.STOP, "an order that a stop places is the stop's"
    with serving(Urgency.CHASE):
        assert urgency_of(tr) is Urgency.CHASE
    assert urgency_of(tr) is tr.urgency


def test_the_calls_of_a_stop_belong_to_one_step_and_the_next_stop_has_its_own() -> None:
    assert current_step() is None
    with serving(Urgency.STOP):
        step = current_step()
        with serving(Urgency.ORDER), serving(Urgency.STOP):
            assert current_step() is step is not None
    with serving(Urgency.STOP):
        assert current_step() is not step
    with serving(Urgency.ORDER):
        assert current_step() is None


def test_what_a_stop_reads_first_waits_for_the_stops_before_it() -> None:
    wire = Wire({"rt_cd": "0", "output": {}})
    with serving(Urgency.STOP):
        wire.client.call(catalogue.SELLABLE, {})
        assert wire.throttle.deadline_seconds == STEP_SECONDS
        step = current_step()
        assert step is not None
        step.has_called = True
        wire.client.call(catalogue.SELLABLE, {})
        assert wire.throttle.deadline_seconds == DEADLINE_SECONDS[Urgency.ACCOUNT]
        wire.client.call(catalogue.SELL, {})
        assert wire.throttle.deadline_seconds == COMMAND_SECONDS
    with serving(Urgency.STOP):
        wire.client.call(catalogue.SELL, {})
        assert wire.throttle.deadline_seconds == COMMAND_SECONDS, "what it was judged by is old then"


def test_the_limiter_is_told_the_rank() -> None:
    wire = Wire({"rt_cd": "0", "output": {}})
    for urgency in Urgency:
        with serving(urgency):
            wire.client.call(catalogue.PRICE, {})
        assert wire.throttle.urgency is urgency
    wire.client.call(catalogue.SELLABLE, {})
    assert wire.throttle.urgency is Urgency.ACCOUNT


def test_a_function_serves_for_as_long_as_it_runs_and_in_its_own_thread() -> None:
    seen: list[Urgency] = []

    @serving(Urgency.CANCEL)
    def ask() -> None:
        thread = threading.Thread(target=lambda: seen.append(urgency_of(catalogue.PRICE)))
        thread.start()
        thread.join()
        seen.append(urgency_of(catalogue.PRICE))

    for _ in range(2):
        ask()
    assert seen == [Urgency.QUOTE, Urgency.CANCEL] * 2
    assert urgency_of(catalogue.PRICE) is Urgency.QUOTE
