"""Orders that come as a message: one id, one order, and every outcome reaches the caller."""

from dataclasses import fields
from typing import Any

import pytest
from django.utils import translation

from aegis.broker import Broker, NotSent
from aegis.chase import Plan
from aegis.terms import Market, Side
from infra import clock
from orders import order_messages, periodic_sync
from orders.models import TradeOrder
from orders.service import OrderService
from orders.tasks import submit
from simulator.api.server import Simulator
from tests.workers import Workers

WORDS: dict[str, Any] = {"request_id": "a-1", "code": "005930", "side": "BUY", "qty": 10, "strategy": "buy_normal"}


@pytest.fixture(autouse=True)
def _english() -> object:
    with translation.override("en"):
        yield


def test_the_words_mean_what_an_intent_means() -> None:
    plan = {"wait_seconds": 5, "market_after": False}
    intent = order_messages.parse_intent({**WORDS, "market": "NXT", "plan": plan})
    assert (intent.request_id, intent.code, intent.side, intent.qty) == ("a-1", "005930", Side.BUY, 10)
    assert (intent.strategy, intent.price, intent.market) == ("buy_normal", None, Market.NXT)
    assert intent.plan == Plan(5.0, 3, 1, False)
    assert set(order_messages.WORDS) == {field.name for field in fields(intent) if field.init}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"request_id": ""}, r"request_id '': 1 to 64 letters are needed"),
        ({"request_id": "x" * 65}, "1 to 64 letters"),
        *(({"request_id": f"{own}1"}, f"request_id '{own}1'") for own in TradeOrder.OWN_IDS),
        ({"code": 5930}, "code 5930: text is needed"),
        ({"side": "buy"}, "side 'buy': one of BUY, SELL is needed"),
        ({"qty": 0}, "qty 0: a whole number, 1 or more, is needed"),
        ({"qty": True}, "qty True"),
        ({"qty": "10"}, "qty '10'"),
        ({"price": 70_000}, "strategy 'buy_normal' and price 70000 exclude each other"),
        ({"strategy": "", "price": 69_999.5}, "price 69999.5: a whole number"),
        ({"market": "NYSE"}, "market 'NYSE': one of KRX, NXT, SOR is needed"),
        ({"plan": {"wait": 3}}, "an object with any of wait_seconds, max_retries, step_ticks, market_after"),
        ({"plan": {"wait_seconds": -1}}, "plan.wait_seconds -1"),
        ({"plan": {"step_ticks": 0}}, "step_ticks 0"),
        ({"plan": {"market_after": 1}}, "plan.market_after 1: true or false"),
        ({"kind": "99"}, "kind '99': one of 00, 01"),
        ({"trigger": -1}, "trigger -1: a whole number, 0 or more"),
        ({"stops": "5%"}, "stops '5%': a list of"),
        ({"stops": [{"kind": "STOP_LOSS"}]}, "a list of {kind, unit, value} is needed"),
        ({"stops": [{"kind": "STOP", "unit": "PERCENT", "value": "5"}]}, "kind 'STOP': one of STOP_LOSS"),
        ({"stops": [{"kind": "TRAILING", "unit": "PERCENT", "value": "0"}]}, "stops.value '0': a number above 0"),
        ({"strategy_id": "x" * 65}, f"strategy_id '{'x' * 65}': up to 64 printable letters"),
        ({"strategy_id": "a\nb"}, "strategy_id 'a\\nb'"),
        ({"tick_offset": 101}, "tick_offset 101: a whole number of ticks, -100 to 100"),
        ({"tick_offset": 1.5}, "tick_offset 1.5"),
        ({"strategy": "", "price": 70_000, "tick_offset": -3}, "tick_offset -3 and price 70000 exclude each other"),
        ({"quantity": 3}, "quantity: no such word; there are request_id"),
    ],
)
def test_a_wrong_word_is_named_and_nothing_is_sent(
    service: OrderService, broker: Broker, words: dict[str, Any], complaint: str
) -> None:
    answer = order_messages.submit({**WORDS, **words}, broker, clock.now)
    assert (answer["outcome"], answer["order"]) == ("INVALID", None)
    assert complaint in answer["error"]
    assert not TradeOrder.objects.exists()


def test_a_message_says_who_wants_the_order_and_how_far_it_is_priced(service: OrderService, broker: Broker) -> None:
    answer = order_messages.submit({**WORDS, "strategy_id": " mine ", "tick_offset": -5}, broker, clock.now)
    assert answer["order"] is not None
    assert (answer["order"]["strategy_id"], answer["order"]["tick_offset"]) == ("mine", -5)
    assert (answer["order"]["strategy"], answer["order"]["price"]) == ("buy_normal", 69_500)


@pytest.mark.parametrize("other", [{"side": "SELL"}, {"code": "000660"}])
def test_the_same_id_for_something_else_is_refused(
    service: OrderService, broker: Broker, other: dict[str, Any]
) -> None:
    order_messages.submit(WORDS, broker, clock.now)
    answer = order_messages.submit({**WORDS, "strategy": "", **other}, broker, clock.now)
    assert (answer["outcome"], [reason["code"] for reason in answer["reasons"]]) == ("DENIED", ["REQUEST_TAKEN"])
    assert TradeOrder.objects.count() == 1


def test_the_same_id_is_the_same_order(service: OrderService, broker: Broker, simulator: Simulator) -> None:
    first, second = (order_messages.submit(WORDS, broker, clock.now) for _ in range(2))
    assert first == second
    assert first["outcome"] == "PLACED"
    assert first["order"] is not None
    assert (first["order"]["status"], first["order"]["price"]) == ("PENDING", 69_800)
    assert len(simulator.ledger("50000000-01")["orders"]) == 1


def test_a_denied_order_says_every_reason(service: OrderService, broker: Broker) -> None:
    answer = order_messages.submit({**WORDS, "code": "015760", "market": "NXT"}, broker, clock.now)
    assert answer["outcome"] == "DENIED"
    assert "BLACKLISTED" in [reason["code"] for reason in answer["reasons"]]
    assert all(reason["message"] for reason in answer["reasons"])


def test_a_broker_out_of_reach_leaves_no_order(
    service: OrderService, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object) -> None:
        raise NotSent("nobody there")

    monkeypatch.setattr(type(broker), "quote", gone)
    answer = order_messages.submit(WORDS, broker, clock.now)
    assert (answer["outcome"], answer["error"]) == ("UNASKED", "nobody there")
    assert not TradeOrder.objects.exists()


@pytest.mark.django_db(transaction=True)
def test_a_worker_answers_whoever_asked(broker: Broker, simulator: Simulator, workers: Workers) -> None:
    """Through a real worker and Redis: the answer comes back, a repetition is the same order."""
    periodic_sync.begin(broker, clock.now)
    simulator.set_price("005930", 70_000)
    workers.start("orders")
    asked = [submit.delay(**WORDS) for _ in range(2)]
    first, second = (each.get(timeout=60) for each in asked)
    assert first["outcome"] == "PLACED", first
    assert first["order"]["id"] == second["order"]["id"]
    assert first["order"]["id"] == TradeOrder.objects.get().pk
    denied = submit.delay(**{**WORDS, "request_id": "a-2", "code": "015760"}).get(timeout=60)
    assert denied["outcome"] == "DENIED"
    assert len(simulator.ledger("50000000-01")["orders"]) == 1
