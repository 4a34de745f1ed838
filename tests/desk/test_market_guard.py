"""A circuit breaker of the simulated exchange, heard on a real socket: nothing leaves until it ends."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime

import pytest
from django.db import OperationalError, connections

from aegis.market_halts import BEGINS, ENDS
from aegis.terms import Side
from kis.realtime import StockState
from orders import risk
from orders.models import MarketHalt
from orders.service import OrderDenied, OrderIntent, OrderService
from simulator.api.server import Simulator
from stream import halts
from stream.worker import LeaderSession

pytestmark = pytest.mark.django_db(transaction=True)
PATIENCE_SECONDS = 30.0


@pytest.fixture
def listening(service: OrderService, simulator: Simulator) -> Iterator[LeaderSession]:
    term, stop = LeaderSession(lambda: True), threading.Event()

    def run() -> None:
        term.run(stop)
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: "H0STMKO0:005930" in {str(topic) for topic in term.stream.subscriptions.held})
    yield term
    stop.set()
    thread.join()


def until(happened: Callable[[], bool]) -> None:
    gives_up_at = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        assert time.monotonic() < gives_up_at
        time.sleep(0.02)


def test_a_circuit_breaker_holds_orders_back_and_its_end_lets_trade_again(
    listening: LeaderSession, service: OrderService, simulator: Simulator
) -> None:
    simulator.command("POST", "/simulator/market", {"halt": "circuit_breaker"})
    until(lambda: MarketHalt.objects.filter(kind="CIRCUIT_BREAKER", ended_at=None).exists())
    with pytest.raises(OrderDenied):
        service.place(OrderIntent("005930", Side.BUY, 1, strategy="buy_normal"))
    simulator.command("POST", "/simulator/market", {"resume": "circuit_breaker"})
    until(lambda: MarketHalt.objects.filter(ended_at__isnull=False).exists())
    assert risk.trading_state().value == "ACTIVE"
    assert MarketHalt.objects.get().end_heard
    assert service.place(OrderIntent("005930", Side.BUY, 1, strategy="buy_normal")).status == "PENDING"


def test_a_sidecar_is_heard_too_and_stops_no_trading(listening: LeaderSession, simulator: Simulator) -> None:
    assert simulator.command("POST", "/simulator/market", {"halt": "sell_sidecar"})["halted"] == 0
    until(lambda: MarketHalt.objects.filter(kind="SELL_SIDECAR", ended_at=None).exists())


def test_codes_are_written_in_their_order_though_the_database_was_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(halts, "LISTEN_SECONDS", 0.01)
    heard, written, failures = halts.Halts(), list[str](), [OperationalError()]

    def write(code: str, at: datetime) -> None:
        if failures:
            raise failures.pop()
        written.append(code)

    monkeypatch.setattr(halts.market_halts, "hear", write)
    begin, end = next(iter(BEGINS)), next(iter(ENDS))
    for code in (begin, end):
        heard.on_states([StockState("005930", False, "", code, "", "", False)], 0.0)
    with pytest.raises(OperationalError):
        heard.write()
    for _ in range(3):
        heard.write()
    assert written == [begin, end]
