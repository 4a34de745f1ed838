"""Prices that follow the market: one statement, nobody waits, no older word over a newer one."""

import threading
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from django.db import connection, transaction
from django.test.utils import CaptureQueriesContext

from portfolio import ledger
from portfolio.models import Portfolio, PriceSource
from tests.portfolio.test_ledger import BALANCE, HYNIX, NOW, SAMSUNG

pytestmark = pytest.mark.django_db
LATER = NOW + timedelta(seconds=5)
HELD = replace(BALANCE, holdings=(SAMSUNG, HYNIX))


def mark(**prices: int) -> frozenset[str]:
    return ledger.mark({code.strip("_"): price for code, price in prices.items()}, PriceSource.FEED, at=LATER)


def row(code: str = "005930") -> Portfolio:
    return Portfolio.objects.get(stock_code=code)


def test_prices_and_profits_follow_the_market_in_one_statement() -> None:
    ledger.replace(HELD, now=NOW)
    with CaptureQueriesContext(connection) as queries:
        assert mark(_005930=73_500, _000660=63_000, _015760=1) == frozenset()
    assert len(queries) == 1
    assert (row().current_price, row().profit_rate) == (73_500, Decimal("5.00"))
    assert (row("000660").current_price, row("000660").profit_rate) == (63_000, Decimal("-10.00"))
    assert (row().price_source, row().priced_at) == (PriceSource.FEED, LATER)


def test_a_price_that_did_not_move_writes_nothing() -> None:
    ledger.replace(HELD, now=NOW)
    before = row().updated_at
    mark(_005930=SAMSUNG.price)
    assert row().updated_at == before


def test_a_holding_without_a_known_cost_has_no_profit() -> None:
    ledger.replace(replace(HELD, holdings=(replace(SAMSUNG, average_price=Decimal(0)),)), now=NOW)
    mark(_005930=73_500)
    assert row().profit_rate == 0


def test_a_balance_asked_for_before_the_last_tick_keeps_the_ticks_price() -> None:
    ledger.replace(HELD, now=NOW)
    mark(_005930=73_500)
    ledger.replace(HELD, now=LATER + timedelta(seconds=1))
    assert (row().current_price, row().profit_rate) == (73_500, Decimal("5.00"))
    newer = replace(HELD, asked_at=LATER + timedelta(seconds=2))
    ledger.replace(newer, now=LATER + timedelta(seconds=3))
    assert (row().current_price, row().price_source) == (SAMSUNG.price, PriceSource.BALANCE)


def test_a_price_from_a_future_that_was_taken_back_is_no_price() -> None:
    ledger.replace(HELD, now=NOW)
    ledger.mark({"005930": 73_500}, PriceSource.FEED, at=NOW + timedelta(hours=5))
    ledger.replace(HELD, now=LATER)
    assert row().current_price == SAMSUNG.price


@pytest.mark.django_db(transaction=True)
def test_a_row_that_is_being_changed_is_named_and_not_waited_for() -> None:
    ledger.replace(HELD, now=NOW)
    locked, done = threading.Event(), threading.Event()

    def fill() -> None:
        with transaction.atomic():
            Portfolio.objects.select_for_update().get(stock_code="005930")
            locked.set()
            done.wait(30)
        connection.close()

    thread = threading.Thread(target=fill)
    thread.start()
    assert locked.wait(30)
    try:
        assert mark(_005930=73_500, _000660=63_000) == {"005930"}
        assert row("000660").current_price == 63_000
    finally:
        done.set()
        thread.join()
    assert mark(_005930=73_500) == frozenset()
    assert row().current_price == 73_500
