"""The clock of AEGIS: the present market time, in Korea.

Live and paper trading use the machine's clock. A rehearsal may shift it for all processes with the file
at `AEGIS_CLOCK_FILE`: `{"real": 1763..., "market": 1763..., "speed": 1.0}`, two POSIX times of the same
instant, and how fast market time runs. The file is read again when it changes.
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
    """Return the offset in force; none if the named file does not exist."""
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
    """Return the present market time, aware, in Korean time."""
    return datetime.fromtimestamp(shift().apply(time.time()), KST)


def real_seconds(market_seconds: float) -> float:
    """Return how many real seconds `market_seconds` of market time take."""
    return market_seconds / shift().speed


def set_now(moment: datetime, *, speed: float = 1.0) -> None:
    """Set the market time to `moment` for every process that shares the clock file.

    Raises RuntimeError if no clock file is named: only a rehearsal may set the time.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        raise RuntimeError(f"{VARIABLE} is not set: only a rehearsal may set the clock")
    payload = json.dumps({"real": time.time(), "market": moment.timestamp(), "speed": speed})
    temporary = Path(f"{path}.{os.getpid()}")
    temporary.write_text(payload, encoding="ascii")
    temporary.replace(path)
