"""Decisions by what is known now: a list that cannot answer, a row that changed since, a clock that was set back."""

import argparse
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import pytest

from aegis.broker import Broker
from aegis.chase import Plan
from aegis.lifecycle import OPEN, Status
from aegis.terms import Market, OrderKind, Side
from infra import clock
from orders import chase, order_messages, reconcile
from orders.management.commands import amend as command
from orders.management.trading import shares
from orders.models import Reconciliation, TradeOrder
from orders.service import NO_CHASE, OrderDenied, OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from simulator.api.server import Simulator

from .conftest import SAMSUNG
from .exchange_log import ACCOUNT, answered
from .helpers import fresh
from .test_fills import hear, notice

Buy = Callable[..., TradeOrder]
After = Callable[[float], None]
LIST = "inquire-daily-ccld"


def run_chain(order: TradeOrder, broker: Broker, messages: int = 40) -> None:
    """Run the tasks that follow one another without a countdown, as the workers do."""
    step = None
    for _ in range(messages):
        taken = chase.run_step(order.pk, broker, clock.now, step)
        if taken.next_step is None or taken.seconds > 0:
            return
        step = taken.next_step


@pytest.mark.parametrize("how", ["the list lacks it", "the list lacks its fill", "its fill is doubtful"])
def test_a_check_that_the_list_cannot_answer_pauses(
    buy: Buy, broker: Broker, simulator: Simulator, after: After, how: str
) -> None:
    order = buy()
    after(31)
    if how == "the list lacks it":
        simulator.fault("order_missing", code=SAMSUNG)
    else:
        hear(notice(order.order_no or "", qty=4, price=order.price))
    if how == "its fill is doubtful":
        after(15)
    with answered(simulator) as asked:
        run_chain(order, broker)
    assert asked.count(LIST) <= 3


def test_a_look_does_not_fail_however_often_an_order_was_missing(
    buy: Buy, broker: Broker, simulator: Simulator, after: After
) -> None:
    order = buy(price=69_000)
    after(31)
    simulator.fault("order_missing", code=SAMSUNG)
    TradeOrder.objects.filter(pk=order.pk).update(not_found_count=32_767, missing_since=clock.now())
    reconcile.reconcile(broker, clock.now)
    assert fresh(order).not_found_count == 32_767


def test_nothing_is_amended_to_a_price_beside_a_fill_that_the_list_lacks(
    buy: Buy, service: OrderService, broker: Broker, after: After
) -> None:
    order = buy(price=69_000, plan=NO_CHASE)
    hear(notice(order.order_no or "", qty=5, price=69_000))
    after(20)
    reconcile.reconcile(broker, clock.now)
    with pytest.raises(OrderDenied) as denied:
        service.amend(fresh(order), price=69_500)
    assert [reason.code for reason in denied.value.reasons] == ["FILL_UNLISTED"]


@pytest.mark.parametrize("families", [2, 5])
def test_the_bound_of_automatic_requests_leaves_no_family_without_an_order(
    buy: Buy, broker: Broker, after: After, settings: Any, families: int
) -> None:
    settings.MAX_ORDERS_PER_MINUTE = 0
    roots = [buy(price=69_000 - 100 * n, plan=Plan(30, 3, 1, True)) for n in range(families)]
    after(31)
    longest = 0
    for _ in range(40):
        for _ in range(4):  # workers take one step of each family in turn, as their messages come
            for pk in chase.due_orders(clock.now()):
                chase.run_step(pk, broker, clock.now)
        reconcile.reconcile(broker, clock.now)
        without = [root.pk for root in roots if not root.family.filter(status__in=OPEN).exists()]
        longest = longest + 1 if without else 0
        assert longest < 15, f"{len(without)} of {families} families have had no open order for {longest} s"
        after(1)


