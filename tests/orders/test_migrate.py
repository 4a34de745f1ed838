"""A database of an earlier version, in the middle of a day with orders in every state, taken over by this one."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.db import connection
from pytest_django.plugin import DjangoDbBlocker

from aegis.broker import Broker
from aegis.chase import Action, ChaseStep
from aegis.lifecycle import Status
from aegis.requests import LIVE
from aegis.terms import Market
from infra import clock
from orders import cancel_driver, chase, reconcile, stops
from orders.models import BrokerRequest, OrderEvent, StopRule, TradeExecution, TradeOrder
from simulator.api.server import Simulator

EARLIER = Path(__file__).parents[1] / "samples" / "databases" / "orders_0008.sql"
# a few seconds after it was dumped: the chase of order 20 is due
NOW = "2026-11-24 10:04:55"
EXPIRED, CANCELLED, DENIED, LOST = 1, 5, 9, 10
OF_STOP, PARTLY, RETRY, BETWEEN, DUE = 15, 16, 18, 19, 20
TAKEN, UNANSWERED, BY_CHASE, UNKNOWN, SUBMITTING = 22, 23, 24, 25, 26
Figures = dict[str, list[tuple[Any, ...]]]
KEPT = {
    "trade_orders": "id, request_id, root_id, attempt, origin, stock_code, order_type, market, order_kind, "
    "strategy, qty, price, status, status_at, order_date, branch, order_no, filled_qty, filled_amount, refusal, "
    "never_arrived, created_at, sent_at, accepted_at, confirmed_at, chase_at, wait_seconds, max_retries, "
    "step_ticks, market_after",
    "trade_executions": "*",
    "order_events": "*",
    "raw_notices": "*",
    "stop_rules": "id, stock_code, stock_name, kind, unit, value, atr, high, state, state_at, armed_by, armed_at, "
    "trigger_price, triggered_at, generation, try_at, claimed_until, note, feed_at, feed_price, "
    "is_silent, adjusted_through, order_id",
    "stop_events": "*",
    "portfolio": "stock_code, quantity, avg_price",
}


# the columns of version 0.1 that have another name now
OLD_COLUMNS = {"confirmed_at": "looked_at", "feed_at": "heard_at", "feed_price": "heard_price"}


def figures(*, old: bool = False) -> Figures:
    with connection.cursor() as cursor:
        found = {}
        for table, columns in KEPT.items():
            if old:
                columns = ", ".join(OLD_COLUMNS.get(name, name) for name in columns.split(", "))
            cursor.execute(f"SELECT {columns} FROM {table} ORDER BY 1")
            found[table] = cursor.fetchall()
        return found


@pytest.fixture(scope="module")
def earlier(django_db_setup: None, django_db_blocker: DjangoDbBlocker) -> Iterator[Figures]:
    """The migrated database, beside that of the other tests; what it held before."""
    usual = connection.settings_dict["NAME"]
    with django_db_blocker.unblock():
        _remake(f"{usual}_earlier")
        connection.close()
        connection.settings_dict["NAME"] = f"{usual}_earlier"
        try:
            with connection.cursor() as cursor:
                cursor.execute(EARLIER.read_text(encoding="utf-8"))
            connection.close()  # the dump leaves it without a search path
            before = figures(old=True)
            call_command("migrate", verbosity=0, interactive=False)
            yield before
        finally:
            connection.close()
            connection.settings_dict["NAME"] = usual
            _drop(f"{usual}_earlier")


def _drop(name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


def _remake(name: str) -> None:
    _drop(name)
    with connection.cursor() as cursor:
        cursor.execute(f'CREATE DATABASE "{name}" TEMPLATE template0')


@pytest.fixture
def taken_over(earlier: Figures, db: None, simulator: Simulator, clock_at: Callable[[str], object]) -> Figures:
    """The migrated database in a transaction, a moment after its house went down."""
    clock_at(NOW)
    return earlier


def order(pk: int) -> TradeOrder:
    return TradeOrder.objects.get(pk=pk)


def test_every_order_fill_and_event_survives_with_its_figures(taken_over: Figures) -> None:
    assert figures() == taken_over
    assert {each[12] for each in taken_over["trade_orders"]} == {str(status) for status in Status}
    counts = TradeOrder.objects.count(), TradeExecution.objects.count(), OrderEvent.objects.count() > 80
    assert counts == (26, 5, True)


def test_every_order_that_was_sent_has_its_request(taken_over: Figures) -> None:
    news = {each.order_id: each for each in BrokerRequest.objects.filter(kind="NEW")}
    ours = set(TradeOrder.objects.filter(origin="AEGIS").values_list("pk", flat=True))
    assert set(news) == ours
    told = {pk: news[pk].state for pk in (EXPIRED, DENIED, LOST, DUE, UNKNOWN, SUBMITTING)}
    assert told == {
        EXPIRED: "ACKNOWLEDGED", DENIED: "REJECTED", LOST: "NOT_SENT", DUE: "ACKNOWLEDGED", UNKNOWN: "UNKNOWN",
        SUBMITTING: "SENT",
    }  # fmt: skip
    askers = [news[pk].requested_by for pk in (DUE, RETRY, OF_STOP)]
    assert askers == ["CALLER", "CHASE", "STOP"]
    assert all((each.order_no, each.qty) == (order(pk).order_no or "", order(pk).qty) for pk, each in news.items())


def test_a_cancel_that_was_sent_and_not_confirmed_goes_on(taken_over: Figures) -> None:
    live = BrokerRequest.objects.filter(kind="CANCEL", state__in=LIVE).order_by("order_id")
    assert [(each.order_id, each.state, each.requested_by) for each in live] == [
        (BETWEEN, "ACKNOWLEDGED", "CHASE"),
        (TAKEN, "ACKNOWLEDGED", "OPERATOR"),
        (UNANSWERED, "UNKNOWN", "OPERATOR"),
        (BY_CHASE, "ACKNOWLEDGED", "CHASE"),
    ]
    # a chase drives its own: the driver only reports it
    assert set(cancel_driver.due_cancels(clock.now())) == {TAKEN, UNANSWERED, BY_CHASE}
    assert {order(pk).status for pk in (TAKEN, UNANSWERED, BY_CHASE)} == {"PENDING"}, "a reply proves nothing"


def test_a_cancel_of_before_is_ours_should_the_list_still_show_it(taken_over: Figures) -> None:
    (request,) = order(CANCELLED).requests.filter(kind="CANCEL")
    assert (request.state, request.order_no != "") == ("LAPSED", True)


def test_pending_chases_resume_where_they_were(taken_over: Figures, broker: Broker) -> None:
    chased = dict(TradeOrder.objects.exclude(chase_at=None).values_list("pk", "chase_step"))
    assert chased == dict.fromkeys([OF_STOP, PARTLY, RETRY, BETWEEN, DUE, BY_CHASE], "CHECK")
    assert set(chase.due_orders(clock.now())) >= {DUE, BETWEEN, BY_CHASE}
    assert all(order(pk).band_percent > 0 for pk in chased)
    # by its message, a chase is where the rows say it is
    taken = chase.run_step(BY_CHASE, broker, clock.now, ChaseStep.CHECK)
    assert (taken.action, taken.next_step) == (Action.WAIT, ChaseStep.CONFIRM)
    taken = chase.run_step(BETWEEN, broker, clock.now, ChaseStep.CHECK)
    assert (taken.action, taken.next_step) == (Action.WAIT, ChaseStep.CONFIRM)


def test_a_chase_of_before_looks_before_it_cancels_and_orders_nothing_that_no_line_released(
    taken_over: Figures, broker: Broker, simulator: Simulator
) -> None:
    orders = TradeOrder.objects.count()
    for pk in chase.due_orders(clock.now()):
        chase.run_due_steps(pk, broker, clock.now)
    assert TradeOrder.objects.count() == orders
    assert simulator.ledger("50000000-01")["orders"] == [], "the list shows none of them: nothing is known to be free"
    assert order(DUE).state is Status.PENDING


def test_what_is_unknown_stays_unknown(taken_over: Figures, broker: Broker) -> None:
    assert order(UNKNOWN).status == "UNKNOWN"
    assert order(SUBMITTING).status == "SUBMITTING"
    reconcile.reconcile(broker, clock.now)
    assert order(UNKNOWN).status == "UNKNOWN", "one list that lacks it proves nothing"
    assert order(UNKNOWN).requests.get().state == "UNKNOWN"


def test_a_list_without_any_of_them_settles_nothing(taken_over: Figures, broker: Broker) -> None:
    before = dict(TradeOrder.objects.values_list("pk", "status"))
    report = reconcile.reconcile(broker, clock.now)
    assert (report.seen, report.corrected, report.adopted) == (0, 0, 0)
    assert "the list is empty" in report.error
    assert dict(TradeOrder.objects.values_list("pk", "status")) == before


def test_no_chase_of_before_goes_on_the_day_after(
    taken_over: Figures, broker: Broker, simulator: Simulator, clock_at: Callable[[str], object]
) -> None:
    clock_at("2026-11-25 09:30:00")
    for _ in range(3):
        reconcile.reconcile(broker, clock.now)
        for pk in chase.due_orders(clock.now()):
            chase.run_due_steps(pk, broker, clock.now)
    assert not TradeOrder.objects.exclude(chase_at=None).exists()
    assert simulator.ledger("50000000-01")["orders"] == []


def test_stops_are_where_they_were(taken_over: Figures) -> None:
    assert list(StopRule.objects.order_by("id").values_list("state", flat=True)) == ["ARMED", "TRIGGERED", "ORDERED"]
    assert StopRule.objects.get(state="ORDERED").order_id == OF_STOP
    assert set(stops.due_stops(clock.now())) >= {StopRule.objects.get(state="TRIGGERED").pk}


def test_an_armed_stop_goes_on_with_the_settings_sources_and_its_figures(taken_over: Figures) -> None:
    row = StopRule.objects.get(state="ARMED")
    assert (row.venues, row.counts_since, row.basis) == ({Market.KRX, Market.NXT}, row.armed_at, 1)
    assert not stops.awaits_base_price(row, clock.now().date()), "what it is based on is not known: it guards as before"
