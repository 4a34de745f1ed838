"""AEGIS up and running: everything from checks to processes, as one context manager.

    with House(output=sys.stdout, say=print) as house:
        house.wait_until_ready()
        ...

What fails on the way raises CannotStart with a sentence for the operator, and leaves nothing running.
"""

import contextlib
import errno
import secrets
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from datetime import time as dtime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self, TextIO
from urllib.parse import urlsplit

import redis
from django.conf import settings
from django.contrib.auth import get_user_model
from django.core.management import call_command
from django.db import OperationalError, connection
from django.db.models import Max
from django.utils.translation import gettext as _

from aegis.sessions import KST
from config import embedded, rehearsal, schedule
from config.celery import app
from config.embedded import CannotStart
from config.env import BASE_DIR, HOME
from config.models import Belonging
from config.supervisor import AlreadyRunning, Program, Supervisor, end_leftovers, sole_supervisor
from kis import clock
from kis.environment import EnvironmentName
from orders.models import TradeOrder

ADMIN = "admin"
LOOK_AFTER_SECONDS = 1.0
SIMULATOR_SECONDS = 30.0
READY_SECONDS = 60.0
# an order on its way is answered or given up within the broker's timeout
WARM_SECONDS = 25.0
WORKERS = ("orders", "sync", "stream")

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Port:
    """A port of 127.0.0.1 that a process of ours needs, and the variable that moves it."""

    number: int
    variable: str
    what: str


class House:
    """The servers and processes of this home. `say` tells the operator; processes write to `output`."""

    def __init__(self, *, output: TextIO, say: Say, fresh_day: bool = False) -> None:
        self._say = say
        self._fresh_day = fresh_day
        self._exits = contextlib.ExitStack()
        self._supervisor = Supervisor(HOME / "run", output=output, say=say, look_after=self._look_after)
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
        """Return when somebody asks to end: Ctrl-C, SIGTERM, or the terminal that closes."""
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)

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
        return missing + [port.what for port in _ports() if not _is_listening(port.number)]

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
        for port in _ports():
            check_port(port)
        self._start_servers()
        _prepare_database(self._say)
        if _has_own_simulator():
            _set_clock(fresh=self._fresh_day)
        self._start_programs()

    def _start_servers(self) -> None:
        if not settings.HAS_OWN_DATABASE:
            _check_database()
        if not settings.HAS_OWN_REDIS:
            _check_redis()
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
        connection.close()
        self._exits.callback(self._supervisor.stop)
        if _has_own_simulator():
            self._supervisor.start([_simulator()])
            self._wait_for_simulator()
        self._supervisor.start(_programs())

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
            if server.pid() is None:
                self._say(_("{name} has ended; it starts again").format(name=server.name))
                try:
                    server.start()
                except CannotStart as error:
                    self._say(str(error))

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._is_closing:
            self._supervisor.hurry()
        else:
            raise KeyboardInterrupt


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


# --- checks ---------------------------------------------------------------------------------


def _has_own_simulator() -> bool:
    return settings.KIS_ENVIRONMENT.name is EnvironmentName.SIM and settings.HAS_OWN_SIMULATOR


def _ports() -> list[Port]:
    ports = [
        Port(settings.WEB_PORT, "AEGIS_WEB_PORT", "web"),
        Port(settings.FLOWER_PORT, "AEGIS_FLOWER_PORT", "flower"),
    ]
    if _has_own_simulator():
        ports.append(Port(settings.SIMULATOR_PORT, "AEGIS_SIMULATOR_PORT", "simulator"))
    return ports


def check_port(port: Port) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port.number))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise CannotStart(
                    _(
                        "port {number} for {what} is taken by another program: end that, or choose another port, "
                        "as {variable}={other}"
                    ).format(number=port.number, what=port.what, variable=port.variable, other=port.number + 1)
                ) from None
            raise CannotStart(
                _("port {number} for {what} cannot be used ({why}): set {variable} to another").format(
                    number=port.number, what=port.what, why=error.strerror, variable=port.variable
                )
            ) from None


def _is_listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def masked(url: str) -> str:
    """Return `url` without its password."""
    parts = urlsplit(url)
    if not parts.password:
        return url
    return parts._replace(netloc=parts.netloc.replace(f":{parts.password}@", ":***@")).geturl()


def _check_database() -> None:
    try:
        with connection.cursor() as cursor:
            cursor.execute("SELECT 1")
    except OperationalError as error:
        raise CannotStart(no_database(error)) from None


def no_database(error: Exception) -> str:
    """Return what to tell an operator whose database does not answer."""
    why = _one_line(error)
    if settings.HAS_OWN_DATABASE:
        return _("The embedded database does not answer ({why}): `make run` starts it").format(why=why)
    return _(
        "DATABASE_URL={url} does not answer ({why}): start that PostgreSQL, correct the variable "
        "(postgres://user:password@host:5432/name), or unset it for the embedded one"
    ).format(url=masked(settings.DATABASE_URL), why=why)


