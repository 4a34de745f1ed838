from dataclasses import replace
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.broker import Book, Level
from aegis.execution_quality import Family, Gap, book_sweep_price, measure, savings, total
from aegis.terms import Instrument, Market, Side
from aegis.ticks import step

BUY = Family(
    style="buy_normal",
    side=Side.BUY,
    instrument=Instrument.STOCK,
    on=date(2026, 11, 23),
    asked_qty=10,
    filled_qty=10,
    filled_amount=798_000,
    arrival_price=80_000,
    arrival_sweep_price=None,
)
SALE = replace(BUY, style="sell_profit", side=Side.SELL, filled_amount=802_000)
BOOK = Book(
    "005930", Market.KRX, asks=(Level(80_100, 5), Level(80_200, 3)), bids=(Level(80_000, 4), Level(79_900, 100))
)


def test_the_specifications_example_to_the_digit() -> None:
    """Spec §9.7: 80,000 won, bought two ticks cheaper; a market order would have paid a tick more."""
    quality = measure(BUY)
    assert quality is not None
    assert (quality.average, quality.market_price, quality.is_estimated) == (79_800, 80_100, True)
    assert quality.against_arrival == Gap(ticks=Decimal("-2.00"), bp=Decimal("-25.00"), won=-2_000)
    assert (quality.against_market.ticks, quality.against_market.won) == (Decimal("-3.00"), -3_000)


def test_a_sale_above_the_price_saves_as_a_buy_below_it_does() -> None:
    quality = measure(SALE)
    assert quality is not None
    assert quality.against_arrival == Gap(ticks=Decimal("-2.00"), bp=Decimal("-25.00"), won=-2_000)
    assert (quality.market_price, quality.against_market.won) == (79_900, -3_000)


def test_a_worse_price_costs() -> None:
    for family in (replace(BUY, filled_amount=801_000), replace(SALE, filled_amount=799_000)):
        quality = measure(family)
        assert quality is not None
        assert quality.against_arrival == Gap(ticks=Decimal("1.00"), bp=Decimal("12.50"), won=1_000)
        assert quality.against_market.won == 0


def test_a_sale_at_the_price_costs_nothing_and_not_minus_nothing() -> None:
    quality = measure(replace(SALE, filled_amount=800_000))
    assert quality is not None
    assert [str(quality.against_arrival.ticks), str(quality.against_arrival.bp)] == ["0.00", "0.00"]


def test_the_book_at_arrival_is_no_guess() -> None:
    quality = measure(replace(BUY, arrival_sweep_price=Decimal("80150")))
    assert quality is not None
    assert not quality.is_estimated
    assert quality.against_market == Gap(ticks=Decimal("-3.50"), bp=Decimal("-43.67"), won=-3_500)


def test_a_fund_moves_by_ticks_of_its_own() -> None:
    fund = replace(BUY, instrument=Instrument.ETF, arrival_price=10_000, filled_amount=99_900)
    quality = measure(fund)
    assert quality is not None
    assert (quality.against_arrival.ticks, quality.market_price) == (Decimal("-2.00"), 10_005)


@pytest.mark.parametrize("family", [replace(BUY, filled_qty=0, filled_amount=0), replace(BUY, arrival_price=0)])
def test_without_a_fill_or_a_price_at_arrival_there_is_nothing_to_measure(family: Family) -> None:
    assert measure(family) is None


@pytest.mark.parametrize(
    ("side", "qty", "average"),
    [
        (Side.BUY, 5, Decimal(80_100)),
        (Side.BUY, 8, Decimal(80_100 * 5 + 80_200 * 3) / 8),
        (Side.BUY, 10, Decimal(80_100 * 5 + 80_200 * 5) / 10),  # the last level stands for what is not shown
        (Side.SELL, 1, Decimal(80_000)),
        (Side.SELL, 8, Decimal(79_950)),
    ],
)
def test_a_market_order_walks_the_book(side: Side, qty: int, average: Decimal) -> None:
    assert book_sweep_price(BOOK, side, qty) == average


def test_an_empty_side_has_no_market_price() -> None:
    assert book_sweep_price(Book("005930", Market.KRX, (), ()), Side.BUY, 1) is None


def test_the_savings_table_is_the_specifications_where_its_expectations_come_true() -> None:
    """A quarter of a percent under the price is 2,500,000 won a year against it, as spec §9.7 has it."""
    at_best = replace(BUY, style="buy_urgent", filled_amount=800_000)
    normal, urgent = savings([BUY, at_best], trading_days=1)
    assert (urgent.style, urgent.arrival_pct, urgent.market_pct) == ("buy_urgent", Decimal("0.000"), Decimal("0.125"))
    assert urgent.yearly_usual_won == 1_250_000
    assert (normal.style, normal.arrival_pct, normal.market_pct) == ("buy_normal", Decimal("0.250"), Decimal("0.375"))
    assert normal.yearly_usual_won == 3_750_000
    assert (normal.saved_won, normal.yearly_own_won) == (3_000, 750_000)


def test_what_stays_unfilled_is_not_hidden() -> None:
    missed = replace(BUY, filled_qty=0, filled_amount=0)
    (line,) = savings([BUY, missed], trading_days=2)
    assert (line.families, line.filled_families, line.fill_pct) == (2, 1, Decimal("50.000"))
    assert (line.saved_won, line.yearly_own_won) == (3_000, 375_000)


def test_nothing_done_saves_nothing() -> None:
    assert savings([], trading_days=0) == []
    line = total([], trading_days=0)
    assert (line.families, line.market_pct, line.yearly_own_won) == (0, Decimal("0.000"), 0)


@given(
    side=st.sampled_from(Side),
    arrival=st.integers(1_000, 900_000),
    away=st.integers(-5, 5),
    qty=st.integers(1, 10_000),
)
def test_ticks_won_and_basis_points_agree_in_sign(side: Side, arrival: int, away: int, qty: int) -> None:
    arrival = step(arrival, 0)
    price = step(arrival, away)
    family = replace(BUY, side=side, arrival_price=arrival, filled_qty=qty, asked_qty=qty, filled_amount=price * qty)
    quality = measure(family)
    assert quality is not None
    gap = quality.against_arrival
    assert gap.won == (price - arrival) * qty * side.sign
    assert (gap.won > 0, gap.ticks > 0) == ((price - arrival) * side.sign > 0,) * 2
    assert total([family], trading_days=1).saved_won == -quality.against_market.won
