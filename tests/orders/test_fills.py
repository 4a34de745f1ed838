"""Notices in every order they may come; the text is what the codec hands over after decryption."""

import time
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from django.db import connection

from aegis.lifecycle import Status
from infra import clock
from kis import codec
from orders import fills
from orders.models import RawNotice, TradeExecution, TradeOrder
from portfolio.models import Portfolio

ACCOUNT = "5000000001"
Buy = Callable[..., TradeOrder]
State = RawNotice.State


def notice(
    order_no: str,
    qty: int = 10,
    price: int = 69_800,
    *,
    at: str = "100001",
    account: str = ACCOUNT,
    original: str = "",
    flags: str = "022",
    change: str = "0",
    side: str = "02",
    code: str = "005930",
) -> str:
    """Return a record of 26 columns; `flags` are refused, filled, accepted."""
    head = ["rehearsal", account, order_no, original, side, change, "00", "0", code]
    numbers = [f"{qty:010d}", f"{price:09d}", at, *flags, "06010", "000000010"]
    return "^".join([*head, *numbers, "홍길동", "", "1", "Y", "", "10", "", "삼성전자", "000069800"])


def hear(text: str) -> RawNotice:
    (heard,) = codec.notices(codec.Data("H0STCNI0", 1, text))
    return fills.ingest(heard, account=ACCOUNT, now=clock.now(), arrived=time.perf_counter())


def held() -> tuple[int, Decimal]:
    row = Portfolio.objects.get(stock_code="005930")
    return row.quantity, row.avg_price


@pytest.mark.django_db(transaction=True)
def test_the_commit_of_a_fill_is_durable_and_that_of_its_notice_is_fast(buy: Buy) -> None:
    """A fill whose transaction does not wait for the disk may be lost; its notice alone may."""
    order = buy()
    statements: list[tuple[bool, str]] = []

    def record(execute: Any, statement: Any, *arguments: Any) -> Any:
        statements.append((connection.in_atomic_block, str(statement)))
        return execute(statement, *arguments)

    with connection.execute_wrapper(record):
        hear(notice(order.order_no))
    (is_in_transaction, first), *others = statements
    assert "raw_notices" in first
    assert "synchronous_commit" in first
    assert not is_in_transaction, "the setting lasts to the end of its transaction"
    applied = [statement for is_in_transaction, statement in others if is_in_transaction]
    assert any("trade_executions" in statement for statement in applied)
    assert not any("synchronous_commit" in statement for statement in applied)


def test_one_notice_changes_order_execution_and_holding_together(buy: Buy) -> None:
    order = buy()
    raw = hear(notice(order.order_no))
    order.refresh_from_db()
    assert (order.state, order.filled_qty, order.filled_amount) == (Status.FILLED, 10, 698_000)
    (execution,) = order.executions.all()
    assert (execution.exec_qty, execution.exec_price, execution.cumulative_qty) == (10, 69_800, 10)
    assert (execution.fee, execution.tax) == (98, 0)
    assert execution.executed_at.astimezone(clock.KST).strftime("%H:%M:%S") == "10:00:01"
    assert held() == (10, Decimal("69800.0000"))
    raw.refresh_from_db()
    assert raw.state == State.APPLIED
    assert raw.committed_ms is not None
    assert order.chase_at is None


@pytest.mark.parametrize("other", [{"side": "01"}, {"code": "000660"}])
def test_a_notice_of_another_branch_with_our_number_is_not_ours(buy: Buy, other: dict[str, str]) -> None:
    order = buy()
    raw = hear(notice(order.order_no, qty=4, **other))
    order.refresh_from_db()
    raw.refresh_from_db()
    assert (order.filled_qty, raw.state, Portfolio.objects.exists()) == (0, State.WAITING, False)
    fills.replay(order)
    fills.replay_stranded()
    assert RawNotice.objects.get().state == State.WAITING


def test_a_partial_fill_leaves_the_rest_open(buy: Buy) -> None:
    order = buy()
    hear(notice(order.order_no, qty=4))
    order.refresh_from_db()
    assert (order.state, order.open_qty) == (Status.PARTIAL, 6)
    assert order.chase_at is not None
    hear(notice(order.order_no, qty=6, at="100002"))
    order.refresh_from_db()
    assert order.state is Status.FILLED
    assert [each.cumulative_qty for each in order.executions.order_by("id")] == [4, 10]


