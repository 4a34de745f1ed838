"""AEGIS up and running: everything from checks to processes, as one context manager.

    with House(output=sys.stdout, say=print) as house:
        house.wait_until_ready()
        ...

What fails on the way raises CannotStart with a sentence for the operator, and leaves nothing running.
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
from ops.preflight import Say, check_database, check_port, check_redis, prepare_database
from ops.processes import has_own_simulator, ports, programs, simulator
from ops.supervisor import AlreadyRunning, Supervisor, end_leftovers, sole_supervisor

LOOK_AFTER_SECONDS = 1.0
SIMULATOR_SECONDS = 30.0
READY_SECONDS = 60.0
WORKERS = ("urgent", "orders", "sync", "stream")


class Runtime:
    """The servers and processes of this home. `say` tells the operator; processes write to `output`."""

    def __init__(self, *, output: TextIO, say: Say, fresh_day: bool = False) -> None:
        self._say = _unmoved(say)
        self._fresh_day = fresh_day
        self._exits = contextlib.ExitStack()
        self._supervisor = Supervisor(
            HOME / "run", directory=BASE_DIR, output=output, say=self._say, look_after=self._look_after
        )
        self._servers: list[embedded.Postgres | embedded.Redis] = []
        self._looked_at = 0.0
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
        """End the processes, the warm way, then our servers. A second signal meanwhile kills what is left."""
        self._is_closing = True
        self._exits.close()

    def stay(self) -> None:
        """Return when somebody asks to end: Ctrl-C, SIGTERM, or the terminal that closes. Raises CannotStart."""
        with contextlib.suppress(KeyboardInterrupt):
            while self._supervisor.is_keeping:
                time.sleep(1)
            raise CannotStart(_("the supervisor itself failed, as the lines above say; everything is ended"))

    def wait_until_ready(self, seconds: float = READY_SECONDS) -> None:
        """Return when every worker answers and the web pages do; CannotStart names who does not."""
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
            self._supervisor.start([simulator(rehearsal_start.begin(is_fresh=self._fresh_day))])
            self._wait_for_simulator()
        connection.close()
        self._supervisor.start(programs())

    def _wait_for_simulator(self) -> None:
        deadline = time.monotonic() + SIMULATOR_SECONDS
        while not _is_listening(settings.SIMULATOR_PORT):
            if time.monotonic() > deadline:
                why = self._supervisor.last_words("simulator") or _("no word from it")
                raise CannotStart(_("the simulator does not start: {why}").format(why=why))
            time.sleep(0.1)

    def _look_after(self) -> None:
        """Start again a server of ours that died; it is looked for every few seconds."""
        if time.monotonic() - self._looked_at < LOOK_AFTER_SECONDS:
            return
        self._looked_at = time.monotonic()
        for server in self._servers:
            if not server.is_up():
                self._say(_("{name} has ended; it starts again").format(name=server.name))
                try:
                    server.start()
                except (CannotStart, OSError) as error:
                    self._say(str(error))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._is_closing:
            self._supervisor.hurry()
        else:
            raise KeyboardInterrupt


def _unmoved(say: Say) -> Say:
    """Return `say`, but a terminal that closed or a disk that is full is no reason to stop trading."""

    def tell(line: str) -> None:
        with contextlib.suppress(OSError):
            say(line)

    return tell


@contextlib.contextmanager
def _signals(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Hear what asks us to end, where this thread may; `nohup` stays as it is."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    wanted = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in wanted}
    for number, known in before.items():
        if number is signal.SIGINT or known is not signal.SIG_IGN:
            signal.signal(number, handler)
    try:
        yield
    finally:
        for number, known in before.items():
            signal.signal(number, known)


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0
