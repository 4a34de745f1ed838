"""Forty orders chased three times, by cancel and by amend: the calls that it costs, and how long no order is open.

    make chase-cost

The real service and client on a real PostgreSQL and the simulator, in one process that takes each step when it is due,
without the rate limiter: this measures the chase, not the call limit. The last line is JSON: the calls of an order
family by operation, pages of the order list included, its calls that order, amend or cancel, and the seconds in which
the exchange had no open order of it. Exit 1 if a family was not chased three times, or if it ever had more shares open
or filled than were wanted.
"""

import itertools
import json
import statistics
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

import httpx

from bench import isolation

if TYPE_CHECKING:
    from orders.models import TradeOrder

STOCKS = 20
ORDERS_EACH = 2
RETRIES = 3
QTY = 3
# so far below the last price that no re-order is filled
TICKS_BELOW = -10
WAIT_SECONDS = 2.0
PATIENCE_SECONDS = 80.0
ACCOUNT = "50000000-01"
WAYS = ("cancel", "amend")
# the sector that AEGIS_EXCLUDED_SECTORS excludes
EXCLUDED = "전기·가스"
ORDERING = ("order-cash", "order-rvsecncl")
Events = Sequence[Mapping[str, Any]]


def main() -> int:
    if sys.argv[1:]:
        print(json.dumps(_run(sys.argv[1])))
        return 0
    # each way has a process, a database and a simulator of its own: the order list grows with every order of the day
    figures = {by: _run_in_subprocess(by) for by in WAYS}
    print(json.dumps({"orders": STOCKS * ORDERS_EACH, "retries": RETRIES, **figures}))
    return 0 if all(figure["whole"] for figure in figures.values()) else 1


def _run_in_subprocess(by: str) -> dict[str, Any]:
    command = [sys.executable, *(f"-W{option}" for option in sys.warnoptions), "-m", "bench.chase_cost", by]
    result = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return dict(json.loads(result.stdout.splitlines()[-1]))


def _run(by: str) -> dict[str, Any]:
    with isolation.isolated_system() as url:
        # AEGIS_* variables are removed from the environment: a shell's settings must not change the figures
        _disable_limits()
        return Run(url, by).figures()


def _disable_limits() -> None:
    """Disable our own limits: only a check trades this much in a minute."""
    from django.conf import settings

    settings.MAX_AUTO_REQUESTS_PER_MINUTE = settings.MAX_ORDERS_PER_MINUTE = settings.DUPLICATE_SECONDS = 0


