"""The kill switch: turned by people, tripped by itself, written down each time."""

import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from decimal import Decimal
from unittest import mock

import pytest
from django.db import connections, transaction
from django.utils import translation

from aegis.broker import Broker, NotSent, Quote
from aegis.lifecycle import Status
from aegis.requests import RequestedBy
from aegis.terms import Market, Side
from aegis.trading_state import TradingState
from infra import clock
from market.models import DailyPrice
from orders import cancel_driver, daily_loss, kill_switch, reconcile, requests, risk, tasks
from orders.models import (
    BasePrice,
    Reconciliation,
    StopRule,
    SwitchChange,
    TradeExecution,
    TradeOrder,
    TradingSwitch,
)
from orders.service import NO_CHASE, OrderDenied, OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from portfolio.models import AccountSnapshot, Portfolio, PriceSource
from simulator.api.server import Simulator

from .exchange_log import ACCOUNT
from .helpers import place_externally

SAMSUNG = "005930"
Buy = Callable[..., TradeOrder]


def stands() -> TradingState:
    return TradingState(TradingSwitch.objects.get().state)


def later(seconds: float = 1) -> None:
    clock.set_now(clock.now() + timedelta(seconds=seconds))


def held(worth: int, now: int | None = None, *, is_base_known: bool = True) -> None:
    """Hold a share since before today: at the base price it was worth so many won, `now` so many."""
    price = worth if now is None else now
    Portfolio.objects.update_or_create(
        stock_code=SAMSUNG,
        defaults={
            "stock_name": "삼성전자",
            "quantity": 1,
            "avg_price": worth,
            "current_price": price,
            "price_source": PriceSource.FEED,
            "priced_at": clock.now(),
            "counted_on": clock.now().date(),
            "balance_won": price,
            "updated_at": clock.now(),
        },
    )
    if is_base_known:
        BasePrice.objects.get_or_create(stock_code=SAMSUNG, date=clock.now().date(), defaults={"price": worth})


def snapshot(profit: int, total: int = 100_000_000, *, transfer: int = 0) -> None:
    """The account's total was `total` yesterday; its shares won or lost `profit` today, and money came in or left."""
    held(total, total + profit)
    AccountSnapshot.objects.create(
        timestamp=clock.now(),
        deposit=transfer,
        deposit_d1=transfer,
        deposit_d2=transfer,
        valuation=total + profit,
        total_asset=total + profit + transfer,
        net_profit_today=profit + transfer,
    )


# --- turned by people -----------------------------------------------------------------------------


@pytest.mark.django_db
def test_each_turn_is_a_row_that_says_who_when_from_where_and_why() -> None:
    at = clock.now()
    kill_switch.halt(by="trader", reason="lunch", at=at)
    kill_switch.reduce(by="trader", reason="first the stops", at=at)
    kill_switch.resume(by="partner", reason="back", at=at)
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
        kill_switch.resume(by=" ", reason="", at=clock.now())
    assert not SwitchChange.objects.exists()


@pytest.mark.django_db
def test_a_switch_without_a_row_is_made_by_the_first_turn() -> None:
    TradingSwitch.objects.all().delete()
    assert risk.trading_state() is TradingState.ACTIVE
    kill_switch.halt(by="trader", reason="", at=clock.now())
    assert stands() is TradingState.HALTED


def test_reducing_lets_sales_pass_only(service: OrderService, buy: Buy, simulator: Simulator) -> None:
    words = {"account": "50000000-01", "code": SAMSUNG, "quantity": 5, "cost": 350_000}
    simulator.command("POST", "/simulator/shares", words)
    kill_switch.reduce(by="trader", reason="", at=clock.now())
    with pytest.raises(OrderDenied):
        buy()
    assert service.place(OrderIntent(SAMSUNG, Side.SELL, 1, strategy="sell_profit")).state is Status.PENDING


# --- tripped by losses ----------------------------------------------------------------------------


@pytest.mark.parametrize(("profit", "to"), [(-4_999_999, TradingState.ACTIVE), (-5_000_000, TradingState.REDUCING)])
def test_the_days_loss_reduces(service: OrderService, profit: int, to: TradingState) -> None:
    snapshot(profit)
    kill_switch.check_trips(clock.now())
    assert stands() is to


