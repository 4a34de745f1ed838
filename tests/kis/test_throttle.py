"""The shared allowance, on a real Redis."""

import threading
import time

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from aegis.broker import NotSent
from kis.catalogue import Urgency
from kis.throttle import Throttle


def most_in_a_second(moments: list[float]) -> int:
    moments = sorted(moments)
    return max(sum(start <= moment < start + 1 for moment in moments) for start in moments)


def test_no_sliding_second_holds_more_calls_than_allowed(store: redis.Redis) -> None:
    moments: list[float] = []

    def call() -> None:
        throttle = Throttle(store, "test", 10)
        for _ in range(6):
            with throttle.slot(Urgency.ACCOUNT, deadline_seconds=30):
                moments.append(time.monotonic())

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(moments) == 24
    assert most_in_a_second(moments) <= 10


def test_a_slot_comes_back_a_second_after_the_answer(store: redis.Redis) -> None:
    throttle = Throttle(store, "test", 1)
    began = time.monotonic()
    with throttle.slot(Urgency.ORDER, deadline_seconds=5):
        time.sleep(0.3)
    with throttle.slot(Urgency.ORDER, deadline_seconds=5):
        assert time.monotonic() - began >= 1.29


def test_an_order_passes_everybody_who_waits(store: redis.Redis) -> None:
    done: list[str] = []

    def call(name: str, urgency: Urgency) -> None:
        with Throttle(store, "test", 2).slot(urgency, deadline_seconds=30):
            done.append(name)

    waiting = [threading.Thread(target=call, args=(f"history {n}", Urgency.BACKFILL)) for n in range(5)]
    for thread in waiting:
        thread.start()
    time.sleep(0.2)
    order = threading.Thread(target=call, args=("order", Urgency.ORDER))
    order.start()
    for thread in [*waiting, order]:
        thread.join(30)
    assert done.index("order") <= 3


def test_whoever_cannot_wait_gets_a_clear_error_and_leaves_the_queue(store: redis.Redis) -> None:
    throttle = Throttle(store, "test", 1)
    with throttle.slot(Urgency.ORDER, deadline_seconds=1):
        began = time.monotonic()
        with (
            pytest.raises(NotSent, match="no call came free within"),
            throttle.slot(Urgency.QUOTE, deadline_seconds=0.3),
        ):
            pass
        assert time.monotonic() - began < 1
    assert throttle.counters.given_up == 1
    with throttle.slot(Urgency.QUOTE, deadline_seconds=3):
        pass


def test_a_refusal_by_the_broker_slows_everybody_for_a_while(store: redis.Redis) -> None:
    throttle = Throttle(store, "test", 4)
    throttle.slow_down(seconds=30)
    began = time.monotonic()
    for _ in range(4):
        with throttle.slot(Urgency.ORDER, deadline_seconds=10):
            pass
    assert time.monotonic() - began >= 0.99


def test_without_redis_nothing_leaves(redis_server: None) -> None:
    throttle = Throttle(redis.Redis(unix_socket_path="/nowhere.sock", retry=Retry(NoBackoff(), 1)), "test", 10)
    with pytest.raises(NotSent, match="Redis"), throttle.slot(Urgency.ORDER, deadline_seconds=1):
        pytest.fail("a call left without an allowance")


def test_two_accounts_do_not_share(store: redis.Redis) -> None:
    began = time.monotonic()
    for name in ("one", "two", "three"):
        with Throttle(store, name, 1).slot(Urgency.ORDER, deadline_seconds=5):
            pass
    assert time.monotonic() - began < 1
