"""Which trades trigger a stop: each of KRX's main session, any other only with a second witness."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.sessions import DayKind, phases_of, standard_phases
from aegis.stops import (
    Fired,
    Hours,
    NewHigh,
    Rule,
    StopKind,
    StopTrade,
    StopUnit,
    TriggerRule,
    hours_of,
    is_new,
    second_of,
)
from aegis.terms import Market

D = Decimal
LOSS = Rule(StopKind.STOP_LOSS, StopUnit.PRICE, D(65_000), D(70_000))
PROFIT = Rule(StopKind.TAKE_PROFIT, StopUnit.PRICE, D(80_000), D(70_000))
TRAIL = Rule(StopKind.TRAILING, StopUnit.PERCENT, D(10), D(70_000), high=70_000)
LEAST = 10_000_000
SHARE = StopTrade(65_000, 0, value=65_000)


def fired(rule: Rule, *trades: StopTrade, least: int = LEAST) -> list[bool]:
    """Return which of the trades fired the rule, the first of them last."""
    trigger, verdicts = TriggerRule(rule, least), []
    for trade in trades:
        verdicts.append(isinstance(trigger.hear(trade), Fired))
        if verdicts[-1]:
            break
    return verdicts


def test_one_share_far_below_the_line_triggers_nothing() -> None:
    assert fired(LOSS, StopTrade(49_000, second_of("080001"), value=49_000)) == [False]


@pytest.mark.parametrize(
    "witness",
    [
        replace(SHARE, at=1),
        replace(SHARE, value=LEAST - 65_000),
        replace(SHARE, ask=65_000),
        replace(SHARE, counts_alone=True),
    ],
)
def test_a_second_witness_bears_it_out(witness: StopTrade) -> None:
    assert fired(LOSS, SHARE, witness) == [False, True]


@pytest.mark.parametrize(
    "trade",
    [
        replace(SHARE),  # within the same second
        replace(SHARE, at=1, price=65_001),  # inside the line
        replace(SHARE, ask=65_001, bid=64_900),
        replace(SHARE, ask=0),  # an empty side of the book says nothing
        replace(SHARE, value=LEAST - 65_001),
    ],
)
def test_what_is_no_second_witness(trade: StopTrade) -> None:
    assert fired(LOSS, SHARE, trade) == [False, False]


@pytest.mark.parametrize(
    "trade", [replace(SHARE, ask=64_900), replace(SHARE, value=LEAST), replace(SHARE, counts_alone=True)]
)
def test_what_needs_no_other(trade: StopTrade) -> None:
    assert fired(LOSS, trade) == [True]


def test_a_price_back_inside_the_line_begins_it_anew() -> None:
    inside = StopTrade(70_000, 1, value=70_000)
    assert fired(LOSS, SHARE, inside, replace(SHARE, at=2)) == [False, False, False]
    assert fired(LOSS, SHARE, inside, replace(SHARE, at=2), replace(SHARE, at=3)) == [False, False, False, True]


def test_without_a_least_value_no_value_is_a_witness() -> None:
    assert fired(LOSS, replace(SHARE, value=10**12), least=0) == [False]


def test_a_rise_is_borne_out_by_the_bid() -> None:
    share = StopTrade(91_000, 0, value=91_000)
    assert fired(PROFIT, replace(share, ask=91_000, bid=79_900)) == [False]
    assert fired(PROFIT, replace(share, bid=80_000)) == [True]


def test_one_share_at_the_upper_limit_lifts_no_high() -> None:
    trigger = TriggerRule(TRAIL, LEAST)
    assert trigger.hear(StopTrade(91_000, 1, value=91_000, bid=70_000)) is None
    assert trigger.hear(StopTrade(70_000, 5, value=35_000_000)) is None
    assert trigger.rule.high == 70_000


@pytest.mark.parametrize(
    ("trades", "high"),
    [
        ([StopTrade(91_000, 1), StopTrade(71_000, 2)], 71_000),  # what both reached
        ([StopTrade(71_000, 1), StopTrade(91_000, 2)], 71_000),
        ([StopTrade(71_000, 1), StopTrade(72_000, 2), StopTrade(73_000, 3)], 72_000),
        ([StopTrade(91_000, 1, bid=91_000)], 91_000),
        ([StopTrade(91_000, 1, bid=90_900)], 70_000),
        ([StopTrade(71_000, 1, value=LEAST)], 71_000),
        ([StopTrade(91_000, 1, value=91_000), StopTrade(71_000, 1, value=LEAST - 91_000)], 71_000),
        ([StopTrade(91_000, 1, counts_alone=True)], 91_000),
        ([StopTrade(91_000, 1), StopTrade(70_000, 2), StopTrade(91_000, 3)], 70_000),
    ],
)
def test_a_high_is_what_two_witnesses_reached(trades: Sequence[StopTrade], high: int) -> None:
    trigger = TriggerRule(TRAIL, LEAST)
    for trade in trades:
        trigger.hear(trade)
    assert trigger.rule.high == high


def test_a_rule_that_is_read_again_goes_on_and_an_edited_one_begins_anew() -> None:
    trigger = TriggerRule(LOSS, LEAST)
    trigger.hear(SHARE)
    assert trigger.with_rule(replace(LOSS), LEAST) is trigger
    moved = trigger.with_rule(replace(LOSS, value=D(66_000)), LEAST)
    assert not isinstance(moved.hear(replace(SHARE, at=2)), Fired)


@pytest.mark.parametrize(
    ("market", "clock", "alone"),
    [
        (Market.KRX, "085959", False),
        (Market.KRX, "090000", True),
        (Market.KRX, "152959", True),
        (Market.KRX, "153000", True),  # the closing auction's uncross
        (Market.KRX, "153029", True),
        (Market.KRX, "154000", False),  # at the closing price
        (Market.KRX, "160001", False),
        (Market.NXT, "080001", False),
        (Market.NXT, "100000", False),
        (Market.SOR, "100000", False),
    ],
)
def test_the_hours_in_which_a_trade_counts_alone(market: Market, clock: str, alone: bool) -> None:
    assert hours_of(standard_phases(date(2026, 11, 23))).count_alone(market, clock) is alone


def test_the_hours_move_with_a_late_open_and_an_unknown_day_has_none() -> None:
    assert hours_of(phases_of(date(2026, 11, 19), DayKind.EXAM)) == Hours("100000", "163100")
    assert hours_of(()) == Hours()
    assert not Hours().count_alone(Market.KRX, "100000")


@pytest.mark.parametrize(
    ("qty", "volume", "total", "new"), [(0, 5, 4, False), (1, 4, 4, False), (1, 3, 4, False), (1, 5, 4, True)]
)
def test_a_trade_raises_the_running_total(qty: int, volume: int, total: int, new: bool) -> None:
    assert is_new(qty, volume, total) is new


# --- what holds for every sequence of trades

seconds = st.integers(0, 6)
clocks = st.lists(seconds, min_size=1, max_size=12).map(sorted)


@st.composite
def sequences(draw: st.DrawFn) -> list[StopTrade]:
    prices = st.integers(64_990, 65_010)
    return [
        StopTrade(
            draw(prices),
            at,
            value=draw(st.sampled_from([65_000, 3_000_000, 6_000_000, LEAST])),
            ask=draw(st.sampled_from([0, 64_995, 65_000, 65_005])),
            bid=draw(st.sampled_from([0, 64_995, 65_000, 65_005])),
            counts_alone=draw(st.integers(0, 9)) == 0,
        )
        for at in draw(clocks)
    ]


def first_trigger(rule: Rule, line: int, trades: Sequence[StopTrade]) -> int | None:
    """Return which trade triggers, said another way: the first whose run of trades beyond the line has a witness."""
    falls = rule.kind.falls
    for number, trade in enumerate(trades):
        run: list[StopTrade] = []
        for each in reversed(trades[: number + 1]):
            if each.price > line if falls else each.price < line:
                break
            run.append(each)
        if not run:
            continue
        has_quote = 0 < trade.ask <= line if falls else trade.bid >= line
        has_value = trade.value >= LEAST or sum(each.value for each in run) >= LEAST
        has_second = any(trade.at - each.at >= 1 for each in run[1:])
        if trade.counts_alone or has_quote or has_value or has_second:
            return number
    return None


@given(sequences(), st.sampled_from([LOSS, replace(PROFIT, value=D(65_000))]))
def test_it_triggers_when_the_reference_says_so(trades: list[StopTrade], rule: Rule) -> None:
    trigger = TriggerRule(rule, LEAST)
    told = (number for number, trade in enumerate(trades) if isinstance(trigger.hear(trade), Fired))
    assert next(told, None) == first_trigger(rule, 65_000, trades)


@given(sequences())
def test_a_trade_that_does_not_concern_a_rule_changes_nothing(trades: list[StopTrade]) -> None:
    trigger = TriggerRule(replace(TRAIL, high=65_004, value=D("0.01")), LEAST)
    for trade in trades:
        is_concerned, before = trigger.concerns(trade.price), (trigger.rule, trigger.crossing, trigger.rise)
        verdict = trigger.hear(trade)
        if not is_concerned:
            assert verdict is None
            assert (trigger.rule, trigger.crossing, trigger.rise) == before


@given(sequences())
def test_every_high_was_reached_by_two_witnesses(trades: list[StopTrade]) -> None:
    trigger = TriggerRule(replace(TRAIL, high=64_995), LEAST)
    for number, trade in enumerate(trades):
        before = trigger.rule.high
        verdict = trigger.hear(trade)
        if not isinstance(verdict, NewHigh):
            assert trigger.rule.high == before
            continue
        high = verdict.price
        assert before < high <= trade.price
        is_alone = trade.counts_alone or trade.bid >= trade.price or trade.value >= LEAST
        reached = [each for each in trades[: number + 1] if each.price >= high]
        has_second = any(trade.at - each.at >= 1 for each in reached)
        assert (is_alone and high == trade.price) or has_second or sum(each.value for each in reached) >= LEAST


@given(st.lists(st.tuples(st.integers(1, 90_000), st.integers(0, 86_399)), max_size=12))
def test_single_shares_with_trades_inside_the_line_between_them_never_trigger(odd: list[tuple[int, int]]) -> None:
    """However far away they are: no second witness stands beside any of them."""
    loss, trail = TriggerRule(LOSS, LEAST), TriggerRule(TRAIL, LEAST)
    for price, at in sorted(odd, key=lambda each: each[1]):
        for trigger in (loss, trail):
            assert trigger.hear(StopTrade(price, at, value=price)) is None
            assert trigger.hear(StopTrade(68_000, at, value=68_000)) is None
    assert trail.rule.high == 70_000


def test_seconds_are_of_the_day() -> None:
    assert second_of("153059") == 55_859