def test_a_bound_in_won_counts_where_it_is_narrower(service: OrderService, settings) -> None:
    settings.MAX_DAILY_LOSS_WON = 1_000_000
    snapshot(-1_000_000)
    change = kill_switch.check_trips(clock.now())
    assert change is not None
    assert (change.by, change.is_trip, change.to_state) == ("AEGIS", True, "REDUCING")
    assert "1,000,000" in change.reason


def test_yesterdays_loss_trips_nothing_today(service: OrderService, clock_at) -> None:
    snapshot(-9_000_000)
    clock_at("2026-11-24 09:00:01")
    assert kill_switch.check_trips(clock.now()) is None


def test_a_resumed_loss_trips_again_only_when_it_has_doubled(service: OrderService) -> None:
    snapshot(-5_000_000)
    assert kill_switch.check_trips(clock.now()) is not None
    later()
    kill_switch.resume(by="trader", reason="seen", at=clock.now())
    for profit, trips in ((-5_500_000, False), (-9_999_999, False), (-10_000_000, True)):
        later()
        snapshot(profit)
        assert (kill_switch.check_trips(clock.now()) is not None) is trips
    assert kill_switch.check_trips(clock.now()) is None, "once is enough"


def test_a_resume_of_yesterday_forgives_nothing_today(service: OrderService, clock_at) -> None:
    snapshot(-6_000_000)
    kill_switch.check_trips(clock.now())
    later()
    kill_switch.resume(by="trader", reason="seen", at=clock.now())
    clock_at("2026-11-24 09:30:00")
    snapshot(-5_000_000)
    assert kill_switch.check_trips(clock.now()) is not None


@pytest.mark.parametrize("transfer", [-60_000_000, 10_000_000, 500_000_000])
@pytest.mark.parametrize(("profit", "trips"), [(-5_000_000, True), (-4_900_000, False), (3_000_000, False)])
def test_a_transfer_neither_hides_nor_makes_a_loss(
    service: OrderService, transfer: int, profit: int, trips: bool
) -> None:
    snapshot(profit, transfer=transfer)
    assert (kill_switch.check_trips(clock.now()) is not None) is trips


def test_an_ex_rights_morning_is_no_loss(service: OrderService) -> None:
    """The base price of today is 30 % below yesterday's close: rights or shares came for it."""
    held(100_000_000, 70_000_000, is_base_known=False)
    DailyPrice.objects.create(
        stock_code=SAMSUNG, date="2026-11-20", open=1, high=200_000_000, low=1, close=100_000_000, volume=1
    )
    assert kill_switch.evidence(clock.now()).loss_won == 0, "no close stands for a base price that is not known yet"
    assert kill_switch.check_trips(clock.now()) is None
    with translation.override("en"):
        assert "base price unknown for 1 stocks" in daily_loss.todays(clock.now()).unknown
    BasePrice.objects.create(stock_code=SAMSUNG, date=clock.now().date(), price=70_000_000)
    assert kill_switch.evidence(clock.now()).loss_won == 0
    assert "base price" not in daily_loss.todays(clock.now()).unknown
    BasePrice.objects.update(price=90_000_000)
    assert kill_switch.evidence(clock.now()).loss_won == 20_000_000, "a true loss shows once the base price is known"


def test_the_base_price_that_a_stop_was_told_measures_the_day(service: OrderService) -> None:
    held(100_000_000, 90_000_000, is_base_known=False)
    now = clock.now()
    words = {"kind": "STOP_LOSS", "unit": "PERCENT", "value": 50, "state_at": now, "armed_at": now, "armed_by": "kim"}
    StopRule.objects.create(stock_code=SAMSUNG, based_on=now.date(), base_price=100_000_000, **words)
    assert daily_loss.todays(now).won == 10_000_000
    StopRule.objects.update(based_on=now.date() - timedelta(days=1))
    assert daily_loss.todays(now).won == 0


def test_a_loss_that_cannot_be_known_is_said(service: OrderService) -> None:
    held(100_000_000, 70_000_000, is_base_known=False)
    assert SAMSUNG in daily_loss.todays(clock.now()).unknown
    held(100_000_000, 90_000_000)
    AccountSnapshot.objects.create(
        timestamp=clock.now(), deposit=0, deposit_d1=0, deposit_d2=0, valuation=90_000_000, total_asset=90_000_000,
        net_profit_today=0,
    )  # fmt: skip
    with translation.override("en"):
        assert "total" in daily_loss.todays(clock.now()).unknown
    assert kill_switch.check_trips(clock.now()) is not None, "measured by today's total then"


