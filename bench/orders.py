"""Orders and fills on a real PostgreSQL, against the minimum that any careful program must do for them.

- A fill notice, from the bytes of its frame to the commit, against the same statements sent by bare psycopg
  in one transaction. The statements are recorded from our own fill and replayed on a copy of the database, so
  that both do the same work on the same rows, in turn.
- An order, from the decision to the request's arrival at the server, against a bare commit of the same rows
  and a POST on a kept connection. The broker answers earlier questions at once, because that is not our work.
- The time until a fill is known by push, against the polling of spec §4, on the simulator.
"""

import contextlib
import json
import multiprocessing
import os
import socket
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from typing import Any

import httpx
import psycopg

from bench import isolation
from bench.frames import IV, KEY, encrypted
from bench.report import Row
from kis.codec import Codec

FILLS = 2_000
ORDERS = 200
PUSHES = 20
POLLS = 3
WARM_UP = 30
POLL_SECONDS = 1.0
TWIN = "aegis_twin"
ACCOUNT = "50000000-01"
LAST_PRICE = 70_000
PATIENCE_SECONDS = 20.0


def rows() -> list[Row]:
    with isolation.isolated_system() as url:
        _hold_stocks()
        return [*order_rows(), *fill_rows(), *push_rows(url)]


class Recorder:
    """Records the statements that Django sends, so that bare psycopg can replay them."""

    def __init__(self) -> None:
        self.statements: list[tuple[str, Any]] = []

    def __call__(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if not sql.startswith(("SAVEPOINT", "RELEASE")):
            self.statements.append((sql, params))
        return execute(sql, params, many, context)


@contextlib.contextmanager
def _twin() -> Iterator["psycopg.Connection[Any]"]:
    """Copy the database with its sequences; yield a connection to the copy, as fast as psycopg can be."""
    from django.db import connection

    params = connection.get_connection_params()
    params = {name: params[name] for name in ("host", "port", "user", "password") if params.get(name)}
    name = connection.settings_dict["NAME"]
    connection.close()
    with psycopg.connect(**params, dbname="postgres", autocommit=True) as admin:
        admin.execute(f'DROP DATABASE IF EXISTS "{TWIN}"')
        admin.execute(f'CREATE DATABASE "{TWIN}" TEMPLATE "{name}"')
    with psycopg.connect(**params, dbname=TWIN, autocommit=True, prepare_threshold=2) as twin:
        yield twin


@contextlib.contextmanager
def _equal_cores(twin: "psycopg.Connection[Any]") -> Iterator[None]:
    """Run this process on one core and both server processes on another, if the system allows it.

    Left alone, the scheduler often puts only one of the two on the core of this process. Its statements then take
    0.1 ms less each, in bursts, and the ratio is a matter of luck.
    """
    from django.db import connection

    if not hasattr(os, "sched_setaffinity"):  # only Linux has it
        yield
        return
    connection.ensure_connection()
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        for server in (twin, connection.connection):
            os.sched_setaffinity(server.info.backend_pid, {max(before)})
    except PermissionError:
        print("the database's processes could not be given a core: the ratios to psycopg vary")
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _replay(twin: "psycopg.Connection[Any]", statements: list[tuple[str, Any]]) -> float:
    """Send the statements in one durable transaction and read their results. Return the seconds until the commit."""
    from infra.sql import FAST

    statements = [(statement.replace(FAST, "SELECT 1"), params) for statement, params in statements]
    started_at = time.perf_counter()
    with twin.transaction(), twin.cursor() as cursor:
        for sql, params in statements:
            cursor.execute(sql, params)
            if cursor.description:
                cursor.fetchall()
    return time.perf_counter() - started_at


# --- fills ---------------------------------------------------------------------------------------


def fill_rows() -> list[Row]:
    from orders.models import RawNotice

    numbers = _open_orders(FILLS + WARM_UP)
    codec = _codec()
    with _twin() as twin, _equal_cores(twin):
        raw = [_fill_both(codec, number, index, twin) for index, number in enumerate(numbers)][WARM_UP:]
    ours = list(RawNotice.objects.order_by("id").values_list("committed_ms", flat=True))[WARM_UP:]
    assert None not in ours, "a notice was not applied"
    bare = [seconds * 1000 for seconds, _ in raw]
    slow, bare_slow = (statistics.quantiles(times, n=100)[98] for times in (ours, bare))
    print(
        f"fill, bytes in to committed, ms: {statistics.median(ours):.2f} (99th of 100: {slow:.2f}), "
        f"{raw[0][1]} statements; by bare psycopg {statistics.median(bare):.2f} ({bare_slow:.2f})"
    )
    ratio = statistics.median(ours) / statistics.median(bare)
    against = "the same statements in one bare psycopg transaction"
    return [
        Row("fill_commit_vs_psycopg", ratio, 2.1, against, at_least=False),
        Row("fill_p99_vs_psycopg_p99", slow / bare_slow, 2.0, f"the 99th of 100, {against}", at_least=False),
    ]


def _fill_both(codec: Codec, number: str, index: int, twin: "psycopg.Connection[Any]") -> tuple[float, int]:
    """Count one fill our way, then replay it on the twin. Return the seconds of the replay and its statements."""
    from django.db import connection

    from infra import clock
    from kis import codec as wire
    from orders import fills

    # half of the fills leave the order open
    frame = _notice(number, 10 if index % 2 else 4, f"{100000 + index % 60:06d}")
    recorder = Recorder()
    with connection.execute_wrapper(recorder):
        arrived = time.perf_counter()
        for notice in wire.notices(codec.read(frame)):
            fills.ingest(notice, account="5000000001", now=clock.now(), arrived=arrived)
    *statements, (last, _) = recorder.statements
    assert "committed_ms" in last, "the last statement must record the duration"
    seconds = _replay(twin, statements)
    return seconds, len(statements)


CODES = [f"{number:06d}" for number in range(100, 150)]


def _hold_stocks() -> None:
    """Insert fifty stocks, and a holding of each."""
    from decimal import Decimal

    from infra import clock
    from market.models import Stock
    from portfolio.models import Portfolio

    now = clock.now()
    Stock.objects.bulk_create(
        Stock(code=code, name=code, board="KOSPI", instrument="STOCK", synced_at=now) for code in CODES
    )
    Portfolio.objects.bulk_create(
        Portfolio(
            stock_code=code,
            stock_name=code,
            quantity=100,
            avg_price=Decimal(LAST_PRICE),
            counted_on=now.date(),
            updated_at=now,
        )
        for code in CODES
    )


def _open_orders(count: int) -> list[str]:
    """Insert `count` orders of these stocks that rest at the broker; return their numbers."""
    from infra import clock
    from orders.models import TradeOrder

    # the simulator's own numbers start at 1
    now, numbers = clock.now(), range(900_000, 900_000 + count)
    TradeOrder.objects.bulk_create(
        TradeOrder(
            request_id=f"bench-{number}",
            stock_code=CODES[number % len(CODES)],
            stock_name=CODES[number % len(CODES)],
            order_type="BUY",
            market="KRX",
            order_kind="00",
            qty=10,
            price=LAST_PRICE,
            status="PENDING",
            status_at=now,
            created_at=now,
            order_date=now.date(),
            branch="06010",
            order_no=f"{number:010d}",
        )
        for number in numbers
    )
    return [f"{number:010d}" for number in numbers]


def _notice(number: str, qty: int, at: str) -> str:
    """Return the frame of a fill, encrypted as the broker sends it."""
    code = f"{100 + int(number) % 50:06d}"
    head = ["bench", "5000000001", number, "", "02", "0", "00", "0", code]
    rest = [f"{qty:010d}", f"{LAST_PRICE:09d}", at, "0", "2", "2", "06010", "000000010"]
    text = "^".join([*head, *rest, "홍길동", "", "1", "Y", "", "10", "", code, f"{LAST_PRICE:09d}"])
    return f"1|H0STCNI0|001|{encrypted(text)}"


def _codec() -> Codec:
    """Return a codec that has the key of the notices."""
    codec = Codec()
    reply = {
        "header": {"tr_id": "H0STCNI0", "tr_key": "bench", "encrypt": "Y"},
        "body": {
            "rt_cd": "0",
            "msg_cd": "OPSP0000",
            "msg1": "SUBSCRIBE SUCCESS",
            "output": {"key": KEY, "iv": IV},
        },
    }
    codec.read(json.dumps(reply))
    return codec


# --- orders --------------------------------------------------------------------------------------


def order_rows() -> list[Row]:
    with _stub() as (url, stamps), _twin() as twin, _equal_cores(twin):
        decided_at = _order_both(url, twin)
        arrived_at = stamps()
    assert len(arrived_at) == 2 * len(decided_at), "every request must arrive once"
    # ours and the bare one take turns
    ours = [(arrived_at[2 * n] - decided_at[n][0]) * 1000 for n in range(WARM_UP, len(decided_at))]
    bare = [(arrived_at[2 * n + 1] - decided_at[n][1]) * 1000 for n in range(WARM_UP, len(decided_at))]
    print(
        f"order, decision to its arrival at the server, ms: {statistics.median(ours):.2f} "
        f"(99th of 100: {statistics.quantiles(ours, n=100)[98]:.2f}); bare {statistics.median(bare):.2f}"
    )
    ratio = statistics.median(ours) / statistics.median(bare)
    return [
        Row(
            "order_leaves_vs_bare",
            ratio,
            2.2,
            "a bare commit of its row and first event and a kept POST",
            at_least=False,
        )
    ]


def _order_both(url: str, twin: "psycopg.Connection[Any]") -> list[tuple[float, float]]:
    """Place orders our way and the bare way in turn; return the times of the decisions."""
    from django.conf import settings
    from django.db import connection

    from aegis.terms import Side
    from infra import clock
    from orders.service import OrderIntent, OrderService

    # only a benchmark sends this many orders; the risk checks still run
    settings.MAX_ORDERS_PER_MINUTE = settings.MAX_DAY_WON = 10**12
    service = OrderService(_prompt_broker(url), clock.now)
    decided_at = []
    with httpx.Client(timeout=10, trust_env=False) as http:
        for number in range(ORDERS + WARM_UP):
            price = LAST_PRICE - 100 * (number % 15) - 100
            intent = OrderIntent(f"{100 + number // 15:06d}", Side.BUY, 1, price=price)
            recorder = Recorder()
            with connection.execute_wrapper(recorder):
                ours = time.perf_counter()
                order = service.place(intent)
            rows = _rows(order)
            bare = time.perf_counter()
            _replay(twin, rows)
            http.post(f"{url}{_ORDER_PATH}", json={**_BODY, "ORD_UNPR": str(price)}, headers=_HEADERS)
            _replay(twin, recorder.statements[_count_until_commit(recorder.statements) :])
            decided_at.append((ours, bare))
    return decided_at


def _rows(order: Any) -> list[tuple[str, Any]]:
    """Return the statements that insert an order as it was committed, and its event: one row each."""
    from infra import sql

    event = order.events.get(kind="CREATED")
    order.status, order.status_at, order.order_no, order.branch = "SUBMITTING", order.created_at, None, ""
    order.sent_at = order.accepted_at = order.chase_at = None
    return [(sql.insert_statement(type(row)), sql.values(row)) for row in (order, event)]


def _count_until_commit(statements: list[tuple[str, Any]]) -> int:
    """Return the number of statements up to the commit of the order."""
    (last,) = (n for n, (sql, _) in enumerate(statements) if "INSERT INTO trade_orders" in sql)
    return last + 1


_ORDER_PATH = "/uapi/domestic-stock/v1/trading/order-cash"
_BODY = {
    "CANO": "50000000",
    "ACNT_PRDT_CD": "01",
    "PDNO": "005930",
    "ORD_DVSN": "00",
    "ORD_QTY": "1",
    "EXCG_ID_DVSN_CD": "KRX",
    "SLL_TYPE": "",
    "CNDT_PRIC": "",
}
_HEADERS = {"authorization": "Bearer bench", "appkey": "bench", "appsecret": "bench", "tr_id": "TTTC0012U"}


def _prompt_broker(url: str) -> Any:
    """Return the real broker, but its orders go to the stub, and its earlier answers take no time."""
    from django.conf import settings

    from aegis.broker import Orderable, Quote
    from aegis.terms import Market, OrderKind
    from kis.auth import Tokens
    from kis.broker import KISBroker
    from kis.client import Client
    from kis.factory import store
    from kis.throttle import Throttle

    class Prompt(KISBroker):
        def quote(self, code: str, market: Market) -> Quote:
            return Quote(code, market, LAST_PRICE, LAST_PRICE, 91_000, 49_000, is_halted=False)

        def orderable(self, code: str, kind: OrderKind, price: int) -> Orderable:
            return Orderable(cash=10**12, qty=10**6)

    environment, http = settings.KIS_ENVIRONMENT.at(url), httpx.Client(timeout=10, trust_env=False)
    credentials, calls_per_second = settings.KIS_CREDENTIALS, settings.KIS_CALLS_PER_SECOND
    tokens = Tokens(environment, credentials, http, store())
    throttle = Throttle(store(), "bench:orders", calls_per_second)
    ledger = Throttle(store(), "bench:orders:ledger", calls_per_second)
    return Prompt(Client(environment, credentials, settings.KIS_DIALECT, http, tokens, throttle, ledger))


@contextlib.contextmanager
def _stub() -> Iterator[tuple[str, Callable[[], list[float]]]]:
    """Run a server that stamps each order when its last byte arrives; yield its URL and a function for the stamps."""
    context = multiprocessing.get_context("spawn")
    parent_end, child_end = context.Pipe()
    process = context.Process(target=_serve, args=(child_end,), daemon=True)
    process.start()

    def stamps() -> list[float]:
        parent_end.send("stamps")
        return list(parent_end.recv())

    try:
        yield f"http://127.0.0.1:{parent_end.recv()}", stamps
    finally:
        process.kill()
        process.join()


def _serve(pipe: Connection) -> None:
    stamps: list[float] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=_accept, args=(listener, stamps), daemon=True).start()
        pipe.send(listener.getsockname()[1])
        while pipe.recv():
            pipe.send(stamps)


