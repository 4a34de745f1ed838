"""Trades to bars, bars and balances to PostgreSQL, and what screens read among millions of rows.

Every ratio is against a peer or a bare statement in the same run and on the same server, which is our own
in a temporary home. `BENCH_CANDLES` is the number of candles that the reads search (default 1,000,000).
The query plans are printed, and show what to expect of more candles.
"""

import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg

from bench.report import Row

DAY = date(2026, 11, 23)
STOCKS = 40
TICKS = 100_000
# as dense as a busy hour: about 250 trades per bar when four stocks are folded, 125 when forty are read
FOLD_STOCKS, FOLD_MINUTES, READ_MINUTES = 4, 98, 10
# the trades of half a second: forty stocks, ten trades a second each
BATCH = 200
MINUTES = 390
FOLDS = 9
HOLDINGS, HELD, ORDERS = 50, 200, 10_000
WRITES = 60
CANDLES = int(os.environ.get("BENCH_CANDLES", "1000000"))
READ_MS = 10.0


def rows() -> list[Row]:
    """Measure in a process of its own: other benchmarks have other settings and databases."""
    command = [sys.executable, "-W", "ignore", "-m", "bench.candles"]
    lines = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
    print("\n".join(lines[:-1]))
    return [Row(**row) for row in json.loads(lines[-1])]


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="aegis-bench-") as home:
        Path(home).chmod(0o755)
        _set_environment(Path(home))
        result_rows = [fold_row(), decode_row()]
        with _database(Path(home)):
            result_rows += [flush_row(), balance_row(), *read_rows()]
            print_throughput()
    print(json.dumps([asdict(row) for row in result_rows]))


# --- in memory


def _hhmmss(second: int) -> str:
    at = 9 * 3600 + second
    return f"{at // 3600:02}{at // 60 % 60:02}{at % 60:02}"


