"""Trades to bars and prices, through the stream worker's own parts into a real database."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from django.db import DatabaseError, connection, connections

from aegis.broker import Trade
from aegis.sessions import KST
from aegis.terms import Market
from infra import clock
from market.models import MarketCandle, WatchedStock
from portfolio import ledger
from portfolio.models import Portfolio
from stream import candles
from stream.candles import CandleWriter
from stream.consumers import SubscriptionPriority
from tests.aegis.test_candles import MORNING, day_of, truth
from tests.portfolio.test_ledger import BALANCE, SAMSUNG

pytestmark = pytest.mark.django_db(transaction=True)
ClockAt = Callable[..., datetime]
CODE = SAMSUNG.code


@pytest.fixture(autouse=True)
def _monday(clock_at: ClockAt) -> None:
    clock_at("2026-11-23 09:05:00")


def feed(into: CandleWriter, trades: list[Trade]) -> None:
    for trade in trades:
        into.on_trades(trade.market)([trade], time.perf_counter())


def table() -> dict[tuple[str, str], tuple[Any, ...]]:
    return {
        (row.symbol, f"{row.time.astimezone(KST):%H%M}"): (
            row.open,
            row.high,
            row.low,
            row.close,
            row.volume,
            row.value,
            row.trade_count,
            row.source,
        )
        for row in MarketCandle.objects.all()
    }


def expected(trades: list[Trade]) -> dict[tuple[str, str], tuple[Any, ...]]:
    return {
        key: (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.value, bar.count, "FEED")
        for key, bar in truth(trades).items()
    }


def test_trades_become_rows() -> None:
    trades, worker = day_of(MORNING), CandleWriter()
    feed(worker, trades)
    worker.write_candles()
    assert table() == expected(trades)


def test_frames_wait_until_the_days_bars_are_read_back() -> None:
    trades = day_of(MORNING)
    first = CandleWriter()
    feed(first, trades[:2])
    first.write_candles()
    # the first one dies; the second hears trades before it has looked at the table
    second = CandleWriter()
    feed(second, trades[2:])
    second.write_candles()
    assert table() == expected(trades)


def test_what_a_dead_process_had_not_written_is_marked_as_missed() -> None:
    trades = day_of(MORNING)
    first = CandleWriter()
    feed(first, trades[:2])
    first.write_candles()
    feed(first, trades[2:3])  # never written
    second = CandleWriter()
    feed(second, trades[3:])
    second.write_candles()
    assert [table()[CODE, minute][-1] for minute in ("0900", "0901", "0903")] == ["PARTIAL", "PARTIAL", "FEED"]
    assert sum(row[4] for row in table().values()) == trades[-1].volume


def test_while_the_table_is_away_no_bar_and_no_price_is_lost() -> None:
    ledger.replace(BALANCE, now=clock.now())
    trades, worker = day_of(MORNING), CandleWriter()
    worker.write_candles()
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE market_candles RENAME TO away_candles")
        cursor.execute("ALTER TABLE portfolio RENAME TO away_portfolio")
        try:
            for half in (trades[:3], trades[3:]):
                feed(worker, half)
                with pytest.raises(DatabaseError):
                    worker.write_candles()
                with pytest.raises(DatabaseError):
                    worker.write_prices()
        finally:
            cursor.execute("ALTER TABLE away_candles RENAME TO market_candles")
            cursor.execute("ALTER TABLE away_portfolio RENAME TO portfolio")
    worker.write_candles()
    worker.write_prices()
    assert table() == expected(trades)
    assert Portfolio.objects.get(stock_code=CODE).current_price == trades[-1].price


def test_a_new_day_begins_anew_and_the_old_one_is_written_to_its_end(clock_at: ClockAt) -> None:
    trades, worker = day_of(MORNING), CandleWriter()
    worker.write_candles()
    feed(worker, trades)
    clock_at("2026-11-24 00:00:01")
    worker.write_candles()
    assert table() == expected(trades)
    clock_at("2026-11-24 09:00:00")
    feed(worker, trades[:1])
    worker.write_candles()
    assert MarketCandle.objects.filter(symbol=CODE).count() == 5
    assert MarketCandle.objects.filter(source="FEED").count() == 5


def test_after_a_reconnection_the_newest_bars_are_doubted_until_the_next_trade() -> None:
    trades, worker = day_of(MORNING), CandleWriter()
    feed(worker, trades[:2])
    worker.write_candles()
    worker.on_connected()
    worker.write_candles()
    assert table()[CODE, "0900"][-1] == "PARTIAL"
    feed(worker, trades[2:])
    worker.write_candles()
    assert table() == expected(trades)


def test_at_the_days_end_the_newest_bars_are_doubted_once(clock_at: ClockAt) -> None:
    worker = CandleWriter()
    feed(worker, day_of(MORNING))
    for moment, source in (("19:59:59", "FEED"), ("20:00:00", "PARTIAL")):
        clock_at(f"2026-11-23 {moment}")
        worker.mark_suspect_at_days_end()
        worker.write_candles()
        worker.mark_suspect_at_days_end()
        worker.write_candles()
        assert table()[CODE, "1530"][-1] == source
    MarketCandle.objects.update(source="FEED")
    worker.mark_suspect_at_days_end()
    worker.write_candles()
    assert table()[CODE, "1530"][-1] == "FEED"


def test_prices_follow_the_last_trade_on_any_venue() -> None:
    ledger.replace(BALANCE, now=clock.now())
    worker = CandleWriter()
    worker.write_candles()
    feed(worker, day_of(MORNING[:5]))
    feed(worker, [replace(day_of([("090400", 73_500, 1)])[0], market=Market.NXT)])
    worker.write_prices()
    row = Portfolio.objects.get(stock_code=CODE)
    assert (row.current_price, row.profit_rate) == (73_500, Decimal("5.00"))
    assert row.price_source == "FEED"


def test_a_price_is_written_once() -> None:
    ledger.replace(BALANCE, now=clock.now())
    worker = CandleWriter()
    feed(worker, day_of(MORNING))
    worker.write_candles()
    worker.write_prices()
    Portfolio.objects.update(current_price=1)
    worker.write_prices()
    assert Portfolio.objects.get(stock_code=CODE).current_price == 1


def test_the_next_trade_puts_right_what_a_lagging_balance_wrote(clock_at: ClockAt) -> None:
    ledger.replace(BALANCE, now=clock.now())
    first, second = day_of([("090400", 71_500, 1), ("090601", 71_500, 1)])
    worker = CandleWriter()
    worker.write_candles()
    feed(worker, [first])
    worker.write_prices()
    later = clock_at("2026-11-23 09:06:00")
    ledger.replace(replace(BALANCE, asked_at=later), now=later)
    row = Portfolio.objects.get(stock_code=CODE)
    assert (row.current_price, row.price_source) == (SAMSUNG.price, "BALANCE")
    worker.write_prices()
    row.refresh_from_db()
    assert row.current_price == SAMSUNG.price, "what was traded before the balance is no news"
    feed(worker, [second])
    worker.write_prices()
    row.refresh_from_db()
    assert (row.current_price, row.price_source) == (71_500, "FEED")


def test_one_thread_hears_while_another_writes() -> None:
    rows = [(f"09{second // 60:02}{second % 60:02}", 100 + second % 7, 1 + second % 3) for second in range(900)]
    trades, worker, over = day_of(row for row in rows for _ in range(10)), CandleWriter(), threading.Event()

    def write() -> None:
        while not over.is_set():
            worker.write_candles()
        connections.close_all()

    writer = threading.Thread(target=write)
    take = worker.on_trades(Market.KRX)
    writer.start()
    try:
        for start in range(0, len(trades), 5):
            take(trades[start : start + 5], 0.0)
    finally:
        over.set()
        writer.join()
    worker.write_candles()
    assert table() == expected(trades)


def test_the_watch_list_is_listened_to_in_its_order() -> None:
    WatchedStock.objects.create(stock_code="000660", rank=2)
    WatchedStock.objects.create(stock_code="005930", rank=1)
    (request,) = candles.consumer().stocks
    assert (request.priority, list(request.codes())) == (SubscriptionPriority.WATCHED, ["005930", "000660"])
