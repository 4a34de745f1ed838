"""What an operator does from a screen is done, told, and written down with who and when."""

import io
from collections.abc import Callable
from typing import Any

import openpyxl
import pytest
from django.contrib.admin.models import LogEntry
from django.test import Client
from django.urls import reverse

from aegis.broker import Acceptance
from aegis.lifecycle import Status
from infra import clock
from orders.models import BlacklistedStock, BrokerRequest, OrderEvent, SwitchChange, TradeOrder, TradingSwitch
from orders.reconcile import reconcile

As = Callable[..., Client]
DIALOG = {"_form_submitted": "on"}


def last_act() -> LogEntry:
    entry = LogEntry.objects.latest("pk")
    assert abs((clock.now() - entry.action_time).total_seconds()) < 60, "told in the market's time"
    return entry


def test_an_order_is_cancelled_from_the_dashboard(as_a: As, buy, broker) -> None:
    order = buy()
    answer = as_a("trader").post(reverse("cancel", args=[order.pk]))
    assert answer.status_code == 200
    assert answer.json()["done"]
    reconcile(broker, clock.now)
    order.refresh_from_db()
    assert order.state is Status.CANCELLED
    assert OrderEvent.objects.get(order=order, kind="OPERATOR").detail == "the trader: 취소"
    assert (last_act().user.username, last_act().object_id) == ("the trader", str(order.pk))


def test_what_is_done_already_is_said_in_words(as_a: As, buy) -> None:
    order = buy()
    TradeOrder.objects.filter(pk=order.pk).update(status=Status.CANCELLED, chase_at=None)
    answer = as_a("trader").post(reverse("cancel", args=[order.pk]))
    assert answer.status_code == 409
    assert "취소할 잔량이 없습니다" in answer.json()["text"]


def test_a_cancel_between_the_orders_of_a_chase_ends_it(as_a: As, buy) -> None:
    order = buy()
    TradeOrder.objects.filter(pk=order.pk).update(status=Status.CANCELLED)
    answer = as_a("trader").post(reverse("cancel", args=[order.pk]))
    assert answer.status_code == 200
    order.refresh_from_db()
    assert (order.chase_at, order.events.filter(kind="CHASE_ENDED").count()) == (None, 1)


def test_the_admin_asks_before_it_cancels(as_a: As, buy) -> None:
    order, trader = buy(), as_a("trader")
    url = reverse("admin:orders_tradeorder_cancel", args=[order.pk])
    assert "이 주문을 취소할까요?" in trader.get(url).content.decode()
    assert TradeOrder.objects.get().cancel_sent_at is None
    assert trader.post(url, DIALOG).headers["HX-Redirect"].endswith(f"/{order.pk}/change/")
    assert TradeOrder.objects.get().cancel_sent_at is not None


def test_chosen_orders_are_cancelled_after_a_question(as_a: As, buy) -> None:
    order, trader, url = buy(), as_a("trader"), reverse("admin:orders_tradeorder_changelist")
    chosen = {"action": "cancel_chosen", "_selected_action": [order.pk]}
    assert "이 주문들을 취소할까요?" in trader.post(url, chosen).content.decode()
    assert TradeOrder.objects.get().cancel_sent_at is None
    trader.post(url, chosen | {"confirmed": "yes"})
    assert TradeOrder.objects.get().cancel_sent_at is not None


def test_an_order_is_amended_from_its_page(as_a: As, buy) -> None:
    order, trader = buy(price=69_000), as_a("trader")
    url = reverse("admin:orders_tradeorder_amend", args=[order.pk])
    assert "이 주문을 정정할까요?" in trader.get(url).content.decode()
    assert (
        trader.post(url, DIALOG | {"price": "69500", "qty": ""}).headers["HX-Redirect"].endswith(f"/{order.pk}/change/")
    )
    row = TradeOrder.objects.get(replaces=order)
    assert (row.price, row.qty, row.status) == (69_500, 10, "PENDING")
    request = BrokerRequest.objects.get(kind="AMEND")
    assert (request.requested_by, request.who) == ("OPERATOR", "the trader")
    assert "69,000 → 69,500" in last_act().change_message
    told = trader.get(reverse("admin:orders_tradeorder_change", args=[order.pk])).content.decode()
    assert f"#{order.pk} → #{row.pk}" in told


