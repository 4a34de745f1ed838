"""The dead man's alarm and the heartbeat: real tables, real Redis, channels on loopback."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest
import redis
from django.db import connection, connections, transaction

from infra import clock
from infra.heartbeat import beat
from kis import factory, status
from kis.status import SocketState, StreamStatus
from market.models import Stock
from monitor import dead_man, health
from monitor.dead_man import DeadMan
from monitor.heartbeat import Heartbeat
from monitor.watchdog import Watch
from notify.delivery import Channel, TelegramChannel, Undelivered
from notify.models import Message
from notify.telegram import BotAPI
from orders.models import MarketHalt, Reconciliation, StopRule, TradingSwitch
from portfolio.models import AccountSnapshot, Portfolio
from tests.desk.botapi import TOKEN, FakeTelegram, serve

SAMSUNG = "005930"
CHAT = 77
pytestmark = pytest.mark.django_db(transaction=True)


def wait_for(happened: Callable[[], bool], seconds: float = 15.0) -> None:
    gives_up_at = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < gives_up_at, "it did not happen in time"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def well(clock_at: Callable[[str], object], store: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything at work on an ordinary morning; who consumes the queues is told by hand."""
    factory.reset()
    clock_at("2026-11-23 10:00:00")
    monkeypatch.setattr(health.consumers, "queues", lambda: frozenset(health.QUEUES))
    tell_socket(SocketState.CONNECTED)
    Reconciliation.objects.create(at=clock.now(), outcome="WHOLE", seen=1)
    with frames_arrive():
        yield
    factory.reset()


@pytest.fixture
def stop_rule() -> StopRule:
    now = clock.now()
    Portfolio.objects.create(
        stock_code=SAMSUNG, stock_name="삼성전자", quantity=10, avg_price=Decimal(70_000), current_price=70_000,
        counted_on=now.date(), updated_at=now,
    )  # fmt: skip
    return StopRule.objects.create(
        stock_code=SAMSUNG, stock_name="삼성전자", kind="STOP_LOSS", unit="PERCENT", value=Decimal(10),
        state_at=now, armed_at=now, armed_by="kim",
    )  # fmt: skip


class Socket:
    """How the socket is told to be: it always echoes."""

    state = SocketState.CONNECTED
    data_age: float | None = 0.0


def tell_socket(state: SocketState, data_age: float | None = 0.0) -> None:
    Socket.state, Socket.data_age = state, data_age
    is_connected = state is SocketState.CONNECTED
    words = {"frame_age": 0.0, "data_age": data_age, "has_own_fills": is_connected, "has_reference_feed": is_connected}
    status.publish(factory.store(), factory.stream_key("stream"), StreamStatus(state, 1.0, **words))


@contextmanager
def frames_arrive() -> Iterator[None]:
    """Tell again and again how the socket is, as who holds it does."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(0.05):
            tell_socket(Socket.state, Socket.data_age)

    worker = threading.Thread(target=run, daemon=True)
    worker.start()
    try:
        yield
    finally:
        stop.set()
        worker.join(5)


def price_is_asked_for(seconds: float = 0.0, stamped: float = 0.0) -> None:
    """Ask for the price of every stop again and again, at moments that are so many seconds from now."""
    ends_at = time.monotonic() + seconds
    while True:
        StopRule.objects.update(poll_state={"asked_at": clock.now().timestamp() + stamped})
        if time.monotonic() >= ends_at:
            return
        time.sleep(0.05)


def lists_fail(count: int = 2) -> None:
    for number in range(count):
        at = clock.now() - timedelta(seconds=90 - 30 * number)
        Reconciliation.objects.create(at=at, outcome="FAILED", error="no answer")


class Deaf:
    """A channel whose service is down."""

    name = "deaf"

    def send(self, text: str, picture: bytes | None) -> None:
        raise Undelivered("no connection")


@pytest.fixture
def telegram() -> Iterator[FakeTelegram]:
    with serve() as running:
        yield running


@pytest.fixture
def start(telegram: FakeTelegram, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., DeadMan]]:
    """Run a dead man's alarm of half a second over a chat, and over more channels."""
    monkeypatch.setattr(dead_man, "RETRY_SECONDS", 0.1)
    stop, threads = threading.Event(), []
    with httpx.Client(timeout=5, trust_env=False) as http:

        def run(*more: Channel) -> DeadMan:
            ways = [*more, TelegramChannel(BotAPI(telegram.url, TOKEN, http), CHAT)]
            running = DeadMan(ways, clock.now, stop, alarm_seconds=0.6, check_seconds=0.05, recovery_seconds=0.4)
            running.start()
            threads.extend(running.threads)
            return running

        yield run
        stop.set()
        for thread in threads:
            thread.join(10)
            assert not thread.is_alive()


