"""A world per history: a fresh exchange, and a transaction that is rolled back."""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction

from aegis.broker import Broker
from kis import client, clock, wiring
from kis.auth import Tokens
from kis.simulator.server import Simulator
from orders import routine
from tests.conftest import ORDINARY_MORNING
from tests.histories.history import History, play

Play = Callable[[Sequence[tuple[Any, ...]]], dict[str, list[str]]]


@pytest.fixture
def tally() -> Counter[str]:
    return Counter(histories=0, overfills=0, duplicate_orders=0, ledger_differs=0)


@pytest.fixture
def play_history(
    db: None, broker: Broker, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, tally: Counter[str]
) -> Play:
    """Play one history in a world of its own and return what went wrong."""
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(wiring, "Tokens", partial(Tokens, sleep=lambda seconds: None))
    routine.sync_calendar(broker, clock.now)

    def run(actions: Sequence[tuple[Any, ...]]) -> dict[str, list[str]]:
        clock.set_now(ORDINARY_MORNING)
        simulator.clear_faults()
        simulator.command("POST", "/simulator/reset", {"seed": 1})
        history = History(simulator, broker)
        monkeypatch.setattr(simulator._server.feed, "_send_notice", history.hear_from)
        world = transaction.atomic()
        world._from_testcase = True  # no caller's: nothing of it is ever committed, as of Django's own test cases
        with world:
            wrongs = play(history, actions)
            transaction.set_rollback(True)
        tally["histories"] += 1
        tally.update({kind: bool(found) for kind, found in wrongs.items()})
        return wrongs

    return run


@pytest.fixture
def report(tally: Counter[str]) -> Any:
    """Add the tally to the JSON that the command looks for, beside others who play at the same time."""
    yield
    if path := os.environ.get("HISTORIES_REPORT"):
        with Path(path).open("a+") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            told = Counter(json.loads(file.read() or "{}"))
            file.truncate(0)
            file.write(json.dumps({kind: told[kind] + count for kind, count in tally.items()}) + "\n")
