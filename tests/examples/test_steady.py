"""The example strategy on real parts: it buys what it misses, once, and sells when a price says so."""

import os
import subprocess
import sys
from typing import Any

import pytest

from aegis.broker import Broker
from aegis.ticks import step
from config.env import BASE_DIR
from infra import clock
from orders import periodic_sync
from orders.models import TradeOrder
from orders.reconcile import reconcile
from orders.service import OrderService
from portfolio.fetcher import KISFetcher
from simulator.api.server import Simulator
from tests import workers

PRICES = {"005930": 70_000, "000660": 200_000, "035420": 210_000}


def settle(broker: Broker) -> None:
    """Learn of fills and prices as the workers would."""
    reconcile(broker, clock.now)
    KISFetcher(broker, clock.now).sync_portfolio()


@pytest.fixture
def desk(db: None, broker: Broker, simulator: Simulator) -> OrderService:
    periodic_sync.begin(broker, clock.now)
    for code, price in PRICES.items():
        simulator.set_price(code, price)
    return OrderService(broker, clock.now)


def test_it_buys_each_stock_once_and_sells_on_profit_and_loss(
    desk: OrderService, broker: Broker, simulator: Simulator, clock_at: Any
) -> None:
    from examples import steady

    for _ in range(3):
        steady.turn(desk)
    assert sorted(TradeOrder.objects.values_list("stock_code", flat=True)) == sorted(PRICES)
    assert set(TradeOrder.objects.values_list("strategy_id", flat=True)) == {steady.NAME}
    for order in TradeOrder.objects.all():
        simulator.set_price(order.stock_code, step(order.price, -1))
    settle(broker)
    assert {order.filled_qty for order in TradeOrder.objects.all()} == {steady.SHARES}

    clock_at("2026-11-23 10:02:00")
    simulator.set_price("005930", 72_000)
    simulator.set_price("000660", 190_000)
    settle(broker)
    for _ in range(3):
        steady.turn(desk)
    sales = TradeOrder.objects.filter(order_type="SELL").order_by("stock_code")
    assert [(sale.stock_code, sale.strategy, sale.qty) for sale in sales] == [
        ("000660", "sell_stop", 10),
        ("005930", "sell_profit", 10),
    ]


def test_it_tells_what_is_refused_and_goes_on(
    desk: OrderService, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from examples import steady

    monkeypatch.setattr(steady, "WATCHED", ("015760", "005930"))
    steady.turn(desk)
    refused, ordered = capsys.readouterr().out.splitlines()
    assert "015760" in refused
    assert "PENDING" in ordered


def test_it_rests_while_no_market_is_open(desk: OrderService, clock_at: Any) -> None:
    from examples import steady

    clock_at("2026-11-23 22:00:00")
    steady.turn(desk)
    assert not TradeOrder.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_it_runs_as_a_program_of_its_own(broker: Broker, simulator: Simulator) -> None:
    periodic_sync.begin(broker, clock.now)
    words = [sys.executable, "-m", "examples.steady", "--once"]
    environment = workers.environment() | {"AEGIS_LANGUAGE": "en", "PYTHONPATH": os.fspath(BASE_DIR)}
    done = subprocess.run(words, cwd=BASE_DIR, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(":in: PENDING") == len(PRICES)
