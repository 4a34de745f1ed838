"""What tests share: servers that start when first needed, a market clock, a simulated broker, a shut network."""

import importlib
import ipaddress
import os
import socket
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import redis
from django.apps import apps
from django.conf import settings
from django.db.models import Max
from django.db.models.signals import post_migrate
from django.utils import timezone

from aegis.broker import Broker
from aegis.sessions import KST
from config.env import HOME
from infra import clock
from kis import factory
from notify.models import OutboxCursor
from ops import embedded
from orders import database_age, kill_switch
from simulator.api.server import Simulator, serve
from tests import old_names
from tests.workers import Workers

old_names.install()

MOST_WORKERS = 4
# a Monday of the calendar, an hour after the opening
ORDINARY_MORNING = datetime(2026, 11, 23, 10, 0, tzinfo=KST)


def pytest_xdist_auto_num_workers() -> int:
    """Give each worker servers of its own; on those of the shell, which they would share, there is no more than one."""
    has_own = settings.HAS_OWN_DATABASE and settings.HAS_OWN_REDIS
    return min(os.cpu_count() or 1, MOST_WORKERS) if has_own else 0


@pytest.fixture(autouse=True, scope="session")
def _shut_network() -> Iterator[None]:
    """Let no test out of this machine: the broker of the tests is the simulator."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", _guarded(socket.socket.connect))
        patch.setattr(socket.socket, "connect_ex", _guarded(socket.socket.connect_ex))
        patch.setattr(socket, "getaddrinfo", _guarded_lookup(socket.getaddrinfo))
        yield


def _guarded(connect: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(self: socket.socket, address: Any) -> Any:
        if self.family != socket.AF_UNIX:
            _refuse_strangers(address[0])
        return connect(self, address)

    return guarded


def _guarded_lookup(look_up: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(host: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_strangers(host)
        return look_up(host, *args, **kwargs)

    return guarded


def _refuse_strangers(host: str | bytes | None) -> None:
    name = host.decode() if isinstance(host, bytes) else host
    if name in (None, "", "localhost"):
        return
    try:
        is_ours = ipaddress.ip_address(name.split("%")[0]).is_loopback
    except ValueError:
        is_ours = False
    if not is_ours:
        # not an Exception: no retry loop may swallow it
        pytest.fail(f"a test tried to reach {name}: tests talk to this machine only")


@pytest.fixture(scope="session")
def django_db_modify_db_settings() -> Iterator[None]:
    """PostgreSQL of our own, from the first test that needs a database to the last of the session."""
    if not settings.HAS_OWN_DATABASE:
        yield
        return
    server = embedded.Postgres(HOME, durable=False)
    server.start()
    yield
    server.stop()


@pytest.fixture(autouse=True, scope="session")
def _seeded() -> Iterator[None]:
    """Bring back the rows that migrations wrote, after each test that empties the tables: the order of tests varies."""
    orders_seed = importlib.import_module("orders.migrations.0002_seed")
    sources = importlib.import_module("notify.migrations.0002_marks").SOURCES

    def seed(sender: Any, **_: Any) -> None:
        if sender.label == "desk":
            orders_seed.seed(apps, None)
            for source, model in sources.items():
                newest = apps.get_model(*model).objects.aggregate(newest=Max("pk"))["newest"] or 0
                position = {"done_id": newest, "seen_id": newest, "seen_at": timezone.now()}
                OutboxCursor.objects.get_or_create(source=source, defaults=position)
            kill_switch.ensure_exists(clock.now())

    post_migrate.connect(seed)
    yield
    post_migrate.disconnect(seed)


@pytest.fixture(scope="session")
def redis_server() -> Iterator[None]:
    if not settings.HAS_OWN_REDIS:
        yield
        return
    server = embedded.Redis(HOME, durable=False)
    server.start()
    yield
    server.stop()


@pytest.fixture
def store(redis_server: None) -> Iterator[redis.Redis]:
    """The shared Redis, empty of what is ours before and after."""
    with settings.REDIS_CLIENT() as client:
        _clear(client)
        yield client
        _clear(client)


def _clear(client: redis.Redis) -> None:
    if settings.HAS_OWN_REDIS:
        client.flushall()
        return
    # somebody's own server: only what a rehearsal wrote
    for pattern in ("aegis:sim:*", "aegis:*:sim:*"):
        for key in client.scan_iter(pattern):
            client.delete(key)


@pytest.fixture
def clock_at() -> Iterator[Callable[[datetime | str], datetime]]:
    """Set the market's time for this process and the workers: `clock_at("2026-11-23 15:19:59")`, in Korea."""

    def set_clock(moment: datetime | str, *, speed: float = 1.0) -> datetime:
        if isinstance(moment, str):
            moment = datetime.fromisoformat(moment).replace(tzinfo=KST)
        clock.set_now(moment, speed=speed)
        return moment

    yield set_clock
    (HOME / "clock.json").unlink(missing_ok=True)


@pytest.fixture
def simulator(
    clock_at: Callable[[datetime | str], datetime], monkeypatch: pytest.MonkeyPatch, settings: Any
) -> Iterator[Simulator]:
    """A simulated broker on an ordinary morning, which the settings of this process and its workers name.

    Its crowd stands still until `simulator.step()`, so that a test alone moves prices.
    """
    clock_at(ORDINARY_MORNING)
    with serve(seed=1, ticking=False) as running:
        settings.KIS_ENVIRONMENT = settings.KIS_ENVIRONMENT.at(running.url)
        settings.KIS_CALLS_PER_SECOND = settings.KIS_LEDGER_CALLS_PER_SECOND = (
            1_000  # the throttle has tests of its own
        )
        monkeypatch.setenv("AEGIS_SIMULATOR_URL", running.url)
        factory.reset()
        yield running
        factory.reset()


@pytest.fixture
def broker(simulator: Simulator, store: redis.Redis) -> Broker:
    """The real client of the real broker package, talking to `simulator`."""
    return factory.broker()


@pytest.fixture
def workers(transactional_db: None, store: redis.Redis, tmp_path: Path) -> Iterator[Workers]:
    """Starts real Celery workers on the test database: `workers.start("orders")` returns when it answers."""
    # tests of migrations make the tables anew: workers would take the database for an older one, and halt
    database_age.state_path().unlink(missing_ok=True)
    with Workers(tmp_path) as running:
        yield running
