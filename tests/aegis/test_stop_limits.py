"""A limit between two won is the last whole price inside what was asked for."""

from decimal import Decimal

import pytest

from aegis.stops import Rule, StopKind, StopUnit, trigger_limit

AVERAGE = Decimal("70001")


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (Rule(StopKind.STOP_LOSS, StopUnit.PERCENT, Decimal(5), AVERAGE), 66_500),  # 66,500.95
        (Rule(StopKind.TAKE_PROFIT, StopUnit.PERCENT, Decimal(5), AVERAGE), 73_502),  # 73,501.05
        (Rule(StopKind.TRAILING, StopUnit.PERCENT, Decimal(5), AVERAGE, high=80_001), 76_000),  # 76,000.95
        (Rule(StopKind.STOP_LOSS, StopUnit.ATR, Decimal(2), AVERAGE, atr=Decimal("1500.25")), 67_000),  # 67,000.5
    ],
)
def test_a_falling_limit_is_rounded_down_and_a_rising_one_up(rule: Rule, expected: int) -> None:
    assert trigger_limit(rule) == expected
