"""The operator's commands: what they print, and the exit codes a script can use."""

from io import StringIO

import pytest
from django.core.management import CommandError, call_command
from django.utils import translation

from aegis.broker import Broker, OutcomeUnknown
from orders.management.console import OUTCOME_UNKNOWN
from orders.models import TradeOrder
from orders.service import OrderService


@pytest.fixture(autouse=True)
def _english() -> object:
    with translation.override("en"):
        yield


def run(*words: str) -> str:
    out = StringIO()
    call_command(*words, stdout=out)
    return out.getvalue()


def test_buy_tells_what_was_ordered(service: OrderService) -> None:
    said = run("buy", "005930", "10", "--strategy", "buy_normal")
    assert said.startswith("ordered: 삼성전자 (005930) buy 10 shares at 69,800, KRX 00, number 0000000001, pending")


def test_buy_is_by_the_normal_strategy_unless_said_otherwise(service: OrderService) -> None:
    run("buy", "005930", "1")
    assert TradeOrder.objects.get().strategy == "buy_normal"


@pytest.mark.parametrize(
    ("words", "price", "kind"),
    [
        (["--price", "69,000"], 69_000, "00"),
        (["--at-market"], 0, "01"),
        (["--market", "NXT", "--price", "60000"], 60_000, "00"),
    ],
)
def test_the_ways_to_price_an_order(service: OrderService, words: list[str], price: int, kind: str) -> None:
    run("buy", "005930", "1", *words)
    order = TradeOrder.objects.get()
    assert (order.price, order.order_kind) == (price, kind)


def test_a_dry_run_tells_the_price_and_orders_nothing(service: OrderService) -> None:
    said = run("buy", "005930", "10", "--dry-run")
    assert "would buy 10 shares of 삼성전자 at 69,800 (KRX 00); last price 70,000 won" in said
    assert not TradeOrder.objects.exists()


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["buy", "005930", "0"], "quantity '0' is not a whole number of shares above zero"),
        (["buy", "005930", "-5"], "quantity '-5'"),
        (["buy", "005930", "ten"], "quantity 'ten'"),
        (["buy", "005930", "1.5"], "quantity '1.5'"),
        (["buy", "005930", "1", "--price", "abc"], "price 'abc' is not a whole number of won"),
        (["buy", "005930", "1", "--strategy", "sell_stop"], "invalid choice"),
    ],
)
def test_bad_words_are_named_with_what_would_be_right(service: OrderService, words: list[str], complaint: str) -> None:
    with pytest.raises(CommandError, match=complaint):
        run(*words)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["buy", "999999", "1"], "there is no stock with the code 999999"),
        (["buy", "005930", "1", "--price", "69950"], "price 69,950 is not on the grid: the tick there is 100 won"),
        (["buy", "005930", "1", "--price", "150000"], "outside today's limits"),
        (["buy", "005930", "99999"], "not enough cash"),
        (["buy", "015760", "1"], "on the blacklist"),
        (["sell", "005930", "1"], "not enough shares: 1 asked, 0 sellable"),
    ],
)
def test_a_refusal_says_why_and_exits_with_one(service: OrderService, words: list[str], complaint: str) -> None:
    with pytest.raises(CommandError, match=complaint) as caught:
        run(*words)
    assert caught.value.returncode == 1
    assert not TradeOrder.objects.exists()


def test_an_unknown_outcome_has_an_exit_code_of_its_own(
    service: OrderService, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*args: object) -> None:
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(type(broker), "place", lost)
    with pytest.raises(CommandError, match="do not order again") as caught:
        run("buy", "005930", "1")
    assert caught.value.returncode == OUTCOME_UNKNOWN


def test_the_same_request_id_is_the_same_order(service: OrderService) -> None:
    run("buy", "005930", "1", "--request-id", "mine")
    run("buy", "005930", "1", "--request-id", "mine")
    assert TradeOrder.objects.count() == 1


def test_a_request_id_that_begins_as_our_own_is_refused(service: OrderService) -> None:
    with pytest.raises(CommandError, match=r"begins as AEGIS's own do \(chase:, stop:, external:, amend:\)"):
        run("buy", "005930", "1", "--request-id", "chase:1:1")


def test_cancel_takes_the_brokers_number_or_our_own(service: OrderService) -> None:
    run("buy", "005930", "1")
    assert run("cancel", "1").startswith("cancel sent:")
    run("buy", "005930", "1")
    assert run("cancel", f"#{TradeOrder.objects.latest('id').pk}").startswith("cancel sent:")


def test_cancelling_what_is_not_there_says_so(service: OrderService) -> None:
    with pytest.raises(CommandError, match="there is no order 77"):
        run("cancel", "77")


def test_orders_lists_them_and_says_so_when_there_are_none(service: OrderService) -> None:
    assert "no orders" in run("orders")
    run("buy", "005930", "1")
    assert "삼성전자 (005930) buy 1 shares" in run("orders", "--open")


def test_balance_asks_for_a_first_sync_and_then_shows_it(service: OrderService) -> None:
    with pytest.raises(CommandError, match="--sync"):
        run("balance")
    assert "total 100,000,000 won" in run("balance", "--sync")
    run("buy", "005930", "10", "--strategy", "buy_urgent")
    assert "삼성전자 (005930) 10 shares" in run("balance", "--sync")


def test_operators_read_korean_by_default(service: OrderService, settings) -> None:
    with translation.override(settings.LANGUAGE_CODE), pytest.raises(CommandError) as caught:
        run("sell", "005930", "1")
    assert "매도" in str(caught.value)
