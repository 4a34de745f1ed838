import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.lifecycle import DONE, MOVES, OPEN, UNSETTLED, Event, IllegalMove, Status, after, fill_event


def test_a_lost_answer_leaves_the_order_unknown() -> None:
    assert after(Status.SUBMITTING, Event.NO_ANSWER) is Status.UNKNOWN


def test_a_fill_overtakes_our_cancel() -> None:
    assert after(Status.CANCELLED, Event.FULLY_FILLED) is Status.FILLED
    assert after(Status.CANCELLED, Event.PART_FILLED) is Status.CANCELLED


def test_an_order_given_up_for_lost_may_turn_up() -> None:
    assert after(after(Status.UNKNOWN, Event.ABSENT), Event.ACCEPTED) is Status.PENDING


def test_a_filled_order_cannot_be_cancelled_or_refused() -> None:
    for event in (Event.CANCELLED, Event.REFUSED, Event.EXPIRED):
        with pytest.raises(IllegalMove):
            after(Status.FILLED, event)


def test_every_state_but_the_first_can_be_reached() -> None:
    assert set(MOVES.values()) == set(Status) - {Status.SUBMITTING}


def test_every_unsettled_state_has_a_way_out() -> None:
    for status in UNSETTLED:
        assert any(end != status for (start, _), end in MOVES.items() if start is status)


def test_states_are_open_or_done_or_in_doubt() -> None:
    assert set(Status) == UNSETTLED | DONE
    assert not UNSETTLED & DONE
    assert OPEN < UNSETTLED


@given(st.integers(min_value=1, max_value=10_000), st.integers(min_value=0, max_value=10_000))
def test_a_fill_is_full_only_when_all_of_it_is_there(qty: int, filled: int) -> None:
    event = fill_event(filled, qty)
    assert (event is Event.FULLY_FILLED) is (filled >= qty)
    assert (event is Event.UNFILLED) is (filled == 0)
