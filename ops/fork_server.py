"""Forks processes from one that has imported everything: they start faster and share memory.

`ForkServer` is the supervisor's side: it keeps `python -m ops.fork_server` running and asks it for processes over a
socket pair. The server has one thread and opens no connection, so that a fork copies neither. A forked process runs a
Python command like a new process, with the settings that the server has read.

A request is a line of JSON (`argv`, `environment`) with the file descriptor of the process's output, and only one is
under way at a time. The replies are lines too: `{"pid": N}` or `{"error": text}`, and `{"pid": N, "code": C}` once the
process has ended. If the server dies, the kernel sends its processes SIGTERM, and the supervisor starts them again.
"""

import contextlib
import errno
import gc
import importlib
import json
import os
import queue
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import psutil
import setproctitle

from ops import parent_death

RESTART_SECONDS = 1.0
REPLY_SECONDS = 30.0
MAX_REQUEST_BYTES = 65_536
# what a process imports when it runs, besides the applications and the tasks
LIBRARIES = (
    "celery.apps.beat",
    "celery.apps.worker",
    "celery.bin.celery",
    "celery.concurrency.thread",
    "django.core.handlers.wsgi",
    "flower.command",
    "gunicorn.app.wsgiapp",
    "gunicorn.workers.gthread",
    "kombu.transport.redis",
)
# not config.wsgi, which gives the web server longer limits
OURS = (
    "config.beat",
    "config.urls",
    "monitor.watchdog",
    "simulator.management.commands.kis_simulator",
    "stream.worker",
)


class ForkedProcess:
    """A process of the fork server, with the part of `subprocess.Popen` that the supervisor uses."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.stdout: IO[bytes] | None = None
        self._code: int | None = None
        self._ended = threading.Event()

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while the process runs."""
        return self._code

    def wait(self) -> int:
        """Wait for the end of the process, and return its exit code."""
        self._ended.wait()
        assert self._code is not None
        return self._code

    def set_ended(self, code: int) -> None:
        self._code = code
        self._ended.set()

    def wait_until_gone(self) -> None:
        """Wait for the end of a process whose server has died: nobody is left to report its exit code."""
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            if sys.platform != "linux":
                process.terminate()
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.05)
        self.set_ended(-signal.SIGTERM)


class ForkServer:
    """Keeps the fork server running. It is started before the programs, and closed after they have ended."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._request_lock = threading.Lock()
        self._is_up = threading.Event()
        self._is_closing = threading.Event()
        self._channel: socket.socket | None = None
        self._replies: queue.Queue[ForkedProcess | OSError] = queue.Queue()
        self._processes: dict[int, ForkedProcess] = {}
        self._server: subprocess.Popen[bytes] | None = None
        # the parent-death signal is sent when the forking thread ends: this one lives as long as the supervisor
        self._thread = threading.Thread(target=self._keep, name="fork-server", daemon=True)

    @property
    def pid(self) -> int | None:
        """The process id of the server, None if it does not run."""
        return self._server.pid if self._server and self._server.poll() is None else None

    def start(self) -> None:
        """Start the server. Return at once, while it still imports."""
        self._thread.start()

    def close(self) -> None:
        """End the server, after its processes have ended."""
        self._is_closing.set()
        self._end_requests()
        if self._thread.is_alive():
            self._thread.join()

    def fork(self, argv: Sequence[str], environment: Mapping[str, str]) -> ForkedProcess:
        """Return a new process that runs a Python command, `environment` added to the server's. Raises OSError."""
        output, descriptor = os.pipe()
        try:
            process = self._request({"argv": list(argv), "environment": dict(environment)}, descriptor)
        except BaseException:
            os.close(output)
            raise
        finally:
            os.close(descriptor)
        process.stdout = os.fdopen(output, "rb")
        return process

    def _request(self, request: Mapping[str, Any], descriptor: int) -> ForkedProcess:
        with self._request_lock:
            if not self._is_up.wait(REPLY_SECONDS):
                raise OSError(errno.ECHILD, "the fork server does not run")
            channel, replies = self._channel, self._replies
            assert channel is not None
            socket.send_fds(channel, [json.dumps(request).encode()], [descriptor])
            try:
                reply = replies.get(timeout=REPLY_SECONDS)
            except queue.Empty:
                # a late reply must not be taken for that of the next request
                assert self._server is not None
                self._server.kill()
                raise OSError(errno.ETIMEDOUT, "the fork server did not reply") from None
            if isinstance(reply, OSError):
                raise reply
            return reply

    def _keep(self) -> None:
        """Run the server, and start it again if it dies."""
        while not self._is_closing.is_set():
            self._channel, theirs = socket.socketpair()
            self._replies = queue.Queue()
            with theirs:
                self._server = self._launch(theirs)
            self._is_up.set()
            if self._is_closing.is_set():  # `close` may have found no channel
                self._end_requests()
            with self._channel, self._channel.makefile("rb") as lines, contextlib.suppress(OSError):
                for line in lines:
                    self._handle(json.loads(line))
            self._is_up.clear()
            self._replies.put(OSError(errno.EPIPE, "the fork server has ended"))
            if self._server is not None:
                self._server.wait()
            while self._processes:
                _, process = self._processes.popitem()
                threading.Thread(target=process.wait_until_gone, daemon=True).start()
            self._is_closing.wait(RESTART_SECONDS)

    def _end_requests(self) -> None:
        with contextlib.suppress(OSError):
            if self._channel is not None:
                self._channel.shutdown(socket.SHUT_WR)

    def _launch(self, channel: socket.socket) -> "subprocess.Popen[bytes] | None":
        command = [sys.executable, "-I", "-S", parent_death.__file__, str(os.getpid())]
        command += [sys.executable, "-m", __name__]
        # on failure, the machine is out of memory or processes: the other end of the channel closes
        with contextlib.suppress(OSError):
            return subprocess.Popen(command, stdin=channel.fileno(), cwd=self._directory, start_new_session=True)
        return None

    def _handle(self, reply: Mapping[str, Any]) -> None:
        if "error" in reply:
            self._replies.put(OSError(errno.EAGAIN, reply["error"]))
        elif "code" in reply:
            self._processes.pop(reply["pid"]).set_ended(reply["code"])
        else:
            process = self._processes[reply["pid"]] = ForkedProcess(reply["pid"])
            self._replies.put(process)


