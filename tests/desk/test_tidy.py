"""What nobody needs any more goes; what tells of an order stays."""

from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import chain, repeat
from typing import Any

import pytest
from django.db import connection

from aegis.broker import Broker
from aegis.sessions import KST
from aegis.terms import Side
from desk import dashboard
from infra import clock
from market import reference_data
from monitor import retention
from notify import alerts
from notify.alerts import DESK, Notification
from notify.models import Confirmation, Message, NotificationKind
from orders import reconcile
from orders.models import OrderEvent, RawNotice, Reconciliation, TradeExecution, TradeOrder
from orders.service import OrderIntent, OrderService
from portfolio.models import AccountSnapshot
from simulator.api.server import Simulator
from tests.orders.test_fills import hear, notice

pytestmark = pytest.mark.django_db
NIGHT = datetime(2026, 11, 23, 23, 0, tzinfo=KST)
NOON = datetime(2026, 11, 23, 12, 0, tzinfo=KST)


def ago(days: float) -> datetime:
    return NIGHT - timedelta(days=days)


@pytest.fixture(autouse=True)
def _kept(settings: Any) -> None:
    settings.KEEP_MESSAGES_DAYS = 90
    settings.KEEP_RECONCILIATIONS_DAYS = settings.KEEP_NOTICES_DAYS = 30
    settings.KEEP_SNAPSHOTS_DAYS, settings.KEEP_BOOKS_DAYS = 90, 7


def a_look(days: float, **words: Any) -> Reconciliation:
    return Reconciliation.objects.create(**{"at": ago(days), "outcome": "WHOLE", **words})


def a_snapshot(at: datetime, total: int) -> AccountSnapshot:
    figures = dict.fromkeys(("deposit", "deposit_d1", "deposit_d2", "valuation", "net_profit_today"), 0)
    return AccountSnapshot.objects.create(timestamp=at, total_asset=total, **figures)


def test_old_messages_and_buttons_go_and_young_ones_stay() -> None:
    for days in (1, 89, 91, 400):
        alerts.write_messages(
            [Notification(f"old:{days}", NotificationKind.FILL, "x", ago(days))], ["telegram:1"], now=ago(days)
        )
        Confirmation.objects.create(
            key=str(days), chat=1, action="ORDER", created_at=ago(days), expires_at=ago(days) + timedelta(minutes=1)
        )
    assert retention.delete_expired(NIGHT) == {"messages": 4, "confirmations": 2}
    assert set(Message.objects.values_list("event", "channel")) == {
        (f"old:{days}", channel) for days in (1, 89) for channel in (DESK, "telegram:1")
    }
    assert retention.delete_expired(NIGHT) == {}


def test_looks_that_changed_nothing_go_and_those_that_tell_why_stay() -> None:
    kept = [a_look(29), a_look(31, corrected=1), a_look(31, adopted=1), a_look(31, resolved=1)]
    a_look(31)
    a_look(31, outcome="FAILED", error="no answer")
    assert retention.delete_expired(NIGHT) == {"reconciliations": 2}
    assert set(Reconciliation.objects.all()) == set(kept)


def test_of_old_snapshots_the_last_of_each_korean_day_stays() -> None:
    old = datetime(2026, 7, 1, 0, 0, tzinfo=KST)
    for day in range(3):
        for number, hours in enumerate((0, 8.5, 23.9)):
            a_snapshot(old + timedelta(days=day, hours=hours), 10 * day + number)
    young = [a_snapshot(ago(1), 100), a_snapshot(ago(0.9), 101)]
    curve = dashboard.equity(NIGHT, of_today=False)
    assert retention.delete_expired(NIGHT) == {"snapshots": 6}
    assert list(AccountSnapshot.objects.order_by("timestamp").values_list("total_asset", flat=True)) == [
        2, 12, 22, *(each.total_asset for each in young)
    ]  # fmt: skip
    assert dashboard.equity(NIGHT, of_today=False) == curve


def test_all_that_happened_to_an_order_stays_for_good(
    broker: Broker, simulator: Simulator, clock_at: Callable[..., datetime]
) -> None:
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    simulator.set_price("005930", 70_000, freeze=True)
    reconcile.reconcile(broker, clock.now)
    order = OrderService(broker, clock.now).place(OrderIntent("005930", Side.BUY, 10, strategy="buy_urgent"))
    hear(notice(order.order_no or "", qty=10, price=order.price))
    hear(notice("0000077777"))
    hear(notice(order.order_no or "", account="9999999901"))
    before = {model: model.objects.count() for model in (TradeOrder, OrderEvent, TradeExecution)}
    years_on = clock_at("2029-11-24 23:00:00")
    assert retention.delete_expired(years_on)["notices"] == 2
    assert {model: model.objects.count() for model in before} == before
    assert RawNotice.objects.get().order == order
    assert TradeExecution.objects.get().notice == RawNotice.objects.get()


def test_it_goes_in_batches_until_its_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "BATCH", 3)
    for _ in range(10):
        a_look(31)
    assert retention.delete_expired(NIGHT) == {"reconciliations": 10}
    for _ in range(10):
        a_look(31)
    # the beginning, messages, confirmations, two batches of looks; then its time is over
    ticking = chain([0.0] * 5, repeat(retention.TURN_SECONDS))
    monkeypatch.setattr(retention, "monotonic", lambda: next(ticking))
    assert retention.delete_expired(NIGHT) == {"reconciliations": 6}
    assert Reconciliation.objects.count() == 4


def test_nothing_is_deleted_while_a_market_is_open_nor_where_it_is_kept_for_good(
    settings: Any, broker: Broker, clock_at: Callable[..., datetime]
) -> None:
    clock_at(f"{NOON:%Y-%m-%d %H:%M:%S}")
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    a_look(400)
    assert retention.delete_expired(NOON) == {}
    settings.KEEP_RECONCILIATIONS_DAYS = 0
    assert retention.delete_expired(NIGHT) == {}
    settings.KEEP_RECONCILIATIONS_DAYS = 30
    assert retention.delete_expired(NIGHT) == {"reconciliations": 1}


def fifty_thousand_looks() -> None:
    Reconciliation.objects.bulk_create(Reconciliation(at=ago(31), outcome="WHOLE") for _ in range(50_000))


def test_fifty_thousand_rows_go_within_a_turn() -> None:
    fifty_thousand_looks()
    assert retention.delete_expired(NIGHT) == {"reconciliations": 50_000}


def test_they_do_where_the_planner_takes_the_table_for_empty() -> None:
    # as after a night's tidying: pages without rows, and new rows in them that nobody counted yet
    fifty_thousand_looks()
    with connection.cursor() as cursor:
        cursor.execute("DELETE FROM reconciliations")
        cursor.execute("ANALYZE reconciliations")
    fifty_thousand_looks()
    assert retention.delete_expired(NIGHT) == {"reconciliations": 50_000}
