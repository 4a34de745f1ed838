"""Everything from the checks to the running processes, as one context manager.

    with Runtime(output=sys.stdout, say=print) as runtime:
        runtime.wait_until_ready()
        ...

A failure to start raises CannotStart with a sentence for the operator, and leaves nothing running.
"""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType, TracebackType
from typing import Any, Self, TextIO

from django.conf import settings
from django.db import connection
from django.utils.translation import gettext as _

from config.celery import app
from config.env import BASE_DIR, HOME
from ops import embedded, rehearsal_start
from ops.embedded import CannotStart
from ops.fork_server import ForkServer
from ops.preflight import Say, check_database, check_port, check_redis, prepare_database
from ops.processes import all_programs, has_own_simulator, ports, simulator
from ops.supervisor import AlreadyRunning, Supervisor, end_leftovers, sole_supervisor

SERVER_CHECK_SECONDS = 1.0
SIMULATOR_SECONDS = 30.0
READY_SECONDS = 60.0
WORKERS = ("urgent", "orders", "sync", "stream")


class Runtime:
    """The servers and processes of this home. `say` reports to the operator; processes write to `output`."""

    def __init__(self, *, output: TextIO, say: Say, fresh_day: bool = False) -> None:
        self._say = _ignoring_os_errors(say)
        self._fresh_day = fresh_day
        self._exits = contextlib.ExitStack()
        self._fork_server = ForkServer(BASE_DIR)
        self._supervisor = Supervisor(
            HOME / "run",
            fork_server=self._fork_server,
            output=output,
            say=self._say,
            check_servers=self._check_servers,
        )
        self._servers: list[embedded.Postgres | embedded.Redis] = []
        self._checked_at = 0.0
        self._is_closing = False

    def __enter__(self) -> Self:
        try:
            self._open()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Stop the processes gracefully, then our servers. A second signal meanwhile kills the remaining processes."""
        self._is_closing = True
        self._exits.close()

    def stay(self) -> None:
        """Return at Ctrl-C, at SIGTERM, or when the terminal closes. Raises CannotStart if the supervisor fails."""
        with contextlib.suppress(KeyboardInterrupt):
            while self._supervisor.is_supervising:
                time.sleep(1)
            raise CannotStart(_("the supervisor failed, as the lines above show; every process was stopped"))

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Return when every worker and every port answers. Raises CannotStart, which names those that do not."""
        deadline = time.monotonic() + seconds
        while missing := self._unready():
            if time.monotonic() > deadline:
                raise CannotStart(
                    _("no answer from {names} within {seconds:.0f} s").format(names=", ".join(missing), seconds=seconds)
                )
            time.sleep(0.2)

    def _unready(self) -> list[str]:
        replies: list[dict[str, Any]] = app.control.ping(timeout=0.5, limit=len(WORKERS)) or []
        answering = {name.split("@")[0] for reply in replies for name in reply}
        missing = [f"worker {name}" for name in WORKERS if name not in answering]
        return missing + [port.what for port in ports() if not _is_listening(port.number)]

    def _open(self) -> None:
        self._exits.enter_context(_signals(self._on_signal))
        try:
            self._exits.enter_context(sole_supervisor(HOME / "run"))
        except AlreadyRunning as running:
            raise CannotStart(
                _("AEGIS is already running here (process {pid}): end that first, or set AEGIS_HOME").format(
                    pid=running.pid or "?"
                )
            ) from None
        end_leftovers(HOME / "run", self._say)
        for port in ports():
            check_port(port)
        # it imports while the servers start
        self._exits.callback(self._fork_server.close)
        self._fork_server.start()
        self._start_servers()
        prepare_database(self._say)
        self._start_programs()

    def _start_servers(self) -> None:
        if not settings.HAS_OWN_DATABASE:
            check_database()
        if not settings.HAS_OWN_REDIS:
            check_redis()
        if settings.HAS_OWN_DATABASE:
            postgres = embedded.Postgres(HOME, say=self._say)
            self._start_server(postgres)
            postgres.create_database(settings.DATABASES["default"]["NAME"])
        if settings.HAS_OWN_REDIS:
            self._start_server(embedded.Redis(HOME, say=self._say))

    def _start_server(self, server: embedded.Postgres | embedded.Redis) -> None:
        self._exits.callback(server.stop)
        server.start()
        self._servers.append(server)

    def _start_programs(self) -> None:
        self._exits.callback(self._supervisor.stop)
        if has_own_simulator():
            self._supervisor.start([simulator(rehearsal_start.start_rehearsal(is_fresh=self._fresh_day))])
            self._wait_for_simulator()
        connection.close()
        self._supervisor.start(all_programs())

    def _wait_for_simulator(self) -> None:
        deadline = time.monotonic() + SIMULATOR_SECONDS
        while not _is_listening(settings.SIMULATOR_PORT):
            if time.monotonic() > deadline:
                why = self._supervisor.last_line("simulator") or _("it wrote no output")
                raise CannotStart(_("the simulator does not start: {why}").format(why=why))
            time.sleep(0.1)

    def _check_servers(self) -> None:
        """Restart a server of ours that died; checked at most every `SERVER_CHECK_SECONDS`."""
        if time.monotonic() - self._checked_at < SERVER_CHECK_SECONDS:
            return
        self._checked_at = time.monotonic()
        for server in self._servers:
            if not server.is_up():
                self._say(_("{name} has ended; it starts again").format(name=server.name))
                try:
                    server.start()
                except (CannotStart, OSError) as error:
                    self._say(str(error))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._is_closing:
            self._supervisor.kill_remaining()
        else:
            raise KeyboardInterrupt


def _ignoring_os_errors(say: Say) -> Say:
    """Return `say` without its OSError: a closed terminal or a full disk is no reason to stop trading."""

    def report(line: str) -> None:
        with contextlib.suppress(OSError):
            say(line)

    return report


@contextlib.contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle the signals that ask us to end, if this is the main thread. `nohup` keeps its effect."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    previous_handlers = {number: signal.getsignal(number) for number in numbers}
    for number, previous in previous_handlers.items():
        if number is signal.SIGINT or previous is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, previous in previous_handlers.items():
            signal.signal(number, previous)


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
