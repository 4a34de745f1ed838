"""The health checks: the conditions for AEGIS to work. `/readyz`, the alarms and the doctor's last page use them.

No check calls the broker. A check that cannot be made has failed, and its text is the reason.
"""

import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import redis
from celery import current_app
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Q
from django.utils.translation import gettext as _

from aegis.lifecycle import Status
from infra import heartbeat
from kis import factory
from market import queries
from notify.models import Message
from orders import daily_loss, reconcile
from orders.models import Reconciliation, TradeOrder
from portfolio.models import AccountSnapshot

log = logging.getLogger(__name__)

PRIORITY_SEPARATOR = "\x06\x16"
QUEUES = ("urgent", "orders", "sync", "notify", "stream")
# beat gives a sign of life at least every five seconds, and a successor takes over within twenty
BEAT_SECONDS = 25.0
NOTIFIER_SECONDS = 30.0
# three missed turns of the schedule
RECONCILIATION_SECONDS, BALANCE_SECONDS, BALANCE_CLOSED_SECONDS = 180, 180, 1800
DEPTH = 200
UNKNOWN_PERIOD = timedelta(minutes=5)
UNDELIVERED_PERIOD = timedelta(minutes=10)
# how long the check of messages fails because of a message that was given up
GIVEN_UP_PERIOD = timedelta(hours=24)
DISK_FREE = 0.05
INSPECT_SECONDS = 1.0
INSPECTION_PERIOD_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one health check. `text` is the failure, empty if the check passed."""

    name: str
    text: str = ""
    # how long the check may fail before the alarm is reported
    patience: timedelta = timedelta(seconds=60)

    @property
    def ok(self) -> bool:
        return not self.text


CheckFunction = Callable[[datetime], str]


def check_database_connection(now: datetime) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return ""


def check_shared_redis(now: datetime) -> str:
    factory.store().ping()
    return ""


def check_socket(now: datetime) -> str:
    status = factory.stream_status()
    if status.is_alive:
        return ""
    seconds = f"{status.state_seconds:,.0f}" if status.state_seconds is not None else "?"
    if status.state == "CONNECTED":
        return _("the socket is connected, but our own fills are not registered: {refused}").format(
            refused=", ".join(status.refused.values()) or "-"
        )
    return _("the socket is {state} for {seconds} s: {why}").format(
        state=status.state, seconds=seconds, why=status.lost_reason or "-"
    )


def check_feeds(now: datetime) -> str:
    """Check that the socket receives the feeds of holdings and of stocks with a stop."""
    status = factory.stream_status()
    if not status.is_alive or not status.missing_vital:
        return ""
    template = _("{count} feeds of holdings or stops are not received, and their prices are late: {names}")
    return template.format(count=len(status.missing_vital), names=", ".join(status.missing_vital))


def check_app_keys(now: datetime) -> str:
    """Check that every app key has a socket that the broker does not refuse."""
    if len(app_keys := factory.stream_status().keys) <= 1:
        return ""
    down = [
        _("key {number}: {why}").format(number=key.number, why=key.reason or key.state)
        for key in app_keys
        if key.is_down
    ]
    template = _(
        "{count} of {total} app keys have no socket; the others have taken over their feeds as far as there is room:"
        " {names}"
    )
    return template.format(count=len(down), total=len(app_keys), names="; ".join(down)) if down else ""


def check_reconciliation(now: datetime) -> str:
    """Check that the broker's list of orders was read recently. Outside trading hours nothing depends on it."""
    if not queries.is_any_market_open(now):
        return ""
    completed = Reconciliation.objects.filter(outcome__in=reconcile.READ).first()
    if completed is None:
        return _("the broker's list of orders was never read")
    age = int((now - completed.at).total_seconds())
    if age <= RECONCILIATION_SECONDS:
        return ""
    newest = Reconciliation.objects.first()
    return _("the broker's list of orders was last read {age:,} s ago: {why}").format(
        age=age, why=(newest.error if newest else "") or "-"
    )


def check_unread_lines(now: datetime) -> str:
    """Check that each line of the broker's newest list could be read."""
    newest = Reconciliation.objects.first()
    if newest is None or newest.outcome != Reconciliation.Outcome.PARTLY:
        return ""
    return _("orders in the broker's list cannot be read, and are left out: {why}").format(why=newest.error)


