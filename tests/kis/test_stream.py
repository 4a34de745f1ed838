"""The stream on real sockets, against the simulator and its faults."""

import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import redis

from aegis.broker import OrderRequest
from aegis.terms import Market, OrderKind, Side
from kis import factory, liveness, realtime, stream
from kis.codec import Data
from kis.connection_limiter import CEILINGS
from kis.status import SocketState
from kis.stream import Stream
from kis.subscriptions import Topic
from simulator.api.server import Simulator
from simulator.feed import hub
from simulator.feed.session import NoticeCipher

SAMSUNG = "005930"
NOTICES, TRADES, BOOK = Topic("H0STCNI0", "rehearsal"), Topic("H0STCNT0", SAMSUNG), Topic("H0STASP0", SAMSUNG)


class Ear:
    """A listener that keeps what it hears."""

    def __init__(self, *topics: Topic) -> None:
        self.topics: Sequence[Topic] = topics
        self.seen: list[Data] = []
        self.counts = {"connected": 0, "lost": 0, "on_undecodable_notice": 0}
        self.speaks: Mapping[Topic, str] = {}
        self.registrations: list[Topic] = []

    def wanted(self) -> Sequence[Topic]:
        return self.topics

    def expected_feeds(self) -> Mapping[Topic, str]:
        return self.speaks

    def handle(self, data: Data, arrived: float) -> None:
        assert arrived <= time.perf_counter()
        realtime.read_records(data)
        self.seen.append(data)

    def on_connected(self) -> None:
        self.counts["connected"] += 1

    def on_registered(self, topic: Topic) -> None:
        self.registrations.append(topic)

    def on_lost(self) -> None:
        self.counts["lost"] += 1

    def on_undecodable_notice(self) -> None:
        self.counts["on_undecodable_notice"] += 1

    def heard(self, tr_id: str) -> int:
        return sum(data.tr_id == tr_id for data in self.seen)


def wait_for(happened: Callable[[], bool], seconds: float = 20.0) -> None:
    gives_up_at = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < gives_up_at, "it did not happen in time"
        time.sleep(0.01)


@pytest.fixture
def listen(simulator: Simulator, store: redis.Redis) -> Iterator[Callable[[Ear], Stream]]:
    """Run a stream for a listener; it ends with the test."""
    stop, threads = threading.Event(), []

    def start(ear: Ear, known_rates: Mapping[Topic, float] | None = None) -> Stream:
        running = Stream(
            f"{simulator.ws_url}/tryitout", gate=factory.connection_limiter(), listener=ear, known_rates=known_rates
        )
        threads.append(threading.Thread(target=running.run, args=(stop,)))
        threads[-1].start()
        wait_for(lambda: running.held >= set(ear.topics))
        return running

    yield start
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let pauses pass quickly; what is counted is not."""
    monkeypatch.setattr(stream, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(stream, "LONGEST_PAUSE_SECONDS", 0.2)
    monkeypatch.setattr(stream, "KEY_IN_USE_PAUSE_SECONDS", 0.3)


def buy(simulator: Simulator, qty: int = 1) -> None:
    """Buy at market over the simulator's own wire, as the account of the rehearsal."""
    factory.broker().place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.MARKET, qty, 0))


def test_what_is_wanted_is_held_and_heard(simulator: Simulator, listen: Any) -> None:
    ear = Ear(NOTICES, TRADES, BOOK)
    running = listen(ear)
    assert (running.state, ear.counts["connected"]) == (SocketState.CONNECTED, 1)
    buy(simulator)
    wait_for(lambda: ear.heard("H0STCNI0") >= 2 and ear.heard("H0STCNT0") >= 1 and ear.heard("H0STASP0") >= 1)
    assert running.counters.bad_frames == 0


