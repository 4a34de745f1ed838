"""What may happen in a history, drawn by the dice of its number: the same number is the same history.

What chance alone would seldom bring about has a scene of its own: what leads to it, and it.
"""

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Any

from aegis.trading_state import TradingState
from simulator.api.list_printing import CHOICES
from tests.histories.history import (
    CHANGES,
    CRASHES,
    EXTERNAL,
    HOURS,
    LOSES,
    ON_NXT,
    RESTS_FAR,
    UNPRICED,
    WANTS,
    WIRE_CRASHES,
)

Action = tuple[Any, ...]

# answers that are lost, though the broker has done what was asked; and all others
DONE_ALL_THE_SAME = ("answer_lost", "timeout_accepted", "broken_json", "error_500")
LOST = (*DONE_ALL_THE_SAME, "request_lost", "timeout_unaccepted", "too_fast")
LISTS = (
    "order_missing",
    "duplicate_rows",
    "empty_list",
    "dict_for_list",
    "error_500",
    "list_lag",
    "row_unreadable",
)
CHANGE_FAULTS = (*LOST, "overtaken", "cancel_ignored", "receipt_without_number")
CRASH_POINTS = (*CRASHES, *WIRE_CRASHES)
BETWEEN_CANCEL_AND_REORDER = ("before the re-order", "after cancel")
HEARD = ("in order", "backwards", "twice", "lost", "old")
FEWEST_PARTS, MOST_PARTS = 2, 5
NO_WORDS: dict[str, Any] = {}


@dataclass(frozen=True, slots=True)
class Tale:
    """One history to play: what happens, how the exchange's lists print it, and how chases change their orders."""

    actions: tuple[Action, ...]
    printed: tuple[str, ...]
    chase_by: str


