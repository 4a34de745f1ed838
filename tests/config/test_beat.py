"""Two beats, one at work."""

import time
from collections.abc import Callable

import pytest
import redis
from django_celery_beat.models import IntervalSchedule, PeriodicTask

from config.beat import LEASE_SECONDS, POLL_SECONDS, ElectedScheduler
from config.celery import app
from infra import clock
from monitor import health
from tests.workers import Workers

pytestmark = pytest.mark.django_db(transaction=True)


def wait_for(happened: Callable[[], bool], seconds: float = 60.0) -> None:
    gives_up_at = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < gives_up_at, "it did not happen in time"
        time.sleep(0.05)


@pytest.fixture
def scheduler(store: redis.Redis, monkeypatch: pytest.MonkeyPatch) -> Callable[[], tuple[ElectedScheduler, list[str]]]:
    """Makes schedulers of one periodic task, each with the list of what it sent."""
    each_second = IntervalSchedule.objects.create(every=1, period=IntervalSchedule.SECONDS)
    PeriodicTask.objects.create(name="look", task="orders.tasks.look", interval=each_second)

    def make() -> tuple[ElectedScheduler, list[str]]:
        made, sent = ElectedScheduler(app), []
        made._finalize.cancel()  # at the process's end there is no database to write to
        monkeypatch.setattr(made, "apply_async", lambda entry, **about: sent.append(entry.name))
        return made, sent

    return make


def test_of_two_only_one_sends(scheduler: Callable[[], tuple[ElectedScheduler, list[str]]]) -> None:
    (first, sent), (second, others) = scheduler(), scheduler()

    def turn() -> bool:
        first.tick()
        return second.tick() == POLL_SECONDS and len(sent) >= 2

    wait_for(turn)
    assert others == []


def test_who_ends_lets_the_other_in_at_once(scheduler: Callable[[], tuple[ElectedScheduler, list[str]]]) -> None:
    (first, sent), (second, others) = scheduler(), scheduler()
    first.tick()
    assert second.tick() == POLL_SECONDS
    first.close()
    began = time.monotonic()
    wait_for(lambda: bool(second.tick() is not None and others))
    assert time.monotonic() - began < LEASE_SECONDS
    first.tick()
    assert len(sent) <= 1


def test_who_was_paused_past_its_lease_sends_nothing_more(
    scheduler: Callable[[], tuple[ElectedScheduler, list[str]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, sent = scheduler()
    first.tick()
    before = len(sent)
    monkeypatch.setattr(first._lease, "_ends_at", float("-inf"))
    entry = next(iter(first.schedule.values()))
    first.apply_entry(entry)
    assert len(sent) == before


def test_beat_gives_a_sign_of_life(scheduler: Callable[[], tuple[ElectedScheduler, list[str]]]) -> None:
    assert health.check_beat(clock.now()) != ""
    scheduler()[0].tick()
    assert health.check_beat(clock.now()) == ""


def test_a_killed_beat_is_replaced_by_the_one_that_stands_by(workers: Workers, store: redis.Redis) -> None:
    key = "aegis:sim:beat"
    first = workers.start_beat()
    wait_for(lambda: store.get(key) is not None)
    holder = store.get(key)
    workers.start_beat(name="beat-2")
    first.kill()
    first.wait()
    wait_for(lambda: store.get(key) not in (None, holder))
    wait_for(lambda: "fencing number 2" in workers.log("beat-2"))
