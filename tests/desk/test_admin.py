"""What an operator sees: every page opens, in Korean, and nothing that machines write can be changed."""

import unicodedata
from collections.abc import Iterator
from io import StringIO

import pytest
from django.contrib import admin
from django.core.management import call_command
from django.test import Client
from django.urls import reverse

from aegis.broker import Broker
from aegis.terms import Side
from infra import clock
from market.models import WatchedStock
from orders.models import BlacklistedStock, TradeOrder
from orders.reconcile import reconcile
from orders.service import OrderDenied, OrderIntent, OrderService

OURS = ("market", "portfolio", "orders")
admin.autodiscover()
MODELS = [model for model in admin.site._registry if model._meta.app_label in OURS]


@pytest.fixture
def operator(admin_client: Client) -> Iterator[Client]:
    return admin_client


def page(client: Client, name: str, *args: object) -> str:
    response = client.get(reverse(f"admin:{name}", args=args))
    assert response.status_code == 200
    return response.content.decode()


def test_every_table_of_ours_is_registered() -> None:
    from django.apps import apps

    tables = {model for label in OURS for model in apps.get_app_config(label).get_models()}
    assert tables - set(MODELS) <= {apps.get_model("market", "TradingSession")}, "sessions are edited in their day"


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_every_list_opens(operator: Client, model: type) -> None:
    page(operator, f"{model._meta.app_label}_{model._meta.model_name}_changelist")


def test_an_order_shows_its_executions_events_and_notices(operator: Client, buy, service: OrderService) -> None:
    order = buy()
    text = page(operator, "orders_tradeorder_change", order.pk)
    assert "CREATED" in text
    assert "ACCEPTED" in text
    assert "삼성전자" in page(operator, "orders_tradeorder_changelist")


def test_orders_are_found_by_code_name_and_number(operator: Client, buy) -> None:
    order = buy()
    url = reverse("admin:orders_tradeorder_changelist")
    for words in ("005930", "삼성", order.order_no):
        assert order.order_no in operator.get(url, {"q": words}).content.decode()
    assert order.order_no not in operator.get(url, {"q": "카카오"}).content.decode()


def test_orders_and_fills_are_found_by_who_wanted_them(operator: Client, buy, broker: Broker) -> None:
    turtle, other = buy(strategy="buy_urgent", strategy_id="turtle"), buy(price=60_000)
    reconcile(broker, clock.now)
    for model, field in (("tradeorder", "strategy_id"), ("tradeexecution", "order__strategy_id")):
        url = reverse(f"admin:orders_{model}_changelist")
        for query in ({"q": "turt"}, {field: "turtle"}):
            text = operator.get(url, query).content.decode()
            assert turtle.order_no in text, query
            assert other.order_no not in text, query
    assert "turtle" in page(operator, "orders_tradeorder_change", turtle.pk)


def test_history_cannot_be_edited_by_hand(operator: Client, buy) -> None:
    order = buy()
    url = reverse("admin:orders_tradeorder_change", args=[order.pk])
    assert operator.post(url, {"status": "FILLED"}).status_code == 403
    assert operator.post(reverse("admin:orders_tradeorder_delete", args=[order.pk])).status_code == 403
    assert TradeOrder.objects.get().status == "PENDING"


def test_the_blacklist_is_the_operators(operator: Client) -> None:
    fields = {"stock_code": "005930", "stock_name": "삼성전자", "reason": "위험", "until": ""}
    operator.post(reverse("admin:orders_blacklistedstock_add"), fields)
    assert BlacklistedStock.objects.filter(stock_code="005930").exists()


@pytest.mark.parametrize(
    "typed", ["005930 ", "００５９３０", "A005930", "삼성전자", unicodedata.normalize("NFD", "삼성전자")]
)
def test_a_blacklisted_stock_is_the_one_that_is_meant(operator: Client, service: OrderService, typed: str) -> None:
    call_command("sync_stocks", stdout=StringIO())
    fields = {"stock_code": typed, "reason": "위험", "until": ""}
    operator.post(reverse("admin:orders_blacklistedstock_add"), fields)
    row = BlacklistedStock.objects.get(reason="위험")
    assert (row.stock_code, row.stock_name) == ("005930", "삼성전자")
    with pytest.raises(OrderDenied, match="blacklist"):
        service.place(OrderIntent("005930 ", Side.BUY, 1, price=60_000))


def test_one_stock_is_not_blacklisted_twice_in_two_spellings(operator: Client, service: OrderService) -> None:
    url = reverse("admin:orders_blacklistedstock_add")
    for typed in ("005930", "００５９３０"):
        operator.post(url, {"stock_code": typed, "reason": "위험", "until": ""})
    assert BlacklistedStock.objects.filter(reason="위험").count() == 1


@pytest.mark.parametrize("model", ["orders_blacklistedstock", "market_watchedstock", "market_keptbook"])
def test_a_form_refuses_what_is_no_stock_and_says_what_would_be_right(operator: Client, model: str) -> None:
    fields = {
        "stock_code": "5930",
        "reason": "위험",
        "rank": "1",
        "venue": "KRX",
        "until_0": "2026-11-24",
        "until_1": "0",
    }
    text = operator.post(reverse(f"admin:{model}_add"), fields).content.decode()
    assert "&#x27;5930&#x27;" in text
    assert "0009K0" in text


def test_a_watched_stock_is_the_one_that_is_meant(operator: Client, service: OrderService) -> None:
    call_command("sync_stocks", stdout=StringIO())
    operator.post(reverse("admin:market_watchedstock_add"), {"stock_code": "삼성전자", "note": "", "rank": "1"})
    assert WatchedStock.objects.get().pk == "005930"


@pytest.mark.parametrize("words", ["００５９３０", " 005930 ", unicodedata.normalize("NFD", "삼성")])
def test_a_search_finds_what_it_is_meant_to_find(operator: Client, buy, words: str) -> None:
    order = buy()
    url = reverse("admin:orders_tradeorder_changelist")
    assert order.order_no in operator.get(url, {"q": words}).content.decode()
    assert operator.get(reverse("stocks"), {"q": words}).json()["stocks"]


def test_a_chart_of_no_stock_is_not_found(operator: Client, db: None) -> None:
    assert operator.get(reverse("candles", args=["005930 "])).status_code == 200
    assert operator.get(reverse("candles", args=["SIMPAC"])).status_code == 404


def test_pages_are_korean_whatever_the_browser_speaks(operator: Client) -> None:
    response = operator.get(reverse("admin:index"), headers={"accept-language": "en-US,en"})
    assert response.headers["Content-Language"] == "ko"
    assert "사이트" in response.content.decode()


def test_an_operator_may_choose_english(operator: Client) -> None:
    operator.cookies["django_language"] = "en"
    assert "Site administration" in operator.get(reverse("admin:index")).content.decode()


def test_strangers_see_nothing_but_the_login(client: Client) -> None:
    for model in MODELS:
        url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
        assert client.get(url).status_code == 302
