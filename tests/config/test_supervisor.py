"""Processes kept running: what dies comes back, what is told to end ends, and nobody else does."""

import errno
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from config.env import BASE_DIR
from ops.fork_server import ForkServer
from ops.supervisor import AlreadyRunning, Program, Supervisor, end_leftovers, sole_supervisor, write_pid_record
from tests.processes import is_alive, wait_for

FOR_EVER = "import time; print('up', flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {FOR_EVER}"


@pytest.fixture(scope="module")
def fork_server() -> Iterator[ForkServer]:
    server = ForkServer(BASE_DIR)
    server.start()
    yield server
    server.close()


class Kept:
    """A supervisor, what it said and what its processes printed."""

    def __init__(self, run_dir: Path, fork_server: ForkServer) -> None:
        self.said: list[str] = []
        self.output = io.StringIO()
        self.run_dir = run_dir
        self.supervisor = Supervisor(
            run_dir, fork_server=fork_server, output=self.output, say=self.said.append, first_pause_seconds=0.1
        )

    def program(self, name: str, code: str = FOR_EVER, **options: object) -> Program:
        path = self.run_dir / f"{name}.py"
        path.write_text(code, encoding="utf-8")
        return Program(name, (sys.executable, str(path)), **options)  # type: ignore[arg-type]

    def start(self, *programs: Program) -> None:
        self.supervisor.start(programs)
        for one in programs:
            wait_for(lambda one=one: "up" in self.supervisor.last_line(one.name))

    def pid(self, name: str) -> int:
        pid = self.supervisor.pid(name)
        assert pid is not None
        return pid


@pytest.fixture
def kept(tmp_path: Path, fork_server: ForkServer) -> Iterator[Kept]:
    kept = Kept(tmp_path, fork_server)
    yield kept
    kept.supervisor.kill_remaining()
    kept.supervisor.stop()


def test_a_killed_process_starts_again_and_the_operator_is_told(kept: Kept) -> None:
    kept.start(kept.program("worker"), kept.program("other"))
    killed, other = kept.pid("worker"), kept.pid("other")
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: kept.supervisor.pid("worker") not in (None, killed))
    assert kept.pid("other") == other
    assert any("worker" in line and "SIGKILL" in line for line in kept.said)


def test_a_house_that_can_write_nothing_still_starts_again_what_dies(tmp_path: Path, fork_server: ForkServer) -> None:
    def mute(words: str) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    kept = Kept(tmp_path, fork_server)
    records = tmp_path / "run"
    records.mkdir()
    kept.supervisor = Supervisor(
        records, fork_server=fork_server, output=kept.output, say=mute, first_pause_seconds=0.1
    )
    kept.start(kept.program("worker"))
    shutil.rmtree(records)
    killed = kept.pid("worker")
    try:
        os.kill(killed, signal.SIGKILL)
        wait_for(lambda: kept.supervisor.pid("worker") not in (None, killed))
        assert kept.supervisor.is_supervising
    finally:
        kept.supervisor.kill_remaining()
        kept.supervisor.stop()


def test_a_process_that_keeps_ending_is_waited_for_longer_each_time(kept: Kept) -> None:
    kept.supervisor.start([kept.program("failing", "import sys; print('no', flush=True); sys.exit(3)")])
    wait_for(lambda: len(kept.said) == 3)
    for line, pause in zip(kept.said, ("0.1", "0.2", "0.4"), strict=False):
        assert f"{pause}초" in line


