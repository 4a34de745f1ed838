"""Cash in three columns, average prices, and the turn of the day."""

from decimal import Decimal

from aegis.terms import Side

from .conftest import ACCOUNT, SAMSUNG, Market


def test_a_new_account_has_a_hundred_million_won_and_no_shares(market: Market) -> None:
    ledger = market.ledger()
    assert ledger["cash"] == dict.fromkeys(("deposit", "d1", "d2", "orderable", "total_asset"), 100_000_000)
    assert ledger["holdings"] == ledger["orders"] == ledger["executions"] == []


def test_a_buy_takes_d2_cash_at_once_and_the_deposit_two_days_later(market: Market) -> None:
    order = market.buy(10, market.best(Side.SELL))
    paid = order.amount + order.fee
    assert order.fee == int(order.amount * Decimal("0.0140527") / 100)
    cash = market.ledger()["cash"]
    assert (cash["deposit"], cash["d1"], cash["d2"]) == (100_000_000, 100_000_000, 100_000_000 - paid)
    market.to("2026-11-24 10:00")
    cash = market.ledger()["cash"]
    assert (cash["deposit"], cash["d1"]) == (100_000_000, 100_000_000 - paid)
    market.to("2026-11-25 10:00")
    assert market.ledger()["cash"]["deposit"] == 100_000_000 - paid


def test_settlement_counts_trading_days_only() -> None:
    market = Market("2026-12-30 10:00")  # a Wednesday; the 31st and the 1st are closed
    order = market.buy(10, market.best(Side.SELL))
    market.to("2027-01-04 08:00")
    assert market.ledger()["cash"]["deposit"] == 100_000_000
    market.to("2027-01-05 08:00")
    assert market.ledger()["cash"]["deposit"] == 100_000_000 - order.amount - order.fee


def test_a_sale_pays_tax_and_keeps_the_average(market: Market) -> None:
    market.buy(10, market.best(Side.SELL))
    average = market.ledger()["holdings"][0]["average_price"]
    order = market.sell(4, market.best(Side.BUY))
    assert order.tax == int(order.amount * Decimal("0.20") / 100)
    assert market.ledger()["holdings"][0]["average_price"] == average


def test_the_average_has_four_decimals(market: Market) -> None:
    account = market.exchange.account(ACCOUNT)
    due = market.now.date()
    account.fill(side=Side.BUY, code=SAMSUNG, quantity=35, amount=156_875, costs=0, due=due)
    holding = account.holdings[SAMSUNG]
    assert holding.average == Decimal("4482.1429")
    assert holding.cost == 156_875


def test_a_stock_sold_out_stays_as_an_empty_row_until_it_is_settled(market: Market) -> None:
    market.buy(10, market.best(Side.SELL))
    market.sell(10, market.best(Side.BUY))
    assert [row["quantity"] for row in market.ledger()["holdings"]] == [0]
    market.to("2026-11-24 10:00")
    assert [row["quantity"] for row in market.ledger()["holdings"]] == [0]
    market.to("2026-11-25 10:00")
    assert market.ledger()["holdings"] == []


def test_yesterday_follows_today(market: Market) -> None:
    market.buy(10, market.best(Side.SELL))
    bought = market.exchange.account(ACCOUNT).today.bought
    market.to("2026-11-24 07:00")
    account = market.exchange.account(ACCOUNT)
    holding = account.holdings[SAMSUNG]
    assert (account.today.bought, account.yesterday.bought) == (0, bought)
    assert (holding.bought_today, holding.bought_yesterday) == (0, 10)
    close = market.exchange.venue(SAMSUNG).base
    assert account.total_yesterday == account.cash_d2 + 10 * close