def _accept(listener: socket.socket, stamps: list[float]) -> None:
    while True:
        peer, _ = listener.accept()
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=_serve_connection, args=(peer, stamps), daemon=True).start()


def _serve_connection(peer: socket.socket, stamps: list[float]) -> None:
    """Serve one kept connection. `time.perf_counter` is one clock for every process of the machine."""
    reader = peer.makefile("rb")
    while line := reader.readline():
        length = 0
        while (header := reader.readline()) not in (b"\r\n", b""):
            name, _, value = header.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        reader.read(length)
        if _ORDER_PATH.encode() in line:
            stamps.append(time.perf_counter())
        body = json.dumps(_answer(line, len(stamps))).encode()
        head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
        peer.sendall(head.encode() + body)


def _answer(line: bytes, number: int) -> dict[str, Any]:
    if b"tokenP" in line:
        ends = "2030-01-01 00:00:00"
        return {
            "access_token": "bench",
            "access_token_token_expired": ends,
            "expires_in": 86400,
            "token_type": "Bearer",
        }
    output = {"KRX_FWDG_ORD_ORGNO": "06010", "ODNO": f"{500_000 + number:010d}", "ORD_TMD": "100000"}
    return {"rt_cd": "0", "msg_cd": "APBK0013", "msg1": "ok", "output": output}


