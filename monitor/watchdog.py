"""The loop of the one who tells: news into rows, alarms, the day's report; its channels tell on threads of their own.

It needs neither beat nor a worker, so it can say that those are dead. Beside it stand the dead man's alarm and the
heartbeat, each on threads of its own. A second one beside it does no harm: rows are
unique, and claims are compare-and-set.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime

from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections, connection
from django.utils import translation
from django.utils.translation import gettext as _

from monitor import daily_report, health
from monitor.dead_man import DeadMan
from monitor.heartbeat import Heartbeat
from notify import alerts
from notify.alerts import ActiveAlert
from notify.delivery import Channel, ChannelWorker, Undelivered, channels, give_up_strangers

log = logging.getLogger(__name__)

NEWS_SECONDS = 1.0
ALARMS_SECONDS = 5.0
REPORT_SECONDS = 20.0
# without a database nothing can be written down: people are told straight away, after this
DATABASE_SECONDS = 20.0


class Watch:
    """Turns of the loop. Each part waits its own time; what one raises is logged, and the others go on."""

    def __init__(
        self,
        ways: Sequence[Channel],
        now: Callable[[], datetime],
        *,
        note: Callable[[bool], None] = lambda well: None,
    ) -> None:
        self._ways = ways
        self._note = note
        self._names = [way.name for way in ways]
        self._now = now
        self._parts = (
            (NEWS_SECONDS, lambda: alerts.gather(now(), self._names)),
            (ALARMS_SECONDS, self._alarms),
            (REPORT_SECONDS, lambda: daily_report.tell_day(self._names, now=now())),
        )
        self._due = [0.0] * len(self._parts)
        self._away_since: float | None = None
        self._is_away_told = False

    def turn(self) -> None:
        """Do what is due."""
        close_old_connections()
        for number, (seconds, part) in enumerate(self._parts):
            if time.monotonic() >= self._due[number]:
                self._due[number] = time.monotonic() + seconds
                self._do(part)

    def give_up_strangers(self) -> None:
        """Let nothing wait for a channel that nobody serves any more."""
        self._do(lambda: give_up_strangers(self._names))

    def _do(self, part: Callable[[], object]) -> None:
        try:
            part()
        except (DatabaseError, InterfaceError) as error:
            log.warning("the database does not answer, and news waits: %s", error)
            connection.close()
            self._database_away()
        except Exception:  # a fault in one kind of news must not silence the rest
            log.exception("a part of telling failed; it is tried again")
        else:
            self._away_since, self._is_away_told = None, False

    def _alarms(self) -> None:
        health.live("notifier")
        with translation.override(settings.LANGUAGE_CODE):
            checks = health.check(self._now())
        self._note(all(check.ok for check in checks if check.name not in health.NOT_READY))
        troubles = [ActiveAlert(check.name, check.text, check.patience) for check in checks if not check.ok]
        alerts.raise_alarms(troubles, self._names, now=self._now())

    def _database_away(self) -> None:
        """Tell at once, past the table that is not there; once for each time."""
        self._away_since = self._away_since or time.monotonic()
        if self._is_away_told or time.monotonic() - self._away_since < DATABASE_SECONDS:
            return
        self._is_away_told = True
        with translation.override(settings.LANGUAGE_CODE):
            text = _("ALARM: the database does not answer; nothing is traded, and nothing else is told until it does")
        for way in self._ways:
            try:
                way.tell(text, None)
            except Undelivered as error:
                log.error("%s: %s", way.name, error)


def run_watchdog(stop: threading.Event, now: Callable[[], datetime]) -> None:
    """Watch and tell until `stop`."""
    ways = channels()
    log.info("telling on %s", ", ".join(way.name for way in ways) or "the desk alone")
    heartbeat = Heartbeat(settings.HEARTBEAT_URL, stop)
    watch, workers = Watch(ways, now, note=heartbeat.note), [ChannelWorker(way, now, stop) for way in ways]
    DeadMan(ways, now, stop).start()
    heartbeat.start()
    watch.give_up_strangers()
    for worker in workers:
        worker.start()
    while not stop.wait(NEWS_SECONDS):
        watch.turn()
    for worker in workers:
        worker.thread.join(5.0)
