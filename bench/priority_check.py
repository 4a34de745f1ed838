"""How long a triggered stop waits for other work: for chases, a slow order list, and a worker that is asleep.

    make priority-check

The real workers, at fifteen calls a second. First, forty chases are due at once, and stops trigger among them. Then the
same with an order list (inquire-daily-ccld) that takes nine seconds; new orders are timed too. Then a worker stops in a
transaction that holds the row that every order updates. The last line is JSON, in seconds from the trigger (or the
request) to the moment before the order's bytes leave; exit 1 if a value exceeds its limit.
"""

import json
import multiprocessing
import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from decimal import Decimal
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import httpx

from bench import isolation

CALLS_PER_SECOND = 15
CHASES = 40
# the number of stops of each scene, and the seconds between their triggers
STOPS = {"warm_up": 1, "chases": 12, "list": 10, "asleep": 1}
APART_SECONDS = 1.0
LIST_SECONDS = 9.0
SHARES = 10
ACCOUNT = "50000000-01"
LIST_PATH = "/uapi/domestic-stock/v1/trading/inquire-daily-ccld"
PATIENCE_SECONDS = 25.0
MOST = {"chases_40_p99_s": 0.5, "list_9s_p99_s": 0.5, "list_9s_order_p99_s": 0.5, "sleeping_worker_s": 4.0}
MOST |= {"sleeping_worker_halt_s": 4.0}
# only a check trades this much in so short a time
UNBOUND = {
    "MAX_ORDERS_PER_MINUTE": 0,
    "DUPLICATE_SECONDS": 0,
    "MAX_ORDER_WON": 0,
    "MAX_DAY_WON": 0,
    "MAX_POSITION_PERCENT": 0,
    "MAX_AUTO_REQUESTS_PER_MINUTE": 0,
    "MAX_FAILED_RECONCILIATIONS": 0,
}


def fall_asleep(is_locked: Event) -> None:
    """Lock the row that every order updates, in a transaction, and stop there, as a paused machine does."""
    isolation.set_up_child()
    from django.db import transaction

    from orders import kill_switch

    with transaction.atomic():
        kill_switch.bump_version()
        is_locked.set()
        os.kill(os.getpid(), signal.SIGSTOP)


def main() -> int:
    started_at = time.monotonic()
    with isolation.isolated_system() as url, tempfile.TemporaryDirectory(prefix="aegis-priority-") as logs:
        os.environ |= {f"AEGIS_{name}": str(value) for name, value in UNBOUND.items()}
        os.environ["KIS_CALLS_PER_SECOND"] = str(CALLS_PER_SECOND)
        check = Check(url, Path(logs))
        with check.workers:
            check.start()
            figures = {**check.behind_chases(), **check.behind_a_list(), **check.behind_a_sleeper()}
    figures["took_s"] = round(time.monotonic() - started_at)
    print(json.dumps(figures))
    return 0 if all(figures[name] <= limit for name, limit in MOST.items()) else 1


