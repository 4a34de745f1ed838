"""Three app keys and a hundred holdings with stops: which feeds they carry, and what happens if a key is revoked.

    make keys-check

First every stop must have its feed of KRX, and of NXT as far as ranks allow. Then one key after the other is revoked:
every stop must be evaluated again, by a feed or by a polled price, within 15 s. Then the fill notice moves from key to
key two hundred times, with a fill in the middle of each move, which must count once. Sockets, tables and Redis are
real. A part that takes too long ends early and fails. The last line is JSON; exit 1 if a check fails.
"""

import itertools
import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import httpx

from bench import isolation

KEYS = ("rehearsal", "second-key", "third-key")
HOLDINGS = 100
SHARES = 10
MOVES = 200
ACCOUNT = "50000000-01"
# cheap, and without a stop
ORDERED = "008970"
EVALUATED_SECONDS = 15.0
WATCH_SECONDS = 5.0
COVERED_SECONDS = 60.0
MOVES_SECONDS = 130.0
SETTINGS = {
    "AEGIS_SIMULATOR_STOCKS": "120",
    "KIS_APP_KEYS": ",".join(f"{key}:{key}-secret" for key in KEYS[1:]),
    # only a check trades this much in so short a time
    "AEGIS_MAX_ORDERS_PER_MINUTE": "0",
    "AEGIS_DUPLICATE_SECONDS": "0",
    "AEGIS_MAX_DAY_WON": "0",
    "AEGIS_MAX_POSITION_PERCENT": "0",
}


def main() -> int:
    started_at = time.monotonic()
    with isolation.isolated_system(**SETTINGS) as url:
        check = Check(url)
        check.hold_and_arm()
        with check.listening(), check.trading():
            figures: dict[str, Any] = {"keys": len(KEYS), "stops": HOLDINGS, **check.coverage()}
            figures["revoked"] = [check.revoke(number) for number in (3, 2)]
        # a second leader session: it has no state of the revoked keys
        with check.listening():
            figures |= check.moves()
    figures["seconds"] = round(time.monotonic() - started_at, 1)
    print(json.dumps(figures))
    return 0 if _has_passed(figures) else 1


def _has_passed(figures: dict[str, Any]) -> bool:
    covered = figures["on_krx"] == HOLDINGS and figures["on_nxt"] == figures["room_for_nxt"]
    evaluated = all(result["evaluated"] == HOLDINGS for result in figures["revoked"])
    return covered and evaluated and figures["once"] == figures["moves"] == MOVES and figures["ledger"] == "EQUAL"


