"""Included by a Celery worker of a test: it ends itself by SIGKILL before it sends one kind of task."""

import os
import signal
from typing import Any

from celery.signals import before_task_publish


@before_task_publish.connect
def die(sender: str | None = None, **about: Any) -> None:
    if sender == os.environ.get("DIES_BEFORE"):
        os.kill(os.getpid(), signal.SIGKILL)
