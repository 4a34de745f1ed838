"""The exchange's own list of trades, for whoever wants to hold bars against it."""

from urllib.parse import urlencode

import httpx
import pytest

from aegis.terms import Market
from simulator.api.server import Simulator

SAMSUNG = "005930"


def trades(simulator: Simulator, market: Market = Market.KRX) -> list[tuple[str, int, int]]:
    query = urlencode({"code": SAMSUNG, "market": market})
    return httpx.get(f"{simulator.url}/simulator/trades?{query}", trust_env=False).json()["trades"]


@pytest.fixture
def keeping(simulator: Simulator) -> Simulator:
    simulator.command("POST", "/simulator/trades", {"keep": True})
    return simulator


def test_every_trade_is_written_down_from_when_it_is_asked_for(keeping: Simulator) -> None:
    assert trades(keeping) == []
    keeping.set_price(SAMSUNG, 70_000)
    found = trades(keeping)
    assert found[-1][1] == 70_000
    assert all(qty > 0 for _, _, qty in found)
    keeping.command("POST", "/simulator/trades", {"keep": False})
    assert trades(keeping) == []


def test_a_market_it_does_not_trade_on_is_told(keeping: Simulator) -> None:
    answer = httpx.get(f"{keeping.url}/simulator/trades?code=000000", trust_env=False)
    assert answer.status_code == 400
    assert "000000" in answer.json()["error"]