def test_shares_that_cannot_be_read_leave_the_totals(service: OrderService) -> None:
    AccountSnapshot.objects.create(
        timestamp=clock.now(), deposit=0, deposit_d1=0, deposit_d2=0, valuation=92_000_000, total_asset=102_000_000,
        net_profit_today=2_000_000,
    )  # fmt: skip
    assert daily_loss.todays(clock.now()).won == 8_000_000
    assert "92,000,000" in daily_loss.todays(clock.now()).unknown


def test_todays_fills_are_counted_with_their_costs(service: OrderService, broker: Broker, simulator: Simulator) -> None:
    """Bought at 70,000 and sold at 69,000 on the same day: the difference and the costs are lost, nothing else."""
    for side, strategy in ((Side.BUY, "buy_urgent"), (Side.SELL, "sell_stop")):
        service.place(OrderIntent(SAMSUNG, side, 10, strategy=strategy, plan=NO_CHASE))
        later(5)
        reconcile.reconcile(broker, clock.now)
        KISFetcher(broker, clock.now).sync_portfolio()
        simulator.set_price(SAMSUNG, 69_000, freeze=True)
    fills = TradeExecution.objects.filter(voided_at=None)
    paid = sum(each.exec_amount + each.fee + each.tax for each in fills if each.order.order_type == Side.BUY)
    got = sum(each.exec_amount - each.fee - each.tax for each in fills if each.order.order_type == Side.SELL)
    assert paid - got > 0
    assert daily_loss.todays(clock.now()).won == paid - got


def test_all_base_prices_are_asked_for_in_a_turn_that_has_time(service: OrderService, broker: Broker) -> None:
    held(10_000_000, is_base_known=False)
    row, others = Portfolio.objects.get(), [f"{number:06}" for number in range(100, 112)]
    for code in others:
        row.pk, row.stock_code, row.current_price = None, code, row.current_price - 1
        row.save(force_insert=True)
    asked: list[str] = []
    known = broker.quote(SAMSUNG, Market.KRX)

    def quote(code: str, market: Market) -> Quote:
        asked.append(code)
        return known

    with mock.patch.object(type(broker), "quote", side_effect=quote):
        assert daily_loss.sync_base_prices(broker, clock.now) == 13
    assert asked == [SAMSUNG, *others], "those of most worth first"


def test_base_prices_are_asked_for_once_a_day(service: OrderService, broker: Broker, clock_at) -> None:
    held(10_000_000, is_base_known=False)
    assert [daily_loss.sync_base_prices(broker, clock.now) for _ in range(2)] == [1, 0]
    assert BasePrice.objects.get().price == broker.quote(SAMSUNG, Market.KRX).base_price
    clock_at("2026-11-24 07:00:00")
    assert daily_loss.sync_base_prices(broker, clock.now) == 0, "the day has not begun"
    clock_at("2026-11-24 08:00:10")
    assert daily_loss.sync_base_prices(broker, clock.now) == 1


@pytest.mark.parametrize("when", ["2026-11-28 00:01:57", "2026-11-29 12:00:00", "2026-11-30 07:59:00"])
def test_the_last_trading_days_loss_trips_on_no_day_without_trading(service: OrderService, clock_at, when: str) -> None:
    clock_at("2026-11-27 14:58:53")
    snapshot(-6_000_000)
    assert kill_switch.check_trips(clock.now()) is not None
    later(600)
    kill_switch.resume(by="trader", reason="seen", at=clock.now())
    clock_at(when)
    AccountSnapshot.objects.update(timestamp=clock.now())
    assert kill_switch.check_trips(clock.now()) is None


# --- tripped by refusals --------------------------------------------------------------------------

OTHER, THIRD = "000660", "035420"


def refused(service: OrderService, *stocks: str) -> None:
    for code in stocks:
        later()
        service.place(OrderIntent(code, Side.BUY, 1, strategy="buy_normal"))


def test_refusals_of_several_stocks_in_a_row_reduce_at_once(
    service: OrderService, simulator: Simulator, settings
) -> None:
    settings.MAX_REFUSALS, settings.DUPLICATE_SECONDS = 3, 0
    simulator.fault("refusal", path="order-cash")
    refused(service, SAMSUNG, OTHER)
    assert stands() is TradingState.ACTIVE
    refused(service, SAMSUNG)
    assert stands() is TradingState.REDUCING
    with pytest.raises(OrderDenied):
        refused(service, THIRD)