def test_no_proxy_of_the_environment_is_between_us_and_the_broker(
    simulator: Simulator, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens there
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{taken.getsockname()[1]}")
        for name in ("no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        assert listen(Ear(NOTICES)).state is SocketState.CONNECTED


def test_wishes_may_change_while_it_runs(simulator: Simulator, listen: Any) -> None:
    ear = Ear(NOTICES, TRADES)
    running = listen(ear)
    ear.topics = (NOTICES, BOOK)
    wait_for(lambda: running.held == {NOTICES, BOOK})


def test_a_deaf_connection_is_ended_though_it_echoes(
    simulator: Simulator, listen: Any, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(liveness, "FEW_SECONDS", 1.0)
    monkeypatch.setattr(liveness, "MISSED_FRAMES", 2)
    ear = Ear(NOTICES, TRADES)
    ear.speaks = {TRADES: "REGULAR"}
    running = listen(ear, known_rates={TRADES: 10.0})
    simulator.fault("stall")
    wait_for(lambda: running.counters.dead_connections >= 1 and running.counters.connections >= 2)
    simulator.clear_faults()
    wait_for(lambda: NOTICES in running.held)
    assert ear.counts["connected"] >= 2
    assert ear.counts["lost"] >= 1


def test_a_quiet_market_alarms_nobody(simulator: Simulator, listen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(liveness, "FEW_SECONDS", 0.2)
    monkeypatch.setattr(liveness, "MISSED_FRAMES", 0)
    looks = []
    ear = Ear(NOTICES, TRADES)
    running = listen(ear, known_rates={TRADES: 10.0})
    monkeypatch.setattr(ear, "expected_feeds", lambda: looks.append(1) or {})
    wait_for(lambda: len(looks) >= 5)
    assert (running.counters.dead_connections, running.counters.connections) == (0, 1)


def test_a_refused_approval_key_is_replaced_by_a_new_one(simulator: Simulator, listen: Any, hasty: None) -> None:
    simulator.fault("approval_refused", count=1)
    ear = Ear(NOTICES)
    running = listen(ear)
    assert running.counters.connections == 2


def test_a_key_in_use_is_waited_out(simulator: Simulator, listen: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "KEY_IN_USE_PAUSE_SECONDS", 2.0)
    simulator.fault("occupied", count=1)
    began = time.monotonic()
    running = listen(Ear(NOTICES))
    assert time.monotonic() - began >= 2.0
    assert running.counters.connections == 2


def test_a_wrong_hts_id_is_told_and_not_hammered(simulator: Simulator, store: redis.Redis) -> None:
    stop = threading.Event()
    running = Stream(
        f"{simulator.ws_url}/tryitout", gate=factory.connection_limiter(), listener=Ear(Topic("H0STCNI0", " "))
    )
    thread = threading.Thread(target=running.run, args=(stop,))
    thread.start()
    try:
        wait_for(lambda: running.state is SocketState.LOST)
        assert "KIS_HTS_ID" in running.lost_reason
        assert running.next_try_at is not None
        assert running.next_try_at - time.monotonic() > 30
    finally:
        stop.set()
        thread.join(10)


def test_a_line_that_is_cut_again_and_again_stays_below_the_ceiling(
    simulator: Simulator, listen: Any, hasty: None
) -> None:
    ear = Ear(NOTICES)
    running = listen(ear)
    simulator.fault("flapping", every=0.1)
    wait_for(lambda: running.state is SocketState.LOST and "too many connections" in running.lost_reason, 60)
    simulator.clear_faults()
    opened = [e for e in simulator.events() if e["event"] == "session" and e["state"] == "admitted"]
    assert len(opened) <= CEILINGS[0][1]
    assert running.counters.connections <= CEILINGS[0][1]


@pytest.mark.parametrize("fault", ["notice_wrong_key", "notice_garbled"])
def test_a_notice_nobody_can_read_asks_for_new_keys_and_has_the_broker_asked(
    simulator: Simulator, listen: Any, fault: str
) -> None:
    ear = Ear(NOTICES)
    running = listen(ear)
    simulator.fault(fault, count=1)
    buy(simulator)
    wait_for(lambda: ear.counts["on_undecodable_notice"] >= 1)
    wait_for(lambda: registrations(simulator, NOTICES) >= 2)
    wait_for(lambda: NOTICES in running.held)
    before = ear.heard("H0STCNI0")
    buy(simulator)
    wait_for(lambda: ear.heard("H0STCNI0") >= before + 2)
    assert running.counters.connections == 1


def registrations(simulator: Simulator, topic: Topic) -> int:
    return sum(
        e["event"] == "registration" and e["tr_id"] == topic.tr_id and e["state"] == "registered"
        for e in simulator.events()
    )


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("frame_count", {"count_said": "xx"}),
        ("frame_cut", {}),
        ("frame_bytes", {}),
        ("frame_tr", {"tr": "H0NONSENSE"}),
        ("frame_nulls", {"columns": [2]}),
        ("frame_columns", {"at": 2, "value": "new"}),
        ("frame_giant", {"times": 999}),
    ],
)
def test_no_broken_frame_ends_the_stream(simulator: Simulator, listen: Any, fault: str, words: dict[str, Any]) -> None:
    ear = Ear(NOTICES, TRADES)
    running = listen(ear)
    simulator.fault(fault, tr_id="H0STCNT0", count=1, **words)
    buy(simulator)
    wait_for(lambda: ear.heard("H0STCNI0") >= 2)
    buy(simulator)
    wait_for(lambda: ear.heard("H0STCNT0") >= 1)
    assert running.counters.connections == 1


def test_the_servers_ping_is_echoed_and_keeps_the_line(
    simulator: Simulator, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "FIRST_PING_SECONDS", 0.05)
    monkeypatch.setattr(hub, "PING_SECONDS", 0.05)
    running = listen(Ear(NOTICES))
    # the simulator hangs up on who leaves four of them without an answer
    wait_for(lambda: running.counters.frames >= 20)
    assert running.counters.connections == 1


class Line:
    """Stands for the library's socket once the handshake is done."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.sent: list[str] = []

    def send(self, text: str) -> None:
        self.sent.append(text)


class OpenGate:
    def acquire(self) -> float:
        return 0.0

    def approval_key(self) -> str:
        return "key"

    def invalidate(self, value: str) -> None: ...


def packed(text: str) -> bytes:
    payload = text.encode()
    return struct.pack("!BBH", 0x81, 126, len(payload)) + payload


def test_our_own_fills_do_not_wait_behind_ticks() -> None:
    ear, cipherer = Ear(NOTICES, TRADES), NoticeCipher.fresh()
    tick = f"0|H0STCNT0|001|{SAMSUNG}^100000^70000" + "^1" * 44
    output = {"iv": cipherer.iv, "key": cipherer.key}
    key = {
        "header": {"tr_id": "H0STCNI0", "tr_key": "rehearsal", "encrypt": "Y"},
        "body": {"rt_cd": "0", "msg_cd": "OPSP0000", "msg1": "SUBSCRIBE SUCCESS", "output": output},
    }
    told = "me^5000000001^0000000001^^02^0^00^0^005930^0000000001^000070000^100000^0^2^2^06010^000000001^N^1Y^10^^S^"
    notice = f"1|H0STCNI0|001|{cipherer.encrypt(told)}"
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = stream._Connection(Stream("", gate=OpenGate(), listener=ear), Line(ours), "key")  # type: ignore[arg-type]
        theirs.sendall(b"".join(map(packed, [tick, tick, json.dumps(key), tick, notice])) + b"\x88\x00")
        with pytest.raises(stream.Lost, match="closed"):
            connection.turn()
    assert [data.tr_id for data in ear.seen] == ["H0STCNI0", "H0STCNT0", "H0STCNT0", "H0STCNT0"]


def test_an_echo_and_a_new_connection_are_no_market_data(
    simulator: Simulator, listen: Any, hasty: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hub, "FIRST_PING_SECONDS", 0.2)
    monkeypatch.setattr(hub, "PING_SECONDS", 0.2)
    ear = Ear(NOTICES)
    running = listen(ear)
    buy(simulator)
    wait_for(lambda: ear.heard(NOTICES.tr_id) > 0)
    frames, connections = running.counters.frames, running.counters.connections
    wait_for(lambda: running.counters.frames > frames + 3)
    simulator.fault("drop_sockets")
    wait_for(lambda: running.counters.connections > connections)
    wait_for(lambda: running.held >= set(ear.topics))
    time.sleep(stream.CHECK_SECONDS * 2)
    assert running.counters.last_data_at == 0.0
    ear.topics = [NOTICES, TRADES]
    wait_for(lambda: running.held >= set(ear.topics))
    buy(simulator)
    wait_for(lambda: ear.heard(TRADES.tr_id) > 0)
    wait_for(lambda: running.counters.last_data_at > time.monotonic() - 5)
