"""The commands as a script uses them: one JSON object, the shapes of docs/commands.md, exit codes, confirmation."""

import json
import re
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from io import StringIO
from typing import Any
from unittest import mock

import pytest
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.utils import translation

from aegis.broker import Broker, OutcomeUnknown, Refused
from aegis.lifecycle import Status
from config.env import BASE_DIR
from infra import clock
from kis.environment import EnvironmentName
from orders import journal, kill_switch, risk, serializers
from orders.models import StopRule, TradeOrder
from orders.reconcile import reconcile
from orders.service import OrderService
from simulator.api.server import Simulator
from tests import workers

from .exchange_log import ACCOUNT
from .helpers import told


@pytest.fixture(autouse=True)
def _english() -> object:
    with translation.override("en"):
        yield


def assert_shape(value: dict[str, Any], shape: type) -> None:
    assert set(value) == set(shape.__annotations__)


def open_at_the_exchange(simulator: Simulator) -> list[str]:
    return [each["number"] for each in simulator.ledger(ACCOUNT)["orders"] if each["status"] == "open"]


def by_hand(simulator: Simulator, price: int = 60_000) -> None:
    order = {"account": ACCOUNT, "code": "005930", "side": "BUY", "quantity": 1, "price": price, "kind": "00"}
    simulator.command("POST", "/simulator/orders", {**order, "market": "KRX"})


def test_every_shape_is_in_the_documentation_field_by_field() -> None:
    text = (BASE_DIR / "docs" / "commands.md").read_text(encoding="utf-8")
    written = {
        name: set(re.findall(r"`(\w+)`", fields)) for name, fields in re.findall(r"^\| (\w+) \| (.+) \|$", text, re.M)
    }
    for name, shape in vars(serializers).items():
        if name.endswith("Shape"):
            assert written[name.removesuffix("Shape")] == set(shape.__annotations__)


def test_an_order_is_told_with_every_field(service: OrderService) -> None:
    shape = told("buy", "005930", "10", "--request-id", "mine")
    assert_shape(shape["order"], serializers.OrderShape)
    order = shape["order"]
    assert (order["request_id"], order["side"], order["qty"], order["price"]) == ("mine", "BUY", 10, 69_800)
    assert (order["status"], order["order_no"], order["order_date"]) == ("PENDING", "0000000001", "2026-11-23")
    assert order["created_at"].endswith("+09:00")
    assert told("orders")["orders"] == [order]


def test_a_dry_run_tells_the_draft_and_sends_nothing(service: OrderService, simulator: Simulator) -> None:
    shape = told("buy", "005930", "10", "--dry-run")
    assert shape["dry_run"] is True
    assert_shape(shape["draft"], serializers.DraftShape)
    assert (shape["draft"]["price"], shape["draft"]["cost"]) == (69_800, 698_000)
    assert not TradeOrder.objects.exists()
    assert not simulator.ledger(ACCOUNT)["orders"]


def test_the_chase_of_one_order_may_differ_from_the_settings(service: OrderService) -> None:
    words = ["--price", "69000", "--wait", "1.5", "--retries", "0", "--step", "2", "--no-market"]
    chase = told("buy", "005930", "1", *words)["order"]["chase"]
    assert chase == {"wait_seconds": 1.5, "max_retries": 0, "step_ticks": 2, "market_after": False}
    order = told("buy", "005930", "1", "--no-chase")["order"]
    assert (order["chase"]["wait_seconds"], order["chase_at"]) == (0, None)


@pytest.mark.parametrize(
    ("typed", "price"), [("-3", 69_700), ("+1", 70_100), ("0", 70_000), ("\u22123", 69_700), ("－３", 69_700)]
)
def test_an_offset_is_counted_from_what_the_style_counts_from(service: OrderService, typed: str, price: int) -> None:
    draft = told("buy", "005930", "1", "--offset", typed, "--dry-run")["draft"]
    assert (draft["price"], draft["strategy"]) == (price, "buy_normal")
    order = told("buy", "005930", "1", "--strategy", "buy_normal", "--offset", typed)["order"]
    assert (order["price"], order["tick_offset"]) == (price, draft["tick_offset"])


@pytest.mark.parametrize("words", [["--price", "69000"], ["--at-market"], ["--kind", "market_ioc"]])
def test_an_offset_and_a_price_of_its_own_exclude_each_other(service: OrderService, words: list[str]) -> None:
    error = told("buy", "005930", "1", "--offset", "-3", *words, exit_code=2)["error"]
    assert error["code"] == "USAGE"
    assert "--offset" in error["message"]