@pytest.mark.parametrize("others", [0, 1])
def test_refusals_of_one_stock_do_not_count_for_the_others(
    service: OrderService, simulator: Simulator, settings, others: int
) -> None:
    settings.MAX_REFUSALS, settings.DUPLICATE_SECONDS = 5, 0
    simulator.fault("refusal", path="order-cash")
    refused(service, *[SAMSUNG] * 12, *[OTHER] * others)
    assert stands() is TradingState.ACTIVE


def test_refusals_far_apart_are_no_row(service: OrderService, broker: Broker, simulator: Simulator, settings) -> None:
    settings.MAX_REFUSALS = 2
    simulator.fault("refusal", path="order-cash")
    refused(service, SAMSUNG)
    later(601)
    listed(broker, 1)
    refused(service, OTHER)
    assert stands() is TradingState.ACTIVE


def test_one_order_that_was_taken_breaks_the_row(service: OrderService, simulator: Simulator, settings) -> None:
    settings.MAX_REFUSALS, settings.DUPLICATE_SECONDS = 3, 0
    for code, is_refused in ((SAMSUNG, True), (OTHER, True), (THIRD, False), (SAMSUNG, True), (OTHER, True)):
        if is_refused:
            simulator.fault("refusal", path="order-cash", count=1)
        refused(service, code)
    assert stands() is TradingState.ACTIVE


def test_what_never_left_is_no_refusal(service: OrderService, settings, monkeypatch: pytest.MonkeyPatch) -> None:
    settings.MAX_REFUSALS = 1
    monkeypatch.setattr(requests, "MAX_QUOTE_AGE", timedelta(seconds=-1))
    refused(service, SAMSUNG, OTHER)
    kill_switch.check_trips(clock.now())
    assert stands() is TradingState.ACTIVE


def test_after_a_resume_refusals_count_anew(service: OrderService, simulator: Simulator, settings) -> None:
    settings.MAX_REFUSALS, settings.DUPLICATE_SECONDS = 2, 0
    simulator.fault("refusal", path="order-cash")
    refused(service, SAMSUNG, OTHER)
    assert stands() is TradingState.REDUCING
    later()
    kill_switch.resume(by="trader", reason="the words were wrong", at=clock.now())
    assert kill_switch.check_trips(clock.now()) is None
    refused(service, SAMSUNG)
    assert stands() is TradingState.ACTIVE
    refused(service, OTHER)
    assert stands() is TradingState.REDUCING


# --- tripped by missing lists ---------------------------------------------------------------------


def blind(broker: Broker, times: int, every: float = 60) -> None:
    """The list cannot be read, N times in a row."""
    for _ in range(times):
        later(every)
        with mock.patch.object(type(broker), "orders", side_effect=NotSent("closed")), pytest.raises(NotSent):
            reconcile.reconcile(broker, clock.now)


def listed(broker: Broker, times: int, every: float = 60) -> None:
    for _ in range(times):
        later(every)
        reconcile.reconcile(broker, clock.now)


def test_failed_lists_count_by_minutes_not_by_rows(service: OrderService, broker: Broker) -> None:
    listed(broker, 1)
    blind(broker, 30, every=0.8)
    assert kill_switch.check_trips(clock.now()) is None
    blind(broker, 30, every=5)
    assert kill_switch.check_trips(clock.now()) is None, "three minutes"
    blind(broker, 30, every=5)
    tasks.watch_switch()
    assert stands() is TradingState.REDUCING
    later()
    kill_switch.resume(by="trader", reason="the broker is back", at=clock.now())
    assert kill_switch.check_trips(clock.now()) is None


def test_five_minutes_without_a_list_reduce(service: OrderService, broker: Broker) -> None:
    listed(broker, 1)
    blind(broker, 4)
    assert kill_switch.check_trips(clock.now()) is None
    blind(broker, 1)
    change = kill_switch.check_trips(clock.now())
    assert change is not None
    assert (change.to_state, change.causes, change.is_trip) == ("REDUCING", "LIST_MISSING", True)


def test_one_whole_look_breaks_the_row_and_a_start_does_not(service: OrderService, broker: Broker) -> None:
    blind(broker, 3)
    Reconciliation.objects.create(at=clock.now(), outcome=Reconciliation.Outcome.BEGUN)
    blind(broker, 1)
    assert kill_switch.evidence(clock.now()).list_missing_for >= timedelta(minutes=4)
    later()
    reconcile.reconcile(broker, clock.now)
    assert kill_switch.evidence(clock.now()).list_missing_for == timedelta(0)


