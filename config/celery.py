"""The Celery app: queues by priority, and the worker step that holds the broker's WebSocket.

The settings route tasks: `urgent` is only for stops and requested cancels, `orders` must not wait, `sync` may wait,
`notify` sends messages. The stream worker is a worker started with `--kis-stream`: it answers Flower like any other
worker, and holds the WebSocket in a thread of its own.
"""

import os
import threading
import warnings
from typing import Any

from celery import Celery, bootsteps, signals
from click import Option
from django.conf import settings
from django.db import close_old_connections

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")


# root may run AEGIS, as for a rehearsal in a container; Celery warns of root at every start
warnings.filterwarnings("ignore", r"\s*You're running the worker with superuser privileges")


class CelerySettings:
    """Celery's part of the settings. Workers report theirs to Flower, so they get none of the others, such as keys."""

    # Celery's Django integration reads this setting by its full name
    FULL_NAMES = ("CELERY_DB_REUSE_MAX",)

    def __dir__(self) -> list[str]:
        setting_names = [name for name in dir(settings) if name.startswith("CELERY_")]
        return [name if name in self.FULL_NAMES else name.removeprefix("CELERY_").lower() for name in setting_names]

    def __getattr__(self, name: str) -> Any:
        try:
            return getattr(settings, name if name in self.FULL_NAMES else f"CELERY_{name.upper()}")
        except AttributeError:
            raise AttributeError(name) from None


app = Celery("aegis")
app.config_from_object(CelerySettings())
app.autodiscover_tasks()


@signals.task_prerun.connect
def check_connection(**kwargs: Any) -> None:
    """Make the task's first query test a kept connection: the server may have restarted since the last task."""
    close_old_connections()


@signals.celeryd_after_setup.connect
def discard_reconciliation(instance: Any, **kwargs: Any) -> None:
    """Discard the reconciliation of earlier workers, before the first task is taken."""
    if "orders" in instance.app.amqp.queues.consume_from:
        from infra import clock
        from orders import reconcile

        reconcile.invalidate(clock.now())


@signals.worker_ready.connect
def catch_up(sender: Any, **kwargs: Any) -> None:
    """Catch up with what happened during the downtime as soon as tasks can run, not one period later."""
    if "orders" in sender.app.amqp.queues.consume_from:
        sender.app.send_task("orders.tasks.begin")


STREAM_STOP_SECONDS = 5.0


class StreamStep(bootsteps.StartStopStep):
    """Runs the broker's WebSocket beside a worker's tasks."""

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
