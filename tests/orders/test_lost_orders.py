"""Orders without an answer: which line of the broker's list may be theirs, and when none is."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest

from aegis.broker import Acceptance, Broker, BrokerError, NotSent, OrderRequest, OutcomeUnknown
from aegis.lifecycle import Status
from aegis.terms import OrderKind, Side
from infra import clock
from orders import reconcile, unknown
from orders.models import TradeOrder
from orders.service import OrderIntent, OrderService
from simulator.api.server import Simulator

from .conftest import SAMSUNG

pytestmark = pytest.mark.usefixtures("service")
ACCOUNT = "50000000-01"
BUY = OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_normal")
ClockAt = Callable[[Any], object]


def without_answer(
    broker: Broker, error: BrokerError, intent: OrderIntent = BUY, *, arrives: bool = False
) -> TradeOrder:
    """Place an order whose answer is this error, whether or not the broker has taken it."""

    def place(request: OrderRequest) -> Acceptance:
        if arrives:
            broker.place(request)
        raise error

    return OrderService(mock.MagicMock(wraps=broker, place=place), clock.now).place(intent)


def place_by_hand(simulator: Simulator, *, qty: int, price: int) -> None:
    order = {"account": ACCOUNT, "code": SAMSUNG, "side": "BUY", "quantity": qty, "price": price}
    simulator.command("POST", "/simulator/orders", {**order, "kind": "00", "market": "KRX"})


def seen_again(order: TradeOrder, broker: Broker) -> TradeOrder:
    reconcile.reconcile(broker, clock.now)
    order.refresh_from_db()
    return order


def test_looks_in_a_row_do_not_give_up_an_order_that_may_be_on_its_way(broker: Broker, clock_at: ClockAt) -> None:
    order = without_answer(broker, OutcomeUnknown("no answer"))
    for _ in range(unknown.ABSENT_LISTS + 2):
        assert seen_again(order, broker).state is Status.UNKNOWN
    clock_at(clock.now() + unknown.ABSENT_AFTER + timedelta(seconds=1))
    assert seen_again(order, broker).never_arrived


def test_a_line_of_another_price_is_not_the_lost_order(broker: Broker, simulator: Simulator) -> None:
    order = without_answer(broker, OutcomeUnknown("no answer"))
    place_by_hand(simulator, qty=order.qty, price=order.price - 100)
    assert seen_again(order, broker).state is Status.UNKNOWN
    external = TradeOrder.objects.get(origin=TradeOrder.Origin.EXTERNAL)
    assert (external.price, external.order_no) == (order.price - 100, "0000000001")


@pytest.mark.parametrize("printed", ["standing", "zero"])
def test_a_lost_order_without_a_price_is_found_at_whatever_price_the_list_prints(
    broker: Broker, simulator: Simulator, printed: str
) -> None:
    simulator.command("POST", "/simulator/printing", {"unpriced": printed})
    intent = OrderIntent(SAMSUNG, Side.BUY, 10, kind=OrderKind.OWN_BEST)
    order = without_answer(broker, OutcomeUnknown("no answer"), intent, arrives=True)
    (line,) = broker.orders(order.order_date, order.order_date)
    assert (line.price > 0) is (printed == "standing")
    assert seen_again(order, broker).order_no == line.order_no
    assert TradeOrder.objects.count() == 1


def test_an_order_that_surely_never_left_is_no_line_of_the_list(broker: Broker, simulator: Simulator) -> None:
    order = without_answer(broker, NotSent("no connection"))
    place_by_hand(simulator, qty=order.qty, price=order.price)
    seen_again(order, broker)
    assert (order.state, order.never_arrived, order.order_no) == (Status.REJECTED, True, None)
    assert TradeOrder.objects.get(origin=TradeOrder.Origin.EXTERNAL).chase_at is None
