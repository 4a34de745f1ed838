"""Stops and requested cancels go before everything else: their queue, their rank, their threads."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from decimal import Decimal
from typing import Any

import pytest
from django.conf import settings
from django.db import connections

from aegis.broker import Broker, BrokerError, NotSent
from aegis.lifecycle import Status
from aegis.requests import RequestedBy
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market, Side
from config.celery import app
from infra import clock
from infra.advisory_lock import advisory_lock
from kis import catalogue, factory
from kis.catalogue import CallPriority
from kis.serving import priority_of, serving
from market import reference_data
from ops import processes
from orders import periodic_sync, reconcile, stops, tasks
from orders.models import Reconciliation, TradeOrder
from orders.service import NO_CHASE, OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from simulator.api.server import Simulator
from tests.workers import Workers

from .conftest import SAMSUNG
from .exchange_log import ACCOUNT
from .helpers import place_externally

ORDER_PATH = "/uapi/domestic-stock/v1/trading/order-cash"
ORDER = {"code": SAMSUNG, "side": "BUY", "qty": 1, "price": 69_000, "plan": None}
LIST = "/uapi/domestic-stock/v1/trading/inquire-daily-ccld"
URGENT = {"stop", "ask_for_stop", "sweep_stops", "drive_cancel", "sweep_cancels"}
Buy = Callable[..., TradeOrder]


@pytest.fixture
def ranks(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, CallPriority]]:
    """The calls that leave, each with its rank."""
    client: Any = broker._client  # type: ignore[attr-defined]
    turn, seen = client._turn, list[tuple[str, CallPriority]]()

    def noted(tr: catalogue.TR) -> Any:
        seen.append((tr.name, priority_of(tr)))
        return turn(tr)

    monkeypatch.setattr(client, "_turn", noted)
    return seen


@pytest.fixture
def triggered(service: OrderService, broker: Broker) -> int:
    """A stop on ten 삼성전자, at its line."""
    service.place(OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_urgent", plan=NO_CHASE))
    reconcile.reconcile(broker, clock.now)
    KISFetcher(broker, clock.now).sync_portfolio()
    row = stops.arm(SAMSUNG, StopKind.STOP_LOSS, StopUnit.PRICE, Decimal(65_000), by="kim", at=clock.now())
    assert stops.trigger(row.pk, 64_000, clock.now(), seen="feed")
    return row.pk


# --- queues ----------------------------------------------------------------------------------------------------------


def test_stops_and_requested_cancels_have_a_queue_that_nothing_else_shares() -> None:
    app.loader.import_default_modules()
    ours = [name for name in app.tasks if not name.startswith("celery.")]
    urgent = {name for name in ours if app.amqp.router.route({}, name)["queue"].name == "urgent"}
    assert urgent == {f"orders.tasks.{name}" for name in URGENT}


def test_of_these_stops_go_first() -> None:
    def priority(name: str) -> int:
        return int(app.amqp.router.route({}, f"orders.tasks.{name}")["priority"])

    first = {priority(name) for name in ("stop", "ask_for_stop", "sweep_stops")}
    then = {priority(name) for name in ("drive_cancel", "sweep_cancels")}
    assert max(first) < min(then)
    assert priority("submit") < min(priority(f"chase_{step}") for step in ("check", "cancel", "confirm", "reorder"))
    assert {*first, *then} <= set(settings.CELERY_BROKER_TRANSPORT_OPTIONS["priority_steps"])


def test_the_urgent_worker_takes_nothing_else_and_keeps_threads_for_stops() -> None:
    consumed = {program.name: program.argv[program.argv.index("-Q") + 1] for program in _workers()}
    assert consumed["worker-urgent"] == "urgent"
    assert all("urgent" not in queues for name, queues in consumed.items() if name != "worker-urgent")
    # cancels, and chases of what stops sold, may wait for the list at the same time
    assert processes.URGENT_THREADS > 2 * tasks.MAX_WAITING_THREADS
    assert processes.ORDER_THREADS > tasks.MAX_WAITING_THREADS


def _workers() -> Iterator[Any]:
    return (program for program in processes.all_programs() if "-Q" in program.argv)


def test_tasks_that_wait_for_the_list_leave_threads_and_are_sent_again(monkeypatch: pytest.MonkeyPatch) -> None:
    inside, release, ran = threading.Semaphore(0), threading.Event(), list[int]()
    again: list[int] = []
    monkeypatch.setattr(tasks, "_send_again", lambda: again.append(1))

    @tasks._few_at_once(threading.BoundedSemaphore(tasks.MAX_WAITING_THREADS))
    def task(number: int) -> None:
        inside.release()
        release.wait(30)
        ran.append(number)

    threads = [threading.Thread(target=task, args=(number,)) for number in range(tasks.MAX_WAITING_THREADS)]
    for thread in threads:
        thread.start()
    for _ in threads:
        assert inside.acquire(timeout=10)
    task(99)
    assert again == [1]
    release.set()
    for thread in threads:
        thread.join(10)
    task(100)
    assert sorted(ran) == [*range(tasks.MAX_WAITING_THREADS), 100]


# --- ranks -----------------------------------------------------------------------------------------------------------


def test_every_call_of_a_stops_sale_has_the_stops_rank(triggered: int, ranks: list[tuple[str, CallPriority]]) -> None:
    tasks.stop(triggered)
    names = [name for name, _ in ranks]
    assert catalogue.SELL.name in names
    assert {catalogue.SELLABLE.name, catalogue.PRICE.name} <= set(names)
    assert {priority for _, priority in ranks} == {CallPriority.STOP}


def test_new_orders_chases_and_cancels_have_their_ranks(
    buy: Buy, service: OrderService, ranks: list[tuple[str, CallPriority]], after: Callable[[float], None]
) -> None:
    def seen() -> set[CallPriority]:
        found = {priority for _, priority in ranks}
        ranks.clear()
        return found

    order = buy()
    assert seen() == {CallPriority.ORDER}
    after(31)
    tasks.chase_check(order.pk)
    assert seen() == {CallPriority.CHASE}
    service.cancel(order, by=RequestedBy.OPERATOR)
    assert seen() == {CallPriority.CANCEL}
    tasks.drive_cancel(order.pk)
    assert seen() <= {CallPriority.CANCEL}
    service.cancel_all()
    assert seen() == {CallPriority.CANCEL}


@pytest.mark.parametrize("by", list(RequestedBy))
def test_a_driven_cancel_has_the_rank_of_who_requested_it(buy: Buy, by: RequestedBy) -> None:
    order = buy()
    TradeOrder.objects.filter(pk=order.pk).update(cancel_requested_by=by.value)
    expected = {RequestedBy.STOP: CallPriority.STOP, RequestedBy.CHASE: CallPriority.CHASE}.get(by, CallPriority.CANCEL)
    assert tasks._priority_of_cancel(order.pk) is expected
    with serving(CallPriority.STOP):
        assert priority_of(catalogue.ORDERS) is CallPriority.STOP


# --- few calls a second ----------------------------------------------------------------------------------------------

CODES = ("005930", "000660", "373220", "005380", "000270", "035420")


@pytest.mark.django_db(transaction=True)
def test_stops_that_fire_together_sell_one_after_another_where_calls_are_short(
    broker: Broker, simulator: Simulator, settings: Any, clock_at: Callable[..., object]
) -> None:
    """None waits with its order until all the others have read: no quote grows old meanwhile."""
    clock_at("2026-11-23 10:00:00", speed=1.0)
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    for code in CODES:
        held = {"account": ACCOUNT, "code": code, "quantity": 10, "cost": 700_000}
        simulator.command("POST", "/simulator/shares", held)
        reference_data.sync_stock(broker, code, now=clock.now())
    KISFetcher(broker, clock.now).sync_portfolio()
    pks = []
    for code in CODES:
        price = broker.quote(code, Market.KRX).price
        limit, now = Decimal(price + 1), clock.now()
        row = stops.arm(code, StopKind.STOP_LOSS, StopUnit.PRICE, limit, by="kim", at=now, may_trigger_now=True)
        assert stops.trigger(row.pk, price, clock.now(), seen="feed")
        pks.append(row.pk)
    settings.KIS_CALLS_PER_SECOND = settings.KIS_LEDGER_CALLS_PER_SECOND = 2
    factory.reset()
    slow, began = factory.broker(), clock.now()

    @serving(CallPriority.STOP)
    def sell(pk: int) -> None:
        try:
            stops.run_sale_step(pk, slow, clock.now)
        finally:
            connections.close_all()

    threads = [threading.Thread(target=sell, args=(pk,)) for pk in pks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(25)
    sent = sorted(TradeOrder.objects.filter(order_type="SELL", sent_at__gt=began).values_list("sent_at", flat=True))
    assert len(sent) == len(CODES)
    assert factory.call_throttle().tally()["given_up"] == 0
    assert sent[0] - began < (sent[-1] - began) / 2, "the first waited until all had read"


# --- a slow list -----------------------------------------------------------------------------------------------------


def test_a_stop_needs_no_fresh_list(triggered: int, broker: Broker, simulator: Simulator) -> None:
    Reconciliation.objects.all().delete()
    reconcile.invalidate(clock.now())
    simulator.fault("error_500", path=LIST)
    stops.run_sale_step(triggered, broker, clock.now)
    assert TradeOrder.objects.get(request_id=f"stop:{triggered}:1").sent_at is not None


@pytest.mark.django_db(transaction=True)
def test_whoever_waits_for_anothers_list_waits_outside_the_database_and_not_for_ever(
    service: OrderService, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reconcile, "LOOK_PATIENCE_SECONDS", 0.5)
    reconcile.reconcile(broker, clock.now)
    reading, over = threading.Event(), threading.Event()

    def read_slowly() -> None:
        with advisory_lock("reconcile_now"):
            reading.set()
            over.wait(30)
        connections.close_all()

    thread = threading.Thread(target=read_slowly)
    thread.start()
    try:
        assert reading.wait(10)
        began = time.monotonic()
        with pytest.raises(NotSent):
            reconcile.reconcile_now(broker, lambda: clock.now() + reconcile.LOOK_STOPPED_AFTER / 2)
        assert time.monotonic() - began < 5
        before = Reconciliation.objects.count()
        reconcile.reconcile_now(broker, lambda: clock.now() + 2 * reconcile.LOOK_STOPPED_AFTER)
        assert Reconciliation.objects.count() == before + 1, "the reader has stopped: it is read without it"
    finally:
        over.set()
        thread.join(10)


@pytest.mark.django_db(transaction=True)
def test_many_who_want_the_list_at_once_share_two_readings(
    service: OrderService, broker: Broker, simulator: Simulator
) -> None:
    simulator.fault("delay", path=LIST, seconds=1.0)
    before = Reconciliation.objects.count()

    def look() -> None:
        with suppress(NotSent):
            reconcile.reconcile_now(broker, clock.now)
        connections.close_all()

    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert 1 <= Reconciliation.objects.count() - before <= 3


@pytest.mark.django_db(transaction=True)
def test_readings_of_a_slow_list_leave_threads_to_new_orders_and_are_all_done_in_the_end(
    service: OrderService, simulator: Simulator, workers: Workers
) -> None:
    workers.start("orders", threads=processes.ORDER_THREADS)
    tasks.submit.delay(**ORDER, request_id="before").get(timeout=30)
    simulator.fault("delay", path=LIST, seconds=3.0)
    before = Reconciliation.objects.count()
    wanted = 2 * tasks.MAX_WAITING_THREADS
    for _ in range(wanted):
        tasks.reconcile.delay()
    time.sleep(0.5)
    began = time.monotonic()
    assert tasks.submit.delay(**ORDER | {"price": 68_000}, request_id="beside").get(timeout=30)["outcome"] == "PLACED"
    assert time.monotonic() - began < 2
    gives_up_at = time.monotonic() + 40
    while Reconciliation.objects.count() - before < wanted:
        assert time.monotonic() < gives_up_at, "a reading that found the threads taken was not sent again"
        time.sleep(0.1)


# --- an order that waits for a person --------------------------------------------------------------------------------


def test_an_order_that_no_list_decides_is_looked_up_less_and_less(
    service: OrderService, broker: Broker, simulator: Simulator, after: Callable[[float], None]
) -> None:
    """A line of the list that nobody can parse may be the order: a person is to see to it, for days if need be."""
    simulator.fault("request_lost", path=ORDER_PATH, count=1)
    order = service.place(OrderIntent(SAMSUNG, Side.BUY, 10, price=69_000))
    assert order.state is Status.UNKNOWN
    place_externally(simulator, qty=3)
    simulator.fault("row_unreadable", path=LIST)
    looks = 0
    for _ in range(12 * 10):
        after(5)
        if periodic_sync.is_reconciliation_due(clock.now()):
            with suppress(BrokerError):
                reconcile.reconcile_now(broker, clock.now)
            looks += 1
    order.refresh_from_db()
    assert order.state is Status.UNKNOWN
    assert looks <= 25, "ten minutes of five seconds are 120"
