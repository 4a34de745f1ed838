from collections.abc import Callable
from datetime import timedelta

from aegis.broker import Broker
from infra import clock
from orders import periodic_sync, reconcile
from orders.models import TradeOrder
from portfolio.models import AccountSnapshot
from simulator.api.server import Simulator

Buy = Callable[..., TradeOrder]


def test_the_cash_follows_a_fill_without_waiting_for_its_turn(buy: Buy, broker: Broker, simulator: Simulator) -> None:
    order = buy()
    known = AccountSnapshot.objects.count()
    periodic_sync.sync_after_fills(broker, clock.now)
    assert AccountSnapshot.objects.count() == known, "nothing was filled: nothing is asked"
    simulator.set_price(order.stock_code, 69_000, freeze=True)
    reconcile.reconcile(broker, clock.now)
    for _ in range(3):
        periodic_sync.sync_after_fills(broker, clock.now)
        clock.set_now(clock.now() + timedelta(seconds=5))
    assert AccountSnapshot.objects.count() == known + 2, "one after the overlap, and then no more"
    newest = AccountSnapshot.objects.latest()
    assert newest.deposit_d2 < newest.deposit
