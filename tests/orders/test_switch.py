"""The kill switch: turned by people, tripped by itself, written down each time."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from unittest import mock

import pytest
from django.utils import translation

from aegis.broker import Broker, NotSent
from aegis.guards import TradingState
from aegis.lifecycle import Status
from aegis.terms import Side
from kis import clock
from kis.simulator.server import Simulator
from orders import guards, reconcile, requests, switch, tasks
from orders.models import Reconciliation, SwitchChange, TradeOrder, TradingSwitch
from orders.service import Intent, OrderDenied, OrderService
from portfolio.models import AccountSnapshot

SAMSUNG = "005930"
Buy = Callable[..., TradeOrder]


def stands() -> TradingState:
    return TradingState(TradingSwitch.objects.get().state)


def later(seconds: float = 1) -> None:
    clock.set_now(clock.now() + timedelta(seconds=seconds))


def snapshot(profit: int, total: int = 100_000_000) -> None:
    """The account stands at yesterday's `total` and today's `profit`."""
    AccountSnapshot.objects.create(
        timestamp=clock.now(),
        deposit=0,
        deposit_d1=0,
        deposit_d2=0,
        valuation=0,
        total_asset=total + profit,
        net_profit_today=profit,
    )


# --- turned by people -----------------------------------------------------------------------------


@pytest.mark.django_db
def test_each_turn_is_a_row_that_says_who_when_from_where_and_why() -> None:
    at = clock.now()
    switch.halt(by="trader", reason="lunch", at=at)
    switch.reduce(by="trader", reason="first the stops", at=at)
    switch.resume(by="partner", reason="back", at=at)
    rows = SwitchChange.objects.order_by("id").values_list("by", "from_state", "to_state", "reason", "is_trip")
    assert list(rows) == [
        ("trader", "ACTIVE", "HALTED", "lunch", False),
        ("trader", "HALTED", "REDUCING", "first the stops", False),
        ("partner", "REDUCING", "ACTIVE", "back", False),
    ]
    row = TradingSwitch.objects.get()
    assert (row.state, row.reason, row.changed_by, row.changed_at) == ("ACTIVE", "back", "partner", at)


@pytest.mark.django_db
def test_nobody_turns_the_switch_without_a_name() -> None:
    with pytest.raises(ValueError, match="by is empty"):
        switch.resume(by=" ", reason="", at=clock.now())
    assert not SwitchChange.objects.exists()


@pytest.mark.django_db
def test_a_switch_without_a_row_is_made_by_the_first_turn() -> None:
    TradingSwitch.objects.all().delete()
    assert guards.trading_state() is TradingState.ACTIVE
    switch.halt(by="trader", reason="", at=clock.now())
    assert stands() is TradingState.HALTED


def test_reducing_lets_sales_pass_only(service: OrderService, buy: Buy, simulator: Simulator) -> None:
    words = {"account": "50000000-01", "code": SAMSUNG, "quantity": 5, "cost": 350_000}
    simulator.command("POST", "/simulator/shares", words)
    switch.reduce(by="trader", reason="", at=clock.now())
    with pytest.raises(OrderDenied):
        buy()
    assert service.place(Intent(SAMSUNG, Side.SELL, 1, strategy="sell_profit")).state is Status.PENDING


# --- tripped by losses ----------------------------------------------------------------------------


@pytest.mark.parametrize(("profit", "to"), [(-4_999_999, TradingState.ACTIVE), (-5_000_000, TradingState.REDUCING)])
def test_the_days_loss_reduces(service: OrderService, profit: int, to: TradingState) -> None:
    snapshot(profit)
    switch.watch(clock.now())
    assert stands() is to


def test_a_bound_in_won_counts_where_it_is_narrower(service: OrderService, settings) -> None:
    settings.MAX_DAILY_LOSS_WON = 1_000_000
    snapshot(-1_000_000)
    change = switch.watch(clock.now())
    assert change is not None
    assert (change.by, change.is_trip, change.to_state) == ("AEGIS", True, "REDUCING")
    assert "1,000,000" in change.reason


def test_yesterdays_loss_trips_nothing_today(service: OrderService, clock_at) -> None:
    snapshot(-9_000_000)
    clock_at("2026-11-24 09:00:01")
    assert switch.watch(clock.now()) is None


def test_a_resumed_loss_trips_again_only_when_it_has_doubled(service: OrderService) -> None:
    snapshot(-5_000_000)
    assert switch.watch(clock.now()) is not None
    later()
    switch.resume(by="trader", reason="seen", at=clock.now())
    for profit, trips in ((-5_500_000, False), (-9_999_999, False), (-10_000_000, True)):
        later()
        snapshot(profit)
        assert (switch.watch(clock.now()) is not None) is trips
    assert switch.watch(clock.now()) is None, "once is enough"


def test_a_resume_of_yesterday_forgives_nothing_today(service: OrderService, clock_at) -> None:
    snapshot(-6_000_000)
    switch.watch(clock.now())
    later()
    switch.resume(by="trader", reason="seen", at=clock.now())
    clock_at("2026-11-24 09:30:00")
    snapshot(-5_000_000)
    assert switch.watch(clock.now()) is not None


# --- tripped by refusals --------------------------------------------------------------------------


def test_refusals_in_a_row_halt_at_once(buy: Buy, simulator: Simulator, settings) -> None:
    settings.MAX_REFUSALS = 3
    simulator.fault("refusal", path="order-cash")
    for price in (69_000, 69_100):
        buy(price=price)
    assert stands() is TradingState.ACTIVE
    buy(price=69_200)
    assert stands() is TradingState.HALTED
    with pytest.raises(OrderDenied):
        buy(price=69_300)


def test_one_order_that_was_taken_breaks_the_row(buy: Buy, simulator: Simulator, settings) -> None:
    settings.MAX_REFUSALS = 3
    for price, is_refused in ((69_000, True), (69_100, True), (69_200, False), (69_300, True), (69_400, True)):
        if is_refused:
            simulator.fault("refusal", path="order-cash", count=1)
        buy(price=price)
    assert stands() is TradingState.ACTIVE


def test_what_never_left_is_no_refusal(buy: Buy, broker: Broker, settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.MAX_REFUSALS = 1
    monkeypatch.setattr(requests, "MAX_QUOTE_AGE", timedelta(seconds=-1))
    assert buy().state is Status.REJECTED
    switch.watch(clock.now())
    assert stands() is TradingState.ACTIVE


def test_after_a_resume_refusals_count_anew(buy: Buy, simulator: Simulator, settings) -> None:
    settings.MAX_REFUSALS = 2
    simulator.fault("refusal", path="order-cash")
    buy(price=69_000)
    buy(price=69_100)
    assert stands() is TradingState.HALTED
    later()
    switch.resume(by="trader", reason="the words were wrong", at=clock.now())
    assert switch.watch(clock.now()) is None
    later()
    buy(price=69_200)
    assert stands() is TradingState.ACTIVE
    buy(price=69_300)
    assert stands() is TradingState.HALTED


# --- tripped by blindness -------------------------------------------------------------------------


def blind(broker: Broker, times: int) -> None:
    """The list cannot be read, so many times in a row."""
    for _ in range(times):
        later()
        with mock.patch.object(type(broker), "orders", side_effect=NotSent("closed")), pytest.raises(NotSent):
            reconcile.reconcile(broker, clock.now)


def test_reconciliations_that_fail_in_a_row_halt(service: OrderService, broker: Broker, settings) -> None:
    settings.MAX_FAILED_RECONCILIATIONS = 3
    blind(broker, 2)
    assert switch.watch(clock.now()) is None
    blind(broker, 1)
    tasks.watch_switch()
    assert stands() is TradingState.HALTED
    later()
    switch.resume(by="trader", reason="the broker is back", at=clock.now())
    assert switch.watch(clock.now()) is None


def test_one_whole_look_breaks_the_row_and_a_start_does_not(service: OrderService, broker: Broker, settings) -> None:
    settings.MAX_FAILED_RECONCILIATIONS = 3
    blind(broker, 2)
    Reconciliation.objects.create(at=clock.now(), outcome=Reconciliation.Outcome.BEGUN)
    blind(broker, 1)
    assert switch.evidence(clock.now()).failures == 3
    later()
    reconcile.reconcile(broker, clock.now)
    assert switch.evidence(clock.now()).failures == 0


def test_the_brokers_night_of_maintenance_halts_nobody(service: OrderService, broker: Broker, clock_at) -> None:
    clock_at("2026-11-24 03:00:00")
    blind(broker, 9)
    assert switch.watch(clock.now()) is None
    clock_at("2026-11-24 08:00:10")
    assert switch.watch(clock.now()) is None, "what failed at night is not held against the morning"
    blind(broker, 5)
    assert switch.watch(clock.now()) is not None


# --- both -----------------------------------------------------------------------------------------


def test_the_deeper_fall_wins_and_every_reason_is_said_in_korean(buy: Buy, simulator: Simulator, settings) -> None:
    settings.MAX_REFUSALS = 1
    snapshot(-6_000_000)
    simulator.fault("refusal", path="order-cash", count=1)
    with translation.override("ko"):
        buy(price=69_000)
    change = SwitchChange.objects.latest()
    assert change.to_state == "HALTED"
    assert "거부" in change.reason
    assert "손실이 6,000,000원" in change.reason


def test_what_a_person_halted_is_left_alone(service: OrderService) -> None:
    switch.halt(by="trader", reason="lunch", at=clock.now())
    snapshot(-9_000_000)
    assert switch.watch(clock.now()) is None
    assert TradingSwitch.objects.get().changed_by == "trader"


def test_every_bound_may_be_off(buy: Buy, simulator: Simulator, settings) -> None:
    settings.MAX_REFUSALS = settings.MAX_FAILED_RECONCILIATIONS = settings.MAX_DAILY_LOSS_WON = 0
    settings.MAX_DAILY_LOSS_PERCENT = Decimal(0)
    snapshot(-90_000_000)
    simulator.fault("refusal", path="order-cash", count=3)
    for price in (69_000, 69_100, 69_200):
        buy(price=price)
    assert stands() is TradingState.ACTIVE