def test_while_prices_are_seen_and_orders_go_nobody_is_told(
    start: Callable[..., DeadMan], telegram: FakeTelegram, stop_rule: StopRule
) -> None:
    TradingSwitch.objects.update_or_create(pk=1, defaults={"state": "HALTED", "changed_at": clock.now()})
    start()
    time.sleep(1.5)
    assert telegram.sent == [], "a halt of our own is no outage"


@pytest.mark.parametrize("cause", ["list", "hanging list", "workers", "socket", "deaf socket"])
def test_an_outage_is_told_once_with_stocks_and_prices_and_when_it_is_over(
    start: Callable[..., DeadMan],
    telegram: FakeTelegram,
    stop_rule: StopRule,
    monkeypatch: pytest.MonkeyPatch,
    cause: str,
) -> None:
    start(Deaf())
    time.sleep(0.3)
    if cause == "list":
        lists_fail()
    elif cause == "hanging list":
        Reconciliation.objects.update(at=clock.now() - timedelta(seconds=100))
    elif cause == "deaf socket":
        tell_socket(SocketState.CONNECTED, 100.0)
    elif cause == "workers":
        monkeypatch.setattr(health.consumers, "queues", lambda: frozenset({"sync"}))
    else:
        tell_socket(SocketState.LOST)
    wait_for(lambda: len(telegram.sent) == 1)
    assert "삼성전자 (005930)" in telegram.sent[0].text
    assert "63,000" in telegram.sent[0].text
    time.sleep(0.7)
    assert len(telegram.sent) == 1
    Reconciliation.objects.create(at=clock.now(), outcome="WHOLE", seen=1)
    monkeypatch.setattr(health.consumers, "queues", lambda: frozenset(health.QUEUES))
    tell_socket(SocketState.CONNECTED)
    wait_for(lambda: len(telegram.sent) == 2)
    assert "63,000" not in telegram.sent[1].text
    wait_for(lambda: Message.objects.filter(channel="desk").count() == 2)
    time.sleep(0.7)
    assert len(telegram.sent) == 2


def test_one_failed_list_is_no_outage(
    start: Callable[..., DeadMan], telegram: FakeTelegram, stop_rule: StopRule
) -> None:
    lists_fail(1)
    start()
    time.sleep(1.5)
    assert telegram.sent == []


def test_a_lost_socket_is_no_outage_while_prices_are_asked_for(
    start: Callable[..., DeadMan], telegram: FakeTelegram, stop_rule: StopRule
) -> None:
    tell_socket(SocketState.LOST)
    start()
    price_is_asked_for(1.5)
    assert telegram.sent == []


@pytest.mark.parametrize("stamped", [-60.0, 60.0])
def test_a_price_of_long_ago_or_of_time_to_come_is_none(
    start: Callable[..., DeadMan], telegram: FakeTelegram, stop_rule: StopRule, stamped: float
) -> None:
    tell_socket(SocketState.LOST)
    start()
    price_is_asked_for(1.5, stamped)
    assert len(telegram.sent) == 1
    price_is_asked_for(1.5)
    assert len(telegram.sent) == 2


def is_asked(minutes_ago: float, pause: float = 0.0) -> None:
    """Let the broker have told the price of every stop's stock, and the next question follow after `pause` seconds."""
    at = clock.now().timestamp() - 60 * minutes_ago
    StopRule.objects.update(poll_state={"asked_at": at, "pause": pause})


@pytest.mark.parametrize(
    ("at", "is_told"), [("10:00", True), ("08:10", False), ("16:00", False), ("16:00 and the question failed", True)]
)
def test_a_quiet_market_outside_regular_hours_is_no_outage_while_questions_are_answered(
    start: Callable[..., DeadMan],
    telegram: FakeTelegram,
    stop_rule: StopRule,
    clock_at: Callable[[str], object],
    at: str,
    is_told: bool,
) -> None:
    clock_at(f"2026-11-23 {at[:5]}:00")
    Reconciliation.objects.create(at=clock.now(), outcome="WHOLE", seen=1)
    Stock.objects.create(
        code=SAMSUNG, name="x", board="KOSPI", instrument="STOCK", trades_on_nxt=True, synced_at=clock.now()
    )
    tell_socket(SocketState.CONNECTED, 1000.0)
    is_asked(2, pause=100.0 if "failed" in at else 160.0)
    start()
    time.sleep(1.5)
    assert bool(telegram.sent) is is_told


