"""A requested cancel is carried out: without an answer, without a row, without a list, over a night."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command

from aegis.broker import Broker, BrokerError, HeldBack, OpenOrder
from aegis.lifecycle import Status
from aegis.terms import Side
from desk import actions
from infra import clock
from market import reference_data
from notify import alerts
from notify.models import Message
from orders import cancel_driver, chase, journal, reconcile, tasks
from orders.models import BrokerRequest, TradeOrder
from orders.service import OrderIntent, OrderService
from simulator.api.server import Simulator

from .conftest import SAMSUNG
from .exchange_log import ACCOUNT
from .helpers import place_externally

CHANGE, LIST, OPEN_LIST = "order-rvsecncl", "inquire-daily-ccld", "inquire-psbl-rvsecncl"
Buy = Callable[..., TradeOrder]
ClockAt = Callable[[Any], object]
After = Callable[[float], None]
Turn = Callable[[int], None]


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The brake's pauses, and the client's between two tries, pass at once."""
    for module in ("orders.cancel_all", "kis.client", "time"):
        monkeypatch.setattr(f"{module}.sleep", lambda seconds: None, raising=False)


@pytest.fixture
def lost(service: OrderService, simulator: Simulator) -> TradeOrder:
    """An order that is open at the broker, and whose answer was lost."""
    simulator.fault("answer_lost", path="order-cash", count=1)
    order = service.place(OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_normal"))
    assert order.state is Status.UNKNOWN
    return order


@pytest.fixture
def tomorrow(buy: Buy, broker: Broker, simulator: Simulator, clock_at: ClockAt) -> TradeOrder:
    """Yesterday's row, still open here; somebody else's order has its number today."""
    order = buy(price=69_000)
    clock_at("2026-11-24 10:00:00")
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    simulator.set_price(SAMSUNG, 70_000, freeze=True)
    place_externally(simulator)
    assert open_at(broker) == {order.order_no: 10}
    return order


def drive(broker: Broker) -> None:
    for pk in cancel_driver.due_cancels(clock.now()):
        cancel_driver.drive(pk, broker, clock.now)


def open_at(broker: Broker) -> dict[str, int]:
    return {each.placed.order_no: each.qty for each in broker.open_orders()}


def without_list(broker: Broker) -> Broker:
    """Return the broker with a list of orders that cannot be had."""
    return mock.MagicMock(wraps=broker, orders=mock.Mock(side_effect=BrokerError("HTTP 500")))


def kinds(order: TradeOrder) -> list[str]:
    return list(order.events.values_list("kind", flat=True))


# --- the brake


@pytest.mark.parametrize("fault", ["request_lost", "cancel_ignored"])
def test_the_brake_drives_on_what_had_no_answer(
    lost: TradeOrder, service: OrderService, broker: Broker, simulator: Simulator, turn: Turn, fault: str
) -> None:
    simulator.fault(fault, path=CHANGE, count=4)
    assert list(service.cancel_all().unconfirmed) == ["0000000001"]
    simulator.clear_faults()
    turn(40)
    assert open_at(broker) == {}
    assert not any(each["filled"] for each in simulator.ledger(ACCOUNT)["orders"])


def test_the_brake_drives_on_what_a_hand_ordered(
    service: OrderService, broker: Broker, simulator: Simulator, turn: Turn
) -> None:
    place_externally(simulator)
    simulator.fault("request_lost", path=CHANGE, count=4)
    service.cancel_all(external=True)
    simulator.clear_faults()
    turn(20)
    assert open_at(broker) == {}


def test_a_row_takes_over_what_was_asked_for_before_it_was_there(
    service: OrderService, broker: Broker, simulator: Simulator, turn: Turn
) -> None:
    place_externally(simulator)
    simulator.fault("request_lost", path=CHANGE, count=4)
    swept = OrderService(without_list(broker), clock.now).cancel_all(external=True)
    simulator.clear_faults()
    assert list(swept.unconfirmed) == ["0000000001"]
    assert BrokerRequest.objects.get().order is None
    reconcile.reconcile(broker, clock.now)
    order = TradeOrder.objects.get()
    assert (BrokerRequest.objects.get().order, order.cancel_requested_by) == (order, "CANCEL_ALL")
    turn(20)
    assert open_at(broker) == {}


def test_a_lost_order_that_was_cancelled_without_its_row_was_cancelled_by_us(
    lost: TradeOrder, service: OrderService, broker: Broker, after: After
) -> None:
    OrderService(without_list(broker), clock.now).cancel_all()
    after(15)
    reconcile.reconcile(broker, clock.now)
    lost.refresh_from_db()
    assert (lost.state, lost.end_cause, lost.chase_at) == (Status.CANCELLED, "OWN_CANCEL", None)


def test_the_brake_names_what_has_no_answer_and_cancels_it_once_it_is_found(
    lost: TradeOrder, service: OrderService, broker: Broker, simulator: Simulator, turn: Turn
) -> None:
    simulator.fault("order_missing", code=SAMSUNG)
    assert list(service.cancel_all().failed) == [str(lost)]
    simulator.clear_faults()
    turn(5)
    assert open_at(broker) == {}


@pytest.mark.parametrize("fault", ["empty_list", "order_missing"])
def test_the_brake_believes_no_list_of_open_orders_alone(
    buy: Buy, service: OrderService, simulator: Simulator, fault: str
) -> None:
    order = buy(price=69_000)
    simulator.fault("request_lost", path=CHANGE, count=4)
    simulator.fault(fault, path=OPEN_LIST)
    swept = service.cancel_all()
    assert (swept.cancelled, list(swept.unconfirmed)) == ([], [order.order_no])


@pytest.mark.parametrize("is_lost", [False, True])
def test_the_brake_knows_an_order_whose_code_the_broker_writes_otherwise(
    buy: Buy, broker: Broker, simulator: Simulator, is_lost: bool
) -> None:
    order = buy(price=69_000)

    def otherwise() -> list[OpenOrder]:
        return [replace(each, code="A" + each.code) for each in broker.open_orders()]

    if is_lost:
        simulator.fault("request_lost", path=CHANGE, count=4)
    swept = OrderService(mock.MagicMock(wraps=broker, open_orders=otherwise), clock.now).cancel_all()
    numbers = [order.order_no]
    assert (swept.cancelled, list(swept.unconfirmed), swept.left) == (
        ([], numbers, []) if is_lost else (numbers, [], [])
    )


@pytest.mark.parametrize("code", ["005930 ", "００５９３０", "A005930", "\ufeff005930"])
def test_the_brake_takes_a_code_as_it_is_typed(buy: Buy, service: OrderService, broker: Broker, code: str) -> None:
    buy(price=69_000)
    assert len(service.would_cancel(code=code).orders) == 1
    service.cancel_all(code=code)
    assert open_at(broker) == {}


# --- an operator, and an order without an answer


def test_an_operators_cancel_of_an_order_without_an_answer_is_kept(
    lost: TradeOrder, broker: Broker, turn: Turn, admin_user: User
) -> None:
    told = actions.cancel(lost, by=admin_user)
    assert told.is_done
    lost.refresh_from_db()
    assert (lost.cancel_requested_by, lost.chase_at, kinds(lost)[-1]) == ("OPERATOR", None, "CANCEL_DEFERRED")
    turn(5)
    assert open_at(broker) == {}


def test_an_operators_cancel_of_what_a_lost_amend_leads_to_is_kept(
    buy: Buy, service: OrderService, broker: Broker, simulator: Simulator, turn: Turn
) -> None:
    order = buy(price=69_000)
    simulator.fault("answer_lost", path=CHANGE, count=1)
    row = service.amend(order, price=69_500)
    call_command("cancel", f"#{row.pk}")
    turn(10)
    assert open_at(broker) == {}


def test_a_wish_outlasts_that_its_order_was_given_up_as_lost(
    lost: TradeOrder, service: OrderService, broker: Broker, after: After, turn: Turn
) -> None:
    service.cancel(lost)
    assert journal.record_not_found(lost, "absent from 3 lists", at=clock.now())
    after(6)
    drive(broker)
    lost.refresh_from_db()
    assert (lost.state, lost.cancel_due_at) == (Status.REJECTED, None)
    turn(5)
    assert open_at(broker) == {}


# --- another day


def test_yesterdays_row_cancels_nothing_of_today(tomorrow: TradeOrder, service: OrderService, broker: Broker) -> None:
    with pytest.raises(HeldBack):
        service.cancel(tomorrow)
    assert not BrokerRequest.objects.filter(kind="CANCEL").exists()
    service.cancel_all()
    assert open_at(broker) == {tomorrow.order_no: 10}


# --- the driver


def test_a_cancel_is_sent_again_though_the_list_fails(
    buy: Buy, service: OrderService, broker: Broker, simulator: Simulator, after: After
) -> None:
    order = buy(price=69_000)
    simulator.fault("request_lost", path=CHANGE, count=4)
    service.cancel(order)
    simulator.clear_faults()
    after(6)
    drive(without_list(broker))
    assert open_at(broker) == {}


def test_a_cancel_is_reported_though_the_list_fails(
    buy: Buy, service: OrderService, broker: Broker, simulator: Simulator, after: After
) -> None:
    order = buy(price=69_000)
    simulator.fault("cancel_ignored", path=CHANGE)
    service.cancel(order)
    for _ in range(3):
        after(31)
        drive(without_list(broker))
    assert kinds(order).count("CANCEL_UNCONFIRMED") == 1


def test_a_cancel_is_driven_though_the_clock_was_put_back(
    buy: Buy, service: OrderService, broker: Broker, simulator: Simulator, after: After
) -> None:
    order = buy(price=69_000)
    after(3_600)
    simulator.fault("request_lost", path=CHANGE, count=4)
    service.cancel(order)
    simulator.clear_faults()
    after(-3_600)
    drive(broker)
    assert open_at(broker) == {}


def test_a_chases_cancel_without_effect_is_reported_once(
    buy: Buy, broker: Broker, simulator: Simulator, after: After, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = buy()
    monkeypatch.setattr(tasks, "broker", lambda: broker)
    after(31)
    simulator.fault("cancel_ignored", path=CHANGE)
    turn(30)
    assert kinds(order).count("CANCEL_UNCONFIRMED") == 1
    assert BrokerRequest.objects.filter(kind="CANCEL").exclude(requested_by="CHASE").count() == 0


def test_the_sweep_hands_on_a_chases_cancel_that_is_to_be_reported(
    buy: Buy, broker: Broker, simulator: Simulator, after: After, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = buy()
    after(31)
    simulator.fault("cancel_ignored", path=CHANGE)
    chase.run_due_steps(order.pk, broker, clock.now)
    driven: list[int] = []
    monkeypatch.setattr(tasks.drive_cancel, "delay", driven.append)
    tasks.sweep_cancels()
    assert driven == []
    after(31)
    tasks.sweep_cancels()
    assert driven == [order.pk]


def test_a_chases_cancel_is_not_sent_again_once_the_chase_was_ended(
    buy: Buy, service: OrderService, broker: Broker, simulator: Simulator, after: After, turn: Turn
) -> None:
    order = buy()
    after(31)
    simulator.fault("request_lost", path=CHANGE, count=4)
    chase.run_due_steps(order.pk, broker, clock.now)
    simulator.clear_faults()
    order.refresh_from_db()
    assert order.cancel_requested_by == "CHASE"
    service.end_chase(order, "operator")
    turn(10)
    assert open_at(broker) == {order.order_no: 10}


# --- a part


def test_a_reduction_that_was_lost_is_told(
    buy: Buy, service: OrderService, broker: Broker, simulator: Simulator, turn: Turn
) -> None:
    whole, part = buy(price=69_000), buy(price=68_000)
    simulator.fault("request_lost", path=CHANGE, count=8)
    service.amend(part, qty=4)
    service.cancel(whole)
    simulator.clear_faults()
    turn(10)
    assert "REDUCTION_LAPSED" in kinds(part)
    alerts.gather(clock.now(), [])
    (message,) = Message.objects.filter(event__in=[f"event:{e.pk}" for e in part.events.all()])
    assert f"#{part.pk}" in message.text
    lapsed = whole.events.filter(kind="REQUEST_LAPSED")
    assert not Message.objects.filter(event__in=[f"event:{each.pk}" for each in lapsed]).exists(), "it was sent again"
