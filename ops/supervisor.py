"""Keeps processes running: starts them, starts again what dies, ends all of them and nothing else.

The pipes and the printing are honcho's. Its manager ends every process when one ends; here an order
worker must not stop because a dashboard did, so what dies comes back after a growing pause.
"""

import contextlib
import fcntl
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import psutil
from django.utils.translation import gettext as _
from honcho.colour import get_colours
from honcho.printer import Message, Printer
from honcho.process import Popen, Process

from aegis.sessions import KST

LEASH = Path(__file__).with_name("parent_death.py")
LOOK_SECONDS = 0.2
FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
# who lived this long starts with the first pause again
HEALTHY_SECONDS = 60.0
LEFTOVER_SECONDS = 20.0
CLOCK_CORRECTION_SECONDS = 10.0
REMEMBERED_LINES = 20

Say = Callable[[str], None]


class AlreadyRunning(Exception):
    """Another supervisor holds this home; `pid` where it said who it is."""

    def __init__(self, pid: int | None) -> None:
        super().__init__(pid)
        self.pid = pid


@dataclass(frozen=True, slots=True)
class Program:
    """One process to keep running. Lower `stop_rank` ends first; `grace_seconds` are for a warm end."""

    name: str
    argv: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    stop_rank: int = 0
    grace_seconds: float = 10.0


class _Leashed(Process):
    """Honcho's process: its lines become events. No shell, and a leash to this very process."""

    def __init__(self, program: Program, colour: str, directory: Path) -> None:
        command = [sys.executable, "-I", "-S", str(LEASH), str(os.getpid()), *program.argv]
        environment = os.environ | program.environment
        super().__init__(command, name=program.name, colour=colour, env=environment, cwd=directory)
        self._child_ctor = self._spawn

    @staticmethod
    def _spawn(command: Sequence[str], **options: Any) -> Popen:
        # a session of its own: Ctrl-C in the terminal reaches the supervisor alone
        return Popen(command, shell=False, stdin=subprocess.DEVNULL, **options)

    @property
    def child(self) -> "subprocess.Popen[bytes] | None":
        child: subprocess.Popen[bytes] | None = self._child
        return child


class _Member:
    """A program and its present process."""

    def __init__(
        self, program: Program, directory: Path, colour: str, events: "queue.Queue[Message]", pause: float
    ) -> None:
        self.program = program
        self.directory = directory
        self.colour = colour
        self.pause = pause
        self.due_at: float | None = None
        self.started_at = 0.0
        self.last_lines: deque[str] = deque(maxlen=REMEMBERED_LINES)
        self._events = events
        self._is_asked = False
        self._process: _Leashed | None = None
        self._thread: threading.Thread | None = None

    def launch(self) -> None:
        self.due_at = None
        self.started_at = time.monotonic()
        self._process = _Leashed(self.program, self.colour, self.directory)
        self._is_asked = False
        # the leash is tied to the thread that forks: it lives as long as its process does
        self._thread = threading.Thread(
            target=self._run, args=(self._process,), name=f"house-{self.program.name}", daemon=True
        )
        self._thread.start()

    def _run(self, process: _Leashed) -> None:
        try:
            process.run(self._events)
        except OSError as error:  # the machine has no memory or no process left to give
            self._tell("line", f"{error}\n".encode())
            self._tell("stop", {"returncode": error.errno or 1})

    def _tell(self, kind: str, data: Any) -> None:
        self._events.put(Message(type=kind, data=data, time=datetime.now(KST), name=self.program.name, colour=None))

    @property
    def pid(self) -> int | None:
        child = self._process.child if self._process else None
        return child.pid if child and child.poll() is None else None

    @property
    def is_over(self) -> bool:
        return self._thread is None or not self._thread.is_alive()

    def sweep(self) -> None:
        """End what a dead process left in its group: children would hold its pipe and its port."""
        child = self._process.child if self._process else None
        if child and child.poll() is not None and not self.is_over:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

    def ask_to_end(self) -> None:
        """Send one SIGTERM, as soon as there is a process; a second would mean haste."""
        pid = self.pid
        if pid is not None and not self._is_asked:
            self._is_asked = True
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def kill(self) -> None:
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)


class _Printer(Printer):
    def write(self, message: Message) -> None:
        # a closed terminal or a full disk is no reason to stop trading
        with contextlib.suppress(OSError):
            super().write(message)


