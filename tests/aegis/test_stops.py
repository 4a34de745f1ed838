"""Stops at their edges, and what holds for every rule and every price."""

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from aegis.stops import (
    DayRange,
    Fired,
    NewHigh,
    Rule,
    StopKind,
    StopUnit,
    adjust_for_ratio,
    average_true_range,
    evaluate,
    plausible,
    trigger_limit,
    why_invalid,
)
from aegis.terms import Instrument
from aegis.ticks import adjust_price_to_tick, daily_limits

D = Decimal
LOSS = Rule(StopKind.STOP_LOSS, StopUnit.PERCENT, D(5), D(70_000))
PROFIT = Rule(StopKind.TAKE_PROFIT, StopUnit.PERCENT, D(10), D(70_000))
TRAIL = Rule(StopKind.TRAILING, StopUnit.PERCENT, D(3), D(70_000), high=80_000)

ABOVE_ALL = 10**12
prices = st.integers(1, 5_000_000)
kinds = st.sampled_from(StopKind)


@st.composite
def rules(draw: st.DrawFn) -> Rule:
    """Any rule that may be armed at some price."""
    unit = draw(st.sampled_from(StopUnit))
    most = {StopUnit.PRICE: 1_000_000, StopUnit.PERCENT: 99, StopUnit.ATR: 20}[unit]
    value = D(draw(st.integers(1, most))) if unit is StopUnit.PRICE else draw(st.decimals("0.01", most, places=2))
    rule = Rule(
        draw(kinds),
        unit,
        value,
        draw(st.decimals(1, 5_000_000, places=4)),
        high=draw(prices),
        atr=draw(st.decimals("0.0001", 50_000, places=4)),
    )
    assume(why_invalid(rule, ABOVE_ALL if rule.kind.falls else 1) is None)
    return rule


@pytest.mark.parametrize(
    ("rule", "price", "fires"),
    [
        (LOSS, 66_501, False),
        (LOSS, 66_500, True),
        (LOSS, 1, True),  # a gap through the stop
        (PROFIT, 76_999, False),
        (PROFIT, 77_000, True),
        (PROFIT, 91_000, True),
        (TRAIL, 77_601, False),
        (TRAIL, 77_600, True),
        (replace(LOSS, unit=StopUnit.PRICE, value=D(60_000)), 60_001, False),
        (replace(LOSS, unit=StopUnit.PRICE, value=D(60_000)), 60_000, True),
        (replace(TRAIL, unit=StopUnit.PRICE, value=D(1_000)), 79_000, True),
        (replace(TRAIL, unit=StopUnit.PRICE, value=D(1_000)), 79_001, False),
        (replace(LOSS, unit=StopUnit.ATR, value=D(2), atr=D("1500.5")), 66_999, True),
        (replace(LOSS, unit=StopUnit.ATR, value=D(2), atr=D("1500.5")), 67_000, False),
    ],
)
def test_it_fires_at_its_limit_and_not_a_won_before(rule: Rule, price: int, fires: bool) -> None:
    assert evaluate(rule, price) == (Fired(price, trigger_limit(rule)) if fires else None)


@given(rules(), st.integers(-1_000, 0))
def test_a_price_of_nothing_is_nothing(rule: Rule, price: int) -> None:
    assert evaluate(rule, price) is None


@given(rules(), prices, prices)
def test_what_fires_at_a_price_fires_at_every_price_further_on(rule: Rule, one: int, other: int) -> None:
    near, far = (max(one, other), min(one, other)) if rule.kind.falls else (min(one, other), max(one, other))
    if isinstance(evaluate(rule, near), Fired):
        assert isinstance(evaluate(rule, far), Fired)


@given(rules(), prices)
def test_the_limit_is_the_last_price_inside_what_was_asked_for(rule: Rule, price: int) -> None:
    edge, away = trigger_limit(rule), 1 if rule.kind.falls else -1
    assert isinstance(evaluate(rule, edge), Fired) or (rule.kind is StopKind.TRAILING and edge > rule.high)
    assert not isinstance(evaluate(rule, edge + away), Fired)


