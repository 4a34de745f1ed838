from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.terms import Instrument
from aegis.ticks import adjust_price_to_tick, daily_limits, get_tick_size, is_on_tick, step

prices = st.integers(min_value=1, max_value=3_000_000)
instruments = st.sampled_from(Instrument)


class QuotedTick(NamedTuple):
    """The part of a quote that the tick depends on."""

    price: int
    tick: int


@pytest.mark.parametrize(
    ("price", "tick"),
    [
        (1, 1),
        (1_999, 1),
        (2_000, 5),
        (4_999, 5),
        (5_000, 10),
        (19_999, 10),
        (20_000, 50),
        (49_999, 50),
        (50_000, 100),
        (199_999, 100),
        (200_000, 500),
        (499_999, 500),
        (500_000, 1_000),
        (2_000_000, 1_000),
    ],
)
def test_the_tick_of_a_share_changes_at_the_edges_of_the_users_table(price: int, tick: int) -> None:
    assert get_tick_size(price) == tick


@pytest.mark.parametrize(("price", "tick"), [(1_999, 1), (2_000, 5), (60_000, 5), (900_000, 5)])
def test_a_fund_has_two_tiers_only(price: int, tick: int) -> None:
    assert get_tick_size(price, Instrument.ETF) == tick


@pytest.mark.parametrize("price", [5, 150, 1_999, 2_000, 12_000, 900_000])
def test_a_warrant_moves_by_five_won_at_every_price(price: int) -> None:
    assert get_tick_size(price, Instrument.ELW) == 5


def test_a_quoted_tick_that_contradicts_the_ladder_holds_at_every_price() -> None:
    # a warrant that the list of stocks calls a share
    quoted = QuotedTick(price=150, tick=5)
    assert [get_tick_size(price, quoted=quoted) for price in (150, 1_999, 60_000)] == [5, 5, 5]
    assert adjust_price_to_tick(153, "down", quoted=quoted) == 150
    assert adjust_price_to_tick(153, "up", quoted=quoted) == 155
    assert (is_on_tick(151, quoted=quoted), is_on_tick(155, quoted=quoted)) == (False, True)
    assert (step(150, 2, quoted=quoted), step(150, -2, quoted=quoted)) == (160, 140)


@pytest.mark.parametrize("tick", [50, 100])
def test_at_an_edge_a_quote_may_tell_either_tick_of_the_ladder(tick: int) -> None:
    assert step(50_000, 1, quoted=QuotedTick(50_000, tick)) == 50_100


@pytest.mark.parametrize("quoted", [None, QuotedTick(199_900, 100), QuotedTick(199_900, 0)])
def test_a_quoted_tick_that_is_the_ladders_or_not_told_leaves_the_other_tiers_as_they_are(
    quoted: QuotedTick | None,
) -> None:
    assert step(199_900, 2, quoted=quoted) == 200_500
    assert get_tick_size(200_000, quoted=quoted) == 500


@pytest.mark.parametrize(
    ("price", "down", "up"),
    [(4_998, 4_995, 5_000), (49_999, 49_950, 50_000), (50_050, 50_000, 50_100), (70_100, 70_100, 70_100)],
)
def test_a_price_is_moved_onto_the_grid(price: int, down: int, up: int) -> None:
    assert adjust_price_to_tick(price, "down") == down
    assert adjust_price_to_tick(price, "up") == up


def test_the_grid_is_met_downwards_unless_said_otherwise() -> None:
    assert adjust_price_to_tick(70_150) == 70_100


@given(prices, instruments)
def test_both_ways_end_on_the_grid_less_than_a_tick_away(price: int, instrument: Instrument) -> None:
    tick = get_tick_size(price, instrument)
    down = adjust_price_to_tick(price, "down", instrument)
    up = adjust_price_to_tick(price, "up", instrument)
    assert down <= price <= up
    assert price - down < tick
    assert up - price < tick
    assert is_on_tick(up, instrument)
    assert down == 0 or is_on_tick(down, instrument)


@pytest.mark.parametrize(
    ("price", "ticks", "there"),
    [
        (1_999, 1, 2_000),
        (2_000, 1, 2_005),
        (2_000, -1, 1_999),
        (200_000, -1, 199_900),
        (200_000, 1, 200_500),
        (499_500, 2, 501_000),
        (1, -1, 1),
    ],
)
def test_steps_change_size_at_the_edges(price: int, ticks: int, there: int) -> None:
    assert step(price, ticks) == there


@given(prices.filter(lambda price: price > 105), st.integers(min_value=-20, max_value=20), instruments)
def test_a_step_there_and_back_is_no_step(price: int, ticks: int, instrument: Instrument) -> None:
    start = adjust_price_to_tick(price, "down", instrument)
    assert step(step(start, ticks, instrument), -ticks, instrument) == start


def test_the_daily_limits_are_those_the_broker_shows() -> None:
    # tests/samples/kis/rest_inquire_price_live_005930_20250725.json
    assert daily_limits(66_000) == (46_200, 85_800)


@given(st.integers(min_value=100, max_value=2_000_000), instruments)
def test_the_daily_limits_lie_on_the_grid_within_thirty_percent(price: int, instrument: Instrument) -> None:
    base = adjust_price_to_tick(price, "down", instrument)
    lowest, highest = daily_limits(base, instrument)
    assert is_on_tick(lowest, instrument)
    assert is_on_tick(highest, instrument)
    assert base * 0.7 <= lowest <= base <= highest <= base * 1.3
