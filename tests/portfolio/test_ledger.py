from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from aegis.broker import Balance, Holding, PartialBalance, UnparsedHolding
from aegis.sessions import KST
from aegis.terms import Side
from portfolio import ledger
from portfolio.models import AccountSnapshot, Portfolio, PortfolioEvent, PriceSource
from portfolio.service import PortfolioService

pytestmark = pytest.mark.django_db

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=KST)
SAMSUNG = Holding(
    "005930", "삼성전자", 10, 10, Decimal("70000.0000"), 71_000, 10_000, Decimal("1.43"), bought_today=0, sold_today=0
)
HYNIX = replace(SAMSUNG, code="000660", name="SK하이닉스", qty=3)
BALANCE = Balance(
    asked_at=NOW,
    holdings=(SAMSUNG, HYNIX),
    deposit=1_000_000,
    deposit_d1=900_000,
    deposit_d2=800_000,
    valuation=923_000,
    total_asset=1_723_000,
    total_asset_yesterday=1_700_000,
)


def quantities() -> dict[str, int]:
    return dict(Portfolio.objects.values_list("stock_code", "quantity"))


def fill(side: Side, qty: int, price: int = 72_000, at: datetime = NOW) -> Decimal:
    return ledger.count_fill("005930", "삼성전자", side, qty, Decimal(price), executed_at=at)


def test_a_balance_becomes_holdings_and_a_snapshot() -> None:
    ledger.replace(BALANCE, now=NOW)
    assert quantities() == {"005930": 10, "000660": 3}
    row = Portfolio.objects.get(stock_code="005930")
    assert (row.avg_price, row.current_price, row.profit_rate) == (Decimal("70000.0000"), 71_000, Decimal("1.43"))
    snapshot = AccountSnapshot.objects.get()
    assert (snapshot.deposit, snapshot.deposit_d2, snapshot.total_asset) == (1_000_000, 800_000, 1_723_000)
    assert snapshot.net_profit_today == 23_000


def test_what_the_balance_no_longer_lists_is_gone() -> None:
    ledger.replace(BALANCE, now=NOW)
    ledger.replace(replace(BALANCE, holdings=(HYNIX,)), now=NOW)
    assert quantities() == {"000660": 3}


def test_a_fill_is_counted_on_top_of_the_balance() -> None:
    ledger.replace(BALANCE, now=NOW)
    fill(Side.BUY, 10)
    row = Portfolio.objects.get(stock_code="005930")
    assert (row.quantity, row.avg_price) == (20, Decimal("71000.0000"))


def test_a_balance_that_began_before_a_fill_does_not_overwrite_it() -> None:
    ledger.replace(BALANCE, now=NOW)
    fill(Side.BUY, 5)
    ledger.replace(BALANCE, now=NOW)
    assert quantities()["005930"] == 15
    counted = replace(BALANCE, holdings=(replace(SAMSUNG, qty=15, bought_today=5), HYNIX))
    ledger.replace(counted, now=NOW)
    assert quantities()["005930"] == 15
    assert Portfolio.objects.get(stock_code="005930").lags_since is None


def test_a_fill_that_the_balance_had_already_is_not_counted_twice() -> None:
    ledger.replace(replace(BALANCE, holdings=(replace(SAMSUNG, bought_today=10),)), now=NOW)
    fill(Side.BUY, 10)
    assert quantities()["005930"] == 10


def test_a_first_fill_of_a_stock_makes_its_row_and_an_older_balance_keeps_it() -> None:
    fill(Side.BUY, 5)
    ledger.replace(replace(BALANCE, holdings=()), now=NOW)
    assert quantities() == {"005930": 5}


def test_a_balance_that_contradicts_us_for_long_is_believed_after_all() -> None:
    fill(Side.BUY, 5)
    none = replace(BALANCE, holdings=())
    ledger.replace(none, now=NOW)
    ledger.replace(none, now=NOW + ledger.LAG_PATIENCE + timedelta(seconds=1))
    assert quantities() == {}


def test_a_new_day_forgets_the_counts_of_the_old() -> None:
    ledger.replace(BALANCE, now=NOW)
    fill(Side.BUY, 5)
    tomorrow = NOW + timedelta(days=1)
    ledger.replace(replace(BALANCE, asked_at=tomorrow, holdings=(replace(SAMSUNG, qty=15),)), now=tomorrow)
    fill(Side.SELL, 2, at=tomorrow)
    assert quantities() == {"005930": 13}


