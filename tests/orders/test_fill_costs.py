"""What the fills of an order cost together."""

from collections.abc import Callable

from aegis.broker import Broker
from aegis.fees import calc_fee
from aegis.terms import Market, Side
from infra import clock
from orders import fills
from orders.models import TradeExecution, TradeOrder
from portfolio.fetcher import KISFetcher
from portfolio.service import PortfolioService
from tests.orders.test_fills import hear, notice


def test_the_fills_of_an_order_cost_what_the_order_costs(buy: Callable[..., TradeOrder]) -> None:
    order = buy()
    TradeOrder.objects.filter(pk=order.pk).update(order_type="SELL")
    for second in range(10):
        hear(notice(order.order_no, qty=1, price=69_800, side="01", at=f"1000{second:02}"))
    fills = TradeExecution.objects.filter(order=order)
    whole = calc_fee(698_000, Market.KRX, Side.SELL, on=clock.now().date())
    assert len(fills) == 10
    assert (sum(fill.fee for fill in fills), sum(fill.tax for fill in fills)) == (whole.fee, whole.tax)


def test_a_buy_lowers_the_total_by_its_commission_until_it_is_taken_back(
    buy: Callable[..., TradeOrder], broker: Broker
) -> None:
    order = buy(price=69_000)
    KISFetcher(broker, clock.now).sync_portfolio()
    before = PortfolioService().get_summary().total_asset
    hear(notice(order.order_no, qty=10, price=69_000))
    (fill,) = TradeExecution.objects.filter(order=order)
    assert fill.fee > 0
    assert PortfolioService().get_summary().total_asset == before - fill.fee
    order.refresh_from_db()
    fills.void_fill(fill, order, now=clock.now(), why="a test")
    assert PortfolioService().get_summary().total_asset == before
