"""A hundred callers in four real processes see one expired token: the simulator issues one."""

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import redis

from aegis.broker import Broker
from aegis.terms import Market
from config.env import BASE_DIR
from infra import clock
from market import reference_data
from simulator.api.server import Simulator
from tests.workers import environment

PROCESSES, THREADS = 4, 25
# each process is one client with one token in its hand, as a worker is; a line tells it to go on
CALLERS = f"""
import sys, threading
import django
django.setup()
from aegis.terms import Market
from kis.factory import broker
broker().quote("005930", Market.KRX)
print("ready", flush=True)
sys.stdin.readline()
failed = []
def call():
    try:
        broker().quote("005930", Market.KRX)
    except Exception as error:
        failed.append(repr(error))
threads = [threading.Thread(target=call) for _ in range({THREADS})]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(len(failed), *failed, flush=True)
"""


@pytest.fixture
def processes(
    transactional_db: None, broker: Broker, simulator: Simulator, store: redis.Redis
) -> Iterator[list[subprocess.Popen[str]]]:
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    started = [
        subprocess.Popen(
            [sys.executable, "-c", CALLERS],
            cwd=BASE_DIR,
            env=environment() | {"KIS_CALLS_PER_SECOND": "1000", "KIS_LEDGER_CALLS_PER_SECOND": "1000"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(PROCESSES)
    ]
    yield started
    for process in started:
        process.kill()
        process.communicate()


def issues(simulator: Simulator) -> int:
    return sum(event["event"] == "token" for event in simulator.events())


def test_a_hundred_callers_of_four_processes_make_one_issue(
    processes: list[subprocess.Popen[str]], broker: Broker, simulator: Simulator
) -> None:
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    assert issues(simulator) == 1, "processes that start cold share one token"
    # the broker issues once a minute
    clock.set_now(clock.now().replace(minute=5))
    simulator.fault("expire_tokens")
    answers: list[str] = []

    def go(process: subprocess.Popen[str]) -> None:
        answers.append(process.communicate("go\n", timeout=120)[0].strip())

    callers = [threading.Thread(target=go, args=(process,)) for process in processes]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert answers == ["0"] * PROCESSES
    assert issues(simulator) == 2
    assert broker.quote("005930", Market.KRX).price > 0
