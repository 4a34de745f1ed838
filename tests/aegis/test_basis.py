from decimal import Decimal

import pytest

from aegis.basis import Regime, basis, basis_rate_pct, regime


def test_the_basis_is_what_the_future_stands_over_the_index() -> None:
    assert basis(Decimal("432.57"), Decimal("433.10")) == Decimal("0.53")
    assert basis_rate_pct(Decimal("400"), Decimal("398")) == Decimal("-0.5000")


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        ("-0.5001", Regime.BACKWARDATION),
        ("-0.5", Regime.NEUTRAL),
        ("0", Regime.NEUTRAL),
        ("0.5", Regime.NEUTRAL),
        ("0.5001", Regime.CONTANGO),
    ],
)
def test_the_regime_changes_beyond_half_a_percent(rate: str, expected: Regime) -> None:
    assert regime(Decimal(rate)) is expected


def test_an_index_of_nothing_has_no_basis() -> None:
    with pytest.raises(ValueError, match="spot 0"):
        basis_rate_pct(Decimal(0), Decimal(1))
