"""Open dashboards: sent what changed, rendered once for all, and no thread or connection left behind."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from django.db import DatabaseError, connection
from django.test import Client
from django.urls import reverse

from desk import live
from desk.live import Broadcast, Parts, TooManyViewers


def wait_for(happened: Callable[[], bool], seconds: float = 20.0) -> None:
    gives_up_at = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < gives_up_at, "it did not happen in time"
        time.sleep(0.01)


def threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "desk-live"]


@pytest.fixture(autouse=True)
def _no_thread_stays() -> Iterator[None]:
    yield
    wait_for(lambda: not threads())


def broadcast(render: Callable[[str], Parts]) -> Broadcast:
    return Broadcast(render, every_seconds=0.02)


def test_all_parts_come_first_and_then_what_changed() -> None:
    state = {"a": "1", "b": "1"}
    with closing(broadcast(lambda language: dict(state)).watch("ko", seconds=20)) as news:
        assert next(news) == {"a": "1", "b": "1"}
        state["b"] = "2"
        wait_for(lambda: next(news) == {"b": "2"})
        assert next(news) == {}


def test_each_language_has_its_own_edition() -> None:
    running = broadcast(lambda language: {"a": language})
    with (
        closing(running.watch("ko", seconds=20)) as korean,
        closing(running.watch("en", seconds=20)) as english,
    ):
        assert next(korean) == {"a": "ko"}
        assert next(english) == {"a": "en"}
        assert len(threads()) == 1


def test_a_page_that_cannot_be_rendered_is_tried_again() -> None:
    failures: list[Exception] = [DatabaseError("gone"), RuntimeError("a bug")]

    def render(language: str) -> Parts:
        if failures:
            raise failures.pop()
        return {"a": "1"}

    with closing(broadcast(render).watch("ko", seconds=20)) as news:
        assert next(news) == {"a": "1"}


def test_nothing_is_said_while_nothing_can_be_rendered() -> None:
    def render(language: str) -> Parts:
        raise DatabaseError("gone")

    assert list(broadcast(render).watch("ko", seconds=0.2)) == []


def test_no_more_than_so_many_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "VIEWERS_AT_MOST", 1)
    running = broadcast(lambda language: {"a": "1"})
    with closing(running.watch("ko", seconds=20)) as first:
        next(first)
        with pytest.raises(TooManyViewers):
            next(running.watch("en", seconds=20))
    with closing(running.watch("en", seconds=20)) as second:
        assert next(second) == {"a": "1"}


def test_a_stream_ends_so_that_it_is_asked_for_anew() -> None:
    began = time.monotonic()
    list(broadcast(lambda language: {"a": "1"}).watch("ko", seconds=0.1))
    assert time.monotonic() - began < 20


@pytest.mark.django_db(transaction=True)
def test_a_viewer_holds_no_database_connection(admin_client: Client) -> None:
    answer = admin_client.get(reverse("live"))
    assert answer.headers["Content-Type"] == "text/event-stream"
    events = iter(answer.streaming_content)
    assert next(events) == b"retry: 1000\n\n"
    assert connection.connection is None
    answer.close()


@pytest.mark.django_db(transaction=True)
def test_the_stream_carries_the_time_and_the_parts(admin_client: Client, store) -> None:
    answer = admin_client.get(reverse("live"))
    events = iter(answer.streaming_content)
    next(events)
    first = next(events).decode()
    answer.close()
    assert '"now":' in first
    for part in ("holdings", "open_orders", "executions", "account", "basis", "health"):
        assert f'"{part}"' in first
