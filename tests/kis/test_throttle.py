"""The shared allowance, on a real Redis."""

import os
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, suppress
from itertools import groupby

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from aegis.broker import NotSent
from config.env import BASE_DIR
from kis import throttle as module
from kis.catalogue import CallPriority
from kis.environment import ENVIRONMENTS
from kis.serving import Step
from kis.throttle import HANDICAP_MS, Throttle

REALLY_SLEEP = time.sleep


def most_in_a_second(moments: list[float]) -> int:
    moments = sorted(moments)
    return max(sum(start <= moment < start + 1 for moment in moments) for start in moments)


def run_in_turn(threads: list[threading.Thread], store: redis.Redis) -> None:
    """Let threads queue one after another for the only slot while it is taken, and see them all served."""
    with Throttle(store, "test", 1, window_ms=100).slot(CallPriority.STOP, deadline_seconds=1, step=Step()):
        for number, thread in enumerate(threads):
            thread.start()
            gives_up_at = time.monotonic() + 10
            while store.zcard("test:queue") <= number:
                assert time.monotonic() < gives_up_at
                time.sleep(0.01)
            # two that come within one millisecond have no order
            time.sleep(0.005)
    for thread in threads:
        thread.join(30)


def test_no_sliding_second_holds_more_calls_than_allowed(store: redis.Redis) -> None:
    moments: list[float] = []

    def call() -> None:
        throttle = Throttle(store, "test", 10)
        for _ in range(6):
            with throttle.slot(CallPriority.ACCOUNT, deadline_seconds=30):
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
    with throttle.slot(CallPriority.ORDER, deadline_seconds=5):
        time.sleep(0.3)
    with throttle.slot(CallPriority.ORDER, deadline_seconds=5):
        assert time.monotonic() - began >= 1.29


def test_a_slot_never_comes_back_a_part_of_a_millisecond_early(store: redis.Redis) -> None:
    throttle = Throttle(store, "test", 100)
    for _ in range(20):
        with throttle.slot(CallPriority.ORDER, deadline_seconds=5):
            seconds, micros = store.time()
        ((_, comes_back_ms),) = store.zrange("test:slots", -1, -1, withscores=True)
        assert comes_back_ms * 1000 >= seconds * 1_000_000 + micros + 1_000_000
        store.delete("test:slots")


def test_an_order_passes_everybody_who_waits(store: redis.Redis) -> None:
    done: list[str] = []

    def call(name: str, priority: CallPriority) -> None:
        with Throttle(store, "test", 2).slot(priority, deadline_seconds=30):
            done.append(name)

    waiting = [threading.Thread(target=call, args=(f"history {n}", CallPriority.BACKFILL)) for n in range(5)]
    for thread in waiting:
        thread.start()
    time.sleep(0.2)
    order = threading.Thread(target=call, args=("order", CallPriority.ORDER))
    order.start()
    for thread in [*waiting, order]:
        thread.join(30)
    assert done.index("order") <= 3


def test_stops_pass_cancels_pass_orders_pass_chases_pass_the_rest(store: redis.Redis) -> None:
    ranks = list(CallPriority)
    served: list[CallPriority] = []

    def call(priority: CallPriority) -> None:
        with Throttle(store, "test", 1, window_ms=100).slot(priority, deadline_seconds=30):
            served.append(priority)

    # the least urgent come first
    threads = [threading.Thread(target=call, args=(priority,)) for priority in reversed(ranks) for _ in range(2)]
    run_in_turn(threads, store)
    assert served == [priority for priority in ranks for _ in range(2)]


def test_the_step_of_a_stop_that_began_first_makes_all_its_calls_first(store: redis.Redis) -> None:
    """One reads while the others wait for their first call; each reads three times and sends one command."""
    served: list[int] = []
    steps = [Step() for _ in range(6)]

    def run(number: int) -> None:
        throttle = Throttle(store, "test", 1, window_ms=100)
        for call in range(4):
            with throttle.slot(CallPriority.STOP, deadline_seconds=30, step=steps[number], is_command=call == 3):
                served.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(steps))]
    run_in_turn(threads, store)
    assert served == [number for number in range(len(steps)) for _ in range(4)]


def test_steps_of_the_same_millisecond_do_not_take_turns(store: redis.Redis) -> None:
    served: list[int] = []
    steps = [Step(began_ms=1_800_000_000_000) for _ in range(4)]

    def run(number: int) -> None:
        throttle = Throttle(store, "test", 1, window_ms=100)
        for _ in range(3):
            with throttle.slot(CallPriority.STOP, deadline_seconds=30, step=steps[number]):
                served.append(number)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(len(steps))]
    run_in_turn(threads, store)
    assert [each for each, _ in groupby(served)] == served[::3], served


