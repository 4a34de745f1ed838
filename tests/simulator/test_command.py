"""The simulator as a program."""

import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from django.core.management import call_command

from simulator.api.list_printing import Printing
from simulator.api.server import PortTaken, run
from simulator.broker import Settings
from simulator.management.commands import kis_simulator

ROOT = Path(__file__).parents[2]


def test_a_taken_port_is_said_in_one_sentence() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortTaken, match=f"port {port} on 127.0.0.1 is not free"):
            run(Settings(), host="127.0.0.1", port=port, ready=lambda _: None)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_cleanly_when_asked(number: signal.Signals) -> None:
    code = (
        "from simulator.broker import Settings; from simulator.api.server import run; "
        "run(Settings(), host='127.0.0.1', port=0, ready=lambda port: print(port, flush=True))"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        port = int(process.stdout.readline())
        assert "commands" in httpx.get(f"http://127.0.0.1:{port}/simulator/").json()
        process.send_signal(number)
        assert process.wait(10) == 0


def test_how_the_lists_print_is_chosen_at_start(monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Settings] = []
    monkeypatch.setattr(kis_simulator, "run", lambda settings, **words: begun.append(settings))
    call_command("kis_simulator", "--print-amended", "untouched", "--print-unpriced", "zero")
    assert begun[0].printing == Printing(amended="untouched", closed="cancelled", unpriced="zero")