@pytest.mark.parametrize(
    ("price", "qty", "words"),
    [
        ("69000", "", "이미"),
        ("69550", "", "호가"),
        ("", "11", "11"),
    ],
)
def test_an_amend_that_cannot_be_says_why_in_the_admin(as_a: As, buy, price: str, qty: str, words: str) -> None:
    order, trader = buy(price=69_000), as_a("trader")
    trader.post(reverse("admin:orders_tradeorder_amend", args=[order.pk]), DIALOG | {"price": price, "qty": qty})
    told = trader.get(reverse("admin:orders_tradeorder_change", args=[order.pk])).content.decode()
    assert "정정하지 못했습니다" in told
    assert words in told
    assert not BrokerRequest.objects.filter(kind="AMEND").exists()


@pytest.mark.parametrize("fields", [{"price": "", "qty": ""}, {"price": "-5"}, {"qty": "0"}])
def test_an_empty_amend_is_asked_again(as_a: As, buy, fields: dict[str, str]) -> None:
    order = buy(price=69_000)
    answer = as_a("trader").post(reverse("admin:orders_tradeorder_amend", args=[order.pk]), DIALOG | fields)
    assert "HX-Redirect" not in answer.headers
    assert not BrokerRequest.objects.exclude(kind="NEW").exists()


def test_a_viewer_amends_nothing(as_a: As, buy) -> None:
    order = buy(price=69_000)
    url = reverse("admin:orders_tradeorder_amend", args=[order.pk])
    assert as_a("viewer").post(url, DIALOG | {"price": "69500"}).status_code == 403
    assert not BrokerRequest.objects.filter(kind="AMEND").exists()


def test_a_cancel_is_by_the_operator_and_says_that_the_list_confirms_it(as_a: As, buy) -> None:
    order = buy()
    text = as_a("trader").post(reverse("cancel", args=[order.pk])).json()["text"]
    assert "목록" in text
    assert "30" in text
    request = BrokerRequest.objects.get(kind="CANCEL")
    assert (request.requested_by, request.who) == ("OPERATOR", "the trader")


def test_what_the_list_still_shows_is_not_called_cancelled(as_a: As, buy, broker, monkeypatch) -> None:
    order = buy()
    receipt = Acceptance("06010", "0000000999", clock.now().time())
    monkeypatch.setattr(type(broker), "cancel", lambda *words: receipt)
    answer = as_a("trader").post(reverse("cancel_all"))
    assert answer.status_code == 409
    first, second = answer.json()["text"].splitlines()
    assert "0건" in first
    assert order.order_no in second
    assert "확인" in second
    assert BrokerRequest.objects.get(kind="CANCEL").who == "the trader"


def test_an_order_is_chased_at_once(as_a: As, buy) -> None:
    order = buy()
    as_a("trader").post(reverse("chase", args=[order.pk]))
    order.refresh_from_db()
    assert order.chase_at <= clock.now()


def test_everything_open_is_cancelled_at_once(as_a: As, buy) -> None:
    first, second = buy(), buy(qty=3)
    answer = as_a("trader").post(reverse("cancel_all"))
    assert "2건" in answer.json()["text"]
    assert all(TradeOrder.objects.get(pk=order.pk).cancel_sent_at for order in (first, second))


def test_the_broker_is_asked_from_the_admin(as_a: As, buy) -> None:
    buy()
    as_a("trader").post(reverse("admin:orders_tradeorder_reconcile_all"), DIALOG)
    assert last_act().change_message == "대조"
    assert TradeOrder.objects.get().confirmed_at is not None


@pytest.mark.parametrize(("name", "state"), [("halt", "HALTED"), ("reduce", "REDUCING"), ("resume", "ACTIVE")])
def test_the_switch_is_turned_with_who_when_and_why(as_a: As, clock_at, name: str, state: str) -> None:
    clock_at("2026-11-23 10:00:00")
    assert as_a("trader").post(reverse("switch", args=[name]), {"reason": "뉴스"}).status_code == 200
    row = TradingSwitch.objects.get()
    assert (row.state, row.reason, row.changed_by) == (state, "뉴스", "the trader")
    assert SwitchChange.objects.get().by == "the trader"
    assert last_act().user.username == "the trader"


