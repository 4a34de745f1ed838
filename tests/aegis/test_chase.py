from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from aegis.broker import Quote
from aegis.chase import CANCEL_PATIENCE, MOST_LOST, Chased, Decision, Plan, Step, goes_to_market, held_up, next_step
from aegis.lifecycle import Status
from aegis.sessions import KST
from aegis.terms import Market

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=KST)
SECOND = timedelta(seconds=1)
PLAN = Plan(wait_seconds=30, max_retries=3, step_ticks=1, market_after=True)
RESTING = Chased(
    status=Status.PENDING,
    attempt=0,
    due_at=NOW,
    cancel_sent_at=None,
    looked_at=None,
    family_open_qty=10,
    has_successor=False,
)
CANCELLED = replace(RESTING, status=Status.CANCELLED, cancel_sent_at=NOW, looked_at=NOW + SECOND)


def step_of(order: Chased, *, may_order: bool = True, now: datetime = NOW, plan: Plan = PLAN) -> Step:
    return next_step(order, plan, may_order=may_order, now=now).step


def test_an_order_waits_until_it_is_due() -> None:
    assert step_of(RESTING, now=NOW - SECOND) is Step.WAIT
    assert step_of(replace(RESTING, due_at=None)) is Step.REST


def test_a_due_order_is_looked_at_before_it_is_cancelled() -> None:
    assert step_of(RESTING) is Step.LOOK
    assert step_of(replace(RESTING, looked_at=NOW - SECOND)) is Step.LOOK
    assert step_of(replace(RESTING, looked_at=NOW)) is Step.CANCEL


def test_after_the_cancel_the_broker_is_asked_what_is_left() -> None:
    sent = replace(RESTING, looked_at=NOW, cancel_sent_at=NOW + SECOND)
    assert step_of(sent, now=NOW + SECOND) is Step.LOOK


def test_a_lost_cancel_is_sent_again_after_a_while() -> None:
    sent = replace(RESTING, cancel_sent_at=NOW, looked_at=NOW + SECOND)
    assert step_of(sent, now=NOW + SECOND) is Step.LOOK
    assert step_of(sent, now=NOW + CANCEL_PATIENCE) is Step.CANCEL


def test_a_cancelled_order_is_ordered_anew_only_when_the_broker_has_confirmed_its_figures() -> None:
    assert step_of(replace(CANCELLED, looked_at=NOW - SECOND)) is Step.LOOK
    assert step_of(replace(CANCELLED, looked_at=None)) is Step.LOOK
    assert step_of(CANCELLED) is Step.REORDER


def test_there_is_never_a_second_successor() -> None:
    assert step_of(replace(CANCELLED, has_successor=True)) is Step.REST


def test_nothing_is_ordered_for_what_the_family_has_filled() -> None:
    assert step_of(replace(CANCELLED, family_open_qty=0)) is Step.REST


@pytest.mark.parametrize("surplus", [{"family_open_qty": 0}, {"family_open_qty": -3}, {"has_successor": True}])
def test_an_order_that_nobody_wants_any_more_is_cancelled_and_nothing_follows(surplus: dict[str, int]) -> None:
    resting = replace(RESTING, looked_at=NOW, **surplus)
    assert next_step(resting, PLAN, may_order=True, now=NOW) == Decision(Step.CANCEL)
    assert step_of(replace(CANCELLED, **surplus)) is Step.REST


def test_an_order_whose_fate_is_unknown_is_looked_for_and_never_sent_again() -> None:
    assert step_of(replace(RESTING, status=Status.UNKNOWN)) is Step.LOOK
    assert step_of(replace(RESTING, status=Status.SUBMITTING)) is Step.LOOK


@pytest.mark.parametrize("status", [Status.EXPIRED, Status.REJECTED])
def test_an_order_that_ended_otherwise_is_left(status: Status) -> None:
    assert step_of(replace(CANCELLED, status=status)) is Step.STOP


def test_an_order_cancelled_by_somebody_else_is_left() -> None:
    assert step_of(replace(CANCELLED, cancel_sent_at=None)) is Step.STOP


def test_the_kill_switch_ends_the_chase_after_the_cancel() -> None:
    assert step_of(CANCELLED, may_order=False) is Step.STOP
    assert step_of(replace(RESTING, looked_at=NOW), may_order=False) is Step.CANCEL


def test_after_three_retries_comes_the_market_and_then_nothing() -> None:
    assert [goes_to_market(attempt, PLAN) for attempt in (1, 2, 3, 4)] == [False, False, False, True]
    assert step_of(replace(CANCELLED, attempt=3)) is Step.REORDER
    assert step_of(replace(CANCELLED, attempt=4)) is Step.STOP


def test_without_the_market_at_last_the_retries_are_all() -> None:
    plan = replace(PLAN, market_after=False)
    assert step_of(replace(CANCELLED, attempt=2), plan=plan) is Step.REORDER
    assert step_of(replace(CANCELLED, attempt=3), plan=plan) is Step.STOP


NEVER_ARRIVED = replace(RESTING, status=Status.REJECTED, never_arrived=True, attempt=1, family_lost=1)


def test_an_order_that_never_arrived_is_sent_anew_in_its_own_turn() -> None:
    assert next_step(NEVER_ARRIVED, PLAN, may_order=True, now=NOW).retry == 1
    assert step_of(replace(NEVER_ARRIVED, never_arrived=False)) is Step.STOP
    assert step_of(NEVER_ARRIVED, may_order=False) is Step.STOP
    assert step_of(replace(NEVER_ARRIVED, attempt=MOST_LOST, family_lost=MOST_LOST)) is Step.STOP


def test_a_cancel_says_which_reorder_is_to_follow() -> None:
    due = replace(RESTING, looked_at=NOW)
    assert next_step(due, PLAN, may_order=True, now=NOW).retry == 1
    assert next_step(replace(due, attempt=3), PLAN, may_order=True, now=NOW).retry == 4
    assert next_step(replace(due, attempt=4), PLAN, may_order=True, now=NOW).retry == 0
    assert next_step(due, PLAN, may_order=False, now=NOW).retry == 0


def test_a_stock_that_is_held_holds_the_chase() -> None:
    quote = Quote("005930", Market.KRX, 70_000, 70_000, 91_000, 49_000, is_halted=False)
    assert held_up(quote) == ""
    assert held_up(replace(quote, in_vi=True))
    assert held_up(replace(quote, is_halted=True))