class Supervisor:
    """The processes of one home, started in `directory`; `say` tells the operator, their lines go to `output`."""

    def __init__(
        self,
        run_dir: Path,
        *,
        directory: Path,
        output: TextIO,
        say: Say,
        look_after: Callable[[], None] | None = None,
        first_pause_seconds: float = FIRST_PAUSE_SECONDS,
    ) -> None:
        self._run_dir = run_dir
        self._directory = directory
        self._say = say
        self._look_after = look_after
        self._first_pause = first_pause_seconds
        self._events: queue.Queue[Message] = queue.Queue()
        # no time of its own: the lines bring theirs, in Korea's
        self._printer = _Printer(output, time_format="", width=0)
        self._colours = get_colours()
        self._members: dict[str, _Member] = {}
        self._starting = threading.Lock()
        self._stopping = threading.Event()
        self._hurry = threading.Event()
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="house", daemon=True)

    def start(self, programs: Sequence[Program]) -> None:
        with self._starting:  # the thread may be looking after those of before
            for program in programs:
                member = _Member(program, self._directory, next(self._colours), self._events, self._first_pause)
                self._members[program.name] = member
                self._printer.width = max(self._printer.width, len(program.name))
                member.launch()
        if not self._thread.is_alive():
            self._thread.start()

    def pid(self, name: str) -> int | None:
        return self._members[name].pid

    def last_words(self, name: str) -> str:
        """Return the last line a process wrote, empty where it wrote none."""
        lines = self._members[name].last_lines
        return lines[-1] if lines else ""

    @property
    def is_keeping(self) -> bool:
        """Whether what dies is started again; nobody would know if not even that was kept."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End every process, by rank, each warm if it ends in time; return when all have ended."""
        with self._starting:
            self._stopping.set()
        for rank in sorted({member.program.stop_rank for member in self._members.values()}):
            self._end([member for member in self._members.values() if member.program.stop_rank == rank])
        self._finished.set()
        if self._thread.is_alive():
            self._thread.join()

    def hurry(self) -> None:
        """Kill what still runs: somebody asked twice."""
        self._hurry.set()

    def _end(self, members: Sequence[_Member]) -> None:
        began = time.monotonic()
        while waiting := [member for member in members if not member.is_over]:
            for member in waiting:
                member.ask_to_end()
                if self._hurry.is_set() or time.monotonic() - began > member.program.grace_seconds:
                    member.kill()
                member.sweep()
            time.sleep(0.05)
        for member in members:
            self._record(member.program.name).unlink(missing_ok=True)

    def _keep(self) -> None:
        while not (self._finished.is_set() and self._events.empty()):
            with contextlib.suppress(queue.Empty):
                self._hear(self._events.get(timeout=LOOK_SECONDS))
            with self._starting:
                if not self._stopping.is_set():
                    self._look()

    def _look(self) -> None:
        for member in self._members.values():
            member.sweep()
            if member.due_at is not None and time.monotonic() >= member.due_at:
                member.launch()
        if self._look_after:
            self._look_after()

    def _hear(self, message: Message) -> None:
        member = self._members[message.name]
        match message.type:
            case "line":
                member.last_lines.append(message.data.decode("utf-8", "replace").rstrip())
                self._printer.write(message)
            case "start":
                write_pid_record(self._record(message.name), message.data["pid"])
            case "stop":
                self._record(message.name).unlink(missing_ok=True)
                if not self._stopping.is_set():
                    self._plan_restart(member, message.data["returncode"])

    def _plan_restart(self, member: _Member, code: int) -> None:
        if time.monotonic() - member.started_at > HEALTHY_SECONDS:
            member.pause = self._first_pause
        words = _("{name} ended ({how}); it starts again in {seconds:g} s")
        words = words.format(name=member.program.name, how=_how(code), seconds=member.pause)
        member.due_at = time.monotonic() + member.pause
        member.pause = min(member.pause * 2, LONGEST_PAUSE_SECONDS)
        # a closed terminal, or a full disk behind it
        with contextlib.suppress(OSError):
            self._say(words)

    def _record(self, name: str) -> Path:
        return self._run_dir / f"{name}.json"


def _how(code: int) -> str:
    if code >= 0:
        return _("exit code {code}").format(code=code)
    return signal.Signals(-code).name


@contextlib.contextmanager
def sole_supervisor(run_dir: Path) -> Iterator[None]:
    """Hold `run_dir` for this process; the kernel lets go of it when the process dies. Raises AlreadyRunning."""
    run_dir.mkdir(parents=True, exist_ok=True)
    lock = os.open(run_dir / "supervisor", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            words = os.pread(lock, 32, 0).decode("ascii").strip()
            raise AlreadyRunning(int(words) if words else None) from None
        os.ftruncate(lock, 0)
        os.pwrite(lock, str(os.getpid()).encode("ascii"), 0)
        yield
        os.ftruncate(lock, 0)
    finally:
        os.close(lock)


def write_pid_record(record: Path, pid: int) -> None:
    """Write who `pid` is, so that a later start knows it from a stranger who got its number."""
    # a full disk ends nobody's keeping: the leash ends what an unremembered process would leave
    with contextlib.suppress(psutil.NoSuchProcess, OSError):
        created = psutil.Process(pid).create_time()
        draft = record.with_suffix(".new")
        draft.write_text(json.dumps({"pid": pid, "created": created}), encoding="ascii")
        draft.replace(record)


def orphaned_processes(run_dir: Path) -> Iterator[tuple[str, psutil.Process]]:
    """Yield the name and process of what a killed supervisor of this home left running."""
    for record in sorted(run_dir.glob("*.json")):
        try:
            known = json.loads(record.read_text(encoding="ascii"))
            process = psutil.Process(known["pid"])
            # a correction of the clock moves creation times; a number is not reused within seconds
            is_same = abs(process.create_time() - known["created"]) < CLOCK_CORRECTION_SECONDS
            if is_same and process.status() != psutil.STATUS_ZOMBIE:
                yield record.stem, process
        except (ValueError, KeyError, psutil.Error):
            continue


def end_leftovers(run_dir: Path, say: Say) -> None:
    """End what a killed supervisor left, warm first, and forget it."""
    found = list(orphaned_processes(run_dir))
    for name, process in found:
        say(_("{name} (process {pid}) still runs from before: ending it").format(name=name, pid=process.pid))
        with contextlib.suppress(psutil.NoSuchProcess):
            process.terminate()
    deadline = time.monotonic() + LEFTOVER_SECONDS
    for _name, process in found:
        while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            if time.monotonic() > deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
            time.sleep(0.05)
    for record in run_dir.glob("*.json"):
        record.unlink(missing_ok=True)
