"""A stop on a falling stock, two hundred times, raced for by two stream workers on doubled ticks: it fires once.

    make stops-check

Two listeners, each on a socket of its own, judge every tick; a real worker sells; in every fifth round that worker
is killed in the middle, and another takes over. Each run must end with one order family for the shares it guards,
filled whole, at the exchange and in our tables. The last line is JSON, with the time from the tick's arrival to
the order's leaving; exit 1 where a stop fired twice or not at all.
"""

import contextlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import httpx

from bench import house

ROUNDS = 10
STOCKS = 20
SHARES = 10
LISTENERS = 2
STOP_PERCENT = 2
# where the price goes, in percent of where it was: a near miss, then through the stop
FALL = (-1, -3)
ACCOUNT = "50000000-01"
KILLED_EVERY = 5
# one falls after the other: how long a stop takes is not to be how many wait before it
APART_SECONDS = 0.05
# an order whose worker was killed over it is looked for a minute later, and given up after another minute and a half
PATIENCE_SECONDS = 200.0
# nobody trades so much in so short a time but a check
UNBOUND = {"AEGIS_MAX_ORDERS_PER_MINUTE": "0", "AEGIS_DUPLICATE_SECONDS": "0"}


def listen(number: int, ready: "Event", over: "Event") -> None:
    """Hold a socket with an app key of our own, as a stream worker does with the lease."""
    os.environ["KIS_APP_KEY"] = f"listener-{number}"
    house.join()
    import threading

    from desk.stream import Term

    term, stop = Term(lambda: True), threading.Event()
    thread = threading.Thread(target=term.run, args=(stop,))
    thread.start()
    while not over.is_set():
        held = {str(topic) for topic in term.stream.subscriptions.held}
        holds_all = sum(topic.startswith("H0STCNT0") for topic in held) >= STOCKS
        (ready.set if holds_all else ready.clear)()
        time.sleep(0.05)
    stop.set()
    thread.join()


def main() -> int:
    with house.house() as url, tempfile.TemporaryDirectory(prefix="aegis-stops-") as logs:
        os.environ |= UNBOUND
        check = Check(url, Path(logs))
        with _listening() as ready, check.workers:
            check.start()
            for number in range(ROUNDS):
                check.round(number, ready)
        figures = check.figures()
    print(json.dumps(figures))
    return 0 if figures["fired_once"] == figures["runs"] == ROUNDS * STOCKS else 1


@contextlib.contextmanager
def _listening() -> Iterator[list["Event"]]:
    context = multiprocessing.get_context("spawn")
    over, ready = context.Event(), [context.Event() for _ in range(LISTENERS)]
    processes = [context.Process(target=listen, args=(n, ready[n], over)) for n in range(LISTENERS)]
    for process in processes:
        process.start()
    try:
        yield ready
    finally:
        over.set()
        for process in processes:
            process.join(20)
            if process.is_alive():
                process.kill()


