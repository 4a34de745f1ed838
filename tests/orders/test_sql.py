"""A row written by its bare statement is the row that the ORM would have written."""

from decimal import Decimal
from typing import Any

import pytest
from django.core.exceptions import FieldDoesNotExist
from django.db import IntegrityError, transaction
from django.forms.models import model_to_dict

from aegis.broker import Broker
from aegis.lifecycle import Status
from kis import clock
from orders.models import OrderEvent, RawNotice, TradeExecution, TradeOrder
from portfolio import sql

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
    assert (read.created_at, read.candidates, read.order_no, read.arrival_market) == (
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
        "arrival_market": Decimal("70000.5000"),
        "order_no": None,
    }
    assert sql.update(TradeOrder, order.pk, changes)
    ours = TradeOrder.objects.filter(pk=order.pk).values().get()
    TradeOrder.objects.filter(pk=order.pk).update(**changes)
    assert TradeOrder.objects.filter(pk=order.pk).values().get() == ours
    assert (ours["status"], ours["candidates"], ours["chase_at"]) == ("PARTIAL", [{"order_no": "1"}], now)


def test_a_row_that_is_not_as_it_was_seen_stays(order: TradeOrder) -> None:
    assert not sql.update(TradeOrder, order.pk, {"qty": 9}, seen={"status": Status.FILLED})
    assert not sql.update(TradeOrder, order.pk + 1, {"qty": 9})
    assert sql.update(TradeOrder, order.pk, {"qty": 9}, seen={"status": order.status})
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
