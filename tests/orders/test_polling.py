"""Prices asked for where no feed tells them."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from aegis.broker import Broker
from infra import clock
from kis.status import SocketState, StreamStatus
from market.models import Stock
from orders import price_polling
from portfolio import ledger
from portfolio.models import Portfolio
from simulator.api.server import Simulator
from tests.portfolio.test_ledger import BALANCE, HYNIX, SAMSUNG

pytestmark = pytest.mark.django_db
DOWN = StreamStatus(state=SocketState.LOST)
UP = StreamStatus(state=SocketState.CONNECTED, has_own_fills=True, held=("H0STCNT0:005930", "H0STCNT0:000660"))


@pytest.fixture(autouse=True)
def held(simulator: Simulator) -> None:
    simulator.set_price(SAMSUNG.code, 73_500)
    ledger.replace(BALANCE, now=clock.now())


def prices() -> dict[str, tuple[int, str]]:
    rows = Portfolio.objects.values_list("stock_code", "current_price", "price_source")
    return {code: (price, source) for code, price, source in rows}


def test_while_the_socket_is_down_prices_are_asked_for_and_say_so(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    assert price_polling.poll(broker, DOWN, clock.now) == 2
    assert prices()[SAMSUNG.code] == (73_500, "POLL")
    assert "LOST" in caplog.text
    assert "000660, 005930" in caplog.text


def test_while_every_feed_is_heard_nobody_is_asked(broker: Broker) -> None:
    assert price_polling.poll(broker, UP, clock.now) == 0
    assert prices()[SAMSUNG.code] == (SAMSUNG.price, "BALANCE")


def test_a_holding_the_socket_has_no_room_for_is_asked_for(broker: Broker) -> None:
    full = replace(UP, held=("H0STCNT0:000660",))
    assert price_polling.poll(broker, full, clock.now) == 1
    assert prices()[SAMSUNG.code] == (73_500, "POLL")
    assert prices()[HYNIX.code][1] == "BALANCE"


def test_while_the_market_is_closed_nobody_is_asked(broker: Broker, clock_at: Callable[[str], datetime]) -> None:
    clock_at("2026-11-28 10:00:00")
    assert price_polling.poll(broker, DOWN, clock.now) == 0


def test_before_nine_only_what_nxt_trades_is_asked_for_there(
    broker: Broker, clock_at: Callable[[str], datetime]
) -> None:
    Stock.objects.create(
        code=SAMSUNG.code, name="", board="KOSPI", instrument="STOCK", trades_on_nxt=True, synced_at=clock.now()
    )
    clock_at("2026-11-24 08:30:00")
    assert price_polling.poll(broker, DOWN, clock.now) == 1


def test_a_broker_that_does_not_answer_ends_the_turn(broker: Broker, simulator: Simulator) -> None:
    simulator.stop()
    assert price_polling.poll(broker, DOWN, clock.now) == 0
