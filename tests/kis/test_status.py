import json
from dataclasses import replace

import pytest
import redis

from kis import status
from kis.status import STALE_SECONDS, KeyStatus, SocketState, StreamStatus, publish, read_status

KEY = "aegis:sim:test:stream"
NOW = 1_000_000.0
WELL = StreamStatus(
    state=SocketState.CONNECTED,
    state_seconds=10.0,
    holder="me",
    fence=3,
    frames=5,
    frame_age=0.5,
    data_age=1.5,
    connections=1,
    drift={"H0STCNT0/48": 2},
    held=("H0STCNI0:***", "H0STCNT0:005930"),
    left_out=("H0STCNT0:000660",),
    refused={"H0STASP0:005930": "OPSP0007"},
    has_own_fills=True,
    job_failures={"wanted": 0},
)


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch):
    def set_time(seconds: float) -> None:
        monkeypatch.setattr(status, "_now", lambda store: seconds)

    set_time(NOW)
    return set_time


def test_what_was_written_is_read_and_is_as_old_as_it_is(store: redis.Redis, at) -> None:
    publish(store, KEY, WELL)
    at(NOW + 2)
    seen = read_status(store, KEY)
    assert (seen.state_seconds, seen.frame_age, seen.data_age, seen.notice_age) == (12.0, 2.5, 3.5, None)
    assert seen.written_age == 2.0
    ages = {"state_seconds": 10.0, "frame_age": 0.5, "data_age": 1.5, "written_age": None}
    assert replace(seen, **ages) == WELL
    assert seen.is_alive


def test_a_holder_that_no_longer_speaks_is_stale(store: redis.Redis, at) -> None:
    publish(store, KEY, WELL)
    at(NOW + STALE_SECONDS)
    assert read_status(store, KEY).state is SocketState.CONNECTED
    at(NOW + STALE_SECONDS + 0.01)
    assert read_status(store, KEY).state is SocketState.STALE
    assert not read_status(store, KEY).is_alive


def test_who_let_go_on_purpose_stays_stopped(store: redis.Redis, at) -> None:
    publish(store, KEY, replace(WELL, state=SocketState.STOPPED))
    at(NOW + 3600)
    assert read_status(store, KEY).state is SocketState.STOPPED


def test_a_connection_that_does_not_hear_our_fills_is_not_well(store: redis.Redis, at) -> None:
    publish(store, KEY, replace(WELL, has_own_fills=False))
    assert not read_status(store, KEY).is_alive


def test_before_anybody_held_the_socket_there_is_none(store: redis.Redis) -> None:
    seen = read_status(store, KEY)
    assert (seen.state, seen.written_age, seen.is_alive) == (SocketState.NONE, None, False)


def test_the_time_is_that_of_redis(store: redis.Redis) -> None:
    publish(store, KEY, WELL)
    age = read_status(store, KEY).written_age
    assert age is not None
    assert 0 <= age < 60


def test_a_state_that_another_version_wrote_is_read(store: redis.Redis) -> None:
    keys = (KeyStatus(1, SocketState.CONNECTED, None, 41),)
    publish(store, KEY, replace(WELL, keys=keys))
    stored = json.loads(store.get(KEY) or "")
    stored["hears_fills"] = stored.pop("has_own_fills")
    stored["keys"][0]["why"] = stored["keys"][0].pop("reason")
    store.set(KEY, json.dumps(stored))
    seen = read_status(store, KEY)
    assert (seen.state, seen.has_own_fills, seen.keys) == (SocketState.CONNECTED, False, keys)