class Check:
    """The system under test, its stops, and the trades that they received."""

    def __init__(self, url: str) -> None:
        from simulator.exchange.listings import STOCKS

        self._http = httpx.Client(base_url=url, timeout=30, trust_env=False)
        # the stocks of both venues first
        listed = sorted(STOCKS, key=lambda code: (not STOCKS[code].on_nxt, code))
        self.codes = [code for code in listed if code != ORDERED][:HOLDINGS]
        self.listed_on_nxt = sum(STOCKS[code].on_nxt for code in self.codes)
        self.heard: dict[str, float] = {}
        self.polled: dict[str, float] = {}
        self._random = random.Random(1)

    # --- the system under test

    def hold_and_arm(self) -> None:
        from decimal import Decimal

        from infra import clock
        from kis.factory import broker
        from market import interest, reference_data
        from orders.models import StopRule
        from portfolio.fetcher import KISFetcher

        for code in self.codes:
            price = self._post(f"/simulator/quotes/{code}", freeze=True)["price"]
            self._post("/simulator/shares", account=ACCOUNT, code=code, quantity=SHARES, cost=SHARES * price)
        self._post(f"/simulator/quotes/{ORDERED}", freeze=True)
        KISFetcher(broker(), clock.now).sync_portfolio()
        reference_data.sync_stocks(broker(), interest.codes(clock.now()), now=clock.now())
        now = clock.now()
        StopRule.objects.bulk_create(
            StopRule(
                stock_code=code, kind="STOP_LOSS", unit="PERCENT", value=Decimal(25),
                state_at=now, armed_at=now, armed_by="check",
            )
            for code in self.codes
        )  # fmt: skip

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Hold the sockets as the stream worker does, and poll as beat has a worker do."""
        from kis.factory import broker
        from stream import gaps, worker
        from stream.consumers import TRADES, Consumer

        def note(trades: Sequence[Any], arrived: float) -> None:
            self.heard.update((trade.code, time.monotonic()) for trade in trades)

        original = worker.CONSUMERS
        worker.CONSUMERS = (*original, lambda: Consumer(handlers=dict.fromkeys(TRADES.values(), note)))
        self.reconcile_wanted = threading.Event()
        polling_broker = _RecordingBroker(broker(), self.polled)
        gaps.broker = lambda: polling_broker
        worker.reconcile.delay = self.reconcile_wanted.set  # no worker runs here
        self.term, stop = worker.LeaderSession(lambda: True), threading.Event()
        threads = [
            threading.Thread(target=self.term.run, args=(stop,)),
            threading.Thread(target=self._publish, args=(stop,)),
            threading.Thread(target=self._watch, args=(stop,)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join(20)
            worker.CONSUMERS = original

    def _publish(self, stop: threading.Event) -> None:
        from infra.lease import Lease
        from kis import status
        from kis.factory import store, stream_key

        lease = Lease(store(), stream_key("check"), 6.0)
        while not stop.wait(1.0):
            status.publish(store(), stream_key("stream"), self.term.status(lease))

    def _watch(self, stop: threading.Event) -> None:
        from django.db import connection

        from infra import clock
        from kis.factory import broker, stream_status
        from orders import stop_polling

        polling_broker = _RecordingBroker(broker(), self.polled)
        while not stop.wait(WATCH_SECONDS):
            stop_polling.check_stops(polling_broker, stream_status(), clock.now)  # type: ignore[arg-type]
        connection.close()

    @contextmanager
    def trading(self) -> Iterator[None]:
        """Trade every stock repeatedly."""
        stop = threading.Event()
        thread = threading.Thread(target=self._trade, args=(stop,))
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(20)

    def _trade(self, stop: threading.Event) -> None:
        """Trade each stock at its best ask and its best bid in turn: each time at another price, so it does trade."""
        quotes = {code: self._post(f"/simulator/quotes/{code}") for code in self.codes}
        for side in itertools.cycle(("asks", "bids")):
            for code in self.codes:
                if stop.wait(0.005):
                    return
                if levels := quotes[code][side]:
                    quotes[code] = self._post(f"/simulator/quotes/{code}", price=levels[0][0], freeze=True)

    # --- checks

    def coverage(self) -> dict[str, Any]:
        streams = self.term.streams
        _wait(lambda: self._count("H0STCNT0") >= HOLDINGS, COVERED_SECONDS)
        capacity = sum(stream.subscriptions.limit for stream in streams.members)
        # minus two subscriptions: the fill notice and the feed of priority REFERENCE
        room = min(self.listed_on_nxt, capacity - HOLDINGS - 2)
        _wait(lambda: self._count("H0NXCNT0") >= room, COVERED_SECONDS)
        return {
            "on_krx": self._count("H0STCNT0"),
            "on_nxt": self._count("H0NXCNT0"),
            "listed_on_nxt": self.listed_on_nxt,
            "room_for_nxt": room,
            "registrations": [len(stream.held) for stream in streams.members],
        }

    def _count(self, tr_id: str) -> int:
        codes = {topic.key for topic in self.term.streams.held if topic.tr_id == tr_id}
        return len(codes.intersection(self.codes))

    def revoke(self, number: int) -> dict[str, Any]:
        """Revoke one key, and measure when each stop is evaluated again."""
        stream = self.term.streams.members[number - 1]
        subscription_count = len(stream.held)
        started_at = time.monotonic()
        self._post("/simulator/keys", key=KEYS[number - 1], revoked=True)
        revoked_at = time.monotonic()

        def evaluated() -> dict[str, float]:
            times = {code: self._evaluated_after(code, revoked_at) for code in self.codes}
            return {code: at for code, at in times.items() if at is not None}

        _wait(lambda: len(evaluated()) == HOLDINGS and not stream.held, EVALUATED_SECONDS - (revoked_at - started_at))
        evaluated_at = evaluated()
        by_feed = sum(self.heard.get(code, 0.0) > revoked_at for code in evaluated_at)
        figures = {
            "key": number,
            "carried": subscription_count,
            "evaluated": len(evaluated_at),
            "slowest_seconds": round(max(evaluated_at.values(), default=0.0) - started_at, 1),
            "by_feed": by_feed,
            "by_polling_only": len(evaluated_at) - by_feed,
        }
        self._post("/simulator/keys", key=KEYS[number - 1], revoked=False)
        _wait(lambda: self._count("H0STCNT0") >= HOLDINGS, COVERED_SECONDS)
        return figures

    def _evaluated_after(self, code: str, moment: float) -> float | None:
        times = [source.get(code, 0.0) for source in (self.heard, self.polled)]
        return min((at for at in times if at > moment), default=None)

    def moves(self) -> dict[str, Any]:
        """Move the fill notice MOVES times, each time with a fill in the middle."""
        from kis import stream

        original, stream.CHECK_SECONDS = stream.CHECK_SECONDS, 0.05
        try:
            return self._moves()
        finally:
            stream.CHECK_SECONDS = original

    def _moves(self) -> dict[str, Any]:
        from infra import clock
        from kis.factory import broker
        from orders import reconcile
        from orders.models import TradeExecution, TradeOrder
        from orders.service import OrderIntent, OrderService
        from portfolio.fetcher import KISFetcher
        from rehearsal.ledger_check import compare_with_ledger

        streams, own_fills = self.term.streams, self.term.dispatch.own_fills
        service = OrderService(broker(), clock.now)
        _wait(lambda: own_fills in streams.held and all(stream.down_since is None for stream in streams.members), 30.0)
        reconcile.reconcile(broker(), clock.now)
        ends_at, rows = time.monotonic() + MOVES_SECONDS, list[int]()
        while len(rows) < MOVES and time.monotonic() < ends_at:
            number = (len(rows) + 1) % len(KEYS)
            carrier = streams.members[number]
            self.reconcile_wanted.clear()
            streams.move(own_fills, number)
            time.sleep(self._random.uniform(0.0, 0.3))
            rows.append(service.place(OrderIntent(code=ORDERED, side=_buy(), qty=1, strategy="buy_urgent")).pk)
            _wait(lambda carrier=carrier: own_fills in carrier.held, 10.0)
            _wait(self.reconcile_wanted.is_set, 5.0)
            reconcile.reconcile(broker(), clock.now)
        time.sleep(1.0)
        reconcile.reconcile(broker(), clock.now)
        KISFetcher(broker(), clock.now).sync_portfolio()
        orders = list(TradeOrder.objects.filter(pk__in=rows))
        filled_by_order = {
            order.pk: sum(execution.exec_qty for execution in order.executions.all()) for order in orders
        }
        sources = TradeExecution.objects.filter(order__in=rows).values_list("source", flat=True)
        ledger = self._http.get("/simulator/ledger", params={"account": ACCOUNT}).raise_for_status().json()
        verdict = compare_with_ledger(ledger)
        if verdict.differences:
            print(verdict)
        return {
            "moves": len(rows),
            "once": sum(qty == 1 for qty in filled_by_order.values()),
            "twice": sum(qty > 1 for qty in filled_by_order.values()),
            "missed": sum(qty < 1 for qty in filled_by_order.values()),
            "by_notice": sum(source == TradeExecution.Source.NOTICE for source in sources),
            "by_list": sum(source == TradeExecution.Source.LIST for source in sources),
            "ledger": "DIFFERS" if verdict.differences else "EQUAL",
        }

    def _post(self, path: str, **body: Any) -> dict[str, Any]:
        reply: dict[str, Any] = self._http.post(path, json=body).raise_for_status().json()
        return reply


class _RecordingBroker:
    """A broker that records when each stock was last quoted."""

    def __init__(self, broker: Any, polled: dict[str, float]) -> None:
        self._broker = broker
        self._polled = polled

    def quote(self, code: str, market: Any) -> Any:
        quote = self._broker.quote(code, market)
        self._polled[code] = time.monotonic()
        return quote

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)


def _buy() -> Any:
    from aegis.terms import Side

    return Side.BUY


def _wait(is_met: Callable[[], bool], seconds: float) -> bool:
    """Wait until `is_met`, at most N seconds; return whether it was."""
    deadline = time.monotonic() + seconds
    while not is_met():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True


if __name__ == "__main__":
    sys.exit(main())
