from datetime import date
from decimal import Decimal

import pytest

from aegis.fees import Cost, Rates, calc_fee, sales_tax_pct
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


def test_fractions_of_a_won_are_dropped() -> None:
    assert calc_fee(7_115, Market.KRX, Side.SELL, on=TODAY) == Cost(fee=0, tax=14)


def test_a_date_before_the_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="begins 2023-01-01"):
        sales_tax_pct(date(2022, 12, 31), Board.KOSPI, Instrument.STOCK)
