"""Two processes that know the same row, and one that acts while another does."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest

from aegis.broker import Acceptance, Broker, BrokerOrderRef, OrderRequest, Quote
from aegis.chase import ChaseStep
from aegis.lifecycle import Status
from aegis.terms import Market, Side
from infra import clock
from orders import chase, fills, reconcile, unknown
from orders.models import RawNotice, StopRule, TradeOrder
from orders.service import OrderIntent, OrderService
from simulator.api.server import Simulator

from .conftest import SAMSUNG
from .test_fills import hear, notice

ACCOUNT = "50000000-01"
OPEN = "/uapi/domestic-stock/v1/trading/inquire-psbl-rvsecncl"
BUY = OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_normal")
Buy = Callable[..., TradeOrder]
ClockAt = Callable[[Any], object]
State = StopRule.State


@pytest.fixture
def after(clock_at: ClockAt) -> Callable[[float], None]:
    def pass_time(seconds: float) -> None:
        clock_at(clock.now() + timedelta(seconds=seconds))

    return pass_time


def step_until(order: TradeOrder, status: Status, broker: Broker) -> None:
    for _ in range(6):
        chase.run_step(order.pk, broker, clock.now)
        order.refresh_from_db()
        if order.state is status:
            return
    raise AssertionError(f"it is {order.status}")


# --- replies and notices


def test_a_reply_that_comes_after_the_list_found_the_order_changes_nothing(
    service: OrderService, broker: Broker, simulator: Simulator, after
) -> None:
    def slowly(request: OrderRequest) -> Acceptance:
        acceptance = broker.place(request)
        simulator.set_price(SAMSUNG, 69_000, freeze=True)
        after(unknown.SENDER_TIMEOUT.total_seconds() + 1)
        reconcile.reconcile(broker, clock.now)
        assert TradeOrder.objects.get().state is Status.FILLED
        return acceptance

    order = OrderService(mock.MagicMock(wraps=broker, place=slowly), clock.now).place(BUY)
    assert (order.state, order.filled_qty, order.chase_at) == (Status.FILLED, 10, None)


@pytest.fixture
def applied_twice(service: OrderService, broker: Broker) -> Callable[[Callable[[str], str]], TradeOrder]:
    """Place an order whose notice comes before its number is known, and apply it from two copies of its row."""

    def run(text: Callable[[str], str]) -> TradeOrder:
        early: list[RawNotice] = []

        def place(request: OrderRequest) -> Acceptance:
            acceptance = broker.place(request)
            early.append(hear(text(acceptance.order_no)))
            return acceptance

        order = OrderService(mock.MagicMock(wraps=broker, place=place), clock.now).place(BUY)
        assert early[0].state == RawNotice.State.WAITING
        assert RawNotice.objects.get().state == RawNotice.State.APPLIED, "it was applied from another copy"
        assert fills.apply_notice(early[0], fills.stored_notice(early[0]), now=clock.now())
        order.refresh_from_db()
        return order

    return run


def test_a_fill_that_two_workers_have_read_counts_once(applied_twice) -> None:
    order = applied_twice(lambda number: notice(number, qty=4))
    assert (order.filled_qty, order.executions.count()) == (4, 1)


def test_a_refused_cancel_that_two_workers_have_read_is_written_once(applied_twice) -> None:
    order = applied_twice(lambda number: notice("0000000009", original=number, flags="112", change="2"))
    assert order.events.filter(kind="REFUSED_BY_NOTICE").count() == 1


# --- the brake


def test_an_order_that_is_accepted_while_the_brake_is_on_its_way_is_cancelled_too(
    service: OrderService, broker: Broker, simulator: Simulator
) -> None:
    service.place(BUY)
    simulator.fault("refusal", path=OPEN)  # the broker does not tell what else is open

    def cancel(placed: BrokerOrderRef) -> Acceptance:
        if TradeOrder.objects.count() == 1:
            service.place(replace(BUY, request_id="the second"))
        return broker.cancel(placed)

    OrderService(mock.MagicMock(wraps=broker, cancel=cancel), clock.now).cancel_all()
    assert TradeOrder.objects.count() == 2
    assert "open" not in {each["status"] for each in simulator.ledger(ACCOUNT)["orders"]}


# --- the chase


def test_a_pause_leaves_a_chase_ended_that_was_ended_meanwhile(
    buy: Buy, service: OrderService, broker: Broker, simulator: Simulator, after
) -> None:
    order = buy()
    after(31)
    simulator.command("POST", f"/simulator/quotes/{SAMSUNG}", {"vi": "static"})

    def quote(code: str, market: Market) -> Quote:
        service.end_chase(order, "by hand")
        return broker.quote(code, market)

    assert chase.run_step(order.pk, broker, clock.now).next_step is ChaseStep.CANCEL
    chase.run_step(order.pk, mock.MagicMock(wraps=broker, quote=quote), clock.now)
    order.refresh_from_db()
    assert order.events.filter(kind="CHASE_PAUSED").exists(), "it was about to pause"
    assert (order.state, order.chase_at) == (Status.PENDING, None)


def test_no_more_is_ordered_again_than_our_own_cancel_released(buy: Buy, broker: Broker, after) -> None:
    order = buy()
    broker.cancel_part(order.placed, 4)  # by hand: six are left for the chase
    after(31)
    step_until(order, Status.CANCELLED, broker)
    chase.run_due_steps(order.pk, broker, clock.now)
    assert order.retries.get().qty == 6