def test_a_stop_of_the_system_is_no_missing_list(service: OrderService, broker: Broker) -> None:
    listed(broker, 1)
    later(3600)
    reconcile.invalidate(clock.now())
    assert kill_switch.check_trips(clock.now()) is None
    blind(broker, 1, every=1)
    assert kill_switch.check_trips(clock.now()) is None
    blind(broker, 5)
    assert kill_switch.check_trips(clock.now()) is not None


@pytest.mark.parametrize("is_restarted", [False, True])
def test_readings_that_never_end_are_missing_minutes(service: OrderService, broker: Broker, is_restarted: bool) -> None:
    listed(broker, 1)
    for _ in range(4):
        later(60)
        if is_restarted:  # again and again: no start looks at the list
            reconcile.invalidate(clock.now())
    assert kill_switch.check_trips(clock.now()) is None, "four minutes"
    later(60)
    change = kill_switch.check_trips(clock.now())
    assert change is not None
    assert change.causes == "LIST_MISSING"


def test_without_any_reading_of_today_the_minutes_since_the_open_count(
    service: OrderService, broker: Broker, clock_at
) -> None:
    listed(broker, 1)
    clock_at("2026-11-24 08:04:50")
    assert kill_switch.check_trips(clock.now()) is None
    later(20)
    assert kill_switch.check_trips(clock.now()) is not None


def test_a_trip_clears_itself_by_time_and_not_by_rows(service: OrderService, broker: Broker) -> None:
    listed(broker, 1)
    later(360)
    assert kill_switch.check_trips(clock.now()) is not None
    listed(broker, 1, every=1)
    assert kill_switch.check_trips(clock.now()) is None, "what was complete before the gap counts for nothing"
    listed(broker, 1, every=60)
    assert kill_switch.check_trips(clock.now()) is None
    listed(broker, 1, every=60)
    change = kill_switch.check_trips(clock.now())
    assert change is not None
    assert change.to_state == TradingState.ACTIVE


def test_the_brokers_night_of_maintenance_trips_nothing(service: OrderService, broker: Broker, clock_at) -> None:
    clock_at("2026-11-24 03:00:00")
    blind(broker, 9)
    assert kill_switch.check_trips(clock.now()) is None
    clock_at("2026-11-24 08:00:10")
    assert kill_switch.check_trips(clock.now()) is None, "failures of the night do not count in the morning"
    blind(broker, 6)
    assert kill_switch.check_trips(clock.now()) is not None


def trip_for_lists(broker: Broker) -> None:
    blind(broker, 6)
    assert kill_switch.check_trips(clock.now()) is not None


def test_a_trip_for_missing_lists_clears_itself_three_times_a_day(service: OrderService, broker: Broker) -> None:
    for _ in range(3):
        trip_for_lists(broker)
        listed(broker, 2)
        assert kill_switch.check_trips(clock.now()) is None, "complete for one minute"
        listed(broker, 1)
        change = kill_switch.check_trips(clock.now())
        assert change is not None
        assert (change.from_state, change.to_state, change.is_trip) == ("REDUCING", "ACTIVE", True)
        assert change.reason
    trip_for_lists(broker)
    listed(broker, 9)
    assert kill_switch.check_trips(clock.now()) is None
    assert stands() is TradingState.REDUCING


def test_a_trip_that_a_person_took_over_does_not_clear_itself(service: OrderService, broker: Broker) -> None:
    trip_for_lists(broker)
    kill_switch.reduce(by="trader", reason="I look first", at=clock.now())
    listed(broker, 5)
    assert kill_switch.check_trips(clock.now()) is None
    assert stands() is TradingState.REDUCING


def test_a_trip_with_another_cause_does_not_clear_itself(service: OrderService, broker: Broker) -> None:
    trip_for_lists(broker)
    snapshot(-6_000_000)
    change = kill_switch.check_trips(clock.now())
    assert change is not None
    assert (change.from_state, change.to_state, change.causes) == ("REDUCING", "REDUCING", "DAILY_LOSS")
    snapshot(0)
    listed(broker, 5)
    assert kill_switch.check_trips(clock.now()) is None
    assert stands() is TradingState.REDUCING


# --- both -----------------------------------------------------------------------------------------


