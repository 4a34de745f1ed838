"""Nobody waits in the database without end, and a sender whose session was ended sends nothing."""

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any
from unittest import mock

import pytest
from django.conf import settings
from django.core.management import call_command
from django.db import connection, connections, transaction
from django.db.models.signals import post_migrate

from aegis.broker import Acceptance, Broker, NotSent, OrderRequest
from aegis.lifecycle import Status
from aegis.requests import RequestState
from aegis.terms import Side
from config.env import BASE_DIR
from infra import clock, db_limits
from monitor import retention
from ops import apps, backup
from orders import journal, kill_switch, reconcile
from orders.models import TradeOrder
from orders.service import NO_CHASE, OrderIntent, OrderService
from simulator.api.server import Simulator
from tests.workers import environment

from .conftest import SAMSUNG
from .exchange_log import ACCOUNT

BUY = OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_normal", plan=NO_CHASE)
MOST_SECONDS = 4.0
SETTINGS = (*db_limits.NAMES, "tcp_keepalives_idle")

pytestmark = pytest.mark.django_db(transaction=True)


def shown(*names: str) -> list[str]:
    with connection.cursor() as cursor:
        values = []
        for name in names:
            cursor.execute(f"SHOW {name}")
            values.append(str(cursor.fetchone()[0]))
    return values


@contextmanager
def asleep(holding: Callable[[], object]) -> Iterator[None]:
    """Have another worker take a lock in a transaction and fall asleep in it, with a worker's limits."""
    held, over = threading.Event(), threading.Event()

    def sleep() -> None:
        try:
            with transaction.atomic():
                with connection.cursor() as cursor:
                    cursor.execute(
                        "SELECT set_config(%s, %s, true)",
                        ["idle_in_transaction_session_timeout", f"{settings.DATABASE_LOCK_SECONDS - 1}s"],
                    )
                holding()
                held.set()
                over.wait(60)
        except db_limits.CONNECTION_ERRORS:
            pass  # the server ended the session
        finally:
            connections.close_all()

    thread = threading.Thread(target=sleep)
    thread.start()
    try:
        assert held.wait(10)
        yield
    finally:
        over.set()
        thread.join(20)


def end_session(pid: int) -> None:
    """End a session as an operator does, or a server that restarts."""

    def end() -> None:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_terminate_backend(%s)", [pid])
        connections.close_all()

    thread = threading.Thread(target=end)
    thread.start()
    thread.join(10)


def ordered_at_the_exchange(simulator: Simulator) -> int:
    return len(simulator.ledger(ACCOUNT)["orders"])


# --- the limits ------------------------------------------------------------------------------------------------------


def of_a_process(setup: str = "import django; django.setup()", **variables: str) -> list[str]:
    """Return the limits of a new process's connection."""
    program = (
        f"{setup}\n"
        "from django.db import connection\n"
        "with connection.cursor() as cursor:\n"
        f"    for name in {SETTINGS!r}:\n"
        "        cursor.execute(f'SHOW {name}')\n"
        "        print(cursor.fetchone()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=BASE_DIR, env=environment() | variables, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def test_every_process_has_them_on_every_connection() -> None:
    *found, _ = of_a_process()
    assert found == ["3s", "3s", "2s"]
    *found, _ = of_a_process(AEGIS_DATABASE_LOCK_SECONDS="2", AEGIS_DATABASE_STATEMENT_SECONDS="30")
    assert found == ["2s", "30s", "1s"]


def test_options_of_the_url_stand_beside_them() -> None:
    url = environment()["DATABASE_URL"]
    url += ("&" if "?" in url else "?") + "options=-c%20statement_timeout%3D7s"
    *found, _ = of_a_process(DATABASE_URL=url)
    assert found == ["3s", "7s", "2s"]


def test_pages_may_take_longer() -> None:
    web = "import config.wsgi"
    *found, _ = of_a_process(web)
    assert found == ["3s", "30s", "2s"]
    *found, _ = of_a_process(web, AEGIS_DATABASE_STATEMENT_SECONDS="45")
    assert found == ["3s", "45s", "2s"]
    url = environment()["DATABASE_URL"]
    url += ("&" if "?" in url else "?") + "options=-c%20statement_timeout%3D7s"
    *found, _ = of_a_process(web, DATABASE_URL=url)
    assert found == ["3s", "7s", "2s"]


def test_a_server_elsewhere_is_asked_whether_it_lives() -> None:
    program = "from config import settings; print(settings.DATABASES['default']['OPTIONS'])"
    url = {"DATABASE_URL": "postgres://aegis:word@db.example.com:5432/aegis?sslmode=require"}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=BASE_DIR, env=environment() | url, capture_output=True, text=True
    )
    for words in ("'keepalives_idle': 5", "'tcp_user_timeout': 10000", "'sslmode': 'require'", "lock_timeout=3s"):
        assert words in done.stdout, done.stderr


@pytest.mark.parametrize("value", ["0", "1", "61", "-3", "three"])
def test_a_limit_out_of_range_is_refused_by_name(value: str) -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check"],
        cwd=BASE_DIR,
        env=environment() | {"AEGIS_DATABASE_LOCK_SECONDS": value},
        capture_output=True,
        text=True,
    )
    assert done.returncode
    assert "AEGIS_DATABASE_LOCK_SECONDS" in done.stderr


