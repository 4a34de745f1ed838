"""Days unlike others: what the service lets go, on which venue and with which code, to the simulated exchange."""

from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from typing import Any

import pytest
import redis

from aegis.terms import Market, OrderKind, Side
from infra import clock
from kis import factory
from market import reference_data
from market.models import TradingDay
from orders.service import OrderDenied, OrderIntent, OrderService
from simulator.api.server import Simulator, serve

pytestmark = pytest.mark.django_db
SAMSUNG = "005930"
ACCOUNT = "50000000-01"
HOLIDAY_SERVICE = "/uapi/domestic-stock/v1/quotations/chk-holiday"
KRX, NXT = Market.KRX, Market.NXT
OpenAt = Callable[[str], tuple[OrderService, Simulator]]


@pytest.fixture
def open_at(
    clock_at: Callable[[str], datetime], store: redis.Redis, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> Iterator[OpenAt]:
    """Open the exchange at a moment: `service, simulator = open_at("2026-09-11 17:00")`."""
    started: list[Any] = []

    def open_at(moment: str) -> tuple[OrderService, Simulator]:
        clock_at(f"{moment}:00")
        serving = serve(seed=1, ticking=False, codes=[SAMSUNG])
        simulator = serving.__enter__()
        started.append(serving)
        settings.KIS_ENVIRONMENT = settings.KIS_ENVIRONMENT.at(simulator.url)
        settings.KIS_CALLS_PER_SECOND = settings.KIS_LEDGER_CALLS_PER_SECOND = 1_000
        monkeypatch.setenv("AEGIS_SIMULATOR_URL", simulator.url)
        factory.reset()
        return OrderService(factory.broker(), clock.now), simulator

    yield open_at
    factory.reset()
    for serving in started:
        serving.__exit__(None, None, None)


def taken(simulator: Simulator) -> list[tuple[str, str]]:
    """Return venue and code of each order as the exchange took it."""
    return [(order["venue"], order["kind"]) for order in simulator.ledger(ACCOUNT)["orders"]]


def ordered(service: OrderService, simulator: Simulator, market: Market | None, words: Mapping[str, Any]) -> str:
    """Order one share; return `KRX 00` as the exchange took it, or the first reason why it was never sent."""
    try:
        service.place(OrderIntent(SAMSUNG, Side.BUY, 1, market=market, **words))
    except OrderDenied as denied:
        assert taken(simulator) == [], "a denied order never leaves"
        return denied.reasons[0].code
    ((venue, kind),) = taken(simulator)
    return f"{venue} {kind}"


LIMIT: Mapping[str, Any] = {"price": 70_000}
MARKET: Mapping[str, Any] = {}


@pytest.mark.parametrize(
    ("moment", "market", "words", "expected"),
    [
        ("2026-12-25 10:00", None, LIMIT, "MARKET_CLOSED"),
        ("2026-12-25 17:00", NXT, LIMIT, "MARKET_CLOSED"),
        ("2026-12-31 10:00", None, MARKET, "MARKET_CLOSED"),
        ("2026-11-19 08:30", NXT, LIMIT, "MARKET_CLOSED"),
        ("2026-11-19 09:10", KRX, LIMIT, "MARKET_CLOSED"),
        ("2026-11-19 09:30", None, LIMIT, "KRX 00"),
        ("2026-11-19 10:01", None, MARKET, "KRX 01"),
        ("2026-11-19 15:45", None, MARKET, "KRX 01"),
        ("2026-11-19 16:35", None, LIMIT, "NXT 00"),
        ("2026-11-19 16:35", KRX, LIMIT, "ORDER_KIND"),
        ("2026-11-19 17:10", KRX, LIMIT, "KRX 41"),
        ("2026-11-19 20:00", None, LIMIT, "MARKET_CLOSED"),
        ("2026-09-11 08:25", KRX, LIMIT, "MARKET_CLOSED"),
        ("2026-09-14 08:25", KRX, LIMIT, "KRX 00"),
        ("2026-09-11 08:10", NXT, LIMIT | {"kind": OrderKind.GTP_LIMIT}, "ORDER_KIND"),
        ("2026-09-14 08:10", NXT, LIMIT | {"kind": OrderKind.GTP_LIMIT}, "NXT 27"),
        ("2026-09-11 17:00", KRX, LIMIT | {"kind": OrderKind.AFTER_HOURS_SINGLE}, "KRX 07"),
        ("2026-09-14 17:00", KRX, LIMIT | {"kind": OrderKind.AFTER_HOURS_SINGLE}, "ORDER_KIND"),
        ("2026-09-11 17:00", KRX, LIMIT | {"kind": OrderKind.AFTER_LIMIT}, "ORDER_KIND"),
        ("2026-09-14 17:00", KRX, LIMIT, "KRX 41"),
        ("2026-09-11 17:00", None, LIMIT, "NXT 00"),
        ("2026-09-11 19:00", KRX, LIMIT, "MARKET_CLOSED"),
        ("2026-09-14 19:00", KRX, LIMIT, "KRX 41"),
    ],
)
def test_each_day_goes_by_its_own_phases_and_codes(
    open_at: OpenAt, moment: str, market: Market | None, words: Mapping[str, Any], expected: str
) -> None:
    service, simulator = open_at(moment)
    reference_data.sync_calendar_of_the_day(factory.broker(), now=clock.now())
    assert TradingDay.objects.get(pk=clock.now().date()).source == TradingDay.Source.BROKER
    assert ordered(service, simulator, market, words) == expected


@pytest.mark.parametrize(
    ("moment", "market", "expected"),
    [
        ("2026-12-25 10:00", None, "MARKET_CLOSED"),
        ("2026-11-19 09:10", KRX, "MARKET_CLOSED"),
        ("2026-11-19 15:45", None, "KRX 00"),
        ("2026-09-11 16:30", KRX, "ORDER_KIND"),
        ("2026-09-14 16:30", KRX, "KRX 41"),
    ],
)
def test_so_it_goes_while_the_holiday_service_fails(
    open_at: OpenAt, moment: str, market: Market | None, expected: str
) -> None:
    service, simulator = open_at(moment)
    simulator.fault("error_500", path=HOLIDAY_SERVICE)
    reference_data.sync_calendar_of_the_day(factory.broker(), now=clock.now())
    assert TradingDay.objects.get(pk=clock.now().date()).source == TradingDay.Source.LIBRARY
    assert ordered(service, simulator, market, LIMIT) == expected
