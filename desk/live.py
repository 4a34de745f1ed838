"""Keeps open dashboards current: one thread renders for all of them, and each is sent the parts that changed.

A viewer costs a sleeping thread, but no database connection. The rendering thread has one connection, and ends with its
last viewer.
"""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.db import DatabaseError, connection

log = logging.getLogger(__name__)

# fewer than the web process has threads, so that some stay free to answer pages
VIEWERS_AT_MOST = 16
STOP_SECONDS = 5.0

Parts = dict[str, str]


class TooManyViewers(Exception):
    """This process serves its maximum number of open dashboards."""


@dataclass(slots=True)
class Edition:
    """The parts that were rendered last for one language, and the number of their viewers."""

    viewers: int = 0
    number: int = 0
    parts: Parts = field(default_factory=dict)


class Broadcast:
    """Renders the page's parts every `every_seconds` while there are viewers."""

    def __init__(self, render: Callable[[str], Parts], *, every_seconds: float = 1.0) -> None:
        self._render = render
        self._every_seconds = every_seconds
        self._changed = threading.Condition()
        self._editions: dict[str, Edition] = {}
        self._thread: threading.Thread | None = None

    def watch(self, language: str, *, seconds: float) -> Iterator[Parts]:
        """Yield the changed parts of each rendering, at first all parts; end after `seconds`.

        A rendering without a change yields an empty dict. Nothing is yielded while rendering fails: a page that gets no
        data is shown as stale. Raises TooManyViewers.
        """
        with self._viewer(language) as edition:
            ends_at, last_number, last_parts = time.monotonic() + seconds, 0, Parts()
            while time.monotonic() < ends_at:
                number, parts = self._next(edition, last_number)
                if number != last_number:
                    yield {name: html for name, html in parts.items() if last_parts.get(name) != html}
                last_number, last_parts = number, parts

    def _next(self, edition: Edition, last_number: int) -> tuple[int, Parts]:
        """Wait for a rendering after `last_number`; return the number and the parts of the newest one."""
        with self._changed:
            self._changed.wait_for(lambda: edition.number != last_number, timeout=self._every_seconds * 2)
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
            while languages := self._viewed_languages():
                for language in languages:
                    self._publish(language)
                with self._changed:
                    self._changed.wait_for(lambda: not self._editions, timeout=self._every_seconds)
        finally:
            connection.close()

    def _viewed_languages(self) -> list[str]:
        """Return the languages with viewers. If there are none, this thread ends; the next viewer starts another."""
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
        except Exception:  # an error in one part must not end the thread that all viewers need
            log.exception("the dashboard cannot be rendered")
            return
        with self._changed:
            if (edition := self._editions.get(language)) is not None:
                edition.number, edition.parts = edition.number + 1, parts
                self._changed.notify_all()
