"""Included by a worker of a check: it ends itself by SIGKILL at one of its broker calls.

`DIES_AT` is "before" or "after", and the name of a method of the broker: "before place" has committed the order, and
"after place" has the broker's reply, which nothing records.
"""

import os
import signal
from typing import Any

from kis.broker import KISBroker

_when, _name = os.environ["DIES_AT"].split()
_call = getattr(KISBroker, _name)


def _die(*words: Any, **options: Any) -> None:
    if _when == "after":
        _call(*words, **options)
    os.kill(os.getpid(), signal.SIGKILL)


setattr(KISBroker, _name, _die)
