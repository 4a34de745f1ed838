"""The chase as its errand runs it, against a price that stands still unless the test moves it."""

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from django.core.management import call_command
from django.db import transaction
from django.utils.translation import gettext

from aegis.broker import Acceptance, Broker, BrokerError, BrokerOrderRef, NotSent, OrderRequest, OutcomeUnknown, Refused
from aegis.chase import MAX_LOST, Action, Plan
from aegis.lifecycle import Status
from aegis.requests import EndCause
from aegis.terms import Market, OrderKind, Side
from aegis.trading_state import TradingState
from desk import actions
from infra import clock
from orders import chase, fills, journal, reconcile
from orders.cancel import Canceller
from orders.models import TradeExecution, TradeOrder, TradingSwitch
from orders.reorders import Reorders
from orders.requests import Grounds
from orders.service import OrderIntent, OrderService
from orders.submit import Submitter
from simulator.api.server import Simulator

SAMSUNG = "005930"
ACCOUNT = "50000000-01"
Buy = Callable[..., TradeOrder]
ClockAt = Callable[[str], object]


@pytest.fixture
def after(clock_at: ClockAt) -> Callable[[float], None]:
    def pass_time(seconds: float) -> None:
        clock_at(f"{clock.now() + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}")

    return pass_time


@pytest.fixture
def sweep(broker: Broker, after: Callable[[float], None]) -> Callable[[], list[Action]]:
    """Let the wait pass, then sweep until nothing moves."""

    def run() -> list[Action]:
        after(31)
        steps = []
        for _ in range(6):
            steps += [chase.run_due_steps(pk, broker, clock.now) for pk in chase.due_orders(clock.now())]
            after(1)
        return steps

    return run


def family(order: TradeOrder) -> list[TradeOrder]:
    order.refresh_from_db()
    return [order, *order.retries.order_by("attempt")]


def test_nothing_is_due_before_the_wait_is_over(buy: Buy, after) -> None:
    order = buy()
    after(29)
    assert chase.due_orders(clock.now()) == []
    after(2)
    assert chase.due_orders(clock.now()) == [order.pk]


def test_an_unfilled_buy_comes_a_tick_nearer_each_time_until_it_fills(buy: Buy, sweep, simulator: Simulator) -> None:
    order = buy()
    for _ in range(4):
        sweep()
    prices = [each.price for each in family(order)]
    assert prices[:3] == [69_800, 69_900, 70_000]
    assert sum(each.filled_qty for each in family(order)) == 10
    assert all(each.state is Status.CANCELLED for each in family(order)[:-1])
    assert family(order)[-1].state is Status.FILLED
    assert TradeOrder.objects.exclude(chase_at=None).count() == 0


def test_what_was_filled_before_the_cancel_is_not_ordered_again(
    buy: Buy, sweep, simulator: Simulator, broker: Broker
) -> None:
    cheap = "004090"
    simulator.set_price(cheap, 16_000, freeze=True)
    best = broker.book(cheap, Market.KRX).asks[0]
    order = buy(code=cheap, strategy="buy_urgent", qty=best.qty + 25)
    for _ in range(5):
        sweep()
    assert sum(each.filled_qty for each in family(order)) == order.qty
    assert len(family(order)) > 1
    assert all(each.qty <= 25 for each in family(order)[1:])
    assert sum(each["filled"] for each in simulator.ledger(ACCOUNT)["orders"]) == order.qty


def test_after_three_retries_it_goes_to_market(buy: Buy, sweep) -> None:
    order = buy(plan=Plan(wait_seconds=30, max_retries=3, step_ticks=0, market_after=True))
    for _ in range(5):
        sweep()
    orders = family(order)
    assert [each.attempt for each in orders] == [0, 1, 2, 3, 4]
    assert [each.order_kind for each in orders[:4]] == [OrderKind.LIMIT] * 4
    assert (orders[4].order_kind, orders[4].state) == (OrderKind.MARKET, Status.FILLED)
    assert sum(each.filled_qty for each in orders) == 10


def test_without_the_market_at_last_it_stops_and_says_so(buy: Buy, sweep) -> None:
    order = buy(plan=Plan(wait_seconds=30, max_retries=1, step_ticks=0, market_after=False))
    for _ in range(3):
        sweep()
    last = family(order)[-1]
    assert (last.attempt, last.state, last.chase_at) == (1, Status.CANCELLED, None)
    assert last.chase_note == gettext("every retry is used up")


