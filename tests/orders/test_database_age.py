"""A database that is older than the one that was used last begins halted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from aegis.trading_state import TradingState
from infra import clock
from orders import database_age, risk
from orders.models import SwitchChange, TradeOrder

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def home(settings: Any, tmp_path: Path) -> Path:
    settings.HOME = tmp_path
    return tmp_path


def test_the_same_database_goes_on(buy: Callable[..., TradeOrder]) -> None:
    assert not database_age.halt_if_older(clock.now()), "nothing is known of an earlier run"
    database_age.note()
    buy()
    assert not database_age.halt_if_older(clock.now())
    assert risk.trading_state() is TradingState.ACTIVE


def test_an_older_database_begins_halted_once(buy: Callable[..., TradeOrder]) -> None:
    with connection.cursor() as cursor:
        cursor.execute("SELECT last_value FROM order_events_id_seq")
        (before,) = cursor.fetchone()
        buy()
        database_age.note()
        cursor.execute("SELECT setval('order_events_id_seq', %s)", [before - 100 if before > 100 else 1])
    assert database_age.halt_if_older(clock.now())
    assert risk.trading_state() is TradingState.HALTED
    change = SwitchChange.objects.latest("id")
    assert (change.by, "resume" in change.reason or "재개" in change.reason) == ("AEGIS", True)
    assert not database_age.halt_if_older(clock.now()), "a person who resumes is not halted again"


def test_a_restored_database_begins_halted(buy: Callable[..., TradeOrder]) -> None:
    database_age.mark_restored()
    assert database_age.halt_if_older(clock.now())
    assert risk.trading_state() is TradingState.HALTED


def test_a_mark_that_cannot_be_read_halts_nothing(home: Path) -> None:
    database_age.state_path().write_text("{", encoding="utf-8")
    assert not database_age.halt_if_older(clock.now())