def test_a_short_break_of_the_line_in_a_quiet_market_is_no_outage(
    start: Callable[..., DeadMan], telegram: FakeTelegram, stop_rule: StopRule, clock_at: Callable[[str], object]
) -> None:
    clock_at("2026-11-23 16:00:00")
    Reconciliation.objects.create(at=clock.now(), outcome="WHOLE", seen=1)
    Stock.objects.create(
        code=SAMSUNG, name="x", board="KOSPI", instrument="STOCK", trades_on_nxt=True, synced_at=clock.now()
    )
    tell_socket(SocketState.CONNECTED, 1000.0)
    is_asked(2, pause=160.0)
    start()
    time.sleep(0.8)
    tell_socket(SocketState.LOST)
    time.sleep(0.3)
    tell_socket(SocketState.CONNECTED, 1000.0)
    time.sleep(0.8)
    assert telegram.sent == []


def test_in_a_circuit_breaker_no_price_is_missed_while_questions_are_answered(
    start: Callable[..., DeadMan], telegram: FakeTelegram, stop_rule: StopRule
) -> None:
    MarketHalt.objects.create(kind="CIRCUIT_BREAKER", began_at=clock.now())
    tell_socket(SocketState.CONNECTED, 1000.0)
    is_asked(2, pause=160.0)
    start()
    time.sleep(1.5)
    assert telegram.sent == []


def test_a_session_begins_without_an_alarm_for_the_silence_before_it(
    start: Callable[..., DeadMan], telegram: FakeTelegram, stop_rule: StopRule, clock_at: Callable[[str], object]
) -> None:
    clock_at("2026-11-23 08:59:59")
    Reconciliation.objects.create(at=clock.now(), outcome="WHOLE", seen=1)
    tell_socket(SocketState.CONNECTED, 1000.0)
    start()
    time.sleep(0.8)
    clock_at("2026-11-23 09:00:01")
    time.sleep(0.3)
    assert telegram.sent == []
    wait_for(lambda: len(telegram.sent) == 1)


def test_in_an_auction_no_price_is_missed(
    start: Callable[..., DeadMan], telegram: FakeTelegram, stop_rule: StopRule, clock_at: Callable[[str], object]
) -> None:
    clock_at("2026-11-23 08:45:00")
    Reconciliation.objects.create(at=clock.now(), outcome="WHOLE", seen=1)
    tell_socket(SocketState.LOST)
    start()
    time.sleep(1.5)
    assert telegram.sent == []


@pytest.mark.parametrize("state", ["HELD_EXTERNALLY", "TRIGGERED"])
def test_a_stop_that_needs_no_price_misses_none(
    start: Callable[..., DeadMan], telegram: FakeTelegram, stop_rule: StopRule, state: str
) -> None:
    StopRule.objects.update(state=state)
    tell_socket(SocketState.LOST)
    start()
    time.sleep(1.5)
    assert telegram.sent == []


def test_without_a_stop_or_a_market_nobody_is_told(
    start: Callable[..., DeadMan], telegram: FakeTelegram, clock_at: Callable[[str], object]
) -> None:
    lists_fail()
    start()
    time.sleep(1.2)
    assert telegram.sent == []


@pytest.mark.parametrize(
    ("at", "on_nxt", "sources", "is_told"),
    [
        ("07:00", True, "", False),
        ("08:10", True, "", True),
        ("08:10", True, "KRX", False),
        ("08:10", False, "", False),
        ("15:45", False, "", False),
        ("20:30", True, "", False),
    ],
)
def test_a_venue_counts_that_may_trigger_the_stop(
    start: Callable[..., DeadMan],
    telegram: FakeTelegram,
    stop_rule: StopRule,
    clock_at: Callable[[str], object],
    at: str,
    on_nxt: bool,
    sources: str,
    is_told: bool,
) -> None:
    clock_at(f"2026-11-23 {at}:00")
    Stock.objects.create(
        code=SAMSUNG, name="x", board="KOSPI", instrument="STOCK", trades_on_nxt=on_nxt, synced_at=clock.now()
    )
    StopRule.objects.update(sources=sources)
    lists_fail()
    start()
    time.sleep(1.5)
    assert bool(telegram.sent) is is_told