def test_orders_and_fills_are_found_by_who_wanted_them(service: OrderService, broker: Broker) -> None:
    told("buy", "005930", "1", "--strategy", "buy_urgent", "--strategy-id", " turtle ")
    told("buy", "005930", "1", "--price", "60000", "--strategy-id", "steady")
    told("buy", "005930", "1", "--price", "60100")
    reconcile(broker, clock.now)
    assert [order["strategy_id"] for order in told("orders")["orders"]] == ["", "steady", "turtle"]
    assert [order["qty"] for order in told("orders", "--strategy-id", "turtle")["orders"]] == [1]
    assert [order["price"] for order in told("orders", "--strategy-id", "")["orders"]] == [60_100]
    (fill,) = told("executions", "--strategy-id", "ｔｕｒｔｌｅ")["executions"]
    assert fill["strategy_id"] == "turtle"
    assert told("executions", "--strategy-id", "steady")["executions"] == []
    for command in ("orders", "executions"):
        out = StringIO()
        call_command(command, stdout=out)
        assert ", for turtle" in out.getvalue()


@pytest.mark.parametrize("code", ["11", "limit_ioc"])
def test_an_order_code_may_be_asked_for_by_name(service: OrderService, code: str) -> None:
    order = told("buy", "005930", "1", "--price", "69000", "--kind", code)["order"]
    assert (order["kind"], order["chase_at"]) == ("11", None)
    assert told("buy", "005930", "2", "--kind", "market_ioc", "--dry-run")["draft"]["kind"] == "13"


def test_a_code_that_the_hour_does_not_take_is_no_other_instead(service: OrderService) -> None:
    shape = told("buy", "005930", "1", "--price", "69000", "--kind", "41", exit_code=1)
    assert "ORDER_KIND" in [reason["code"] for reason in shape["reasons"]]


def test_a_draft_says_where_it_goes_as_another_kind(service: OrderService, clock_at: Any) -> None:
    clock_at("2026-11-23 16:00:00")
    shape = told("buy", "005930", "1", "--at-market", "--market", "NXT", "--dry-run")
    assert "takes no market order now" in shape["draft"]["changed"]


def test_a_chase_and_no_chase_exclude_each_other(service: OrderService) -> None:
    assert told("buy", "005930", "1", "--no-chase", "--wait", "3", exit_code=2)["error"]["code"] == "USAGE"


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--wait", "0"], "wait '0' is not a number of seconds above zero"),
        (["--wait", "soon"], "wait 'soon'"),
        (["--retries", "-1"], "retries '-1' is not a whole number, 0 or more"),
        (["--step", "0"], "step '0' is not a whole number of ticks above zero"),
        (["--market", "NYSE"], "market 'NYSE' is no venue: use one of KRX, NXT, SOR"),
        (["--request-id", "x" * 65], "is not 1 to 64 letters"),
        (["--request-id", " x"], "without spaces at its ends"),
        (["--kind", "x"], "kind 'x' is no order code: use one of 00 limit, 01 market"),
        (["--trigger", "-5"], "price '-5'"),
        (["--offset", "1.5"], "offset '1.5' is not a whole number of ticks from -100 to 100: write it as -3"),
        (["--offset", "-101"], "offset '-101'"),
        (["--strategy-id", "x" * 65], "is not 1 to 64 printable letters"),
        (["--strategy-id", " "], "strategy id ' '"),
    ],
)
def test_bad_words_are_named_with_what_would_be_right(service: OrderService, words: list[str], complaint: str) -> None:
    with pytest.raises(CommandError, match=complaint):
        call_command("buy", "005930", "1", *words)
    assert not TradeOrder.objects.exists()


def test_a_refusal_tells_every_reason_with_its_code(service: OrderService) -> None:
    shape = told("buy", "015760", "0" + "1", "--market", "NXT", exit_code=1)
    assert shape["error"]["code"] == "DENIED"
    assert "BLACKLISTED" in [reason["code"] for reason in shape["reasons"]]
    for reason in shape["reasons"]:
        assert_shape(reason, serializers.ReasonShape)


