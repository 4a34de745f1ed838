"""A stock code with a space behind it, in small or wide letters: one order of one stock, whichever way it comes in."""

import unicodedata
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from io import StringIO
from typing import Any

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import translation

from aegis.broker import Broker
from aegis.chase import Plan
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market, Side
from infra import clock
from kis import factory
from market import order_books
from orders import chase, order_messages, stops
from orders.models import BlacklistedStock, StopRule, TradeOrder
from orders.reconcile import reconcile
from orders.service import OrderDenied, OrderIntent, OrderService
from orders.tasks import submit
from portfolio.models import Portfolio
from simulator.api.server import Simulator

from .helpers import told

HOW_IT_IS_TYPED = ["005930 ", " 005930", "００５９３０", "005930\u200b", "A005930"]


@pytest.fixture(autouse=True)
def _english() -> object:
    with translation.override("en"):
        yield


def by_command(code: str) -> str:
    try:
        call_command("buy", code, "1", "--price", "60000", stdout=StringIO())
    except CommandError as error:
        return str(error)
    return ""


def by_message(code: str) -> str:
    answer = submit(request_id=f"a:{code}", code=code, side="BUY", qty=1, price=60_000)
    return " ".join([answer["error"], *(reason["message"] for reason in answer["reasons"])]).strip()


def by_the_service(code: str) -> str:
    try:
        OrderService(factory.broker(), clock.now).place(OrderIntent(code, Side.BUY, 1, price=60_000))
    except OrderDenied as denied:
        return str(denied)
    return ""


# how an order comes in: each returns why it was refused
DOORS: dict[str, Callable[[str], str]] = {
    "command": by_command,
    "message": by_message,
    "service": by_the_service,
}


@pytest.mark.parametrize("typed", HOW_IT_IS_TYPED)
@pytest.mark.parametrize("door", DOORS)
def test_an_order_is_of_the_stock_that_is_meant(service: OrderService, door: str, typed: str) -> None:
    call_command("sync_stocks", stdout=StringIO())
    assert DOORS[door](typed) == ""
    assert TradeOrder.objects.get().stock_code == "005930"


@pytest.mark.parametrize("door", DOORS)
def test_a_space_behind_the_code_passes_no_blacklist(service: OrderService, door: str) -> None:
    BlacklistedStock.objects.create(stock_code="005930", stock_name="삼성전자", reason="위험")
    assert "blacklist" in DOORS[door]("005930 ")
    assert not TradeOrder.objects.exists()


def test_an_order_by_a_padded_code_is_one_order_and_its_chase_ends(
    service: OrderService, broker: Broker, simulator: Simulator, clock_at: Callable[[Any], object]
) -> None:
    order = service.place(OrderIntent("005930 ", Side.BUY, 3, price=69_000, plan=Plan(5.0, 0, 1, False)))
    simulator.set_price("005930", 68_500)
    reconcile(broker, clock.now)
    (row,) = TradeOrder.objects.all()
    assert (row.pk, row.status, row.filled_qty) == (order.pk, "FILLED", 3)
    clock_at(clock.now() + timedelta(seconds=30))
    chase.run_due_steps(row.pk, broker, clock.now)
    row.refresh_from_db()
    assert (row.chase_at, TradeOrder.objects.count()) == (None, 1)


@pytest.mark.parametrize("code", ["", "5930", "005 930", "삼성전자 보통주", "005930;", "SIMPAC"])
def test_what_is_no_code_is_refused_with_what_would_be_right(service: OrderService, broker: Broker, code: str) -> None:
    words = {"request_id": "a-1", "code": code, "side": "BUY", "qty": 1}
    answer = order_messages.submit(words, broker, clock.now)
    assert (answer["outcome"], answer["order"]) == ("INVALID", None)
    assert answer["error"].startswith(f"code {code!r}: six digits or letters are needed")
    with pytest.raises(CommandError, match="as 005930 or 0009K0") as caught:
        call_command("buy", code, "1")
    assert caught.value.returncode == 2
    with pytest.raises(ValueError, match="as 005930 or 0009K0"):
        OrderIntent(code, Side.BUY, 1)
    assert not TradeOrder.objects.exists()


def test_a_command_takes_a_name_before_it_takes_a_code(service: OrderService) -> None:
    call_command("sync_stocks", stdout=StringIO())
    name = unicodedata.normalize("NFD", "삼성전자")
    call_command("buy", name, "１０", "--price", "６０，０００", "--market", "ｋｒｘ", stdout=StringIO())
    order = TradeOrder.objects.get()
    assert (order.stock_code, order.qty, order.price) == ("005930", 10, 60_000)


@pytest.mark.parametrize("typed", ["005930 ", "００５９３０"])
def test_a_filter_finds_what_it_is_meant_to_find(service: OrderService, typed: str) -> None:
    call_command("buy", "005930", "1", "--price", "60000", stdout=StringIO())
    assert len(told("orders", "--code", typed)["orders"]) == 1
    assert told("executions", "--code", typed)["executions"] == []
    assert len(told("cancel_all", "--code", typed, "--dry-run")["orders"]) == 1
    assert len(told("cancel_all", "--code", typed)["cancelled"]) == 1


@pytest.mark.parametrize("words", [["orders"], ["executions"], ["cancel_all"], ["cancel_all", "--dry-run"]])
def test_a_filter_that_is_no_stock_is_refused_and_not_empty(service: OrderService, words: list[str]) -> None:
    for code in ("5930", ""):
        with pytest.raises(CommandError, match="as 005930 or 0009K0"):
            call_command(*words, "--code", code)


def test_a_stop_is_armed_on_the_holding_that_is_meant(service: OrderService) -> None:
    Portfolio.objects.create(
        stock_code="005930", stock_name="삼성전자", quantity=1, avg_price=70_000, current_price=70_000,
        counted_on=clock.now().date(), updated_at=clock.now(),
    )  # fmt: skip
    call_command("stops", "００５９３０ ", "--loss", "５％", stdout=StringIO())
    assert StopRule.objects.get().stock_code == "005930"


def test_a_stop_is_not_armed_on_what_is_no_stock(db: None) -> None:
    with pytest.raises(ValidationError, match="as 005930 or 0009K0"):
        stops.draft_stop("5930", StopKind.STOP_LOSS, StopUnit.PRICE, Decimal(1), by="kim", at=clock.now())


def test_a_book_is_kept_of_the_stock_that_is_meant(service: OrderService) -> None:
    order_books.request_books([" ００５９３０"], until=clock.now() + timedelta(minutes=1))
    assert order_books.requested_books(clock.now()) == [(Market.KRX, "005930")]


def test_an_intent_whose_strategy_id_is_too_long_is_refused() -> None:
    with pytest.raises(ValueError, match="65"):
        OrderIntent("005930", Side.BUY, 1, strategy_id="x" * 65)


def test_an_order_is_named_by_its_number_however_that_is_typed(service: OrderService) -> None:
    call_command("buy", "005930", "1", "--price", "60000", stdout=StringIO())
    pk = TradeOrder.objects.get().pk
    assert told("cancel", f" ＃{pk} ", "--dry-run")["order"]["id"] == pk
