"""The Celery app: queues by urgency, and the worker step that holds the broker's socket.

The settings route tasks: `urgent` is for stops and requested cancels alone, `orders` must not wait, `sync` may,
`notify` tells people. The stream worker is a worker started with `--kis-stream`: it answers Flower like any other and
holds the socket in a thread of its own.
"""

import os
import threading
from typing import Any

from celery import Celery, bootsteps, signals
from click import Option
from django.conf import settings
from django.db import close_old_connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


class CelerySettings:
    """Celery's part of the settings. Workers tell Flower all they were given; keys and passwords they are not."""

    # the one that Celery's Django part reads by its full name
    FULL_NAMES = ("CELERY_DB_REUSE_MAX",)

    def __dir__(self) -> list[str]:
        ours = [name for name in dir(settings) if name.startswith("CELERY_")]
        return [name if name in self.FULL_NAMES else name.removeprefix("CELERY_").lower() for name in ours]

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(settings, name if name in self.FULL_NAMES else f"CELERY_{name.upper()}")
        except AttributeError:
            raise AttributeError(name) from None


app = Celery("aegis")
app.config_from_object(CelerySettings())
app.autodiscover_tasks()


@signals.task_prerun.connect
def check_connection(**about: Any) -> None:
    """Make the task's first query test a kept connection: the server may have started anew since the last."""
    close_old_connections()


@signals.celeryd_after_setup.connect
def forget(instance: Any, **about: Any) -> None:
    """Before the first task is taken: what was reconciled by workers of before does not count any more."""
    if "orders" in instance.app.amqp.queues.consume_from:
        from infra import clock
        from orders import reconcile

        reconcile.begin_anew(clock.now())


@signals.worker_ready.connect
def begin(sender: Any, **about: Any) -> None:
    """Learn what happened while we were away as soon as orders can be worked on, not a period later."""
    if "orders" in sender.app.amqp.queues.consume_from:
        sender.app.send_task("orders.tasks.begin")


STREAM_STOP_SECONDS = 5.0


class StreamStep(bootsteps.StartStopStep):
    """Runs the broker's socket beside a worker's tasks."""

    requires = {"celery.worker.components:Pool"}

    def __init__(self, parent: Any, kis_stream: bool = False, **options: Any) -> None:
        super().__init__(parent, **options)
        self.enabled = kis_stream
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def include_if(self, parent: Any) -> bool:
        return self.enabled

    def start(self, parent: Any) -> None:
        from stream.worker import run_as_leader

        self._thread = threading.Thread(target=run_as_leader, args=(self._stop,), name="kis-stream", daemon=True)
        self._thread.start()

    def stop(self, parent: Any) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(STREAM_STOP_SECONDS)

    terminate = stop


app.user_options["worker"].add(Option(("--kis-stream",), is_flag=True, help="Hold the broker's WebSocket."))
app.steps["worker"].add(StreamStep)
