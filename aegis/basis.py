"""The basis (베이시스) of the KOSPI200 future and the regime it indicates. Points and percent."""

from decimal import Decimal
from enum import StrEnum

POINT = Decimal("0.01")
RATE = Decimal("0.0001")
# source: spec, market macro
BACKWARDATION_BELOW_PCT = Decimal("-0.5")
CONTANGO_ABOVE_PCT = Decimal("0.5")


class Regime(StrEnum):
    BACKWARDATION = "BACKWARDATION"
    NEUTRAL = "NEUTRAL"
    CONTANGO = "CONTANGO"


def basis(spot: Decimal, future: Decimal) -> Decimal:
    """Return the market basis in points: the future minus the index (시장 베이시스)."""
    return (future - spot).quantize(POINT)


def basis_rate_pct(spot: Decimal, future: Decimal) -> Decimal:
    """Return the basis in percent of the index, four decimals. Raises ValueError if `spot` is not above 0."""
    if spot <= 0:
        raise ValueError(f"spot {spot}: an index above 0 points is needed")
    return ((future - spot) / spot * 100).quantize(RATE)


def regime(rate_pct: Decimal) -> Regime:
    """Return the regime of a basis rate: below -0.5 % backwardation, above 0.5 % contango, else neutral."""
    if rate_pct < BACKWARDATION_BELOW_PCT:
        return Regime.BACKWARDATION
    return Regime.CONTANGO if rate_pct > CONTANGO_ABOVE_PCT else Regime.NEUTRAL
