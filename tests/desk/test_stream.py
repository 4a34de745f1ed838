"""The stream worker's errand over a real socket, into a real database."""

import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import pytest
import redis
from django.db import connections

from aegis.broker import Broker, OrderRequest
from aegis.lifecycle import Status
from aegis.terms import Market, OrderKind, Side
from infra import clock
from infra.lease import Lease
from kis.codec import Data
from kis.environment import Credentials
from kis.factory import stream_key, stream_status
from kis.status import SocketState
from kis.stream import Stream
from kis.subscriptions import Subscriptions, Topic
from market import reference_data
from market.models import WatchedStock
from orders import reconcile
from orders.models import RawNotice, TradeExecution, TradeOrder
from orders.service import OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from portfolio.models import Portfolio
from rehearsal.ledger_check import compare_with_ledger
from simulator.api.server import Simulator
from stream import worker as desk_stream

SAMSUNG = "005930"
ACCOUNT = "50000000-01"
NOTICES = Topic("H0STCNI0", "rehearsal")


def wait_for(happened: Callable[[], bool], seconds: float = 10.0) -> None:
    gives_up_at = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < gives_up_at, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the hints the stream gives to workers, which do not run here."""
    counts = {"look": 0, "reconcile": 0}
    for name in counts:
        hint = getattr(desk_stream, name)
        monkeypatch.setattr(hint, "delay", lambda name=name: counts.update({name: counts[name] + 1}))
    return counts


@pytest.fixture
def term(broker: Broker) -> desk_stream.LeaderSession:
    return desk_stream.LeaderSession(lambda: True)


@pytest.fixture
def stream(
    transactional_db: None, broker: Broker, simulator: Simulator, asked: dict[str, int], term: desk_stream.LeaderSession
) -> Iterator[Stream]:
    """The stream as the worker makes it, connected and registered."""
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    simulator.set_price(SAMSUNG, 70_000, freeze=True)
    running, stop = term.stream, threading.Event()

    def run() -> None:
        term.run(stop)
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    wait_for(lambda: NOTICES in running.held)
    yield running
    stop.set()
    thread.join(10)
    assert not thread.is_alive()


def bought(broker: Broker, **words: object) -> TradeOrder:
    wanted = {"code": SAMSUNG, "side": Side.BUY, "qty": 10, "strategy": "buy_urgent", **words}
    return OrderService(broker, clock.now).place(OrderIntent(**wanted))  # type: ignore[arg-type]


def test_a_fill_is_in_the_tables_before_anybody_asks(stream: Stream, broker: Broker, simulator: Simulator) -> None:
    order = bought(broker)
    wait_for(lambda: TradeOrder.objects.get(pk=order.pk).state is Status.FILLED)
    execution = TradeExecution.objects.get()
    assert (execution.source, execution.exec_qty) == (TradeExecution.Source.NOTICE, 10)
    assert Portfolio.objects.get().quantity == 10
    KISFetcher(broker, clock.now).sync_portfolio()
    assert str(compare_with_ledger(simulator.ledger(ACCOUNT))).startswith(
        "LEDGER EQUAL orders=1 executions=1 holdings=1"
    )


def test_every_part_of_a_fill_is_counted(stream: Stream, broker: Broker, simulator: Simulator) -> None:
    cheap = "004090"
    simulator.set_price(cheap, 16_000, freeze=True)
    best = broker.book(cheap, Market.KRX).asks[0]
    order = bought(broker, code=cheap, qty=best.qty + 25)
    simulator.set_price(cheap, 15_900, freeze=True)
    wait_for(lambda: TradeOrder.objects.get(pk=order.pk).state is Status.FILLED)
    assert TradeExecution.objects.count() >= 2
    KISFetcher(broker, clock.now).sync_portfolio()
    assert str(compare_with_ledger(simulator.ledger(ACCOUNT))).startswith("LEDGER EQUAL")


def test_an_order_by_hand_is_heard_of_and_the_broker_is_asked(
    stream: Stream, broker: Broker, asked: dict[str, int]
) -> None:
    broker.place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.LIMIT, 7, 70_100))
    wait_for(lambda: RawNotice.objects.filter(state=RawNotice.State.WAITING).count() >= 2)
    assert asked["look"] >= 1


def test_held_stocks_are_listened_to(stream: Stream, broker: Broker) -> None:
    bought(broker)
    wait_for(lambda: Topic("H0STCNT0", SAMSUNG) in stream.held)


def test_whenever_fills_begin_to_be_heard_the_broker_is_asked_what_was_missed(
    term: desk_stream.LeaderSession, stream: Stream, broker: Broker, simulator: Simulator, asked: dict[str, int]
) -> None:
    wait_for(lambda: asked["reconcile"] == 1)
    simulator.drop_sockets()
    wait_for(lambda: stream.counters.connections == 2 and NOTICES in stream.held)
    wait_for(lambda: asked["reconcile"] == 2)
    stream.subscriptions.resubscribe(NOTICES)  # as when its keys changed
    wait_for(lambda: asked["reconcile"] == 3)
    assert NOTICES in stream.held


def test_a_fill_before_the_registration_stood_is_asked_for(
    transactional_db: None, broker: Broker, simulator: Simulator, asked: dict[str, int], term: desk_stream.LeaderSession
) -> None:
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    simulator.set_price(SAMSUNG, 70_000, freeze=True)
    simulator.fault("subscription_refused", tr_id="H0STCNI0", count=1, msg_cd="OPSP0007", msg1="SUBSCRIBE ERROR")
    running, stop = term.stream, threading.Event()
    thread = threading.Thread(target=lambda: (term.run(stop), connections.close_all()))
    thread.start()
    try:
        wait_for(lambda: bool(running.subscriptions.refused))
        order = bought(broker)
        before = asked["reconcile"]
        wait_for(lambda: NOTICES in running.held, 30)
        wait_for(lambda: asked["reconcile"] > before)
    finally:
        stop.set()
        thread.join(10)
    assert TradeOrder.objects.get(pk=order.pk).filled_qty == 0, "no notice came of it"


def test_a_fault_in_one_frame_does_not_deafen_the_stream(
    term: desk_stream.LeaderSession, stream: Stream, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = term.dispatch.handle
    broken = threading.Event()

    def fails_once(data: Data, arrived: float) -> None:
        if not broken.is_set():
            broken.set()
            raise RuntimeError("a bug")
        handle(data, arrived)

    monkeypatch.setattr(term.dispatch, "handle", fails_once)
    order = bought(broker)
    wait_for(lambda: stream.counters.failures == 1)
    second = bought(broker)
    wait_for(lambda: TradeOrder.objects.get(pk=second.pk).state is Status.FILLED)
    assert order.pk != second.pk


def test_a_notice_is_dated_by_the_markets_day(stream: Stream, broker: Broker) -> None:
    bought(broker)
    wait_for(lambda: RawNotice.objects.exists())
    assert RawNotice.objects.first().order_date == datetime(2026, 11, 23, tzinfo=clock.KST).date()


def test_a_holding_that_finds_no_room_is_named_and_a_watched_stock_is_not(
    transactional_db: None, broker: Broker, term: desk_stream.LeaderSession, store: redis.Redis
) -> None:
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    now = clock.now()
    Portfolio.objects.create(
        stock_code="000660", stock_name="SK하이닉스", quantity=1, avg_price=1, counted_on=now.date(), updated_at=now
    )
    WatchedStock.objects.create(stock_code="035720")
    term.stream.subscriptions = Subscriptions(limit=1)
    term.dispatch.refresh_topics()
    term.stream.subscriptions.set_wanted(term.dispatch.wanted())
    told = term.status(Lease(store, "socket", 1.0))
    assert {"H0STCNT0:000660", "H0STCNT0:035720"} <= set(told.left_out)
    assert told.missing_vital == ("H0STCNT0:000660",)


def test_everybody_can_read_how_the_socket_is(transactional_db: None, broker: Broker, asked: dict[str, int]) -> None:
    stop = threading.Event()

    def run() -> None:
        desk_stream.run_as_leader(stop)
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_for(lambda: stream_status().is_alive, 20)
        seen = stream_status()
        assert (seen.state, seen.fence, seen.connections) == (SocketState.CONNECTED, 1, 1)
        # whose account it is does not show
        assert "H0STCNI0:***" in seen.held
        assert "rehearsal" not in str(seen)
        wait_for(lambda: stream_status().has_reference_feed, 20)
        broker.place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.MARKET, 1, 0))
        wait_for(lambda: stream_status().data_age is not None, 20)
    finally:
        stop.set()
        thread.join(20)
    assert stream_status().state is SocketState.STOPPED


@pytest.fixture
def second_key(settings: Any) -> Credentials:
    first = settings.KIS_CREDENTIALS
    further = Credentials("second", "second secret", first.account, first.hts_id)
    settings.KIS_MARKET_DATA_CREDENTIALS = (further,)
    return further


def test_a_further_key_has_a_lease_of_its_own_and_waits_for_it(
    transactional_db: None, broker: Broker, second_key: Credentials, asked: dict[str, int], store: redis.Redis
) -> None:
    other = Lease(store, stream_key("socket", second_key), 6.0)
    assert other.take(), "another AEGIS holds the second key"
    term, stop = desk_stream.LeaderSession(lambda: True), threading.Event()
    thread = threading.Thread(target=lambda: (term.run(stop), connections.close_all()))
    thread.start()
    try:
        wait_for(lambda: NOTICES in term.stream.held)
        assert term.streams.members[1].state is SocketState.CONNECTING
        other.release()
        wait_for(lambda: term.streams.members[1].state is SocketState.CONNECTED)
        told = term.status(Lease(store, "socket", 1.0))
        assert [(key.number, key.state, key.has_own_fills) for key in told.keys] == [
            (1, SocketState.CONNECTED, True),
            (2, SocketState.CONNECTED, False),
        ]
    finally:
        stop.set()
        thread.join(10)
    assert Lease(store, stream_key("socket", second_key), 6.0).take(), "the lease was given up"


def test_while_the_fill_notice_moves_the_list_counts_and_each_fill_counts_once(
    transactional_db: None,
    broker: Broker,
    second_key: Credentials,
    asked: dict[str, int],
    simulator: Simulator,
    store: redis.Redis,
) -> None:
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    simulator.set_price(SAMSUNG, 70_000, freeze=True)
    term, stop = desk_stream.LeaderSession(lambda: True), threading.Event()
    thread = threading.Thread(target=lambda: (term.run(stop), connections.close_all()))
    thread.start()
    try:
        wait_for(lambda: NOTICES in term.stream.held)
        first = bought(broker)
        wait_for(lambda: TradeOrder.objects.get(pk=first.pk).state is Status.FILLED)
        before = asked["reconcile"]
        simulator.command("POST", "/simulator/keys", {"key": "rehearsal", "occupied": True})
        second = bought(broker)  # nobody hears its notice
        wait_for(lambda: NOTICES in term.streams.members[1].held)
        wait_for(lambda: asked["reconcile"] > before)
        assert term.status(Lease(store, "socket", 1.0)).is_alive
        reconcile.reconcile(broker, clock.now)
        third = bought(broker)
        wait_for(lambda: TradeOrder.objects.get(pk=third.pk).state is Status.FILLED)
    finally:
        stop.set()
        thread.join(10)
    assert TradeOrder.objects.get(pk=second.pk).state is Status.FILLED
    assert TradeExecution.objects.count() == 3
    KISFetcher(broker, clock.now).sync_portfolio()
    assert str(compare_with_ledger(simulator.ledger(ACCOUNT))).startswith("LEDGER EQUAL orders=3 executions=3")
