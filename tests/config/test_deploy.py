"""Containers and systemd units start what the house is made of, no more, no less."""

import configparser
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from django.core.management import CommandError, call_command

from config.env import BASE_DIR
from ops import processes
from ops.management.commands import process
from tests.desk.botapi import TOKEN

DEPLOY = BASE_DIR / "deploy"


@pytest.fixture
def names(settings: Any) -> set[str]:
    """Every process there can be."""
    settings.TELEGRAM_TOKEN = TOKEN
    return {program.name for program in processes.all_programs()}


@pytest.fixture
def compose() -> dict[str, Any]:
    return dict(yaml.safe_load((BASE_DIR / "compose.yaml").read_text(encoding="utf-8")))


def test_every_process_has_its_container(compose: dict[str, Any], names: set[str]) -> None:
    commands = [service.get("command", [""]) for service in compose["services"].values()]
    started = {words[1] for words in commands if words[0] == "process"}
    assert started == names | {"simulator"}


def test_no_container_starts_before_the_database_is_prepared(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        if service.get("command", [""])[0] == "process":
            assert service["depends_on"] == {"prepare": {"condition": "service_completed_successfully"}}, name


def test_nothing_listens_to_the_world_and_no_secret_is_in_the_file(compose: dict[str, Any]) -> None:
    text = (BASE_DIR / "compose.yaml").read_text(encoding="utf-8")
    for service in compose["services"].values():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
    assert re.findall(r"PASSWORD: *\"?(?!\$\{)[^\"$ {?]", text.replace("PASSWORD:?", "")) == []


def test_redis_in_a_container_forgets_nothing(compose: dict[str, Any]) -> None:
    command = " ".join(compose["services"]["redis"]["command"])
    assert "maxmemory-policy noeviction" in command
    assert "appendonly yes" in command
    assert "--requirepass" not in command


def test_secrets_and_databases_stay_out_of_the_image() -> None:
    left_out = (BASE_DIR / ".dockerignore").read_text(encoding="utf-8").split()
    assert {".env", ".aegis", ".git"} <= set(left_out)


def unit(name: str) -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, comment_prefixes=("#",))
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(DEPLOY / name, encoding="utf-8")
    return parser


def test_every_process_has_its_unit(names: set[str]) -> None:
    text = (DEPLOY / "aegis.target").read_text(encoding="utf-8")
    assert set(re.findall(r"aegis@([\w-]+)\.service", text)) == names


@pytest.mark.parametrize("path", sorted(DEPLOY.glob("*.service")), ids=lambda path: path.name)
def test_a_unit_runs_a_command_there_is_as_nobody_special(path: Path) -> None:
    service = unit(path.name)["Service"]
    words = service["ExecStart"].split()
    assert words[0].endswith(".venv/bin/python")
    assert words[2] in ("prepare", "process")
    assert service["User"] == "aegis"


def test_a_worker_has_time_to_end_its_tasks(compose: dict[str, Any]) -> None:
    assert float(unit("aegis@.service")["Service"]["TimeoutStopSec"]) > processes.GRACEFUL_STOP_SECONDS
    for name in ("worker-urgent", "worker-orders", "worker-sync", "stream", "telegram"):
        assert float(compose["services"][name]["stop_grace_period"].removesuffix("s")) > processes.GRACEFUL_STOP_SECONDS


def test_a_process_is_called_by_its_name_or_refused(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("process")
    listed = capsys.readouterr().out.split()
    assert {"web", "worker-orders", "notifier", "simulator"} <= set(listed)
    with pytest.raises(CommandError, match="worker-orders"):
        call_command("process", "worker")


def test_it_becomes_the_process_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[Any] = []
    monkeypatch.setattr(process.os, "execve", lambda *words: became.append(words))
    call_command("process", "flower")
    ((program, words, environment),) = became
    assert program == sys.executable
    assert "flower" in words
    assert environment["FLOWER_BASIC_AUTH"].startswith("admin:")
    assert not any(environment["FLOWER_BASIC_AUTH"] in word for word in words)


@pytest.mark.django_db(transaction=True)
def test_preparing_twice_changes_nothing(redis_server: None, capsys: pytest.CaptureFixture[str]) -> None:
    call_command("prepare")
    assert "admin" in capsys.readouterr().out
    call_command("prepare")
    assert capsys.readouterr().out == ""


def test_systemd_finds_no_fault_with_the_units() -> None:
    checked = subprocess.run(
        ["sh", "-c", "command -v systemd-analyze >/dev/null || exit 77; systemd-analyze verify --man=no \"$@\"", "sh",
         *map(str, DEPLOY.glob("aegis*"))], capture_output=True, text=True, check=False,
    )  # fmt: skip
    if checked.returncode == 77:
        pytest.skip("no systemd here to ask")
    faults = [line for line in checked.stderr.splitlines() if line.startswith(str(DEPLOY))]
    assert faults == []