class Check:
    """The scenes, each on stocks of its own: the first stocks have stops, the others are chased."""

    def __init__(self, url: str, logs: Path) -> None:
        from django.conf import settings

        from simulator.exchange.listings import STOCKS as LISTED
        from tests.workers import Workers

        self.workers = Workers(logs)
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        # the stocks of the excluded sector are first: they may not be bought, but can be sold
        codes = sorted(LISTED, key=lambda code: ("가스" not in LISTED[code].sector, code))
        guarded = sum(STOPS.values())
        self._guarded, self._chased = codes[:guarded], codes[guarded:]
        self._rows: dict[str, int] = {}
        self._base: dict[str, int] = {}
        for name, value in UNBOUND.items():
            setattr(settings, name, value)

    def start(self) -> None:
        from ops import processes

        self.workers.start("urgent", threads=processes.URGENT_THREADS)
        self.workers.start("orders", threads=processes.ORDER_THREADS)
        self._arm()
        for code in self._scene("warm_up"):  # a running AEGIS has its connections open
            self._seconds_to_sale(code)
            self._seconds_to_order(code)

    # --- the scenes

    def behind_chases(self) -> dict[str, float]:
        with self._beat():
            self._start_chases()
            times = [self._seconds_to_sale(code) for code in self._scene("chases")]
        return {"chases_40_p99_s": _p99(times)}

    def behind_a_list(self) -> dict[str, float]:
        self._post("/simulator/faults", name="delay", path=LIST_PATH, seconds=LIST_SECONDS)
        with self._beat():
            self._start_chases()
            times, order_times = list[float](), list[float]()
            for number, code in enumerate(self._scene("list")):
                times.append(self._seconds_to_sale(code))
                order_times.append(self._seconds_to_order(self._chased[number]))
        self._post("/simulator/faults", clear=True)
        return {"list_9s_p99_s": _p99(times), "list_9s_order_p99_s": _p99(order_times)}

    def behind_a_sleeper(self) -> dict[str, float]:
        first, *_ = self._scene("asleep")
        with _sleeping_worker():
            sale_seconds = self._seconds_to_sale(first)
        with _sleeping_worker():
            started_at = time.monotonic()
            self._halt()
            halt_seconds = time.monotonic() - started_at
        return {"sleeping_worker_s": round(sale_seconds, 2), "sleeping_worker_halt_s": round(halt_seconds, 2)}

    def _scene(self, name: str) -> Sequence[str]:
        names = list(STOPS)
        start = sum(STOPS[scene] for scene in names[: names.index(name)])
        return self._guarded[start : start + STOPS[name]]

    # --- steps of a scene

    def _arm(self) -> None:
        from aegis.stops import StopKind, StopUnit
        from infra import clock
        from kis.factory import broker
        from orders import stops
        from portfolio.fetcher import KISFetcher

        for code in self._guarded:
            price = self._freeze(code)
            self._post("/simulator/shares", account=ACCOUNT, code=code, quantity=SHARES, cost=SHARES * price)
        KISFetcher(broker(), clock.now).sync_portfolio()
        loss = (StopKind.STOP_LOSS, StopUnit.PERCENT, Decimal(2))
        self._rows = {code: stops.arm(code, *loss, by="check", at=clock.now()).pk for code in self._guarded}

    def _start_chases(self) -> None:
        """Place orders that do not fill, and make all their chases due at once."""
        from aegis.chase import Plan
        from aegis.terms import Side
        from aegis.ticks import get_tick_size
        from infra import clock
        from kis.factory import broker
        from orders import reconcile
        from orders.models import TradeOrder
        from orders.service import OrderIntent, OrderService
        from orders.tasks import chase_check
        from simulator.exchange.listings import STOCKS as LISTED

        TradeOrder.objects.filter(chase_at__isnull=False).update(chase_at=None)
        service, pks = OrderService(broker(), clock.now), list[int]()
        for number in range(CHASES):
            code = self._chased[number % len(self._chased)]
            price = self._freeze(code)
            price -= 5 * get_tick_size(price, LISTED[code].instrument)
            if not reconcile.is_fresh(clock.now()):
                reconcile.reconcile(broker(), clock.now)
            pks.append(service.place(OrderIntent(code, Side.BUY, 1, price=price, plan=Plan(6, 3, 1, True))).pk)
        TradeOrder.objects.filter(pk__in=pks).update(chase_at=clock.now())
        for pk in pks:
            chase_check.delay(pk)
        time.sleep(APART_SECONDS)

    def _seconds_to_sale(self, code: str) -> float:
        """Let a stock fall through its stop; return the seconds from the trigger until the sale is sent."""
        from infra import clock
        from orders import stops
        from orders.models import TradeOrder
        from orders.tasks import stop

        pk, started_at = self._rows[code], time.monotonic()
        price = self._freeze(code, percent=-3)
        triggered_at = clock.now()
        if not stops.trigger(pk, price, triggered_at, seen="feed"):
            raise AssertionError(f"the stop of {code} is not armed")
        stop.delay(pk)
        sale = TradeOrder.objects.filter(request_id__startswith=f"stop:{pk}:", sent_at__isnull=False)
        _wait(sale.exists)
        time.sleep(max(0.0, APART_SECONDS - (time.monotonic() - started_at)))
        first = sale.order_by("sent_at").first()
        return (first.sent_at - triggered_at).total_seconds() if first else PATIENCE_SECONDS

    def _seconds_to_order(self, code: str) -> float:
        """Have a worker place an order that needs no list; return the seconds until it is sent."""
        from infra import clock
        from orders.models import TradeOrder
        from orders.tasks import submit

        request_id, requested_at = f"check-{code}-{time.monotonic_ns()}", clock.now()
        submit.delay(request_id=request_id, code=code, side="BUY", qty=1, strategy="buy_normal")
        order = TradeOrder.objects.filter(request_id=request_id, sent_at__isnull=False)
        _wait(order.exists)
        first = order.first()
        return (first.sent_at - requested_at).total_seconds() if first else PATIENCE_SECONDS

    def _halt(self) -> None:
        from infra import clock
        from orders import kill_switch

        kill_switch.halt(by="check", reason="a worker is asleep", at=clock.now())

    @contextmanager
    def _beat(self) -> Iterator[None]:
        """Send the tasks that beat sends, as often as beat."""
        from django.db import connections

        from orders.tasks import look, sweep, sweep_cancels, sweep_stops

        stop = threading.Event()

        def send() -> None:
            turn = 0
            while not stop.wait(2):
                for task in (sweep, sweep_stops, sweep_cancels, *([look] if turn % 2 else [])):
                    task.apply_async(expires=1)
                turn += 1
            connections.close_all()

        thread = threading.Thread(target=send)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(10)

    def _freeze(self, code: str, percent: int = 0) -> int:
        """Hold a stock at its price, or N percent from it; return that price."""
        from aegis.terms import Market
        from aegis.ticks import adjust_price_to_tick
        from kis.factory import broker
        from simulator.exchange.listings import STOCKS as LISTED

        price = self._base.get(code) or broker().quote(code, Market.KRX).price
        self._base[code] = price
        price = adjust_price_to_tick(price * (100 + percent) // 100, "down", LISTED[code].instrument)
        self._post(f"/simulator/quotes/{code}", price=price, freeze=True)
        return price

    def _post(self, path: str, /, **body: Any) -> None:
        self._http.post(path, json=body).raise_for_status()


@contextmanager
def _sleeping_worker() -> Iterator[None]:
    context = multiprocessing.get_context("spawn")
    is_locked = context.Event()
    process = context.Process(target=fall_asleep, args=(is_locked,))
    process.start()
    try:
        if not is_locked.wait(30):
            raise AssertionError("the sleeping worker did not take its lock")
        yield
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        process.join(10)


def _p99(times: Sequence[float]) -> float:
    """Return the 99th percentile, which is close to the maximum of so few times."""
    print(*(f"{seconds:.3f}" for seconds in times))
    return round(statistics.quantiles(times, n=100, method="inclusive")[98], 3)


def _wait(is_met: Any) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_met() and time.monotonic() < deadline:
        time.sleep(0.02)


if __name__ == "__main__":
    sys.exit(main())
