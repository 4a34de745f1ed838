"""Execution quality from orders that were really chased, filled and corrected."""

import json
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command
from django.utils import translation

from aegis.broker import Broker
from aegis.chase import Plan
from aegis.terms import Side
from infra import clock
from orders import chase, execution_quality, serializers
from orders.models import TradeOrder
from orders.reconcile import reconcile
from simulator.api.server import Simulator

Buy = Callable[..., TradeOrder]
Clock = Callable[..., Any]


@pytest.fixture(autouse=True)
def _english() -> object:
    with translation.override("en"):
        yield


def told(*words: str) -> dict[str, Any]:
    out = StringIO()
    call_command("quality", *words, "--json", stdout=out)
    return json.loads(out.getvalue())


def test_a_resting_buy_that_the_market_comes_to_saves_three_ticks(
    buy: Buy, broker: Broker, simulator: Simulator
) -> None:
    buy()
    simulator.set_price("005930", 69_700)
    reconcile(broker, clock.now)
    (line,) = execution_quality.report(clock.now(), days=1).lines
    assert line.quality is not None
    assert (line.quality.average, line.quality.is_estimated) == (69_800, True)
    assert (line.quality.against_arrival.ticks, line.quality.against_arrival.won) == (-2, -2_000)
    assert (line.quality.against_market.ticks, line.quality.against_market.won) == (-3, -3_000)
    assert line.family.fees == 98  # 698,000 won at 0.0140527 %
    shape = told()
    assert set(shape["families"][0]) == set(serializers.FamilyShape.__annotations__)
    assert set(shape["total"]) == set(serializers.SavingsShape.__annotations__)
    assert set(shape["families"][0]["against_arrival"]) == set(serializers.GapShape.__annotations__)
    assert (shape["savings"][0]["style"], shape["total"]["saved_won"]) == ("buy_normal", 3_000)


def test_a_buy_at_the_best_quote_is_held_against_the_book(buy: Buy, broker: Broker) -> None:
    order = buy(strategy="buy_urgent")
    reconcile(broker, clock.now)
    (line,) = execution_quality.report(clock.now(), days=1).lines
    assert line.quality is not None
    assert not line.quality.is_estimated
    assert line.quality.market_price == order.arrival_sweep_price == Decimal(70_000)
    assert line.quality.against_market.won == 0


def test_a_chase_is_one_family_held_against_its_first_moment(buy: Buy, broker: Broker, clock_at: Clock) -> None:
    root = buy(plan=Plan(wait_seconds=10, max_retries=0, step_ticks=1, market_after=True))
    clock_at(clock.now() + timedelta(seconds=11))
    chase.run_due_steps(root.pk, broker, clock.now)
    reconcile(broker, clock.now)
    (line,) = execution_quality.report(clock.now(), days=1).lines
    assert (line.retries, line.family.asked_qty, line.family.filled_qty) == (1, 10, 10)
    assert line.quality is not None
    # the two ticks it began under are lost to the market order at last
    assert (line.family.arrival_price, line.quality.average) == (70_000, 70_000)
    assert line.quality.against_arrival.won == 0


def test_what_did_not_fill_is_told_and_saves_nothing(buy: Buy) -> None:
    buy()
    shape = told()
    assert shape["families"][0]["average"] is None
    assert (shape["total"]["families"], shape["total"]["filled_families"]) == (1, 0)
    out = StringIO()
    call_command("quality", stdout=out)
    assert "10 asked, nothing filled" in out.getvalue()
    assert "all: 1 orders, filled 0.000%" in out.getvalue()


def test_orders_by_hand_and_days_before_are_not_ours_to_judge(
    buy: Buy, broker: Broker, simulator: Simulator, clock_at: Clock
) -> None:
    order = {"account": "50000000-01", "code": "005930", "side": "BUY", "quantity": 1, "price": 70_100, "kind": "00"}
    simulator.command("POST", "/simulator/orders", {**order, "market": "KRX"})
    reconcile(broker, clock.now)
    buy()
    assert [line.root.origin for line in execution_quality.report(clock.now(), days=1).lines] == ["AEGIS"]
    clock_at("2026-11-24 10:00:00")
    assert execution_quality.report(clock.now(), days=1).lines == []
    report = execution_quality.report(clock.now(), days=2)
    assert (len(report.lines), report.trading_days) == (1, 2)


def test_the_style_of_an_order_without_a_strategy_is_how_it_was_priced(buy: Buy) -> None:
    assert execution_quality.style(buy(price=69_000)) == "limit"
    assert execution_quality.style(buy(strategy="")) == "market"
    assert execution_quality.style(buy(side=Side.BUY)) == "buy_normal"
