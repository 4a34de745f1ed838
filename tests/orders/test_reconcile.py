import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any
from unittest import mock

import pytest
from django.core.management import call_command
from django.db import OperationalError, connection, connections
from django.test.utils import CaptureQueriesContext

from aegis.broker import Broker, BrokerError, NotSent, OrderRequest, OutcomeUnknown
from aegis.lifecycle import Event, Status
from aegis.requests import EndCause
from aegis.terms import Market, OrderKind, Side
from desk import actions
from infra import clock
from kis import catalogue
from kis.client import BrokerReply, Client
from orders import fills, journal, order_list, periodic_sync, pretrade_context, reconcile, requests, settle, unknown
from orders.models import RawNotice, Reconciliation, TradeExecution, TradeOrder
from orders.service import OrderDenied, OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from rehearsal.ledger_check import compare_with_ledger
from simulator.api.server import Simulator
from tests.orders.test_fills import hear, notice

SAMSUNG = "005930"
ACCOUNT = "50000000-01"
LIST = "/uapi/domestic-stock/v1/trading/inquire-daily-ccld"
Buy = Callable[..., TradeOrder]
ClockAt = Callable[[str], object]


@pytest.fixture
def look(broker: Broker, clock_at: ClockAt) -> Callable[[], reconcile.ReconcileReport]:
    """Reconcile, late enough that no fill counts as fresher than the list."""

    def settle() -> reconcile.ReconcileReport:
        clock_at(f"{clock.now() + 2 * reconcile.LIST_LAG:%Y-%m-%d %H:%M:%S}")
        return reconcile.reconcile(broker, clock.now)

    return settle


def equal(broker: Broker, simulator: Simulator) -> str:
    KISFetcher(broker, clock.now).sync_portfolio()
    return str(compare_with_ledger(simulator.ledger(ACCOUNT)))


def test_a_fill_that_no_notice_told_is_found(buy: Buy, look, broker: Broker, simulator: Simulator) -> None:
    order = buy(strategy="buy_urgent")
    report = look()
    order.refresh_from_db()
    assert (order.state, report.corrected) == (Status.FILLED, 1)
    assert order.executions.get().source == TradeExecution.Source.LIST
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=1 executions=1 holdings=1")


def test_a_late_notice_of_a_fill_that_the_list_told_is_not_counted_again(
    buy: Buy, look, broker: Broker, simulator: Simulator
) -> None:
    order = buy(strategy="buy_urgent", qty=5)
    look()
    late = hear(notice(order.order_no, qty=5, price=order.price))
    assert late.state == RawNotice.State.DOUBTFUL
    look()
    late.refresh_from_db()
    assert late.state == RawNotice.State.DUPLICATE
    assert equal(broker, simulator).startswith("LEDGER EQUAL")


def test_two_fills_that_look_alike_are_both_counted_in_the_end(
    buy: Buy, look, broker: Broker, simulator: Simulator
) -> None:
    order = buy(strategy="buy_urgent", qty=8)  # the exchange filled eight; two notices of four look the same
    hear(notice(order.order_no, qty=4, price=order.price))
    hear(notice(order.order_no, qty=4, price=order.price))
    order.refresh_from_db()
    assert order.filled_qty == 4
    look()
    order.refresh_from_db()
    assert (order.state, order.filled_qty) == (Status.FILLED, 8)
    assert equal(broker, simulator).startswith("LEDGER EQUAL")


def test_fills_that_were_never_the_brokers_are_taken_back(buy: Buy, look, broker: Broker, simulator: Simulator) -> None:
    order = buy()  # it rests: the exchange has filled nothing
    hear(notice(order.order_no, qty=10))
    order.refresh_from_db()
    assert order.state is Status.FILLED
    look()
    order.refresh_from_db()
    assert (order.state, order.unlisted_since is None) == (Status.FILLED, False), "the list may lag"
    clock.set_now(clock.now() + settle.FILL_UNLISTED_FOR)
    look()
    order.refresh_from_db()
    assert (order.state, order.filled_qty, order.unlisted_since) == (Status.PENDING, 0, None)
    assert order.executions.get().voided_at is not None
    assert order.chase_at is not None, "it is open again: its chase goes on"
    assert equal(broker, simulator).startswith("LEDGER EQUAL")