class Dice:
    """Draws one history after the other from one seed and their numbers."""

    def __init__(self, seed: str, number: int) -> None:
        self._random = Random(f"{seed}:{number}")
        self._kinds: list[Callable[[], Action]] = [
            self._order,
            self._again,
            self._move,
            self._work,
            self._look,
            self._hear,
            self._hand,
            self._external,
            self._switch,
            self._cancel,
            self._cancel_all,
            self._amend,
            self._vi,
            lambda: ("balance", NO_WORDS),
        ]

    def tale(self) -> Tale:
        parts = [self._part() for _ in range(self._random.randint(FEWEST_PARTS, MOST_PARTS))]
        printed = tuple(self._of(values) for values in CHOICES.values())
        return Tale(tuple(chain.from_iterable(parts)), printed, self._of(("cancel", "cancel", "amend")))

    # --- how

    def _of(self, values: Collection[Any]) -> Any:
        return self._random.choice(tuple(values))

    def _seldom(self, values: Iterable[str]) -> str:
        return str(self._of(tuple(values))) if self._is(1 / 3) else ""

    def _is(self, chance: float) -> bool:
        return self._random.random() < chance

    def _part(self) -> list[Action]:
        """Draw a scene, an order, or anything else."""
        (kind,) = self._random.choices(["scene", "order", "any"], [82, 8, 10])
        if kind == "scene":
            return self._scene()
        return [self._order() if kind == "order" else self._of(self._kinds)()]

    # --- single actions

    def _order(self) -> Action:
        crash = self._seldom(CRASH_POINTS)
        return ("order", self._random.randrange(len(WANTS)), self._seldom(LOST), crash, NO_WORDS)

    def _again(self) -> Action:
        return ("again", self._random.randrange(6), self._seldom(LOST), NO_WORDS)

    def _move(self) -> Action:
        return ("move", self._random.randrange(2), self._random.randint(-4, 4), NO_WORDS)

    def _work(self) -> Action:
        words = {"races": self._is(1 / 2), "external": self._seldom(EXTERNAL), "change": self._seldom(CHANGES)}
        crash = self._seldom(CRASH_POINTS)
        return ("work", self._random.randint(1, 3), self._seldom(CHANGE_FAULTS), crash, words)

    def _look(self) -> Action:
        return ("look", self._seldom(LISTS), NO_WORDS)

    def _hear(self) -> Action:
        return ("hear", self._of(HEARD), self._seldom(CRASH_POINTS), NO_WORDS)

    def _hand(self) -> Action:
        return ("hand", self._random.randrange(2), self._random.randint(1, 20), NO_WORDS)

    def _external(self) -> Action:
        return ("external", self._random.randrange(4), self._of(EXTERNAL), NO_WORDS)

    def _switch(self) -> Action:
        return ("switch", self._of(TradingState), NO_WORDS)

    def _cancel(self) -> Action:
        return ("cancel", self._random.randrange(4), self._seldom((*LOST, "cancel_ignored")), NO_WORDS)

    def _cancel_all(self) -> Action:
        return ("cancel_all", self._seldom((*LOST, "cancel_ignored")), NO_WORDS)

    def _amend(self) -> Action:
        words = {"part": self._is(1 / 2)}
        fault, crash = self._seldom(LOST), self._seldom(CRASH_POINTS)
        return ("amend", self._random.randrange(4), self._random.randint(-2, 2), fault, crash, words)

    def _vi(self) -> Action:
        return ("vi", self._random.randrange(2), NO_WORDS)

    # --- scenes

    def _scene(self) -> list[Action]:
        scenes: dict[Callable[[], list[Action]], int] = {
            self._hand_between_look_and_cancel: 9,
            self._night_between_cancel_and_reorder: 7,
            self._auction: 3,
            self._close: 3,
            self._unpriced: 2,
            self._twin: 2,
            self._change_before_sending: 7,
            self._amend_of_ours: 2,
            self._lost_change: 7,
            self._held_by_a_vi: 5,
            self._broken_list: 5,
        }
        (scene,) = self._random.choices(list(scenes), list(scenes.values()))
        return scene()

    def _chased(self, *wants: int) -> Action:
        return ("order", self._of(wants or (0, RESTS_FAR, RESTS_FAR)), "", "", NO_WORDS)

    def _hand_between_look_and_cancel(self) -> list[Action]:
        """The customer acts between the chase's look and its cancel, or its amend."""
        words = {"external": self._of(EXTERNAL), "races": self._is(1 / 2)}
        return [self._chased(), ("work", 3, "", "", words)]

    def _night_between_cancel_and_reorder(self) -> list[Action]:
        """The process is killed between the cancel and the re-order, and started again the next day."""
        work = ("work", 3, "", self._of(BETWEEN_CANCEL_AND_REORDER), NO_WORDS)
        looks: list[Action] = [("look", "", NO_WORDS)] if self._is(1 / 2) else []
        return [self._chased(RESTS_FAR), work, *looks, self._night()]

    def _night(self) -> Action:
        """The next day begins in the middle of trading more often than at its edges, where little can follow."""
        return ("night", self._of((*HOURS, "morning", "morning", "morning")), NO_WORDS)

    def _auction(self) -> list[Action]:
        return [self._chased(), ("hour", "closing auction", NO_WORDS), ("work", 3, "", "", NO_WORDS)]

    def _close(self) -> list[Action]:
        hour = ("hour", self._of(("after the close", "evening")), NO_WORDS)
        nights = [self._night()] if self._is(2 / 3) else []
        return [self._chased(0, RESTS_FAR, ON_NXT), hour, ("work", 3, "", "", NO_WORDS), *nights]

    def _unpriced(self) -> list[Action]:
        """The answer of an order sent without a price is lost, with one placed elsewhere that looks the same."""
        return [("order", self._of(UNPRICED), self._of(DONE_ALL_THE_SAME), "", NO_WORDS), ("twin", 0, NO_WORDS)]

    def _twin(self) -> list[Action]:
        """The same with an order that has a price, and a list that does not show all."""
        look = ("look", self._of(("row_unreadable", "list_lag")), NO_WORDS)
        want = self._of((0, RESTS_FAR))
        return [("order", want, self._of(DONE_ALL_THE_SAME), "", NO_WORDS), ("twin", 0, NO_WORDS), look]

    def _change_before_sending(self) -> list[Action]:
        change = "late" if self._is(2 / 5) else self._of(CHANGES)
        return [self._chased(RESTS_FAR), ("work", 3, "", "", {"change": change})]

    def _amend_of_ours(self) -> list[Action]:
        amend = ("amend", 0, self._of((-2, -1, 1, 2)), self._seldom(LOST), "", {"part": self._is(1 / 2)})
        return [("order", self._of((4, RESTS_FAR)), "", "", NO_WORDS), amend]

    def _lost_change(self) -> list[Action]:
        """The answer to a cancel or an amend is lost, of a chase or of a person."""
        fault = self._of(LOSES)
        by_chase: Action = ("work", 3, fault, "", {"races": self._is(1 / 2)})
        cancel: Action = ("cancel", 0, fault, NO_WORDS)
        amend: Action = ("amend", 0, 1, fault, "", {"part": self._is(1 / 2)})
        change = self._of((by_chase, cancel, cancel, amend))
        return [self._chased(RESTS_FAR), change]

    def _held_by_a_vi(self) -> list[Action]:
        return [self._chased(), ("vi", 0, NO_WORDS), ("work", 3, "", "", NO_WORDS)]

    def _broken_list(self) -> list[Action]:
        look = ("look", self._of(("row_unreadable", "list_lag")), NO_WORDS)
        return [self._chased(), ("work", self._random.randrange(3), "", "", NO_WORDS), look]
