"""The one clock: what time the market has, in Korea.

Live and paper run on the machine's clock. A rehearsal may shift it, for every process at once, by a
small file that `AEGIS_CLOCK_FILE` names: `{"real": 1763..., "market": 1763..., "speed": 1.0}`, two
POSIX times of the same instant and how fast market time runs. The file is read again when it changes.
"""

import json
import os
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from aegis.sessions import KST

VARIABLE = "AEGIS_CLOCK_FILE"


@dataclass(frozen=True, slots=True)
class ClockOffset:
    """Market time = `market` + (real time - `real`) × `speed`, all POSIX seconds."""

    real: float
    market: float
    speed: float = 1.0

    def apply(self, real_now: float) -> float:
        return self.market + (real_now - self.real) * self.speed


UNSHIFTED = ClockOffset(0.0, 0.0)
_cached: tuple[int, str, ClockOffset] | None = None


def shift() -> ClockOffset:
    """Return the shift in force. A file that is named but absent shifts nothing."""
    global _cached
    path = os.environ.get(VARIABLE)
    if not path:
        return UNSHIFTED
    try:
        changed_ns = os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return UNSHIFTED
    if _cached is None or _cached[:2] != (changed_ns, path):
        _cached = changed_ns, path, ClockOffset(**json.loads(Path(path).read_text(encoding="ascii")))
    return _cached[2]


def now() -> datetime:
    """Return the market's present moment, aware, in Korean time."""
    return datetime.fromtimestamp(shift().apply(time.time()), KST)


def real_seconds(market_seconds: float) -> float:
    """Return how many real seconds `market_seconds` of market time take."""
    return market_seconds / shift().speed


def set_now(moment: datetime, *, speed: float = 1.0) -> None:
    """Make `moment` the present for every process that shares the clock file.

    Raises RuntimeError where no clock file is named: outside a rehearsal time is not ours to set.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        raise RuntimeError(f"{VARIABLE} is not set: only a rehearsal may set the clock")
    words = json.dumps({"real": time.time(), "market": moment.timestamp(), "speed": speed})
    draft = Path(f"{path}.{os.getpid()}")
    draft.write_text(words, encoding="ascii")
    draft.replace(path)
