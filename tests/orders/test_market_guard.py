"""When the whole market asks for care: falling indexes, circuit breakers, sidecars."""

from collections.abc import Callable
from datetime import datetime, timedelta
from decimal import Decimal

import pytest

from aegis.guards import TradingState
from aegis.market_guard import HaltKind
from aegis.sessions import KST
from kis import clock
from market.models import MarketMacro
from orders import guards, market_guard, switch
from orders.models import MarketHalt, SwitchChange

pytestmark = pytest.mark.django_db
CB, SELL = HaltKind.CIRCUIT_BREAKER, HaltKind.SELL_SIDECAR
TEN = datetime(2026, 11, 23, 10, 0, tzinfo=KST)


@pytest.fixture(autouse=True)
def _ten(clock_at: Callable[..., datetime]) -> None:
    clock_at("2026-11-23 10:00:00")


def minutes(*points: float, field: str = "kospi", until: datetime = TEN) -> None:
    """Write one minute after the other, the last at `until`."""
    for number, each in enumerate(reversed(points)):
        row, _ = MarketMacro.objects.get_or_create(time=until - timedelta(minutes=number))
        setattr(row, field, Decimal(str(each)))
        row.save()


def state() -> str:
    return guards.trading_state().value


@pytest.mark.parametrize(
    ("points", "after"),
    [
        ([3000, 2990, 2985, 2980], "ACTIVE"),
        ([3000, 2990, 2941], "ACTIVE"),  # -1.97 % within ten minutes
        ([3000, 2990, 2940], "REDUCING"),  # -2 %
        ([3000, *[3000 - 6 * n for n in range(1, 20)], 2880], "REDUCING"),  # -4 % from the open, slowly
        ([2880, 2900, 3000], "ACTIVE"),
        ([], "ACTIVE"),
    ],
)
def test_a_falling_index_turns_the_switch_to_sales_only(points: list[float], after: str) -> None:
    minutes(*points)
    market_guard.watch_indexes(TEN)
    assert state() == after


@pytest.mark.parametrize("field", ["kospi", "kosdaq", "kospi200"])
def test_every_index_is_watched_and_named(field: str) -> None:
    minutes(1000, 970, field=field)
    change = market_guard.watch_indexes(TEN)
    assert change is not None
    assert (change.is_trip, change.by) == (True, "AEGIS")
    assert market_guard.INDEXES[field] in change.reason


def test_an_older_fall_than_the_window_is_no_drop() -> None:
    minutes(3000, *[2935] * 12)
    assert market_guard.watch_indexes(TEN) is None


def test_what_a_person_saw_does_not_trip_again_but_a_further_fall_does() -> None:
    minutes(3000, 2930)
    market_guard.watch_indexes(TEN)
    switch.resume(by="kim", reason="seen", at=TEN)
    assert market_guard.watch_indexes(TEN) is None
    later = TEN + timedelta(minutes=2)
    minutes(2930, 2870, until=later)
    assert market_guard.watch_indexes(later) is not None
    assert state() == "REDUCING"


def test_a_stricter_switch_is_not_loosened() -> None:
    switch.halt(by="kim", reason="", at=TEN - timedelta(hours=2))
    minutes(3000, 2900)
    market_guard.watch_indexes(TEN)
    assert state() == "HALTED"


def test_bounds_of_zero_leave_the_guard_out(settings: object) -> None:
    settings.MAX_INDEX_FALL_PERCENT = settings.MAX_INDEX_DROP_PERCENT = 0
    minutes(3000, 1500)
    assert market_guard.watch_indexes(TEN) is None


def test_nothing_is_judged_on_a_day_that_does_not_trade() -> None:
    sunday = datetime(2026, 11, 22, 10, 0, tzinfo=KST)
    minutes(3000, 2000, until=sunday)
    assert market_guard.watch_indexes(sunday) is None


# --- halts


@pytest.mark.parametrize(("begins", "ends", "kind"), [("174", "175", CB), ("387", "388", SELL)])
def test_a_halt_halts_and_its_end_turns_the_switch_back(begins: str, ends: str, kind: HaltKind) -> None:
    market_guard.hear(begins, TEN)
    assert (state(), MarketHalt.objects.get().kind) == ("HALTED", kind)
    market_guard.hear(ends, TEN + timedelta(minutes=20))
    halt = MarketHalt.objects.get()
    assert (state(), halt.end_heard) == ("ACTIVE", True)
    assert [change.is_trip for change in SwitchChange.objects.all()] == [True, True]


def test_a_code_told_by_many_stocks_is_one_halt_and_one_turn() -> None:
    for _ in range(5):
        market_guard.hear("174", TEN)
    assert (MarketHalt.objects.count(), SwitchChange.objects.count()) == (1, 1)
    for _ in range(5):
        market_guard.hear("175", TEN)
    assert SwitchChange.objects.count() == 2


def test_a_person_who_turned_the_switch_meanwhile_is_not_overruled() -> None:
    market_guard.begin_halt(CB, TEN)
    switch.resume(by="kim", reason="", at=TEN)
    switch.halt(by="kim", reason="I wait", at=TEN)
    market_guard.end_halt(CB, TEN)
    assert state() == "HALTED"


def test_where_it_stood_is_where_it_goes_back_to() -> None:
    switch.reduce(by="kim", reason="", at=TEN)
    market_guard.begin_halt(CB, TEN)
    market_guard.end_halt(CB, TEN)
    assert state() == "REDUCING"


def test_a_switch_that_was_halted_already_stays_halted() -> None:
    switch.halt(by="kim", reason="", at=TEN)
    market_guard.begin_halt(CB, TEN)
    market_guard.end_halt(CB, TEN)
    assert (state(), SwitchChange.objects.count()) == ("HALTED", 1)


@pytest.mark.parametrize("order", [(CB, SELL), (SELL, CB)])
def test_of_two_halts_the_last_to_end_turns_it_back(order: tuple[HaltKind, HaltKind]) -> None:
    market_guard.begin_halt(SELL, TEN)
    market_guard.begin_halt(CB, TEN)
    market_guard.end_halt(order[0], TEN)
    assert state() == "HALTED"
    market_guard.end_halt(order[1], TEN)
    assert state() == "ACTIVE"


def test_an_end_that_nobody_heard_comes_by_the_clock() -> None:
    market_guard.begin_halt(CB, TEN)
    market_guard.end_forgotten(TEN + timedelta(minutes=35))
    assert state() == "HALTED"
    market_guard.end_forgotten(TEN + timedelta(minutes=36))
    assert (state(), MarketHalt.objects.get().end_heard) == ("ACTIVE", False)


def test_codes_of_ordinary_days_mean_nothing() -> None:
    for code in ("", "112", "129", "164", "AB1"):
        market_guard.hear(code, clock.now())
    assert (state(), MarketHalt.objects.count()) == (TradingState.ACTIVE.value, 0)
