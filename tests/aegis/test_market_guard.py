from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.market_halts import BEGINS, ENDS, FallLimits, HaltKind, Points, fallen
from aegis.sessions import KST

D = Decimal
MORNING = datetime(2026, 11, 23, 10, 0, tzinfo=KST)
BOTH = FallLimits(from_open_percent=D(3), percent=D("1.5"), seconds=300)


def path(*steps: tuple[int, str]) -> list[Points]:
    """An index by seconds and points."""
    return [Points(MORNING + timedelta(seconds=second), D(points)) for second, points in steps]


def code(seen: list[Points], opened: str | None = "400", limits: FallLimits = BOTH) -> str:
    reason = fallen("KOSPI", seen, None if opened is None else D(opened), limits)
    return reason.code if reason else ""


@pytest.mark.parametrize(("now", "wanted"), [("388.01", ""), ("388", "INDEX_FALL"), ("300", "INDEX_FALL")])
def test_a_fall_from_the_open_counts_from_its_percent_on(now: str, wanted: str) -> None:
    assert code(path((0, now))) == wanted


@pytest.mark.parametrize(
    ("steps", "wanted"),
    [
        ([(0, "400"), (300, "394")], "INDEX_DROP"),
        ([(0, "400"), (301, "394")], ""),
        ([(0, "396"), (100, "400"), (200, "394")], "INDEX_DROP"),
        ([(0, "400"), (300, "394.01")], ""),
        ([(0, "394"), (300, "400")], ""),
    ],
)
def test_a_drop_counts_within_its_seconds(steps: list[tuple[int, str]], wanted: str) -> None:
    assert code(path(*steps)) == wanted


def test_what_is_left_out_never_counts() -> None:
    falling = path((0, "400"), (10, "200"))
    assert code(falling, limits=FallLimits()) == ""
    assert code(falling, opened=None, limits=FallLimits(from_open_percent=D(3))) == ""
    assert code([]) == ""


@given(st.lists(st.decimals(1, 1_000, places=2), min_size=1, max_size=20))
def test_a_rising_index_is_no_reason(points: list[D]) -> None:
    seen = path(*((second, str(each)) for second, each in enumerate(sorted(points))))
    assert fallen("KOSPI", seen, seen[0].points, BOTH) is None


def test_every_halt_that_begins_can_end() -> None:
    assert set(BEGINS.values()) == set(ENDS.values()) == set(HaltKind)
    assert not BEGINS.keys() & ENDS.keys()
