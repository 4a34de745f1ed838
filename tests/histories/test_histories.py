"""Whatever happens, in whatever order: nothing is sent twice, nothing fills over, and the ledgers end equal."""

import os
import traceback
from typing import Any

import pytest

from tests.conftest import MOST_WORKERS
from tests.histories.conftest import Play, Tally
from tests.histories.scenes import NO_WORDS, Action, Dice, Tale

COUNT = int(os.environ.get("HISTORIES", "40"))
SEED = os.environ.get("SEED", "0")
# so many at once, where many are wanted
PARTS = min(os.cpu_count() or 1, MOST_WORKERS) if "HISTORIES" in os.environ else 1
MOST_SHRINKS = 40


@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_breaks_the_ledger(play_history: Play, tally: Tally, report: None, part: int) -> None:
    broken: dict[int, Any] = {}
    for number in range(part, COUNT, PARTS):
        tale = Dice(SEED, number).tale()
        if found := _wrongs(play_history, tale.actions, tale, tally):
            broken[number] = found
    if broken:
        number = min(broken)
        tale = Dice(SEED, number).tale()
        actions, found = _shrunk(play_history, tale, broken[number])
        words = f"{found} after {actions}, printed {tale.printed}, chased by {tale.chase_by}"
        pytest.fail(f"histories {sorted(broken)} of seed {SEED} are broken; number {number}: {words}")


def _wrongs(play: Play, actions: tuple[Action, ...], tale: Tale, tally: Tally | None = None) -> dict[str, list[str]]:
    """Play a history and return what went wrong; what raises is wrong too."""
    try:
        found = play([("print_as", *tale.printed, NO_WORDS), *actions], chase_by=tale.chase_by, tally=tally)
    except Exception:  # noqa: BLE001 - whatever it is, it is wrong, and the other histories are played all the same
        if tally is not None:
            tally.counts.update(histories=1, raised=1)
        found = {"raised": [traceback.format_exc()]}
    return {kind: words for kind, words in found.items() if words}


def _shrunk(play: Play, tale: Tale, found: dict[str, list[str]]) -> tuple[tuple[Action, ...], dict[str, list[str]]]:
    """Leave out every action without which the history still goes wrong in the same way."""
    actions, kinds, tries, at = tale.actions, set(found), 0, 0
    while at < len(actions) and tries < MOST_SHRINKS:
        fewer, tries = (*actions[:at], *actions[at + 1 :]), tries + 1
        still = _wrongs(play, fewer, tale)
        if kinds & set(still):
            actions, found = fewer, still
        else:
            at += 1
    return actions, found
