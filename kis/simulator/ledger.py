"""The simulator's own journal: one JSON object a line, only ever added to.

An event is written and flushed before any answer or notice about it leaves, so a killed process has
told nobody anything that its file does not hold.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

Event = dict[str, Any]


class LedgerDamaged(Exception):
    """A line in the middle of the file cannot be read: the file is not ours, or somebody edited it."""


class Ledger:
    """Without a path the events are kept in memory only."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._kept: list[Event] = []
        self.count = 0

    def replay(self) -> Iterator[Event]:
        """Yield the events of earlier runs, then open the file for more. A torn last line is dropped."""
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        whole = 0
        if self._path.exists():
            with self._path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    if not line.endswith(b"\n"):
                        break  # the process died while writing it: nobody was told
                    try:
                        event = json.loads(line)
                    except ValueError as error:
                        raise LedgerDamaged(f"{self._path}, line {number}: {error}") from error
                    whole += len(line)
                    self.count += 1
                    yield event
            with self._path.open("rb+") as file:
                file.truncate(whole)
        self._file = self._path.open("a", encoding="utf-8")

    def append(self, event: Event) -> None:
        self.count += 1
        if self._file is None:
            self._kept.append(event)
            return
        self._file.write(json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n")
        self._file.flush()

    def events(self) -> list[Event]:
        """Return every event so far."""
        if self._path is None:
            return list(self._kept)
        with self._path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
