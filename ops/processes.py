"""The processes of the house: what each is started with, and which ports they need."""

import secrets
import sys
from dataclasses import dataclass, replace
from pathlib import Path

from django.conf import settings

from config.env import BASE_DIR, HOME
from kis.environment import Dialect, EnvironmentName
from ops import embedded
from ops.supervisor import Program

ADMIN = "admin"
# an order on its way is answered or given up within the broker's timeout
WARM_SECONDS = 25.0
# root may run the whole house, a rehearsal in a container for one; Celery says at every start that it must not
ROOT_WARNING = "ignore:You're running the worker with superuser privileges"


@dataclass(frozen=True, slots=True)
class Port:
    """A port of 127.0.0.1 that a process of ours needs, and the variable that moves it."""

    number: int
    variable: str
    what: str


def has_own_simulator() -> bool:
    return settings.KIS_ENVIRONMENT.name is EnvironmentName.SIM and settings.HAS_OWN_SIMULATOR


def ports() -> list[Port]:
    needed = [
        Port(settings.WEB_PORT, "AEGIS_WEB_PORT", "web"),
        Port(settings.FLOWER_PORT, "AEGIS_FLOWER_PORT", "flower"),
    ]
    if has_own_simulator():
        needed.append(Port(settings.SIMULATOR_PORT, "AEGIS_SIMULATOR_PORT", "simulator"))
    return needed


def _python(*words: str) -> tuple[str, ...]:
    return (sys.executable, *words)


def _celery(*words: str) -> tuple[str, ...]:
    return _python("-W", ROOT_WARNING, "-m", "celery", "-A", "config", "--quiet", *words)


def simulator(ledger: Path) -> Program:
    words = ["kis_simulator", "--host", settings.BIND_ADDRESS, "--port", str(settings.SIMULATOR_PORT)]
    words += ["--ledger", str(ledger)]
    if settings.KIS_DIALECT is Dialect.AEGIS_V3:
        words += ["--specification"]
    # the exchange closes last: orders on their way still get their answer
    return Program("simulator", _python(str(BASE_DIR / "manage.py"), *words), stop_rank=2)


def _manage(name: str, *words: str) -> Program:
    return Program(name, _python(str(BASE_DIR / "manage.py"), *words), stop_rank=1)


def _worker(name: str, queues: str, threads: int, *more: str) -> Program:
    # gossip and mingle are talk among workers that nothing here listens to
    words = f"-Q {queues} -P threads -c {threads} -n {name}@%h --without-gossip --without-mingle".split()
    return Program(
        "stream" if name == "stream" else f"worker-{name}",
        _celery("worker", *words, "-l", settings.LOG_LEVEL, *more),
        stop_rank=1,
        grace_seconds=WARM_SECONDS,
    )


# a page that counts a year of candles may take longer than a worker's statement
WEB_STATEMENT_SECONDS = 30
# of the threads of each worker, chases or cancels that wait for the broker's list take some (`orders.tasks`), not all
URGENT_THREADS, ORDER_THREADS = 16, 12


def programs() -> list[Program]:
    # every open dashboard holds a thread: more of them than desk.live serves viewers
    web = ("config.wsgi", "--bind", f"{settings.BIND_ADDRESS}:{settings.WEB_PORT}", "--workers", "1", "--threads", "24")
    flower = ("flower", f"--address={settings.BIND_ADDRESS}", f"--port={settings.FLOWER_PORT}")
    bot = replace(_manage("telegram", "telegram_bot"), grace_seconds=WARM_SECONDS)
    telegram = [bot] if settings.TELEGRAM_TOKEN else []
    return [
        Program(
            "web",
            _python("-m", "gunicorn", *web, "--no-control-socket", "--graceful-timeout", "5"),
            environment={
                "AEGIS_DATABASE_STATEMENT_SECONDS": str(max(WEB_STATEMENT_SECONDS, settings.DATABASE_STATEMENT_SECONDS))
            },
            stop_rank=1,
        ),
        _worker("urgent", "urgent", URGENT_THREADS),
        _worker("orders", "orders", ORDER_THREADS),
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
        _manage("notifier", "run_notifier"),
        *telegram,
    ]


def flower_password_file() -> Path:
    return HOME / "flower_password"


def flower_password() -> str:
    return embedded.kept_secret(flower_password_file(), lambda: secrets.token_urlsafe(12))