class Check:
    """The rounds, and what came of them."""

    def __init__(self, url: str, logs: Path) -> None:
        from kis.simulator.stocks import STOCKS as LISTED
        from tests.workers import Workers

        self.workers = Workers(logs)
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self._codes = sorted(LISTED)[:STOCKS]
        self._post("/simulator/faults", name="frame_giant", times=2, probability=0.5)
        self._base = {code: self._price(code) for code in self._codes}
        self._sold_before: dict[str, int] = dict.fromkeys(self._codes, 0)
        self.runs: list[dict[str, Any]] = []

    def start(self) -> None:
        self._worker = self.workers.start("urgent", "orders")

    def round(self, number: int, ready: list["Event"]) -> None:
        rows = self._arm()
        time.sleep(2.5)  # every listener has read the rules by then, and knows what to hold
        _wait(lambda: all(each.is_set() for each in ready), "both listeners to hold every stock")
        near, through = FALL
        self._fall(self._codes, near)
        self._fall(self._codes[: STOCKS // 2], through)
        is_killed = number % KILLED_EVERY == KILLED_EVERY - 1
        if is_killed:
            self._worker.kill()
            self._worker.wait()
            self._fall(self._codes[STOCKS // 2 :], through)
            self._worker = self.workers.start("urgent", "orders")
        else:
            self._fall(self._codes[STOCKS // 2 :], through)
        self._follow(rows)
        self._judge(rows, is_killed=is_killed)

    def _fall(self, codes: list[str], percent: int) -> None:
        for code in codes:
            self._hold(code, self._moved(code, percent))
            time.sleep(APART_SECONDS)

    def _arm(self) -> list[int]:
        from decimal import Decimal

        from aegis.stops import StopKind, StopUnit
        from kis import clock
        from kis.wiring import broker
        from orders import stops
        from portfolio.fetcher import KISFetcher

        for code in self._codes:
            self._hold(code, self._base[code])
            self._post("/simulator/shares", account=ACCOUNT, code=code, quantity=SHARES, cost=SHARES * self._base[code])
        KISFetcher(broker(), clock.now).sync_portfolio()
        loss = (StopKind.STOP_LOSS, StopUnit.PERCENT, Decimal(STOP_PERCENT))
        return [stops.arm(code, *loss, by="check", at=clock.now()).pk for code in self._codes]

    def _follow(self, rows: list[int]) -> None:
        """Do what beat would: hand on what is due, look at the broker's list, until every stop is over."""
        from kis import clock
        from kis.wiring import broker
        from orders import reconcile, stops
        from orders.models import StopRule
        from orders.tasks import stop, sweep

        def are_over() -> bool:
            for pk in stops.due(clock.now()):
                stop.delay(pk)
            sweep()
            reconcile.reconcile(broker(), clock.now)
            time.sleep(0.5)
            return not StopRule.objects.filter(pk__in=rows, state__in=stops.LIVE).exists()

        try:
            _wait(are_over, "every stop to be over")
        except TimeoutError:
            for row in StopRule.objects.filter(pk__in=rows, state__in=stops.LIVE):
                print(row, row.state, row.note, row.heard_price, *row.events.all(), sep="; ")

    def _judge(self, rows: list[int], *, is_killed: bool) -> None:
        from orders.models import StopRule, TradeOrder

        ledger = self._http.get("/simulator/ledger", params={"account": ACCOUNT}).raise_for_status().json()
        for row in StopRule.objects.filter(pk__in=rows).select_related("order"):
            # what a worker committed and was killed before it sent is no order: the next generation sells
            sent = TradeOrder.objects.filter(request_id__startswith=f"stop:{row.pk}:", never_arrived=False)
            families = sent.filter(root=None)
            sales = [each for each in ledger["orders"] if (each["code"], each["side"]) == (row.stock_code, "SELL")]
            sold = sum(each["filled"] for each in sales)
            now_sold, self._sold_before[row.stock_code] = sold - self._sold_before[row.stock_code], sold
            first = families.order_by("pk").first()
            self.runs.append(
                {
                    "families": families.count(),
                    "triggers": row.events.filter(kind="TRIGGERED").count(),
                    "state": row.state,
                    "sold": now_sold,
                    "is_killed": is_killed,
                    "ms": (first.sent_at - row.triggered_at).total_seconds() * 1000
                    if first and first.sent_at
                    else None,
                }
            )

    def figures(self) -> dict[str, Any]:
        once = [run for run in self.runs if _is_once(run)]
        twice = [run for run in self.runs if run["families"] > 1 or run["triggers"] > 1 or run["sold"] > SHARES]
        for run in self.runs:
            if not _is_once(run):
                print(run)
        times = [run["ms"] for run in self.runs if run["ms"] is not None and not run["is_killed"]]
        late = [run["ms"] for run in self.runs if run["ms"] is not None and run["is_killed"]]
        return {
            "runs": len(self.runs),
            "fired_once": len(once),
            "twice": len(twice),
            "missed": sum(run["families"] == 0 for run in self.runs),
            "tick_to_post_ms": {
                "median": round(statistics.median(times), 1),
                "p99": round(statistics.quantiles(times, n=100)[98], 1),
            },
            "with_a_killed_worker_ms": {"median": round(statistics.median(late), 1), "most": round(max(late), 1)},
        }

    def _moved(self, code: str, percent: int) -> int:
        from aegis.ticks import adjust_price_to_tick
        from kis.simulator.stocks import STOCKS as LISTED

        return adjust_price_to_tick(self._base[code] * (100 + percent) // 100, "down", LISTED[code].instrument)

    def _price(self, code: str) -> int:
        from aegis.terms import Market
        from kis.wiring import broker

        return broker().quote(code, Market.KRX).price

    def _hold(self, code: str, price: int) -> None:
        self._post(f"/simulator/quotes/{code}", price=price, freeze=True)

    def _post(self, path: str, **body: Any) -> None:
        self._http.post(path, json=body).raise_for_status()


def _is_once(run: dict[str, Any]) -> bool:
    return (run["families"], run["triggers"], run["state"], run["sold"]) == (1, 1, "DONE", SHARES)


def _wait(happened: Any, what: str) -> None:
    gives_up_at = time.monotonic() + PATIENCE_SECONDS
    while not happened():
        if time.monotonic() > gives_up_at:
            raise TimeoutError(f"gave up waiting for {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
