"""A whole house for a browser to look at: `manage.py run` in a home of its own, its commands and its exchange."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import httpx
import psutil

from config.env import BASE_DIR, HOME
from ops import embedded
from tests.config.test_house import free_ports

START_SECONDS = 120.0
PATIENCE_SECONDS = 60.0


def wait_for(happened: Callable[[], Any], what: str, seconds: float = PATIENCE_SECONDS) -> Any:
    """Return what `happened` returns, once it is true."""
    gives_up_at = time.monotonic() + seconds
    while not (found := happened()):
        assert time.monotonic() < gives_up_at, f"waited {seconds:.0f} s for {what}"
        time.sleep(0.1)
    return found


class BrowserHouse:
    """Starts when entered, ends when left. `password` is the admin's."""

    def __init__(self) -> None:
        self.home = HOME / "browser"
        self._log = HOME / "browser.log"
        web, flower, simulator = free_ports(3)
        self.url, self.flower_url = f"http://127.0.0.1:{web}", f"http://127.0.0.1:{flower}"
        self.exchange = httpx.Client(base_url=f"http://127.0.0.1:{simulator}", trust_env=False, timeout=20)
        self._environment = os.environ | {
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "AEGIS_HOME": str(self.home),
            "AEGIS_WEB_PORT": str(web),
            "AEGIS_FLOWER_PORT": str(flower),
            "AEGIS_SIMULATOR_PORT": str(simulator),
        }
        for name in ("DATABASE_URL", "REDIS_URL"):
            self._environment.pop(name, None)

    def __enter__(self) -> Self:
        self._sweep()
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                self._words("run"), env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        wait_for(lambda: "Ctrl-C" in self.log() or self._process.poll() is not None, "the house", START_SECONDS)
        assert self._process.poll() is None, self.log()
        found = re.search(r"비밀번호 (\S+) \(지금", self.log())
        assert found, self.log()
        self.password = found[1]
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        try:
            self._process.wait(90)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self.exchange.close()
        self._sweep()

    def log(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def flower_password(self) -> str:
        return (self.home / "flower_password").read_text(encoding="ascii").strip()

    def run(self, *words: str, script: str | None = None) -> subprocess.CompletedProcess[str]:
        """Run one of `manage.py`'s commands, as an operator would in another shell."""
        return subprocess.run(
            self._words(*words), env=self._environment, input=script, capture_output=True, text=True, timeout=90
        )

    def order(self, *words: str) -> str:
        """Order by command and return what it said; it must have gone out."""
        done = self.run(*words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def freeze(self, code: str, price: int) -> None:
        """Move a price there and hold it."""
        answer = self.exchange.post(f"/simulator/quotes/{code}", content=json.dumps({"price": price, "freeze": True}))
        answer.raise_for_status()

    @contextmanager
    def frozen(self, name: str) -> Iterator[None]:
        """Stop a process and those it started in their tracks, as an overloaded machine does."""
        pid = json.loads((self.home / "run" / f"{name}.json").read_text(encoding="ascii"))["pid"]
        family = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in family:
            process.suspend()
        try:
            yield
        finally:
            for process in family:
                process.resume()

    def _words(self, *words: str) -> list[str]:
        return [sys.executable, str(Path(BASE_DIR) / "manage.py"), *words]

    def _sweep(self) -> None:
        for server in (embedded.Postgres(self.home), embedded.Redis(self.home)):
            server.stop()
        shutil.rmtree(self.home, ignore_errors=True)
        shutil.rmtree(embedded.socket_dir(self.home), ignore_errors=True)
