"""The crowd: what the market does by itself, drawn from the seed.

Every step of every stock has its own fixed set of draws, made from the seed, the date, the code and
the step's number and from nothing else. So the same seed gives the same crowd on the same day,
whatever customers do, and a clock that jumps or a restart goes on where the day's stream stands.
"""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from hashlib import blake2b, shake_128
from math import exp, log

from aegis.terms import Side

LEVELS = 10

# the share of steps that move the price a tick up, and as many down, while it is near home
_MOVES_EACH_WAY = 0.09
# how far from home a day usually strays
_STRAY_PCT = 1.5
# how often two of the crowd meet halfway between bid and ask
HALFWAY = 0.01
# a skipped minute pulls the price home by one tick for every N ticks that it is away
TICKS_A_PULL = 25
_LEVEL_WORTH_WON = 45_000_000
STILL = 3  # the way that does not move the price
_WAYS = bytes(byte % (2 * STILL + 1) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Draw:
    """What the crowd wants in one step."""

    lean: float  # 0..1: low moves the price up, high moves it down
    taker: Side
    size: float  # of the usual quantity at one price, 0 to about 1
    touched: int  # 0..19: which of the twenty levels changes its quantity
    spread: bytes  # twenty bytes: how much each level holds, against the usual
    chance: float  # 0..1, for rarer things


def draw(seed: int, day: date, code: str, step: int) -> Draw:
    """Return step `step` of `code` on `day`."""
    noise = blake2b(f"{seed}:{day:%Y%m%d}:{code}:{step}".encode(), digest_size=40).digest()
    return Draw(
        lean=int.from_bytes(noise[0:2], "big") / 65_536,
        taker=Side.BUY if noise[2] & 1 else Side.SELL,
        size=(int.from_bytes(noise[3:5], "big") / 65_536) ** 3,
        touched=noise[5] % (2 * LEVELS),
        spread=noise[6:26],
        chance=int.from_bytes(noise[26:30], "big") / 2**32,
    )


def move(lean: float, away: int, tick_pct: float) -> int:
    """Return -1, 0 or +1 tick. The further `away` from home (in ticks) the likelier the way back."""
    stray_ticks = max(2.0, _STRAY_PCT / tick_pct)
    pull = _MOVES_EACH_WAY * away / (stray_ticks * stray_ticks)
    up = min(2 * _MOVES_EACH_WAY, max(0.0, _MOVES_EACH_WAY - pull))
    if lean < up:
        return 1
    return -1 if lean >= 1 - (2 * _MOVES_EACH_WAY - up) else 0


def usual_quantity(price: int, listed_shares: int) -> int:
    """Return how many shares usually wait at one price: large caps are deep, small ones thin."""
    worth = _LEVEL_WORTH_WON * min(3.0, max(0.2, (price * listed_shares / 1e13) ** 0.4))
    return max(10, int(worth / price))


def level_quantity(usual: int, spread: int) -> int:
    """Return what one level holds, given its byte: 40 % to 160 % of the usual."""
    return max(1, usual * (40 + spread * 120 // 255) // 100)


def walk(seed: int, day: date, code: str, minutes: range) -> tuple[bytes, bytes]:
    """Return one byte for the way and one for the volume of each skipped minute, counted from midnight.

    A way is a number from 0 to 6. It moves the price by `way - STILL` ticks.
    """
    first, last = minutes.start // 60, (minutes.stop - 1) // 60
    hours = [
        shake_128(f"{seed}:{day:%Y%m%d}:{code}:hour:{hour}".encode()).digest(120) for hour in range(first, last + 1)
    ]
    chosen = slice(minutes.start - first * 60, minutes.stop - first * 60)
    ways = b"".join(hour[:60] for hour in hours)[chosen].translate(_WAYS)
    return ways, b"".join(hour[60:] for hour in hours)[chosen]


@lru_cache(maxsize=4_096)
def skipped_quantities(usual: int) -> tuple[int, ...]:
    """Return, for each volume byte, the shares of one of a skipped minute's two trades: 30 % to 230 % of the usual."""
    return tuple(max(1, usual * (38 + volume) // 128) for volume in range(256))


def day_return(seed: int, day: date, code: str) -> tuple[float, float, float, float]:
    """Return a whole day seen from afar: close against yesterday's, and open, high, low against its range."""
    noise = blake2b(f"{seed}:{day:%Y%m%d}:{code}:day".encode(), digest_size=12).digest()
    a, b, c, d = (int.from_bytes(noise[i : i + 3], "big") / 2**24 for i in (0, 3, 6, 9))
    logistic = log((a + 1e-6) / (1 - a + 1e-6))
    return exp(max(-0.12, min(0.12, logistic * 0.009))) - 1, b, c, d