@pytest.mark.parametrize(("bought", "sold"), [(10, 0), (10, 10)])
def test_the_first_fill_of_a_morning_counts_though_the_nights_balance_told_yesterdays_trades(
    bought: int, sold: int
) -> None:
    night, open_ = NOW.replace(hour=0, minute=10), NOW.replace(hour=8, second=10)
    told = replace(SAMSUNG, bought_today=bought, sold_today=sold)
    ledger.replace(replace(BALANCE, asked_at=night, holdings=(told,)), now=night)
    fill(Side.BUY, 10, at=open_)
    assert quantities() == {"005930": 20}
    counted = replace(SAMSUNG, qty=20, bought_today=10)
    ledger.replace(replace(BALANCE, asked_at=open_, holdings=(counted,)), now=open_)
    assert quantities() == {"005930": 20}
    assert not PortfolioEvent.objects.exists()


def test_a_balance_over_midnight_or_over_the_opening_keeps_its_counts() -> None:
    for asked_at in (NOW.replace(hour=23, minute=59, second=59), NOW.replace(hour=7, minute=59, second=59)):
        Portfolio.objects.all().delete()
        told = replace(BALANCE, asked_at=asked_at, holdings=(replace(SAMSUNG, bought_today=10),))
        ledger.replace(told, now=asked_at + timedelta(seconds=5))
        fill(Side.BUY, 10, at=asked_at)
        assert quantities() == {"005930": 10}, "the broker had counted it"


UNREAD = UnparsedHolding("005930", "삼성전자", "field hldg_qty is '12.5', not a whole number")
PARTLY = PartialBalance.of(replace(BALANCE, holdings=(HYNIX,)), [UNREAD])


def test_a_holding_whose_line_cannot_be_read_stays_as_it_was_and_the_snapshot_names_it() -> None:
    ledger.replace(BALANCE, now=NOW)
    snapshot = ledger.replace(PARTLY, now=NOW)
    assert quantities() == {"005930": 10, "000660": 3}
    assert snapshot.left_out == ["삼성전자 (005930): field hldg_qty is '12.5', not a whole number"]
    assert (snapshot.deposit, snapshot.total_asset) == (1_000_000, 1_723_000)
    assert not PortfolioEvent.objects.exists()
    assert ledger.replace(BALANCE, now=NOW).left_out == []


def test_a_new_share_whose_line_cannot_be_read_is_none_of_our_holdings() -> None:
    ledger.replace(PARTLY, now=NOW)
    assert quantities() == {"000660": 3}


def test_a_line_without_a_price_keeps_the_price_that_was_known() -> None:
    ledger.replace(BALANCE, now=NOW)
    ledger.replace(replace(BALANCE, holdings=(replace(SAMSUNG, price=0, profit_rate=Decimal(-100)), HYNIX)), now=NOW)
    row = Portfolio.objects.get(stock_code="005930")
    assert (row.current_price, row.profit_rate) == (71_000, Decimal("1.43"))


def test_a_new_line_without_a_price_is_worth_what_it_cost_until_a_price_is_told() -> None:
    ledger.replace(replace(BALANCE, holdings=(replace(SAMSUNG, price=0, profit_rate=Decimal(-100)),)), now=NOW)
    row = Portfolio.objects.get()
    assert (row.current_price, row.profit_rate, row.priced_at) == (70_000, Decimal(0), None)


def test_an_impossible_rate_of_the_broker_spoils_no_balance() -> None:
    ledger.replace(replace(BALANCE, holdings=(replace(SAMSUNG, profit_rate=Decimal(10) ** 12),)), now=NOW)
    assert Portfolio.objects.get().profit_rate == Decimal("1.43")


def test_everybody_reads_the_same_tables() -> None:
    service = PortfolioService()
    assert (service.get_total_asset(), service.get_snapshot(), list(service.get_portfolio())) == (0, None, [])
    ledger.replace(replace(BALANCE, holdings=(SAMSUNG, replace(HYNIX, qty=0))), now=NOW)
    assert service.get_total_asset() == 1_723_000
    assert [row.stock_code for row in service.get_portfolio()] == ["005930"]
    assert service.get_holding("005930") is not None
    assert service.get_holding("000660") is None


