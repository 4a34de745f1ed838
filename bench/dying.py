"""Included by a worker of a check: the worker kills itself with SIGKILL at one of its broker calls.

`DIES_AT` is "before" or "after", and the name of a method of the broker. At "before place" the order is committed; at
"after place" the broker has replied, and the reply is not recorded.
"""

import os
import signal
from typing import Any

from kis.broker import KISBroker

_when, _name = os.environ["DIES_AT"].split()
_call = getattr(KISBroker, _name)


def _die(*args: Any, **kwargs: Any) -> None:
    if _when == "after":
        _call(*args, **kwargs)
    os.kill(os.getpid(), signal.SIGKILL)


setattr(KISBroker, _name, _die)
