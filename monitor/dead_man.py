"""The dead-man alert: stops are armed, a venue trades, and AEGIS cannot see prices or send orders for a minute.

It runs in the notifier, on its own threads. The services that it checks may be the broken ones, so each check only
records when its subject last worked. The thread that judges by these times uses neither the database nor Redis: it has
the last known stops in memory, and sends to every channel without the table of messages. AEGIS's own halt is no outage.
"""

import contextlib
import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

import redis
from django.conf import settings
from django.db import DatabaseError, InterfaceError, close_old_connections, connection
from django.db.models import Q, Subquery
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from aegis import stops as rules
from aegis.market_halts import HaltKind
from aegis.sessions import KST, Matching, Phase, PhaseName, is_trading, phases_at
from aegis.terms import Market
from kis import factory
from kis.status import SocketState, StreamStatus
from market import calendar, queries
from market.models import Stock
from monitor import health
from notify import alerts
from notify.alerts import Notification
from notify.delivery import Channel, Undelivered
from notify.models import NotificationKind
from orders import reconcile
from orders.models import MarketHalt, Reconciliation, StopRule
from portfolio.service import PortfolioService

log = logging.getLogger(__name__)

ALARM_SECONDS = 60.0
CHECK_SECONDS = 5.0
JUDGE_SECONDS = 1.0
# the outage is over if every subject worked within this time
RECOVERY_SECONDS = 15.0
RETRY_SECONDS = 5.0
MAX_STOPS_LISTED = 60
# failed reads of the order list before it counts as an outage: the next read follows within a minute
MIN_FAILURES = 2
# the list is read each minute, and a read may take half a minute: from this age on the next one is overdue
LIST_DUE = timedelta(seconds=90)
_GUARDING = (StopRule.State.ARMED, StopRule.State.TRIGGERED, StopRule.State.ORDERED)


@dataclass(frozen=True, slots=True)
class GuardedStop:
    """A stop, with the data that an operator needs to act in the broker's app. `limit` is in won, None if unknown."""

    code: str
    name: str
    kind: str
    limit: int | None
    is_selling: bool
    venues: frozenset[Market] = frozenset({Market.KRX})

    def __str__(self) -> str:
        price = "?" if self.limit is None else f"{self.limit:,}"
        template = _("{name} ({code}): {kind} at {price} won, being sold")
        if not self.is_selling:
            template = _("{name} ({code}): {kind} at {price} won")
        return template.format(name=self.name or self.code, code=self.code, kind=_(self.kind), price=price)


@dataclass(frozen=True, slots=True)
class View:
    """The last data read: the stops that are not over, and the phases of a day."""

    stops: Sequence[GuardedStop] = ()
    day: date = date.min
    phases: Sequence[Phase] = ()

    def is_open(self, now: datetime) -> bool:
        """Whether a venue is open that may trigger or sell one of the stops."""
        phases, venues = self._phases_on(now), frozenset[Market]().union(*(stop.venues for stop in self.stops))
        return any(phase.matching is not Matching.FIXED for venue in venues for phase in phases_at(phases, venue, now))

    def needs_prices(self, now: datetime) -> bool:
        """Whether trades that may trigger one of the stops are expected now. An auction has none before its end."""
        phases, armed = self._phases_on(now), [stop for stop in self.stops if not stop.is_selling]
        return any(is_trading(venue, phases, now) for stop in armed for venue in stop.venues)

    def is_regular(self, now: datetime) -> bool:
        """Whether KRX is in its regular session."""
        phases = phases_at(self._phases_on(now), Market.KRX, now)
        return any(phase.name is PhaseName.REGULAR for phase in phases)

    def _phases_on(self, now: datetime) -> Sequence[Phase]:
        """Return today's phases. If the database could not be read today, they are from the calendar library."""
        day = now.astimezone(KST).date()
        return self.phases if day == self.day else calendar.phases_by_library(day)


class CheckFailed(Exception):
    """The subject of a check does not work now."""


@dataclass(slots=True)
class DeadManCheck:
    """A check of something that must work, and the time when that last worked, by the monotonic clock.

    `run` returns for how many seconds its subject has not worked, 0 if it works. If `run` raises, `worked_at` stays.
    """

    why: str
    run: Callable[[], float]
    worked_at: float = field(default_factory=time.monotonic)

    def run_once(self) -> None:
        try:
            close_old_connections()
            self.worked_at = time.monotonic() - self.run()
        except (CheckFailed, DatabaseError, InterfaceError, redis.RedisError) as error:
            log.info("%s: %s", self.why, error)
            with contextlib.suppress(DatabaseError, InterfaceError):
                connection.close()
        except Exception:  # a subject that cannot be checked counts as broken
            log.exception(self.why)

    def bad_seconds(self, now: float) -> float:
        return now - self.worked_at


