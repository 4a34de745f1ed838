"""A whole day in a house of its own, as a newcomer plays it; and the same with the plug pulled."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from config.env import BASE_DIR

SECONDS = 150.0


class Day:
    """`manage.py demo` in a home of its own."""

    def __init__(self, home: Path, ports: dict[str, str]) -> None:
        self._home = home
        outer = {name: value for name, value in os.environ.items() if name not in ("DATABASE_URL", "REDIS_URL")}
        ours = {"DJANGO_SETTINGS_MODULE": "config.settings", "AEGIS_LANGUAGE": "en", "AEGIS_HOME": str(home)}
        self._process = subprocess.Popen(
            [sys.executable, str(BASE_DIR / "manage.py"), "demo"],
            env=outer | ours | ports,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            start_new_session=True,
        )
        self.said: list[str] = []

    def wait_for(self, words: str) -> None:
        """Read on until a line holds `words`."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self.said.append(line.rstrip())
            if words in line:
                return
        pytest.fail("\n".join([f"no word of {words!r} in:", *self.said]))

    def finish(self) -> int:
        rest, _ = self._process.communicate(timeout=SECONDS)
        self.said += rest.splitlines()
        return self._process.returncode

    def pull_the_plug(self, *names: str) -> None:
        """Kill processes of the house by the numbers it recorded."""
        for name in names:
            record = self._home / "run" / f"{name}.json"
            os.kill(json.loads(record.read_text(encoding="ascii"))["pid"], signal.SIGKILL)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            self._process.wait(60)
        if self._process.stdout is not None:
            self._process.stdout.close()


@pytest.fixture
def play(tmp_path: Path) -> Iterator[type[Day]]:
    started: list[Day] = []
    probes = [socket.socket() for _ in range(3)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    names = ("AEGIS_WEB_PORT", "AEGIS_FLOWER_PORT", "AEGIS_SIMULATOR_PORT")
    ports = {name: str(probe.getsockname()[1]) for name, probe in zip(names, probes, strict=True)}
    for probe in probes:
        probe.close()

    def begin() -> Day:
        started.append(Day(tmp_path / "a home", ports))
        return started[-1]

    yield begin  # type: ignore[misc]
    for day in started:
        day.end()


def last_line(day: Day) -> str:
    return next(line for line in reversed(day.said) if line)


def test_the_scripted_day_ends_with_equal_ledgers_and_so_does_the_next(play) -> None:
    first = play()
    assert first.finish() == 0, "\n".join(first.said)
    assert re.fullmatch(r"LEDGER EQUAL orders=\d+ executions=\d+ holdings=3 cash=\d+", last_line(first))
    report = "\n".join(first.said)
    acts = ("is synced", "on NXT before the opening", "rests at", "times and filled", "at last at market", "filled in")
    acts += ("blacklisted buy is refused", "sell_stop: sold", "sell_emergency: sold", "an external order", "noticed")
    acts += ("refusals in a row trip the switch", "resumes", "on NXT after the close")
    for act in acts:
        assert act in report
    second = play()
    assert second.finish() == 0, "\n".join(second.said)
    assert last_line(second).startswith("LEDGER EQUAL")


def test_the_day_survives_the_death_of_every_worker(play) -> None:
    day = play()
    day.wait_for("rests at")
    time.sleep(4)  # the chase is in the middle of its steps
    day.pull_the_plug("worker-orders", "stream", "beat", "worker-sync", "web", "flower")
    assert day.finish() == 0, "\n".join(day.said)
    assert last_line(day).startswith("LEDGER EQUAL")


def test_the_day_survives_the_death_of_the_exchange_itself(play) -> None:
    day = play()
    day.wait_for("times and filled")
    day.pull_the_plug("simulator")
    code = day.finish()
    # the script's own hand on the telephone may find the line dead; then it says so, and nothing is lost
    assert code in (0, 1)
    again = play()
    assert again.finish() == 0, "\n".join(again.said)
    assert last_line(again).startswith("LEDGER EQUAL")
