"""The chase as a chain of Celery tasks: who sends whom, what each asks the broker, and what a lost worker changes."""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from itertools import permutations
from typing import Any

import pytest

from aegis.broker import Acceptance, Broker, BrokerOrderRef, NotSent
from aegis.chase import Action, ChaseStep, Plan
from aegis.lifecycle import Status
from aegis.terms import OrderKind, Side
from config.celery import app
from infra import clock
from orders import chase, journal, periodic_sync, tasks
from orders.chase import StepResult
from orders.models import TradeOrder
from simulator.api.server import Simulator
from tests.orders.exchange_log import answered, at_stake, new_orders
from tests.workers import Workers

SAMSUNG = "005930"
CHECK, CANCEL, AMEND, CONFIRM, REORDER = ChaseStep
PATIENCE_SECONDS = 40.0
UNBOUND = {"AEGIS_MAX_AUTO_REQUESTS_PER_MINUTE": "0"}
# ten ticks below the last price: neither it nor three steps nearer are filled
WORDS: dict[str, Any] = {
    "request_id": "chain-1",
    "code": SAMSUNG,
    "side": "BUY",
    "qty": 10,
    "strategy": "buy_normal",
    "tick_offset": -10,
}
MARKET = (OrderKind.MARKET, 0)
Buy = Callable[..., TradeOrder]
ClockAt = Callable[[str], object]


def plan(retries: int, wait_seconds: float = 0.5) -> dict[str, Any]:
    return {"wait_seconds": wait_seconds, "max_retries": retries, "step_ticks": 1, "market_after": True}


def limits(*prices: int) -> list[tuple[str, int]]:
    return [(OrderKind.LIMIT, price) for price in prices]


