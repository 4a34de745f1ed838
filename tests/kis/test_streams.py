"""Several app keys on real sockets: what each carries, and what moves when one goes."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from aegis.broker import OrderRequest
from aegis.terms import Market, OrderKind, Side
from kis import factory, stream
from kis.environment import Credentials
from kis.status import SocketState
from kis.streams import Streams
from kis.subscriptions import LIMIT, Topic
from simulator.api.server import Simulator
from simulator.exchange.listings import STOCKS
from tests.kis.test_stream import Ear, wait_for

NOTICES = Topic("H0STCNI0", "rehearsal")
SAMSUNG = "005930"
CODES = sorted(STOCKS, key=lambda code: code != SAMSUNG)
KEYS = ("rehearsal", "second", "third")


def trades(count: int) -> list[Topic]:
    return [Topic("H0STCNT0", code) for code in CODES[:count]]


def many(count: int) -> list[Topic]:
    """Return our fills and so many feeds that follow."""
    on_nxt = [code for code in CODES if STOCKS[code].on_nxt]
    feeds = [*trades(len(CODES)), *(Topic("H0STASP0", code) for code in CODES)]
    feeds += [Topic(tr_id, code) for tr_id in ("H0NXCNT0", "H0UNCNT0") for code in on_nxt]
    assert len(feeds) >= count
    return [NOTICES, *feeds][:count]


@pytest.fixture
def keys(settings: Any) -> list[Credentials]:
    first = settings.KIS_CREDENTIALS
    further = [Credentials(name, f"{name} secret", first.account, first.hts_id) for name in KEYS[1:]]
    settings.KIS_MARKET_DATA_CREDENTIALS = tuple(further)
    return [first, *further]


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(stream, "LONGEST_PAUSE_SECONDS", 1.0)
    monkeypatch.setattr(stream, "PACE_SECONDS", 0.02)


@pytest.fixture
def listen(
    simulator: Simulator, store: redis.Redis, keys: list[Credentials], hasty: None
) -> Iterator[Callable[[Ear], Streams]]:
    """Run the streams of three keys for a listener; they end with the test."""
    stop, threads = threading.Event(), []

    def start(ear: Ear) -> Streams:
        gates = [factory.connection_limiter(known) for known in keys]
        streams = Streams(f"{simulator.ws_url}/tryitout", gates=gates, listener=ear, move_seconds=0.5)
        threads.extend(threading.Thread(target=each.run, args=(stop,)) for each in streams.members)
        for thread in threads:
            thread.start()
        return streams

    yield start
    stop.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def carrier(streams: Streams, topic: Topic) -> list[int]:
    return [number for number, each in enumerate(streams.members) if topic in each.held]


def admitted(simulator: Simulator) -> int:
    return len({e["key"] for e in simulator.events() if e["event"] == "session" and e["state"] == "admitted"})


def holds(streams: Streams, count: int) -> Callable[[], bool]:
    return lambda: len(streams.held) == count


def test_three_keys_hold_what_one_has_no_room_for(simulator: Simulator, listen: Any) -> None:
    wanted = [NOTICES, *trades(60)]
    ear = Ear(*wanted)
    streams = listen(ear)
    wait_for(lambda: streams.held == set(wanted))
    assert admitted(simulator) == 3
    assert carrier(streams, NOTICES) == [0]
    assert all(len(carrier(streams, topic)) == 1 for topic in wanted)
    assert [key.number for key in streams.status() if key.state is SocketState.CONNECTED] == [1, 2, 3]
    assert streams.left_out == ()


def test_a_revoked_key_gives_its_feeds_to_the_others_and_is_not_asked_in_a_loop(
    simulator: Simulator, listen: Any
) -> None:
    wanted = [NOTICES, *trades(60)]
    ear = Ear(*wanted)
    streams = listen(ear)
    wait_for(lambda: streams.held == set(wanted))
    simulator.command("POST", "/simulator/keys", {"key": KEYS[0], "hts_id": "rehearsal"})
    simulator.command("POST", "/simulator/keys", {"key": KEYS[1], "revoked": True})
    began = time.monotonic()
    wait_for(lambda: streams.members[1].held == frozenset() and streams.held == set(wanted))
    assert time.monotonic() - began < 15
    assert carrier(streams, NOTICES) == [0]
    time.sleep(1.0)
    refused = [e for e in simulator.events() if e["event"] == "oauth refused"]
    assert len(refused) <= 8


def test_our_fills_move_to_another_key_and_the_list_is_asked_for(simulator: Simulator, listen: Any) -> None:
    ear = Ear(NOTICES, *trades(3))
    streams = listen(ear)
    wait_for(holds(streams, 4))
    simulator.set_price(SAMSUNG, 70_000)
    factory.broker().place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.MARKET, 1, 0))
    wait_for(lambda: ear.heard("H0STCNI0") >= 2)
    before = ear.registrations.count(NOTICES)
    simulator.command("POST", "/simulator/keys", {"key": KEYS[0], "occupied": True})
    wait_for(lambda: carrier(streams, NOTICES) not in ([], [0]))
    assert ear.registrations.count(NOTICES) == before + 1, "whoever listens asks the broker's list then"
    heard = ear.heard("H0STCNI0")
    factory.broker().place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.MARKET, 1, 0))
    wait_for(lambda: ear.heard("H0STCNI0") >= heard + 2)
    assert streams.members[0].next_try_at is not None


def test_a_move_registers_with_the_new_key_after_the_old_one_let_go(simulator: Simulator, listen: Any) -> None:
    ear = Ear(NOTICES, *trades(3))
    streams = listen(ear)
    wait_for(holds(streams, 4))
    for turn in range(1, 9):
        streams.move(NOTICES, turn % 3)
        wait_for(lambda number=turn % 3: carrier(streams, NOTICES) == [number])
    holders: list[int] = []
    for event in simulator.events():
        if event["event"] == "registration" and event["tr_id"] == NOTICES.tr_id:
            (holders.append if event["state"] == "registered" else holders.remove)(event["session"])
            assert len(holders) <= 1, "two keys never hold it at once"


def test_of_more_than_fit_the_last_wait_and_the_first_take_their_place(simulator: Simulator, listen: Any) -> None:
    wanted = many(3 * LIMIT + 5)
    streams = listen(Ear(*wanted))
    wait_for(lambda: streams.held == set(wanted[: 3 * LIMIT]), 40)
    assert set(streams.left_out) == set(wanted[3 * LIMIT :])
    simulator.command("POST", "/simulator/keys", {"key": KEYS[2], "revoked": True})
    wait_for(lambda: streams.held == set(wanted[: 2 * LIMIT]), 15)


def test_a_key_in_use_elsewhere_is_left_alone_for_longer_and_longer(
    simulator: Simulator, listen: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "KEY_IN_USE_PAUSE_SECONDS", 0.5)
    simulator.command("POST", "/simulator/keys", {"key": KEYS[1], "occupied": True})
    wanted = many(2 * LIMIT + 5)  # more than the other two have room for, so it is asked again and again
    ear = Ear(*wanted)
    streams = listen(ear)
    wait_for(holds(streams, 2 * LIMIT), 15)
    time.sleep(2.0)
    refused = [e for e in simulator.events() if e["event"] == "session" and e["state"] == "refused"]
    assert 2 <= len(refused) <= 4, "0.5, 1, 2, 4 s apart"
    assert ear.counts["connected"] == 2, "a line that was refused was never connected"
    status = streams.status()[1]
    assert (status.held, status.reason) == (0, "the app key is in use by another session")
    simulator.command("POST", "/simulator/keys", {"key": KEYS[1], "occupied": False})
    wait_for(lambda: streams.held == set(wanted))