def test_an_unknown_outcome_is_told_with_its_order(
    service: OrderService, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(*args: object) -> None:
        raise OutcomeUnknown("no answer")

    monkeypatch.setattr(type(broker), "place", lost)
    shape = told("buy", "005930", "1", exit_code=3)
    assert (shape["error"]["code"], shape["order"]["status"]) == ("UNKNOWN", "UNKNOWN")


def test_cancel_tells_the_order_and_what_cannot_be_cancelled(service: OrderService, simulator: Simulator) -> None:
    told("buy", "005930", "1", "--no-chase")
    assert told("cancel", "1", "--dry-run")["dry_run"] is True
    assert open_at_the_exchange(simulator)
    assert_shape(told("cancel", "1")["order"], serializers.OrderShape)
    assert not open_at_the_exchange(simulator)
    assert told("cancel", "77", exit_code=1)["error"]["code"] == "NO_ORDER"
    assert told("cancel", "no. 1", exit_code=2)["error"]["code"] == "USAGE"


def test_fills_are_told_with_their_costs(service: OrderService, broker: Broker) -> None:
    assert told("executions")["executions"] == []
    told("buy", "005930", "3", "--strategy", "buy_urgent")
    reconcile(broker, clock.now)
    (fill,) = told("executions", "--code", "005930", "--day", "2026-11-23")["executions"]
    assert_shape(fill, serializers.ExecutionShape)
    assert (fill["qty"], fill["tax"], fill["source"]) == (3, 0, "LIST")
    assert fill["amount"] == int(float(fill["price"]) * 3)
    assert told("executions", "--day", "2026-11-20")["executions"] == []
    out = StringIO()
    call_command("executions", stdout=out)
    assert "삼성전자 (005930) buy 3 shares at" in out.getvalue()


def test_the_balance_is_told_as_numbers(service: OrderService) -> None:
    assert told("balance", exit_code=1)["error"]["code"] == "NO_BALANCE"
    told("buy", "005930", "3", "--strategy", "buy_urgent")
    shape = told("balance", "--sync")
    assert_shape(shape["account"], serializers.AccountShape)
    assert_shape(shape["holdings"][0], serializers.HoldingShape)
    assert shape["holdings"][0]["qty"] == 3


def test_a_broker_out_of_reach_is_told(service: OrderService, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise Refused("closed for the night", code="X1")

    monkeypatch.setattr(type(broker), "balance", refuse)
    shape = told("balance", "--sync", exit_code=1)
    assert (shape["error"]["code"], shape["broker_code"]) == ("BROKER", "X1")


def test_reconcile_tells_what_it_did(service: OrderService, simulator: Simulator) -> None:
    by_hand(simulator)
    shape = told("reconcile")
    assert (shape["seen"], shape["adopted"], shape["corrected"], shape["resolved"]) == (1, 1, 0, 0)


def test_the_brake_cancels_all_that_is_ours_and_by_option_the_rest(service: OrderService, simulator: Simulator) -> None:
    for market in ("KRX", "NXT"):
        told("buy", "005930", "1", "--market", market, "--price", "60000")
    by_hand(simulator)
    assert len(told("cancel_all", "--dry-run")["orders"]) == 2
    assert len(open_at_the_exchange(simulator)) == 3
    shape = told("cancel_all")
    assert_shape(
        {name: shape[name] for name in shape if name in serializers.CancelAllResultShape.__annotations__},
        serializers.CancelAllResultShape,
    )
    assert (len(shape["cancelled"]), shape["failed"], len(shape["left"])) == (2, [], 1)
    assert open_at_the_exchange(simulator) == shape["left"]
    assert len(told("cancel_all", "--external")["cancelled"]) == 1
    assert not open_at_the_exchange(simulator)


def test_the_brake_goes_on_where_one_cancel_fails_and_says_which(
    service: OrderService, broker: Broker, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    for price in ("60000", "61000", "62000"):
        told("buy", "005930", "1", "--price", price)
    cancel = type(broker).cancel

    def stubborn(self: Broker, placed: Any) -> Any:
        if placed.order_no == "0000000002":
            raise Refused("not now", code="X2")
        return cancel(self, placed)

    monkeypatch.setattr(type(broker), "cancel", stubborn)
    shape = told("cancel_all", exit_code=1)
    assert shape["cancelled"] == ["0000000003", "0000000001"]
    assert [each["order_no"] for each in shape["failed"]] == ["0000000002"]
    assert "not now" in shape["error"]["message"]


def test_the_switch_is_turned_and_says_from_where(service: OrderService) -> None:
    shape = told("halt", "the", "book", "looks", "wrong")["switch"]
    assert_shape(shape, serializers.SwitchShape)
    assert (shape["state"], shape["from_state"], shape["reason"]) == ("HALTED", "ACTIVE", "the book looks wrong")
    assert told("sell", "005930", "1", exit_code=1)["reasons"][0]["code"] == "HALTED"
    assert told("reduce")["switch"]["from_state"] == "HALTED"
    assert told("resume")["switch"]["state"] == "ACTIVE"
    assert told("buy", "005930", "1")["order"]["status"] == "PENDING"


def test_the_brake_may_halt_first(service: OrderService) -> None:
    told("buy", "005930", "1")
    assert len(told("cancel_all", "--halt")["cancelled"]) == 1
    assert told("buy", "005930", "1", exit_code=1)["reasons"][0]["code"] == "HALTED"


def test_the_brake_may_let_only_sales_pass_first(service: OrderService) -> None:
    told("buy", "005930", "1")
    assert len(told("cancel_all", "--reduce")["cancelled"]) == 1
    assert told("buy", "005930", "1", exit_code=1)["reasons"][0]["code"] == "REDUCING"
    told("halt")
    told("cancel_all", "--reduce")
    assert told("buy", "005930", "1", exit_code=1)["reasons"][0]["code"] == "HALTED"


@pytest.mark.parametrize(
    ("typed", "state"), [("reduce\n", "REDUCING"), ("halt\n", "HALTED"), ("\n", "ACTIVE"), ("no\n", "ACTIVE")]
)
def test_a_person_at_a_terminal_is_told_of_the_stops_and_offered_both(
    service: OrderService,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    state: str,
) -> None:
    at = clock.now()
    for kind in ("STOP_LOSS", "TAKE_PROFIT"):
        StopRule.objects.create(
            stock_code="005930", kind=kind, unit="PERCENT", value=5, state_at=at, armed_by="kim", armed_at=at
        )
    terminal = StringIO(typed)
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr(sys, "stdin", terminal)
    with suppress(CommandError):
        call_command("halt", "a fall", stdout=StringIO())
    assert risk.trading_state() == state
    assert "2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "state", "says"),
    [
        (["halt", "a fall"], "HALTED", "2"),
        (["halt", "--yes"], "HALTED", "2"),
        (["halt", "--json"], "HALTED", "2"),
        (["reduce"], "REDUCING", "2"),
        (["cancel_all", "--halt"], "HALTED", "2"),
        (["cancel_all", "--reduce"], "REDUCING", "2"),
        (["halt"], "HALTED", "no count"),
    ],
)
def test_who_is_not_asked_is_told_of_the_stops_before_it_is_done(
    service: OrderService,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    state: str,
    says: str,
) -> None:
    at = clock.now()
    for kind in ("STOP_LOSS", "TAKE_PROFIT"):
        StopRule.objects.create(
            stock_code="005930", kind=kind, unit="PERCENT", value=5, state_at=at, armed_by="kim", armed_at=at
        )
    said: list[str] = []

    def turned(*args: Any, **more: Any) -> Any:
        said.append(capsys.readouterr().err)
        return turn(*args, **more)

    turn = kill_switch._change
    monkeypatch.setattr(kill_switch, "_change", turned)
    if says == "no count":
        monkeypatch.setattr(kill_switch, "armed_stops", mock.Mock(side_effect=OperationalError("no count")))
    monkeypatch.setattr(sys, "stdin", StringIO())
    call_command(*words, stdout=StringIO())
    assert risk.trading_state() == state
    assert says in said[0]


def test_an_order_that_filled_meanwhile_is_no_failure_of_the_brake(service: OrderService, simulator: Simulator) -> None:
    told("buy", "005930", "1", "--price", "69000")
    simulator.set_price("005930", 68_000)  # filled, and we have not heard
    shape = told("cancel_all")
    assert (shape["cancelled"], shape["failed"]) == ([], [])
    assert TradeOrder.objects.get().state is Status.FILLED


@pytest.fixture
def unanswered(service: OrderService, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> TradeOrder:
    """An order whose answer was lost, though it arrived."""
    place = type(broker).place

    def deaf(self: Broker, request: Any) -> None:
        place(self, request)
        raise OutcomeUnknown("no answer")

    with monkeypatch.context() as patch:
        patch.setattr(type(broker), "place", deaf)
        told("buy", "005930", "1", "--price", "69000", exit_code=3)
    return TradeOrder.objects.get()


def test_an_unknown_order_is_listed_with_the_evidence_and_decided(unanswered: TradeOrder, simulator: Simulator) -> None:
    theirs = {"order_no": "0000000001", "branch": "00950", "market": "KRX", "placed_at": "10:00:00", "qty": 1}
    figures = {"price": 69_000, "filled_qty": 0, "open_qty": 1, "cancelled_qty": 0}
    other = {**theirs, **figures, "order_no": "0000000002"}
    journal.update_fields(unanswered, candidates=[{**theirs, **figures}, other])
    (shape,) = told("unknown")["unknown"]
    assert [each["order_no"] for each in shape["candidates"]] == ["0000000001", "0000000002"]
    assert_shape(shape["candidates"][0], serializers.CandidateShape)
    assert_shape(shape["events"][0], serializers.EventShape)
    out = StringIO()
    call_command("unknown", stdout=out)
    assert "could be 0000000002: KRX 10:00:00, 1 at 69,000, filled 0" in out.getvalue()

    assert told("unknown", "--decide", f"#{unanswered.pk}", exit_code=2)["error"]["code"] == "USAGE"
    strange = ["unknown", "--decide", f"#{unanswered.pk}", "--is", "77"]
    assert told(*strange, exit_code=1)["error"]["code"] == "UNDECIDABLE"
    decided = told("unknown", "--decide", f"#{unanswered.pk}", "--is", "1")
    assert (decided["order"]["status"], decided["order"]["order_no"]) == ("PENDING", "0000000001")
    assert told("unknown")["unknown"] == []


def test_the_brake_takes_an_order_whose_answer_was_lost_for_ours(unanswered: TradeOrder, simulator: Simulator) -> None:
    assert open_at_the_exchange(simulator)
    assert told("cancel_all")["left"] == []
    assert not open_at_the_exchange(simulator)


def test_an_unknown_order_may_be_declared_lost(unanswered: TradeOrder) -> None:
    assert told("unknown", "--decide", f"#{unanswered.pk}", "--never-arrived")["order"]["status"] == "REJECTED"
    assert told("unknown", "--decide", f"#{unanswered.pk}", "--never-arrived", exit_code=1)


@pytest.fixture
def live(service: OrderService, settings: Any) -> None:
    """Settings that say real money, on the simulator all the same."""
    settings.KIS_ENVIRONMENT = replace(settings.KIS_ENVIRONMENT, name=EnvironmentName.LIVE)


def test_without_a_terminal_real_money_needs_a_yes(live: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO("buy\n"))
    assert told("buy", "005930", "1", exit_code=2)["error"]["code"] == "UNCONFIRMED"
    assert not TradeOrder.objects.exists()
    assert told("buy", "005930", "1", "--yes")["order"]["status"] == "PENDING"


@pytest.mark.parametrize(("typed", "ordered"), [("buy\n", 1), ("yes\n", 0), ("\n", 0), ("", 0)])
def test_at_a_terminal_the_word_must_be_typed(
    live: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], typed: str, ordered: int
) -> None:
    class Terminal(StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stdin", Terminal(typed))
    told("buy", "005930", "1", exit_code=0 if ordered else 1)
    assert TradeOrder.objects.count() == ordered
    assert "would buy 1 shares of 삼성전자 at 69,800" in capsys.readouterr().err


def test_trading_on_is_confirmed_and_the_brakes_ask_nothing(live: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", StringIO(""))
    told("buy", "005930", "1", "--yes")
    assert told("cancel", "1")["order"]["status"] == "PENDING"
    assert told("cancel_all", "--halt")["ok"]
    assert told("reduce")["ok"]
    assert told("halt")["ok"]
    assert told("resume", exit_code=2)["error"]["code"] == "UNCONFIRMED"
    assert told("resume", "--yes")["ok"]


@pytest.mark.django_db(transaction=True)
def test_wrong_usage_is_json_too(store: object) -> None:
    """From a shell, where the words are read before any option is."""
    words = [sys.executable, "manage.py", "buy", "005930", "ten", "--json"]
    environment = workers.environment() | {"AEGIS_LANGUAGE": "en"}
    done = subprocess.run(words, cwd=BASE_DIR, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    shape = json.loads(done.stdout)
    assert (shape["command"], shape["ok"], shape["exit_code"]) == ("buy", False, 2)
    assert "quantity 'ten' is not a whole number" in shape["error"]["message"]