def wait_for(what: Callable[[], Any], why: Callable[[], str]) -> None:
    """Wait until `what` is so; what fails says `why`."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not what():
        assert time.monotonic() < deadline, why()
        time.sleep(0.1)


def is_over() -> bool:
    """Whether nothing of any chase is left to do."""
    family = TradeOrder.objects.all()
    return (
        family.exists()
        and not family.exclude(chase_at=None).exists()
        and all(each.is_done for each in family)
        and sum(each.filled_qty for each in family) == WORDS["qty"]
    )


def state() -> str:
    rows = TradeOrder.objects.order_by("id").values_list("id", "status", "chase_step", "chase_at", "chase_note")
    return f"{clock.now():%H:%M:%S} {list(rows)}"


@pytest.fixture
def market(broker: Broker, simulator: Simulator, transactional_db: None) -> Simulator:
    """An exchange whose 삼성전자 stands still at 70,000 won, and an account that was looked at."""
    periodic_sync.begin(broker, clock.now)
    simulator.set_price(SAMSUNG, 70_000, freeze=True)
    return simulator


# --- the chain -------------------------------------------------------------------------------------------------------


class Flower:
    """Collects what workers tell of their tasks, as Flower does."""

    def __init__(self) -> None:
        self.received: dict[str, dict[str, Any]] = {}
        self.heard = threading.Event()

    @contextmanager
    def watching(self) -> Iterator["Flower"]:
        with app.connection_for_read() as link:
            receiver = app.events.Receiver(link, handlers={"*": self._take})
            listening = threading.Thread(target=receiver.capture, kwargs={"limit": None, "wakeup": False})
            listening.start()
            try:
                yield self
            finally:
                receiver.should_stop = True
                listening.join()

    def _take(self, event: dict[str, Any]) -> None:
        self.heard.set()
        if event["type"] == "task-received":
            self.received[event["uuid"]] = event

    def chain(self, root: str) -> list[str]:
        """Return the names of a task and its descendants; each has one child at most, which is what a chain is."""
        names, uuid = list[str](), root
        while True:
            names.append(self.received[uuid]["name"].rsplit(".", 1)[-1])
            children = [each for each in self.received.values() if each["parent_id"] == uuid]
            assert all(child["root_id"] == root for child in children)
            assert len(children) <= 1, [child["name"] for child in children]
            if not children:
                return names
            uuid = children[0]["uuid"]


BY_CANCEL = ["chase_check", "chase_cancel", "chase_confirm", "chase_reorder"]
BY_AMEND = ["chase_check", "chase_amend", "chase_confirm"]


@pytest.mark.parametrize(
    ("by", "chain"),
    [
        ("cancel", ["submit", *(BY_CANCEL * 4), "chase_check"]),
        ("amend", ["submit", *(BY_AMEND * 3), *BY_CANCEL, "chase_check"]),
    ],
)
def test_a_chase_of_three_retries_is_a_chain_of_parents_and_children(
    market: Simulator, workers: Workers, by: str, chain: list[str]
) -> None:
    with Flower().watching() as flower:
        workers.start("orders", AEGIS_CHASE_BY=by, **UNBOUND)
        assert flower.heard.wait(PATIENCE_SECONDS)
        asked = tasks.submit.delay(**WORDS, plan=plan(3))
        assert asked.get(timeout=PATIENCE_SECONDS)["outcome"] == "PLACED"
        wait_for(is_over, state)
        wait_for(lambda: len(flower.chain(asked.id)) >= len(chain), lambda: str(flower.chain(asked.id)))
    assert flower.chain(asked.id) == chain, "and no sweep had a part in it"
    assert new_orders(market) == [*limits(69_000, 69_100, 69_200, 69_300), MARKET]
    assert max(at_stake(market.events(), SAMSUNG)) == WORDS["qty"]
    assert "Traceback" not in workers.log("orders")


def test_a_list_that_lags_is_asked_again_by_the_chain_itself(market: Simulator, workers: Workers) -> None:
    with Flower().watching() as flower:
        workers.start("orders", **UNBOUND)
        assert flower.heard.wait(PATIENCE_SECONDS)
        market.fault("list_lag", seconds=2.0)
        asked = tasks.submit.delay(**WORDS, plan=plan(0, wait_seconds=3))
        asked.get(timeout=PATIENCE_SECONDS)
        wait_for(is_over, state)
    chain = flower.chain(asked.id)
    assert chain[:4] == ["submit", "chase_check", "chase_cancel", "chase_confirm"]
    assert chain.count("chase_confirm") > 1
    assert chain[chain.index("chase_reorder") - 1] == "chase_confirm"


# --- the broker calls of each task -----------------------------------------------------------------------------------


@pytest.fixture
def after(clock_at: ClockAt) -> Callable[[float], None]:
    def pass_time(seconds: float) -> None:
        clock_at(f"{clock.now() + timedelta(seconds=seconds):%Y-%m-%d %H:%M:%S}")

    return pass_time


@pytest.fixture
def take(broker: Broker, simulator: Simulator) -> Callable[[int, ChaseStep], tuple[StepResult, list[str]]]:
    """Take one step as its task does; return what it did, and what it asked the broker."""

    def run(pk: int, step: ChaseStep) -> tuple[StepResult, list[str]]:
        with answered(simulator) as asked:
            taken = chase.run_step(pk, broker, clock.now, step)
        return taken, asked

    return run


LIST = ["inquire-daily-ccld"]
CHANGE, PLACE = "order-rvsecncl", "order-cash"
QUOTE, BOOK = "inquire-price", "inquire-asking-price-exp-ccn"
CASH, SHARES = "inquire-psbl-order", "inquire-psbl-sell"


@pytest.mark.parametrize(
    ("words", "questions"),
    [
        ({}, [QUOTE, CASH]),
        ({"price": 69_000, "plan": Plan(**plan(1, 30))}, [QUOTE, CASH]),
        ({"strategy": "buy_urgent", "tick_offset": -9}, [QUOTE, BOOK, CASH]),
        ({"side": Side.SELL, "strategy": "sell_profit", "tick_offset": 9}, [QUOTE, SHARES]),
        ({"side": Side.SELL, "strategy": "sell_stop", "tick_offset": 9}, [QUOTE, BOOK, SHARES]),
    ],
)
@pytest.mark.parametrize("by", ["cancel", "amend"])
def test_each_task_makes_its_own_calls_and_no_other(
    buy: Buy, take, after, simulator: Simulator, settings, by: str, words: dict[str, Any], questions: list[str]
) -> None:
    settings.CHASE_BY = by
    shares = {"account": "50000000-01", "code": SAMSUNG, "quantity": 50, "cost": 50}
    simulator.command("POST", "/simulator/shares", shares)
    order = buy(**words)
    assert order.state is Status.PENDING, order.refusal
    after(31)
    taken, asked = take(order.pk, CHECK)
    assert asked == LIST
    if by == "cancel":
        assert taken == StepResult(Action.CHECK, order.pk, CANCEL)
        taken, asked = take(order.pk, CANCEL)
        assert (taken, asked) == (StepResult(Action.CANCEL, order.pk, CONFIRM), [*questions, CHANGE])
        taken, asked = take(order.pk, CONFIRM)
        assert (taken, asked) == (StepResult(Action.CONFIRM, order.pk, REORDER), LIST)
        taken, asked = take(order.pk, REORDER)
        assert (taken.action, taken.next_step, asked) == (Action.REORDER, CHECK, [*questions, PLACE])
    else:
        assert taken == StepResult(Action.CHECK, order.pk, AMEND)
        taken, asked = take(order.pk, AMEND)
        assert (taken, asked) == (StepResult(Action.AMEND, order.pk, CONFIRM), [*questions, CHANGE])
        taken, asked = take(order.pk, CONFIRM)
        assert (taken.action, taken.next_step, asked) == (Action.CONFIRM, CHECK, LIST)
    successor = order.retries.get()
    assert (taken.next_pk, successor.state) == (successor.pk, Status.PENDING)
    assert 29 < taken.seconds <= 30


def test_the_step_to_the_market_asks_the_same(buy: Buy, take, after, settings) -> None:
    settings.CHASE_BY = "amend"  # an amend keeps the order kind: it is a cancel all the same
    order = buy(plan=Plan(**plan(0, 30)))
    after(31)
    take(order.pk, CHECK)
    assert take(order.pk, CANCEL)[1] == [QUOTE, CASH, CHANGE]
    assert take(order.pk, CONFIRM)[1] == LIST
    assert take(order.pk, REORDER)[1] == [QUOTE, CASH, PLACE]
    assert order.retries.get().order_kind == OrderKind.MARKET


def test_a_cancel_that_nothing_follows_asks_for_the_quote_alone(buy: Buy, take, after) -> None:
    order = buy(plan=Plan(wait_seconds=30, max_retries=0, step_ticks=1, market_after=False))
    after(31)
    take(order.pk, CHECK)
    assert take(order.pk, CANCEL)[1] == [QUOTE, CHANGE]
    taken, asked = take(order.pk, CONFIRM)
    assert (taken, asked) == (StepResult(Action.END), LIST)


# --- messages that come twice, late or never -------------------------------------------------------------------------


STEPS = [CHECK, CANCEL, CONFIRM, REORDER]
COMMANDS = {CHANGE, PLACE}


def brought_to(step: ChaseStep, order: TradeOrder, take) -> None:
    """Take an order to where its next task is that of `step`."""
    for each in STEPS[: STEPS.index(step)]:
        assert take(order.pk, each)[0].next_step is STEPS[STEPS.index(each) + 1]


@pytest.mark.parametrize(("step", "late"), list(permutations(STEPS, 2)))
def test_a_message_of_another_step_does_nothing_but_name_the_one_that_is_due(
    buy: Buy, take, after, step: ChaseStep, late: ChaseStep
) -> None:
    order = buy()
    after(31)
    brought_to(step, order, take)
    taken, asked = take(order.pk, late)
    assert (taken, asked) == (StepResult(Action.WAIT, order.pk, step), [])
    order.refresh_from_db()
    assert order.chase_step == step


def test_messages_of_an_order_that_was_followed_or_is_not_due_do_nothing(buy: Buy, take, after) -> None:
    order = buy()
    for step in ChaseStep:
        assert take(order.pk, step) == (StepResult(Action.REST), []), "its wait is not over"
    after(31)
    brought_to(REORDER, order, take)
    take(order.pk, REORDER)
    for step in ChaseStep:
        assert take(order.pk, step) == (StepResult(Action.REST), []), "another order goes for its shares"
        assert take(order.retries.get().pk, step) == (StepResult(Action.REST), [])


def test_a_message_that_comes_while_another_worker_is_at_the_step_does_nothing(buy: Buy, take, after) -> None:
    order = buy()
    after(31)
    TradeOrder.objects.filter(pk=order.pk).update(chase_claimed_until=clock.now() + timedelta(seconds=20))
    assert take(order.pk, CHECK) == (StepResult(Action.REST), [])


@pytest.mark.parametrize("step", STEPS)
def test_the_sweep_restarts_the_step_whose_message_was_lost(buy: Buy, take, after, step: ChaseStep) -> None:
    order = buy()
    after(31)
    brought_to(step, order, take)
    order.refresh_from_db()
    assert order.chase_at is not None
    assert chase.overdue_steps(order.chase_at + chase.OVERDUE - timedelta(seconds=0.01)) == [], "it may be on its way"
    assert chase.overdue_steps(order.chase_at + chase.OVERDUE) == [(order.pk, step)]


def test_a_chase_that_pauses_sends_its_own_next_message(buy: Buy, take, after, simulator: Simulator) -> None:
    order = buy()
    simulator.command("POST", f"/simulator/quotes/{SAMSUNG}", {"halt": True})
    after(31)
    take(order.pk, CHECK)
    taken, asked = take(order.pk, CANCEL)
    assert (taken, asked) == (StepResult(Action.WAIT, order.pk, CHECK, chase.PAUSE.total_seconds()), [QUOTE])


def test_a_reorder_that_never_left_is_tried_again_by_the_chain(
    buy: Buy, take, after, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*words: object) -> None:
        raise NotSent("connection refused")

    order = buy()
    after(31)
    brought_to(REORDER, order, take)
    with monkeypatch.context() as patch:
        patch.setattr(type(broker), "place", unreachable)
        taken, _ = take(order.pk, REORDER)
    lost = order.retries.get()
    assert (taken.next_pk, lost.never_arrived) == (lost.pk, True)
    assert 0 < taken.seconds <= journal.LOST_PAUSE.total_seconds()


def test_a_refused_cancel_does_not_revive_a_chase_that_was_ended_meanwhile(
    buy: Buy, take, after, service, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = buy()
    after(31)
    take(order.pk, CHECK)
    cancel = type(broker).cancel

    def ended(self: Broker, placed: BrokerOrderRef) -> Acceptance:
        cancel(self, replace(placed, last_check=None))  # in the broker's own app: nothing is left to cancel

        def checked() -> None:
            assert placed.last_check is not None
            placed.last_check()
            service.end_chase(TradeOrder.objects.get(pk=order.pk), "somebody ended it")

        return cancel(self, replace(placed, last_check=checked))

    monkeypatch.setattr(type(broker), "cancel", ended)
    take(order.pk, CANCEL)
    order.refresh_from_db()
    assert order.chase_at is None


def test_tasks_delivered_many_times_and_out_of_turn_make_the_same_family(market: Simulator, workers: Workers) -> None:
    workers.start("orders", **UNBOUND)
    asked = tasks.submit.delay(**WORDS, plan=plan(3))
    asked.get(timeout=PATIENCE_SECONDS)
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_over():
        assert time.monotonic() < deadline, state()
        for pk in TradeOrder.objects.exclude(chase_at=None).values_list("pk", flat=True):
            for task in tasks._TASK_OF.values():
                task.delay(pk)
        tasks.submit.delay(**WORDS, plan=plan(3))
        time.sleep(0.2)
    assert new_orders(market) == [*limits(69_000, 69_100, 69_200, 69_300), MARKET]
    assert max(at_stake(market.events(), SAMSUNG)) == WORDS["qty"]
    assert "Traceback" not in workers.log("orders")


# --- kill -9 ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("by", "step"),
    [
        ("cancel", CHECK),
        ("cancel", CANCEL),
        ("cancel", CONFIRM),
        ("cancel", REORDER),
        ("amend", AMEND),
        ("amend", CONFIRM),
    ],
)
def test_a_family_goes_on_after_its_worker_was_killed_between_two_tasks(
    market: Simulator, workers: Workers, by: str, step: ChaseStep
) -> None:
    variables = {"AEGIS_CHASE_BY": by, **UNBOUND}
    dying = workers.start(
        "orders", name="dying", include="tests.orders.dying", DIES_BEFORE=tasks._TASK_OF[step].name, **variables
    )
    tasks.submit.delay(**WORDS, plan=plan(1))
    assert dying.wait(PATIENCE_SECONDS) == -signal.SIGKILL
    assert TradeOrder.objects.filter(chase_claimed_until__isnull=False).count() == 0, "it died between two tasks"
    workers.start("orders", name="next", **variables)

    def swept() -> bool:
        tasks.sweep()
        return is_over()

    wait_for(swept, state)
    assert new_orders(market) == [*limits(69_000, 69_100), MARKET], "no order twice"
    assert max(at_stake(market.events(), SAMSUNG)) == WORDS["qty"]
