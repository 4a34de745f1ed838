"""Figures for Prometheus, read from the tables and Redis at each scrape: there are many processes, and any may die.

Counters restart at zero each day, or with a new holder of the socket; Prometheus handles that. Times are in seconds.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, time
from typing import Any

import redis
from django.conf import settings
from django.db import DatabaseError, InterfaceError, connection
from django.db.models import Count, DurationField, ExpressionWrapper, F, FloatField, Max, Q, QuerySet, Sum
from django.db.models.functions import Extract
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from aegis.lifecycle import UNSETTLED
from aegis.sessions import KST
from kis import factory
from kis.status import SocketState
from kis.throttle import Throttle
from monitor import health
from notify.models import Alarm, Message
from orders.models import RawNotice, Reconciliation, TradeOrder, TradingSwitch
from orders.reconcile import READ
from portfolio.models import AccountSnapshot

log = logging.getLogger(__name__)

COMMIT_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
POST_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
# more than the reconciliations of a day
MAX_RECONCILIATIONS = 5_000


def prometheus_text(now: datetime) -> bytes:
    """Return every figure in Prometheus' text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(MetricsCollector(now))
    return generate_latest(registry)


class MetricsCollector(Collector):
    """One scrape. Figures of a source that cannot be read are left out, and `aegis_up` is 0 for it."""

    def __init__(self, now: datetime) -> None:
        self._now = now
        self._midnight = datetime.combine(now.astimezone(KST).date(), time(), KST)

    def collect(self) -> Iterator[Metric]:
        up = GaugeMetricFamily("aegis_up", "Whether what is read from here answers", labels=["part"])
        for name, part in (("database", self._from_database), ("redis", self._from_redis)):
            try:
                figures = list(part())
            except (DatabaseError, InterfaceError, redis.RedisError) as error:
                log.warning("no figures of %s: %s", name, error)
                if name == "database":
                    connection.close()
                figures = []
            up.add_metric([name], float(bool(figures)))
            yield from figures
        yield up

    # --- from the tables ------------------------------------------------------------------------

    def _from_database(self) -> Iterator[Metric]:
        yield from self._notices()
        yield from self._orders()
        yield from self._reconciliations()
        yield from self._messages()
        yield self._age(
            "aegis_balance_age_seconds", "Since the balance was read", _newest(AccountSnapshot, "timestamp")
        )
        switch = TradingSwitch.objects.filter(pk=TradingSwitch.ONLY_PK).values_list("state", flat=True).first()
        yield _states("aegis_switch", "The trading switch", [name for name, _ in TradingSwitch.STATES], switch)

    def _notices(self) -> Iterator[Metric]:
        of_today = RawNotice.objects.filter(order_date=self._midnight.date())
        yield _histogram(
            "aegis_fill_commit_seconds",
            "From a notice's frame to its commit, today",
            of_today.filter(committed_ms__isnull=False).annotate(seconds=F("committed_ms") / 1000.0),
            COMMIT_SECONDS,
        )
        counts = dict(of_today.values_list("state").annotate(count=Count("pk")).order_by())
        family = GaugeMetricFamily("aegis_notices", "Notices of today by what became of them", labels=["state"])
        for state in RawNotice.State.values:
            family.add_metric([state.lower()], counts.get(state, 0))
        yield family

    def _orders(self) -> Iterator[Metric]:
        of_today = TradeOrder.objects.filter(order_date=self._midnight.date())
        answered = of_today.filter(sent_at__isnull=False, accepted_at__isnull=False)
        duration = ExpressionWrapper(F("accepted_at") - F("sent_at"), output_field=DurationField())
        yield _histogram(
            "aegis_order_post_seconds",
            "From an order's request to its number, today; one whose answer was lost counts until it was found",
            answered.annotate(seconds=Extract(duration, "epoch", output_field=FloatField())),
            POST_SECONDS,
        )
        counts = dict(of_today.values_list("status").annotate(count=Count("pk")).order_by())
        family = GaugeMetricFamily("aegis_orders", "Orders of today by state", labels=["status"])
        for status, _name in TradeOrder.STATUSES:
            family.add_metric([status.lower()], counts.get(status, 0))
        yield family
        unsettled = TradeOrder.objects.filter(status__in=UNSETTLED)
        yield GaugeMetricFamily("aegis_orders_unsettled", "Orders of any day that are not over", unsettled.count())
        chases = unsettled.filter(chase_at__lt=self._now)
        oldest = chases.order_by("chase_at").values_list("chase_at", flat=True).first()
        yield self._age("aegis_chase_overdue_seconds", "How long the oldest due chase step waits", oldest, none=0.0)

    def _reconciliations(self) -> Iterator[Metric]:
        newest = Reconciliation.objects.aggregate(newest=Max("pk"))["newest"] or 0
        of_today = Reconciliation.objects.filter(pk__gt=newest - MAX_RECONCILIATIONS, at__gte=self._midnight)
        sums = of_today.aggregate(
            corrected=Sum("corrected", default=0),
            adopted=Sum("adopted", default=0),
            resolved=Sum("resolved", default=0),
        )
        family = CounterMetricFamily("aegis_corrections", "What the broker's list corrected today", labels=["what"])
        for what, count in sums.items():
            family.add_metric([what], count)
        yield family
        failed = of_today.filter(outcome=Reconciliation.Outcome.FAILED).count()
        yield CounterMetricFamily("aegis_reconciliations_failed", "Reconciliations that failed today", failed)
        completed = Reconciliation.objects.filter(outcome__in=READ)
        newest_at = completed.order_by("-id").values_list("at", flat=True).first()
        yield self._age("aegis_reconciliation_age_seconds", "Since the broker's list was read", newest_at)

    def _messages(self) -> Iterator[Metric]:
        unsent = Q(state__in=[Message.State.WAITING, Message.State.SENDING])
        counts = dict(Message.objects.filter(unsent).values_list("channel").annotate(count=Count("pk")).order_by())
        family = GaugeMetricFamily("aegis_messages_waiting", "Messages not sent yet", labels=["channel"])
        for channel, count in counts.items():
            family.add_metric([channel], count)
        yield family
        family = GaugeMetricFamily("aegis_alarm", "Alarms that were reported", labels=["name"])
        for name in Alarm.objects.filter(is_reported=True).values_list("name", flat=True):
            family.add_metric([name], 1)
        yield family

    def _age(self, name: str, meaning: str, at: datetime | None, none: float | None = None) -> Metric:
        """Return the seconds since `at`. If it is None, the figure is `none`, or is left out."""
        family = GaugeMetricFamily(name, meaning)
        age = none if at is None else max(0.0, (self._now - at).total_seconds())
        if age is not None:
            family.add_metric([], age)
        return family

    # --- from Redis -----------------------------------------------------------------------------

    def _from_redis(self) -> Iterator[Metric]:
        yield from _throttles()
        yield from _socket()
        family = GaugeMetricFamily("aegis_queue_depth", "Tasks that wait", labels=["queue"])
        for queue, count in health.queue_depths().items():
            family.add_metric([queue], count)
        yield family
        family = GaugeMetricFamily("aegis_pulse_age_seconds", "Since a process gave a sign of life", labels=["process"])
        for process in ("beat", "notifier", *(["telegram"] if settings.TELEGRAM_TOKEN else [])):
            if (age := health.pulse_age(process)) is not None:
                family.add_metric([process], age)
        yield family


