"""Keeps processes running: starts them, restarts those that die, and ends all of them and no others.

A process that dies is restarted, after a pause that grows; the others go on. honcho's manager ends every process when
one ends, but an order worker must not stop because a dashboard did.
"""

import contextlib
import fcntl
import itertools
import json
import os
import queue
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TextIO

import psutil
from django.utils.translation import gettext as _

from ops.fork_server import ForkedProcess, ForkServer

POLL_SECONDS = 0.2
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
# after a process has run this long, its next restart waits for the first pause only
HEALTHY_SECONDS = 60.0
LEFTOVER_SECONDS = 20.0
CLOCK_CORRECTION_SECONDS = 10.0
REMEMBERED_LINES = 20
# ANSI codes of the names in the terminal, one after another
COLOURS = ("36", "33", "32", "35", "31", "34", "36;1", "33;1", "32;1", "35;1", "31;1", "34;1")

Say = Callable[[str], None]


class AlreadyRunning(Exception):
    """Another supervisor holds this home; `pid` is its process id, None if it has not written it yet."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(pid)
        self.pid = pid


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep running: a Python command, with variables that are added to the environment.

    Lower `stop_rank` ends first; `grace_seconds` is how long it may take to end.
    """

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_rank: int = 0
    grace_seconds: float = 10.0


@dataclass(frozen=True, slots=True)
class _Event:
    """What happened to a process: it started (`data`: its process id), wrote a line (bytes), or ended (exit code)."""

    kind: Literal["start", "line", "stop"]
    name: str
    data: Any


