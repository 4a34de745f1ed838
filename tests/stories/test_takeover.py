"""Two stream workers as real processes: one holds the socket, the other stands by."""

import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from aegis.broker import Broker, OrderRequest
from aegis.terms import Market, OrderKind, Side
from infra import clock
from kis.factory import stream_status
from kis.status import SocketState
from market import reference_data
from orders.models import RawNotice
from simulator.api.server import Simulator
from tests.workers import Workers

SAMSUNG = "005930"
TAKEOVER_SECONDS = 10.0


def wait_for(happened: Callable[[], bool], seconds: float = 60.0) -> float:
    """Return after how many seconds it happened."""
    began = time.monotonic()
    while not happened():
        assert time.monotonic() < began + seconds, f"it did not happen in {seconds:g} s"
        time.sleep(0.02)
    return time.monotonic() - began


def sessions(simulator: Simulator) -> Sequence[dict[str, Any]]:
    return [event for event in simulator.events() if event["event"] == "session"]


def most_at_once(simulator: Simulator) -> int:
    """Return how many sessions of our key the simulator ever had admitted at the same time, by its own record."""
    here: set[int] = set()
    most = 0
    for event in sessions(simulator):
        if event["state"] == "admitted":
            here.add(event["session"])
        elif event["state"] == "closed":
            here.discard(event["session"])
        most = max(most, len(here))
    return most


def buy(broker: Broker) -> None:
    """Buy with another program's hand: nothing of ours knows of it but by the notice."""
    broker.place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.MARKET, 1, 0))


@pytest.fixture
def pair(transactional_db: None, broker: Broker, workers: Workers) -> Iterator[list[int]]:
    """Start two stream workers, and return their process numbers: who holds the socket first."""
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    first = workers.start(stream=True, name="first")
    wait_for(lambda: stream_status().is_alive)
    second = workers.start(stream=True, name="second")
    assert stream_status().fence == 1
    yield [first.pid, second.pid]
    for worker in (first, second):
        if worker.poll() is None:
            worker.send_signal(signal.SIGCONT)


def test_who_stands_by_takes_over_from_the_dead(pair: list[int], broker: Broker, simulator: Simulator) -> None:
    os.kill(pair[0], signal.SIGKILL)
    took = wait_for(lambda: stream_status().fence == 2 and stream_status().is_alive)
    assert took <= TAKEOVER_SECONDS
    buy(broker)
    wait_for(lambda: RawNotice.objects.exists())
    assert most_at_once(simulator) == 1


def test_who_was_paused_past_its_lease_writes_nothing_and_lets_go(
    pair: list[int], broker: Broker, simulator: Simulator
) -> None:
    mine = sessions(simulator)[-1]["session"]
    os.kill(pair[0], signal.SIGSTOP)
    wait_for(lambda: stream_status().fence == 2)
    # the notices of this order wait in the line of who is paused
    buy(broker)
    # the broker still counts its session, and turns the second away
    wait_for(lambda: any(event["state"] == "refused" for event in sessions(simulator)))
    assert stream_status().state is not SocketState.CONNECTED or not stream_status().is_alive
    os.kill(pair[0], signal.SIGCONT)
    wait_for(lambda: any(e["session"] == mine and e["state"] == "closed" for e in sessions(simulator)))
    assert not RawNotice.objects.exists()
    wait_for(lambda: stream_status().is_alive)
    assert (stream_status().fence, most_at_once(simulator)) == (2, 1)
    buy(broker)
    wait_for(lambda: RawNotice.objects.exists())