def _check_redis() -> None:
    try:
        with settings.REDIS_CLIENT() as client:
            client.ping()
    except redis.RedisError as error:
        raise CannotStart(
            _(
                "REDIS_URL={url} does not answer ({why}): start that Redis, correct the variable "
                "(redis://:password@host:6379/0), or unset it for the embedded one"
            ).format(url=masked(settings.REDIS_URL), why=_one_line(error))
        ) from None


def _one_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


# --- the database -----------------------------------------------------------------------------


def _prepare_database(say: Say) -> None:
    check_belonging()
    call_command("migrate", verbosity=0, interactive=False)
    Belonging.objects.get_or_create(
        defaults={"environment": settings.KIS_ENVIRONMENT.name, "account": str(settings.KIS_CREDENTIALS.account)}
    )
    schedule.write()
    call_command("collectstatic", verbosity=0, interactive=False)
    make_admin(say)


def check_belonging() -> None:
    """Refuse the database of another broker environment or account: their orders must not mix."""
    if Belonging._meta.db_table not in connection.introspection.table_names():
        return
    known = Belonging.objects.first()
    wanted = (str(settings.KIS_ENVIRONMENT.name), str(settings.KIS_CREDENTIALS.account))
    if known and (known.environment, known.account) != wanted:
        raise CannotStart(
            _(
                "this database belongs to KIS_ENV={environment} and account {account}, the settings say "
                "KIS_ENV={wanted_environment} and {wanted_account}: correct them, or name another database in "
                "DATABASE_URL (embedded: another AEGIS_HOME)"
            ).format(
                environment=known.environment,
                account=known.account,
                wanted_environment=wanted[0],
                wanted_account=wanted[1],
            )
        )


def make_admin(say: Say) -> None:
    users = get_user_model().objects
    if users.filter(is_superuser=True).exists():
        return
    password = secrets.token_urlsafe(12)
    users.create_superuser(ADMIN, password=password)
    say(
        _(
            "Admin user {name}, password {password} (shown this once; `manage.py changepassword {name}` sets another)"
        ).format(name=ADMIN, password=password)
    )


# --- the clock of a rehearsal -------------------------------------------------------------------


def _set_clock(*, fresh: bool) -> None:
    is_first = not (HOME / "clock.json").exists()
    now = clock.now()
    if is_first:
        now = max(now, _after_last_order() or now)
    moment = rehearsal.opening(now, is_first=is_first, is_fresh=fresh)
    if moment is not None:
        clock.set_now(moment)


def _after_last_order() -> datetime | None:
    """Return the end of the last day that has orders: a rehearsal begun anew must not repeat it."""
    last = TradeOrder.objects.aggregate(last=Max("order_date"))["last"]
    return datetime.combine(last + timedelta(days=1), dtime.min, KST) if last else None


# --- the processes ----------------------------------------------------------------------------


# root may run the whole house, a rehearsal in a container for one; Celery says at every start that it must not
ROOT_WARNING = "ignore:You're running the worker with superuser privileges"


def _python(*words: str) -> tuple[str, ...]:
    return (sys.executable, *words)


def _celery(*words: str) -> tuple[str, ...]:
    return _python("-W", ROOT_WARNING, "-m", "celery", "-A", "config", "--quiet", *words)


def _simulator() -> Program:
    ledger = HOME / "simulator" / "ledger.jsonl"
    ledger.parent.mkdir(parents=True, exist_ok=True)
    manage = str(BASE_DIR / "manage.py")
    words = ("kis_simulator", "--port", str(settings.SIMULATOR_PORT), "--ledger", str(ledger))
    # the exchange closes last: orders on their way still get their answer
    return Program("simulator", _python(manage, *words), stop_rank=2)


def _worker(name: str, queues: str, threads: int, *more: str) -> Program:
    # gossip and mingle are talk among workers that nothing here listens to
    words = [
        "-Q",
        queues,
        "-P",
        "threads",
        "-c",
        str(threads),
        "-n",
        f"{name}@%h",
        "--without-gossip",
        "--without-mingle",
    ]
    return Program(
        "stream" if name == "stream" else f"worker-{name}",
        _celery("worker", *words, "-l", settings.LOG_LEVEL, *more),
        stop_rank=1,
        grace_seconds=WARM_SECONDS,
    )


def _programs() -> list[Program]:
    web = ("config.wsgi", "--bind", f"127.0.0.1:{settings.WEB_PORT}", "--workers", "1", "--threads", "4")
    flower = ("flower", "--address=127.0.0.1", f"--port={settings.FLOWER_PORT}")
    return [
        Program("web", _python("-m", "gunicorn", *web, "--no-control-socket", "--graceful-timeout", "5"), stop_rank=1),
        _worker("orders", "orders", 4),
        _worker("sync", "sync,notify", 4),
        _worker("stream", "stream", 2, "--kis-stream"),
        Program("beat", _celery("beat", "-l", settings.LOG_LEVEL), stop_rank=0),
        Program(
            "flower",
            _celery(*flower),
            # in the environment: a command line is everybody's to read
            environment={"FLOWER_BASIC_AUTH": f"{ADMIN}:{flower_password()}"},
            stop_rank=1,
        ),
    ]


def flower_password_file() -> Path:
    return HOME / "flower_password"


def flower_password() -> str:
    return embedded.kept_secret(flower_password_file(), lambda: secrets.token_urlsafe(12))