def check_balance(now: datetime) -> str:
    """Check that the newest balance is not older than the schedule allows."""
    max_age = BALANCE_SECONDS if queries.is_any_market_open(now) else BALANCE_CLOSED_SECONDS
    newest = AccountSnapshot.objects.order_by("-timestamp").values_list("timestamp", flat=True).first()
    if newest is None:
        return _("the balance was never read")
    age = int((now - newest).total_seconds())
    return "" if age <= max_age else _("the balance was last read {age:,} s ago").format(age=age)


def check_beat(now: datetime) -> str:
    return _silent(pulse_age("beat"), BEAT_SECONDS, _("beat, which starts every periodic task"))


def check_notifier(now: datetime) -> str:
    return _silent(pulse_age("notifier"), NOTIFIER_SECONDS, _("notifier"))


def check_telegram(now: datetime) -> str:
    if not settings.TELEGRAM_TOKEN:
        return ""
    return _silent(pulse_age("telegram"), NOTIFIER_SECONDS * 4, _("the Telegram bot"))


def pulse_age(name: str) -> float | None:
    """Return the seconds since a process of ours gave a sign of life, None if it never did. Raises redis.RedisError."""
    return heartbeat.age(factory.store(), factory.stream_key(f"pulse:{name}"))


def give_sign_of_life(name: str) -> None:
    """Give a sign of life. Without Redis it is only logged: no process could read it."""
    try:
        heartbeat.beat(factory.store(), factory.stream_key(f"pulse:{name}"))
    except redis.RedisError as error:
        log.warning("no sign of life of %s: %s", name, error)


def _silent(age: float | None, max_age: float, who: str) -> str:
    if age is None:
        return _("{who}: no sign of life").format(who=who)
    return "" if age <= max_age else _("{who}: no sign of life for {age:,.0f} s").format(who=who, age=age)


def check_queues(now: datetime) -> str:
    """Check that each queue has a worker that consumes it."""
    idle = [name for name in QUEUES if name not in consumers.queues()]
    return _("no worker consumes {names}").format(names=", ".join(idle)) if idle else ""


def check_queue_depth(now: datetime) -> str:
    long_queues = {name: count for name, count in queue_depths().items() if count > DEPTH}
    lengths = ", ".join(f"{name} {count:,}" for name, count in long_queues.items())
    return _("tasks pile up: {words}").format(words=lengths) if long_queues else ""


def queue_depths() -> dict[str, int]:
    """Return the number of waiting tasks in each queue, over all priorities. Raises redis.RedisError."""
    options = settings.CELERY_BROKER_TRANSPORT_OPTIONS
    # Celery has a separate list for the messages of each priority except the first
    suffixes = [f"{PRIORITY_SEPARATOR}{step}" if step else "" for step in options["priority_steps"]]
    with factory.store().pipeline(transaction=False) as pipe:
        for name in QUEUES:
            for suffix in suffixes:
                pipe.llen(f"{options['global_keyprefix']}{name}{suffix}")
        lengths = pipe.execute()
    count = len(suffixes)
    return {name: sum(lengths[n * count : (n + 1) * count]) for n, name in enumerate(QUEUES)}