def _ticks(count: int, codes: int, minutes: int) -> list[tuple[str, str, int, int, int, int]]:
    """Return trades of N minutes, the stocks in turn: code, time, won, shares, the day's shares and won."""
    totals = [[0, 0] for _ in range(codes)]
    ticks = []
    for number in range(count):
        stock = number % codes
        price, qty = 70_000 + (number * 7919 % 41 - 20) * 100, 1 + number * 31 % 97
        totals[stock][0] += qty
        totals[stock][1] += price * qty
        ticks.append((f"{stock:06}", _hhmmss(number * minutes * 60 // count), price, qty, *totals[stock]))
    return ticks


def fold_row() -> Row:
    """Trades to bars, without the creation of tick objects: ours, with the trades of half a second at once, against
    NautilusTrader's, which takes one trade at a time. Both find the stock's bar by its code."""
    ours, theirs = _in_turn(_our_fold, _their_fold)
    print(f"folding, trades a second: {ours:,.0f}; nautilus_trader {theirs:,.0f}")
    return Row("candle_fold_vs_nautilus", ours / theirs, 2, "nautilus_trader 1.221.0 TimeBarAggregator")


def _in_turn(*cases: Callable[[], float]) -> list[float]:
    """Return the median figure of each case. The cases take turns; time is processor time, not wall time."""
    rounds = [[case() for case in cases] for _ in range(FOLDS)]
    return [statistics.median(figures) for figures in zip(*rounds, strict=True)]


@contextmanager
def _input_left_alone() -> Iterator[None]:
    """Keep the garbage collector from a walk through the 100,000 trades that wait: a worker holds 200."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def _our_fold() -> float:
    from aegis.broker import Trade
    from aegis.candles import MinuteBarAggregator
    from aegis.terms import Market

    trades = [Trade(*tick, Market.KRX) for tick in _ticks(TICKS, FOLD_STOCKS, FOLD_MINUTES)]
    batches = [trades[start : start + BATCH] for start in range(0, TICKS, BATCH)]
    aggregator = MinuteBarAggregator(Market.KRX, DAY)
    with _input_left_alone():
        started_at = time.process_time()
        for batch in batches:
            aggregator.add(batch)
        rate = TICKS / (time.process_time() - started_at)
    assert sum(bar.count or 0 for bar in aggregator.changed()) <= TICKS
    return rate


def _their_fold() -> float:
    from nautilus_trader.common.component import TestClock
    from nautilus_trader.data.aggregation import TimeBarAggregator
    from nautilus_trader.model.data import BarType, TradeTick
    from nautilus_trader.model.enums import AggressorSide
    from nautilus_trader.model.identifiers import TradeId
    from nautilus_trader.model.objects import Price, Quantity
    from nautilus_trader.test_kit.providers import TestInstrumentProvider

    minute_ns, bars = 60_000_000_000, list[Any]()
    begins = 1_763_000_000_000_000_000 // minute_ns * minute_ns
    clock = TestClock()
    clock.set_time(begins)
    aggregators = {}
    for number in range(FOLD_STOCKS):
        stock = TestInstrumentProvider.equity(f"S{number}", "XNAS")
        bar_type = BarType.from_str(f"S{number}.XNAS-1-MINUTE-LAST-INTERNAL")
        aggregators[f"{number:06}"] = stock.id, TimeBarAggregator(stock, bar_type, bars.append, clock)
    ticks = []
    for number, (code, _, price, qty, _, _) in enumerate(_ticks(TICKS, FOLD_STOCKS, FOLD_MINUTES)):
        at = begins + number * minute_ns * FOLD_MINUTES // TICKS
        fields = aggregators[code][0], Price(price / 100, 2), Quantity(qty, 0), AggressorSide.BUYER
        ticks.append((code, TradeTick(*fields, TradeId(str(number)), at, at)))
    handlers = {code: aggregator.handle_trade_tick for code, (_, aggregator) in aggregators.items()}
    due = begins + minute_ns
    with _input_left_alone():
        started_at = time.process_time()
        for code, tick in ticks:
            if tick.ts_init >= due:
                for event in clock.advance_time(tick.ts_init):
                    event.handle()
                due += minute_ns
            handlers[code](tick)
        rate = TICKS / (time.process_time() - started_at)
    assert abs(len(bars) - FOLD_STOCKS * FOLD_MINUTES) <= 2 * FOLD_STOCKS, f"{len(bars)} bars: the peer did not work"
    return rate


def _frames(count: int) -> list[str]:
    """Return trades of forty stocks in wire format, one per frame."""
    from bench.frames import TRADE

    head, body = TRADE.rsplit("|", 1)
    columns, frames = body.split("^"), []
    for code, hhmmss, price, qty, volume, value in _ticks(count, STOCKS, READ_MINUTES * count * 2 // TICKS):
        columns[0], columns[1], columns[2] = code, hhmmss, str(price)
        columns[12], columns[13], columns[14] = str(qty), str(volume), str(value)
        frames.append(f"{head}|{'^'.join(columns)}")
    return frames


def decode_row() -> Row:
    """What bars add to the cost of reading a frame, in processor time of all threads."""
    from aegis.terms import Market
    from kis import realtime
    from kis.codec import Codec
    from stream.candles import CandleWriter

    frames, codec = _frames(TICKS // 2), Codec()
    batches = [frames[start : start + BATCH] for start in range(0, len(frames), BATCH)]

    def read() -> float:
        started_at = time.process_time()
        for frame in frames:
            realtime.read_records(codec.read(frame))
        return len(frames) / (time.process_time() - started_at)

    def fold() -> float:
        ticks = _with_bars_read_back(CandleWriter())
        handle = ticks.on_trades(Market.KRX)
        started_at = time.process_time()
        for batch in batches:
            for frame in batch:
                handle(realtime.read_records(codec.read(frame)), 0.0)
            ticks._fold()
        return len(frames) / (time.process_time() - started_at)

    alone, folded = _in_turn(read, fold)
    print(f"frames a second: read {alone:,.0f}, read and folded {folded:,.0f}")
    return Row("candle_cost_over_decoding", alone / folded, 1.25, "reading alone", at_least=False)


def _with_bars_read_back(ticks: Any) -> Any:
    """Return `ticks` in the state in which the stream worker has read back the day's bars."""
    from aegis.candles import MinuteBarAggregator
    from aegis.terms import Market

    ticks._folds = {market: MinuteBarAggregator(market, DAY) for market in Market}
    ticks._day = DAY
    return ticks


# --- into the database


def _set_environment(home: Path) -> None:
    """Set a home of our own before the settings are read."""
    for name in [name for name in os.environ if name.startswith(("KIS_", "AEGIS_")) or name.endswith("_URL")]:
        del os.environ[name]
    os.environ |= {"AEGIS_HOME": str(home), "AEGIS_ENV_FILE": os.devnull, "DJANGO_SETTINGS_MODULE": "config.settings"}
    import django

    django.setup()


@contextmanager
def _database(home: Path) -> Iterator[None]:
    """Run an embedded PostgreSQL with our tables."""
    from django.conf import settings
    from django.core.management import call_command
    from django.db import connection

    from ops import embedded

    server = embedded.Postgres(home)
    server.start()
    try:
        server.create_database(settings.DATABASES["default"]["NAME"])
        call_command("migrate", verbosity=0)
        yield
    finally:
        connection.close()
        server.stop()


def _raw() -> psycopg.Connection[Any]:
    """Return a bare connection to the same database, as fast as psycopg goes."""
    from django.db import connection

    database = connection.settings_dict
    raw = psycopg.connect(
        host=database["OPTIONS"].get("host") or database["HOST"],
        dbname=database["NAME"],
        user=database["USER"],
        autocommit=True,
    )
    raw.prepare_threshold = 2
    return raw


def _alternately(ours: Callable[[], object], bare: Callable[[], object]) -> tuple[float, float]:
    """Return the median seconds of each; they take turns."""
    samples: tuple[list[float], list[float]] = ([], [])
    for number in range(WRITES + 5):
        for case, times in ((ours, samples[0]), (bare, samples[1])):
            started_at = time.perf_counter()
            case()
            if number >= 5:
                times.append(time.perf_counter() - started_at)
    return statistics.median(samples[0]), statistics.median(samples[1])


def _bars(count: int, minute: str = "0900") -> list[Any]:
    from aegis.candles import Bar
    from aegis.terms import Market

    return [
        Bar(
            code=f"{number:06}",
            market=Market.KRX,
            day=DAY,
            minute=minute,
            open=70_000,
            high=70_500,
            low=69_500,
            close=70_100,
            volume=1_000 + number,
            value=70_000_000,
            count=12,
            day_volume=5_000,
            day_value=350_000_000,
            is_whole=True,
        )
        for number in range(count)
    ]


def flush_row() -> Row:
    """What the stream worker writes each second, against its bare statement with lists that are ready."""
    from market import candles, partitions

    partitions.ensure([DAY])
    bars, raw = _bars(STOCKS), _raw()
    columns = [list(column) for column in zip(*(candles._row(bar, candles.PARTIAL) for bar in bars), strict=True)]
    ours, bare = _alternately(
        lambda: candles.write_feed_bars(bars), lambda: raw.execute(candles.WRITE_HEARD, columns, prepare=True)
    )
    raw.close()
    print(f"flush of {STOCKS} candles: {ours * 1000:.2f} ms, bare statement {bare * 1000:.2f} ms")
    return Row("candle_flush_vs_bare", ours / bare, 2.5, "unnest upsert in bare psycopg", at_least=False)


BARE_HOLDINGS = """
INSERT INTO portfolio (stock_code, stock_name, quantity, avg_price, last_avg_price, current_price, price_source,
    profit_rate, counted_on, broker_bought, broker_sold, our_bought, our_sold, balance_won, uncounted,
    synced_at, updated_at)
SELECT code, code, qty, price, price, %s, 'BALANCE', 1.43, %s, 0, 0, 0, 0, qty * price, '[]', %s, %s
FROM unnest(%s::text[], %s::int8[], %s::numeric[]) AS told (code, qty, price)
ON CONFLICT (stock_code) DO UPDATE SET quantity = excluded.quantity, avg_price = excluded.avg_price,
    current_price = excluded.current_price, profit_rate = excluded.profit_rate, balance_won = excluded.balance_won,
    uncounted = excluded.uncounted, synced_at = excluded.synced_at
"""
BARE_SNAPSHOT = """
INSERT INTO account_snapshots (timestamp, deposit, deposit_d1, deposit_d2, valuation, total_asset, net_profit_today,
    left_out)
VALUES (%s, 1000000, 900000, 800000, 923000, 1723000, 23000, '[]')
"""


def balance_row() -> Row:
    """Take over a balance of fifty holdings, against the minimum that a bare connection must do."""
    from aegis.broker import Balance, Holding
    from aegis.sessions import KST
    from portfolio import ledger

    at = datetime.combine(DAY, datetime.min.time(), KST) + timedelta(hours=10)
    average, rate = Decimal("70000.0000"), Decimal("1.43")
    holdings = tuple(
        Holding(f"{number:06}", "종목", 10, 10, average, 71_000, 10_000, rate, 0, 0) for number in range(HOLDINGS)
    )
    balance = Balance(at, holdings, 1_000_000, 900_000, 800_000, 923_000, 1_723_000, 1_700_000)
    raw, codes, turns = _raw(), [holding.code for holding in holdings], itertools.count()
    # every balance has other prices
    balances = [
        replace(
            balance,
            asked_at=at + timedelta(seconds=number),
            holdings=tuple(replace(holding, price=holding.price + number) for holding in holdings),
        )
        for number in range(3 * WRITES)
    ]

    def ours() -> None:
        next_balance = balances[next(turns)]
        ledger.replace(next_balance, now=next_balance.asked_at)

    def bare() -> None:
        price = 72_000 + next(turns)
        with raw.transaction():
            params = [price, DAY, at, at, codes, [10] * HOLDINGS, [average] * HOLDINGS]
            # a balance must not overwrite a fill: its writer must lock and read first
            raw.execute("SELECT * FROM portfolio ORDER BY stock_code FOR UPDATE").fetchall()
            raw.execute(BARE_HOLDINGS, params)
            raw.execute("DELETE FROM portfolio WHERE stock_code <> ALL(%s)", [codes])
            raw.execute(BARE_SNAPSHOT, [at])

    our_seconds, bare_seconds = _alternately(ours, bare)
    raw.close()
    print(f"balance of {HOLDINGS} holdings: {our_seconds * 1000:.2f} ms, bare statements {bare_seconds * 1000:.2f} ms")
    return Row(
        "balance_vs_bare",
        our_seconds / bare_seconds,
        2.5,
        "lock, upsert, delete, snapshot in bare psycopg",
        at_least=False,
    )


FILL = """
INSERT INTO market_candles (time, symbol, venue, open, high, low, close, volume, value, trade_count, day_volume,
    day_value, source, interval)
SELECT timestamptz '2026-11-23 09:00+09' - make_interval(days => day) + make_interval(mins => minute),
    lpad(stock::text, 6, '0'), 'KRX', 70000, 70500, 69500, 70100, 1000, 70000000, 12, 5000, 350000000, 'FEED', '1m'
FROM generate_series(1, %s) AS day, generate_series(0, 389) AS minute, generate_series(0, %s) AS stock
ON CONFLICT DO NOTHING
"""


def read_rows() -> list[Row]:
    """What a screen shows of the account, and a strategy of a stock, beside years of candles."""
    from market import queries
    from portfolio.service import PortfolioService

    _insert_rows()
    day = datetime.fromisoformat("2026-11-20T00:00+09:00")
    reads: dict[str, Callable[[], object]] = {
        "account_summary": PortfolioService().get_summary,
        "last_quote": lambda: queries.last_quote("000007"),
        "days_candles": lambda: queries.candles("000007", day, day + timedelta(days=1), minutes=5),
    }
    result = []
    for name, read in reads.items():
        _print_plans(name, read)
        ms = statistics.median(_timed(read) for _ in range(50)) * 1000
        against = f"milliseconds, {HELD} holdings, {ORDERS:,} orders, {CANDLES:,} candles"
        result.append(Row(f"read_{name}_ms", ms, READ_MS, against, at_least=False))
    return result


def _insert_rows() -> None:
    """Create the candles, holdings and orders that the reads search."""
    from django.db import connection
    from django.utils import timezone

    from infra import db_limits
    from market import partitions
    from orders.models import TradeOrder
    from portfolio.models import Portfolio

    days = max(1, CANDLES // (STOCKS * MINUTES))
    partitions.ensure(DAY - timedelta(days=number) for number in range(days + 1))
    started_at, now = time.perf_counter(), timezone.now()
    # one statement of about a minute, longer than a worker's statement may take
    db_limits.set_limits(lock=60, statement=0, idle=0)
    with connection.cursor() as cursor:
        cursor.execute(FILL, [days, STOCKS - 1])
    Portfolio.objects.bulk_create(
        Portfolio(
            stock_code=f"H{number:05}", stock_name="종목", quantity=1, avg_price=1, counted_on=DAY, updated_at=now
        )
        for number in range(HELD - HOLDINGS)
    )
    common = {"order_type": "BUY", "market": "KRX", "order_kind": "00", "qty": 1, "price": 1, "status": "FILLED"}
    common |= {"filled_qty": 1, "filled_amount": 1}
    common |= {"status_at": now, "created_at": now, "order_date": DAY}
    TradeOrder.objects.bulk_create(
        TradeOrder(request_id=f"{number}", stock_code="000001", order_no=f"{number:010}", **common)
        for number in range(ORDERS)
    )
    with connection.cursor() as cursor:
        cursor.execute("ANALYZE")
    print(f"{CANDLES:,} candles, {HELD} holdings, {ORDERS:,} orders made in {time.perf_counter() - started_at:.0f} s")


def _print_plans(name: str, read: Callable[[], object]) -> None:
    from django.db import connection
    from django.test.utils import CaptureQueriesContext

    with CaptureQueriesContext(connection) as queries:
        read()
    for query in queries:
        print(f"-- {name}: {query['sql'][:160]}")
        with connection.cursor() as cursor:
            cursor.execute("EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF) " + query["sql"].replace("%", "%%"))
            lines = [line for (line,) in cursor.fetchall()]
        print("\n".join(f"   {line}" for line in lines if "never executed" not in line and "Cond" not in line))


def _timed(call: Callable[[], object]) -> float:
    started_at = time.perf_counter()
    call()
    return time.perf_counter() - started_at


def print_throughput() -> None:
    """Print how many trades a second become bars of forty stocks in the table, which is written each second."""
    from django.db import connections

    from aegis.terms import Market
    from infra import clock
    from kis import realtime
    from kis.codec import Codec
    from stream.candles import CandleWriter

    ticks, codec, frames, stop = CandleWriter(), Codec(), _frames(TICKS * 4), threading.Event()
    handle = ticks.on_trades(Market.KRX)

    def write() -> None:
        while not stop.is_set():
            ticks.write_candles()
            stop.wait(1.0)
        connections.close_all()

    writer = threading.Thread(target=write)
    started_at = time.perf_counter()
    writer.start()
    for frame in frames:
        handle(realtime.read_records(codec.read(frame)), 0.0)
    stop.set()
    writer.join()
    ticks.write_candles()
    seconds = time.perf_counter() - started_at
    print(f"frames in, candles in PostgreSQL: {len(frames) / seconds:,.0f} trades a second ({clock.now():%Y-%m-%d})")


if __name__ == "__main__":
    main()
