"""Whatever happens, in whatever order: nothing is sent twice, nothing fills over, and the ledgers end equal."""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from aegis.guards import TradingState
from tests.conftest import MOST_WORKERS
from tests.histories.conftest import Play
from tests.histories.history import CRASHES, WANTS, WIRE_CRASHES

COUNT = int(os.environ.get("HISTORIES", "40"))
# so many at once, where many are wanted
PARTS = min(os.cpu_count() or 1, MOST_WORKERS) if "HISTORIES" in os.environ else 1
NOTHING = st.just("")


def _mostly_nothing(values: Any) -> st.SearchStrategy[str]:
    return st.one_of(NOTHING, NOTHING, st.sampled_from(sorted(values)))


LOST = ("answer_lost", "request_lost", "timeout_accepted", "timeout_unaccepted", "broken_json", "error_500", "too_fast")
CRASH = _mostly_nothing([*CRASHES, *WIRE_CRASHES])
NO_WORDS = st.just({})
ACTIONS = st.one_of(
    st.tuples(st.just("order"), st.integers(0, len(WANTS) - 1), _mostly_nothing(LOST), CRASH, NO_WORDS),
    st.tuples(st.just("again"), st.integers(0, 5), _mostly_nothing(LOST), NO_WORDS),
    st.tuples(st.just("move"), st.integers(0, 1), st.integers(-4, 4), NO_WORDS),
    st.tuples(
        st.just("work"),
        st.integers(1, 3),
        _mostly_nothing([*LOST, "overtaken"]),
        CRASH,
        st.fixed_dictionaries({"races": st.booleans()}),
    ),
    st.tuples(
        st.just("look"),
        _mostly_nothing(["order_missing", "duplicate_rows", "empty_list", "dict_for_list", "error_500"]),
        NO_WORDS,
    ),
    st.tuples(st.just("hear"), st.sampled_from(["in order", "backwards", "twice", "lost", "old"]), CRASH, NO_WORDS),
    st.tuples(st.just("hand"), st.integers(0, 1), st.integers(1, 20), NO_WORDS),
    st.tuples(st.just("switch"), st.sampled_from(list(TradingState)), NO_WORDS),
    st.tuples(st.just("balance"), NO_WORDS),
)


@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_breaks_the_ledger(play_history: Play, report: None, part: int) -> None:
    @settings(
        max_examples=len(range(part, COUNT, PARTS)),
        deadline=None,
        database=None,
        derandomize="HISTORIES" not in os.environ,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.lists(ACTIONS, min_size=1, max_size=9))
    def histories(actions: list[tuple[Any, ...]]) -> None:
        wrongs = play_history(actions)
        assert not any(wrongs.values()), f"{wrongs} after {actions}"

    histories()