@pytest.mark.parametrize("by_command", [False, True])
def test_a_reduction_leaves_as_many_open_as_were_asked_for(
    buy: Buy,
    service: OrderService,
    broker: Broker,
    after: After,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Any,
    by_command: bool,
) -> None:
    order = buy(price=69_000, plan=NO_CHASE)

    def withdraw_four(*words: object, **more: object) -> None:
        broker.cancel_part(order.placed, 4)  # another hand, in the app
        after(15)
        reconcile.reconcile(broker, clock.now)

    if by_command:
        monkeypatch.setattr(command, "confirm", withdraw_four)
        from django.core.management import call_command

        call_command("amend", f"#{order.pk}", "--qty", "5")
    else:
        withdraw_four()
        assert order.open_qty == 10, "the caller's object is old"
        service.amend(order, qty=5)
    after(15)
    reconcile.reconcile(broker, clock.now)
    assert fresh(order).open_qty == 5


def test_a_reading_of_a_time_to_come_proves_nothing(
    buy: Buy, broker: Broker, simulator: Simulator, after: After, clock_at: Callable[[datetime], datetime]
) -> None:
    after(3600)
    reconcile.reconcile(broker, clock.now)
    clock_at(clock.now() - timedelta(hours=1))
    assert not reconcile.is_fresh(clock.now())
    order = buy()
    after(31)
    with answered(simulator) as asked:
        run_chain(order, broker, messages=5)
    assert asked.count(LIST) >= 1
    for _ in range(3):
        Reconciliation.objects.create(at=clock.now(), outcome="FAILED", error="x")
        after(100)
    assert not reconcile.is_fresh(clock.now())


def test_a_refusal_by_notice_that_every_list_contradicts_is_taken_back(buy: Buy, turn: Callable[..., None]) -> None:
    order = buy(price=69_000, plan=NO_CHASE)
    hear(notice(order.order_no or "", flags="111"))
    assert fresh(order).state is Status.REJECTED
    for _ in range(12):
        turn(1, seconds=10)
    assert fresh(order).is_open
    assert fresh(order).refusal == ""
    assert fresh(order).events.filter(kind="STILL_OPEN").count() == 1


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
def test_the_chase_of_an_order_without_a_price_goes_on_from_the_last_trade(
    service: OrderService, broker: Broker, simulator: Simulator, turn: Callable[..., None], side: Side
) -> None:
    holding = {"account": ACCOUNT, "code": SAMSUNG, "quantity": 10, "cost": 700_000}
    simulator.command("POST", "/simulator/shares", holding)
    KISFetcher(broker, clock.now).sync_portfolio()
    plan = Plan(10, 2, 1, True)
    order = service.place(OrderIntent(SAMSUNG, side, 10, kind=OrderKind("04"), market=Market.KRX, plan=plan))
    turn(20, seconds=5)
    assert fresh(order).chase_note == ""
    prices = list(TradeOrder.objects.exclude(pk=order.pk).order_by("attempt").values_list("price", flat=True))
    assert prices, "it is ordered again"
    assert all(price == 0 or abs(price - 70_000) <= 700 for price in prices)


@pytest.mark.parametrize("text", ["1,5", "12,34", ",", ",5", "1,,000", "1000,000"])
def test_commas_stand_at_the_thousands_or_the_number_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        shares(text)
    assert (shares("1,000"), shares("12,345,678"), shares("1000")) == (1_000, 12_345_678, 1_000)


@pytest.mark.parametrize("plan", [{"max_retries": 101}, {"max_retries": 40_000}, {"step_ticks": 1_001}])
def test_a_plan_that_no_chase_could_follow_is_refused(
    service: OrderService, broker: Broker, plan: dict[str, int]
) -> None:
    words = {"request_id": "a-1", "code": SAMSUNG, "side": "BUY", "qty": 1, "strategy": "buy_normal", "plan": plan}
    answer = order_messages.submit(words, broker, clock.now)
    assert answer["outcome"] == "INVALID"
    assert next(iter(plan)) in answer["error"]