@given(rules(), st.lists(prices, max_size=30))
def test_a_trailing_stop_remembers_the_highest_price_and_its_limit_never_falls(rule: Rule, path: list[int]) -> None:
    rule = replace(rule, kind=StopKind.TRAILING)
    highs, limits = [rule.high], [trigger_limit(rule)]
    for price in path:
        verdict = evaluate(rule, price)
        if isinstance(verdict, NewHigh):
            rule = replace(rule, high=verdict.price)
        elif isinstance(verdict, Fired):
            assert price <= trigger_limit(rule)
        highs.append(rule.high)
        limits.append(trigger_limit(rule))
    assert rule.high == max([highs[0], *path])
    assert limits == sorted(limits)


@given(rules(), prices)
def test_only_a_trailing_stop_has_a_high(rule: Rule, price: int) -> None:
    if rule.kind is not StopKind.TRAILING:
        assert not isinstance(evaluate(rule, price), NewHigh)


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (replace(LOSS, value=D(0)), "value 0: more than 0"),
        (replace(LOSS, value=D(-5)), "value -5: more than 0"),
        (replace(LOSS, value=D(100)), "not a valid price"),
        (replace(LOSS, unit=StopUnit.PRICE, value=D("60000.5")), "whole won"),
        (replace(TRAIL, unit=StopUnit.PRICE, value=D(80_000)), "not a valid price"),
        (replace(LOSS, unit=StopUnit.ATR, value=D(2)), "15 daily prices are needed"),
        (replace(LOSS, unit=StopUnit.ATR, value=D(2), atr=D(35_000)), "not a valid price"),
    ],
)
def test_a_rule_that_makes_no_sense_says_what_would(rule: Rule, words: str) -> None:
    assert words in str(why_invalid(rule, 70_000))


@pytest.mark.parametrize(
    ("rule", "price", "is_refused"),
    [
        (LOSS, 66_500, True),
        (LOSS, 66_501, False),
        (PROFIT, 77_000, True),
        (PROFIT, 76_999, False),
        (TRAIL, 77_600, True),
    ],
)
def test_a_rule_that_would_fire_at_once_is_refused(rule: Rule, price: int, is_refused: bool) -> None:
    reason = why_invalid(rule, price)
    assert (reason is not None) is is_refused
    assert reason is None or "fire at once" in str(reason)


def test_a_split_moves_amounts_of_won_with_the_price() -> None:
    assert adjust_for_ratio(D(60_000), D("0.2")) == D(12_000)


def test_the_true_range_reaches_back_to_the_close_before() -> None:
    days = [DayRange(110, 90, 100), DayRange(120, 115, 118), DayRange(119, 100, 101)]
    # from the close of 100 up to 120, then from the close of 118, inside the range of 119 to 100
    assert average_true_range(days, 2) == D("19.5")
    assert average_true_range(days, 3) is None


def test_days_without_a_trade_have_no_range() -> None:
    traded = [DayRange(67_500, 66_500, 67_000)] * 4
    halted = [DayRange(0, 0, 67_000)] * 3
    assert average_true_range([*traded[:2], *halted, *traded[2:]], 3) == average_true_range(traded, 3) == D(1_000)


@given(st.lists(st.tuples(prices, prices, prices), min_size=3, max_size=20))
def test_the_average_true_range_is_never_less_than_the_days_own_span(seen: list[tuple[int, int, int]]) -> None:
    days = [DayRange(max(each), min(each), each[2]) for each in seen]
    average = average_true_range(days, len(days) - 1)
    assert average is not None
    assert average >= D(sum(day.high - day.low for day in days[1:])) / (len(days) - 1) - D("0.0001")


@pytest.mark.parametrize(
    ("price", "is_fall"), [(49_000, True), (48_900, False), (91_000, True), (91_100, False), (14_000, False)]
)
def test_a_price_beyond_the_days_limits_is_no_fall(price: int, is_fall: bool) -> None:
    assert (price in plausible(70_000)) is is_fall


@given(close=prices, instrument=st.sampled_from(Instrument))
def test_both_limits_of_the_day_are_plausible(close: int, instrument: Instrument) -> None:
    close = adjust_price_to_tick(close, "up", instrument)  # no close lies between two ticks
    lowest, highest = daily_limits(close, instrument)
    assert lowest in plausible(close)
    assert highest in plausible(close)


def test_without_a_close_every_price_is_plausible() -> None:
    assert 1 in plausible(None)
    assert 5_000_000 in plausible(None)
