"""When the market as a whole asks for care: an index that falls, trading that the exchange stops.

Source of the codes: the broker's table of MKOP_CLS_CODE (H0STMKO0).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from types import MappingProxyType

from aegis.denials import Denial, DenialCode
from aegis.risk import gettext_noop


@dataclass(frozen=True, slots=True)
class FallLimits:
    """How far an index may fall, in percent: from the day's open, and within so many seconds. 0 leaves one out."""

    from_open_percent: Decimal = Decimal(0)
    percent: Decimal = Decimal(0)
    seconds: int = 0


@dataclass(frozen=True, slots=True)
class Points:
    """An index at a moment."""

    at: datetime
    points: Decimal


def fallen(name: str, seen: Sequence[Points], opened: Decimal | None, limits: FallLimits) -> Denial | None:
    """Return why an index is a reason to stop buying, None where it is none. `seen` has the oldest first.

    `opened` is what its whole fall is measured from: the open, or where it stood when a person last decided.
    """
    if not seen:
        return None
    now = seen[-1]
    if limits.from_open_percent and opened and _fall(opened, now.points) >= limits.from_open_percent:
        words = gettext_noop("{index} is {percent:.2f}% below where the day began: at {points}, from {before}")
        return Denial(DenialCode.INDEX_FALL, words, _figures(name, opened, now.points))
    window = timedelta(seconds=limits.seconds)
    highest = max(each.points for each in seen if now.at - each.at <= window)
    if limits.percent and limits.seconds and _fall(highest, now.points) >= limits.percent:
        words = gettext_noop("{index} fell {percent:.2f}% within {seconds} s: to {points}, from {before}")
        return Denial(DenialCode.INDEX_DROP, words, {**_figures(name, highest, now.points), "seconds": limits.seconds})
    return None


def _fall(before: Decimal, now: Decimal) -> Decimal:
    return (before - now) / before * 100


def _figures(name: str, before: Decimal, now: Decimal) -> dict[str, object]:
    return {"index": name, "percent": _fall(before, now), "points": now, "before": before}


class HaltKind(StrEnum):
    """What a market's operation code tells of. A sidecar stops programs only, which concerns no order of ours."""

    CIRCUIT_BREAKER = "CIRCUIT_BREAKER"  # 서킷브레이커: nothing trades for twenty minutes, then one auction
    SELL_SIDECAR = "SELL_SIDECAR"  # 사이드카 매도: programs may not sell for five minutes
    BUY_SIDECAR = "BUY_SIDECAR"  # 사이드카 매수

    @property
    def lasts_at_most(self) -> timedelta:
        """Return after which time it is over even where nobody heard of its end: its own, and some minutes."""
        return timedelta(minutes=35 if self is HaltKind.CIRCUIT_BREAKER else 7)


_CB, _SELL, _BUY = HaltKind.CIRCUIT_BREAKER, HaltKind.SELL_SIDECAR, HaltKind.BUY_SIDECAR
# UNVERIFIED: 184 and 185 stand beside 174 and 175 under the same name; frames of one real halt settle which come
BEGINS: Mapping[str, HaltKind] = MappingProxyType({"174": _CB, "184": _CB, "387": _SELL, "397": _BUY})
ENDS: Mapping[str, HaltKind] = MappingProxyType({"175": _CB, "182": _CB, "185": _CB, "388": _SELL, "398": _BUY})

# an index stands 8 % below its last close when a circuit breaker begins; what we know of it may be a minute old
BREAKER_FALL_PERCENT = Decimal(6)


@dataclass(frozen=True, slots=True)
class IndexDay:
    """An index now and at the last close, in points; None if it is not known, or not as of now."""

    now: Decimal | None
    last_close: Decimal | None

    @property
    def fall_percent(self) -> Decimal | None:
        if not self.now or not self.last_close:
            return None
        return (self.last_close - self.now) / self.last_close * 100


def is_stale(indexes: Sequence[IndexDay], *, had_one_today: bool) -> bool:
    """Whether the code of a circuit breaker is an old one, that a stock still carries.

    A frame comes when a stock enters or leaves a volatility interruption, and its code has no time. A circuit breaker
    begins only while an index is 8 % down; if no index says so, a second one on a day is not believed.
    """
    falls = [fall for index in indexes if (fall := index.fall_percent) is not None]
    if len(falls) == len(indexes) and falls:
        return max(falls) < BREAKER_FALL_PERCENT
    return had_one_today and not any(fall >= BREAKER_FALL_PERCENT for fall in falls)
