from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from aegis.broker import Quote
from aegis.chase import (
    AUCTION_RESULT_AFTER,
    MAX_LOST,
    Action,
    ChaseBy,
    ChaseDecision,
    ChaseSession,
    ChaseState,
    Plan,
    goes_to_market,
    next_step,
    why_held,
)
from aegis.lifecycle import Status
from aegis.requests import CANCEL_PATIENCE, EndCause
from aegis.sessions import KST
from aegis.terms import Market

NOW = datetime(2026, 11, 23, 9, 30, tzinfo=KST)
SECOND = timedelta(seconds=1)
PLAN = Plan(wait_seconds=30, max_retries=3, step_ticks=1, market_after=True)
RESTING = ChaseState(
    status=Status.PENDING,
    retries=0,
    trade_date=NOW.date(),
    created_at=NOW - timedelta(seconds=30),
    due_at=NOW,
    confirmed_at=None,
    remaining_qty=10,
    has_successor=False,
)
CHECKED = replace(RESTING, confirmed_at=NOW)
CANCELLED = replace(RESTING, status=Status.CANCELLED, end_cause=EndCause.OWN_CANCEL, released_qty=10)
AUCTION = ChaseSession(auction_since=NOW - timedelta(minutes=1), auction_until=NOW + timedelta(minutes=9))


def action_of(
    order: ChaseState,
    *,
    may_order: bool = True,
    now: datetime = NOW,
    plan: Plan = PLAN,
    session: ChaseSession | None = None,
) -> Action:
    return next_step(order, plan, may_order=may_order, now=now, session=session or ChaseSession()).action


def test_an_order_waits_until_it_is_due() -> None:
    assert action_of(RESTING, now=NOW - SECOND) is Action.WAIT
    assert action_of(replace(RESTING, due_at=None)) is Action.REST


def test_a_due_order_is_checked_before_it_is_cancelled() -> None:
    assert action_of(RESTING) is Action.CHECK
    assert action_of(replace(RESTING, confirmed_at=NOW - SECOND)) is Action.CHECK
    assert action_of(CHECKED) is Action.CANCEL


def test_after_the_cancel_the_list_is_asked_what_it_took() -> None:
    sent = replace(CHECKED, cancel_sent_at=NOW + SECOND, resend_at=NOW + SECOND + CANCEL_PATIENCE)
    assert action_of(sent, now=NOW + SECOND) is Action.CONFIRM


def test_a_lost_cancel_is_sent_again_after_a_while() -> None:
    sent = replace(RESTING, cancel_sent_at=NOW, confirmed_at=NOW + SECOND, resend_at=NOW + CANCEL_PATIENCE)
    assert action_of(sent, now=NOW + SECOND) is Action.CONFIRM
    assert action_of(sent, now=NOW + CANCEL_PATIENCE) is Action.CANCEL


def test_a_lost_cancel_is_not_sent_again_after_the_last_session() -> None:
    sent = replace(RESTING, cancel_sent_at=NOW, confirmed_at=NOW + SECOND, resend_at=NOW + CANCEL_PATIENCE)
    over = ChaseSession(is_open=False, is_over=True)
    assert next_step(sent, PLAN, now=NOW + 2 * CANCEL_PATIENCE, session=over).action is Action.CONFIRM


def test_an_amend_is_never_sent_again_without_knowing_the_first() -> None:
    sent = replace(RESTING, cancel_sent_at=NOW, confirmed_at=NOW + SECOND, resend_at=None, by=ChaseBy.AMEND)
    assert action_of(sent, now=NOW + timedelta(minutes=5)) is Action.CONFIRM


def test_only_what_our_own_confirmed_cancel_released_is_ordered_again() -> None:
    assert action_of(CANCELLED) is Action.REORDER
    assert action_of(replace(CANCELLED, released_qty=0)) is Action.END


@pytest.mark.parametrize("cause", [cause for cause in EndCause if cause is not EndCause.OWN_CANCEL])
def test_what_anything_else_ended_is_left_alone(cause: EndCause) -> None:
    assert action_of(replace(CANCELLED, end_cause=cause)) is Action.END


def test_a_cancelled_order_waits_for_the_list_to_say_by_what() -> None:
    assert action_of(replace(CANCELLED, end_cause=None)) is Action.CONFIRM
    assert action_of(replace(CANCELLED, cancel_sent_at=NOW)) is Action.REORDER, "a second cancel of it is of no matter"


def test_there_is_never_a_second_successor() -> None:
    assert action_of(replace(CANCELLED, has_successor=True)) is Action.REST


def test_nothing_is_ordered_for_what_the_family_has_filled() -> None:
    assert action_of(replace(CANCELLED, remaining_qty=0)) is Action.REST


@pytest.mark.parametrize("surplus", [{"remaining_qty": 0}, {"remaining_qty": -3}, {"has_successor": True}])
def test_an_order_that_nobody_wants_any_more_is_cancelled_and_nothing_follows(surplus: dict[str, int]) -> None:
    resting = replace(CHECKED, **surplus)
    assert next_step(resting, PLAN, now=NOW) == ChaseDecision(Action.CANCEL)
    assert action_of(replace(CANCELLED, **surplus)) is Action.REST


def test_an_order_whose_outcome_is_unknown_is_looked_for_and_never_sent_again() -> None:
    assert action_of(replace(RESTING, status=Status.UNKNOWN)) is Action.CHECK
    assert action_of(replace(RESTING, status=Status.SUBMITTING)) is Action.CHECK