def test_an_unknown_order_shows_its_evidence_and_is_decided(as_a: As, buy) -> None:
    order, trader = buy(), as_a("trader")
    candidate = {
        "order_no": "0000000099",
        "branch": "06010",
        "market": "KRX",
        "placed_at": "10:00:01",
        "qty": 10,
        "price": 69800,
        "filled_qty": 0,
        "open_qty": 10,
        "cancelled_qty": 0,
    }
    TradeOrder.objects.filter(pk=order.pk).update(status=Status.UNKNOWN, order_no=None, candidates=[candidate])
    listed = trader.get(reverse("admin:orders_tradeorder_changelist"), {"status__exact": "UNKNOWN"}).content.decode()
    assert "삼성전자" in listed
    assert "0000000099" in trader.get(reverse("admin:orders_tradeorder_change", args=[order.pk])).content.decode()
    url = reverse("admin:orders_tradeorder_decide", args=[order.pk])
    assert "0000000099" in trader.get(url).content.decode()
    trader.post(url, DIALOG | {"number": "0000000099"})
    order.refresh_from_db()
    assert (order.state, order.order_no) == (Status.PENDING, "0000000099")
    assert "0000000099" in last_act().change_message


def exported(client: Client, model: str, kind: int) -> Any:
    url = reverse(f"admin:{model}_export")
    answer = client.post(url, {"format": str(kind), "resource": ""})
    assert answer.status_code == 200
    assert "attachment" in answer.headers["Content-Disposition"], answer.content.decode()[:2000]
    return answer


def test_orders_are_exported_as_csv_that_excel_reads_in_korean(as_a: As, buy) -> None:
    order = buy()
    answer = exported(as_a("viewer"), "orders_tradeorder", 0)
    text = answer.content.decode("utf-8")
    assert text.startswith("\ufeff")
    assert order.order_no in text
    assert "삼성전자" in text
    assert last_act().change_message == "내보냄"


def test_orders_are_exported_as_excel(as_a: As, buy) -> None:
    order = buy()
    answer = exported(as_a("viewer"), "orders_tradeorder", 1)
    rows = list(openpyxl.load_workbook(io.BytesIO(answer.content)).active.iter_rows(values_only=True))
    assert order.request_id in rows[1]


def test_what_is_exported_says_who_wanted_it(as_a: As, buy, broker) -> None:
    buy(strategy="buy_urgent", strategy_id="turtle")
    reconcile(broker, clock.now)
    viewer = as_a("viewer")
    for model in ("orders_tradeorder", "orders_tradeexecution"):
        head, row = exported(viewer, model, 0).content.decode("utf-8").lstrip("\ufeff").splitlines()[:2]
        assert "strategy_id" in head.split(","), model
        assert "turtle" in row.split(","), model


def test_figures_are_exported_as_figures(as_a: As, buy, broker) -> None:
    buy(strategy="buy_urgent")
    reconcile(broker, clock.now)
    viewer = as_a("viewer")
    for model, names in (
        ("orders_tradeorder", ["qty", "price", "filled_amount"]),
        ("orders_tradeexecution", ["exec_qty", "exec_price", "exec_amount", "fee"]),
    ):
        sheet = openpyxl.load_workbook(io.BytesIO(exported(viewer, model, 1).content)).active
        head, row = list(sheet.iter_rows())[:2]
        kinds = {name.value: cell.data_type for name, cell in zip(head, row, strict=True)}
        assert {name: kinds[name] for name in names} == dict.fromkeys(names, "n")
        head, row = exported(viewer, model, 0).content.decode("utf-8").lstrip("\ufeff").splitlines()[:2]
        assert '"' not in row, "no figure of a CSV has commas for a reader's eye"


def test_no_formula_leaves_with_an_export(as_a: As) -> None:
    BlacklistedStock.objects.create(stock_code="005930", stock_name="삼성전자", reason='=HYPERLINK("x")')
    rows = openpyxl.load_workbook(
        io.BytesIO(exported(as_a("viewer"), "orders_blacklistedstock", 1).content)
    ).active.iter_rows(values_only=True)
    assert not [cell for row in rows for cell in row if isinstance(cell, str) and cell.startswith("=")]


