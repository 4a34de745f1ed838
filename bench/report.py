"""What a benchmark hands in: a ratio, the goal it should meet, and whom it was measured against."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Row:
    """A ratio taken in one run. `at_least` tells whether the goal is a floor or a ceiling."""

    name: str
    ratio: float
    goal: float
    against: str
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal


def rates(cases: Mapping[str, Callable[[], object]], *, calls: int) -> dict[str, float]:
    """Return calls a second of each case, the median of rounds in which they take turns."""
    seen: dict[str, list[float]] = {name: [] for name in cases}
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, case in cases.items():
                began = time.perf_counter()
                for _ in range(calls):
                    case()
                seen[name].append(calls / (time.perf_counter() - began))
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in seen.items()}