def test_a_halt_holds_the_chase_and_takes_nothing_from_the_book(buy: Buy, sweep, simulator: Simulator) -> None:
    order = buy()
    TradingSwitch.objects.update(state=TradingState.HALTED)
    sweep()
    order.refresh_from_db()
    assert (order.state, order.chase_at is None) == (Status.PENDING, False)
    assert [each["status"] for each in simulator.ledger(ACCOUNT)["orders"]] == ["open"]
    TradingSwitch.objects.update(state=TradingState.ACTIVE)
    sweep()
    assert [each.state for each in family(order)] == [Status.CANCELLED, Status.PENDING]


def test_a_fill_that_overtakes_the_cancel_ends_the_chase(
    buy: Buy, sweep, broker: Broker, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = buy()
    cancel = Canceller.cancel

    def overtaken(self: Canceller, cancelled: TradeOrder, **how: Any) -> object:
        simulator.set_price(SAMSUNG, 69_000, freeze=True)
        return cancel(self, cancelled, **how)

    monkeypatch.setattr(Canceller, "cancel", overtaken)
    sweep()
    order.refresh_from_db()
    assert (order.state, order.filled_qty, order.chase_at) == (Status.FILLED, 10, None)
    assert order.retries.count() == 0


@pytest.mark.parametrize("by", ["command", "desk", "strategy"])
def test_an_order_that_is_cancelled_by_will_is_not_ordered_anew(
    buy: Buy, broker: Broker, service: OrderService, sweep, admin_user: Any, by: str
) -> None:
    order = buy()
    assert order.chase_at is not None
    if by == "command":
        call_command("cancel", f"#{order.pk}")
    elif by == "desk":
        assert actions.cancel(order, by=admin_user).is_done
    else:
        service.cancel(order)
    for _ in range(3):
        reconcile.reconcile(broker, clock.now)
        sweep()
    order.refresh_from_db()
    assert (order.state, TradeOrder.objects.count()) == (Status.CANCELLED, 1)


def test_a_chase_that_is_ended_while_its_reorder_is_priced_orders_nothing(
    buy: Buy, broker: Broker, sweep, monkeypatch: pytest.MonkeyPatch
) -> None:
    order, swept = buy(), []
    judge = Reorders._price_and_check

    def judged(self: Reorders, *words: Any, **more: Any) -> Any:
        found = judge(self, *words, **more)
        if not swept and TradeOrder.objects.get(pk=order.pk).state is Status.CANCELLED:
            swept.append(OrderService(broker, clock.now).cancel_all())
        return found

    monkeypatch.setattr(Reorders, "_price_and_check", judged)
    for _ in range(3):
        sweep()
    assert swept
    assert TradeOrder.objects.get() == order
    order.refresh_from_db()
    assert order.chase_at is None


def test_a_chase_that_many_others_overtake_goes_on_later(buy: Buy, sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    order = buy()
    with monkeypatch.context() as patch:
        patch.setattr(journal, "insert_if_unchanged", lambda *words, **more: False)
        sweep()
    order.refresh_from_db()
    assert (order.state, order.chase_at is None) == (Status.CANCELLED, False)


class LosesCancels:
    """A broker that carries a cancel out (or not) and never says so."""

    def __init__(self, broker: Broker, *, arrives: bool) -> None:
        self._broker = broker
        self.arrives = arrives

    def __getattr__(self, name: str) -> object:
        return getattr(self._broker, name)

    def cancel(self, placed: BrokerOrderRef) -> None:
        if self.arrives:
            self._broker.cancel(placed)
        raise OutcomeUnknown("no answer", call="order-rvsecncl")


@pytest.mark.parametrize("arrives", [True, False])
def test_a_lost_answer_to_the_cancel_leads_to_looking_not_to_a_second_order(
    buy: Buy, broker: Broker, after, simulator: Simulator, arrives: bool
) -> None:
    order = buy()
    after(31)
    losing = LosesCancels(broker, arrives=arrives)
    for _ in range(20):
        for pk in chase.due_orders(clock.now()):
            chase.run_due_steps(pk, losing, clock.now)  # type: ignore[arg-type]
        after(2)
        losing.arrives = True
    orders = [each for each in simulator.ledger(ACCOUNT)["orders"] if each["request"] == "new"]
    open_qty = sum(each["quantity"] for each in orders if each["status"] == "open")
    assert open_qty + sum(each["filled"] for each in orders) <= order.qty
    assert family(order)[0].state is Status.CANCELLED
    assert len(family(order)) > 1


def test_two_sweepers_make_one_successor(buy: Buy, broker: Broker, after) -> None:
    order = buy()
    after(31)
    TradeOrder.objects.filter(pk=order.pk).update(chase_claimed_until=clock.now() + timedelta(seconds=20))
    assert chase.due_orders(clock.now()) == []
    assert chase.run_due_steps(order.pk, broker, clock.now) is Action.REST
    after(25)
    assert chase.due_orders(clock.now()) == [order.pk], "a claim of a worker that died runs out"


def test_an_order_with_a_successor_is_never_reordered_again(buy: Buy, sweep, broker: Broker) -> None:
    order = buy()
    sweep()
    assert order.retries.count() == 1
    TradeOrder.objects.filter(pk=order.pk).update(chase_at=clock.now())
    chase.run_due_steps(order.pk, broker, clock.now)
    assert order.retries.count() == 1


def test_a_chase_that_slept_through_the_close_stops(buy: Buy, broker: Broker, clock_at: ClockAt) -> None:
    order = buy()
    clock_at("2026-11-24 08:10:00")
    for _ in range(3):
        for pk in chase.due_orders(clock.now()):
            chase.run_due_steps(pk, broker, clock.now)
    order.refresh_from_db()
    assert (order.chase_at, order.chase_note) == (None, gettext("its trade date is over"))
    reconcile.reconcile(broker, clock.now)
    order.refresh_from_db()
    assert (order.state, order.end_cause) == (Status.EXPIRED, EndCause.SESSION_END)
    assert order.retries.count() == 0


def test_a_chase_without_the_broker_waits_for_the_next_sweep(buy: Buy, broker: Broker, after) -> None:
    class Unreachable:
        def __getattr__(self, name: str) -> Callable[..., None]:
            def fail(*args: object) -> None:
                raise OutcomeUnknown("no answer")

            return fail

    order = buy()
    after(31)
    chase.run_due_steps(order.pk, Unreachable(), clock.now)  # type: ignore[arg-type]
    order.refresh_from_db()
    assert (order.state, order.chase_claimed_until) == (Status.PENDING, None)
    assert chase.due_orders(clock.now()) == [order.pk]


class LosesOrders:
    """A broker that the next `left` orders never reach; how, the error says."""

    def __init__(self, broker: Broker, error: BrokerError, left: int = 1) -> None:
        self._broker = broker
        self._error = error
        self.left = left

    def __getattr__(self, name: str) -> object:
        return getattr(self._broker, name)

    def place(self, request: OrderRequest) -> Acceptance:
        if self.left:
            self.left -= 1
            raise self._error
        return self._broker.place(request)


@pytest.mark.parametrize("error", [NotSent("connection refused"), OutcomeUnknown("no answer")])
def test_a_reorder_that_never_arrived_is_no_end_and_uses_up_no_retry(
    buy: Buy, broker: Broker, after, simulator: Simulator, error: BrokerError
) -> None:
    order = buy()
    losing = LosesOrders(broker, error)
    for _ in range(40):
        after(7)
        reconcile.reconcile(broker, clock.now)
        for pk in chase.due_orders(clock.now()):
            chase.run_due_steps(pk, losing, clock.now)  # type: ignore[arg-type]
    lost = family(order)[1]
    assert (lost.state, lost.never_arrived) == (Status.REJECTED, True)
    assert [each.price for each in family(order)[1:3]] == [69_900, 69_900], "the lost one's turn is taken again"
    assert sum(each.filled_qty for each in family(order)) == order.qty
    assert sum(each["filled"] for each in simulator.ledger(ACCOUNT)["orders"]) == order.qty


def test_a_chase_whose_orders_are_lost_again_and_again_stops(buy: Buy, broker: Broker, after) -> None:
    order = buy()
    losing = LosesOrders(broker, NotSent("connection refused"), left=99)
    for _ in range(20):
        after(7)
        for pk in chase.due_orders(clock.now()):
            chase.run_due_steps(pk, losing, clock.now)  # type: ignore[arg-type]
    assert len(family(order)) == 1 + MAX_LOST
    assert family(order)[-1].events.filter(kind="CHASE_ENDED").count() == 1
    assert chase.due_orders(clock.now() + timedelta(hours=1)) == []


def test_a_refused_reorder_ends_the_chase_and_says_so(buy: Buy, broker: Broker, after) -> None:
    order = buy()
    refusing = LosesOrders(broker, Refused("주문가능금액을 초과했습니다", code="APBK0952"), left=9)
    after(31)
    for _ in range(4):
        for pk in chase.due_orders(clock.now()):
            chase.run_due_steps(pk, refusing, clock.now)  # type: ignore[arg-type]
    last = family(order)[-1]
    assert (last.state, last.attempt, last.never_arrived) == (Status.REJECTED, 1, False)
    assert "APBK0952" in last.chase_note
    assert last.events.filter(kind="CHASE_ENDED").exists()


def test_a_chase_does_not_run_after_a_market_that_leaves_the_band(buy: Buy, sweep, simulator: Simulator) -> None:
    order = buy()
    simulator.set_price(SAMSUNG, 72_500, freeze=True)  # 3.6 % over the price at arrival
    sweep()
    order.refresh_from_db()
    assert (order.state, order.chase_at) == (Status.PENDING, None), "it stays where it rests"
    assert "72,400" in order.chase_note or "72,300" in order.chase_note
    assert order.events.filter(kind="CHASE_ENDED").count() == 1


@pytest.mark.parametrize("what", ["halt", "vi"])
def test_a_chase_pauses_while_the_stock_is_held(
    buy: Buy, sweep, simulator: Simulator, broker: Broker, after, what: str
) -> None:
    order = buy()
    quotes = f"/simulator/quotes/{SAMSUNG}"
    simulator.command("POST", quotes, {"halt": True} if what == "halt" else {"vi": "static"})
    sweep()
    order.refresh_from_db()
    assert order.state is Status.PENDING
    assert order.chase_at is not None
    assert order.retries.count() == 0
    assert order.events.filter(kind="CHASE_PAUSED").count() == 1, "said once"
    if what == "halt":
        simulator.command("POST", quotes, {"halt": False})
    after(120)  # an interruption ends by itself
    sweep()
    assert order.retries.count() == 1


def test_a_chase_pauses_while_its_venue_takes_nothing(service: OrderService, broker: Broker, clock_at, after) -> None:
    clock_at("2026-11-23 08:49:00")
    reconcile.reconcile(broker, clock.now)
    order = service.place(OrderIntent(SAMSUNG, Side.BUY, 1, strategy="buy_normal"))
    assert order.market == Market.NXT
    clock_at("2026-11-23 08:52:00")
    for _ in range(5):
        for pk in chase.due_orders(clock.now()):
            chase.run_due_steps(pk, broker, clock.now)
        after(11)
    order.refresh_from_db()
    assert (order.cancel_sent_at, order.retries.count()) == (None, 0)
    assert order.chase_at is not None


def test_chase_now_takes_the_next_step_at_once_and_gives_a_plan_to_who_has_none(
    buy: Buy, service: OrderService, broker: Broker
) -> None:
    order = buy(price=69_000)
    service.chase_now(order)
    for pk in chase.due_orders(clock.now()):
        chase.run_due_steps(pk, broker, clock.now)
    order.refresh_from_db()
    assert order.cancel_sent_at is not None


def test_the_switch_is_looked_at_again_in_the_moment_of_sending(
    service: OrderService, buy: Buy, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    send = Submitter.send

    def switched(self: Submitter, order: TradeOrder, grounds: Grounds | None = None) -> TradeOrder:
        TradingSwitch.objects.update(state=TradingState.HALTED)
        return send(self, order, grounds)

    monkeypatch.setattr(Submitter, "send", switched)
    order = buy()
    assert order.state is Status.REJECTED
    assert order.sent_at is None
    assert simulator.ledger(ACCOUNT)["orders"] == []


def test_a_reorder_is_taken_back_where_a_fill_of_before_the_cancel_turns_up(buy: Buy, sweep, after) -> None:
    order = buy()
    sweep()
    _, again = family(order)
    assert again.is_open
    late = fills.Fill(10, Decimal(69_800), 698_000, clock.now(), TradeExecution.Source.LIST, Market.KRX)
    with transaction.atomic():
        # so new that no list of this test contradicts it
        fills.apply_fill(journal.locked(order.pk), late, now=clock.now() + timedelta(seconds=60))
    sweep()
    again.refresh_from_db()
    assert (again.state, again.filled_qty, again.chase_at) == (Status.CANCELLED, 0, None)
    assert len(family(order)) == 2
    after(60)
    assert chase.due_orders(clock.now()) == []


def test_an_order_found_after_its_successor_left_is_taken_back(buy: Buy, sweep, after) -> None:
    order = buy()
    sweep()
    _, again = family(order)
    stray = buy(price=69_000)
    # as if the re-order had been given up for lost, sent anew, and found then
    TradeOrder.objects.filter(pk=again.pk).update(attempt=2)
    TradeOrder.objects.filter(pk=stray.pk).update(root=order.pk, attempt=1, chase_at=clock.now(), wait_seconds=30)
    sweep()
    stray.refresh_from_db()
    assert (stray.state, stray.chase_at) == (Status.CANCELLED, None)
    assert sum(each.filled_qty for each in family(order)) <= 10
