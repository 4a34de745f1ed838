"""A world per history: a fresh exchange, and a transaction that is rolled back."""

import fcntl
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import cache, partial
from itertools import count
from pathlib import Path
from typing import Any, Protocol

import pytest
from django.db import connection, transaction
from django.test import override_settings

from aegis.broker import Broker
from infra import clock
from kis import client, factory
from kis.auth import Tokens
from market import queries, reference_data
from simulator.api.server import Simulator
from tests.conftest import ORDINARY_MORNING
from tests.histories.history import HAZARDS, WRONGS, History, play

# in so many histories each hazard has to occur so often
MANY, OFTEN = 2_000, 200
SWEEP_AFTER = 40  # histories


class Play(Protocol):
    def __call__(
        self, actions: Sequence[tuple[Any, ...]], *, chase_by: str = "cancel", tally: "Tally | None" = None
    ) -> dict[str, list[str]]: ...


class Tally:
    """How many histories were played, what went wrong in them, and how often each hazard struck."""

    def __init__(self) -> None:
        self.counts = Counter(dict.fromkeys(("histories", "raised", *WRONGS), 0))
        self.hazards = Counter(dict.fromkeys(HAZARDS, 0))

    def add(self, history: History, wrongs: dict[str, list[str]]) -> None:
        self.counts["histories"] += 1
        self.counts.update({kind: bool(found) for kind, found in wrongs.items()})
        self.hazards.update(history.hazards)


@pytest.fixture
def tally() -> Tally:
    return Tally()


@pytest.fixture
def play_history(
    transactional_db: None, broker: Broker, simulator: Simulator, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> Play:
    """Play one history in a world of its own and return what went wrong.

    No transaction stays open over many histories: the rows that they leave behind are swept away now and then.
    """
    played = count(1)
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.001)
    monkeypatch.setattr(factory, "Tokens", partial(Tokens, sleep=lambda seconds: None))
    settings.MAX_AUTO_REQUESTS_PER_MINUTE = 0  # sixteen seconds a turn: the bound has tests of its own
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    # no history changes the calendar; the last check before sending reads it in the database all the same
    monkeypatch.setattr(queries, "phases_on", cache(queries.phases_on))

    def run(
        actions: Sequence[tuple[Any, ...]], *, chase_by: str = "cancel", tally: Tally | None = None
    ) -> dict[str, list[str]]:
        clock.set_now(ORDINARY_MORNING)
        simulator.clear_faults()
        simulator.command("POST", "/simulator/reset", {"seed": 1})
        history = History(simulator, broker)
        monkeypatch.setattr(simulator._server.feed, "_send_notice", history.hear_from)
        world = transaction.atomic()
        world._from_testcase = True  # no caller's: nothing of it is ever committed, as of Django's own test cases
        with override_settings(CHASE_BY=chase_by), world:
            wrongs = play(history, actions)
            transaction.set_rollback(True)
        if next(played) % SWEEP_AFTER == 0:
            with connection.cursor() as cursor:
                cursor.execute("VACUUM")
        if tally is not None:
            tally.add(history, wrongs)
        return wrongs

    return run


@pytest.fixture
def report(tally: Tally) -> Iterator[None]:
    """Add the tally to the JSON that the command looks for, beside others who play at the same time.

    Whoever adds the last of many sees to it that no hazard was too rare for its zeros to mean anything.
    """
    yield
    if path := os.environ.get("HISTORIES_REPORT"):
        told = _added(tally, Path(path))
        rare = {name: count for name, count in told["hazards"].items() if count < OFTEN}
        if rare and told["histories"] >= max(MANY, int(os.environ["HISTORIES"])):
            pytest.fail(f"too rare in {told['histories']} histories, {OFTEN} are wanted: {rare}")


def _added(tally: Tally, path: Path) -> dict[str, Any]:
    with path.open("a+") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        told = json.loads(file.read() or "{}")
        hazards = Counter(told.pop("hazards", {})) + tally.hazards
        counts = {kind: told.get(kind, 0) + count for kind, count in tally.counts.items()}
        sums = {**counts, "hazards": {each: hazards[each] for each in HAZARDS}}
        file.truncate(0)
        file.write(json.dumps(sums) + "\n")
    return sums
