"""Real Celery processes on the test database and Redis, for tests of what only processes show."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from django.conf import settings
from django.db import connection

from config.celery import app
from config.env import BASE_DIR

ANSWER_SECONDS = 40.0
STOP_SECONDS = 20.0


def database_url() -> str:
    """Return the URL of the database this test run made, as a process outside of it needs it."""
    known = connection.settings_dict
    password = f":{quote(known['PASSWORD'], safe='')}" if known["PASSWORD"] else ""
    port = f":{known['PORT']}" if known["PORT"] else ""
    socket_dir = known["OPTIONS"].get("host")
    query = f"?host={quote(socket_dir)}" if socket_dir else ""
    return f"postgres://{quote(known['USER'])}{password}@{known['HOST']}{port}/{known['NAME']}{query}"


def environment() -> dict[str, str]:
    """Return the environment of a process that shall share this test's database, Redis, clock and broker."""
    return os.environ | {
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DATABASE_URL": database_url(),
        "REDIS_URL": settings.REDIS_URL,
        "PYTHONWARNINGS": "default",
    }


class Workers:
    """Celery processes of one test; the end of the `with` block ends them."""

    def __init__(self, log_dir: Path) -> None:
        self._log_dir = log_dir
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(
        self,
        *queues: str,
        stream: bool = False,
        name: str = "",
        include: str = "",
        threads: int = 2,
        **variables: str,
    ) -> subprocess.Popen[bytes]:
        """Start a worker of `queues` with so many threads and wait until it answers.

        It imports the module `include` too; `variables` go into its environment.
        """
        name = name or ("stream" if stream else "-".join(queues))
        words = ["worker", "-Q", ",".join(queues or ("stream",)), "-P", "threads", "-c", str(threads)]
        words += ["-n", f"{name}@test", "--without-gossip", "--without-mingle", "-l", "INFO"]
        words += ["--include", include] if include else []
        worker = self._launch(name, [*words, "--kis-stream"] if stream else words, variables)
        deadline = time.monotonic() + ANSWER_SECONDS
        while not app.control.ping(destination=[f"{name}@test"], timeout=0.5):
            if worker.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"worker {name} does not answer:\n{self.log(name)}")
        return worker

    def start_beat(self, *, name: str = "beat", **variables: str) -> subprocess.Popen[bytes]:
        return self._launch(name, ["beat", "-l", "INFO"], variables)

    def log(self, name: str) -> str:
        return (self._log_dir / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    def _launch(self, name: str, words: list[str], variables: dict[str, str]) -> subprocess.Popen[bytes]:
        with (self._log_dir / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "config", *words],
                cwd=BASE_DIR,
                env=environment() | variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running[name] = process
        return process

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        for process in self._running.values():
            try:
                process.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
