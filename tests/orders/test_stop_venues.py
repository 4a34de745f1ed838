"""Where a stop sells, and how long it waits: venues that refuse the stock, an unknown stock, released shares."""

from datetime import timedelta
from typing import Any
from unittest import mock

import pytest

from aegis.broker import OrderRequest, Quote, Refused
from aegis.terms import Market
from infra import clock
from market import reference_data
from market.models import Stock
from orders import kill_switch
from orders.models import StopRule
from simulator.api.server import Simulator

from .conftest import SAMSUNG
from .exchange_log import ACCOUNT
from .test_stop_sale import LINE, Falling, State, arm, fall, held, kinds, offer_externally, resting, sales, state, work

__all__ = ["arm", "fall", "held", "resting", "work"]  # fixtures

pytestmark = pytest.mark.django_db


@pytest.mark.parametrize("call", ["place", "quote"])
def test_a_stock_that_nxt_refuses_is_sold_on_krx_in_the_evening(
    arm: Any, fall: Any, work: Any, broker: Any, simulator: Simulator, clock_at: Any, call: str
) -> None:
    row = arm()
    clock_at("2026-11-23 16:30:00")
    simulator.set_price(SAMSUNG, 70_000, freeze=True)
    fall(LINE, row)

    def place(request: OrderRequest) -> Any:
        if request.market is Market.NXT:
            raise Refused("not traded on NXT", code="APBK0000")
        return broker.place(request)

    def quote(code: str, market: Market) -> Quote:
        if market is Market.NXT:
            raise Refused("not traded on NXT", code="APBK0000")
        answer: Quote = broker.quote(code, market)
        return answer

    work(120, mock.MagicMock(wraps=broker, **{call: locals()[call]}), every=2)
    assert state(row) == (State.DONE, 0), kinds(row)
    assert {each.market for each in sales() if each.filled_qty} == {"KRX"}


def test_a_sale_that_rests_on_nxt_moves_to_krx_once_nxt_refuses_the_stock(
    arm: Any, fall: Any, work: Any, broker: Any, simulator: Simulator, clock_at: Any
) -> None:
    row = arm()
    clock_at("2026-11-23 16:30:00")
    simulator.set_price(SAMSUNG, 70_000, freeze=True)
    fall(LINE, row)
    work(2, Falling(broker, simulator, 4, 1))
    assert [(each.market, each.is_open) for each in sales()] == [("NXT", True)]

    def quote(code: str, market: Market) -> Quote:
        if market is Market.NXT:
            raise Refused("not traded on NXT", code="APBK0000")
        answer: Quote = broker.quote(code, market)
        return answer

    work(60, mock.MagicMock(wraps=broker, quote=quote))
    assert state(row) == (State.DONE, 0), kinds(row)
    assert sales()[-1].market == "KRX"


def test_shares_that_are_released_after_a_long_halt_are_sold_within_seconds(
    arm: Any, fall: Any, work: Any, simulator: Simulator
) -> None:
    row = arm()
    fall(LINE, row)
    kill_switch.halt(by="kim", reason="", at=clock.now())
    work(600, every=5)
    kill_switch.resume(by="kim", reason="", at=clock.now())
    external = offer_externally(simulator, 10)
    work(6, every=1)
    simulator.command("POST", "/simulator/orders", {"account": ACCOUNT, "cancel": int(external["number"])})
    began = clock.now()
    for _ in range(60):
        work(1)
        if state(row)[0] == State.DONE:
            break
    assert (clock.now() - began).total_seconds() <= 20, kinds(row)


def test_a_stop_that_never_noted_its_trigger_sells_what_is_not_locked(
    arm: Any, fall: Any, work: Any, simulator: Simulator
) -> None:
    row = arm()
    fall(LINE, row)
    StopRule.objects.update(triggered_at=None)
    offer_externally(simulator, 4)
    work(30)
    assert sum(each.filled_qty for each in sales()) == 6


@pytest.mark.parametrize("is_listed", [True, False])
def test_a_stock_that_the_broker_does_not_describe_is_sold(
    arm: Any, fall: Any, work: Any, monkeypatch: pytest.MonkeyPatch, is_listed: bool
) -> None:
    row = arm()
    Stock.objects.filter(pk=SAMSUNG).delete()
    if is_listed:
        Stock.objects.create(code=SAMSUNG, name="삼성전자", board="KOSPI", instrument="STOCK")
    monkeypatch.setattr(reference_data, "sync_stock", mock.Mock(side_effect=Refused("no", code="EGW1")))
    fall(LINE, row)
    work(30)
    assert state(row) == (State.DONE, 0), kinds(row)


def test_a_resting_sale_goes_on_after_the_clock_was_set_back(
    resting: Any, work: Any, simulator: Simulator, clock_at: Any
) -> None:
    row, _sale = resting
    clock_at(clock.now() - timedelta(minutes=30))
    work(60)
    assert state(row)[0] == State.DONE, kinds(row)
