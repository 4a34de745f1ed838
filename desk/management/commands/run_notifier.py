import signal
import threading
from typing import Any

from django.core.management.base import BaseCommand
from django.utils.translation import gettext as _

from infra import clock
from monitor import watchdog


def stop_event_on_signals() -> threading.Event:
    """Return an event that is set when this process receives SIGINT or SIGTERM."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *args: stop.set())
    return stop


class Command(BaseCommand):
    help = _("Send the messages that are due, and watch that everything runs, until it is ended.")
    requires_system_checks: list[str] = []

    def handle(self, *args: Any, **options: Any) -> None:
        watchdog.run_watchdog(stop_event_on_signals(), clock.now)
