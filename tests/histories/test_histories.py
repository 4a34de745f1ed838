"""Whatever happens, in whatever order: nothing is sent twice, nothing fills over, and the ledgers end equal."""

import os
from itertools import chain
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aegis.guards import TradingState
from kis.simulator.printing import CHOICES
from tests.conftest import MOST_WORKERS
from tests.histories.conftest import Play
from tests.histories.history import CHANGES, CRASHES, EXTERNAL, HOURS, ON_NXT, RESTS_FAR, UNPRICED, WANTS, WIRE_CRASHES

COUNT = int(os.environ.get("HISTORIES", "40"))
# so many at once, where many are wanted
PARTS = min(os.cpu_count() or 1, MOST_WORKERS) if "HISTORIES" in os.environ else 1
NOTHING = st.just("")
NO_WORDS: dict[str, Any] = {}

LOST = ("answer_lost", "request_lost", "timeout_accepted", "timeout_unaccepted", "broken_json", "error_500", "too_fast")
LISTS = (
    "order_missing",
    "duplicate_rows",
    "empty_list",
    "dict_for_list",
    "error_500",
    "list_lag",
    "row_unreadable",
)
CRASH_POINTS = sorted([*CRASHES, *WIRE_CRASHES])
PRINTED = [st.sampled_from(values) for values in CHOICES.values()]


def _mostly_nothing(values: Any) -> st.SearchStrategy[str]:
    return st.one_of(NOTHING, NOTHING, st.sampled_from(sorted(values)))


def _words(**words: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries(words)


CRASH = _mostly_nothing(CRASH_POINTS)
NONE = st.just(NO_WORDS)
ORDER = st.tuples(st.just("order"), st.integers(0, len(WANTS) - 1), _mostly_nothing(LOST), CRASH, NONE)
ONE = st.one_of(
    ORDER,
    st.tuples(st.just("again"), st.integers(0, 5), _mostly_nothing(LOST), NONE),
    st.tuples(st.just("move"), st.integers(0, 1), st.integers(-4, 4), NONE),
    st.tuples(
        st.just("work"),
        st.integers(1, 3),
        _mostly_nothing([*LOST, "overtaken", "cancel_ignored", "receipt_without_number"]),
        CRASH,
        _words(races=st.booleans(), external=_mostly_nothing(EXTERNAL), change=_mostly_nothing(CHANGES)),
    ),
    st.tuples(st.just("look"), _mostly_nothing(LISTS), NONE),
    st.tuples(st.just("hear"), st.sampled_from(["in order", "backwards", "twice", "lost", "old"]), CRASH, NONE),
    st.tuples(st.just("hand"), st.integers(0, 1), st.integers(1, 20), NONE),
    st.tuples(st.just("external"), st.integers(0, 3), st.sampled_from(sorted(EXTERNAL)), NONE),
    st.tuples(st.just("switch"), st.sampled_from(list(TradingState)), NONE),
    st.tuples(st.just("cancel"), st.integers(0, 3), _mostly_nothing([*LOST, "cancel_ignored"]), NONE),
    st.tuples(st.just("cancel_all"), _mostly_nothing([*LOST, "cancel_ignored"]), NONE),
    st.tuples(
        st.just("amend"),
        st.integers(0, 3),
        st.integers(-2, 2),
        _mostly_nothing(LOST),
        CRASH,
        _words(part=st.booleans()),
    ),
    st.tuples(st.just("vi"), st.integers(0, 1), NONE),
    st.tuples(st.just("balance"), NONE),
)


def _chased(want: int) -> tuple[Any, ...]:
    return ("order", want, "", "", NO_WORDS)


@st.composite
def _scene(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """A hazard that chance alone would seldom bring about: what leads to it, and it."""
    kind = draw(st.integers(0, 10))
    rests = draw(st.sampled_from([0, RESTS_FAR]))
    hour = draw(st.sampled_from(sorted(HOURS)))
    how = draw(st.sampled_from(sorted(EXTERNAL)))
    lost = draw(st.sampled_from(LOST))
    if kind in (0, 1, 10):  # the customer acts between the chase's look and its cancel, or its amend
        return [_chased(rests), ("work", 3, "", "", {"external": how, "races": draw(st.booleans())})]
    if kind == 2:  # killed between the cancel and the re-order, started again the next day
        work = ("work", 3, "", draw(st.sampled_from(["before the re-order", "after cancel"])), NO_WORDS)
        return [_chased(RESTS_FAR), work, ("look", "", NO_WORDS), ("night", hour, NO_WORDS)]
    if kind == 3:
        return [_chased(rests), ("work", draw(st.integers(0, 2)), "", "", NO_WORDS), ("night", hour, NO_WORDS)]
    if kind == 4:
        return [_chased(rests), ("hour", hour, NO_WORDS), ("work", 3, "", "", NO_WORDS)]
    if kind == 5:  # an order sent without a price, and its answer lost, with one that looks the same
        return [("order", draw(st.sampled_from(UNPRICED)), lost, "", NO_WORDS), ("twin", 0, NO_WORDS)]
    if kind == 6:
        return [
            ("order", rests, lost, "", NO_WORDS),
            ("twin", 0, NO_WORDS),
            ("look", draw(st.sampled_from(["row_unreadable", "list_lag"])), NO_WORDS),
        ]
    if kind == 7:
        change = draw(st.sampled_from(CHANGES))
        return [_chased(rests), ("work", 3, "", "", {"change": change})]
    if kind == 8:
        return [_chased(ON_NXT), ("hour", draw(st.sampled_from(["after the close", "evening"])), NO_WORDS)]
    return [_chased(rests), ("vi", 0, NO_WORDS), ("work", 3, "", "", NO_WORDS)]


@st.composite
def _part(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    """A scene as often as anything else: `one_of` would draw each kind of action as often as all scenes together."""
    kind = draw(st.integers(0, 9))
    if kind < 5:
        return draw(_scene())
    return [draw(ORDER if kind < 7 else ONE)]


ACTIONS = st.lists(_part(), min_size=2, max_size=5).map(lambda parts: list(chain(*parts)))


@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_breaks_the_ledger(play_history: Play, report: None, part: int) -> None:
    @settings(
        max_examples=len(range(part, COUNT, PARTS)),
        deadline=None,
        database=None,
        derandomize="SEED" not in os.environ,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(ACTIONS, st.tuples(*PRINTED), st.sampled_from(["cancel", "amend"]))
    def histories(actions: list[tuple[Any, ...]], printed: tuple[str, ...], chase_by: str) -> None:
        wrongs = play_history([("print_as", *printed, NO_WORDS), *actions], chase_by=chase_by)
        assert not any(wrongs.values()), f"{wrongs} after {actions}, printed {printed}, chased by {chase_by}"

    histories()