def _throttles() -> Iterator[Metric]:
    """Yield the figures of both allowances: the app key's, and that of the account's ledger at the broker."""
    used = GaugeMetricFamily("aegis_throttle_used", "Slots of the allowance held now", labels=["allowance"])
    limits = GaugeMetricFamily("aegis_throttle_limit", "Calls a second allowed", labels=["allowance"])
    calls = CounterMetricFamily(
        "aegis_throttle_calls", "Calls by what became of their turn", labels=["allowance", "what"]
    )
    for name, throttle, limit in throttles():
        used.add_metric([name], throttle.in_use())
        limits.add_metric([name], limit)
        for what, count in throttle.tally().items():
            calls.add_metric([name, what], count)
    yield from (used, limits, calls)


def throttles() -> Sequence[tuple[str, Throttle, int]]:
    return (
        ("key", factory.call_throttle(), settings.KIS_CALLS_PER_SECOND),
        ("ledger", factory.ledger_throttle(), settings.KIS_LEDGER_CALLS_PER_SECOND),
    )


def _socket() -> Iterator[Metric]:
    status = factory.stream_status()
    yield _states("aegis_socket", "The one socket", [state.value for state in SocketState], status.state.value)
    yield GaugeMetricFamily("aegis_socket_hears_fills", "Whether our own fills are registered", float(status.is_alive))
    if status.frame_age is not None:
        yield GaugeMetricFamily("aegis_socket_frame_age_seconds", "Since the last frame", status.frame_age)
    counters = {
        "connections": "Connections of the present holder",
        "frames": "Frames heard",
        "deaf": "Connections given up for deaf",
        "bad_frames": "Frames that could not be read",
        "failures": "Frames that could not be handled",
    }
    fields = {"deaf": "dead_connections"}  # of the metrics that have another name than their field
    for name, meaning in counters.items():
        yield CounterMetricFamily(f"aegis_socket_{name}", meaning, getattr(status, fields.get(name, name)))
    yield GaugeMetricFamily("aegis_socket_topics", "Registrations held", len(status.held))
    yield GaugeMetricFamily("aegis_socket_topics_left_out", "Registrations there was no room for", len(status.left_out))
    keys = GaugeMetricFamily("aegis_app_key_topics", "Registrations held by each app key", labels=["key"])
    for key in status.keys:
        keys.add_metric([str(key.number)], key.held)
    yield keys
    drift = CounterMetricFamily("aegis_wire_drift", "Frames of a width nobody knows", labels=["feed"])
    for feed, count in status.drift.items():
        drift.add_metric([feed], count)
    yield drift
    job_failures = CounterMetricFamily(
        "aegis_chore_failures", "Runs of the stream's jobs that failed", labels=["chore"]
    )
    for job, count in status.job_failures.items():
        job_failures.add_metric([job], count)
    yield job_failures


def _states(name: str, meaning: str, states: Sequence[str], present_state: str | None) -> Metric:
    family = GaugeMetricFamily(name, meaning, labels=["state"])
    for state in states:
        family.add_metric([state.lower()], float(state == present_state))
    return family


def _histogram(name: str, meaning: str, rows: QuerySet[Any], bounds: Sequence[float]) -> Metric:
    """Return the histogram of the rows' `seconds`, with one bucket per bound, counted by the database."""
    bucket_counts = {
        f"under_{number}": Count("pk", filter=Q(seconds__lte=bound)) for number, bound in enumerate(bounds)
    }
    counts: Mapping[str, Any] = rows.aggregate(
        **bucket_counts, count=Count("pk"), total=Sum("seconds", output_field=FloatField(), default=0.0)
    )
    buckets = [(f"{bound:g}", counts[f"under_{number}"]) for number, bound in enumerate(bounds)]
    family = HistogramMetricFamily(name, meaning)
    family.add_metric([], [*buckets, ("+Inf", counts["count"])], counts["total"])
    return family


def _newest(table: Any, column: str) -> datetime | None:
    newest: datetime | None = table.objects.order_by(f"-{column}").values_list(column, flat=True).first()
    return newest