def test_a_split_is_recognised_and_taken_over() -> None:
    ledger.replace(BALANCE, now=NOW)
    split = replace(SAMSUNG, qty=50, average_price=Decimal("14000.0000"))
    ledger.replace(replace(BALANCE, holdings=(split, HYNIX)), now=NOW)
    event = PortfolioEvent.objects.get()
    assert (event.stock_code, event.kind, event.qty_before, event.qty_after) == ("005930", "SPLIT", 10, 50)
    assert quantities() == {"005930": 50, "000660": 3}


def test_shares_that_left_without_a_trade_are_told() -> None:
    ledger.replace(BALANCE, now=NOW)
    ledger.replace(replace(BALANCE, holdings=(HYNIX,)), now=NOW)
    assert PortfolioEvent.objects.get().kind == "UNEXPLAINED"


def test_a_day_of_trades_is_no_change_of_its_own() -> None:
    ledger.replace(BALANCE, now=NOW)
    fill(Side.SELL, 4)
    traded = replace(SAMSUNG, qty=11, bought_today=5, sold_today=4)
    ledger.replace(replace(BALANCE, holdings=(traded, HYNIX)), now=NOW)
    assert not PortfolioEvent.objects.exists()


def test_a_sale_meets_the_price_its_shares_had_cost_though_the_balance_told_of_it_first() -> None:
    ledger.replace(BALANCE, now=NOW)
    gone = replace(SAMSUNG, qty=0, average_price=Decimal(0), sold_today=10)
    ledger.replace(replace(BALANCE, holdings=(gone, HYNIX)), now=NOW)
    assert fill(Side.SELL, 10) == Decimal("70000")


def test_a_balance_that_a_newer_one_has_overtaken_is_left() -> None:
    before = replace(BALANCE, asked_at=NOW, deposit_d2=800_000, holdings=(SAMSUNG,))
    split = replace(SAMSUNG, qty=SAMSUNG.qty * 5, average_price=SAMSUNG.average_price / 5)
    after = replace(BALANCE, asked_at=NOW + timedelta(seconds=2), deposit_d2=100_000, holdings=(split,))
    ledger.replace(before, now=NOW)
    newer = ledger.replace(after, now=NOW + timedelta(seconds=3))
    assert ledger.replace(before, now=NOW + timedelta(seconds=4)) == newer
    assert PortfolioService().get_snapshot().deposit_d2 == 100_000
    assert quantities() == {SAMSUNG.code: split.qty}
    assert PortfolioEvent.objects.count() == 1


def test_a_balance_of_the_future_is_of_a_clock_set_back_and_overtakes_nothing() -> None:
    ledger.replace(replace(BALANCE, asked_at=NOW + timedelta(hours=1)), now=NOW + timedelta(hours=1))
    ledger.replace(replace(BALANCE, asked_at=NOW, deposit_d2=700_000), now=NOW)
    assert AccountSnapshot.objects.get(timestamp=NOW).deposit_d2 == 700_000


def test_a_balance_of_any_size_is_a_handful_of_statements() -> None:
    many = replace(BALANCE, holdings=tuple(replace(SAMSUNG, code=f"{number:06}") for number in range(50)))
    ledger.replace(many, now=NOW)
    with CaptureQueriesContext(connection) as queries:
        ledger.replace(many, now=NOW)
    # a savepoint round the rows read and locked, a newer snapshot looked for, the rows written, the snapshot
    assert len(queries) == 6
    assert Portfolio.objects.count() == 50


def test_the_summary_is_at_the_newest_prices_and_takes_two_queries() -> None:
    account = replace(BALANCE, holdings=(SAMSUNG,), valuation=710_000)
    ledger.replace(account, now=NOW)
    ledger.mark({"005930": 73_500}, PriceSource.FEED, at=NOW + timedelta(seconds=1))
    with CaptureQueriesContext(connection) as queries:
        summary = PortfolioService().get_summary()
    assert len(queries) == 2
    assert (summary.cost, summary.valuation, summary.profit) == (700_000, 735_000, 35_000)
    assert summary.profit_rate == Decimal("5.00")
    assert summary.total_asset == BALANCE.total_asset + 25_000
    assert summary.profit_today == 23_000 + 25_000
    assert summary.seen_at == NOW


def test_before_the_first_balance_the_summary_is_empty() -> None:
    summary = PortfolioService().get_summary()
    assert (summary.holdings, summary.total_asset, summary.seen_at) == ([], 0, None)