class _Member:
    """A program and its current process."""

    def __init__(
        self,
        program: Program,
        colour: str,
        events: "queue.Queue[_Event]",
        pause: float,
        fork_server: ForkServer,
    ) -> None:
        self.program = program
        self.colour = colour
        self.pause = pause
        self.due_at: float | None = None
        self.started_at = 0.0
        self.last_lines: deque[str] = deque(maxlen=REMEMBERED_LINES)
        self._events = events
        self._fork_server = fork_server
        self._is_sigterm_sent = False
        self._child: ForkedProcess | None = None
        self._thread: threading.Thread | None = None

    def launch(self) -> None:
        self.due_at = None
        self.started_at = time.monotonic()
        self._child = None
        self._is_sigterm_sent = False
        self._thread = threading.Thread(target=self._run, name=f"supervise-{self.program.name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        """Start the process, and put its lines and its end into the queue. It ends if this process dies."""
        try:
            child = self._fork_server.fork(self.program.argv, self.program.environment)
        except OSError as error:  # the machine is out of memory or processes, or the fork server has ended
            self._put("line", f"{error}\n".encode())
            self._put("stop", error.errno or 1)
            return
        self._child = child
        self._put("start", child.pid)
        assert child.stdout is not None
        with child.stdout as lines:
            for line in lines:
                self._put("line", line)
        self._put("stop", child.wait())

    def _put(self, kind: Literal["start", "line", "stop"], data: Any) -> None:
        self._events.put(_Event(kind, self.program.name, data))

    @property
    def pid(self) -> int | None:
        child = self._child
        return child.pid if child and child.poll() is None else None

    @property
    def is_over(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def kill_leftover_children(self) -> None:
        """Kill the rest of a dead process's group: its children would hold its pipe and its port."""
        child = self._child
        if child and child.poll() is not None and not self.is_over:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    def send_sigterm(self) -> None:
        """Send one SIGTERM, as soon as there is a process; a second would ask for an immediate end."""
        pid = self.pid
        if pid is not None and not self._is_sigterm_sent:
            self._is_sigterm_sent = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


class _Printer:
    """Prints the lines of the processes, each with the name of its process. The lines have their own time."""

    def __init__(self, output: TextIO) -> None:
        self._output = output
        self._has_colours = output.isatty()
        self.width = 0

    def write(self, name: str, colour: str, line: str) -> None:
        prefix = f" {name.ljust(self.width)} | "
        if self._has_colours:
            prefix = f"\033[{colour}m{prefix}\033[0m"
        # a closed terminal or a full disk is no reason to stop trading
        with contextlib.suppress(OSError):
            print(prefix + line, file=self._output, flush=True)


class Supervisor:
    """The processes of one home, forked by `fork_server`. `say` reports to the operator, `output` gets their lines."""

    def __init__(
        self,
        run_dir: Path,
        *,
        fork_server: ForkServer,
        output: TextIO,
        say: Say,
        check_servers: Callable[[], None] | None = None,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._run_dir = run_dir
        self._say = say
        self._check_servers = check_servers
        self._fork_server = fork_server
        self._first_pause = first_pause_seconds
        self._events: queue.Queue[_Event] = queue.Queue()
        self._printer = _Printer(output)
        self._colours = itertools.cycle(COLOURS)
        self._members: dict[str, _Member] = {}
        self._starting = threading.Lock()
        self._stopping = threading.Event()
        self._kills_remaining = threading.Event()
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name="supervisor", daemon=True)

    def start(self, programs: Sequence[Program]) -> None:
        with self._starting:  # the thread may be checking the members that were started before
            for program in programs:
                member = _Member(program, next(self._colours), self._events, self._first_pause, self._fork_server)
                self._members[program.name] = member
                self._printer.width = max(self._printer.width, len(program.name))
                member.launch()
        if not self._thread.is_alive():
            self._thread.start()

    def pid(self, name: str) -> int | None:
        return self._members[name].pid

    def last_line(self, name: str) -> str:
        """Return the last line that a process wrote, or an empty string."""
        lines = self._members[name].last_lines
        return lines[-1] if lines else ""

    @property
    def is_supervising(self) -> bool:
        """Whether the thread that restarts processes is alive. Only its caller can notice that it failed."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End every process, by rank, and kill those that take too long. Return when all have ended."""
        with self._starting:
            self._stopping.set()
        for rank in sorted({member.program.stop_rank for member in self._members.values()}):
            self._end([member for member in self._members.values() if member.program.stop_rank == rank])
        self._finished.set()
        if self._thread.is_alive():
            self._thread.join()

    def kill_remaining(self) -> None:
        """Kill the processes that still run, after a second request to end."""
        self._kills_remaining.set()

    def _end(self, members: Sequence[_Member]) -> None:
        started_at = time.monotonic()
        while running := [member for member in members if not member.is_over]:
            for member in running:
                member.send_sigterm()
                if self._kills_remaining.is_set() or time.monotonic() - started_at > member.program.grace_seconds:
                    member.kill()
                member.kill_leftover_children()
            time.sleep(0.05)
        for member in members:
            self._record(member.program.name).unlink(missing_ok=True)

    def _supervise(self) -> None:
        while not (self._finished.is_set() and self._events.empty()):
            with contextlib.suppress(queue.Empty):
                self._handle(self._events.get(timeout=POLL_SECONDS))
            with self._starting:
                if not self._stopping.is_set():
                    self._check_members()

    def _check_members(self) -> None:
        for member in self._members.values():
            member.kill_leftover_children()
            if member.due_at is not None and time.monotonic() >= member.due_at:
                member.launch()
        if self._check_servers:
            self._check_servers()

    def _handle(self, event: _Event) -> None:
        member = self._members[event.name]
        match event.kind:
            case "line":
                line = event.data.decode("utf-8", "replace").rstrip()
                member.last_lines.append(line)
                self._printer.write(event.name, member.colour, line)
            case "start":
                write_pid_record(self._record(event.name), event.data)
            case "stop":
                self._record(event.name).unlink(missing_ok=True)
                if not self._stopping.is_set():
                    self._plan_restart(member, event.data)

    def _plan_restart(self, member: _Member, code: int) -> None:
        if time.monotonic() - member.started_at > HEALTHY_SECONDS:
            member.pause = self._first_pause
        message = _("{name} ended ({how}); it starts again in {seconds:g} s")
        message = message.format(name=member.program.name, how=_exit_reason(code), seconds=member.pause)
        member.due_at = time.monotonic() + member.pause
        member.pause = min(member.pause * 2, LONGEST_PAUSE_SECONDS)
        # the terminal may be closed, or the disk of the output full
        with contextlib.suppress(OSError):
            self._say(message)

    def _record(self, name: str) -> Path:
        return self._run_dir / f"{name}.json"


def _exit_reason(code: int) -> str:
    if code >= 0:
        return _("exit code {code}").format(code=code)
    return signal.Signals(-code).name


@contextlib.contextmanager
def sole_supervisor(run_dir: Path) -> Iterator[None]:
    """Lock `run_dir` for this process; the kernel unlocks it when the process dies. Raises AlreadyRunning."""
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = os.open(run_dir / "supervisor", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pid_text = os.pread(lock, 32, 0).decode("ascii").strip()
            raise AlreadyRunning(int(pid_text) if pid_text else None) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode("ascii"), 0)
        yield
        os.ftruncate(lock, 0)
    finally:
        os.close(lock)


def write_pid_record(record: Path, pid: int) -> None:
    """Record `pid` with its creation time, so that a later start recognises a reused process id."""
    # ignore write errors, such as a full disk: the parent-death signal still ends a process without a record
    with contextlib.suppress(psutil.NoSuchProcess, OSError):
        created = psutil.Process(pid).create_time()
        draft = record.with_suffix(".new")
        draft.write_text(json.dumps({"pid": pid, "created": created}), encoding="ascii")
        draft.replace(record)


def orphaned_processes(run_dir: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the name and process of each program that a killed supervisor of this home left running."""
    for record in sorted(run_dir.glob("*.json")):
        try:
            recorded = json.loads(record.read_text(encoding="ascii"))
            process = psutil.Process(recorded["pid"])
            # a clock correction moves creation times; a process id is not reused within seconds
            is_same = abs(process.create_time() - recorded["created"]) < CLOCK_CORRECTION_SECONDS
            if is_same and process.status() != psutil.STATUS_ZOMBIE:
                yield record.stem, process
        except (ValueError, KeyError, psutil.Error):
            continue


def end_leftovers(run_dir: Path, say: Say) -> None:
    """End the processes that a killed supervisor left, by SIGTERM first, and delete their records."""
    orphans = list(orphaned_processes(run_dir))
    for name, process in orphans:
        say(_("{name} (process {pid}) still runs from before: ending it").format(name=name, pid=process.pid))
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + LEFTOVER_SECONDS
    for _name, process in orphans:
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.05)
    for record in run_dir.glob("*.json"):
        record.unlink(missing_ok=True)
