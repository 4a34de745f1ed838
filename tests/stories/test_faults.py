"""One fault at a time, over a few orders; after it heals our tables equal the exchange's ledger."""

from collections.abc import Callable
from datetime import timedelta
from functools import partial

import pytest

from aegis.broker import Broker, BrokerError
from aegis.chase import Plan
from aegis.lifecycle import UNSETTLED
from aegis.terms import Side
from infra import clock
from kis import client, factory
from kis.auth import Tokens
from kis.stream import Stream
from orders import chase, reconcile
from orders.models import TradeOrder
from orders.service import OrderDenied, OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from rehearsal.ledger_check import compare_with_ledger
from simulator.api.server import Simulator
from tests.desk.test_stream import ACCOUNT, asked, stream, term, wait_for

__all__ = ("asked", "stream", "term")

ORDERS = {"path": "/uapi/domestic-stock/v1/trading/order-cash"}
CANCELS = {"path": "/uapi/domestic-stock/v1/trading/order-rvsecncl"}
LISTS = {"path": "/uapi/domestic-stock/v1/trading/inquire-daily-ccld"}
HURRIED = Plan(wait_seconds=30, max_retries=2, step_ticks=1, market_after=True)

FAULTS: tuple[tuple[str, dict[str, object]], ...] = (
    ("answer_lost", {**ORDERS, "count": 1}),
    ("answer_torn", {**ORDERS, "count": 1}),
    ("request_lost", {**ORDERS, "count": 1}),
    ("timeout_accepted", {**ORDERS, "count": 1}),
    ("timeout_unaccepted", {**ORDERS, "count": 1}),
    ("error_500", {**ORDERS, "count": 1}),
    ("bad_gateway", {**ORDERS, "count": 1}),
    ("broken_json", {**ORDERS, "count": 1}),
    ("rt_cd_missing", {**ORDERS, "count": 1}),
    ("answer_lost", {**CANCELS, "count": 1}),
    ("request_lost", {**CANCELS, "count": 1}),
    ("too_fast", {"count": 3}),
    ("ledger_too_fast", {"count": 2}),
    ("token_ended", {"count": 2}),
    ("overtaken", {"count": 1}),
    ("refused_later", {"count": 1}),
    ("crumbs", {}),
    ("order_missing", {**LISTS, "count": 2}),
    ("duplicate_rows", {**LISTS, "count": 2}),
    ("empty_list", {**LISTS, "count": 2}),
    ("dict_for_list", {**LISTS, "count": 2}),
    ("notice_lost", {}),
    ("notice_doubled", {"times": 3}),
    ("notice_late", {"seconds": 0.5}),
    ("notice_reordered", {"batch": 3}),
    ("notice_of_another", {}),
    ("notice_wrong_key", {"count": 2}),
    ("notice_garbled", {"count": 2}),
    ("notice_columns", {"more": 2}),
    ("frame_cut", {"count": 5}),
    ("frame_bytes", {"count": 5}),
    ("frame_tr", {"count": 3}),
    ("drop_sockets", {}),
    ("balance_lag", {}),
)


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch, clock_at: Callable[[object], object]) -> None:
    """Let the minute between two tokens, and the pauses between tries, pass on the market's clock only."""

    def pass_time(seconds: float) -> None:
        clock_at(clock.now() + timedelta(seconds=seconds))

    monkeypatch.setattr(factory, "Tokens", partial(Tokens, sleep=pass_time))
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.01)


@pytest.mark.parametrize(("name", "words"), FAULTS, ids=[f"{n}-{name}" for n, (name, _) in enumerate(FAULTS)])
def test_after_the_fault_the_ledgers_are_equal(
    name: str,
    words: dict[str, object],
    stream: Stream,
    broker: Broker,
    simulator: Simulator,
    clock_at: Callable[[object], object],
) -> None:
    service = OrderService(broker, clock.now)
    simulator.set_price("004090", 16_000, freeze=True)
    simulator.fault(name, **words)
    for intent in (
        OrderIntent("005930", Side.BUY, 10, strategy="buy_urgent", plan=HURRIED),
        OrderIntent("005930", Side.BUY, 7, strategy="buy_normal", plan=HURRIED),
        OrderIntent("004090", Side.BUY, 600, strategy="buy_urgent", plan=HURRIED),
        OrderIntent("005930", Side.SELL, 3, strategy="sell_emergency", plan=HURRIED),
    ):
        try:
            service.place(intent)
        except (OrderDenied, BrokerError):
            continue  # what the fault kept from us was not sent
    for turn in range(14):
        clock_at(clock.now() + timedelta(seconds=16))
        _work(broker)
        if turn == 5:
            simulator.clear_faults()
    wait_for(lambda: _settled(broker, clock_at), seconds=20)
    KISFetcher(broker, clock.now).sync_portfolio()
    ledger = simulator.ledger(ACCOUNT)
    assert str(compare_with_ledger(ledger)).startswith("LEDGER EQUAL")
    _assert_no_family_overfilled()


def _work(broker: Broker) -> None:
    """Do what the workers would: chase what is due, look at the broker's list."""
    try:
        for pk in chase.due_orders(clock.now()):
            chase.run_due_steps(pk, broker, clock.now)
        reconcile.reconcile(broker, clock.now)
    except BrokerError:
        return


def _settled(broker: Broker, clock_at: Callable[[object], object]) -> bool:
    clock_at(clock.now() + timedelta(seconds=16))
    _work(broker)
    return not TradeOrder.objects.filter(status__in=UNSETTLED).exists()


def _assert_no_family_overfilled() -> None:
    for root in TradeOrder.objects.filter(root=None):
        filled = root.filled_qty + sum(root.retries.values_list("filled_qty", flat=True))
        assert filled <= root.qty
