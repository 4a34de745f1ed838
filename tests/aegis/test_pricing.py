from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.broker import Book, Level, Quote
from aegis.pricing import (
    Anchor,
    NoQuote,
    Offsets,
    Strategy,
    at_market,
    beyond_band,
    limit_price,
    price_band,
    strategies,
)
from aegis.terms import Instrument, Market, Side
from aegis.ticks import adjust_price_to_tick, daily_limits, is_on_tick

STOCK = Instrument.STOCK
THREE = Decimal(3)


def quote(price: int, base: int | None = None, instrument: Instrument = STOCK) -> Quote:
    lower, upper = daily_limits(base or price, instrument)
    return Quote("005930", Market.KRX, price, base or price, upper, lower, is_halted=False)


def book(ask: int, bid: int) -> Book:
    return Book("005930", Market.KRX, asks=(Level(ask, 100),), bids=(Level(bid, 100),))


def price_of(name: str, at: Quote, of: Book | None = None, ticks_closer: int = 0) -> int:
    return limit_price(strategies(Offsets())[name], at, of, STOCK, ticks_closer=ticks_closer, max_percent=THREE)


def offset(at: Quote, side: Side, ticks: int, instrument: Instrument = STOCK) -> int:
    strategy = Strategy("so many ticks", side, Anchor.LAST, ticks)
    return limit_price(strategy, at, None, instrument, max_percent=THREE)


def test_two_ticks_under_fifty_thousand_is_49_800() -> None:
    assert offset(quote(50_000), Side.BUY, -2) == 49_800


def test_three_ticks_over_fifty_thousand_is_50_300() -> None:
    assert offset(quote(50_000), Side.SELL, 3) == 50_300


def test_an_offset_counts_the_ticks_that_the_quote_tells() -> None:
    assert offset(replace(quote(1_500), tick=5), Side.BUY, -2) == 1_490


@pytest.mark.parametrize(
    ("name", "price"),
    [
        ("buy_normal", 79_800),
        ("buy_urgent", 80_100),
        ("sell_profit", 80_200),
        ("sell_stop", 80_000),
        ("sell_emergency", 79_900),
    ],
)
def test_each_strategy_prices_as_the_user_wrote_it(name: str, price: int) -> None:
    assert price_of(name, quote(80_000), book(ask=80_100, bid=80_000)) == price


def test_each_retry_comes_a_tick_nearer() -> None:
    assert [price_of("buy_normal", quote(80_000), ticks_closer=n) for n in range(4)] == [79_800, 79_900, 80_000, 80_100]
    assert [price_of("sell_profit", quote(80_000), ticks_closer=n) for n in range(4)] == [
        80_200,
        80_100,
        80_000,
        79_900,
    ]


def test_an_offset_never_leaves_three_percent() -> None:
    assert offset(quote(2_500), Side.BUY, -100) == 2_425
    assert offset(quote(2_500), Side.SELL, 100) == 2_575


def test_an_offset_never_leaves_the_days_limits() -> None:
    at_the_top = quote(85_800, base=66_000)
    assert offset(at_the_top, Side.SELL, 3) == 85_800
    at_the_bottom = quote(46_200, base=66_000)
    assert offset(at_the_bottom, Side.BUY, -3) == 46_200


def test_an_offset_counts_the_tick_of_the_current_price_even_over_an_edge() -> None:
    # 200,000 has a tick of 500: two of them, though the grid below is finer
    assert offset(quote(200_000), Side.BUY, -2) == 199_000


def test_a_price_between_ticks_is_aligned_down_for_a_buy_and_up_for_a_sale() -> None:
    midpoint = quote(67_050, base=67_000)
    assert offset(midpoint, Side.BUY, 0) == 67_000
    assert offset(midpoint, Side.SELL, 0) == 67_100


def test_an_urgent_buy_without_asks_has_no_price() -> None:
    empty = Book("005930", Market.KRX, asks=(), bids=(Level(80_000, 5),))
    with pytest.raises(NoQuote):
        price_of("buy_urgent", quote(80_000), empty)


@given(
    base=st.integers(min_value=200, max_value=1_500_000),
    drift=st.integers(min_value=-25, max_value=25),
    ticks=st.integers(min_value=-50, max_value=50),
    side=st.sampled_from(Side),
    instrument=st.sampled_from(Instrument),
)
def test_every_price_is_one_the_exchange_would_take(base, drift, ticks, side, instrument) -> None:
    base = adjust_price_to_tick(base, "down", instrument)
    lower, upper = daily_limits(base, instrument)
    last = min(max(adjust_price_to_tick(base * (100 + drift) // 100, "down", instrument), lower), upper)
    at = quote(last, base, instrument)
    price = offset(at, side, ticks, instrument)
    lowest, highest = price_band(at, instrument, THREE)
    assert is_on_tick(price, instrument)
    assert lower <= price <= upper
    assert lowest <= price <= highest
    assert abs(price - last) * 100 <= last * 3


@pytest.mark.parametrize(("last", "lowest", "highest"), [(1_018, 988, 1_048), (1_035, 1_004, 1_066), (1, 1, 1)])
def test_no_rounding_leaves_three_percent(last: int, lowest: int, highest: int) -> None:
    assert price_band(Quote("005930", Market.KRX, last, last, 9_999, 1, is_halted=False), STOCK, THREE) == (
        lowest,
        highest,
    )


@pytest.mark.parametrize(("side", "price"), [(Side.BUY, 80_100), (Side.SELL, 79_900)])
def test_a_market_order_that_must_name_a_price_names_the_best_opposite_one(side: Side, price: int) -> None:
    at = limit_price(at_market(side), quote(80_000), book(80_100, 79_900), STOCK, max_percent=THREE)
    assert at == price


@pytest.mark.parametrize(
    ("price", "is_beyond"), [(72_100, False), (72_101, True), (67_900, False), (67_899, True), (70_000, False)]
)
def test_a_chase_may_go_three_percent_from_its_arrival_and_not_a_won_further(price: int, is_beyond: bool) -> None:
    assert beyond_band(70_000, price, THREE) is is_beyond
