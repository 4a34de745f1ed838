"""Market-wide risk: a falling index, and trading halts by the exchange.

Source of the codes: the broker's table of MKOP_CLS_CODE (H0STMKO0).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

from aegis.denials import Denial, DenialCode, gettext_noop


@dataclass(frozen=True, slots=True)
class FallLimits:
    """How far an index may fall, in percent: from the day's open, and within `seconds`. 0 disables a limit."""

    from_open_percent: Decimal = Decimal(0)
    percent: Decimal = Decimal(0)
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Points:
    """The value of an index at one moment."""

    at: datetime
    points: Decimal


def fallen(name: str, values: Sequence[Points], opened: Decimal | None, limits: FallLimits) -> Denial | None:
    """Return the denial of buys that the fall of an index causes, None if there is none. `values` has the oldest first.

    `opened`, in points, is what the day's fall is measured from: the open, or the value when the operator last decided.
    """
    if not values:
        return None
    latest = values[-1]
    if limits.from_open_percent and opened and _fall(opened, latest.points) >= limits.from_open_percent:
        template = gettext_noop("{index} is {percent:.2f}% below where the day began: at {points}, from {before}")
        return Denial(DenialCode.INDEX_FALL, template, _figures(name, opened, latest.points))
    window = timedelta(seconds=limits.seconds)
    highest = max(value.points for value in values if latest.at - value.at <= window)
    if limits.percent and limits.seconds and _fall(highest, latest.points) >= limits.percent:
        template = gettext_noop("{index} fell {percent:.2f}% within {seconds} s: to {points}, from {before}")
        return Denial(
            DenialCode.INDEX_DROP, template, {**_figures(name, highest, latest.points), "seconds": limits.seconds}
        )
    return None


def _fall(before: Decimal, now: Decimal) -> Decimal:
    return (before - now) / before * 100


def _figures(name: str, before: Decimal, now: Decimal) -> dict[str, object]:
    return {"index": name, "percent": _fall(before, now), "points": now, "before": before}


class HaltKind(StrEnum):
    """What a market operation code announces. A sidecar stops program trading only, so it affects no order of ours."""

    CIRCUIT_BREAKER = "CIRCUIT_BREAKER"  # 서킷브레이커: nothing trades for twenty minutes, then one auction
    SELL_SIDECAR = "SELL_SIDECAR"  # 사이드카 매도: programs may not sell for five minutes
    BUY_SIDECAR = "BUY_SIDECAR"  # 사이드카 매수

    @property
    def max_duration(self) -> timedelta:
        """How long it lasts at most if no end was received: its own length and some minutes."""
        return timedelta(minutes=35 if self is HaltKind.CIRCUIT_BREAKER else 7)


_CB, _SELL, _BUY = HaltKind.CIRCUIT_BREAKER, HaltKind.SELL_SIDECAR, HaltKind.BUY_SIDECAR
# UNVERIFIED: the table has 184 and 185 under the same names as 174 and 175; frames of one real halt settle which are
# sent
BEGINS: Mapping[str, HaltKind] = MappingProxyType({"174": _CB, "184": _CB, "387": _SELL, "397": _BUY})
ENDS: Mapping[str, HaltKind] = MappingProxyType({"175": _CB, "182": _CB, "185": _CB, "388": _SELL, "398": _BUY})

# an index is 8 % below its last close when a circuit breaker begins; our value of it may be a minute old
BREAKER_FALL_PERCENT = Decimal(6)


@dataclass(frozen=True, slots=True)
class IndexDay:
    """An index now and at the last close, in points; None if a value is unknown, or `now` is stale."""

    now: Decimal | None
    last_close: Decimal | None

    @property
    def fall_percent(self) -> Decimal | None:
        if not self.now or not self.last_close:
            return None
        return (self.last_close - self.now) / self.last_close * 100


def is_stale(indexes: Sequence[IndexDay], *, had_one_today: bool) -> bool:
    """Whether the code of a circuit breaker is an old one that a stock still carries.

    A frame arrives when a stock enters or leaves a volatility interruption, and its code has no time. A circuit breaker
    begins only while an index is 8 % down. If not every index is known, a second one on a day (`had_one_today`) counts
    only if a known index has fallen that far.
    """
    falls = [fall for index in indexes if (fall := index.fall_percent) is not None]
    if len(falls) == len(indexes) and falls:
        return max(falls) < BREAKER_FALL_PERCENT
    return had_one_today and not any(fall >= BREAKER_FALL_PERCENT for fall in falls)