def check_unknown_orders(now: datetime) -> str:
    count = TradeOrder.objects.filter(status=Status.UNKNOWN, status_at__lt=now - UNKNOWN_PERIOD).count()
    template = _("{count} orders have an unknown outcome for over {minutes} minutes")
    return template.format(count=count, minutes=UNKNOWN_PERIOD.seconds // 60) if count else ""


def check_undelivered(now: datetime) -> str:
    """Check that no channel is dead and no message was given up recently. The other channels report a failure."""
    waiting = Q(state__in=[Message.State.WAITING, Message.State.SENDING], at__lt=now - UNDELIVERED_PERIOD)
    given_up = Q(state=Message.State.FAILED, at__gte=now - GIVEN_UP_PERIOD)
    newest = Message.objects.filter(waiting | given_up).order_by("channel", "-id").distinct("channel")
    rows = newest.values_list("channel", "state", "error")
    late = [_channel(name, error) for name, state, error in rows if state != Message.State.FAILED]
    lost = [_channel(name, error) for name, state, error in rows if state == Message.State.FAILED]
    failures = []
    if late:
        template = _("messages wait for over {minutes} minutes: {names}")
        failures.append(template.format(minutes=UNDELIVERED_PERIOD.seconds // 60, names=", ".join(late)))
    if lost:
        failures.append(_("messages were given up and not delivered: {names}").format(names=", ".join(lost)))
    return "; ".join(failures)


def _channel(name: str, error: str) -> str:
    return f"{name} ({error})" if error else name


def check_day_loss(now: datetime) -> str:
    """Check that the daily loss can be calculated, if a limit for it is set."""
    is_limited = settings.MAX_DAILY_LOSS_WON or settings.MAX_DAILY_LOSS_PERCENT
    return daily_loss.todays(now).unknown if is_limited else ""


def check_disk(now: datetime) -> str:
    usage = shutil.disk_usage(settings.BASE_DIR)
    free = usage.free / usage.total
    return "" if free >= DISK_FREE else _("the disk has little free space: {percent:.1f}%").format(percent=free * 100)


CHECKS: Sequence[tuple[str, CheckFunction, timedelta]] = (
    ("database", check_database_connection, timedelta(seconds=10)),
    ("redis", check_shared_redis, timedelta(seconds=10)),
    ("socket", check_socket, timedelta(seconds=60)),
    ("feeds", check_feeds, timedelta(seconds=60)),
    ("keys", check_app_keys, timedelta(seconds=60)),
    ("reconciliation", check_reconciliation, timedelta(seconds=60)),
    ("unread", check_unread_lines, timedelta(0)),
    ("balance", check_balance, timedelta(seconds=60)),
    ("beat", check_beat, timedelta(seconds=30)),
    ("queues", check_queues, timedelta(seconds=30)),
    ("depth", check_queue_depth, timedelta(seconds=60)),
    ("notifier", check_notifier, timedelta(seconds=60)),
    ("telegram", check_telegram, timedelta(seconds=60)),
    ("unknown", check_unknown_orders, timedelta(0)),
    ("untold", check_undelivered, timedelta(0)),
    ("day loss", check_day_loss, timedelta(minutes=3)),
    ("disk", check_disk, timedelta(seconds=60)),
)
# checks whose failure does not make AEGIS unready: a load balancer need not react to it
NOT_IN_READINESS = ("day loss", "feeds", "keys", "unread", "unknown", "untold", "telegram")


def check(now: datetime) -> list[Check]:
    """Return the result of each check. Without the database or Redis, the checks that need them fail too."""
    return [Check(name, _run_check(run, now), patience) for name, run, patience in CHECKS]


def _run_check(run: CheckFunction, now: datetime) -> str:
    try:
        return run(now)
    except (DatabaseError, InterfaceError) as error:
        connection.close()
        return _("the database does not answer: {error}").format(error=_first_line(error))
    except redis.RedisError as error:
        return _("Redis does not answer: {error}").format(error=_first_line(error))
    except Exception as error:  # an error in one check must not stop the others
        log.exception("a health check failed with an error")
        return _("it cannot be checked: {error}").format(error=f"{type(error).__name__} {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class Consumers:
    """The queues that workers consume, by their own answers. An answer is kept for `INSPECTION_PERIOD_SECONDS`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._queues: frozenset[str] = frozenset()

    def queues(self) -> frozenset[str]:
        """Return the queues that some worker consumes. Raises redis.RedisError."""
        with self._lock:
            if time.monotonic() - self._asked_at > INSPECTION_PERIOD_SECONDS:
                factory.store().ping()  # raises at once if Redis is down, where Celery would retry for long
                replies = current_app.control.broadcast("active_queues", reply=True, timeout=INSPECT_SECONDS) or []
                queue_lists = [queues for reply in replies for queues in reply.values()]
                self._queues = frozenset(queue["name"] for queues in queue_lists for queue in queues)
                self._asked_at = time.monotonic()
            return self._queues

    def clear(self) -> None:
        self._asked_at = float("-inf")


consumers = Consumers()