def test_a_list_older_than_our_fills_takes_nothing_back(buy: Buy, broker: Broker) -> None:
    order = buy()
    hear(notice(order.order_no, qty=10))
    reconcile.reconcile(broker, clock.now)
    order.refresh_from_db()
    assert order.state is Status.FILLED


def test_a_line_that_does_not_add_up_after_a_cancel_is_no_answer(
    buy: Buy, service: OrderService, broker: Broker
) -> None:
    order = service.cancel(buy())
    line, cancel = broker.orders(order.order_date, order.order_date)
    torn = replace(line, filled_qty=3, filled_amount=3 * order.price, cancelled_qty=5)
    reconcile.settle(order.pk, torn, asked_at=clock.now(), now=clock.now(), related=[cancel])
    order.refresh_from_db()
    assert (order.state, order.confirmed_at, order.filled_qty) == (Status.PENDING, None, 0), "two shares are to come"
    late = clock.now() + reconcile.LIST_LAG
    reconcile.settle(order.pk, torn, asked_at=late, now=late, related=[cancel])
    order.refresh_from_db()
    assert (order.state, order.filled_qty) == (Status.CANCELLED, 3), "a list that stays so is believed"
    assert order.requests.get(kind="CANCEL").confirmed_qty == 5, "and no more of it was released"


def test_an_order_placed_by_hand_is_adopted_with_its_fills(
    service: OrderService, look, broker: Broker, simulator: Simulator
) -> None:
    by_hand = OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.LIMIT, 7, 70_100)
    acceptance = broker.place(by_hand)
    report = look()
    order = TradeOrder.objects.get()
    assert report.adopted == 1
    assert (order.origin, order.order_no, order.filled_qty) == ("EXTERNAL", acceptance.order_no, 7)
    assert order.chase_at is None
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=1 executions=1")


def test_a_notice_of_an_order_placed_by_hand_waits_and_is_then_applied(
    service: OrderService, look, broker: Broker, simulator: Simulator
) -> None:
    acceptance = broker.place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.LIMIT, 7, 70_100))
    early = hear(notice(acceptance.order_no, qty=7, price=70_000))
    look()
    early.refresh_from_db()
    assert early.state == RawNotice.State.APPLIED
    assert TradeExecution.objects.get().source == TradeExecution.Source.NOTICE
    assert equal(broker, simulator).startswith("LEDGER EQUAL")


def test_a_cancel_by_hand_ends_our_order_and_its_chase(buy: Buy, look, broker: Broker, simulator: Simulator) -> None:
    order = buy()
    broker.cancel(order.placed)
    look()
    order.refresh_from_db()
    assert (order.state, order.chase_at) == (Status.CANCELLED, None)
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=1")


def test_what_a_cancel_of_a_part_by_hand_leaves_goes_on_until_it_is_filled(
    buy: Buy, look, broker: Broker, simulator: Simulator
) -> None:
    order = buy()
    part = {
        "CANO": ACCOUNT[:8],
        "ACNT_PRDT_CD": ACCOUNT[9:],
        "KRX_FWDG_ORD_ORGNO": order.branch,
        "ORGN_ODNO": order.order_no,
        "ORD_DVSN": "00",
        "RVSE_CNCL_DVSN_CD": "02",
        "ORD_QTY": "4",
        "ORD_UNPR": "0",
        "QTY_ALL_ORD_YN": "N",
        "CNDT_PRIC": "",
        "EXCG_ID_DVSN_CD": "KRX",
    }
    broker._client.call(catalogue.REVISE_OR_CANCEL, part, market=Market.KRX)
    hear(notice("0000000002", qty=4, original=order.order_no, flags="012", change="2"))
    look()
    order.refresh_from_db()
    assert (order.state, order.needs_reconciliation) == (Status.PENDING, False)
    simulator.set_price(SAMSUNG, 69_000, freeze=True)
    look()
    order.refresh_from_db()
    assert (order.state, order.filled_qty) == (Status.CANCELLED, 6)