def test_every_reason_is_said(service: OrderService, simulator: Simulator, settings) -> None:
    settings.MAX_REFUSALS = 0
    simulator.fault("refusal", path="order-cash", count=2)
    refused(service, SAMSUNG, OTHER)
    settings.MAX_REFUSALS = 2
    snapshot(-6_000_000)
    change = kill_switch.check_trips(clock.now())
    assert change is not None
    assert (change.to_state, change.causes) == ("REDUCING", "DAILY_LOSS REFUSALS")
    assert "refused" in change.reason or "거부" in change.reason
    assert "6,000,000" in change.reason


def test_what_a_person_halted_is_left_alone(service: OrderService) -> None:
    kill_switch.halt(by="trader", reason="lunch", at=clock.now())
    snapshot(-9_000_000)
    assert kill_switch.check_trips(clock.now()) is None
    assert TradingSwitch.objects.get().changed_by == "trader"


def test_every_bound_may_be_off(service: OrderService, simulator: Simulator, settings) -> None:
    settings.MAX_REFUSALS = settings.MAX_FAILED_RECONCILIATIONS = settings.MAX_DAILY_LOSS_WON = 0
    settings.MAX_DAILY_LOSS_PERCENT = Decimal(0)
    snapshot(-90_000_000)
    simulator.fault("refusal", path="order-cash", count=3)
    refused(service, SAMSUNG, OTHER, THIRD)
    kill_switch.check_trips(clock.now())
    assert stands() is TradingState.ACTIVE


# --- resting buys ---------------------------------------------------------------------------------


def wanted(order: TradeOrder) -> str:
    order.refresh_from_db()
    return order.cancel_requested_by


def test_a_person_who_reduces_has_resting_buys_cancelled(
    service: OrderService, buy: Buy, simulator: Simulator, turn
) -> None:
    simulator.command("POST", "/simulator/shares", {"account": ACCOUNT, "code": SAMSUNG, "quantity": 5, "cost": 1})
    order = buy(price=69_000)
    sale = service.place(OrderIntent(SAMSUNG, Side.SELL, 5, price=75_000))
    external = place_externally(simulator)
    kill_switch.reduce(by="trader", reason="", at=clock.now())
    assert (wanted(order), order.chase_at) == (RequestedBy.CANCEL_ALL, None)
    assert cancel_driver.due_cancels(clock.now()) == [order.pk], "at once"
    turn(2)
    order.refresh_from_db()
    sale.refresh_from_db()
    assert (order.state, sale.state) == (Status.CANCELLED, Status.PENDING)
    assert TradeOrder.objects.get(order_no=external["number"]).state is Status.PENDING
    assert not TradeOrder.objects.filter(attempt__gt=0).exists(), "nothing is bought again"


def test_a_buy_without_an_answer_is_cancelled_once_it_has_one(buy: Buy) -> None:
    order = buy(price=69_000)
    TradeOrder.objects.filter(pk=order.pk).update(status=Status.UNKNOWN, order_no=None)
    kill_switch.reduce(by="trader", reason="", at=clock.now())
    assert wanted(order) == RequestedBy.CANCEL_ALL
    assert cancel_driver.due_cancels(clock.now()) == []
    TradeOrder.objects.filter(pk=order.pk).update(status=Status.PENDING, order_no="0000000001")
    assert cancel_driver.due_cancels(clock.now()) == [order.pk]


def test_a_chase_between_two_orders_buys_no_more(buy: Buy) -> None:
    order = buy(price=69_000, strategy="")
    at = clock.now()
    TradeOrder.objects.filter(pk=order.pk).update(status=Status.CANCELLED, chase_at=at)
    kill_switch.reduce(by="trader", reason="", at=at)
    order.refresh_from_db()
    assert order.chase_at is None


def test_a_loss_cancels_resting_buys_and_other_trips_leave_them(
    service: OrderService, buy: Buy, broker: Broker
) -> None:
    order = buy(price=69_000)
    trip_for_lists(broker)
    assert wanted(order) == ""
    snapshot(-6_000_000)
    kill_switch.check_trips(clock.now())
    assert wanted(order) == RequestedBy.CANCEL_ALL


def test_what_a_killed_process_left_is_cancelled_by_the_next_watch(buy: Buy) -> None:
    order = buy(price=69_000)
    with mock.patch.object(kill_switch, "cancel_buys"):
        kill_switch.reduce(by="trader", reason="", at=clock.now())
    assert wanted(order) == ""
    kill_switch.check_trips(clock.now())
    assert wanted(order) == RequestedBy.CANCEL_ALL


