"""What changed since an order was judged is seen in the moment before its bytes leave."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from unittest import mock

import pytest
from django.utils.translation import gettext

from aegis.broker import Acceptance, Broker, BrokerOrderRef, HeldBack, NotSent, OrderRequest, Quote
from aegis.lifecycle import Status
from aegis.requests import RequestKind, RequestState
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market, Side
from aegis.trading_state import TradingState
from infra import clock
from orders import cancel_driver, chase, kill_switch, reconcile, stops
from orders.cancel import end_chase
from orders.models import BlacklistedStock, StopRule, TradeOrder
from orders.requests import MAX_QUOTE_AGE, WHY_HELD_BACK, grounds_of, new_order_check
from orders.service import NO_CHASE, OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from simulator.api.server import Simulator

from .conftest import SAMSUNG

ACCOUNT = "50000000-01"
BUY = OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_normal")
Buy = Callable[..., TradeOrder]
ClockAt = Callable[[Any], object]
# a broker before which something happens when an order is about to leave
Meanwhile = Callable[[Callable[[OrderRequest], object]], Broker]


@pytest.fixture
def meanwhile(broker: Broker) -> Meanwhile:
    def that(happens: Callable[[OrderRequest], object]) -> Broker:
        def place(request: OrderRequest) -> Acceptance:
            happens(request)
            return broker.place(request)

        return mock.MagicMock(wraps=broker, place=place)

    return that


@pytest.fixture
def meanwhile_cancel(broker: Broker) -> Meanwhile:
    """A broker before which something happens when a cancel is about to leave."""

    def that(happens: Callable[[OrderRequest], object]) -> Broker:
        def cancel(placed: BrokerOrderRef) -> Acceptance:
            happens(mock.sentinel.cancel)
            return broker.cancel(placed)

        return mock.MagicMock(wraps=broker, cancel=cancel)

    return that


def place(broker: Broker, intent: OrderIntent = BUY) -> TradeOrder:
    return OrderService(broker, clock.now).place(intent)


def was_held_back(order: TradeOrder, condition: str) -> bool:
    """Whether an order was kept for this reason, and counts as never sent."""
    kept = (order.state, order.never_arrived, order.sent_at) == (Status.REJECTED, True, None)
    return (
        kept
        and order.requests.get().state == RequestState.NOT_SENT
        and order.refusal == gettext(WHY_HELD_BACK[condition])
    )


def placed_at_the_exchange(simulator: Simulator) -> int:
    return len(simulator.ledger(ACCOUNT)["orders"])


def test_an_order_does_not_leave_once_trading_is_halted(
    service: OrderService, meanwhile: Meanwhile, simulator: Simulator
) -> None:
    def halt(request: OrderRequest) -> None:
        kill_switch.set_state(TradingState.HALTED, by="kim", reason="a test", at=clock.now())

    order = place(meanwhile(halt))
    assert was_held_back(order, "STATE")
    assert placed_at_the_exchange(simulator) == 0


def test_an_order_does_not_leave_by_a_quote_that_is_too_old(
    service: OrderService, meanwhile: Meanwhile, simulator: Simulator, clock_at: ClockAt
) -> None:
    order = place(meanwhile(lambda request: clock_at(clock.now() + MAX_QUOTE_AGE + timedelta(seconds=1))))
    assert was_held_back(order, "QUOTE")
    assert placed_at_the_exchange(simulator) == 0


def test_an_order_does_not_leave_into_another_session(
    service: OrderService, meanwhile: Meanwhile, simulator: Simulator, clock_at: ClockAt
) -> None:
    clock_at("2026-11-23 15:29:55")
    reconcile.reconcile(service._broker, clock.now)
    intent = replace(BUY, market=Market.KRX)
    order = place(meanwhile(lambda request: clock_at("2026-11-23 15:30:00")), intent)
    assert was_held_back(order, "SESSION")
    assert placed_at_the_exchange(simulator) == 0


def test_a_stock_that_was_just_blacklisted_is_not_bought(
    service: OrderService, meanwhile: Meanwhile, simulator: Simulator
) -> None:
    def blacklist(request: OrderRequest) -> None:
        BlacklistedStock.objects.create(stock_code=SAMSUNG, reason="a test")

    assert was_held_back(place(meanwhile(blacklist)), "BLACKLIST")
    assert placed_at_the_exchange(simulator) == 0


def test_the_sale_of_a_stop_that_was_just_disarmed_does_not_leave(
    service: OrderService, broker: Broker, meanwhile: Meanwhile, simulator: Simulator
) -> None:
    place(broker, replace(BUY, strategy="buy_urgent", plan=NO_CHASE))
    reconcile.reconcile(broker, clock.now)
    KISFetcher(broker, clock.now).sync_portfolio()
    stop = stops.arm(SAMSUNG, StopKind.STOP_LOSS, StopUnit.PRICE, Decimal(65_000), by="kim", at=clock.now())
    assert stops.trigger(stop.pk, 64_900, clock.now(), seen="feed")
    stops.run_sale_step(stop.pk, meanwhile(lambda request: stops.disarm(stop, why="kim", at=clock.now())), clock.now)
    sale = TradeOrder.objects.get(order_type=Side.SELL)
    assert was_held_back(sale, "STOP")
    assert StopRule.objects.get().state == StopRule.State.DISARMED
    assert placed_at_the_exchange(simulator) == 1


def test_an_order_leaves_once_whoever_else_has_its_row(
    service: OrderService, broker: Broker, meanwhile: Meanwhile, simulator: Simulator
) -> None:
    def another_sends(request: OrderRequest) -> None:
        # its reply is still on its way
        row = TradeOrder.objects.get()
        broker.place(replace(request, last_check=new_order_check(row, grounds_of(row), clock.now)))

    place(meanwhile(another_sends))
    assert placed_at_the_exchange(simulator) == 1


def test_a_sender_that_was_turned_away_unread_may_try_again_and_another_may_not(
    service: OrderService, meanwhile: Meanwhile
) -> None:
    def two_senders(request: OrderRequest) -> None:
        assert request.last_check is not None
        row = TradeOrder.objects.get()
        request.last_check()
        request.last_check()
        with pytest.raises(HeldBack):
            new_order_check(row, grounds_of(row), clock.now)()

    assert place(meanwhile(two_senders)).is_open


# --- re-orders


@pytest.fixture
def between(buy: Buy, broker: Broker, clock_at: ClockAt) -> TradeOrder:
    """An order that its chase has cancelled, with its re-order due."""
    order = buy()
    clock_at(clock.now() + timedelta(seconds=31))
    while order.state is not Status.CANCELLED:
        chase.run_step(order.pk, broker, clock.now)
        order.refresh_from_db()
    return order


def test_a_reorder_is_not_committed_once_its_chase_was_ended(
    between: TradeOrder, service: OrderService, broker: Broker
) -> None:
    def quote(code: str, market: Market) -> Quote:
        with suppress(HeldBack):  # nothing is left of it: that ends its chase all the same
            service.cancel(between)
        return broker.quote(code, market)

    chase.run_due_steps(between.pk, mock.MagicMock(wraps=broker, quote=quote), clock.now)
    assert TradeOrder.objects.count() == 1
    between.refresh_from_db()
    assert between.chase_at is None


def test_a_reorder_does_not_leave_once_its_chase_was_ended(
    between: TradeOrder, meanwhile: Meanwhile, simulator: Simulator
) -> None:
    before = placed_at_the_exchange(simulator)
    by_hand = meanwhile(lambda request: end_chase(between, "by hand", at=clock.now()))
    chase.run_due_steps(between.pk, by_hand, clock.now)
    assert was_held_back(between.retries.get(), "CHASE")
    assert placed_at_the_exchange(simulator) == before


def test_a_chases_cancel_that_was_held_back_is_not_sent_by_others(
    service: OrderService, broker: Broker, simulator: Simulator, clock_at: ClockAt
) -> None:
    order = place(broker, replace(BUY, tick_offset=-20))
    clock_at(clock.now() + timedelta(seconds=31))

    def cancel(placed: BrokerOrderRef) -> Acceptance:
        end_chase(order, "a test", at=clock.now())
        return broker.cancel(placed)

    chase.run_due_steps(order.pk, mock.MagicMock(wraps=broker, cancel=cancel), clock.now)
    clock_at(clock.now() + timedelta(minutes=1))
    assert cancel_driver.due_cancels(clock.now()) == []
    assert [each["status"] for each in simulator.ledger(ACCOUNT)["orders"]] == ["open"]


def test_who_ends_a_chase_ends_its_cancel_that_could_not_leave(
    service: OrderService, broker: Broker, clock_at: ClockAt
) -> None:
    order = place(broker, replace(BUY, tick_offset=-20))
    clock_at(clock.now() + timedelta(seconds=31))
    cancel = mock.Mock(side_effect=NotSent("no connection"))
    chase.run_due_steps(order.pk, mock.MagicMock(wraps=broker, cancel=cancel), clock.now)
    cancel.assert_called_once()
    end_chase(order, "a test", at=clock.now())
    clock_at(clock.now() + timedelta(minutes=1))
    assert cancel_driver.due_cancels(clock.now()) == []


def test_a_cancel_does_not_leave_into_the_next_day(
    service: OrderService, broker: Broker, meanwhile_cancel: Meanwhile, simulator: Simulator, clock_at: ClockAt
) -> None:
    order = place(broker)
    late = meanwhile_cancel(lambda request: clock_at("2026-11-24 00:00:01"))
    with pytest.raises(HeldBack):
        OrderService(late, clock.now).cancel(order)
    assert [each["request"] for each in simulator.ledger(ACCOUNT)["orders"]] == ["new"]
    assert order.requests.get(kind=RequestKind.CANCEL).state == RequestState.NOT_SENT
