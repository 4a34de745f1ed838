from datetime import date
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.fees import Cost, Rates, calc_fee, calc_fill_cost, sales_tax_pct, sales_taxes_pct
from aegis.terms import Board, Instrument, Market, Side

TODAY = date(2026, 11, 23)


def test_a_buy_pays_commission_and_no_tax() -> None:
    assert calc_fee(10_000_000, Market.KRX, Side.BUY, on=TODAY) == Cost(fee=1_405, tax=0)


def test_a_sale_pays_tax_too() -> None:
    assert calc_fee(10_000_000, Market.KRX, Side.SELL, on=TODAY) == Cost(fee=1_405, tax=20_000)


def test_nxt_is_a_little_cheaper() -> None:
    assert calc_fee(10_000_000, Market.NXT, Side.BUY, on=TODAY).fee == 1_395


@pytest.mark.parametrize(
    ("on", "pct"),
    [
        (date(2023, 12, 29), "0.20"),
        (date(2024, 1, 2), "0.18"),
        (date(2025, 1, 2), "0.15"),
        (date(2025, 12, 31), "0.15"),
        (date(2026, 1, 1), "0.20"),
    ],
)
def test_the_tax_is_that_of_the_trade_date(on: date, pct: str) -> None:
    assert sales_tax_pct(on, Board.KOSPI, Instrument.STOCK) == Decimal(pct)


def test_funds_pay_no_tax_even_where_the_customer_set_one() -> None:
    own = Rates(tax_pct={Market.KRX: Decimal("0.15")})
    cost = calc_fee(1_000_000, Market.KRX, Side.SELL, on=TODAY, instrument=Instrument.ETF, rates=own)
    assert cost.tax == 0


def test_the_customers_own_rates_win_over_the_table() -> None:
    own = Rates(commission_pct={Market.KRX: Decimal("0.01")}, tax_pct={Market.KRX: Decimal("0.15")})
    assert calc_fee(1_000_000, Market.KRX, Side.SELL, on=TODAY, rates=own) == Cost(fee=100, tax=1_500)


def test_a_rate_of_zero_is_a_rate() -> None:
    own = Rates(commission_pct={Market.KRX: Decimal(0)}, tax_pct={Market.KRX: Decimal(0)})
    assert calc_fee(1_000_000, Market.KRX, Side.SELL, on=TODAY, rates=own).total == 0


def test_fractions_of_a_won_are_dropped_from_each_tax() -> None:
    # 3.5575 won and 10.6725 won: cut together they would be 14
    assert calc_fee(7_115, Market.KRX, Side.SELL, on=TODAY) == Cost(fee=0, tax=13)
    assert calc_fee(7_115, Market.KRX, Side.SELL, on=TODAY, board=Board.KOSDAQ) == Cost(fee=0, tax=14)


@pytest.mark.parametrize(
    ("on", "taxes"),
    [
        (date(2023, 6, 1), ("0.05", "0.15")),
        (date(2024, 6, 3), ("0.03", "0.15")),
        (date(2025, 6, 2), ("0.00", "0.15")),
        (date(2026, 6, 1), ("0.05", "0.15")),
    ],
)
def test_a_kospi_sale_pays_two_taxes_and_the_others_one(on: date, taxes: tuple[str, ...]) -> None:
    assert sales_taxes_pct(on, Board.KOSPI, Instrument.STOCK) == tuple(map(Decimal, taxes))
    assert sales_taxes_pct(on, Board.KOSDAQ, Instrument.STOCK) == (sum(map(Decimal, taxes)),)


def test_a_tax_of_the_customers_own_is_cut_once() -> None:
    own = Rates(tax_pct={Market.KRX: Decimal("0.20")})
    assert calc_fee(7_115, Market.KRX, Side.SELL, on=TODAY, rates=own).tax == 14


def test_a_date_before_the_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="begins 2023-01-01"):
        sales_tax_pct(date(2022, 12, 31), Board.KOSPI, Instrument.STOCK)


# what the specification computes with its own settings (spec §11.4, §11.5): fee and tax of a sale
AS_WRITTEN = Rates(tax_pct={Market.KRX: Decimal("0.15"), Market.NXT: Decimal("0.15")})


@pytest.mark.parametrize(
    ("amount", "market", "cost"),
    [
        (1_000_000, Market.KRX, Cost(fee=140, tax=1_500)),
        (1_000_000, Market.NXT, Cost(fee=139, tax=1_500)),
        (100_000_000, Market.KRX, Cost(fee=14_052, tax=150_000)),
        (100_000_000, Market.NXT, Cost(fee=13_952, tax=150_000)),
        (0, Market.KRX, Cost(fee=0, tax=0)),
    ],
)
def test_a_sale_costs_what_the_specification_computes(amount: int, market: Market, cost: Cost) -> None:
    assert calc_fee(amount, market, Side.SELL, on=TODAY, rates=AS_WRITTEN) == cost


@given(amount=st.integers(min_value=0, max_value=10**12), market=st.sampled_from([Market.KRX, Market.NXT]))
def test_every_cost_is_whole_won_never_more_than_the_rate(amount: int, market: Market) -> None:
    pct = {Market.KRX: Fraction("0.0140527"), Market.NXT: Fraction("0.0139527")}[market]
    cost = calc_fee(amount, market, Side.SELL, on=TODAY)
    assert cost.fee == int(amount * pct / 100)
    assert cost.tax == int(amount * Fraction("0.05") / 100) + int(amount * Fraction("0.15") / 100)
    assert cost.total == cost.fee + cost.tax


def test_a_rate_given_for_one_venue_leaves_the_others_to_the_table() -> None:
    own = Rates(commission_pct={Market.KRX: Decimal(0)})
    assert calc_fee(1_000_000, Market.KRX, Side.BUY, on=TODAY, rates=own).fee == 0
    assert calc_fee(1_000_000, Market.NXT, Side.BUY, on=TODAY, rates=own).fee == 139


@pytest.mark.parametrize(("board", "pct"), [(Board.KOSPI, "0.20"), (Board.KOSDAQ, "0.20"), (Board.KONEX, "0.10")])
def test_the_tax_is_that_of_the_board(board: Board, pct: str) -> None:
    assert sales_tax_pct(TODAY, board, Instrument.STOCK) == Decimal(pct)


@given(
    amounts=st.lists(st.integers(min_value=1, max_value=10**8), min_size=1, max_size=20),
    side=st.sampled_from(Side),
    board=st.sampled_from(Board),
    instrument=st.sampled_from(Instrument),
)
def test_the_costs_of_an_orders_fills_add_up_to_that_of_the_order(
    amounts: list[int], side: Side, board: Board, instrument: Instrument
) -> None:
    kind = {"on": TODAY, "board": board, "instrument": instrument}
    costs = [
        calc_fill_cost(amount, Market.KRX, side, filled_before=sum(amounts[:n]), **kind)
        for n, amount in enumerate(amounts)
    ]
    whole = calc_fee(sum(amounts), Market.KRX, side, **kind)
    assert (sum(cost.fee for cost in costs), sum(cost.tax for cost in costs)) == (whole.fee, whole.tax)
    assert all(cost.fee >= 0 and cost.tax >= 0 for cost in costs)


def test_small_fills_pay_what_the_order_pays_and_not_nothing() -> None:
    fills = [calc_fill_cost(7_000, Market.KRX, Side.BUY, filled_before=n * 7_000, on=TODAY).fee for n in range(10)]
    assert sum(fills) == calc_fee(70_000, Market.KRX, Side.BUY, on=TODAY).fee == 9
