"""Run a command that is asked to end when its starter dies, however that dies: leash.py PID COMMAND ...

The supervisor cannot clean up after its own `kill -9`; the kernel can (Linux; elsewhere the next start does).
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    starter, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGTERM))
    if os.getppid() != starter:
        sys.exit("the starter is gone already")
    os.execv(command[0], command)  # noqa: S606 what the supervisor wrote


if __name__ == "__main__":
    main()