class Outlet:
    """Sends texts on one channel, in order, on its own thread. It repeats each until the channel takes it."""

    def __init__(self, channel: Channel, stop: threading.Event) -> None:
        self._channel = channel
        self._stop = stop
        self._texts: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.thread = threading.Thread(target=self._run, name=f"dead-man-{channel.name}", daemon=True)

    def send(self, text: str) -> None:
        self._texts.put(text)

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                text = self._texts.get(timeout=JUDGE_SECONDS)
            except queue.Empty:
                continue
            while not self._try_send(text) and not self._stop.wait(RETRY_SECONDS):
                pass

    def _try_send(self, text: str) -> bool:
        """Send a text once; return whether it needs no retry: it was sent, or never can be."""
        try:
            self._channel.send(text, None)
        except Undelivered as error:
            log.error("%s: %s", self._channel.name, error)
            return error.is_final
        except Exception:  # an error of the channel must not end its thread
            log.exception("%s failed", self._channel.name)
            return False
        return True


class DeadMan:
    """Checks, judges and sends until `stop`."""

    def __init__(
        self,
        channels: Sequence[Channel],
        now: Callable[[], datetime],
        stop: threading.Event,
        *,
        alarm_seconds: float = ALARM_SECONDS,
        check_seconds: float = CHECK_SECONDS,
        recovery_seconds: float = RECOVERY_SECONDS,
    ) -> None:
        self._now = now
        self._stop = stop
        self._alarm_seconds = alarm_seconds
        self._check_seconds = check_seconds
        self._recovery_seconds = recovery_seconds
        self._outlets = [Outlet(channel, stop) for channel in channels]
        self._view = View()
        self._guarded_since: float | None = None
        self._reported_since: float | None = None
        self._priced_at = time.monotonic()
        self._news: queue.SimpleQueue[Notification] = queue.SimpleQueue()
        self.checks = (
            DeadManCheck(gettext_noop("the database does not answer"), self._read),
            DeadManCheck(gettext_noop("no prices are seen"), self._prices),
            DeadManCheck(gettext_noop("no orders can be sent"), self._orders),
        )
        threads = [threading.Thread(target=self._repeat, args=(check,), daemon=True) for check in self.checks]
        judge = threading.Thread(target=self._judge, name="dead-man", daemon=True)
        self.threads = [*threads, judge, *(outlet.thread for outlet in self._outlets)]

    def start(self) -> None:
        for thread in self.threads:
            thread.start()

    def _repeat(self, check: DeadManCheck) -> None:
        try:
            while not self._stop.is_set():
                check.run_once()
                self._stop.wait(self._check_seconds)
        finally:
            connection.close()

    # --- checks, each on its own thread

    def _read(self) -> float:
        """Read the stops and the day's phases, and write the messages of alerts sent meanwhile."""
        now = self._now()
        rows = list(StopRule.objects.filter(state__in=_GUARDING).order_by("stock_code", "pk"))
        codes = {row.stock_code for row in rows}
        on_nxt = set[str]()
        if not settings.KIS_ENVIRONMENT.is_paper:
            on_nxt.update(Stock.objects.filter(pk__in=codes, trades_on_nxt=True).values_list("pk", flat=True))
        averages = {holding.stock_code: holding.avg_price for holding in PortfolioService().get_portfolio()}
        guarded_stops = []
        for row in rows:
            average = averages.get(row.stock_code)
            limit = rules.trigger_limit(row.rule(average)) if average is not None else None
            is_selling = row.state != StopRule.State.ARMED
            kind = _KINDS[row.kind]
            venues = row.venues if row.stock_code in on_nxt else row.venues & {Market.KRX}
            guarded_stops.append(GuardedStop(row.stock_code, row.stock_name, kind, limit, is_selling, venues))
        self._view = View(guarded_stops, now.astimezone(KST).date(), queries.today(now))
        self._write_down(now)
        return 0.0

    def _write_down(self, now: datetime) -> None:
        while not self._news.empty():
            alerts.write_messages([self._news.get()], [], now=now)

    def _prices(self) -> float:
        """Return the age in seconds of the newest sign of a price: market data, or a polled quote of a stop's stock.

        Echoes of a connected socket are no prices. If the whole market is quiet, it suffices that the next poll of a
        stop's stock is not due yet. At times when no trades are expected, the age is 0.
        """
        now, read_at = self._now(), time.monotonic()
        if self._view.needs_prices(now):
            status = factory.stream_status()
            is_connected = status.state is SocketState.CONNECTED
            ages = list(self._poll_ages(now, is_quiet=is_connected and self._is_quiet(status, now)))
            if is_connected and status.data_age is not None:
                ages.append(status.data_age)
            self._priced_at = max(self._priced_at, read_at - min(ages, default=float("inf")))
        else:
            self._priced_at = read_at
        return read_at - self._priced_at

    def _is_quiet(self, status: StreamStatus, now: datetime) -> bool:
        """Whether a pause in market data is possible although the socket receives all of it.

        In KRX's regular session one feed always has data, except in a circuit breaker.
        """
        if not (status.has_reference_feed and self._view.is_regular(now)):
            return True
        return MarketHalt.objects.filter(kind=HaltKind.CIRCUIT_BREAKER, ended_at=None).exists()

    def _poll_ages(self, now: datetime, *, is_quiet: bool) -> Iterator[float]:
        """Yield the seconds since the last polled quote of each armed stop; while the market `is_quiet`, the seconds
        for which the next poll has been due.
        """
        armed = StopRule.objects.filter(state=StopRule.State.ARMED)
        for polled_at, pause in armed.values_list("poll_state__asked_at", "poll_state__pause"):
            # a time in the future is from before a rehearsal's clock was set back
            if polled_at and polled_at <= now.timestamp():
                yield max(0.0, now.timestamp() - polled_at - ((pause or 0.0) if is_quiet else 0.0))

    def _orders(self) -> float:
        """Return for how many seconds the order list has failed or been overdue, so that no order can be sent.

        Raises CheckFailed if no worker consumes the queue of stop sales, or no list was ever read.
        """
        if "urgent" not in health.consumers.queues():
            raise CheckFailed("no worker sells for stops")
        now = self._now()
        read_at, failed_at = self._newest_read_and_failures(now)
        overdue_seconds = (now - read_at - LIST_DUE).total_seconds()
        failing_seconds = (now - failed_at[0]).total_seconds() if len(failed_at) >= MIN_FAILURES else 0.0
        return max(0.0, overdue_seconds, failing_seconds)

    def _newest_read_and_failures(self, now: datetime) -> tuple[datetime, Sequence[datetime]]:
        """Return the time of the newest read of the order list, and of the first failures after it. One query.

        A read that has not ended is no read. Raises CheckFailed if no list was ever read.
        """
        until_now = Reconciliation.objects.filter(at__lte=now)
        newest_read = Subquery(until_now.filter(outcome__in=reconcile.READ).values("pk")[:1])
        is_read_or_failed = Q(pk=newest_read) | Q(outcome=Reconciliation.Outcome.FAILED)
        rows = until_now.filter(is_read_or_failed, pk__gte=newest_read).order_by("pk")
        times = list(rows.values_list("at", flat=True)[: 1 + MIN_FAILURES])
        if not times:
            raise CheckFailed("the order list was never read")
        return times[0], times[1:]

    # --- judging: memory only

    def _judge(self) -> None:
        while not self._stop.wait(min(JUDGE_SECONDS, self._check_seconds)):
            try:
                self.judge(time.monotonic())
            except Exception:  # this thread must not end: no other one reports the outage
                log.exception("the dead-man alert failed; it is tried again")

    def judge(self, now: float) -> None:
        """Report an outage once when it has lasted long enough, and once more when it is over."""
        view = self._view
        if not (view.stops and view.is_open(self._now())):
            self._guarded_since = None
        elif self._guarded_since is None:
            self._guarded_since = now
        worst = max(check.bad_seconds(now) for check in self.checks)
        if self._reported_since is not None:
            if worst < self._recovery_seconds:
                self._report_over(now)
        elif self._guarded_since is not None and min(worst, now - self._guarded_since) >= self._alarm_seconds:
            self._reported_since = now - min(worst, now - self._guarded_since)
            self._send(self._alarm(view, now))

    def _alarm(self, view: View, now: float) -> str:
        failing = [check for check in self.checks if check.bad_seconds(now) >= self._recovery_seconds]
        with translation.override(settings.LANGUAGE_CODE):
            head = _(
                "ALARM: for {seconds:,.0f} s AEGIS cannot guard its stops ({why}). Act in the broker's app if need be:"
            ).format(seconds=now - (self._reported_since or now), why=", ".join(_(check.why) for check in failing))
            lines = [head, *map(str, view.stops[:MAX_STOPS_LISTED])]
            if len(view.stops) > MAX_STOPS_LISTED:
                lines.append(_("and {count} more").format(count=len(view.stops) - MAX_STOPS_LISTED))
        return "\n".join(lines)

    def _report_over(self, now: float) -> None:
        with translation.override(settings.LANGUAGE_CODE):
            text = _("Over, after {seconds:,.0f} s: AEGIS guards its stops again")
        since, self._reported_since = self._reported_since or now, None
        self._send(text.format(seconds=now - since))

    def _send(self, text: str) -> None:
        at = self._now()
        log.critical("%s", text)
        for outlet in self._outlets:
            outlet.send(text)
        # the desk shows it once the database answers
        self._news.put(Notification(f"dead-man:{at:%Y%m%d%H%M%S%f}", NotificationKind.ALARM, text, at))


_KINDS = {
    rules.StopKind.STOP_LOSS.value: gettext_noop("stop loss"),
    rules.StopKind.TAKE_PROFIT.value: gettext_noop("take profit"),
    rules.StopKind.TRAILING.value: gettext_noop("trailing stop"),
}