class Run:
    """One way to chase, from the first order to the last step."""

    def __init__(self, url: str, by: str) -> None:
        from django.conf import settings

        from infra import clock
        from kis.factory import broker
        from orders.service import OrderService

        settings.CHASE_BY = by
        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        self._broker = broker()
        self._now = clock.now
        self._service = OrderService(self._broker, clock.now)
        self._roots = self._place()
        self._event_count_before = len(self._events())
        self._chase()
        self._events_of_the_chase = self._events()[self._event_count_before :]
        self._service.cancel_all()

    def _place(self) -> list[int]:
        from aegis.chase import Plan
        from aegis.terms import Market, Side
        from orders.service import OrderIntent
        from simulator.exchange.listings import STOCKS as LISTED

        plan, roots = Plan(WAIT_SECONDS, RETRIES, 1, market_after=False), []
        options: dict[str, Any] = {"strategy": "buy_normal", "tick_offset": TICKS_BELOW, "plan": plan}
        for code in [code for code, stock in LISTED.items() if stock.sector != EXCLUDED][:STOCKS]:
            self._hold(code)
            for _ in range(ORDERS_EACH):
                order = self._service.place(OrderIntent(code, Side.BUY, QTY, market=Market.KRX, **options))
                roots.append(order.pk)
        return roots

    def _hold(self, code: str) -> None:
        from aegis.terms import Market

        body = {"price": self._broker.quote(code, Market.KRX).price, "freeze": True}
        self._http.post(f"/simulator/quotes/{code}", json=body).raise_for_status()

    def _chase(self) -> None:
        """Take each order's steps when they are due, until the last retry of every family rests."""
        from orders import chase
        from orders.models import TradeOrder

        deadline = time.monotonic() + PATIENCE_SECONDS
        while TradeOrder.objects.filter(chase_at__isnull=False).exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"gave up waiting for {len(self._roots)} families to be chased {RETRIES} times")
            for pk in chase.due_orders(self._now()):
                chase.run_due_steps(pk, self._broker, self._now)
            for order in TradeOrder.objects.filter(attempt=RETRIES, chase_at__isnull=False, status="PENDING"):
                self._service.end_chase(order, "it was chased often enough")
            time.sleep(0.02)

    def _events(self) -> list[dict[str, Any]]:
        reply = self._http.get("/simulator/events", params={"since": 0}).raise_for_status()
        return list(reply.json()["events"])

    # --- results

    def figures(self) -> dict[str, Any]:
        calls = Counter(
            event["path"].rsplit("/", 1)[-1] for event in self._events_of_the_chase if event["event"] == "request"
        )
        families, events = self._families(), self._events()
        idle = [idle_seconds([number for number in family if number], events) for family in families.values()]
        return {
            "calls_per_family": {name: round(count / len(families), 2) for name, count in sorted(calls.items())},
            "all_calls_per_family": round(sum(calls.values()) / len(families), 2),
            "orders_amends_and_cancels_per_family": round(sum(calls[name] for name in ORDERING) / len(families), 2),
            "seconds_without_an_open_order": {
                "median": round(statistics.median(idle), 3),
                "most": round(max(idle), 3),
            },
            "whole": all(len(family) == RETRIES + 1 for family in families.values())
            and all(max_exposure(family, events) <= QTY for family in families.values()),
        }

    def _families(self) -> dict[int, list[int]]:
        """Return the numbers of each family's orders, oldest first."""
        from orders.models import TradeOrder

        families = defaultdict[int, list[int]](list)
        for order in TradeOrder.objects.filter(origin="AEGIS").order_by("attempt"):
            if order.root_pk in self._roots:
                families[order.root_pk].append(_number(order))
        return families


def _number(order: "TradeOrder") -> int:
    return int(order.order_no or 0)


def idle_seconds(numbers: Sequence[int], events: Events) -> float:
    """Return the seconds between the end of each order of a family at the exchange and the acceptance of the next."""
    accepted_at, ended_at = dict[int, datetime](), dict[int, datetime]()
    for event in events:
        if event["event"] == "order" and event["order"]["number"] in numbers:
            accepted_at[event["order"]["number"]] = datetime.fromisoformat(event["at"])
        elif event["event"] in ("cancel", "fill") and event["number"] in numbers:
            ended_at[event["number"]] = datetime.fromisoformat(event["at"])
    pairs = itertools.pairwise(numbers)
    return sum(max(0.0, (accepted_at[after] - ended_at[before]).total_seconds()) for before, after in pairs)


def max_exposure(numbers: Sequence[int], events: Events) -> int:
    """Return the most shares of a family that were ever open or filled; an amend is one moment."""
    open_qty, filled, most = dict[int, int](), 0, 0
    for event in events:
        number = event["order"]["number"] if event["event"] == "order" else event.get("number")
        if number not in numbers:
            continue
        if event["event"] == "order":
            open_qty[number] = event["order"]["quantity"]
            if event["order"]["request"] == "amend":
                continue  # the event that takes the shares from the old number follows
        elif event["event"] in ("cancel", "fill", "reject"):
            open_qty[number] -= event["quantity"]
            filled += event["quantity"] if event["event"] == "fill" else 0
        most = max(most, filled + sum(open_qty.values()))
    return most


if __name__ == "__main__":
    sys.exit(main())
