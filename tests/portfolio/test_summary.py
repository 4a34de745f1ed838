"""The account between two balances: prices and fills move it, trading alone earns nothing."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from aegis.broker import Balance, Holding, PartialBalance, UnparsedHolding
from aegis.terms import Side
from portfolio import ledger
from portfolio.models import Portfolio, PriceSource
from portfolio.service import PortfolioService, Summary
from tests.portfolio.test_ledger import BALANCE, HYNIX, NOW, SAMSUNG

pytestmark = pytest.mark.django_db

# ten shares at 71,000 and 800,000 won of cash after settlement
START = replace(BALANCE, holdings=(SAMSUNG,), valuation=710_000, total_asset=1_510_000, total_asset_yesterday=1_500_000)
GONE = replace(SAMSUNG, qty=0, average_price=Decimal(0), sold_today=10)


def balance(*holdings: Holding, cash: int, after: float = 60) -> Balance:
    """A balance asked for `after` seconds: so many shares, so much cash after settlement."""
    value = sum(holding.qty * holding.price for holding in holdings)
    at = NOW + timedelta(seconds=after)
    return replace(START, asked_at=at, holdings=holdings, deposit_d2=cash, valuation=value, total_asset=value + cash)


def take(balance: Balance) -> None:
    ledger.replace(balance, now=balance.asked_at)


def fill(side: Side, qty: int, price: int, code: str = SAMSUNG.code, cost: int = 0) -> None:
    ledger.count_fill(code, "", side, qty, Decimal(price), executed_at=NOW + timedelta(seconds=1), cost_won=cost)


def buy(qty: int, price: int, code: str = SAMSUNG.code, cost: int = 0) -> None:
    fill(Side.BUY, qty, price, code, cost)


def sell(qty: int, price: int, cost: int = 0) -> None:
    fill(Side.SELL, qty, price, cost=cost)


def summary() -> Summary:
    return PortfolioService().get_summary()


@pytest.fixture(autouse=True)
def _start() -> None:
    take(START)


def test_a_buy_turns_cash_into_shares_and_is_no_profit() -> None:
    buy(5, 71_000)
    seen = summary()
    assert (seen.total_asset, seen.profit_today) == (1_510_000, 10_000)
    assert (seen.valuation, seen.deposit_d2, seen.deposit) == (1_065_000, 800_000 - 355_000, START.deposit)
    assert (seen.cost, seen.profit) == (700_000 + 355_000, 10_000)


def test_a_buy_of_a_new_share_is_no_profit() -> None:
    buy(3, 60_000, code="000660")
    assert (summary().total_asset, summary().deposit_d2) == (1_510_000, 800_000 - 180_000)


def test_a_sale_turns_shares_into_cash_and_loses_nothing() -> None:
    sell(4, 71_000)
    assert (summary().total_asset, summary().profit_today) == (1_510_000, 10_000)
    assert (summary().valuation, summary().deposit_d2) == (426_000, 800_000 + 284_000)


def test_a_holding_sold_whole_still_counts_with_what_it_brought() -> None:
    sell(10, 72_000)
    seen = summary()
    assert (list(seen.holdings), seen.valuation, seen.cost) == ([], 0, 0)
    assert (seen.total_asset, seen.profit_today) == (1_520_000, 20_000)


def test_a_fill_away_from_the_last_price_earns_the_difference() -> None:
    buy(5, 70_000)
    assert summary().total_asset == 1_510_000 + 5 * 1_000


def test_commission_and_tax_are_gone_at_once() -> None:
    buy(5, 71_000, cost=50)
    sell(4, 71_000, cost=600)
    assert (summary().total_asset, summary().profit_today) == (1_510_000 - 650, 10_000 - 650)
    assert summary().deposit_d2 == 800_000 - 355_050 + 283_400


def test_a_price_that_moves_after_a_fill_moves_all_shares() -> None:
    buy(5, 71_000)
    ledger.mark({SAMSUNG.code: 72_000}, PriceSource.FEED, at=NOW + timedelta(seconds=2))
    assert summary().total_asset == 1_510_000 + 15 * 1_000


def test_a_fill_that_is_taken_back_leaves_no_trace() -> None:
    buy(5, 70_000, cost=50)
    buy(-5, 70_000, cost=-50)
    assert (summary().total_asset, summary().deposit_d2) == (1_510_000, 800_000)


def test_a_fill_that_the_balance_had_counted_before_us_is_in_it() -> None:
    take(balance(replace(SAMSUNG, qty=15, bought_today=5), cash=445_000))
    buy(5, 71_000)
    assert (summary().total_asset, summary().deposit_d2) == (1_510_000, 445_000)


def test_a_balance_that_has_counted_every_fill_is_the_account() -> None:
    buy(2, 70_000)
    buy(3, 73_000)
    take(balance(replace(SAMSUNG, qty=15, bought_today=5), cash=441_000))
    assert (summary().total_asset, summary().deposit_d2) == (15 * 71_000 + 441_000, 441_000)


def test_a_balance_that_has_counted_no_fill_yet_is_put_right_by_them() -> None:
    buy(5, 70_000)
    take(balance(replace(SAMSUNG, price=72_000), cash=800_000))
    # its price is the newer one for its ten shares; ours of the last balance still stands in the row
    ledger.mark({SAMSUNG.code: 72_000}, PriceSource.FEED, at=NOW + timedelta(seconds=61))
    assert (summary().total_asset, summary().deposit_d2) == (15 * 72_000 + 450_000, 450_000)


def test_a_balance_that_has_counted_a_part_of_our_fills_is_put_right_by_the_rest() -> None:
    buy(4, 70_000)
    buy(6, 73_000)
    take(balance(replace(SAMSUNG, qty=16, bought_today=6), cash=800_000 - 4 * 70_000 - 2 * 73_000))
    cash = 800_000 - 4 * 70_000 - 6 * 73_000
    assert (summary().total_asset, summary().deposit_d2) == (20 * 71_000 + cash, cash)
    take(balance(replace(SAMSUNG, qty=19, bought_today=9), cash=cash + 73_000, after=70))
    assert (summary().total_asset, summary().deposit_d2) == (20 * 71_000 + cash, cash)


def test_a_new_share_that_the_balance_does_not_list_yet_is_put_right_by_its_fill() -> None:
    buy(3, 60_000, code=HYNIX.code)
    take(balance(SAMSUNG, cash=800_000))
    assert (summary().total_asset, summary().deposit_d2) == (1_510_000, 620_000)


def test_a_sale_that_the_balance_has_not_counted_is_put_right_by_its_fill() -> None:
    sell(10, 72_000)
    take(balance(SAMSUNG, cash=800_000))
    assert (summary().total_asset, summary().deposit_d2) == (1_520_000, 1_520_000)


def test_a_share_bought_again_is_not_valued_at_the_price_of_its_last_sale() -> None:
    take(balance(GONE, cash=1_510_000))
    buy(10, 80_000)
    assert summary().total_asset == 1_510_000


def test_a_holding_that_the_table_lacks_is_in_the_total_all_the_same() -> None:
    hidden = [UnparsedHolding(HYNIX.code, HYNIX.name, "2.5 shares")]
    seen = replace(balance(SAMSUNG, cash=800_000), total_asset=1_760_000, valuation=960_000)
    take(PartialBalance.of(seen, hidden))
    ledger.mark({SAMSUNG.code: 72_000}, PriceSource.FEED, at=NOW + timedelta(seconds=61))
    assert (summary().total_asset, summary().valuation) == (1_760_000 + 10_000, 720_000)


def test_a_holding_that_cannot_be_read_any_more_moves_the_total_by_its_price_from_then_on() -> None:
    buy(5, 70_000)
    ledger.mark({SAMSUNG.code: 72_000}, PriceSource.FEED, at=NOW + timedelta(seconds=2))
    seen = replace(balance(cash=450_000), total_asset=15 * 72_000 + 36_000 + 450_000)
    take(PartialBalance.of(seen, [UnparsedHolding(SAMSUNG.code, SAMSUNG.name, "15.5 shares")]))
    assert (summary().total_asset, summary().deposit_d2) == (seen.total_asset, 450_000)
    ledger.mark({SAMSUNG.code: 72_100}, PriceSource.FEED, at=NOW + timedelta(seconds=61))
    assert summary().total_asset == seen.total_asset + 15 * 100


def test_a_line_without_a_price_is_no_profit_and_no_loss() -> None:
    take(balance(replace(SAMSUNG, price=0), cash=800_000))
    seen = summary()
    assert (seen.total_asset, seen.valuation) == (800_000, 710_000)


def test_a_balance_between_the_two_queries_is_not_mixed_with_what_was_before_it() -> None:
    buy(5, 71_000)
    counted = balance(replace(SAMSUNG, qty=15, bought_today=5), cash=445_000)
    asked = []

    def take_it_in_between(execute: Callable[..., Any], sql: str, *rest: Any) -> Any:
        result = execute(sql, *rest)
        asked.append(sql)
        if len(asked) == 1:
            take(counted)
        return result

    with connection.execute_wrapper(take_it_in_between):
        seen = summary()
    assert (seen.total_asset, seen.deposit_d2) == (1_510_000, 445_000)
    assert Portfolio.objects.get().uncounted == []
