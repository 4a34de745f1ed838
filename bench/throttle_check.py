"""Eight processes share one call limit for half a minute, against the simulator's strict sliding second.

    make throttle-check

Each process is a real client over real sockets; the simulator refuses the nineteenth call of any second.
One process makes occasional calls of the order class, the others call without a pause. The last line is
JSON: the used share of the call limit, the number of refused calls, and how long an order-class call
waited for its turn, in call intervals. Exit 1 if a goal is missed.
"""

import json
import multiprocessing
import random
import sys
import tempfile
import time
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import redis

from aegis.account import Account
from aegis.broker import Refused
from aegis.terms import Market
from kis import catalogue
from kis.auth import Tokens
from kis.catalogue import TR, CallPriority
from kis.client import Client
from kis.environment import SIM, Credentials, Dialect
from kis.market_data import MARKET_DIVISION
from kis.serving import serving
from kis.throttle import Throttle
from ops import embedded
from simulator.api.server import serve

PROCESSES = 8
SECONDS = 30.0
ALLOWANCE = 18
LEAST_UTILISATION = 0.95
MOST_ORDER_WAIT = 3.0
# seconds that do not count: until then, not every process is up and the first window is not full
WARM_UP = 2.0

STOCK = {"FID_COND_MRKT_DIV_CODE": MARKET_DIVISION[Market.KRX], "FID_INPUT_ISCD": "005930"}
DAYS = {
    **STOCK,
    "FID_INPUT_DATE_1": "20261005",
    "FID_INPUT_DATE_2": "20261120",
    "FID_PERIOD_DIV_CODE": "D",
    "FID_ORG_ADJ_PRC": "0",
}
ACCOUNT = {"CANO": "50000000", "ACNT_PRDT_CD": "01"}
ORDER_CALL = (catalogue.SELLABLE, {**ACCOUNT, "PDNO": "005930"})
OTHER_CALLS: tuple[tuple[TR, dict[str, str]], ...] = (
    (catalogue.DAILY_CHART, DAYS),
    (catalogue.DAILY_CHART, DAYS),
    (catalogue.PRICE, STOCK),
    (catalogue.BOOK, STOCK),
    (catalogue.OPEN_ORDERS, {**ACCOUNT, "INQR_DVSN_1": "0", "INQR_DVSN_2": "0"}),
)


@dataclass
class Tally:
    """What one process measured; waits in seconds."""

    answered_at: list[float] = field(default_factory=list)
    order_waits: list[float] = field(default_factory=list)
    refused: int = 0


def call_for_a_while(
    number: int, url: str, socket: str, begins_at: float, results: "multiprocessing.Queue[Tally]"
) -> None:
    """Call until the time is up. Process 0 makes the order-class calls, all others fetch data."""
    credentials = Credentials("bench", "bench", Account("50000000", "01"), "bench")
    environment = SIM.at(url)
    store = redis.Redis(unix_socket_path=socket)
    throttle = Throttle(store, "bench", ALLOWANCE)
    ledger = Throttle(store, "bench-ledger", 1_000)
    tally, dice = Tally(), random.Random(number)
    with httpx.Client(timeout=10, trust_env=False) as http:
        client = Client(
            environment,
            credentials,
            Dialect.OFFICIAL,
            http,
            Tokens(environment, credentials, http, store),
            throttle,
            ledger,
        )
        time.sleep(max(0.0, begins_at - time.time()))
        while time.time() < begins_at + SECONDS:
            waited_before = throttle.counters.waited_seconds
            tr, parameters = ORDER_CALL if number == 0 else dice.choice(OTHER_CALLS)
            with serving(CallPriority.ORDER) if number == 0 else nullcontext():
                _call(client, tr, parameters)
            tally.answered_at.append(time.time())
            if number == 0:
                tally.order_waits.append(throttle.counters.waited_seconds - waited_before)
                time.sleep(dice.uniform(0.02, 0.3))
    tally.refused = throttle.counters.slowed
    results.put(tally)


def _call(client: Client, tr: TR, parameters: dict[str, str]) -> None:
    try:
        client.call(tr, parameters)
    except Refused as refusal:  # no share is held: this refusal is an answer too
        if refusal.code.startswith("EGW"):
            raise


def main() -> int:
    with tempfile.TemporaryDirectory() as home:
        server = embedded.Redis(Path(home), durable=False)
        server.start()
        try:
            with serve(seed=1, rate=ALLOWANCE, ticking=False) as simulator:
                tallies = _run(simulator.url, f"{embedded.socket_dir(Path(home))}/redis.sock")
        finally:
            server.stop()
    return _report(tallies)


def _run(url: str, socket: str) -> list[Tally]:
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    begins_at = time.time() + 4.0  # spawning takes a while
    processes = [
        context.Process(target=call_for_a_while, args=(number, url, socket, begins_at, results))
        for number in range(PROCESSES)
    ]
    for process in processes:
        process.start()
    tallies = [results.get(timeout=SECONDS + 60) for _ in processes]
    for process in processes:
        process.join(10)
    return tallies


def _report(tallies: list[Tally]) -> int:
    times = sorted(moment for tally in tallies for moment in tally.answered_at)
    begins, ends = times[0] + WARM_UP, times[0] + SECONDS - 0.5
    count = sum(begins <= moment < ends for moment in times)
    waits = sorted(wait for tally in tallies for wait in tally.order_waits)
    figures = {
        "utilisation": round(count / ((ends - begins) * ALLOWANCE), 3),
        "refused": sum(tally.refused for tally in tallies),
        "order_wait_p99_intervals": round(waits[int(len(waits) * 0.99)] * ALLOWANCE, 2),
    }
    print(f"{len(times)} calls, {len(waits)} of the order class, median wait {waits[len(waits) // 2] * 1000:.0f} ms")
    print(json.dumps(figures))
    goals_are_met = (
        figures["utilisation"] >= LEAST_UTILISATION
        and figures["refused"] == 0
        and figures["order_wait_p99_intervals"] <= MOST_ORDER_WAIT
    )
    return 0 if goals_are_met else 1


if __name__ == "__main__":
    sys.exit(main())
