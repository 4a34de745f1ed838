"""A desk on the simulator: the real service, client and socketless exchange."""

from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any

import pytest

from aegis.broker import Broker, BrokerError
from aegis.terms import Side
from infra import clock
from market import reference_data
from orders import cancel_driver, chase, reconcile
from orders.models import TradeOrder
from orders.service import OrderIntent, OrderService
from simulator.api.server import Simulator

SAMSUNG = "005930"


@pytest.fixture
def service(db: None, broker: Broker, simulator: Simulator) -> OrderService:
    """The order service, with 삼성전자 standing still at 70,000 won."""
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    simulator.set_price(SAMSUNG, 70_000, freeze=True)
    return OrderService(broker, clock.now)


@pytest.fixture
def buy(service: OrderService) -> Callable[..., TradeOrder]:
    """Buy ten 삼성전자 two ticks under the price, or as the keywords say."""

    def place(**words: object) -> TradeOrder:
        wanted: dict[str, object] = {"code": SAMSUNG, "side": Side.BUY, "qty": 10}
        if "price" not in words:
            wanted["strategy"] = "buy_normal"
        return service.place(OrderIntent(**{**wanted, **words}))  # type: ignore[arg-type]

    return place


@pytest.fixture
def after(clock_at: Callable[[Any], object]) -> Callable[[float], None]:
    """Move the clock forward by seconds."""

    def go(seconds: float) -> None:
        clock_at(clock.now() + timedelta(seconds=seconds))

    return go


@pytest.fixture
def turn(broker: Broker, after: Callable[[float], None]) -> Callable[..., None]:
    """Run the workers' tasks N times: due chases, requested cancels, then the order list, `seconds` later."""

    def run(times: int = 1, seconds: float = 3.0, at: Any = broker) -> None:
        for _ in range(times):
            for pk in chase.due_orders(clock.now()):
                chase.run_due_steps(pk, at, clock.now)
            for pk in cancel_driver.due_cancels(clock.now()):
                cancel_driver.drive(pk, at, clock.now)
            after(seconds)
            with suppress(BrokerError):
                reconcile.reconcile(at, clock.now)

    return run
