"""The whole house: `run` from its checks to its end, in a home of its own."""

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command

from config.env import BASE_DIR, HOME
from ops import embedded, preflight
from ops.embedded import CannotStart
from ops.models import Installation
from ops.processes import ADMIN
from tests.processes import is_alive

START_SECONDS = 90.0
OURS = {"DJANGO_SETTINGS_MODULE": "config.settings", "AEGIS_LANGUAGE": "en"}
PROCESSES = {
    "simulator",
    "web",
    "worker-urgent",
    "worker-orders",
    "worker-sync",
    "stream",
    "beat",
    "flower",
    "notifier",
}


_numbers = itertools.count()


class Run:
    """`manage.py run` as an operator has it."""

    def __init__(self, home: Path, **variables: str) -> None:
        self.home = home
        self.log = home.with_name(f"run-{next(_numbers)}.log")
        outer = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, str(BASE_DIR / "manage.py"), "run"],
                env=outer | OURS | {"AEGIS_HOME": str(home)} | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_up(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while "AEGIS runs" not in self.text():
            assert self.process.poll() is None, self.text()
            assert time.monotonic() < deadline, self.text()
            time.sleep(0.1)

    def text(self) -> str:
        return self.log.read_text(encoding="utf-8", errors="replace")

    def processes(self) -> dict[str, int]:
        records = (self.home / "run").glob("*.json")
        return {record.stem: json.loads(record.read_text(encoding="ascii"))["pid"] for record in records}

    def servers(self) -> list[int]:
        return [pid for pid in (embedded.Postgres(self.home).pid(), embedded.Redis(self.home).pid()) if pid]


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
    finally:
        for probe in probes:
            probe.close()


@pytest.fixture(scope="module")
def ports() -> dict[str, str]:
    names = ("AEGIS_WEB_PORT", "AEGIS_FLOWER_PORT", "AEGIS_SIMULATOR_PORT")
    return {name: str(port) for name, port in zip(names, free_ports(3), strict=True)}


@pytest.fixture
def start(ports: dict[str, str]) -> Iterator[Callable[..., Run]]:
    """Starts `manage.py run` in a home of its own; whatever it still runs is ended with the test."""
    home = HOME / "a house"  # the space is meant
    shutil.rmtree(home, ignore_errors=True)
    runs: list[Run] = []

    def start(**variables: str) -> Run:
        runs.append(Run(home, **ports | variables))
        return runs[-1]

    yield start
    for run in runs:
        run.process.terminate()
    for run in runs:
        run.process.wait(60)
    for server in (embedded.Postgres(home), embedded.Redis(home)):
        server.stop()
    shutil.rmtree(home, ignore_errors=True)
    shutil.rmtree(embedded.socket_dir(home), ignore_errors=True)


def test_a_house_is_built_used_killed_taken_up_again_and_ended(
    start: Callable[..., Run], ports: dict[str, str]
) -> None:
    first = start()
    first.wait_until_up()
    running = first.processes()
    assert set(running) == PROCESSES
    assert "password" in first.text()
    _check_pages(ports, (first.home / "flower_password").read_text(encoding="ascii"))

    refused = start()
    assert refused.process.wait(30) == 1
    assert f"already running here (process {first.process.pid})" in refused.text()

    first.process.kill()
    first.process.wait()
    servers = first.servers()
    assert len(servers) == 2

    second = start()
    second.wait_until_up()
    assert not any(is_alive(pid) for pid in running.values())
    assert second.servers() == servers
    assert "Admin user" not in second.text()
    ended = second.processes()
    second.process.send_signal(signal.SIGTERM)
    assert second.process.wait(60) == 0
    assert "Traceback" not in second.text()
    assert not any(is_alive(pid) for pid in [*ended.values(), *servers])


def _check_pages(ports: dict[str, str], password: str) -> None:
    web, flower = (f"http://127.0.0.1:{ports[name]}" for name in ("AEGIS_WEB_PORT", "AEGIS_FLOWER_PORT"))
    with httpx.Client(trust_env=False, follow_redirects=True, timeout=20) as browser:
        assert browser.get(f"{web}/admin/").status_code == 200
        assert browser.get(f"{flower}/api/workers").status_code == 401
        deadline = time.monotonic() + START_SECONDS
        seen: set[str] = set()
        while seen != {"urgent", "orders", "sync", "stream"}:
            assert time.monotonic() < deadline, seen
            workers = browser.get(f"{flower}/api/workers", params={"refresh": "1"}, auth=("admin", password))
            seen = {name.split("@")[0] for name in workers.json()}
    assert settings.SECRET_KEY not in workers.text
    assert "KIS_" not in workers.text


def test_a_taken_port_is_named_with_its_variable_and_nothing_stays(start: Callable[..., Run]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        run = start(AEGIS_FLOWER_PORT=port)
        assert run.process.wait(30) == 1
    assert len(run.text().strip().splitlines()) == 1
    assert port in run.text()
    assert "AEGIS_FLOWER_PORT" in run.text()
    assert run.servers() == []


@pytest.mark.parametrize(
    ("name", "url"),
    [
        ("DATABASE_URL", "postgres://me:hidden@127.0.0.1:1/nowhere"),
        ("REDIS_URL", "redis://:hidden@127.0.0.1:1/0"),
    ],
)
def test_a_server_that_does_not_answer_is_named_and_nothing_stays(
    start: Callable[..., Run], name: str, url: str
) -> None:
    run = start(**{name: url})
    assert run.process.wait(60) == 1
    assert len(run.text().strip().splitlines()) == 1
    assert name in run.text()
    assert "hidden" not in run.text()
    assert run.servers() == []


@pytest.mark.django_db
def test_a_database_stays_with_its_account() -> None:
    preflight.check_installation()
    known = Installation.objects.create(environment="paper", account="12345678-01")
    with pytest.raises(CannotStart, match="12345678-01"):
        preflight.check_installation()
    known.environment, known.account = settings.KIS_ENVIRONMENT.name, str(settings.KIS_CREDENTIALS.account)
    known.save()
    preflight.check_installation()


@pytest.mark.django_db(transaction=True)
def test_a_database_of_an_older_version_is_known_before_it_is_migrated() -> None:
    Installation.objects.create(environment="paper", account="12345678-01")
    call_command("migrate", "config", "0001", verbosity=0)
    try:
        with pytest.raises(CannotStart, match="12345678-01"):
            preflight.check_installation()
    finally:
        call_command("migrate", verbosity=0)


@pytest.mark.django_db
def test_the_first_admin_is_made_once_and_his_password_works() -> None:
    said: list[str] = []
    preflight.make_admin(said.append)
    preflight.make_admin(said.append)
    (line,) = said
    user = get_user_model().objects.get(username=ADMIN)
    assert any(user.check_password(word.strip("(),;.")) for word in line.split())


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgres://me:p%40ss@host:5432/name", "postgres://me:***@host:5432/name"),
        ("redis://:word@host/0", "redis://:***@host/0"),
        ("unix:///tmp/redis.sock", "unix:///tmp/redis.sock"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert preflight.mask_password(url) == shown
