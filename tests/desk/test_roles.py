"""Who may do what: a viewer cannot trade, a stranger sees nothing but the login."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import Group, User
from django.test import Client
from django.urls import URLPattern, reverse
from django_celery_beat.models import PeriodicTask

from config import schedule
from desk import urls
from desk.roles import SWITCH, TRADE
from infra import clock
from market.models import TradingDay
from orders.models import OrderEvent, TradeOrder, TradingSwitch

As = Callable[..., Client]
SAMPLES = {"pk": 1, "code": "005930", "state": "halt"}


def doors() -> list[str]:
    """Return an address of every page of the desk's own."""
    patterns = [pattern for pattern in urls.urlpatterns if isinstance(pattern, URLPattern)]
    return [
        reverse(pattern.name, kwargs={name: SAMPLES[name] for name in pattern.pattern.regex.groupindex})
        for pattern in patterns
        if pattern.name not in urls.OPEN_TO_ALL
    ]


@pytest.mark.django_db
@pytest.mark.parametrize("url", doors())
def test_a_stranger_is_sent_to_the_login(client: Client, url: str) -> None:
    for answer in (client.get(url), client.post(url)):
        assert answer.status_code == 302
        assert answer.headers["Location"].startswith(reverse("admin:login"))


@pytest.mark.parametrize("url", [url for url in doors() if "two-factor" not in url])
def test_who_is_no_staff_is_refused(as_a: As, url: str) -> None:
    outsider = as_a(None, is_staff=False)
    assert {outsider.get(url).status_code, outsider.post(url).status_code} <= {403, 405}


def test_the_groups_grow_with_what_they_may(user_of: Callable[..., User]) -> None:
    may = {role: user_of(role).get_all_permissions() for role in ("viewer", "trader", "administrator")}
    assert may["viewer"] < may["trader"] < may["administrator"]
    assert not [name for name in may["viewer"] if not name.split(".")[1].startswith("view_")]
    assert {TRADE, SWITCH, "orders.add_blacklistedstock"} <= may["trader"]
    assert not [name for name in may["trader"] if name.startswith("auth.")]
    assert "auth.change_user" in may["administrator"]


@pytest.mark.django_db(transaction=True)
def test_the_groups_come_back_whenever_the_database_is_made_anew() -> None:
    assert set(Group.objects.values_list("name", flat=True)) == {"viewer", "trader", "administrator"}


def test_a_viewer_sees_and_cannot_trade(as_a: As, buy) -> None:
    order, viewer = buy(), as_a("viewer")
    page = viewer.get(reverse("dashboard"))
    assert page.status_code == 200
    assert "may-trade" not in page.content.decode()
    assert viewer.get(reverse("admin:orders_tradeorder_change", args=[order.pk])).status_code == 200

    for url in (
        reverse("cancel", args=[order.pk]),
        reverse("chase", args=[order.pk]),
        reverse("cancel_all"),
        *(reverse("switch", args=[state]) for state in ("halt", "reduce", "resume")),
        reverse("admin:orders_tradeorder_cancel", args=[order.pk]),
        reverse("admin:orders_tradeorder_chase_now", args=[order.pk]),
        reverse("admin:orders_tradeorder_reconcile", args=[order.pk]),
        reverse("admin:orders_tradeorder_decide", args=[order.pk]),
        reverse("admin:orders_tradeorder_reconcile_all"),
        *(reverse(f"admin:orders_tradingswitch_{state}") for state in ("halt", "reduce", "resume")),
    ):
        assert viewer.post(url, {"_form_submitted": "on", "reason": "x"}).status_code == 403, url
    chosen = {"action": "cancel_chosen", "_selected_action": [order.pk], "confirmed": "yes"}
    viewer.post(reverse("admin:orders_tradeorder_changelist"), chosen)

    assert TradeOrder.objects.get().cancel_sent_at is None
    assert not OrderEvent.objects.filter(kind="OPERATOR").exists()
    assert TradingSwitch.objects.get().state == "ACTIVE"


def test_a_viewer_is_offered_no_button_that_trades(as_a: As, buy) -> None:
    order = buy()
    text = as_a("viewer").get(reverse("admin:orders_tradeorder_change", args=[order.pk])).content.decode()
    assert reverse("admin:orders_tradeorder_cancel", args=[order.pk]) not in text
    text = as_a("trader").get(reverse("admin:orders_tradeorder_change", args=[order.pk])).content.decode()
    assert reverse("admin:orders_tradeorder_cancel", args=[order.pk]) in text


def test_a_viewer_gives_no_correction_back(as_a: Callable[..., Client]) -> None:
    words = {"kind": "ORDINARY", "source": TradingDay.Source.OPERATOR, "synced_at": clock.now()}
    day = TradingDay.objects.create(date="2026-11-24", is_open=False, **words)
    asked = {"action": "give_back", "_selected_action": [str(day.pk)]}
    as_a("viewer").post(reverse("admin:market_tradingday_changelist"), asked)
    day.refresh_from_db()
    assert day.source == TradingDay.Source.OPERATOR


@pytest.mark.parametrize(("role", "left"), [("viewer", True), ("trader", True), ("administrator", False)])
def test_only_an_administrator_stops_the_schedule(as_a: Callable[..., Client], role: str, left: bool) -> None:
    schedule.write_schedule()
    tasks = [str(task.pk) for task in PeriodicTask.objects.all()]
    asked = {"action": "disable_tasks", "_selected_action": tasks}
    as_a(role).post(reverse("admin:django_celery_beat_periodictask_changelist"), asked)
    assert PeriodicTask.objects.filter(enabled=True).exists() is left
