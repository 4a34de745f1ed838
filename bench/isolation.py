"""An isolated AEGIS for measurements and checks on real parts: PostgreSQL, Redis, simulator, clock.

    with isolated_system() as url:  # Django is set up, the database is migrated, the market has been open for an hour
        ...

One isolated system per process, because Django reads its settings once. Child processes call `set_up_child()` first.
"""

import contextlib
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Iterator
from datetime import datetime
from multiprocessing.connection import Connection
from pathlib import Path

import httpx

MORNING = "2026-11-23T10:00:00+09:00"
OUTSIDE = ("DATABASE_URL", "REDIS_URL")


@contextlib.contextmanager
def isolated_system(**variables: str) -> Iterator[str]:
    """Start everything, yield the simulator's URL, end everything. `variables` are added to the environment."""
    os.environ |= variables
    with tempfile.TemporaryDirectory(prefix="aegis-bench-") as directory, _exchange(Path(directory)) as url:
        _set_environment(Path(directory), url)
        os.environ |= variables
        set_up_child()
        with _servers(Path(directory)):
            _prepare_database()
            yield url


def set_up_child() -> None:
    """Set up Django in this process, with the environment of the isolated system."""
    import django

    os.environ["DJANGO_SETTINGS_MODULE"] = "config.settings"
    django.setup()


def freeze_price(url: str, code: str, price: int) -> None:
    """Move a stock to `price` (won) and freeze it there until the next call."""
    body = {"price": price, "freeze": True}
    httpx.post(f"{url}/simulator/quotes/{code}", json=body, timeout=30, trust_env=False).raise_for_status()


def _set_environment(home: Path, url: str) -> None:
    """Set the environment, which child processes inherit, to the isolated system only."""
    for name in [name for name in os.environ if name.startswith(("KIS_", "AEGIS_")) or name in OUTSIDE]:
        del os.environ[name]
    os.environ |= {
        "AEGIS_HOME": str(home),
        "AEGIS_ENV_FILE": os.devnull,
        "AEGIS_SIMULATOR_URL": url,
        "AEGIS_LOG_LEVEL": "ERROR",
        # the call limit has a check of its own
        "KIS_CALLS_PER_SECOND": "100000",
    }


@contextlib.contextmanager
def _servers(home: Path) -> Iterator[None]:
    from django.conf import settings
    from django.db import connections

    from ops import embedded

    postgres, redis = embedded.Postgres(home), embedded.Redis(home)
    with contextlib.ExitStack() as exits:
        exits.callback(postgres.stop)
        postgres.start()
        postgres.create_database(settings.DATABASES["default"]["NAME"])
        exits.callback(redis.stop)
        redis.start()
        exits.callback(connections.close_all)
        yield


def _prepare_database() -> None:
    from django.core.management import call_command

    from infra import clock
    from kis.factory import broker
    from orders import periodic_sync

    clock.set_now(datetime.fromisoformat(MORNING))
    call_command("migrate", verbosity=0, interactive=False)
    periodic_sync.begin(broker(), clock.now)


@contextlib.contextmanager
def _exchange(home: Path) -> Iterator[str]:
    """Run a simulator in a process of its own, so that it takes no time of the measured process."""
    parent_end, child_end = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(child_end, home / "clock.json"))
    process.start()
    try:
        yield parent_end.recv()
    finally:
        parent_end.close()
        process.join(15)
        if process.is_alive():
            process.kill()


def _serve(pipe: Connection, clock_file: Path) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["AEGIS_CLOCK_FILE"] = str(clock_file)
    from infra import clock
    from simulator.api.server import serve

    clock.set_now(datetime.fromisoformat(MORNING))
    with serve(seed=1, rate=0, ticking=False) as simulator, contextlib.suppress(EOFError):
        pipe.send(simulator.url)
        pipe.recv()  # ends when the other side is closed
