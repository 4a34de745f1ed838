"""The fork server: processes that behave as if started anew, and end with whoever should end them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from config.env import BASE_DIR
from ops.fork_server import ForkedProcess, ForkServer
from ops.supervisor import Program, Supervisor

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


def wait_for(is_so: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


def first_line(process: ForkedProcess) -> str:
    assert process.stdout is not None
    return process.stdout.readline().decode().strip()


def is_alive(pid: int) -> bool:
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


def test_a_forked_process_runs_as_if_started_anew(server: ForkServer, tmp_path: Path) -> None:
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


def test_the_server_has_one_thread_and_no_connection(server: ForkServer, tmp_path: Path) -> None:
    process = server.fork(script(tmp_path, REPORT), {})
    assert process.wait() == 7
    assert server.pid is not None
    parent = psutil.Process(server.pid)
    assert parent.num_threads() == 1
    assert parent.net_connections("inet") == []


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


def test_the_supervisor_restarts_what_a_killed_server_took_along(tmp_path: Path) -> None:
    server, said = ForkServer(BASE_DIR), list[str]()
    server.start()
    with (tmp_path / "output").open("w") as output:
        supervisor = Supervisor(
            tmp_path / "run", directory=BASE_DIR, output=output, say=said.append, fork_server=server,
            first_pause_seconds=0.1,
        )  # fmt: skip
        (tmp_path / "run").mkdir()
        try:
            supervisor.start([Program("one", script(tmp_path, FOR_EVER), is_forked=True)])
            wait_for(lambda: supervisor.last_line("one") == "up")
            first, killed = supervisor.pid("one"), server.pid
            assert killed is not None
            os.kill(killed, signal.SIGKILL)
            wait_for(lambda: supervisor.pid("one") not in (None, first))
            assert any("SIGTERM" in line for line in said)
        finally:
            supervisor.stop()
            server.close()


def test_everything_ends_if_the_supervisor_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom ops.fork_server import ForkServer\n"
        f"server = ForkServer(Path({str(BASE_DIR)!r}))\nserver.start()\n"
        f"process = server.fork({script(tmp_path, FOR_EVER)!r}, {{}})\n"
        "process.stdout.readline()\nprint(server.pid, process.pid, flush=True)\ntime.sleep(600)\n"
    )
    supervisor = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=BASE_DIR)
    assert supervisor.stdout is not None
    with supervisor.stdout as lines:
        pids = [int(pid) for pid in lines.readline().split()]
    supervisor.kill()
    supervisor.wait()
    wait_for(lambda: not any(map(is_alive, pids)))