# --- push ----------------------------------------------------------------------------------------


def push_rows(url: str) -> list[Row]:
    from infra import clock
    from kis.factory import broker
    from orders.service import OrderService

    isolation.freeze_price(url, "005930", LAST_PRICE)
    service = OrderService(broker(), clock.now)
    with _listening():
        push_times = [_seconds_by_push(service, n) for n in range(PUSHES)]
    poll_times = [_seconds_by_polling(service, PUSHES + n) for n in range(POLLS)]
    push, poll = statistics.median(push_times), statistics.median(poll_times)
    print(f"order to fill known, ms: by push {push * 1000:.1f}, by polling each second {poll * 1000:.0f}")
    return [Row("push_vs_polling", poll / push, 18, "orders asked for each second, as spec §4 has it")]


@contextlib.contextmanager
def _listening() -> Iterator[None]:
    """Hold the socket as the stream worker does."""
    from django.db import connections

    from stream.worker import LeaderSession

    session, stop = LeaderSession(lambda: True), threading.Event()

    def run() -> None:
        session.run(stop)
        connections.close_all()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        _wait(lambda: session.dispatch.own_fills in session.stream.held)
        yield
    finally:
        stop.set()
        thread.join()


def _seconds_by_push(service: Any, number: int) -> float:
    """Place a buy that fills at once; return the seconds from the decision until its fill is in the table."""
    from orders.models import TradeExecution

    started_at = time.perf_counter()
    order = service.place(_intent(number))
    _wait(TradeExecution.objects.filter(order=order).exists)
    return time.perf_counter() - started_at


def _seconds_by_polling(service: Any, number: int) -> float:
    """Do the same with the order list, which is read each second."""
    from infra import clock
    from kis.factory import broker

    started_at = time.perf_counter()
    order = service.place(_intent(number))
    today = clock.now().date()
    while True:
        time.sleep(POLL_SECONDS)
        for record in broker().orders(today, today):
            if record.order_no == order.order_no and record.filled_qty == order.qty:
                return time.perf_counter() - started_at


def _intent(number: int) -> Any:
    from aegis.terms import Side
    from orders.service import OrderIntent

    # quantities differ: the same order twice within seconds would be denied as a duplicate
    return OrderIntent("005930", Side.BUY, 1 + number, strategy="buy_urgent")


def _wait(is_met: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_met():
        if time.monotonic() > deadline:
            raise TimeoutError("the awaited condition was not met in time")
        time.sleep(0.001)


def main() -> int:
    for row in rows():
        print(f"{row.name} {row.ratio:.2f} (goal {row.goal:g})")
    return 0


if __name__ == "__main__":
    main()
