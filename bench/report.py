"""The result of a benchmark: a ratio, its goal, and what it was measured against."""

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Row:
    """A ratio measured in one run. `at_least`: the goal is a minimum, otherwise a maximum."""

    name: str
    ratio: float
    goal: float
    against: str
    at_least: bool = True

    @property
    def met(self) -> bool:
        return self.ratio >= self.goal if self.at_least else self.ratio <= self.goal


def rates(cases: Mapping[str, Callable[[], object]], *, calls: int) -> dict[str, float]:
    """Return the calls a second of each case: the median of rounds in which the cases take turns."""
    rates_by_name: dict[str, list[float]] = {name: [] for name in cases}
    gc.disable()
    try:
        for _ in range(ROUNDS):
            for name, case in cases.items():
                started_at = time.perf_counter()
                for _ in range(calls):
                    case()
                rates_by_name[name].append(calls / (time.perf_counter() - started_at))
    finally:
        gc.enable()
    return {name: statistics.median(values) for name, values in rates_by_name.items()}
