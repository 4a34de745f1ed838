"""The processes of AEGIS: how each is started, and the ports that they need."""

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
# long enough for the broker's timeout: an order that was sent is answered or unknown by then
GRACEFUL_STOP_SECONDS = 25.0


@dataclass(frozen=True, slots=True)
class Port:
    """A port of 127.0.0.1 that a process of AEGIS needs, and the variable that changes it."""

    number: int
    variable: str
    what: str


def has_own_simulator() -> bool:
    return settings.KIS_ENVIRONMENT.name is EnvironmentName.SIM and settings.HAS_OWN_SIMULATOR


def ports() -> list[Port]:
    own_ports = [
        Port(settings.WEB_PORT, "AEGIS_WEB_PORT", "web"),
        Port(settings.FLOWER_PORT, "AEGIS_FLOWER_PORT", "flower"),
    ]
    if has_own_simulator():
        own_ports.append(Port(settings.SIMULATOR_PORT, "AEGIS_SIMULATOR_PORT", "simulator"))
    return own_ports


def _python(*arguments: str) -> tuple[str, ...]:
    return (sys.executable, *arguments)


def _celery(*arguments: str) -> tuple[str, ...]:
    return _python("-m", "celery", "-A", "config", "--quiet", *arguments)


def simulator(ledger: Path) -> Program:
    arguments = ["kis_simulator", "--host", settings.BIND_ADDRESS, "--port", str(settings.SIMULATOR_PORT)]
    arguments += ["--ledger", str(ledger)]
    if settings.KIS_DIALECT is Dialect.AEGIS_V3:
        arguments += ["--specification"]
    # the simulator stops last: orders that were sent still get their reply
    return Program("simulator", _python(str(BASE_DIR / "manage.py"), *arguments), stop_rank=2)


def _manage(name: str, *arguments: str) -> Program:
    return Program(name, _python(str(BASE_DIR / "manage.py"), *arguments), stop_rank=1)


def _worker(name: str, queues: str, threads: int, *options: str) -> Program:
    # gossip and mingle are messages between workers that AEGIS does not use
    arguments = f"-Q {queues} -P threads -c {threads} -n {name}@%h --without-gossip --without-mingle".split()
    return Program(
        "stream" if name == "stream" else f"worker-{name}",
        _celery("worker", *arguments, "-l", settings.LOG_LEVEL, *options),
        stop_rank=1,
        grace_seconds=GRACEFUL_STOP_SECONDS,
    )


# chases and cancels that wait for the broker's list take some threads of each worker (`orders.tasks`), not all
URGENT_THREADS, ORDER_THREADS = 16, 12


def all_programs() -> list[Program]:
    # every open dashboard holds a thread: there are more threads than viewers that desk.live serves
    web = ("config.wsgi", "--bind", f"{settings.BIND_ADDRESS}:{settings.WEB_PORT}", "--workers", "1", "--threads", "24")
    flower = ("flower", f"--address={settings.BIND_ADDRESS}", f"--port={settings.FLOWER_PORT}")
    bot = replace(_manage("telegram", "telegram_bot"), grace_seconds=GRACEFUL_STOP_SECONDS)
    telegram = [bot] if settings.TELEGRAM_TOKEN else []
    return [
        Program("web", _python("-m", "gunicorn", *web, "--no-control-socket", "--graceful-timeout", "5"), stop_rank=1),
        _worker("urgent", "urgent", URGENT_THREADS),
        _worker("orders", "orders", ORDER_THREADS),
        _worker("sync", "sync,notify", 4),
        _worker("stream", "stream", 2, "--kis-stream"),
        Program("beat", _celery("beat", "-l", settings.LOG_LEVEL), stop_rank=0),
        Program(
            "flower",
            _celery(*flower),
            # in the environment: every user can read a command line
            environment={"FLOWER_BASIC_AUTH": f"{ADMIN}:{flower_password()}"},
            stop_rank=1,
        ),
        _manage("notifier", "run_notifier"),
        *telegram,
    ]


def flower_password_file() -> Path:
    return HOME / "flower_password"


def flower_password() -> str:
    return embedded.read_or_create_secret(flower_password_file(), lambda: secrets.token_urlsafe(12))