def test_a_second_copy_counts_nothing_and_asks_the_broker(buy: Buy) -> None:
    order = buy()
    hear(notice(order.order_no, qty=4))
    assert hear(notice(order.order_no, qty=4)).state == State.DOUBTFUL
    order.refresh_from_db()
    assert (order.filled_qty, order.needs_reconciliation) == (4, True)
    assert held()[0] == 4


def test_more_than_was_ordered_is_never_counted(buy: Buy) -> None:
    order = buy()
    hear(notice(order.order_no, qty=8))
    assert hear(notice(order.order_no, qty=5, at="100002")).state == State.DOUBTFUL
    order.refresh_from_db()
    assert order.filled_qty == 8


@pytest.mark.parametrize(("flags", "change"), [("011", "0"), ("012", "1"), ("111", "0")])
def test_what_is_no_fill_fills_nothing(buy: Buy, flags: str, change: str) -> None:
    order = buy()
    hear(notice(order.order_no, flags=flags, change=change))
    order.refresh_from_db()
    assert order.filled_qty == 0
    assert not TradeExecution.objects.exists()


def test_a_refusal_of_the_exchange_ends_the_order(buy: Buy) -> None:
    order = buy()
    hear(notice(order.order_no, flags="111"))
    order.refresh_from_db()
    assert order.state is Status.REJECTED


def test_a_confirmed_cancel_ends_the_order_it_was_about(buy: Buy) -> None:
    order = buy()
    hear(notice("0000000099", original=order.order_no, flags="012", change="2"))
    order.refresh_from_db()
    assert (order.state, order.needs_reconciliation) == (Status.CANCELLED, True)


def test_a_cancel_of_fewer_shares_than_are_open_is_looked_up(buy: Buy) -> None:
    order = buy()
    raw = hear(notice("0000000099", qty=4, original=order.order_no, flags="012", change="2"))
    order.refresh_from_db()
    assert (order.state, order.needs_reconciliation, raw.state) == (Status.PENDING, True, State.APPLIED)


def test_a_fill_that_comes_after_the_cancel_is_counted(buy: Buy) -> None:
    order = buy()
    hear(notice("0000000099", original=order.order_no, flags="012", change="2"))
    hear(notice(order.order_no, qty=3))
    order.refresh_from_db()
    assert (order.state, order.filled_qty) == (Status.CANCELLED, 3)
    assert held()[0] == 3


def test_a_notice_that_comes_before_its_order_is_known_waits_for_it(buy: Buy) -> None:
    early = hear(notice("0000000001"))
    assert early.state == State.WAITING
    order = buy()
    order.refresh_from_db()
    early.refresh_from_db()
    assert (order.order_no, order.state) == ("0000000001", Status.FILLED)
    assert (early.state, early.order_id) == (State.APPLIED, order.pk)


def test_a_fill_of_an_amended_order_is_not_counted_for_its_original(buy: Buy) -> None:
    order = buy()
    amended = "0000000002"
    hear(notice(amended, original=order.order_no or "", change="1", flags="012"))
    fill = hear(notice(amended, price=69_900, original=order.order_no or "", change="1"))
    order.refresh_from_db()
    assert (order.state, order.filled_qty) == (Status.PENDING, 0)
    assert (fill.state, fill.order_id) == (State.WAITING, None), "the list says whose order that is"


def test_another_accounts_notice_is_counted_but_neither_applied_nor_kept(buy: Buy) -> None:
    order = buy()
    stranger = hear(notice(order.order_no, account="9999999901"))
    order.refresh_from_db()
    assert (stranger.state, stranger.text) == (State.FOREIGN, "")
    assert order.filled_qty == 0


def test_a_notice_is_kept_as_it_came(buy: Buy) -> None:
    order = buy()
    text = notice(order.order_no)
    assert hear(text).text == text


def test_a_sale_lowers_the_holding_and_keeps_its_average(buy: Buy) -> None:
    order = buy()
    hear(notice(order.order_no))
    TradeOrder.objects.filter(pk=order.pk).update(order_type="SELL", filled_qty=0, filled_amount=0, status="PENDING")
    TradeExecution.objects.all().delete()
    hear(notice(order.order_no, qty=4, price=72_000, side="01", at="100005"))
    assert held() == (6, Decimal("69800.0000"))
    assert TradeExecution.objects.get().tax == 576
