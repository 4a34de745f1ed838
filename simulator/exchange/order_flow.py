"""The crowd: the market's own order flow, drawn from the seed.

Each step of each stock has a fixed set of draws, which depends on the seed, the date, the code and the step number
only. So the same seed gives the same crowd on the same day, independent of customers' orders, clock jumps and
restarts.
"""

from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from hashlib import blake2b, shake_128
from math import exp, log

from aegis.terms import Side

LEVELS = 10

# fraction of steps that move the price up by one tick while it is near home; the same fraction moves it down
_MOVES_EACH_WAY = 0.09
# usual distance from home within a day, in percent
_STRAY_PCT = 1.5
# fraction of steps in which two crowd orders trade halfway between bid and ask
HALFWAY = 0.01
# a skipped minute moves the price one tick towards home per this many ticks of distance
TICKS_A_PULL = 25
_LEVEL_WORTH_WON = 45_000_000
NO_MOVE = 3  # the way (0 to 6) that does not move the price
_WAYS = bytes(byte % (2 * NO_MOVE + 1) for byte in range(256))


@dataclass(frozen=True, slots=True)
class Draw:
    """The crowd's random draws for one step."""

    price_move: float  # 0..1: low moves the price up, high moves it down
    taker: Side
    size: float  # of the usual quantity at one price, 0 to about 1
    changed_level: int  # 0..19: index of the level, of twenty, whose quantity changes
    level_sizes: bytes  # twenty bytes: quantity of each level relative to the usual one
    uniform: float  # 0..1, decides on rarer events


def draw_step(seed: int, day: date, code: str, step: int) -> Draw:
    """Return the draws of step `step` of `code` on `day`."""
    noise = blake2b(f"{seed}:{day:%Y%m%d}:{code}:{step}".encode(), digest_size=40).digest()
    return Draw(
        price_move=int.from_bytes(noise[0:2], "big") / 65_536,
        taker=Side.BUY if noise[2] & 1 else Side.SELL,
        size=(int.from_bytes(noise[3:5], "big") / 65_536) ** 3,
        changed_level=noise[5] % (2 * LEVELS),
        level_sizes=noise[6:26],
        uniform=int.from_bytes(noise[26:30], "big") / 2**32,
    )


def next_move(price_move: float, distance: int, tick_pct: float) -> int:
    """Return -1, 0 or +1 tick. The further `distance` from home (in ticks), the likelier a move back."""
    stray_ticks = max(2.0, _STRAY_PCT / tick_pct)
    pull = _MOVES_EACH_WAY * distance / (stray_ticks * stray_ticks)
    up = min(2 * _MOVES_EACH_WAY, max(0.0, _MOVES_EACH_WAY - pull))
    if price_move < up:
        return 1
    return -1 if price_move >= 1 - (2 * _MOVES_EACH_WAY - up) else 0


def usual_quantity(price: int, listed_shares: int) -> int:
    """Return the usual number of shares at one price: more for large caps, fewer for small ones."""
    worth = _LEVEL_WORTH_WON * min(3.0, max(0.2, (price * listed_shares / 1e13) ** 0.4))
    return max(10, int(worth / price))


def level_quantity(usual: int, size: int) -> int:
    """Return the shares of one level from its byte: 40 % to 160 % of the usual."""
    return max(1, usual * (40 + size * 120 // 255) // 100)


def walk(seed: int, day: date, code: str, minutes: range) -> tuple[bytes, bytes]:
    """Return the way bytes and the volume bytes of skipped minutes, one of each per minute.

    `minutes` count from midnight. A way is a number from 0 to 6. It moves the price by `way - NO_MOVE` ticks.
    """
    first, last = minutes.start // 60, (minutes.stop - 1) // 60
    hours = [
        shake_128(f"{seed}:{day:%Y%m%d}:{code}:hour:{hour}".encode()).digest(120) for hour in range(first, last + 1)
    ]
    selected = slice(minutes.start - first * 60, minutes.stop - first * 60)
    ways = b"".join(hour[:60] for hour in hours)[selected].translate(_WAYS)
    return ways, b"".join(hour[60:] for hour in hours)[selected]


@lru_cache(maxsize=4_096)
def skipped_quantities(usual: int) -> tuple[int, ...]:
    """Return, for each volume byte, the shares of one of a skipped minute's two trades: 30 % to 230 % of the usual."""
    return tuple(max(1, usual * (38 + volume) // 128) for volume in range(256))


def day_return(seed: int, day: date, code: str) -> tuple[float, float, float, float]:
    """Return the draws of a whole day: its return as a fraction, and numbers (0 to 1) that shape open, high and low."""
    noise = blake2b(f"{seed}:{day:%Y%m%d}:{code}:day".encode(), digest_size=12).digest()
    return_draw, b, c, d = (int.from_bytes(noise[i : i + 3], "big") / 2**24 for i in (0, 3, 6, 9))
    logistic = log((return_draw + 1e-6) / (1 - return_draw + 1e-6))
    return exp(max(-0.12, min(0.12, logistic * 0.009))) - 1, b, c, d
