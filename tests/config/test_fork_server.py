"""The fork server: its processes behave like new ones, and end with the server and with the supervisor."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from config.env import BASE_DIR
from ops import fork_server
from ops.fork_server import ForkedProcess, ForkServer
from ops.supervisor import Program, Supervisor
from tests.processes import is_alive, wait_for

REPORT = """
import atexit, json, os, sys, threading
atexit.register(print, "at exit", flush=True)
print(json.dumps({
    "argv": sys.argv, "name": __name__, "modules": "django.db" in sys.modules, "extra": os.environ.get("EXTRA"),
    "threads": threading.active_count(), "session": os.getsid(0) == os.getpid(), "stdin": sys.stdin.read(),
}), flush=True)
print("to stderr", file=sys.stderr)
sys.exit(7)
"""
FOR_EVER = "import time\nprint('up', flush=True)\ntime.sleep(600)\n"


class Closing(ForkServer):
    """Closes the output of its processes with itself; the supervisor does so when they end."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.forked: list[ForkedProcess] = []

    def fork(self, argv: Sequence[str], environment: Mapping[str, str]) -> ForkedProcess:
        process = super().fork(argv, environment)
        self.forked.append(process)
        return process

    def close(self) -> None:
        super().close()
        for process in self.forked:
            if process.stdout is not None:
                process.stdout.close()


@pytest.fixture
def server() -> Iterator[ForkServer]:
    server = Closing(BASE_DIR)
    server.start()
    yield server
    server.close()


def script(tmp_path: Path, code: str) -> tuple[str, str, str]:
    path = tmp_path / "script.py"
    path.write_text(code, encoding="utf-8")
    return sys.executable, str(path), "an argument"


def first_line(process: ForkedProcess) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def test_a_forked_process_runs_like_a_new_one(server: ForkServer, tmp_path: Path) -> None:
    argv = script(tmp_path, REPORT)
    process = server.fork(argv, {"EXTRA": "한글"})
    assert process.stdout is not None
    report, *rest = process.stdout.read().decode().splitlines()
    assert json.loads(report) == {
        "argv": [argv[1], "an argument"], "name": "__main__", "modules": True, "extra": "한글",
        "threads": 1, "session": True, "stdin": "",
    }  # fmt: skip
    assert sorted(rest) == ["at exit", "to stderr"]
    assert process.wait() == process.poll() == 7


def test_a_module_runs_as_with_python_m(server: ForkServer) -> None:
    process = server.fork([sys.executable, "-m", "celery", "-A", "config", "report"], {})
    assert process.stdout is not None
    assert "celery:" in process.stdout.read().decode()
    assert process.wait() == 0


def test_a_process_has_its_own_name_in_the_systems_list(server: ForkServer, tmp_path: Path) -> None:
    argv = script(tmp_path, FOR_EVER)
    process = server.fork(argv, {})
    assert first_line(process) == "up"
    assert " ".join(argv) in " ".join(psutil.Process(process.pid).cmdline())
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def test_the_imports_leave_one_thread_and_no_connection() -> None:
    program = (
        "import psutil\nfrom ops import fork_server\nfork_server.preload()\nprocess = psutil.Process()\n"
        "print(process.num_threads(), process.net_connections('inet'))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=BASE_DIR, capture_output=True, text=True, check=True)
    assert done.stdout == "1 []\n"


def test_a_traceback_is_output_and_an_exit_code(server: ForkServer, tmp_path: Path) -> None:
    process = server.fork(script(tmp_path, "1 / 0"), {})
    assert process.stdout is not None
    assert "ZeroDivisionError" in process.stdout.read().decode()
    assert process.wait() == 1


def test_processes_end_with_a_killed_server_and_new_ones_can_be_forked(server: ForkServer, tmp_path: Path) -> None:
    process = server.fork(script(tmp_path, FOR_EVER), {})
    assert first_line(process) == "up"
    killed = server.pid
    assert killed is not None
    os.kill(killed, signal.SIGKILL)
    assert process.wait() == -signal.SIGTERM
    assert not is_alive(process.pid)
    wait_for(lambda: server.pid not in (None, killed))
    again = server.fork(script(tmp_path, REPORT), {})
    assert again.wait() == 7


def test_closing_leaves_no_process(tmp_path: Path) -> None:
    server = Closing(BASE_DIR)
    server.start()
    process = server.fork(script(tmp_path, REPORT), {})
    assert process.wait() == 7
    pid = server.pid
    assert pid is not None
    server.close()
    assert not is_alive(pid)
    assert server.pid is None


def test_it_can_be_closed_as_soon_as_it_is_started() -> None:
    for _ in range(5):
        server = ForkServer(BASE_DIR)
        server.start()
        server.close()
        assert server.pid is None


def test_a_server_that_cannot_start_is_an_error_of_the_fork(tmp_path: Path) -> None:
    server = ForkServer(tmp_path)  # no module `ops` is there
    server.start()
    try:
        with pytest.raises(OSError, match=r"fork server|Broken pipe"):
            server.fork(script(tmp_path, REPORT), {})
    finally:
        server.close()


def test_a_machine_without_room_for_a_process_is_an_error_of_the_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    ours, theirs = socket.socketpair()
    with ours, theirs:
        monkeypatch.setattr(fork_server.os, "fork", full)
        assert fork_server._fork(theirs) is False
        server = ForkServer(BASE_DIR)
        server._handle(json.loads(ours.recv(1_000)))
    reply = server._replies.get_nowait()
    assert isinstance(reply, OSError)
    assert "temporarily unavailable" in str(reply)


def test_the_supervisor_restarts_what_a_killed_server_took_along(tmp_path: Path) -> None:
    server, said = ForkServer(BASE_DIR), list[str]()
    server.start()
    with (tmp_path / "output").open("w") as output:
        supervisor = Supervisor(
            tmp_path / "run", fork_server=server, output=output, say=said.append, first_pause_seconds=0.1
        )
        (tmp_path / "run").mkdir()
        try:
            supervisor.start([Program("one", script(tmp_path, FOR_EVER))])
            wait_for(lambda: supervisor.last_line("one") == "up")
            first, killed = supervisor.pid("one"), server.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            wait_for(lambda: supervisor.pid("one") not in (None, first))
            assert any("SIGTERM" in line for line in said)
        finally:
            supervisor.stop()
            server.close()