def test_an_unfilled_order_expires_with_its_day(buy: Buy, broker: Broker, clock_at: ClockAt) -> None:
    order = buy()
    clock_at("2026-11-24 08:10:00")
    reconcile.reconcile(broker, clock.now)
    order.refresh_from_db()
    assert (order.state, order.chase_at) == (Status.EXPIRED, None)


class LosesAnswers:
    """A broker whose answer to an order is lost, before or after it was carried out."""

    def __init__(self, broker: Broker, *, arrives: bool) -> None:
        self._broker = broker
        self._arrives = arrives

    def __getattr__(self, name: str) -> object:
        return getattr(self._broker, name)

    def place(self, request: OrderRequest) -> None:
        if self._arrives:
            self._broker.place(request)
        raise OutcomeUnknown("no answer", call="order-cash")


def lost(broker: Broker, *, arrives: bool) -> TradeOrder:
    service = OrderService(LosesAnswers(broker, arrives=arrives), clock.now)  # type: ignore[arg-type]
    return service.place(OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_normal"))


def test_a_lost_answer_leaves_the_order_unknown_until_it_is_found(
    service: OrderService, look, broker: Broker, simulator: Simulator
) -> None:
    order = lost(broker, arrives=True)
    assert (order.state, order.order_no) == (Status.UNKNOWN, None)
    report = look()
    order.refresh_from_db()
    assert (order.state, order.order_no, report.resolved) == (Status.PENDING, "0000000001", 1)
    assert TradeOrder.objects.count() == 1, "it is not adopted as placed by hand too"
    assert len(simulator.ledger(ACCOUNT)["orders"]) == 1, "it is never sent again"


def test_an_order_that_never_arrived_is_given_up_only_after_several_looks(
    service: OrderService, look, broker: Broker, simulator: Simulator
) -> None:
    order = lost(broker, arrives=False)
    states = []
    for _ in range(5):
        look()
        order.refresh_from_db()
        states.append(order.state)
    assert states[:2] == [Status.UNKNOWN, Status.UNKNOWN]
    assert states[-1] is Status.REJECTED
    assert "absent" in order.refusal
    assert simulator.ledger(ACCOUNT)["orders"] == []


def test_two_orders_that_could_be_it_are_left_to_a_person(
    service: OrderService, look, broker: Broker, simulator: Simulator
) -> None:
    order = lost(broker, arrives=True)
    broker.place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.LIMIT, 10, order.price))
    for _ in range(5):
        look()
    order.refresh_from_db()
    assert order.state is Status.UNKNOWN
    assert TradeOrder.objects.count() == 1
    assert [each["order_no"] for each in order.candidates] == ["0000000001", "0000000002"]
    assert order.events.filter(kind="UNDECIDED").count() == 1, "said once"


def test_a_person_decides_which_of_two_it_was(
    service: OrderService, look, broker: Broker, simulator: Simulator
) -> None:
    order = lost(broker, arrives=True)
    broker.place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.LIMIT, 10, order.price))
    look()
    order.refresh_from_db()
    with pytest.raises(ValueError, match="0000000009 is no candidate"):
        service.decide(order, "0000000009", by="somebody")
    service.decide(order, "0000000001", by="somebody")
    assert (order.state, order.order_no, order.candidates) == (Status.PENDING, "0000000001", [])
    assert "somebody" in order.events.get(kind="ACCEPTED").detail
    look()
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=2"), "the other is adopted"
    with pytest.raises(ValueError, match="PENDING"):
        service.decide(order, None, by="somebody")


def test_a_person_may_say_that_it_never_arrived(service: OrderService, broker: Broker) -> None:
    order = lost(broker, arrives=False)
    service.decide(order, None, by="somebody")
    assert (order.state, order.never_arrived) == (Status.REJECTED, True)


def test_an_order_given_up_for_lost_that_turns_up_is_claimed_not_adopted(
    service: OrderService, look, broker: Broker, simulator: Simulator
) -> None:
    order = lost(broker, arrives=True)
    journal.record_not_found(order, "absent from 3 complete lists", at=clock.now())
    look()
    order.refresh_from_db()
    assert (order.state, order.never_arrived) == (Status.PENDING, False)
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=1")


