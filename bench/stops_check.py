"""Stops in two hundred falls of 1 to 30 %, and in eleven scripted scenes: every guarded share is sold, once, in time.

    make stops-check

Two listeners, each on a socket of its own, evaluate every trade, duplicates included. The real `urgent` worker sells at
fifteen calls a second. In every fifth round that worker is killed in the middle, and in one scene at each of its calls;
another worker takes over. Each run must end with every guarded share sold, or offered at the lower limit, both at the
exchange and in our tables. The last line is JSON; exit 1 if a counter that must be zero is not.

`unsold`: shares that are held and not offered at the lower limit. `missed`: stops that did not trigger.
`false_triggers`: stops that triggered at a price above their limit. `below_band`: our own price more than 3 % below the
current one, neither at the plan's market step nor at a locked lower limit. `late`: more than two seconds from the
crossing trade until the order is sent, if no worker was killed; more than ten if a worker was killed.
"""

import contextlib
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import httpx
from django.core.exceptions import ValidationError

from bench import isolation

CALLS_PER_SECOND = 15
ROUNDS = 10
STOCKS = 20
SHARES = 10
LISTENERS = 2
ACCOUNT = "50000000-01"
LARGEST_FALL_PERCENT = 30
KILLED_EVERY = 5
# the stocks fall one after the other, so that the time of a stop does not include the stops before it
APART_SECONDS = 0.3
# how a price falls: in N moves, S seconds apart
WAYS = ((1, 0.1), (3, 0.1), (12, 0.02))
PATIENCE_SECONDS = 90.0
LATE_SECONDS, LATE_AFTER_A_KILL_SECONDS = 2.0, 10.0
SLOW_STOPS = 4
# the broker calls of a sale at which a worker is killed
STEPS = (
    "before sellable_qty",
    "before quote",
    "before book",
    "before place",
    "after place",
    "before cancel",
    "after cancel",
)
# only a check trades this much in so short a time
UNBOUND = {"AEGIS_MAX_ORDERS_PER_MINUTE": "0", "AEGIS_DUPLICATE_SECONDS": "0", "AEGIS_MAX_DAILY_LOSS_PERCENT": "0"}
ZEROS = ("unsold", "oversold", "missed", "false_triggers", "below_band", "late")


def listen(number: int, ready: "Event", finished: "Event") -> None:
    """Hold a socket with an app key of our own, as the stream worker does while it has the lease."""
    os.environ["KIS_APP_KEY"] = f"listener-{number}"
    isolation.set_up_child()
    import threading

    from stream.worker import LeaderSession

    session, stop = LeaderSession(lambda: True), threading.Event()
    thread = threading.Thread(target=session.run, args=(stop,))
    thread.start()
    while not finished.is_set():
        topics = {str(topic) for topic in session.stream.subscriptions.held}
        holds_all = sum(topic.startswith("H0STCNT0") for topic in topics) >= STOCKS
        (ready.set if holds_all else ready.clear)()
        time.sleep(0.05)
    stop.set()
    thread.join()


def main() -> int:
    with isolation.isolated_system() as url, tempfile.TemporaryDirectory(prefix="aegis-stops-") as logs:
        os.environ |= UNBOUND | {"KIS_CALLS_PER_SECOND": str(CALLS_PER_SECOND)}
        check = Check(url, Path(logs))
        with check.workers:
            check.start()
            with _listening() as ready:
                for number in range(ROUNDS):
                    check.round(number, ready)
            figures = check.figures()
            print(figures, flush=True)
            figures |= {"wall_ms_at_1_call": check.at_one_call_a_second()}
            # last, because they move the clock
            scenes = Scenes(check).play()
        figures |= {"scenes": scenes}
    print(json.dumps(figures))
    is_good = not any(figures[name] for name in ZEROS) and all(outcome == "ok" for outcome in scenes.values())
    return 0 if is_good else 1


@contextlib.contextmanager
def _listening() -> Iterator[list["Event"]]:
    context = multiprocessing.get_context("spawn")
    finished, ready = context.Event(), [context.Event() for _ in range(LISTENERS)]
    processes = [context.Process(target=listen, args=(n, ready[n], finished)) for n in range(LISTENERS)]
    for process in processes:
        process.start()
    try:
        yield ready
    finally:
        finished.set()
        for process in processes:
            process.join(20)
            if process.is_alive():
                process.kill()