def test_a_stock_is_found_by_its_name_and_its_code(as_a: As, buy) -> None:
    buy()
    trader = as_a("trader")
    for words in ("삼성", "0059"):
        found = trader.get(reverse("stocks"), {"q": words}).json()["stocks"]
        assert {"code": "005930", "name": "삼성전자"} in found


def test_a_family_stands_on_one_timeline(as_a: As, buy) -> None:
    root = buy()
    again = TradeOrder.objects.get(pk=root.pk)
    again.pk, again.root_id, again.attempt = None, root.pk, 1
    again.request_id, again.order_no = f"{root.pk}:1", "0000000777"
    again.save(force_insert=True)
    OrderEvent.objects.create(order=again, at=clock.now(), kind="CHASE_ENDED", detail="다섯 번")
    viewer = as_a("viewer")
    for order in (root, again):
        page = viewer.get(reverse("admin:orders_tradeorder_change", args=[order.pk])).content.decode()
        assert "0000000777" in page
        assert root.order_no in page
        assert "추격 종료" in page


def family_page(client: Client, order: TradeOrder) -> str:
    """Return the family's part of an order's page: what stands above the fields."""
    text = client.get(reverse("admin:orders_tradeorder_change", args=[order.pk])).content.decode()
    return text[text.index('<section class="family"') : text.index('<ol class="timeline"')]


def test_a_family_says_who_amended_what_and_how_each_order_ended(as_a: As, buy, broker) -> None:
    root = buy(price=69_000)
    trader = as_a("trader")
    trader.post(reverse("admin:orders_tradeorder_amend", args=[root.pk]), DIALOG | {"price": "69500", "qty": ""})
    reconcile(broker, clock.now)
    text = family_page(trader, root)
    assert f"#{root.pk}에서 AEGIS가 정정" in text
    assert text.count("AEGIS가 정정") == 2, "the end of the one, the origin of the other"
    assert "the trader" in text
    TradeOrder.objects.filter(replaces=root).update(origin="EXTERNAL", attempt=0)
    assert f"#{root.pk}에서 증권사 앱으로 정정" in family_page(trader, root)


def test_a_family_says_in_what_it_differs_from_the_brokers_list(as_a: As, buy) -> None:
    order, now = buy(), clock.now()
    TradeOrder.objects.filter(pk=order.pk).update(
        missing_since=now, unlisted_since=now, cancel_requested_at=now, cancel_requested_by="OPERATOR", withdrawn_qty=3
    )
    text = family_page(as_a("viewer"), order)
    for words in ("증권사 목록에 없음", "목록에 아직 없는 체결", "목록에서 확인되지 않음", "3주"):
        assert words in text
    TradeOrder.objects.filter(pk=order.pk).update(status=Status.CANCELLED)
    assert "목록에서 확인되지 않음" not in family_page(as_a("trader"), order)


def test_a_family_shows_what_was_asked_of_the_broker_and_what_came_of_it(as_a: As, buy, broker) -> None:
    order, trader = buy(), as_a("trader")
    trader.post(reverse("cancel", args=[order.pk]))
    request = BrokerRequest.objects.get(kind="CANCEL")
    assert request.get_state_display() in family_page(trader, order)
    reconcile(broker, clock.now)
    request.refresh_from_db()
    assert (request.state, request.confirmed_qty) == ("CONFIRMED", 10)
    assert "목록에서 확인" in family_page(trader, order)


def test_requests_are_listed_filtered_and_never_edited(as_a: As, buy) -> None:
    order, trader = buy(), as_a("trader")
    trader.post(reverse("cancel", args=[order.pk]))
    request, url = BrokerRequest.objects.get(kind="CANCEL"), reverse("admin:orders_brokerrequest_changelist")
    one = reverse("admin:orders_brokerrequest_change", args=[request.pk])
    assert one in trader.get(url, {"kind": "CANCEL", "requested_by": "OPERATOR"}).content.decode()
    assert "접수됨" in trader.get(url, {"q": "the trader"}).content.decode()
    for query in ({"kind": "AMEND"}, {"state": "REJECTED"}, {"requested_by": "STOP"}, {"q": "카카오"}):
        assert one not in trader.get(url, query).content.decode(), query
    assert trader.get(one).status_code == 200
    assert trader.post(one, {"state": "CONFIRMED"}).status_code == 403
    assert "CANCEL" in exported(trader, "orders_brokerrequest", 0).content.decode()