@pytest.mark.parametrize("status", [Status.EXPIRED, Status.REJECTED])
def test_an_order_that_ended_otherwise_is_left(status: Status) -> None:
    assert action_of(replace(CANCELLED, status=status)) is Action.END


# --- the day ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [RESTING, CHECKED, CANCELLED, replace(CANCELLED, end_cause=None)])
def test_a_family_ends_with_its_trade_date(order: ChaseState) -> None:
    assert action_of(order, now=NOW + timedelta(days=1)) is Action.END


@pytest.mark.parametrize("order", [CHECKED, CANCELLED])
def test_the_trading_state_holds_a_chase_and_takes_nothing_away(order: ChaseState) -> None:
    assert action_of(order, may_order=False) is Action.WAIT


@pytest.mark.parametrize("order", [CHECKED, CANCELLED])
def test_a_closed_venue_holds_a_chase(order: ChaseState) -> None:
    assert action_of(order, session=ChaseSession(is_open=False)) is Action.WAIT


def test_after_the_last_session_nothing_is_ordered_again() -> None:
    over = ChaseSession(is_open=False, is_over=True)
    assert action_of(CANCELLED, session=over) is Action.END
    assert action_of(CHECKED, session=over) is Action.WAIT, "the list says how it ended"


def test_in_an_auction_a_chase_takes_one_step_straight_to_the_market() -> None:
    decision = next_step(CHECKED, PLAN, now=NOW, session=AUCTION)
    assert (decision.action, decision.retry) == (Action.CANCEL, PLAN.max_retries + 1)
    assert goes_to_market(decision.retry, PLAN)


@pytest.mark.parametrize(
    ("plan", "session"),
    [(replace(PLAN, market_after=False), AUCTION), (PLAN, replace(AUCTION, takes_market=False))],
    ids=["no market in the plan", "no market at the venue"],
)
def test_without_a_market_step_the_auctions_step_is_the_next_price(plan: Plan, session: ChaseSession) -> None:
    decision = next_step(CHECKED, plan, now=NOW, session=session)
    assert (decision.action, decision.retry) == (Action.CANCEL, 1)


def test_the_auctions_step_keeps_its_place_until_the_result_is_in_the_list() -> None:
    placed_in_it = replace(CHECKED, retries=1, created_at=NOW - SECOND)
    decision = next_step(placed_in_it, PLAN, now=NOW, session=AUCTION)
    assert AUCTION.auction_until is not None
    assert (decision.action, decision.until) == (Action.WAIT, AUCTION.auction_until + AUCTION_RESULT_AFTER)
    from_before = replace(placed_in_it, created_at=NOW - timedelta(minutes=2))
    assert action_of(from_before, session=AUCTION) is Action.CANCEL


def test_in_an_auction_a_chase_without_a_step_left_keeps_its_place() -> None:
    last = replace(CHECKED, retries=4, created_at=NOW - timedelta(minutes=2))
    assert action_of(last, session=AUCTION) is Action.WAIT
    assert action_of(last) is Action.CANCEL, "outside of one nothing is left resting that nobody watches"


# --- the plan --------------------------------------------------------------------------------------------------------


def test_after_three_retries_comes_the_market_and_then_nothing() -> None:
    assert [goes_to_market(retry, PLAN) for retry in (1, 2, 3, 4)] == [False, False, False, True]
    assert action_of(replace(CANCELLED, retries=3)) is Action.REORDER
    assert action_of(replace(CANCELLED, retries=4)) is Action.END


def test_nothing_is_nearer_than_a_market_order() -> None:
    assert action_of(replace(CANCELLED, retries=1, is_at_market=True)) is Action.END


def test_without_the_market_at_last_the_retries_are_all() -> None:
    plan = replace(PLAN, market_after=False)
    assert action_of(replace(CANCELLED, retries=2), plan=plan) is Action.REORDER
    assert action_of(replace(CANCELLED, retries=3), plan=plan) is Action.END


NEVER_ARRIVED = replace(RESTING, status=Status.REJECTED, never_arrived=True, lost=1)


def test_an_order_that_never_arrived_is_sent_again_in_its_own_turn() -> None:
    assert next_step(NEVER_ARRIVED, PLAN, now=NOW).retry == 1
    assert action_of(replace(NEVER_ARRIVED, never_arrived=False)) is Action.END
    assert action_of(NEVER_ARRIVED, may_order=False) is Action.WAIT
    assert action_of(replace(NEVER_ARRIVED, lost=MAX_LOST)) is Action.END


def test_a_cancel_says_which_reorder_is_to_follow() -> None:
    assert next_step(CHECKED, PLAN, now=NOW).retry == 1
    assert next_step(replace(CHECKED, retries=3), PLAN, now=NOW).retry == 4
    assert next_step(replace(CHECKED, retries=4), PLAN, now=NOW).retry == 0


def test_a_chase_by_amend_cancels_only_to_go_to_the_market() -> None:
    amended = replace(CHECKED, by=ChaseBy.AMEND)
    assert action_of(amended) is Action.AMEND
    assert action_of(replace(amended, retries=3)) is Action.CANCEL
    assert action_of(replace(amended, remaining_qty=0)) is Action.CANCEL


def test_a_stock_that_is_held_holds_the_chase() -> None:
    quote = Quote("005930", Market.KRX, 70_000, 70_000, 91_000, 49_000, is_halted=False)
    assert why_held(quote) == ""
    assert why_held(replace(quote, in_vi=True))
    assert why_held(replace(quote, is_halted=True))
