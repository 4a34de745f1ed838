"""A row written by its bare statement is the row that the ORM would have written."""

from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import FieldDoesNotExist
from django.db import IntegrityError, transaction
from django.forms.models import model_to_dict

from aegis.broker import Broker
from aegis.lifecycle import Status
from infra import clock, sql
from orders.models import OrderEvent, RawNotice, TradeExecution, TradeOrder

pytestmark = pytest.mark.django_db


@pytest.fixture
def order(db: None) -> TradeOrder:
    now = clock.now()
    words = {
        "stock_code": "005930",
        "order_type": "BUY",
        "market": "KRX",
        "order_kind": "00",
        "qty": 3,
        "price": 70_000,
    }
    return sql.insert(
        TradeOrder(**words, request_id="by hand", order_date=now.date(), created_at=now, status_at=now, candidates=[{}])
    )


def test_every_kind_of_column_reads_back_as_it_was_given(order: TradeOrder) -> None:
    assert order.pk
    read = TradeOrder.objects.get(pk=order.pk)
    assert model_to_dict(read) == model_to_dict(order)
    assert (read.created_at, read.candidates, read.order_no, read.arrival_sweep_price) == (
        order.created_at,
        [{}],
        None,
        None,
    )


def test_it_is_the_row_that_the_orm_writes(order: TradeOrder, broker: Broker) -> None:
    now = clock.now()
    words: dict[str, Any] = {
        "order": order,
        "order_no": "0000000001",
        "stock_code": "005930",
        "exec_qty": 1,
        "exec_price": Decimal("70000.1234"),
        "exec_amount": 70_000,
        "executed_at": now,
        "recorded_at": now,
        "source": TradeExecution.Source.LIST,
    }
    ours = sql.insert(TradeExecution(**words, cumulative_qty=1))
    theirs = TradeExecution.objects.create(**words, cumulative_qty=2)
    skipped = {"id", "cumulative_qty"}
    fields = [field.name for field in TradeExecution._meta.concrete_fields if field.name not in skipped]
    one, other = TradeExecution.objects.filter(pk__in=[ours.pk, theirs.pk]).values(*fields)
    assert one == other
    assert not ours._state.adding


def test_a_row_that_the_database_refuses_is_refused(order: TradeOrder) -> None:
    sql.insert(OrderEvent(order=order, at=clock.now(), kind="X"))
    with pytest.raises(IntegrityError), transaction.atomic():
        sql.insert(TradeOrder(**{**model_to_dict(order), "id": None, "root_id": None, "root": None}))


def test_a_change_is_the_one_that_the_orm_makes(order: TradeOrder) -> None:
    now = clock.now()
    changes: dict[str, Any] = {
        "status": Status.PARTIAL,
        "filled_qty": 1,
        "candidates": [{"order_no": "1"}],
        "chase_at": now,
        "arrival_sweep_price": Decimal("70000.5000"),
        "order_no": None,
    }
    assert sql.update(TradeOrder, order.pk, changes)
    ours = TradeOrder.objects.filter(pk=order.pk).values().get()
    TradeOrder.objects.filter(pk=order.pk).update(**changes)
    assert TradeOrder.objects.filter(pk=order.pk).values().get() == ours
    assert (ours["status"], ours["candidates"], ours["chase_at"]) == ("PARTIAL", [{"order_no": "1"}], now)


def test_a_row_that_is_not_as_it_was_seen_stays(order: TradeOrder) -> None:
    assert not sql.update(TradeOrder, order.pk, {"qty": 9}, expected={"status": Status.FILLED})
    assert not sql.update(TradeOrder, order.pk + 1, {"qty": 9})
    assert sql.update(TradeOrder, order.pk, {"qty": 9}, expected={"status": order.status})
    order.refresh_from_db()
    assert order.qty == 9


def test_a_column_that_is_not_there_is_named(order: TradeOrder) -> None:
    with pytest.raises(FieldDoesNotExist, match="colour"):
        sql.update(TradeOrder, order.pk, {"colour": "red"})


