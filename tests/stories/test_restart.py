"""What a worker does before it does anything else."""

import pytest

from aegis.broker import Broker
from aegis.terms import Side
from infra import clock
from market import reference_data
from orders import reconcile
from orders.models import Reconciliation, TradeOrder
from orders.service import OrderIntent, OrderService
from orders.tasks import chase_check
from simulator.api.server import Simulator
from tests.desk.test_stream import wait_for
from tests.workers import Workers

Outcome = Reconciliation.Outcome


@pytest.fixture
def order(transactional_db: None, broker: Broker, simulator: Simulator) -> TradeOrder:
    """A buy that rests, ordered before the workers died."""
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    simulator.set_price("005930", 70_000, freeze=True)
    return OrderService(broker, clock.now).place(OrderIntent("005930", Side.BUY, 10, strategy="buy_normal"))


def test_workers_that_start_see_the_brokers_list_before_anything_is_sent(
    order: TradeOrder, workers: Workers, simulator: Simulator
) -> None:
    assert reconcile.is_fresh(clock.now())
    clock.set_now(clock.now().replace(minute=2))
    seen = len(simulator.events())
    chase_check.delay(order.pk)  # waits in the queue: the chase is overdue
    workers.start("orders")
    wait_for(lambda: order.retries.exists(), seconds=40)
    outcomes = list(Reconciliation.objects.order_by("id").values_list("outcome", flat=True))
    assert Outcome.BEGUN in outcomes
    assert outcomes[outcomes.index(Outcome.BEGUN) + 1] == Outcome.WHOLE
    paths = [each["path"].rpartition("/")[2] for each in simulator.events()[seen:] if each["event"] == "request"]
    commands = [paths.index(name) for name in ("order-cash", "order-rvsecncl") if name in paths]
    assert paths.index("inquire-daily-ccld") < min(commands)