@dataclass(slots=True)
class Run:
    """One stop in one fall. Prices in won, times in seconds."""

    code: str
    pk: int
    line: int
    bid: int  # the best bid at the crossing
    is_killed: bool
    problems: list[str] = field(default_factory=list)
    wall_seconds: float | None = None
    sold_after_seconds: float | None = None
    lost_won: int = 0


class Check:
    """The rounds and their results."""

    def __init__(self, url: str, logs: Path) -> None:
        from simulator.exchange.listings import STOCKS as LISTED
        from tests.workers import Workers

        self.workers = Workers(logs)
        self.http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self.codes = sorted(LISTED)[:STOCKS]
        self.base = {code: self.price(code) for code in self.codes}
        self.runs: list[Run] = []

    def start(self) -> None:
        self.worker = self.start_worker()

    def start_worker(self, **options: str) -> Any:
        from ops import processes

        return self.workers.start("urgent", threads=processes.URGENT_THREADS, **options)

    def stop_worker(self) -> None:
        self.worker.kill()
        self.worker.wait()

    # --- falls

    def round(self, number: int, ready: list["Event"]) -> None:
        self.post("/simulator/faults", name="frame_giant", times=2, probability=0.5)
        is_killed = number % KILLED_EVERY == KILLED_EVERY - 1
        percents = [_percent(number * STOCKS + n) for n in range(STOCKS)]
        self._hold_shares()
        runs = [self._arm(code, percent, is_killed) for code, percent in zip(self.codes, percents, strict=True)]
        time.sleep(2.5)  # by then every listener has read the stop rules, and knows its subscriptions
        _wait(lambda: all(event.is_set() for event in ready), "both listeners to subscribe every stock")
        for run in runs:
            self.freeze_price(
                run.code, self.moved(run.code, -_line_percent(percents[runs.index(run)]) / 2)
            )  # a near miss
        for place, (run, percent) in enumerate(zip(runs, percents, strict=True)):
            if is_killed and place == STOCKS // 2:
                self.stop_worker()
                self._fall(run, percent)
                self.worker = self.start_worker()
            else:
                self._fall(run, percent)
            time.sleep(APART_SECONDS)
        self.post("/simulator/faults", clear=True)
        self.follow([run.pk for run in runs])
        for run in runs:
            self._judge(run)

    def _hold_shares(self) -> None:
        from infra import clock
        from kis.factory import broker
        from portfolio.fetcher import KISFetcher

        for code in self.codes:
            self.freeze_price(code, self.base[code])
            self.give(code, SHARES)
        KISFetcher(broker(), clock.now).sync_portfolio()

    def _arm(self, code: str, percent: float, is_killed: bool) -> Run:
        line = self.moved(code, -_line_percent(percent))
        return Run(code, self.arm(code, line), line, self.bid(code), is_killed)

    def _fall(self, run: Run, percent: float) -> None:
        """Let the price fall at once, in some moves, or in many moves while the order is being sent: in turn by run."""
        start, (moves, seconds) = _line_percent(percent), WAYS[len(self.runs) % len(WAYS)]
        self.runs.append(run)
        for move in range(moves):
            target = start + (percent - start) * (move + 1) / moves
            self.freeze_price(run.code, self.moved(run.code, -target))
            if move == 0:
                run.bid = self.bid(run.code)
            time.sleep(seconds)

    # --- checks

    def _judge(self, run: Run) -> None:
        from orders.models import StopRule

        row = StopRule.objects.get(pk=run.pk)
        orders = list(row.sales.order_by("pk"))
        sent = [order for order in orders if order.sent_at is not None]
        triggers = row.events.filter(kind="TRIGGERED").count()
        if triggers != 1 or row.triggered_at is None:
            run.problems.append("missed" if triggers == 0 else "false_triggers")
            return
        if row.trigger_price > run.line:
            run.problems.append("false_triggers")
        sold = sum(order.filled_qty for order in orders)
        run.lost_won = sum(run.bid * order.filled_qty - order.filled_amount for order in orders)
        offered = self._offered_at_lower_limit(run)
        if sold > SHARES:
            run.problems.append("oversold")
        if sold + offered < SHARES:
            run.problems.append("unsold")
        if any(_is_below_band(order, self) for order in sent):
            run.problems.append("below_band")
        run.wall_seconds = (sent[0].sent_at - row.triggered_at).total_seconds() if sent else None
        limit_seconds = LATE_AFTER_A_KILL_SECONDS if run.is_killed else LATE_SECONDS
        if run.wall_seconds is None or run.wall_seconds > limit_seconds:
            run.problems.append("late")
        if sold == SHARES:
            last = max(fill.executed_at for order in orders for fill in order.executions.all())
            run.sold_after_seconds = max(0.0, (last - row.triggered_at).total_seconds())
        if run.problems:
            print(run, row.state, row.note, *row.events.all(), sep="; ")

    def _offered_at_lower_limit(self, run: Run) -> int:
        """Return the shares offered at the lower limit, by the broker's order list."""
        from aegis.terms import Side
        from infra import clock
        from kis.factory import broker

        key = (run.code, Side.SELL, self.quote(run.code).lower_limit)
        today = clock.now().date()
        lines = [line for line in broker().orders(today, today) if (line.code, line.side, line.price) == key]
        return sum(line.open_qty for line in lines)

    def at_one_call_a_second(self) -> dict[str, float]:
        """Time a few stops with a worker that may make one call a second, as in paper trading."""
        self._restart(KIS_CALLS_PER_SECOND="1")
        times = []
        for code in self.codes[:SLOW_STOPS]:
            pk = self.armed_and_triggered(code, percent=3)
            with contextlib.suppress(TimeoutError):
                # no other process calls the broker meanwhile: all share one call limit
                _wait(lambda pk=pk: self.wall(pk) < PATIENCE_SECONDS, "the sale to leave")
            times.append(self.wall(pk))
            time.sleep(3)
        self._restart()
        return _spread([seconds * 1000 for seconds in times])

    def _restart(self, **variables: str) -> None:
        self.stop_worker()
        self.worker = self.start_worker(**variables)

    # --- steps of a scene

    def armed_and_triggered(self, code: str, percent: float = 3, quantity: int | None = None) -> int:
        """Hold shares, arm a stop, and trigger it for a fall; return its number."""
        pk = self.armed(code, percent, quantity)
        self.freeze_price(code, self.moved(code, -percent))
        self.trigger(pk, self.moved(code, -percent))
        return pk

    def armed(self, code: str, percent: float, quantity: int | None = None) -> int:
        """Hold shares and arm a stop a little above a fall of `percent`; return its number."""
        self.freeze_price(code, self.base[code])
        self.give(code, SHARES)
        self.sync()
        return self.arm(code, self.moved(code, -percent + 0.5), quantity)

    def trigger(self, pk: int, price: int) -> None:
        from infra import clock
        from orders import stops
        from orders.tasks import stop

        assert stops.trigger(pk, price, clock.now(), seen="check")
        stop.delay(pk)

    def arm(self, code: str, line: int, quantity: int | None = None) -> int:
        from aegis.stops import StopKind, StopUnit
        from infra import clock
        from orders import stops

        loss = (StopKind.STOP_LOSS, StopUnit.PRICE, Decimal(line))
        return stops.arm(code, *loss, by="check", at=clock.now(), quantity=quantity).pk

    def wall(self, pk: int) -> float:
        from orders.models import StopRule

        row = StopRule.objects.get(pk=pk)
        first = row.sales.filter(sent_at__isnull=False).order_by("pk").first()
        return (first.sent_at - row.triggered_at).total_seconds() if first else PATIENCE_SECONDS

    def sync(self) -> None:
        from infra import clock
        from kis.factory import broker
        from portfolio.fetcher import KISFetcher

        KISFetcher(broker(), clock.now).sync_portfolio()

    def work(self) -> None:
        """Do the work of beat: send the steps that are due, and read the broker's order list."""
        from infra import clock
        from kis.factory import broker
        from orders import cancel_driver, reconcile, stops
        from orders.tasks import stop

        for pk in stops.due_stops(clock.now()):
            stop.delay(pk)
        for pk in cancel_driver.due_cancels(clock.now()):
            cancel_driver.drive(pk, broker(), clock.now)
        reconcile.reconcile(broker(), clock.now)
        time.sleep(0.5)

    def follow(self, rows: Sequence[int]) -> None:
        """Work until every stop is over, or its order rests at the lower limit."""
        from orders import stops
        from orders.models import StopRule

        def are_over() -> bool:
            self.work()
            live = StopRule.objects.filter(pk__in=rows, state__in=stops.SELLING)
            return all(self._is_at_the_lower_limit(row) for row in live)

        with contextlib.suppress(TimeoutError):
            _wait(are_over, "every stop to be over")

    def _is_at_the_lower_limit(self, row: Any) -> bool:
        return row.order is not None and row.order.is_open and row.order.price == self.quote(row.stock_code).lower_limit

    def moved(self, code: str, percent: float) -> int:
        """Return the price of a stock that has moved by `percent` from its base, within the day's limits."""
        from aegis.ticks import adjust_price_to_tick
        from simulator.exchange.listings import STOCKS as LISTED

        target = int(self.base[code] * (100 + percent) / 100)
        price = adjust_price_to_tick(target, "down", LISTED[code].instrument)
        return max(price, self.quote(code).lower_limit)

    def quote(self, code: str) -> Any:
        if code not in self._quotes:
            from aegis.terms import Market
            from kis.factory import broker

            self._quotes[code] = broker().quote(code, Market.KRX)
        return self._quotes[code]

    _quotes: dict[str, Any] = {}

    def price(self, code: str) -> int:
        return int(self.quote(code).price)

    def bid(self, code: str) -> int:
        bids = self.post(f"/simulator/quotes/{code}")["bids"]
        return int(bids[0][0]) if bids else self.quote(code).lower_limit

    def freeze_price(self, code: str, price: int) -> None:
        self.post(f"/simulator/quotes/{code}", price=price, freeze=True)

    def give(self, code: str, qty: int) -> None:
        self.post("/simulator/shares", account=ACCOUNT, code=code, quantity=qty, cost=qty * self.base[code])

    def post(self, path: str, /, **body: Any) -> Any:
        return self.http.post(path, json=body).raise_for_status().json()

    # --- figures

    def figures(self) -> dict[str, Any]:
        return self.figures_of_falls() | {"own_ms": self._own_times()}

    def figures_of_falls(self) -> dict[str, Any]:
        undisturbed = [run for run in self.runs if not run.is_killed and run.wall_seconds is not None]
        killed = [run.wall_seconds for run in self.runs if run.is_killed and run.wall_seconds is not None]
        sold = [run.sold_after_seconds for run in self.runs if run.sold_after_seconds is not None]
        problems = {name: sum(name in run.problems for run in self.runs) for name in ZEROS}
        return {
            "runs": len(self.runs),
            **problems,
            "wall_ms_at_15_calls": _spread(
                [1000 * run.wall_seconds for run in undisturbed if run.wall_seconds is not None]
            ),
            "with_a_killed_worker_ms": _spread([1000 * seconds for seconds in killed]),
            "trigger_to_last_share_s": _spread(sold),
            "won_lost_against_the_bid": _spread([float(run.lost_won) for run in self.runs]),
        }

    def _own_times(self) -> dict[str, float]:
        """Time one step of the sale in this process, without the time of the broker's replies; in milliseconds."""
        from infra import clock
        from kis.factory import broker
        from orders import stops
        from orders.models import StopRule

        self.stop_worker()
        times = []
        for code in self.codes:
            timed_broker = _TimedBroker(broker())
            self.freeze_price(code, self.base[code])
            self.give(code, SHARES)
            self.sync()
            pk = self.arm(code, self.moved(code, -2))
            self.freeze_price(code, self.moved(code, -3))
            started_at = time.perf_counter()
            stops.trigger(pk, self.moved(code, -3), clock.now(), seen="check")
            stops.run_sale_step(pk, timed_broker, clock.now)  # type: ignore[arg-type]
            left_at = timed_broker.left_at or time.perf_counter()
            times.append((left_at - started_at - timed_broker.seconds) * 1000)
            stops.disarm(StopRule.objects.get(pk=pk), why="check", at=clock.now())
            time.sleep(0.3)
        self.worker = self.start_worker()
        return _spread(times)


