"""Run a command that receives SIGTERM when its parent process dies, for any reason: parent_death.py PID COMMAND ...

The supervisor cannot clean up after its own `kill -9`. On Linux the kernel does; elsewhere the next start does.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def request_sigterm(parent_pid: int) -> None:
    """Ask the kernel for a SIGTERM when the parent's thread ends. Exit if the parent is dead already."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != parent_pid:
        sys.exit("the parent process has already ended")


def main() -> None:
    parent_pid, command = int(sys.argv[1]), sys.argv[2:]
    request_sigterm(parent_pid)
    os.execv(command[0], command)  # noqa: S606 the argv is from the supervisor


if __name__ == "__main__":
    main()