def test_a_reference_is_told_by_its_key(order: TradeOrder) -> None:
    raw = sql.insert(RawNotice(received_at=clock.now(), kind="FILLED", order_date=order.order_date, order_no="1"))
    assert sql.update(RawNotice, raw.pk, {"order": order.pk, "committed_ms": 1.5})
    raw.refresh_from_db()
    assert (raw.order, raw.committed_ms) == (order, 1.5)


def test_a_row_may_be_saved_again(order: TradeOrder) -> None:
    raw = sql.insert(RawNotice(received_at=clock.now(), kind="FILLED", order_date=order.order_date, order_no="1"))
    raw.state = RawNotice.State.APPLIED
    raw.save(update_fields=["state"])
    assert RawNotice.objects.get(pk=raw.pk).state == RawNotice.State.APPLIED


def test_rows_are_asked_for_as_the_orm_asks_for_them(order: TradeOrder) -> None:
    (found,) = sql.select(TradeOrder, {"order_date": order.order_date, "request_id": order.request_id}, lock=True)
    known = TradeOrder.objects.get(pk=order.pk)
    names = [field.attname for field in TradeOrder._meta.concrete_fields]
    assert [getattr(found, name) for name in names] == [getattr(known, name) for name in names]
    assert (found.candidates, found._state.adding) == ([{}], False)
    assert sql.select(TradeOrder, {"order_no": "9999999999"}) == []


def test_rows_for_which_a_condition_holds_are_found_in_its_order(order: TradeOrder) -> None:
    now = order.created_at
    words = {name: getattr(order, name) for name in ("stock_code", "order_type", "market", "order_kind", "price")}
    later = sql.insert(
        TradeOrder(**words, qty=5, request_id="later", order_date=order.order_date, created_at=now, status_at=now)
    )
    condition = "qty = ANY(%(qtys)s) AND order_date = %(day)s ORDER BY qty DESC"
    found = sql.find(TradeOrder, condition, {"qtys": [3, 5], "day": order.order_date})
    assert [each.pk for each in found] == [later.pk, order.pk]
    assert model_to_dict(found[1]) == model_to_dict(TradeOrder.objects.get(pk=order.pk))
    assert sql.find(TradeOrder, condition, {"qtys": [], "day": order.order_date}) == []


def test_a_changed_row_is_returned_as_it_is_then(order: TradeOrder) -> None:
    (changed,) = sql.update_where(TradeOrder, "qty = %(qty)s", "id = %(pk)s AND qty = 3", {"pk": order.pk, "qty": 8})
    assert (changed.pk, changed.qty, changed.candidates) == (order.pk, 8, [{}])
    assert sql.update_where(TradeOrder, "qty = %(qty)s", "id = %(pk)s AND qty = 3", {"pk": order.pk, "qty": 9}) == []
    assert order.qty == 3
    sql.refresh(order)
    assert model_to_dict(order) == model_to_dict(changed)


def test_a_refreshed_row_knows_no_former_relation(order: TradeOrder) -> None:
    raw = sql.insert(
        RawNotice(received_at=clock.now(), kind="FILLED", order_date=order.order_date, order_no="1", order=order)
    )
    sql.update(RawNotice, raw.pk, {"order": None})
    sql.refresh(raw)
    assert raw.order is None
    raw.delete()
    with pytest.raises(RawNotice.DoesNotExist):
        sql.refresh(RawNotice(pk=raw.pk or 0))


def test_a_statement_tells_its_rows_and_how_many_it_changed(order: TradeOrder) -> None:
    assert sql.query("SELECT qty, price FROM trade_orders WHERE id = %(pk)s", {"pk": order.pk}) == [(3, 70_000)]
    changing = "UPDATE trade_orders SET qty = 4 WHERE id = %(pk)s AND qty = 3"
    assert (sql.execute(changing, {"pk": order.pk}), sql.execute(changing, {"pk": order.pk})) == (1, 0)


def test_names_of_ours_stand_in_a_statement_in_one_order() -> None:
    assert sql.literals({Status.PENDING, Status.PARTIAL}) == "'PARTIAL', 'PENDING'"
