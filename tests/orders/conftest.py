"""A desk on the simulator: the real service, client and socketless exchange."""

from collections.abc import Callable

import pytest

from aegis.broker import Broker
from aegis.terms import Side
from kis import clock
from kis.simulator.server import Simulator
from orders import routine
from orders.models import TradeOrder
from orders.service import Intent, OrderService

SAMSUNG = "005930"


@pytest.fixture
def service(db: None, broker: Broker, simulator: Simulator) -> OrderService:
    """The order service, with 삼성전자 standing still at 70,000 won."""
    routine.sync_calendar(broker, clock.now)
    simulator.set_price(SAMSUNG, 70_000, freeze=True)
    return OrderService(broker, clock.now)


@pytest.fixture
def buy(service: OrderService) -> Callable[..., TradeOrder]:
    """Buy ten 삼성전자 two ticks under the price, or as the keywords say."""

    def place(**words: object) -> TradeOrder:
        wanted: dict[str, object] = {"code": SAMSUNG, "side": Side.BUY, "qty": 10}
        if "price" not in words:
            wanted["strategy"] = "buy_normal"
        return service.place(Intent(**{**wanted, **words}))  # type: ignore[arg-type]

    return place