@pytest.mark.parametrize("how", [TradingState.HALTED, TradingState.ACTIVE])
def test_after_another_change_no_more_buys_are_cancelled(buy: Buy, how: TradingState) -> None:
    with mock.patch.object(kill_switch, "cancel_buys"):
        order = buy(price=69_000)
        kill_switch.reduce(by="trader", reason="", at=clock.now())
        kill_switch.set_state(how, by="trader", reason="", at=clock.now())
    kill_switch.check_trips(clock.now())
    assert wanted(order) == ""


def test_resting_buys_stay_if_the_setting_is_off(buy: Buy, settings) -> None:
    settings.CANCEL_BUYS_ON_REDUCE = False
    order = buy(price=69_000)
    kill_switch.reduce(by="trader", reason="", at=clock.now())
    kill_switch.check_trips(clock.now())
    assert wanted(order) == ""


# --- nobody waits for it ---------------------------------------------------------------------------


def beside(work: Callable[[], None]) -> threading.Thread:
    """Run something on a connection of its own."""

    def run() -> None:
        try:
            work()
        finally:
            connections.close_all()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_a_halt_waits_for_nobody_who_commits_an_order(transactional_db: None, db: None) -> None:
    """A process sleeps in a transaction that holds up every order; and one that changes the state holds up none."""
    kill_switch.ensure_exists(clock.now())
    holding, release = threading.Event(), threading.Event()

    def sleep() -> None:
        with transaction.atomic():
            kill_switch.lock_state()
            holding.set()
            release.wait(30)

    sleeper = beside(sleep)
    assert holding.wait(10)
    brake = beside(lambda: kill_switch.halt(by="kim", reason="", at=clock.now()) and None)
    brake.join(3)
    is_done = not brake.is_alive()
    release.set()
    sleeper.join(10)
    brake.join(10)
    assert is_done


def test_an_order_waits_for_nobody_who_changes_the_state(
    transactional_db: None, service: OrderService, buy: Buy
) -> None:
    """Somebody sleeps in a transaction that holds the row of the trading state."""
    kill_switch.ensure_exists(clock.now())
    holding, release, placed = threading.Event(), threading.Event(), threading.Event()

    def sleep() -> None:
        with transaction.atomic():
            TradingSwitch.objects.select_for_update().get()
            holding.set()
            release.wait(30)

    def place() -> None:
        assert buy(price=69_000).order_no
        placed.set()

    sleeper = beside(sleep)
    assert holding.wait(10)
    placer = beside(place)
    is_placed = placed.wait(5)
    release.set()
    sleeper.join(10)
    placer.join(10)
    assert is_placed


def test_an_order_that_waited_for_another_sees_the_halt_that_came_meanwhile(
    transactional_db: None, service: OrderService, buy: Buy, simulator: Simulator
) -> None:
    kill_switch.ensure_exists(clock.now())
    holding, release = threading.Event(), threading.Event()

    def sleep() -> None:
        with transaction.atomic():
            kill_switch.lock_state()
            holding.set()
            release.wait(30)
            transaction.set_rollback(True)  # the count is as the waiting order saw it

    def place() -> None:
        with suppress(OrderDenied):
            buy(price=69_000)

    sleeper = beside(sleep)
    assert holding.wait(10)
    placer = beside(place)
    placer.join(1)
    assert placer.is_alive(), "it waits"
    kill_switch.halt(by="kim", reason="", at=clock.now())
    release.set()
    sleeper.join(10)
    placer.join(10)
    assert not TradeOrder.objects.filter(order_no__isnull=False).exists()
    assert simulator.ledger(ACCOUNT)["orders"] == []


def test_no_trip_overrules_a_person_who_was_quicker(service: OrderService) -> None:
    """Between the evidence and the change a person halts."""
    real = kill_switch.evidence_of_state

    def slow() -> object:
        found = real()
        with mock.patch.object(kill_switch, "evidence_of_state", real):
            kill_switch.halt(by="kim", reason="", at=clock.now())
        return found

    with mock.patch.object(kill_switch, "evidence_of_state", slow):
        assert kill_switch.trip("why", frozenset({"INDEX_FALL"}), at=clock.now()) is None
    assert stands() is TradingState.HALTED