@contextmanager
def database_away() -> Iterator[None]:
    """End every connection to the database, and let none be made."""
    known = connections["default"].settings_dict
    host = known["HOST"]
    with connection.cursor() as cursor:
        known["HOST"] = "/nowhere"
        cursor.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    try:
        yield
    finally:
        known["HOST"] = host


def test_without_a_database_the_last_known_stops_are_told(
    start: Callable[..., DeadMan], telegram: FakeTelegram, stop_rule: StopRule
) -> None:
    start()
    time.sleep(0.5)
    with database_away():
        wait_for(lambda: len(telegram.sent) == 1)
        assert "63,000" in telegram.sent[0].text
    wait_for(lambda: len(telegram.sent) == 2)
    wait_for(lambda: Message.objects.filter(channel="desk").count() == 2)


def test_a_database_that_hangs_is_told_from_memory(
    start: Callable[..., DeadMan], telegram: FakeTelegram, stop_rule: StopRule
) -> None:
    start()
    time.sleep(0.5)
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("LOCK TABLE stop_rules IN ACCESS EXCLUSIVE MODE")
        wait_for(lambda: len(telegram.sent) == 1)
        assert "63,000" in telegram.sent[0].text
    wait_for(lambda: len(telegram.sent) == 2)


# --- the heartbeat


class Service:
    """An outside service that counts who asks, and fails on demand."""

    def __init__(self) -> None:
        self.paths: list[str] = []
        self.hangs = threading.Event()
        self.code = 200
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.paths.append(self.path)
                if service.hangs.is_set():
                    time.sleep(1.0)
                self.send_response(service.code)
                self.end_headers()

            def log_message(self, *words: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/ping/planted-token"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@pytest.fixture
def service() -> Iterator[Service]:
    running = Service()
    yield running
    running.close()


@pytest.fixture
def heartbeat(service: Service) -> Iterator[Heartbeat]:
    stop = threading.Event()
    running = Heartbeat(service.url, stop, every_seconds=0.1)
    running.start()
    yield running
    stop.set()
    running.thread.join(10)
    assert not running.thread.is_alive()


def test_the_heart_beats_while_all_is_well_and_stops_when_it_is_not(service: Service, heartbeat: Heartbeat) -> None:
    time.sleep(0.3)
    assert service.paths == [], "nobody said yet that all is well"
    heartbeat.note(True)
    wait_for(lambda: len(service.paths) >= 3)
    assert set(service.paths) == {"/ping/planted-token"}
    heartbeat.note(False)
    time.sleep(0.2)
    count = len(service.paths)
    time.sleep(0.4)
    assert len(service.paths) == count


def test_a_service_that_fails_or_hangs_ends_nothing_and_shows_no_token(
    service: Service, heartbeat: Heartbeat, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.code = 404
    heartbeat.note(True)
    wait_for(lambda: len(service.paths) >= 3)
    service.code = 200
    service.hangs.set()
    began = time.monotonic()
    heartbeat.note(True)
    assert time.monotonic() - began < 0.1, "who notes does not wait for the service"
    service.hangs.clear()
    count = len(service.paths)
    wait_for(lambda: len(service.paths) >= count + 3)
    assert "HTTP 404" in caplog.text
    assert caplog.text.count("HTTP 404") == 1
    assert "planted-token" not in caplog.text


def test_nobody_there_is_told_once_and_shows_no_token(caplog: pytest.LogCaptureFixture) -> None:
    stop = threading.Event()
    running = Heartbeat("http://127.0.0.1:1/planted-token", stop, every_seconds=0.05)
    running.note(True)
    running.start()
    wait_for(lambda: "ConnectError" in caplog.text)
    time.sleep(0.3)
    stop.set()
    running.thread.join(10)
    assert caplog.text.count("ConnectError") == 1
    assert "planted-token" not in caplog.text


def test_the_watch_notes_whether_all_checks_are_well(store: redis.Redis) -> None:
    noted: list[bool] = []
    for name in ("beat", "notifier"):
        beat(store, factory.stream_key(f"pulse:{name}"))
    AccountSnapshot.objects.create(
        timestamp=clock.now(), deposit=1, deposit_d1=1, deposit_d2=1, valuation=1, total_asset=1, net_profit_today=0
    )
    Watch([], clock.now, note=noted.append).turn()
    tell_socket(SocketState.LOST)
    Watch([], clock.now, note=noted.append).turn()
    assert noted == [True, False]