def test_the_end_is_the_end_of_all_and_in_order(kept: Kept, tmp_path: Path) -> None:
    tell = (
        "import signal, sys, time\n"
        "def end(*_): print('ended', NAME, flush=True); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end); print('up', flush=True); time.sleep(600)"
    )
    names = ("exchange", "beat", "worker")
    ranks = {"beat": 0, "worker": 1, "exchange": 2}
    kept.start(*(kept.program(name, f"NAME = {name!r}\n{tell}", stop_rank=ranks[name]) for name in names))
    pids = [kept.pid(name) for name in names]
    kept.supervisor.stop()
    assert not any(is_alive(pid) for pid in pids)
    ended = [line.split()[-1] for line in kept.output.getvalue().splitlines() if "ended" in line]
    assert ended == ["beat", "worker", "exchange"]
    assert list(tmp_path.glob("*.json")) == []


def test_who_does_not_end_when_asked_is_killed_after_its_grace(kept: Kept) -> None:
    kept.start(kept.program("deaf", DEAF, grace_seconds=0.3))
    pid = kept.pid("deaf")
    kept.supervisor.stop()
    assert not is_alive(pid)


def test_a_second_request_does_not_wait(kept: Kept) -> None:
    kept.start(kept.program("deaf", DEAF, grace_seconds=60))
    began = time.monotonic()
    kept.supervisor.kill_remaining()
    kept.supervisor.stop()
    assert time.monotonic() - began < 5


def test_children_of_a_dead_process_do_not_hold_its_place(kept: Kept) -> None:
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {FOR_EVER!r}]); time.sleep(600)"
    kept.start(kept.program("parent", parent))
    (child,) = psutil.Process(kept.pid("parent")).children()
    os.kill(kept.pid("parent"), signal.SIGKILL)
    wait_for(lambda: not is_alive(child.pid))


def test_one_home_has_one_supervisor(tmp_path: Path) -> None:
    with sole_supervisor(tmp_path):
        with pytest.raises(AlreadyRunning) as refused, sole_supervisor(tmp_path):
            pass
        assert refused.value.pid == os.getpid()
    with sole_supervisor(tmp_path):
        pass


def test_leftovers_are_ended_and_a_stranger_with_their_number_is_not(tmp_path: Path) -> None:
    ours, stranger = (subprocess.Popen([sys.executable, "-c", FOR_EVER], stdout=subprocess.DEVNULL) for _ in range(2))
    try:
        write_pid_record(tmp_path / "worker.json", ours.pid)
        (tmp_path / "web.json").write_text(json.dumps({"pid": stranger.pid, "created": 1.0}), encoding="ascii")
        (tmp_path / "torn.json").write_text('{"pid"', encoding="ascii")
        said: list[str] = []
        end_leftovers(tmp_path, said.append)
        assert ours.wait(5) == -signal.SIGTERM
        assert stranger.poll() is None
        assert len(said) == 1
        assert list(tmp_path.glob("*.json")) == []
    finally:
        for process in (ours, stranger):
            process.kill()
            process.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the parent-death signal is the kernel's, and Linux has one")
def test_a_killed_supervisor_takes_its_processes_along(tmp_path: Path) -> None:
    program = tmp_path / "worker.py"
    program.write_text(FOR_EVER, encoding="utf-8")
    script = (
        "import sys, time; from pathlib import Path\n"
        "from django.conf import settings; settings.configure()\n"
        "from ops.fork_server import ForkServer\n"
        "from ops.supervisor import Program, Supervisor\n"
        f"server = ForkServer(Path({str(BASE_DIR)!r})); server.start()\n"
        f"supervisor = Supervisor(Path({str(tmp_path)!r}), fork_server=server, output=sys.stdout, say=print)\n"
        f"supervisor.start([Program('worker', (sys.executable, {str(program)!r}))])\n"
        "time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL, cwd=BASE_DIR)
    try:
        record = tmp_path / "worker.json"
        wait_for(record.exists)
        pid = json.loads(record.read_text(encoding="ascii"))["pid"]
        children = psutil.Process(process.pid).children()
        assert psutil.Process(pid).parent() in children, "the fork server is the parent"
    finally:
        process.kill()
        process.wait()
    wait_for(lambda: not any(is_alive(pid) for pid in (pid, *(child.pid for child in children))))
