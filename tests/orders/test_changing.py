"""Amends and cancels by a person: what is sent, by whom, and what they are told of it."""

from collections.abc import Callable
from io import StringIO
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.utils import translation

from aegis.broker import Acceptance, Broker, NotSent, OutcomeUnknown, PartialResponse, Refused, UnparsedLine
from infra import clock
from kis import factory
from orders import serializers
from orders.management.console import who
from orders.models import BrokerRequest, TradeOrder
from orders.reconcile import reconcile
from orders.service import OrderService
from simulator.api.server import Simulator

from .exchange_log import ACCOUNT
from .helpers import told

Buy = Callable[..., TradeOrder]


@pytest.fixture(autouse=True)
def _english() -> object:
    with translation.override("en"):
        yield


def said(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def open_at_the_exchange(simulator: Simulator) -> list[tuple[int, int]]:
    """Return price and open shares of what rests there."""
    found = factory.broker().open_orders()
    prices = {row["number"]: row["price"] for row in simulator.ledger(ACCOUNT)["orders"]}
    return sorted((prices[each.placed.order_no], each.qty) for each in found)


def newest(kind: str) -> BrokerRequest:
    return BrokerRequest.objects.filter(kind=kind).latest("id")


def fail(monkeypatch: pytest.MonkeyPatch, broker: Broker, method: str, error: Exception) -> None:
    def raise_it(*args: object, **kwargs: object) -> None:
        raise error

    monkeypatch.setattr(type(broker), method, raise_it)


# --- amend


def test_an_amend_names_both_orders_and_who_asked_for_it(buy: Buy, broker: Broker, simulator: Simulator) -> None:
    order = buy(price=69_000)
    line = said("amend", f"#{order.pk}", "--price", "69,500")
    row = TradeOrder.objects.latest("id")
    assert line.startswith(f"amend sent: #{order.pk} → #{row.pk}: 10 shares at 69,500 won")
    request = newest("AMEND")
    assert (request.requested_by, request.who, request.order_id) == ("OPERATOR", who(), order.pk)
    assert open_at_the_exchange(simulator) == [(69_500, 10)]
    reconcile(broker, clock.now)
    row.refresh_from_db()
    assert (row.status, row.replaces_id) == ("PENDING", order.pk)


def test_an_amend_is_told_with_both_orders(buy: Buy) -> None:
    order = buy(price=69_000)
    shape = told("amend", f"#{order.pk}", "--price", "69500", "--qty", "4")
    assert set(shape["order"]) == set(serializers.OrderShape.__annotations__)
    assert (shape["order"]["id"], shape["amended"]["replaces"]) == (order.pk, order.pk)
    assert (shape["amended"]["qty"], shape["amended"]["price"]) == (4, 69_500)


def test_a_quantity_alone_reduces_the_order_once_the_list_says_so(
    buy: Buy, broker: Broker, simulator: Simulator
) -> None:
    order = buy(price=69_000)
    line = said("amend", f"#{order.pk}", "--qty", "4")
    assert line.startswith(f"cancel of 6 shares of #{order.pk} sent: 4 stay open once the broker's list confirms it")
    assert open_at_the_exchange(simulator) == [(69_000, 4)]
    order.refresh_from_db()
    assert order.open_qty == 10, "the reply proves nothing"
    reconcile(broker, clock.now)
    order.refresh_from_db()
    assert (order.open_qty, order.withdrawn_qty, order.status) == (4, 6, "PENDING")


def test_a_dry_run_judges_an_amend_and_sends_nothing(buy: Buy, simulator: Simulator) -> None:
    order = buy(price=69_000)
    shape = told("amend", f"#{order.pk}", "--price", "69500", "--dry-run")
    assert (shape["dry_run"], shape["draft"]["price"], shape["order"]["id"]) == (True, 69_500, order.pk)
    assert told("amend", f"#{order.pk}", "--qty", "4", "--dry-run")["draft"] is None
    assert "10 of 10 open shares from 69,000 to 69,500 won" in said(
        "amend", f"#{order.pk}", "--price", "69500", "--dry-run"
    )
    assert told("amend", f"#{order.pk}", "--price", "69550", "--dry-run", exit_code=1)["error"]["code"] == "DENIED"
    assert not BrokerRequest.objects.filter(kind="AMEND").exists()
    assert open_at_the_exchange(simulator) == [(69_000, 10)]


@pytest.mark.parametrize(
    ("words", "code", "complaint"),
    [
        (["--price", "69000"], "DENIED", "its price is 69,000 won already"),
        (["--price", "69550"], "DENIED", "69,550 is not on the grid"),
        (["--qty", "11"], "DENIED", "quantity 11: 1 to 10 shares of it are open"),
        (["--qty", "10"], "DENIED", "nothing would change"),
    ],
)
def test_an_amend_that_is_denied_says_why(buy: Buy, words: list[str], code: str, complaint: str) -> None:
    order = buy(price=69_000)
    error = told("amend", f"#{order.pk}", *words, exit_code=1)["error"]
    assert error["code"] == code
    assert error["message"].startswith(f"#{order.pk} is not amended: ")
    assert complaint in error["message"]


def test_an_amend_needs_a_price_or_a_quantity(buy: Buy) -> None:
    order = buy(price=69_000)
    assert told("amend", f"#{order.pk}", exit_code=2)["error"]["code"] == "USAGE"
    assert told("amend", "#999", "--qty", "1", exit_code=1)["error"]["code"] == "NO_ORDER"


@pytest.mark.parametrize(
    ("method", "error", "code", "complaint", "exit_code"),
    [
        ("amend", Refused("정정 수량 초과", code="APBK0344"), "REFUSED", "look at the order first", 1),
        ("amend", OutcomeUnknown("no answer"), "UNKNOWN", "neither amend nor order it again", 3),
        ("quote", NotSent("nobody there"), "NOT_AMENDED", "nothing was sent: try again", 1),
        ("quote", OutcomeUnknown("no answer"), "NOT_AMENDED", "nothing was sent: try again", 1),
    ],
)
def test_an_amend_that_fails_says_what_to_do(
    buy: Buy, broker: Broker, monkeypatch: pytest.MonkeyPatch,
    method: str, error: Exception, code: str, complaint: str, exit_code: int,
) -> None:  # fmt: skip
    order = buy(price=69_000)
    fail(monkeypatch, broker, method, error)
    shape = told("amend", f"#{order.pk}", "--price", "69500", exit_code=exit_code)
    assert shape["error"]["code"] == code
    assert complaint in shape["error"]["message"]
    assert shape["order"]["status"] == "PENDING"


@pytest.mark.parametrize(
    ("error", "code", "complaint", "exit_code"),
    [
        (Refused("not now", code="X2"), "NOT_AMENDED", "look at the order first", 1),
        (NotSent("nobody there"), "NOT_AMENDED", "nothing was sent: try again", 1),
        (OutcomeUnknown("no answer"), "UNKNOWN", "without an answer", 3),
    ],
)
def test_a_reduction_that_fails_says_what_to_do(
    buy: Buy, broker: Broker, monkeypatch: pytest.MonkeyPatch,
    error: Exception, code: str, complaint: str, exit_code: int,
) -> None:  # fmt: skip
    order = buy(price=69_000)
    fail(monkeypatch, broker, "cancel_part", error)
    shape = told("amend", f"#{order.pk}", "--qty", "4", exit_code=exit_code)
    assert shape["error"]["code"] == code
    assert complaint in shape["error"]["message"]


# --- cancel


def test_a_number_that_two_orders_have_cancels_neither(buy: Buy, simulator: Simulator) -> None:
    first, second = buy(price=69_000), buy(price=69_100)
    TradeOrder.objects.filter(pk=second.pk).update(order_no=first.order_no, branch="00951")
    for command in (["cancel"], ["amend", "--qty", "1"]):
        error = told(command[0], str(int(first.order_no or "")), *command[1:], exit_code=2)["error"]
        assert f"#{first.pk}, #{second.pk}" in error["message"]
    assert not BrokerRequest.objects.exclude(kind="NEW").exists()


def test_a_cancel_says_that_the_list_confirms_it_and_who_asked(buy: Buy) -> None:
    order = buy(price=69_000)
    lines = said("cancel", f"#{order.pk}")
    assert "The broker's list confirms it; until then the cancel is sent again, and after 30 s you are told" in lines
    assert (newest("CANCEL").requested_by, newest("CANCEL").who) == ("OPERATOR", who())
    order.refresh_from_db()
    assert (order.status, order.cancel_requested_by) == ("PENDING", "OPERATOR")


def test_a_cancel_without_an_answer_is_not_called_sent_and_done(
    buy: Buy, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = buy(price=69_000)
    fail(monkeypatch, broker, "cancel", OutcomeUnknown("no answer"))
    assert "No answer came: it is sent again until the broker's list confirms it" in said("cancel", f"#{order.pk}")


# --- cancel all


def stubborn(monkeypatch: pytest.MonkeyPatch, broker: Broker) -> None:
    """Let the broker acknowledge every cancel and carry out none."""

    def cancel(self: Broker, placed: Any) -> Acceptance:
        return Acceptance("06010", "0000000999", clock.now().time())

    monkeypatch.setattr(type(broker), "cancel", cancel)


def test_a_cancel_that_the_list_does_not_confirm_fails_the_brake(
    buy: Buy, broker: Broker, monkeypatch: pytest.MonkeyPatch, simulator: Simulator
) -> None:
    order = buy(price=69_000)
    stubborn(monkeypatch, broker)
    shape = told("cancel_all", exit_code=1)
    assert (shape["error"]["code"], shape["cancelled"]) == ("NOT_ALL", [])
    assert [each["order_no"] for each in shape["unconfirmed"]] == [order.order_no]
    with pytest.raises(CommandError, match=f"NOT confirmed: {order.order_no}: the cancel was sent"):
        said("cancel_all")
    assert open_at_the_exchange(simulator) == [(69_000, 10)]


def test_a_dry_run_of_the_brake_asks_the_broker_what_the_brake_asks(
    buy: Buy, service: OrderService, simulator: Simulator
) -> None:
    order = buy(price=69_000)
    by_hand = {"account": ACCOUNT, "code": "005930", "side": "BUY", "quantity": 3, "price": 60_000, "kind": "00"}
    simulator.command("POST", "/simulator/orders", {**by_hand, "market": "KRX"})
    (found,) = told("cancel_all", "--dry-run")["orders"]
    assert set(found) == set(serializers.OpenOrderShape.__annotations__)
    assert (found["order"], found["order_no"], found["qty"]) == (order.pk, order.order_no, 10)
    both = told("cancel_all", "--dry-run", "--external")["orders"]
    assert {(each["order"], each["qty"]) for each in both} == {(order.pk, 10), (None, 3)}
    assert "3 shares open, KRX" in said("cancel_all", "--dry-run", "--external")
    assert len(open_at_the_exchange(simulator)) == 2


def test_a_dry_run_of_the_brake_says_what_it_could_not_read(
    buy: Buy, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = buy(price=69_000)
    seen = PartialResponse(broker.open_orders(), [UnparsedLine("0000000009", "its kind is 51")])
    fail(monkeypatch, broker, "open_orders", seen)
    shape = told("cancel_all", "--dry-run", exit_code=1)
    assert (shape["error"]["code"], [each["order_no"] for each in shape["orders"]]) == ("NOT_ALL", [order.order_no])
    assert "51" in shape["unseen"]


def test_a_dry_run_of_the_brake_that_cannot_ask_says_so(
    buy: Buy, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    buy(price=69_000)
    fail(monkeypatch, broker, "open_orders", Refused("closed", code="X1"))
    assert told("cancel_all", "--dry-run", exit_code=1)["error"]["code"] == "BROKER"
