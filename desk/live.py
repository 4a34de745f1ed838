"""Keeps open dashboards current: one thread renders for all of them, and each is sent what changed.

A viewer costs a thread that sleeps and no database connection; the rendering thread has one, and ends
with its last viewer.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db import DatabaseError, connection

log = logging.getLogger(__name__)

# of the web process's threads, so that pages are answered whoever watches
VIEWERS_AT_MOST = 16
STOP_SECONDS = 5.0

Parts = dict[str, str]


class TooManyViewers(Exception):
    """As many dashboards are open as this process serves."""


@dataclass(slots=True)
class Edition:
    """What was rendered last for one language, and how many read it."""

    viewers: int = 0
    number: int = 0
    parts: Parts = field(default_factory=dict)


class Broadcast:
    """Renders the page's parts every `every_seconds` while anybody watches."""

    def __init__(self, render: Callable[[str], Parts], *, every_seconds: float = 1.0) -> None:
        self._render = render
        self._every_seconds = every_seconds
        self._changed = threading.Condition()
        self._editions: dict[str, Edition] = {}
        self._thread: threading.Thread | None = None

    def watch(self, language: str, *, seconds: float) -> Iterator[Parts]:
        """Yield what changed, all of it at first, an empty dict where nothing did; end after `seconds`.

        Raises TooManyViewers. It is quiet while nothing can be rendered: a page that hears nothing is stale.
        """
        with self._viewer(language) as edition:
            ends_at, seen, sent = time.monotonic() + seconds, 0, Parts()
            while time.monotonic() < ends_at:
                number, parts = self._next(edition, seen)
                if number != seen:
                    yield {name: html for name, html in parts.items() if sent.get(name) != html}
                seen, sent = number, parts

    def _next(self, edition: Edition, seen: int) -> tuple[int, Parts]:
        """Return the edition after number `seen`; the same again where none comes for a while."""
        with self._changed:
            self._changed.wait_for(lambda: edition.number != seen, timeout=self._every_seconds * 2)
            return edition.number, edition.parts

    @contextmanager
    def _viewer(self, language: str) -> Iterator[Edition]:
        with self._changed:
            if sum(edition.viewers for edition in self._editions.values()) >= VIEWERS_AT_MOST:
                raise TooManyViewers
            edition = self._editions.setdefault(language, Edition())
            edition.viewers += 1
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="desk-live", daemon=True)
                self._thread.start()
        try:
            yield edition
        finally:
            with self._changed:
                edition.viewers -= 1
                if not edition.viewers:
                    self._editions.pop(language, None)
                self._changed.notify_all()

    def _run(self) -> None:
        try:
            while languages := self._wanted():
                for language in languages:
                    self._publish(language)
                with self._changed:
                    self._changed.wait_for(lambda: not self._editions, timeout=self._every_seconds)
        finally:
            connection.close()

    def _wanted(self) -> list[str]:
        """Return the languages that are read; nobody reads: this thread is not the one any more."""
        with self._changed:
            if not self._editions:
                self._thread = None
            return list(self._editions)

    def _publish(self, language: str) -> None:
        try:
            parts = self._render(language)
        except DatabaseError as error:
            log.warning("the dashboard cannot be rendered: %s", error)
            connection.close()
            return
        except Exception:  # a fault of one part must not end the thread that all the others wait for
            log.exception("the dashboard cannot be rendered")
            return
        with self._changed:
            if (edition := self._editions.get(language)) is not None:
                edition.number, edition.parts = edition.number + 1, parts
                self._changed.notify_all()
