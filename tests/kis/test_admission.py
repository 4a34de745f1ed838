"""The ceiling on connections and the shared approval key, on a real Redis."""

import threading

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from kis.connection_limiter import CEILINGS, ConnectionLimiter, wait_seconds

KEY = "aegis:sim:test:door"


class Issuer:
    """Stands for the broker's approval server."""

    def __init__(self) -> None:
        self.issued = 0
        self._lock = threading.Lock()

    def __call__(self) -> str:
        with self._lock:
            self.issued += 1
            return f"key-{self.issued}"


@pytest.fixture
def issuer() -> Issuer:
    return Issuer()


@pytest.fixture
def limiter(store: redis.Redis, issuer: Issuer) -> ConnectionLimiter:
    return ConnectionLimiter(store, KEY, issuer)


def attempts_of(loop_seconds: float, for_seconds: float) -> list[float]:
    """Return when a program that would connect every `loop_seconds` is let through."""
    made: list[float] = []
    now = 0.0
    while now < for_seconds:
        wait = wait_seconds(made, now)
        if wait:
            now += wait
        else:
            made.append(now)
            now += loop_seconds
    return made


def test_the_first_attempts_wait_for_nobody() -> None:
    window, most = CEILINGS[0]
    assert wait_seconds([], 0.0) == 0.0
    assert wait_seconds([0.0] * (most - 1), 1.0) == 0.0
    assert wait_seconds([0.0] * most, 1.0) == pytest.approx(window - 1.0)
    assert wait_seconds([0.0] * most, window) == 0.0


@pytest.mark.parametrize("loop_seconds", [0.01, 1.0, 3.0, 10.0])
def test_no_loop_however_fast_breaks_a_ceiling(loop_seconds: float) -> None:
    made = attempts_of(loop_seconds, 3_600.0)
    for window, most in CEILINGS:
        for begin in made:
            assert sum(begin <= at < begin + window for at in made) <= most


@given(st.lists(st.floats(0, 1_000), max_size=60))
def test_after_the_wait_no_ceiling_is_in_the_way(made: list[float]) -> None:
    made = [at for at in made if not wait_seconds([m for m in made if m < at], at)]
    now = max(made, default=0.0)
    assert wait_seconds(made, now + wait_seconds(made, now) + 1e-6) == 0.0


def test_the_ceiling_is_one_for_all_processes(store: redis.Redis, issuer: Issuer) -> None:
    _, most = CEILINGS[0]
    limiters = [ConnectionLimiter(store, KEY, issuer) for _ in range(3)]
    waits = [limiters[n % 3].acquire() for n in range(most + 1)]
    assert waits[:most] == [0.0] * most
    assert 0 < waits[most] <= CEILINGS[0][0]


def test_one_approval_key_serves_everybody(store: redis.Redis, issuer: Issuer) -> None:
    seen: list[str] = []
    threads = [
        threading.Thread(target=lambda: seen.append(ConnectionLimiter(store, KEY, issuer).approval_key()))
        for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (set(seen), issuer.issued) == ({"key-1"}, 1)


def test_a_refused_approval_key_is_replaced_once_however_many_say_so(
    store: redis.Redis, limiter: ConnectionLimiter, issuer: Issuer
) -> None:
    first = limiter.approval_key()
    limiters = [ConnectionLimiter(store, KEY, issuer) for _ in range(5)]
    for each in limiters:
        each.invalidate(first)
        each.approval_key()
    assert (limiter.approval_key(), issuer.issued) == ("key-2", 2)


def test_a_lock_that_ends_during_a_slow_issue_loses_no_approval_key(store: redis.Redis) -> None:
    def issue_slowly() -> str:
        store.delete(f"{KEY}:approval:lock")
        return "key-1"

    assert ConnectionLimiter(store, KEY, issue_slowly).approval_key() == "key-1"


def test_a_flushed_redis_costs_one_more_key(store: redis.Redis, limiter: ConnectionLimiter, issuer: Issuer) -> None:
    limiter.approval_key()
    store.flushdb()
    assert limiter.approval_key() == "key-2"