def test_what_an_operator_decided_is_final(service: OrderService, look, broker: Broker, simulator: Simulator) -> None:
    order = lost(broker, arrives=True)
    service.decide(order, None, by="somebody hasty")
    look()
    order.refresh_from_db()
    assert (order.state, order.decided_by) == (Status.REJECTED, "somebody hasty")
    assert TradeOrder.objects.get(origin=TradeOrder.Origin.EXTERNAL).chase_at is None, "it is an external order then"
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=1")


def test_an_order_whose_sender_died_is_looked_for_too(service: OrderService, look, broker: Broker) -> None:
    order = lost(broker, arrives=True)
    TradeOrder.objects.filter(pk=order.pk).update(status=Status.SUBMITTING)
    for _ in range(4):
        look()
    order.refresh_from_db()
    assert order.state is Status.PENDING


def test_numbers_begin_anew_each_day(buy: Buy, broker: Broker, clock_at: ClockAt, simulator: Simulator) -> None:
    first = buy()
    clock_at("2026-11-24 10:00:00")
    simulator.set_price(SAMSUNG, 70_000, freeze=True)
    second = buy()
    assert first.order_no == second.order_no
    assert first.order_date != second.order_date


def test_a_whole_look_is_fresh_for_a_while_and_a_failed_one_is_not(
    service: OrderService, look, simulator: Simulator, clock_at: ClockAt
) -> None:
    assert not reconcile.is_fresh(clock.now())
    look()
    assert reconcile.is_fresh(clock.now())
    reconcile.invalidate(clock.now())
    assert not reconcile.is_fresh(clock.now()), "what was seen before the workers started does not count"
    look()
    assert not reconcile.is_fresh(clock.now() + 2 * pretrade_context.FRESH)
    simulator.fault("error_500", path=LIST)
    with pytest.raises(BrokerError):
        look()
    assert not reconcile.is_fresh(clock.now())
    assert Reconciliation.objects.latest().outcome == Reconciliation.Outcome.FAILED


def test_settling_twice_changes_nothing(buy: Buy, look) -> None:
    order = buy(strategy="buy_urgent")
    look()
    before = order.events.count()
    assert look().corrected == 0
    assert order.events.count() == before