def test_migrations_backups_and_the_deletion_of_old_rows_have_their_own(
    monkeypatch: pytest.MonkeyPatch, clock_at: Callable[[str], object]
) -> None:
    ordinary, seen = shown(*db_limits.NAMES), list[list[str]]()

    def note(**about: Any) -> None:
        seen.append(shown(*db_limits.NAMES))

    from django.apps import apps as installed

    first = installed.get_app_config("contenttypes")  # its signal comes before that of ours, which ends them
    post_migrate.connect(note, sender=first)
    try:
        call_command("migrate", verbosity=0, interactive=False)
    finally:
        post_migrate.disconnect(note, sender=first)
    assert seen == [[f"{apps.MIGRATION_LOCK_SECONDS / 60:g}min", "0", "0"]]
    assert shown(*db_limits.NAMES) == ordinary

    monkeypatch.setattr(retention, "RETENTION_RULES", (("seen", "KEEP_BOOKS_DAYS", lambda before, count: note() or 0),))
    clock_at("2026-11-23 03:00")
    retention.delete_expired(clock.now())
    assert seen[1:] == [[f"{retention.TURN_SECONDS:g}s"] * 3]
    assert shown(*db_limits.NAMES) == ordinary

    with backup._connected() as session:
        assert session.execute("SHOW statement_timeout").fetchone() == ("0",)


# --- a worker asleep in a transaction --------------------------------------------------------------------------------


def test_an_order_waits_seconds_for_a_worker_that_sleeps_over_the_trading_state(
    service: OrderService, simulator: Simulator
) -> None:
    kill_switch.ensure_exists(clock.now())
    with asleep(kill_switch.bump_version):
        began = time.monotonic()
        order = service.place(BUY)
        assert time.monotonic() - began < MOST_SECONDS
    assert order.state is Status.PENDING
    assert ordered_at_the_exchange(simulator) == 1


def test_a_halt_waits_seconds_for_a_worker_that_sleeps_over_the_trading_state(service: OrderService) -> None:
    kill_switch.ensure_exists(clock.now())
    with asleep(kill_switch.bump_version):
        began = time.monotonic()
        kill_switch.halt(by="kim", reason="stop everything", at=clock.now())
        assert time.monotonic() - began < MOST_SECONDS


def test_a_lock_that_is_not_to_be_had_keeps_an_order_no_longer_and_nothing_is_sent(
    service: OrderService, simulator: Simulator
) -> None:
    """The transaction that holds the lock works on: it is not asleep, and is not ended."""
    kill_switch.ensure_exists(clock.now())
    with asleep(lambda: (kill_switch.bump_version(), db_limits.set_limits(lock=60, statement=60, idle=60))):
        began = time.monotonic()
        with pytest.raises(NotSent):
            service.place(BUY)
        assert time.monotonic() - began < MOST_SECONDS
    assert not TradeOrder.objects.exists()
    assert ordered_at_the_exchange(simulator) == 0


# --- a session that the server ended ---------------------------------------------------------------------------------


def meanwhile(broker: Broker, happens: Callable[[OrderRequest], object]) -> Broker:
    """Return a broker before which something happens when an order is about to leave."""

    def place(request: OrderRequest) -> Acceptance:
        happens(request)
        return broker.place(request)

    return mock.MagicMock(wraps=broker, place=place)


def test_a_sender_whose_session_was_ended_sends_nothing(
    service: OrderService, broker: Broker, simulator: Simulator
) -> None:
    def end(request: OrderRequest) -> None:
        assert connection.connection is not None
        end_session(connection.connection.info.backend_pid)

    order = OrderService(meanwhile(broker, end), clock.now).place(BUY)
    assert ordered_at_the_exchange(simulator) == 0
    assert (order.state, order.never_arrived) == (Status.REJECTED, True)
    assert order.requests.get().state == RequestState.NOT_SENT
    following = OrderService(broker, clock.now).place(replace(BUY, request_id="next"))
    assert following.state is Status.PENDING, following.refusal


def test_a_sender_whose_row_somebody_holds_sends_nothing(
    service: OrderService, broker: Broker, simulator: Simulator
) -> None:
    sleepers: list[Any] = []

    def hold(request: OrderRequest) -> None:
        order = TradeOrder.objects.get()
        sleepers.append(asleep(lambda: (journal.locked(order.pk), db_limits.set_limits(lock=9, statement=9, idle=9))))
        sleepers[0].__enter__()

    began = time.monotonic()
    held = meanwhile(broker, hold)
    threading.Timer(4.5, lambda: sleepers[0].__exit__(None, None, None)).start()
    order = OrderService(held, clock.now).place(BUY)
    assert time.monotonic() - began < 2 * MOST_SECONDS
    assert ordered_at_the_exchange(simulator) == 0
    assert (order.state, order.never_arrived) == (Status.REJECTED, True)


def test_an_answer_is_recorded_though_the_session_was_ended_meanwhile(
    service: OrderService, broker: Broker, simulator: Simulator
) -> None:
    def place(request: OrderRequest) -> Acceptance:
        acceptance = broker.place(request)
        assert connection.connection is not None
        end_session(connection.connection.info.backend_pid)
        return acceptance

    order = OrderService(mock.MagicMock(wraps=broker, place=place), clock.now).place(BUY)
    assert (order.state, ordered_at_the_exchange(simulator)) == (Status.PENDING, 1)


def test_a_reader_of_the_list_whose_session_was_ended_leaves_its_turn(
    service: OrderService, broker: Broker, simulator: Simulator
) -> None:
    def orders(*days: Any) -> Any:
        assert connection.connection is not None
        end_session(connection.connection.info.backend_pid)
        return broker.orders(*days)

    with pytest.raises(db_limits.CONNECTION_ERRORS):
        reconcile.reconcile_now(mock.MagicMock(wraps=broker, orders=orders), clock.now)
    connection.close()
    reconcile.reconcile_now(broker, clock.now)
    assert reconcile.is_fresh(clock.now())
