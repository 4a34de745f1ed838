"""What must hold for the desk to work, checked one by one: for `/readyz`, for alarms, for the doctor's last page.

Nothing here asks the broker. A check that cannot be made has failed, and says why.
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
# beat looks at least every five seconds, and its successor takes over within twenty
BEAT_SECONDS = 25.0
NOTIFIER_SECONDS = 30.0
# three missed turns of the schedule
LOOK_SECONDS, BALANCE_SECONDS, BALANCE_CLOSED_SECONDS = 180, 180, 1800
DEPTH = 200
UNKNOWN_FOR = timedelta(minutes=5)
UNTOLD_FOR = timedelta(minutes=10)
# how long what could not be told is shown
GIVEN_UP_FOR = timedelta(hours=24)
DISK_FREE = 0.05
INSPECT_SECONDS = 1.0
INSPECTED_FOR = 15.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that must hold. `text` says what is wrong and is empty where nothing is."""

    name: str
    text: str = ""
    # how long it may be wrong before people are told
    patience: timedelta = timedelta(seconds=60)

    @property
    def ok(self) -> bool:
        return not self.text


Look = Callable[[datetime], str]


def database(now: datetime) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1")
    return ""


def shared_redis(now: datetime) -> str:
    factory.store().ping()
    return ""


def socket(now: datetime) -> str:
    status = factory.stream_status()
    if status.is_alive:
        return ""
    seconds = f"{status.state_seconds:,.0f}" if status.state_seconds is not None else "?"
    if status.state == "CONNECTED":
        return _("the socket is connected, but our own fills are not registered: {refused}").format(
            refused=", ".join(status.refused.values()) or "-"
        )
    return _("the socket is {state} for {seconds} s: {why}").format(
        state=status.state, seconds=seconds, why=status.lost_why or "-"
    )


def feeds(now: datetime) -> str:
    """What we hold, and what stops watch, is heard over the socket."""
    status = factory.stream_status()
    if not status.is_alive or not status.unheard:
        return ""
    words = _("{count} feeds of what is held or has a stop are not heard, and their prices come late: {names}")
    return words.format(count=len(status.unheard), names=", ".join(status.unheard))


def keys(now: datetime) -> str:
    """Every app key has a socket that is not refused."""
    if len(known := factory.stream_status().keys) <= 1:
        return ""
    down = [
        _("key {number}: {why}").format(number=key.number, why=key.why or key.state) for key in known if key.is_down
    ]
    words = _("{count} of {total} app keys have no socket, and their feeds went to the others as room allows: {names}")
    return words.format(count=len(down), total=len(known), names="; ".join(down)) if down else ""


def look(now: datetime) -> str:
    """The broker's list of orders was read lately. Outside trading hours nothing depends on it."""
    if not queries.is_any_market_open(now):
        return ""
    read = Reconciliation.objects.filter(outcome__in=reconcile.READ).first()
    if read is None:
        return _("the broker's list of orders was never read")
    age = int((now - read.at).total_seconds())
    if age <= LOOK_SECONDS:
        return ""
    newest = Reconciliation.objects.first()
    return _("the broker's list of orders was last read {age:,} s ago: {why}").format(
        age=age, why=(newest.error if newest else "") or "-"
    )


def unread(now: datetime) -> str:
    """No line of the broker's list is beyond us."""
    newest = Reconciliation.objects.first()
    if newest is None or newest.outcome != Reconciliation.Outcome.PARTLY:
        return ""
    return _("orders in the broker's list cannot be read, and are left out: {why}").format(why=newest.error)


def balance(now: datetime) -> str:
    """The balance is as young as the schedule makes it."""
    most = BALANCE_SECONDS if queries.is_any_market_open(now) else BALANCE_CLOSED_SECONDS
    newest = AccountSnapshot.objects.order_by("-timestamp").values_list("timestamp", flat=True).first()
    if newest is None:
        return _("the balance was never read")
    age = int((now - newest).total_seconds())
    return "" if age <= most else _("the balance was last read {age:,} s ago").format(age=age)


def beat(now: datetime) -> str:
    return _silent(pulse_age("beat"), BEAT_SECONDS, _("beat, which starts every periodic task"))


def notifier(now: datetime) -> str:
    return _silent(pulse_age("notifier"), NOTIFIER_SECONDS, _("notifier"))


def telegram(now: datetime) -> str:
    if not settings.TELEGRAM_TOKEN:
        return ""
    return _silent(pulse_age("telegram"), NOTIFIER_SECONDS * 4, _("the Telegram bot"))


def pulse_age(name: str) -> float | None:
    """Return how long ago a process of ours gave a sign of life. Raises redis.RedisError."""
    return heartbeat.age(factory.store(), factory.stream_key(f"pulse:{name}"))


def live(name: str) -> None:
    """Give a sign of life; without Redis nobody could read it."""
    try:
        heartbeat.beat(factory.store(), factory.stream_key(f"pulse:{name}"))
    except redis.RedisError as error:
        log.warning("no sign of life of %s: %s", name, error)


def _silent(age: float | None, most: float, who: str) -> str:
    if age is None:
        return _("{who}: no sign of life").format(who=who)
    return "" if age <= most else _("{who}: no sign of life for {age:,.0f} s").format(who=who, age=age)


def queues(now: datetime) -> str:
    """Every queue has a worker that consumes it."""
    idle = [name for name in QUEUES if name not in consumers.queues()]
    return _("no worker consumes {names}").format(names=", ".join(idle)) if idle else ""