# --- the server


def main() -> None:
    channel = socket.socket(fileno=os.dup(sys.stdin.fileno()))
    preload()
    argv = _serve(channel)
    _run(argv)


def preload() -> None:
    """Import what the processes need, without a thread or a connection."""
    import django

    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
    # numpy, where it is installed, makes a thread for each further core
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    django.setup()
    from config.celery import app

    app.loader.import_default_modules()
    for name in LIBRARIES + OURS:
        importlib.import_module(name)
    # the collector would write to every object, and so copy every page
    gc.collect()
    gc.freeze()


def _serve(channel: socket.socket) -> list[str]:
    """Fork a process for each request. Return in the new process only, with its command; exit after the last one."""
    # a signal handler may run anywhere; what it writes wakes `select`
    woken, waker = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(waker, False)
    signal.set_wakeup_fd(waker)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    while True:
        ready, _, _ = select.select([channel.fileno(), woken], [], [])
        if woken in ready:
            os.read(woken, MAX_REQUEST_BYTES)
            for pid, code in _ended():
                _reply(channel, pid=pid, code=code)
        if channel.fileno() in ready:
            request, outputs, _, _ = socket.recv_fds(channel, MAX_REQUEST_BYTES, 1)
            if not request:
                sys.exit()
            if _fork(channel):
                signal.set_wakeup_fd(-1)
                signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                channel.close()
                os.close(woken)
                os.close(waker)
                return _begin(json.loads(request), outputs[0])
            os.close(outputs[0])


def _fork(channel: socket.socket) -> bool:
    """Fork. Return True in the new process; in the server, reply and return False."""
    server_pid = os.getpid()
    try:
        pid = os.fork()
    except OSError as error:
        _reply(channel, error=str(error))
        return False
    if pid:
        _reply(channel, pid=pid)
        return False
    parent_death.request_sigterm(server_pid)
    return True


def _ended() -> Iterator[tuple[int, int]]:
    """Yield the process id and the exit code of each process that has ended."""
    with contextlib.suppress(ChildProcessError):
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid == 0:
                return
            yield pid, os.waitstatus_to_exitcode(status)


def _reply(channel: socket.socket, **reply: Any) -> None:
    channel.sendall(json.dumps(reply).encode() + b"\n")


def _begin(request: Mapping[str, Any], output: int) -> list[str]:
    """Give the new process its own session, output, environment and title. Return its command."""
    # a session of its own: Ctrl-C in the terminal reaches only the supervisor
    os.setsid()
    null = os.open(os.devnull, os.O_RDONLY)
    for descriptor, standard in ((null, 0), (output, 1), (output, 2)):
        os.dup2(descriptor, standard)
    os.close(null)
    os.close(output)
    os.environ |= request["environment"]
    argv: list[str] = request["argv"]
    setproctitle.setproctitle(" ".join(argv))
    return argv


def _run(argv: Sequence[str]) -> None:
    """Run `python -m MODULE ...` or `python FILE ...` in this process."""
    _, *arguments = argv
    if arguments[0] == "-m":
        sys.argv = arguments[1:]
        runpy.run_module(arguments[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main()
