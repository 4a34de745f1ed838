"""The simulator's own journal: one JSON object a line, only ever added to.

An event is written and flushed before any answer or notice about it leaves, so a killed process has
told nobody anything that its file does not hold. An event that cannot be written whole leaves no trace.
"""

import fcntl
import json
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

Event = dict[str, Any]

# how lines of these events begin: `event` is the first word of every line
_REQUEST, _MARK, _DAY = (f'{{"event":"{name}",'.encode() for name in ("request", "mark", "day"))


class LedgerDamaged(Exception):
    """A line in the middle of the file cannot be read: the file is not ours, or somebody edited it."""


class LedgerInUse(Exception):
    """Another simulator writes to the file."""


class Ledger:
    """Without a path the events are kept in memory only."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._size = 0
        self._kept: list[Event] = []
        self.count = 0

    def replay(self) -> Iterator[Event]:
        """Take the file and yield the events of earlier runs that a world is made of.

        A torn last line is dropped. Requests change nothing and are passed over unread; so are the marks
        of days gone by, and today's come last. Months of rehearsal are then read in seconds.
        """
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab", buffering=0)
        self._lock(self._file)
        whole = 0
        marks: list[tuple[int, bytes]] = []
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break  # the process died while writing it: nobody was told
                whole += len(line)
                self.count += 1
                if line.startswith(_REQUEST):
                    continue
                if line.startswith(_MARK):
                    marks.append((number, line))
                    continue
                if line.startswith(_DAY):
                    marks = []
                yield self._read(number, line)
        self._file.truncate(whole)
        self._size = whole
        for number, line in marks:
            yield self._read(number, line)

    def _lock(self, file: FileIO) -> None:
        """Keep the file to this process, until it ends however it may."""
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            self.close()
            raise LedgerInUse(
                f"another simulator writes to {self._path}: stop it, or name another file with --ledger"
            ) from error

    def _read(self, number: int, line: bytes) -> Event:
        try:
            event: Event = json.loads(line)
        except ValueError as error:
            raise LedgerDamaged(f"{self._path}, line {number}: {error}") from error
        return event

    def append(self, event: Event) -> None:
        """Add an event. Raises OSError when the disk is full; the file is then as it was."""
        if self._file is None:
            self._kept.append(event)
        else:
            self._write(self._file, (json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n").encode())
        self.count += 1

    def _write(self, file: FileIO, line: bytes) -> None:
        try:
            # a disk that fills up takes the beginning, and refuses the rest
            written = 0
            while written < len(line):
                written += file.write(line[written:])
        except OSError:
            file.truncate(self._size)
            raise
        self._size += len(line)

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