class _TimedBroker:
    """A broker that adds up the time of its replies before an order, and records when the order is sent."""

    def __init__(self, broker: Any) -> None:
        self._broker, self.seconds, self.left_at = broker, 0.0, 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name) if name == "place" else self._timed(getattr(self._broker, name))

    def place(self, request: Any) -> Any:
        self.left_at = time.perf_counter()
        return self._broker.place(request)

    def _timed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any) -> Any:
            started_at = time.perf_counter()
            try:
                return call(*args)
            finally:
                self.seconds += time.perf_counter() - started_at

        return timed


class Scenes:
    """Eleven scripted scenes. Each returns what went wrong, or an empty string."""

    def __init__(self, check: Check) -> None:
        self._check = check
        self._night = 0  # a stop that is triggered at night

    def play(self) -> dict[str, str]:
        names = [name for name in dir(self) if name.startswith("scene_")]
        outcomes = {}
        for number, name in enumerate(names):
            code = self._check.codes[-1 if name == "scene_zz_next_morning" else number]
            try:
                outcomes[name.removeprefix("scene_")] = getattr(self, name)(code) or "ok"
            except (AssertionError, TimeoutError, httpx.HTTPError, ValidationError) as error:
                outcomes[name.removeprefix("scene_")] = f"{type(error).__name__}: {error}"
            print(name, outcomes[name.removeprefix("scene_")], flush=True)
        return outcomes

    def _work(self, seconds: float) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._check.work()

    def _state(self, pk: int) -> tuple[str, int, list[Any]]:
        from orders.models import StopRule

        row = StopRule.objects.get(pk=pk)
        orders = list(row.sales.order_by("pk"))
        return row.state, sum(order.filled_qty for order in orders), orders

    def _expect(self, pk: int, state: str, sold: int) -> str:
        is_state, is_sold, orders = self._state(pk)
        if (is_state, is_sold) == (state, sold):
            return ""
        return f"{is_state} with {is_sold} sold by {[(o.price, o.order_kind, o.status) for o in orders]}"

    def scene_external_sale_locks_shares(self, code: str) -> str:
        check = self._check
        check.freeze_price(code, check.base[code])
        check.give(code, SHARES)
        order = {"account": ACCOUNT, "code": code, "side": "SELL", "quantity": 6, "price": check.moved(code, 5)}
        number = check.post("/simulator/orders", **order)["number"]
        pk = check.armed_and_triggered(code)
        self._work(8)
        if problem := self._expect(pk, "TRIGGERED", 4):
            return problem
        check.post("/simulator/orders", account=ACCOUNT, cancel=int(number))
        check.follow([pk])
        return self._expect(pk, "DONE", SHARES)

    def scene_two_stops_one_sale(self, code: str) -> str:
        from infra import clock
        from orders import stops
        from orders.tasks import stop

        check = self._check
        check.freeze_price(code, check.base[code])
        check.give(code, SHARES)
        check.sync()
        rows = [check.arm(code, check.moved(code, -2)), check.arm(code, check.moved(code, -2.5))]
        check.freeze_price(code, check.moved(code, -3))
        for pk in rows:
            assert stops.trigger(pk, check.moved(code, -3), clock.now(), seen="check")
            stop.delay(pk)
        check.follow(rows)
        return self._expect(rows[0], "DONE", SHARES) or self._expect(rows[1], "DONE", 0)

    def scene_disarmed_in_flight(self, code: str) -> str:
        from infra import clock
        from orders import stops
        from orders.models import StopRule

        check = self._check
        check.post("/simulator/faults", name="delay_before", path="/uapi/domestic-stock/v1/quotations", seconds=2)
        pk = check.armed_and_triggered(code)
        time.sleep(1)
        stops.disarm(StopRule.objects.get(pk=pk), why="check", at=clock.now())
        self._work(6)
        check.post("/simulator/faults", clear=True)
        return self._expect(pk, "DISARMED", 0)

    def scene_external_cancel_holds(self, code: str) -> str:
        check = self._check
        pk = self._resting(code)
        order = self._state(pk)[2][0]
        check.post("/simulator/orders", account=ACCOUNT, cancel=int(order.order_no))
        self._work(6)
        return self._expect(pk, "HELD_EXTERNALLY", 0)

    def scene_volatility_interruption(self, code: str) -> str:
        check = self._check
        check.freeze_price(code, check.base[code])
        check.post(f"/simulator/quotes/{code}", vi="dynamic")
        pk = check.armed_and_triggered(code, percent=0.6)
        self._work(6)
        state, _, orders = self._state(pk)
        if state != "ORDERED" or [order.order_kind for order in orders] != ["01"]:
            return f"{state}, {[order.order_kind for order in orders]}"
        self._skip(150)
        check.follow([pk])
        return self._expect(pk, "DONE", SHARES) or ("" if len(self._state(pk)[2]) == 1 else "it left its place")

    def scene_lower_limit_keeps_its_place(self, code: str) -> str:
        pk = self._check.armed_and_triggered(code, percent=LARGEST_FALL_PERCENT)
        self._work(4)
        self._skip(60)
        self._work(4)
        lower = self._check.quote(code).lower_limit
        orders = self._state(pk)[2]
        is_kept = [(order.price, order.status) for order in orders] == [(lower, "PENDING")]
        return "" if is_kept else str([(order.price, order.status) for order in orders])

    def scene_unknown_sale(self, code: str) -> str:
        check = self._check
        path = "/uapi/domestic-stock/v1/trading/order-cash"
        check.post("/simulator/faults", name="answer_lost", path=path, count=1)
        pk = check.armed_and_triggered(code)
        check.follow([pk])
        check.post("/simulator/faults", clear=True)
        return self._expect(pk, "DONE", SHARES)

    def scene_killed_at_each_step(self, code: str) -> str:
        """A worker is killed at each broker call of a sale, before and after it; another takes over and sells once."""
        check = self._check
        for step in STEPS:
            pk = self._resting(code) if "cancel" in step else check.armed(code, 3)
            check.stop_worker()
            dying = check.start_worker(name="dying", include="bench.dying", DIES_AT=step)
            if "cancel" not in step:
                check.freeze_price(code, check.moved(code, -3))
                check.trigger(pk, check.moved(code, -3))
            _wait(lambda dying=dying: dying.poll() is not None or bool(check.work()), f"the worker to die {step}")
            check.start()
            check.follow([pk])
            if problem := self._expect(pk, "DONE", SHARES):
                return f"killed {step}: {problem}"
        return ""

    def scene_fixed_quantity(self, code: str) -> str:
        pk = self._check.armed_and_triggered(code, quantity=4)
        self._check.follow([pk])
        return self._expect(pk, "DONE", 4)

    def scene_z_closing_auction(self, code: str) -> str:
        check = self._check
        self._clock("2026-11-23T15:22:00+09:00")
        self._night = check.armed(check.codes[-1], 3)
        pk = check.armed_and_triggered(code)
        self._work(4)
        self._skip(60)
        self._work(4)
        orders = self._state(pk)[2]
        if [(order.order_kind, order.status) for order in orders] != [("01", "PENDING")]:
            return str([(order.order_kind, order.status) for order in orders])
        self._clock("2026-11-23T15:30:12+09:00")
        check.follow([pk])
        return self._expect(pk, "DONE", SHARES)

    def scene_zz_next_morning(self, code: str) -> str:
        """A stop that triggers at night waits, and sells on NXT in the morning."""
        check, pk = self._check, self._night
        self._clock("2026-11-23T20:05:00+09:00")
        check.trigger(pk, check.moved(code, -3))
        self._work(4)
        if self._state(pk)[2]:
            return "it ordered at night"
        self._clock("2026-11-24T08:01:00+09:00")
        check.follow([pk])
        return self._expect(pk, "DONE", SHARES)

    def _resting(self, code: str) -> int:
        """Return a stop whose order rests above the market."""
        check = self._check
        check.post(
            "/simulator/faults", name="delay_before", path="/uapi/domestic-stock/v1/trading/order-cash", seconds=2
        )
        pk = check.armed_and_triggered(code, percent=2)
        time.sleep(1)
        check.freeze_price(code, check.moved(code, -5))
        check.post("/simulator/faults", clear=True)
        _wait(lambda: bool(self._state(pk)[2]) and bool(self._state(pk)[2][0].order_no), "the order")
        return pk

    def _skip(self, seconds: float) -> None:
        from infra import clock

        self._clock((clock.now() + timedelta(seconds=seconds)).isoformat())

    def _clock(self, moment: str) -> None:
        self._check.post("/simulator/clock", now=moment)
        self._check._quotes.clear()


def _percent(number: int) -> float:
    """Return the size of the fall with this number: sizes are spread evenly from 1 to 30 %."""
    return 1 + (LARGEST_FALL_PERCENT - 1) * number / (ROUNDS * STOCKS - 1)


def _line_percent(percent: float) -> float:
    """Return how far below the price the stop of such a fall is, in percent."""
    return min(2.0, 0.7 * percent)


def _is_below_band(order: Any, check: Check) -> bool:
    """Whether an order's own price was more than 3 % below the price of its quote, and not the lower limit."""
    lower = check.quote(order.stock_code).lower_limit
    if order.order_kind == "01" or order.price == lower:
        return False
    return bool(order.price * 100 < order.arrival_price * 97)


def _spread(values: Sequence[float]) -> dict[str, float]:
    if len(values) < 2:
        return {"median": round(values[0], 1) if values else 0.0, "p99": 0.0}
    return {"median": round(statistics.median(values), 1), "p99": round(statistics.quantiles(values, n=100)[98], 1)}


def _wait(is_met: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_met():
        if time.monotonic() > deadline:
            raise TimeoutError(f"gave up waiting for {what}")
        time.sleep(0.05)


if __name__ == "__main__":
    sys.exit(main())
