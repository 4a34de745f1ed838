"""The simulator's event log: an append-only file with one JSON object per line.

An event is written and flushed before any reply or notice about it is sent, so a client never learns of an event
that the file of a killed process lacks. An event that cannot be written completely leaves no trace.
"""

import fcntl
import json
from collections.abc import Iterator
from io import FileIO
from pathlib import Path
from typing import Any

Event = dict[str, Any]

# prefixes of the lines of these events: `event` is the first key of every line
_REQUEST, _MARK, _DAY = (f'{{"event":"{name}",'.encode() for name in ("request", "mark", "day"))


class LedgerDamaged(Exception):
    """A line in the middle of the file cannot be read: the file is not a ledger, or it was edited."""


class LedgerInUse(Exception):
    """Another simulator writes to the file."""


class Ledger:
    """The event log. Without a path, events are kept in memory only."""

    def __init__(self, path: Path | None = None) -> None:
        self._path = path
        self._file: FileIO | None = None
        self._size = 0
        self._memory_events: list[Event] = []
        self.count = 0

    def replay(self) -> Iterator[Event]:
        """Lock the file and yield the events of earlier runs that rebuild a world.

        An incomplete last line is dropped. Request events change nothing and are skipped unparsed. So are the marks
        of earlier days; the marks of the last day come last. Months of rehearsal are then read in seconds.
        Raises LedgerInUse and LedgerDamaged.
        """
        if self._path is None:
            return
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("ab", buffering=0)
        self._lock(self._file)
        complete_bytes = 0
        marks: list[tuple[int, bytes]] = []
        with self._path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break  # the process died while writing it: no client was informed
                complete_bytes += len(line)
                self.count += 1
                if line.startswith(_REQUEST):
                    continue
                if line.startswith(_MARK):
                    marks.append((number, line))
                    continue
                if line.startswith(_DAY):
                    marks = []
                yield self._read(number, line)
        self._file.truncate(complete_bytes)
        self._size = complete_bytes
        for number, line in marks:
            yield self._read(number, line)

    def _lock(self, file: FileIO) -> None:
        """Lock the file until this process ends, however it ends."""
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
        """Append an event. Raises OSError if the disk is full; the file is then unchanged."""
        if self._file is None:
            self._memory_events.append(event)
        else:
            self._write(self._file, (json.dumps(event, ensure_ascii=False, separators=(",", ":")) + "\n").encode())
        self.count += 1

    def _write(self, file: FileIO, line: bytes) -> None:
        try:
            # a disk that fills up accepts the beginning of the line and rejects the rest
            written = 0
            while written < len(line):
                written += file.write(line[written:])
        except OSError:
            file.truncate(self._size)
            raise
        self._size += len(line)

    def events(self) -> list[Event]:
        """Return all events."""
        if self._path is None:
            return list(self._memory_events)
        with self._path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