def test_a_stops_command_passes_what_stops_read(store: redis.Redis) -> None:
    """It is all that its step wants of the broker, and what it was judged by grows old."""
    served: list[str] = []

    def call(name: str, step: Step | None, *, is_command: bool) -> None:
        throttle = Throttle(store, "test", 1, window_ms=100)
        with throttle.slot(CallPriority.STOP, deadline_seconds=30, step=step, is_command=is_command):
            served.append(name)

    wanted = [("first read", Step(), False), ("second read", Step(), False), ("cancel", Step(), True)]
    threads = [threading.Thread(target=call, args=(n, s), kwargs={"is_command": c}) for n, s, c in wanted]
    run_in_turn(threads, store)
    assert served == ["cancel", "first read", "second read"]


@pytest.mark.parametrize("priority", [CallPriority.STOP, CallPriority.CANCEL, CallPriority.ORDER])
def test_on_paper_an_order_passes_those_who_have_waited_longer_than_it_may(
    store: redis.Redis, priority: CallPriority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One call a second, and fourteen account calls that have waited for longer than an order's five seconds."""
    monkeypatch.setattr(module, "HANDICAP_MS", dict(HANDICAP_MS) | {CallPriority.ACCOUNT: -20_000})
    over = threading.Event()

    def call_for_ever() -> None:
        throttle = Throttle(store, "test", 1)
        while not over.is_set():
            with suppress(NotSent), throttle.slot(CallPriority.ACCOUNT, deadline_seconds=20):
                pass

    waiting = [threading.Thread(target=call_for_ever) for _ in range(14)]
    for thread in waiting:
        thread.start()
    try:
        time.sleep(0.5)
        with Throttle(store, "test", 1).slot(priority, deadline_seconds=5):
            pass
    finally:
        over.set()
        for thread in waiting:
            thread.join(30)


def test_a_slow_answer_keeps_no_slot(store: redis.Redis) -> None:
    throttle = Throttle(store, "test", 1)
    with throttle.slot(CallPriority.ACCOUNT, deadline_seconds=1):  # the list of orders, which takes nine seconds
        began = time.monotonic()
        with throttle.slot(CallPriority.STOP, deadline_seconds=5):
            assert module.WINDOW_MS / 1000 < time.monotonic() - began < 4
    assert throttle.in_use() <= 1, "an answer that comes late takes no slot again"


def test_a_call_that_leaves_late_counts_from_then(store: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE_MS", 300)
    monkeypatch.setattr(module, "SENT_WITHIN_SECONDS", 0.1)
    throttle = Throttle(store, "test", 1, window_ms=100)
    with throttle.slot(CallPriority.ORDER, deadline_seconds=1) as slot:
        slot.mark_sent()
        time.sleep(0.4)  # its last check waits for a lock
        assert throttle.in_use() == 0
        slot.mark_sent()
        assert throttle.in_use() == 1


def test_whoever_cannot_wait_gets_a_clear_error_and_leaves_the_queue(store: redis.Redis) -> None:
    throttle = Throttle(store, "test", 1)
    with throttle.slot(CallPriority.ORDER, deadline_seconds=1):
        began = time.monotonic()
        with (
            pytest.raises(NotSent, match="no call came free within"),
            throttle.slot(CallPriority.QUOTE, deadline_seconds=0.3),
        ):
            pass
        assert time.monotonic() - began < 1
    assert throttle.counters.given_up == 1
    with throttle.slot(CallPriority.QUOTE, deadline_seconds=3):
        pass


def test_a_refusal_by_the_broker_slows_everybody_for_a_while(store: redis.Redis) -> None:
    throttle = Throttle(store, "test", 4)
    throttle.slow_down(seconds=30)
    began = time.monotonic()
    for _ in range(4):
        with throttle.slot(CallPriority.ORDER, deadline_seconds=10):
            pass
    assert time.monotonic() - began >= 0.99
    assert (throttle.counters.slowed, throttle.tally()["refused"]) == (1, 1), "and it is counted, for all processes"


def test_after_a_while_the_whole_allowance_is_back(store: redis.Redis) -> None:
    throttle = Throttle(store, "test", 4)
    throttle.slow_down(seconds=0.05)
    gives_up_at = time.monotonic() + 10
    while store.exists("test:slow"):
        assert time.monotonic() < gives_up_at
        time.sleep(0.01)
    with ExitStack() as slots:
        for _ in range(4):
            slots.enter_context(throttle.slot(CallPriority.ORDER, deadline_seconds=10))
        assert throttle.in_use() == 4


def test_whoever_waits_long_enough_passes_newer_calls_of_chases(
    store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "HANDICAP_MS", dict(HANDICAP_MS) | {CallPriority.BACKFILL: 300})
    served, giving_up = threading.Event(), time.monotonic() + 30
    orders: list[float] = []
    served_at: list[float] = []

    def order_for_ever() -> None:
        throttle = Throttle(store, "test", 2, window_ms=100)
        while not served.is_set() and time.monotonic() < giving_up:
            with throttle.slot(CallPriority.CHASE, deadline_seconds=30):
                orders.append(time.monotonic())

    def call_history() -> None:
        with Throttle(store, "test", 2, window_ms=100).slot(CallPriority.BACKFILL, deadline_seconds=30):
            served_at.append(time.monotonic())
            served.set()

    busy = [threading.Thread(target=order_for_ever) for _ in range(6)]
    for thread in busy:
        thread.start()
    history = threading.Thread(target=call_history)
    history.start()
    for thread in [history, *busy]:
        thread.join(40)
    assert served_at[0] < giving_up, f"{len(orders)} calls went before it"


def test_the_slot_of_a_process_that_died_comes_back(store: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LEASE_MS", 300)
    died = Throttle(store, "test", 1)
    module._wait_for([died], "of the dead", CallPriority.ORDER, 1.0)
    with Throttle(store, "test", 1).slot(CallPriority.ORDER, deadline_seconds=10):
        pass


def test_nobody_waits_inside_redis_or_under_a_lock(store: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one waits, it holds no slot and nothing of another's: a third may come, ask and give up meanwhile."""
    naps: list[dict[bytes, float]] = []
    throttle = Throttle(store, "test", 1)

    def nap(seconds: float) -> None:
        naps.append(dict(store.zrange("test:slots", 0, -1, withscores=True)))
        with pytest.raises(NotSent), Throttle(store, "test", 1).slot(CallPriority.ORDER, deadline_seconds=0):
            pass
        REALLY_SLEEP(seconds)

    with throttle.slot(CallPriority.ORDER, deadline_seconds=1):
        pass
    monkeypatch.setattr(module.time, "sleep", nap)
    with throttle.slot(CallPriority.ORDER, deadline_seconds=10):
        pass
    assert naps
    assert all(len(held) <= 1 for held in naps), "who waits holds nothing"


def test_two_allowances_are_asked_in_one_trip_and_neither_is_kept_in_vain(
    store: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger, key = Throttle(store, "ledger", 3, window_ms=100), Throttle(store, "key", 1, window_ms=100)
    trips: list[int] = []
    take = key._take
    monkeypatch.setattr(ledger, "_take", lambda **words: trips.append(len(words["keys"])) or take(**words))
    with key.slot(CallPriority.ORDER, deadline_seconds=1, also=ledger):
        assert trips == [12], "one trip took both"
        assert (ledger.in_use(), key.in_use()) == (1, 1)
        with pytest.raises(NotSent), key.slot(CallPriority.ORDER, deadline_seconds=0, also=ledger):
            pytest.fail("the key's allowance was used up")
        assert store.zcard("key:queue") == 0
    giving_up = time.monotonic() + 10
    while (ledger.in_use(), key.in_use()) != (0, 0):
        assert time.monotonic() < giving_up, "a slot did not come back"
    assert (ledger.counters.granted, key.counters.granted, key.counters.given_up) == (2, 1, 1)


def test_every_environment_has_a_limit_below_the_broker_s() -> None:
    told = {"live": 18, "paper": 1, "sim": 18}  # the broker's notice of 2026-04-20; the simulator keeps live's
    assert {name.value for name in ENVIRONMENTS} == told.keys()
    assert all(0 < each.calls_per_second <= told[each.name] for each in ENVIRONMENTS.values())


@pytest.mark.parametrize("name", ["KIS_CALLS_PER_SECOND", "KIS_LEDGER_CALLS_PER_SECOND"])
def test_limits_can_be_set(name: str) -> None:
    program = f"from config import settings; print(settings.{name})"
    told = subprocess.run(
        [sys.executable, "-c", program], cwd=BASE_DIR, env=os.environ | {name: "3"}, capture_output=True, text=True
    )
    assert told.stdout.split()[-1:] == ["3"], told.stderr


def test_redis_that_goes_while_a_call_waits_is_told_of(store: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> None:
    throttle = Throttle(store, "test", 1)
    with throttle.slot(CallPriority.ORDER, deadline_seconds=1):
        pass

    def go(seconds: float) -> None:
        nowhere = redis.Redis(unix_socket_path="/nowhere.sock", retry=Retry(NoBackoff(), 0))
        throttle._take = nowhere.register_script(module._TAKE)

    monkeypatch.setattr(module.time, "sleep", go)
    with pytest.raises(NotSent, match="Redis"), throttle.slot(CallPriority.ORDER, deadline_seconds=10):
        pytest.fail("a call left without an allowance")


def test_without_redis_nothing_leaves(redis_server: None) -> None:
    throttle = Throttle(redis.Redis(unix_socket_path="/nowhere.sock", retry=Retry(NoBackoff(), 1)), "test", 10)
    with pytest.raises(NotSent, match="Redis"), throttle.slot(CallPriority.ORDER, deadline_seconds=1):
        pytest.fail("a call left without an allowance")


def test_two_accounts_do_not_share(store: redis.Redis) -> None:
    began = time.monotonic()
    for name in ("one", "two", "three"):
        with Throttle(store, name, 1).slot(CallPriority.ORDER, deadline_seconds=5):
            pass
    assert time.monotonic() - began < 1