def test_many_who_want_to_look_at_once_read_the_list_once_or_twice(
    transactional_db: None, service: OrderService, broker: Broker, simulator: Simulator
) -> None:
    reconcile.reconcile_now(broker, clock.now)
    ready = threading.Barrier(8)

    def look() -> None:
        ready.wait()
        try:
            reconcile.reconcile_now(broker, clock.now)
        finally:
            connections.close_all()

    asked = len([each for each in simulator.events() if each.get("path") == LIST])
    threads = [threading.Thread(target=look) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    now_asked = len([each for each in simulator.events() if each.get("path") == LIST])
    assert 1 <= now_asked - asked <= 2


@pytest.fixture
def misprint(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Print one line more in the broker's list: the first one, but for the words that differ."""
    pages = Client.pages

    def write(**words: str) -> None:
        def printed(self: Client, tr: catalogue.TR, parameters: Mapping[str, str], **more: Any) -> list[BrokerReply]:
            replies = pages(self, tr, parameters, **more)
            if tr is catalogue.ORDERS:
                lines: list[dict[str, str]] = replies[0].body["output1"]
                lines[:] = [*(line for line in lines if line["odno"] != words["odno"]), {**lines[0], **words}]
            return replies

        monkeypatch.setattr(Client, "pages", printed)

    return write


@pytest.mark.parametrize("wrong", [{"ord_dvsn_cd": "51"}, {"sll_buy_dvsn_cd": "07"}, {"ord_qty": "x"}])
def test_a_strangers_line_that_nobody_can_read_spoils_no_other(
    buy: Buy, look, broker: Broker, simulator: Simulator, misprint, wrong: dict[str, str]
) -> None:
    order = buy(strategy="buy_urgent")
    misprint(odno="0000099999", pdno="000660", **wrong)
    assert look().corrected == 1
    order.refresh_from_db()
    assert order.state is Status.FILLED
    assert buy(qty=1).is_open, "a hand's order of a kind unknown here is no reason to stop trading"
    row, (name, value) = Reconciliation.objects.latest(), next(iter(wrong.items()))
    assert row.outcome == Reconciliation.Outcome.PARTLY
    assert all(word in row.error for word in ("0000099999", name, value))


def test_a_line_that_cannot_be_spoils_no_other(buy: Buy, look, broker: Broker, simulator: Simulator, misprint) -> None:
    order = buy(strategy="buy_urgent")
    misprint(odno="0000099999", pdno="000660", ord_qty="1", tot_ccld_qty="3", tot_ccld_amt="300")
    assert look().corrected == 1
    order.refresh_from_db()
    assert order.state is Status.FILLED
    row = Reconciliation.objects.latest()
    assert row.outcome == Reconciliation.Outcome.PARTLY
    assert "0000099999: it cannot be: list: ordered 1, filled 3" in row.error
    assert not TradeOrder.objects.filter(origin=TradeOrder.Origin.EXTERNAL).exists()


def test_a_line_of_no_shares_is_unread_and_not_taken_for_known(buy: Buy, look, misprint) -> None:
    buy(price=60_000)
    misprint(odno="0000099999", pdno="000660", ord_qty="0", rmn_qty="0")
    look()
    row = Reconciliation.objects.latest()
    assert (row.outcome, "0000099999" in row.error) == (Reconciliation.Outcome.PARTLY, True)


def test_an_order_of_another_branch_with_our_number_is_not_ours(buy: Buy, look, misprint) -> None:
    order = buy(price=60_000)
    line = {"ord_gno_brno": "91252", "pdno": "000660", "ord_qty": "3", "tot_ccld_qty": "3", "tot_ccld_amt": "600000"}
    misprint(odno=order.order_no, rmn_qty="0", **line)
    assert look().adopted == 1
    order.refresh_from_db()
    assert (order.state, order.filled_qty) == (Status.PENDING, 0)
    theirs = TradeOrder.objects.get(origin=TradeOrder.Origin.EXTERNAL)
    assert (theirs.order_no, theirs.stock_code, theirs.filled_qty) == (order.order_no, "000660", 3)


def test_settled_orders_cost_a_look_nothing_each(buy: Buy, look, broker: Broker) -> None:
    order = buy(strategy="buy_urgent")
    look()
    order.refresh_from_db()
    (line,) = broker.orders(clock.now().date(), clock.now().date())

    def statements(count: int) -> int:
        lines = [line]
        for number in range(count):
            order.pk, order._state.adding = None, True
            order.request_id, order.order_no = f"{count}:{number}", f"{count}{number:07d}"
            order.save(force_insert=True)
            lines.append(replace(line, order_no=order.order_no))
        with CaptureQueriesContext(connection) as queries:
            reconcile.reconcile(mock.MagicMock(wraps=broker, orders=lambda first, last: lines), clock.now)
        return len(queries)

    assert statements(1) == statements(20)


def test_a_list_that_tells_nothing_new_costs_eleven_statements(buy: Buy, look) -> None:
    order = buy(price=60_000)
    look()
    with CaptureQueriesContext(connection) as queries:
        look()
    assert len(queries) <= 11, [each["sql"] for each in queries]
    order.refresh_from_db()
    assert (order.state, order.not_found_count) == (Status.PENDING, 0)


def test_an_order_that_another_worker_numbers_during_a_look_is_not_missing(buy: Buy, broker: Broker, after) -> None:
    order = buy(price=60_000)
    after(20)
    now = clock.now()
    since, records = now.date(), broker.orders(now.date(), now.date())
    answer = order_list.arrange(records, [], since=since, asked_at=now, now=now)
    reconcile._note_missing(answer, set())
    order.refresh_from_db()
    assert (order.missing_since, order.not_found_count) == (None, 0)
    nothing = order_list.arrange([], [], since=since, asked_at=now, now=now)
    reconcile._note_missing(nothing, set())
    order.refresh_from_db()
    assert (order.missing_since, order.not_found_count) == (now, 1)


def test_an_old_list_hides_no_start_and_no_failure_after_it(buy: Buy, broker: Broker) -> None:
    buy(price=60_000)
    for outcome in (Reconciliation.Outcome.BEGUN, Reconciliation.Outcome.FAILED):
        asked_at = clock.now()
        Reconciliation.objects.create(at=asked_at + timedelta(milliseconds=500), outcome=outcome)
        reconcile.reconcile(broker, lambda asked_at=asked_at: asked_at)
        assert not reconcile.is_fresh(asked_at + timedelta(seconds=1))
        assert Reconciliation.objects.first().outcome == outcome


def test_an_order_of_ours_whose_line_cannot_be_is_nothing_to_trade_on(buy: Buy, look, misprint) -> None:
    order, other = buy(strategy="buy_urgent"), buy(qty=2, strategy="buy_urgent")
    misprint(odno=order.order_no, tot_ccld_qty=str(order.qty + 1))
    with pytest.raises(BrokerError, match="it cannot be"):
        look()
    other.refresh_from_db()
    assert other.state is Status.FILLED
    assert Reconciliation.objects.latest().outcome == Reconciliation.Outcome.FAILED
    with pytest.raises(OrderDenied, match="nothing goes before that"):
        buy(qty=3)


def test_nothing_is_absent_from_a_list_with_a_line_that_nobody_can_read(
    service: OrderService, look, broker: Broker, simulator: Simulator, misprint
) -> None:
    broker.place(OrderRequest("000660", Side.BUY, Market.KRX, OrderKind.MARKET, 1, 0))
    order = lost(broker, arrives=False)
    misprint(odno="0000099999", ord_dvsn_cd="51")
    for _ in range(unknown.ABSENT_LISTS + 3):
        look()
    order.refresh_from_db()
    assert (order.state, order.not_found_count) == (Status.UNKNOWN, 0)


@pytest.mark.parametrize("hidden", ["0000000001", "?"])
def test_a_list_that_hides_an_order_of_ours_is_nothing_to_trade_on(
    buy: Buy, look, broker: Broker, simulator: Simulator, misprint, hidden: str
) -> None:
    ours = buy()
    assert ours.order_no == "0000000001"
    broker.place(OrderRequest("000660", Side.BUY, Market.KRX, OrderKind.MARKET, 1, 0))
    misprint(odno=hidden, ord_dvsn_cd="51")
    with pytest.raises(BrokerError, match="51"):
        look()
    row = Reconciliation.objects.latest()
    assert (row.outcome, row.adopted) == (Reconciliation.Outcome.FAILED, 1), "the other lines count all the same"
    with pytest.raises(OrderDenied):
        buy(price=69_000)
    ours.refresh_from_db()
    assert ours.state is Status.PENDING


def test_whoever_reconciles_is_told_what_could_not_be_read(
    buy: Buy, broker: Broker, simulator: Simulator, misprint, admin_user: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    buy()
    misprint(odno="0000099999", ord_dvsn_cd="51")
    call_command("reconcile")
    assert "0000099999" in capsys.readouterr().out
    told = actions.reconcile_now(by=admin_user)
    assert told.is_done
    assert "0000099999" in told.text


def strand(order: TradeOrder, monkeypatch: pytest.MonkeyPatch, **words: Any) -> RawNotice:
    """Let a notice come and the database fail over it: it is in the inbox, and nothing else knows of it."""

    def fails(*args: object, **more: object) -> bool:
        raise OperationalError("server closed the connection unexpectedly")

    with monkeypatch.context() as patch:
        patch.setattr(fills, "apply_notice", fails)
        with pytest.raises(OperationalError):
            hear(notice(order.order_no, price=order.price, **words))
    return RawNotice.objects.latest("id")


def test_a_notice_that_was_kept_but_not_applied_is_applied_by_the_next_look(
    buy: Buy, look, broker: Broker, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = buy(strategy="buy_urgent")
    stranded = strand(order, monkeypatch)
    assert periodic_sync.is_reconciliation_due(clock.now())
    look()
    stranded.refresh_from_db()
    assert (stranded.state, stranded.order) == (RawNotice.State.APPLIED, order)
    assert order.executions.get().source == TradeExecution.Source.NOTICE
    assert not periodic_sync.is_reconciliation_due(clock.now())
    assert equal(broker, simulator).startswith("LEDGER EQUAL")


def test_a_notice_that_was_tried_twice_counts_once_and_leaves_nothing_to_look_for(
    buy: Buy, look, broker: Broker, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = buy(strategy="buy_urgent")
    stranded = strand(order, monkeypatch)
    hear(notice(order.order_no, price=order.price))
    look()
    stranded.refresh_from_db()
    assert stranded.state == RawNotice.State.DUPLICATE
    assert order.executions.count() == 1
    assert not periodic_sync.is_reconciliation_due(clock.now())
    assert equal(broker, simulator).startswith("LEDGER EQUAL")


def test_a_notice_that_can_never_be_applied_is_left_to_the_list(
    buy: Buy, look, broker: Broker, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = buy(strategy="buy_urgent")
    stranded = strand(order, monkeypatch)
    RawNotice.objects.filter(pk=stranded.pk).update(text="H0STCNI0^broken")
    look()
    stranded.refresh_from_db()
    order.refresh_from_db()
    assert (stranded.state, order.state) == (RawNotice.State.DUPLICATE, Status.FILLED)
    assert not periodic_sync.is_reconciliation_due(clock.now())


def test_a_notice_of_an_order_that_is_in_no_list_is_not_asked_after_for_ever(
    service: OrderService, look, clock_at: ClockAt
) -> None:
    hear(notice("0000099999"))
    look()
    assert periodic_sync.is_reconciliation_due(clock.now())
    clock_at("2026-11-23 10:30:00")
    assert not periodic_sync.is_reconciliation_due(clock.now())


def test_an_order_to_be_confirmed_after_its_day_is_still_asked_for(buy: Buy, look, clock_at: ClockAt) -> None:
    order = buy(strategy="buy_urgent")
    look()
    hear(notice(order.order_no, price=order.price))  # comes late: the list has told of it
    clock_at("2026-11-24 08:10:00")
    assert periodic_sync.is_reconciliation_due(clock.now())
    look()
    assert not periodic_sync.is_reconciliation_due(clock.now())


# --- what is ours, and what a list can tell of --------------------------------------------------------


def place_by_hand(simulator: Simulator, like: TradeOrder) -> None:
    words = {"account": ACCOUNT, "code": SAMSUNG, "side": "BUY", "quantity": like.qty, "price": like.price}
    simulator.command("POST", "/simulator/orders", {**words, "kind": "00", "market": "KRX"})


@pytest.mark.parametrize(
    ("failure", "status"), [(NotSent("no connection"), Status.REJECTED), (OutcomeUnknown("no answer"), Status.UNKNOWN)]
)
def test_an_order_by_hand_an_hour_later_is_not_the_one_that_was_lost(
    service: OrderService, broker: Broker, simulator: Simulator, clock_at: ClockAt, failure: Exception, status: Status
) -> None:
    away = mock.MagicMock(wraps=broker, place=mock.Mock(side_effect=failure))
    mine = OrderService(away, clock.now).place(OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_normal"))
    clock_at(f"{clock.now() + timedelta(hours=1):%Y-%m-%d %H:%M:%S}")
    place_by_hand(simulator, mine)
    reconcile.reconcile(broker, clock.now)
    mine.refresh_from_db()
    assert (mine.state, mine.order_no) == (status, None)


def test_a_list_that_shows_open_what_a_notice_cancelled_confirms_nothing(
    buy: Buy, service: OrderService, broker: Broker
) -> None:
    order = buy()
    (line,) = broker.orders(order.order_date, order.order_date)
    service.cancel(order)
    hear(notice("0000000002", qty=10, original=order.order_no, flags="012", change="2"))
    reconcile.settle(order.pk, line, asked_at=clock.now(), now=clock.now())
    order.refresh_from_db()
    assert (order.state, order.end_cause) == (Status.CANCELLED, ""), "the list has not said what ended it"
    assert order.requests.get(kind="CANCEL").confirmed_qty == 0, "nothing was released yet"


def test_a_cancelled_order_that_nobody_asked_about_gets_its_cause(
    buy: Buy, look, service: OrderService, simulator: Simulator
) -> None:
    order = buy()
    service.cancel(order)
    order.refresh_from_db()
    journal.apply_event(order, Event.CANCELLED, at=clock.now())
    TradeOrder.objects.filter(pk=order.pk).update(needs_reconciliation=False, lookup_at=None)
    look()
    order.refresh_from_db()
    assert order.end_cause == EndCause.OWN_CANCEL
    assert not requests.live_changes(order)


def test_a_list_from_before_a_cancel_answers_no_wish_of_after_it(
    buy: Buy, service: OrderService, broker: Broker
) -> None:
    order, asked_at = buy(), clock.now()
    (line,) = broker.orders(order.order_date, order.order_date)
    service.cancel(order)
    reconcile.settle(order.pk, line, asked_at=asked_at, now=clock.now())
    order.refresh_from_db()
    assert order.needs_reconciliation


def test_a_list_from_before_a_fill_does_not_call_it_a_duplicate(buy: Buy, broker: Broker) -> None:
    order = buy(strategy="buy_urgent", qty=8)
    hear(notice(order.order_no, qty=4, price=order.price))
    (line,) = broker.orders(order.order_date, order.order_date)
    old, asked_at = replace(line, filled_qty=4, filled_amount=4 * order.price, open_qty=4), clock.now()
    twin = hear(notice(order.order_no, qty=4, price=order.price))
    assert twin.state == RawNotice.State.DOUBTFUL
    reconcile.settle(order.pk, old, asked_at=asked_at, now=clock.now())
    twin.refresh_from_db()
    order.refresh_from_db()
    assert (twin.state, order.needs_reconciliation) == (RawNotice.State.DOUBTFUL, True)


@pytest.fixture
def missing(buy: Buy, look, simulator: Simulator) -> TradeOrder:
    """An order of ours that is open, and that the broker's lists have lacked for long."""
    order = buy(price=69_000)
    buy(price=68_900, qty=3)
    simulator.fault("order_missing", path="inquire-daily-ccld", count=20)
    for _ in range(5):
        look()
    order.refresh_from_db()
    return order


def test_an_open_order_that_lists_lack_is_reported_once(missing: TradeOrder) -> None:
    assert (missing.state, missing.not_found_count) == (Status.PENDING, 5)
    assert missing.events.filter(kind="NOT_LISTED").count() == 1
    assert missing in unknown.undecided()


def test_an_operator_may_say_that_the_broker_does_not_have_it(
    missing: TradeOrder, service: OrderService, look, simulator: Simulator
) -> None:
    service.decide(missing, None, by="kim")
    missing.refresh_from_db()
    assert (missing.state, missing.end_cause, missing.decided_by) == (Status.CANCELLED, EndCause.UNEXPLAINED, "kim")
    assert not unknown.undecided().exists()
    simulator.clear_faults()
    for _ in range(4):
        look()
    missing.refresh_from_db()
    assert missing.state is Status.PENDING, "the list shows it open: it is at the broker after all"


def test_an_order_that_the_list_shows_is_not_left_to_decide(buy: Buy, look, service: OrderService) -> None:
    order = buy(price=69_000)
    look()
    with pytest.raises(ValueError, match="PENDING"):
        service.decide(order, None, by="kim")


def test_an_open_order_of_a_day_without_other_lines_is_missed_too(buy: Buy, look, clock_at: ClockAt) -> None:
    order = buy(price=69_000)
    TradeOrder.objects.filter(pk=order.pk).update(order_date=order.order_date - timedelta(days=3))
    for _ in range(3):
        look()
    assert order in unknown.undecided()


def test_the_list_is_asked_for_no_further_back_than_it_reaches(buy: Buy, broker: Broker) -> None:
    order = buy(price=69_000)
    TradeOrder.objects.filter(pk=order.pk).update(order_date=order.order_date - timedelta(days=200))
    with mock.patch.object(type(broker), "orders", return_value=[]) as asked:
        reconcile.reconcile(broker, clock.now)
    assert asked.call_args.args[-2] == clock.now().date()