def depth(now: datetime) -> str:
    long = {name: count for name, count in depths().items() if count > DEPTH}
    words = ", ".join(f"{name} {count:,}" for name, count in long.items())
    return _("tasks pile up: {words}").format(words=words) if long else ""


def depths() -> dict[str, int]:
    """Return how many tasks wait in each queue, of every priority. Raises redis.RedisError."""
    options = settings.CELERY_BROKER_TRANSPORT_OPTIONS
    # Celery keeps the messages of each priority but the first in a list of its own
    suffixes = [f"{PRIORITY_SEPARATOR}{step}" if step else "" for step in options["priority_steps"]]
    with factory.store().pipeline(transaction=False) as pipe:
        for name in QUEUES:
            for suffix in suffixes:
                pipe.llen(f"{options['global_keyprefix']}{name}{suffix}")
        lengths = pipe.execute()
    count = len(suffixes)
    return {name: sum(lengths[n * count : (n + 1) * count]) for n, name in enumerate(QUEUES)}


def unknown(now: datetime) -> str:
    count = TradeOrder.objects.filter(status=Status.UNKNOWN, status_at__lt=now - UNKNOWN_FOR).count()
    words = _("{count} orders have an unknown outcome for over {minutes} minutes")
    return words.format(count=count, minutes=UNKNOWN_FOR.seconds // 60) if count else ""


def untold(now: datetime) -> str:
    """No channel is dead, and nothing was given up lately. The other channels tell of it."""
    waiting = Q(state__in=[Message.State.WAITING, Message.State.SENDING], at__lt=now - UNTOLD_FOR)
    given_up = Q(state=Message.State.FAILED, at__gte=now - GIVEN_UP_FOR)
    newest = Message.objects.filter(waiting | given_up).order_by("channel", "-id").distinct("channel")
    rows = newest.values_list("channel", "state", "error")
    late = [_channel(name, error) for name, state, error in rows if state != Message.State.FAILED]
    lost = [_channel(name, error) for name, state, error in rows if state == Message.State.FAILED]
    words = []
    if late:
        text = _("messages wait for over {minutes} minutes: {names}")
        words.append(text.format(minutes=UNTOLD_FOR.seconds // 60, names=", ".join(late)))
    if lost:
        words.append(_("messages were given up and never told: {names}").format(names=", ".join(lost)))
    return "; ".join(words)


def _channel(name: str, error: str) -> str:
    return f"{name} ({error})" if error else name


def day_loss(now: datetime) -> str:
    """The loss that trips the trading state can be computed."""
    is_bounded = settings.MAX_DAILY_LOSS_WON or settings.MAX_DAILY_LOSS_PERCENT
    return daily_loss.todays(now).unknown if is_bounded else ""


def disk(now: datetime) -> str:
    usage = shutil.disk_usage(settings.BASE_DIR)
    free = usage.free / usage.total
    return "" if free >= DISK_FREE else _("the disk is full but for {percent:.1f}%").format(percent=free * 100)


CHECKS: Sequence[tuple[str, Look, timedelta]] = (
    ("database", database, timedelta(seconds=10)),
    ("redis", shared_redis, timedelta(seconds=10)),
    ("socket", socket, timedelta(seconds=60)),
    ("feeds", feeds, timedelta(seconds=60)),
    ("keys", keys, timedelta(seconds=60)),
    ("reconciliation", look, timedelta(seconds=60)),
    ("unread", unread, timedelta(0)),
    ("balance", balance, timedelta(seconds=60)),
    ("beat", beat, timedelta(seconds=30)),
    ("queues", queues, timedelta(seconds=30)),
    ("depth", depth, timedelta(seconds=60)),
    ("notifier", notifier, timedelta(seconds=60)),
    ("telegram", telegram, timedelta(seconds=60)),
    ("unknown", unknown, timedelta(0)),
    ("untold", untold, timedelta(0)),
    ("day loss", day_loss, timedelta(minutes=3)),
    ("disk", disk, timedelta(seconds=60)),
)
# what a load balancer need not know
NOT_READY = ("day loss", "feeds", "keys", "unread", "unknown", "untold", "telegram")


def check(now: datetime) -> list[Check]:
    """Return every check's outcome. Without the database or Redis, what needs them has failed too."""
    return [Check(name, _looked(look, now), patience) for name, look, patience in CHECKS]


def _looked(look: Look, now: datetime) -> str:
    try:
        return look(now)
    except (DatabaseError, InterfaceError) as error:
        connection.close()
        return _("the database does not answer: {error}").format(error=_first_line(error))
    except redis.RedisError as error:
        return _("Redis does not answer: {error}").format(error=_first_line(error))
    except Exception as error:  # one check that cannot look must not silence the others
        log.exception("a check could not look")
        return _("it cannot be checked: {error}").format(error=f"{type(error).__name__} {_first_line(error)}")


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


class Consumers:
    """Which queues are consumed, as the workers themselves answer; asked again after some seconds only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._asked_at = float("-inf")
        self._queues: frozenset[str] = frozenset()

    def queues(self) -> frozenset[str]:
        """Return the queues that some worker consumes. Raises redis.RedisError."""
        with self._lock:
            if time.monotonic() - self._asked_at > INSPECTED_FOR:
                factory.store().ping()  # Celery would try for long
                replies = current_app.control.broadcast("active_queues", reply=True, timeout=INSPECT_SECONDS) or []
                answers = [queues for reply in replies for queues in reply.values()]
                self._queues = frozenset(queue["name"] for queues in answers for queue in queues)
                self._asked_at = time.monotonic()
            return self._queues

    def forget(self) -> None:
        self._asked_at = float("-inf")


consumers = Consumers()
