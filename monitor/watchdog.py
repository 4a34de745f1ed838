"""The loop of the notifier: it writes the messages of new events, the alarms and the daily report. Other threads send.

It needs neither beat nor a worker, so it can report that those are dead. The dead-man alert and the heartbeat run on
their own threads in the same process. A second notifier does no harm: rows are unique, and claims are compare-and-set.
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
from notify.delivery import Channel, ChannelWorker, Undelivered, channels, give_up_removed_channels

log = logging.getLogger(__name__)

NEWS_SECONDS = 1.0
ALARMS_SECONDS = 5.0
REPORT_SECONDS = 20.0
# without a database no message can be written: after this the alarm is sent directly
DATABASE_SECONDS = 20.0


class Watch:
    """Turns of the loop. Each part has its own interval; an error of one part is logged, and the others continue."""

    def __init__(
        self,
        channels: Sequence[Channel],
        now: Callable[[], datetime],
        *,
        note: Callable[[bool], None] = lambda well: None,
    ) -> None:
        self._channels = channels
        self._note = note
        self._names = [channel.name for channel in channels]
        self._now = now
        self._parts = (
            (NEWS_SECONDS, lambda: alerts.gather(now(), self._names)),
            (ALARMS_SECONDS, self._alarms),
            (REPORT_SECONDS, lambda: daily_report.write_report(self._names, now=now())),
        )
        self._due = [0.0] * len(self._parts)
        self._down_since: float | None = None
        self._is_down_reported = False

    def turn(self) -> None:
        """Run each part that is due."""
        close_old_connections()
        for number, (seconds, part) in enumerate(self._parts):
            if time.monotonic() >= self._due[number]:
                self._due[number] = time.monotonic() + seconds
                self._do(part)

    def give_up_removed_channels(self) -> None:
        """Give up the messages of channels that are no longer in the settings."""
        self._do(lambda: give_up_removed_channels(self._names))

    def _do(self, part: Callable[[], object]) -> None:
        try:
            part()
        except (DatabaseError, InterfaceError) as error:
            log.warning("the database does not answer, and messages wait: %s", error)
            connection.close()
            self._report_database_down()
        except Exception:  # an error in one part must not stop the others
            log.exception("a part of the notifier failed; it is tried again")
        else:
            self._down_since, self._is_down_reported = None, False

    def _alarms(self) -> None:
        health.give_sign_of_life("notifier")
        with translation.override(settings.LANGUAGE_CODE):
            checks = health.check(self._now())
        self._note(all(check.ok for check in checks if check.name not in health.NOT_IN_READINESS))
        active = [ActiveAlert(check.name, check.text, check.patience) for check in checks if not check.ok]
        alerts.raise_alarms(active, self._names, now=self._now())

    def _report_database_down(self) -> None:
        """Send the alarm directly to every channel, without the table of messages; once for each outage."""
        self._down_since = self._down_since or time.monotonic()
        if self._is_down_reported or time.monotonic() - self._down_since < DATABASE_SECONDS:
            return
        self._is_down_reported = True
        with translation.override(settings.LANGUAGE_CODE):
            text = _(
                "ALARM: the database does not answer; until it does, AEGIS neither trades nor reports anything else"
            )
        for channel in self._channels:
            try:
                channel.send(text, None)
            except Undelivered as error:
                log.error("%s: %s", channel.name, error)


def run_watchdog(stop: threading.Event, now: Callable[[], datetime]) -> None:
    """Run the loop and the threads of the notifier until `stop`."""
    ways = channels()
    log.info("channels: %s", ", ".join(way.name for way in ways) or "the desk alone")
    heartbeat = Heartbeat(settings.HEARTBEAT_URL, stop)
    watch, workers = Watch(ways, now, note=heartbeat.note), [ChannelWorker(way, now, stop) for way in ways]
    DeadMan(ways, now, stop).start()
    heartbeat.start()
    watch.give_up_removed_channels()
    for worker in workers:
        worker.start()
    while not stop.wait(NEWS_SECONDS):
        watch.turn()
    for worker in workers:
        worker.thread.join(5.0)
