"""Writes a message for each event that has none. `notify.delivery` sends the messages.

News is new rows in the tables of the lower packages. Each source is read from its mark on. A message is identified by
its event, so reading the same row again, here or on another machine, changes nothing.
"""

import logging
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import Max, Q, QuerySet
from django.utils import translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from aegis.lifecycle import Event
from aegis.market_halts import HaltKind
from aegis.order_events import OrderEventKind, StopEventKind
from aegis.requests import EndCause
from aegis.sessions import KST
from notify.models import Alarm, Message, NotificationKind, OutboxCursor
from orders import stops
from orders.models import MarketHalt, OrderEvent, Reconciliation, StopEvent, SwitchChange, TradeExecution, TradeOrder
from portfolio.models import AccountSnapshot, PortfolioEvent

log = logging.getLogger(__name__)

DESK = "desk"
# longer than any transaction: one that started before a row was read has ended by then
MAX_TRANSACTION_AGE = timedelta(minutes=5)
STOPS = ("sell_stop", "sell_emergency")
EXTERNAL_CAUSES = (EndCause.EXTERNAL_CANCEL, EndCause.EXTERNAL_AMEND, EndCause.UNEXPLAINED)


@dataclass(frozen=True, slots=True)
class Notification:
    """An event to report. Waiting messages of one `topic` are sent as one."""

    event: str
    kind: NotificationKind
    text: str
    at: datetime
    topic: str = ""
    picture: bytes | None = None


@dataclass(frozen=True, slots=True)
class AlertSource:
    """A table whose new rows are news: the rows that matter, and the notification of a row (None: no message)."""

    name: str
    rows: Callable[[], QuerySet[Any]]
    build: Callable[[Any], Notification | None]


def gather(now: datetime, channels: Sequence[str]) -> int:
    """Write a message for every event that has none, for the desk and every channel; return the number of events."""
    with translation.override(settings.LANGUAGE_CODE):
        return sum(_gather(source, now, channels) for source in SOURCES)


@transaction.atomic
def _gather(source: AlertSource, now: datetime, channels: Sequence[str]) -> int:
    OutboxCursor.objects.get_or_create(source=source.name, defaults={"seen_at": now})
    mark = OutboxCursor.objects.select_for_update().get(pk=source.name)
    ids = list(source.rows().filter(pk__gt=mark.done_id).order_by("pk").values_list("pk", flat=True))
    written = _written_events(f"{source.name}:{pk}" for pk in ids)
    new_rows = source.rows().filter(pk__in=[pk for pk in ids if f"{source.name}:{pk}" not in written]).order_by("pk")
    news = [item for row in new_rows if (item := source.build(row)) is not None] if len(written) < len(ids) else []
    write_messages(news, channels, now=now)
    _move_mark(mark, source, now)
    return len(news)


def _written_events(events: Iterable[str]) -> Collection[str]:
    return set(Message.objects.filter(event__in=list(events), channel=DESK).values_list("event", flat=True))


def _move_mark(mark: OutboxCursor, source: AlertSource, now: datetime) -> None:
    """Advance the mark past rows that were read so long ago that no row with a lower id can still appear."""
    if mark.seen_at > now:  # a rehearsal's clock was set back
        mark.seen_at = now
    elif now - mark.seen_at < MAX_TRANSACTION_AGE:
        return
    mark.done_id, mark.seen_at = mark.seen_id, now
    mark.seen_id = source.rows().aggregate(newest=Max("pk"))["newest"] or mark.seen_id
    mark.save()


def write_messages(news: Sequence[Notification], channels: Sequence[str], *, now: datetime) -> None:
    """Write messages for the desk and each channel. A message that exists already stays unchanged."""
    rows = [_row(item, channel, now) for item in news for channel in (DESK, *channels)]
    Message.objects.bulk_create(rows, ignore_conflicts=True)


def _row(news: Notification, channel: str, now: datetime) -> Message:
    is_desk = channel == DESK
    return Message(
        event=news.event,
        channel=channel,
        kind=news.kind,
        topic=news.topic,
        text=news.text,
        picture=news.picture,
        at=news.at,
        state=Message.State.SENT if is_desk else Message.State.WAITING,
        sent_at=now if is_desk else None,
    )


def order_name(order: TradeOrder) -> str:
    """Return a short name of an order: stock, side, and our number."""
    return f"{order.stock_name or order.stock_code} {order.get_order_type_display()} #{order.pk}"


def _fill(execution: TradeExecution) -> Notification:
    order = execution.order
    text = _("Filled: {order} {qty:,} at {price:,.0f} won ({total:,} of {asked:,})").format(
        order=order_name(order),
        qty=execution.exec_qty,
        price=execution.exec_price,
        total=execution.cumulative_qty,
        asked=order.qty,
    )
    if execution.realized_profit is not None:
        text += "\n" + _("Realised profit {won:+,} won").format(won=execution.realized_profit)
    if execution.source == TradeExecution.Source.LIST:
        text += "\n" + _("The broker's list reported it; no fill notice did")
    return Notification(f"fill:{execution.pk}", NotificationKind.FILL, text, execution.recorded_at, f"fill:{order.pk}")


VOIDED = "void "
BY_REPLY = "reply"

EVENTS: dict[str, tuple[NotificationKind, str]] = {
    Event.REFUSED: (NotificationKind.REFUSED, gettext_noop("Refused: {order}: {detail}")),
    Event.ABSENT: (NotificationKind.REFUSED, gettext_noop("Never arrived at the broker: {order}: {detail}")),
    Event.NO_ANSWER: (
        NotificationKind.UNKNOWN,
        gettext_noop("Outcome unknown, it is being looked up; do not order again: {order}: {detail}"),
    ),
    OrderEventKind.UNDECIDED: (
        NotificationKind.UNKNOWN,
        gettext_noop("A person must decide: {order} could be any of {detail} at the broker"),
    ),
    OrderEventKind.CHASE_ENDED: (NotificationKind.CHASE, gettext_noop("Chase ended: {order}: {detail}")),
    OrderEventKind.CANCEL_UNCONFIRMED: (
        NotificationKind.UNKNOWN,
        gettext_noop("The broker's list does not confirm the cancel of {order}; it is sent again"),
    ),
    OrderEventKind.NOT_LISTED: (
        NotificationKind.UNKNOWN,
        gettext_noop(
            "Missing from {detail} order lists of the broker: {order}; check the order in the broker's app, then"
            " decide it (manage.py unknown)"
        ),
    ),
    OrderEventKind.STILL_UNDECIDED: (
        NotificationKind.UNKNOWN,
        gettext_noop("Before the open: the outcome of {order} is still unknown; decide it (manage.py unknown)"),
    ),
    OrderEventKind.OPEN_AFTER_SESSION: (
        NotificationKind.UNKNOWN,
        gettext_noop("The broker's list still shows {order} open after its last session: {detail}"),
    ),
    "STILL_OPEN": (
        NotificationKind.CORRECTION,
        gettext_noop("Not ended after all, the list shows it open: {order}"),
    ),
    "REDUCTION_LAPSED": (
        NotificationKind.UNKNOWN,
        gettext_noop("A reduction of {order} did not take effect: the broker's list never showed it. Send it again"),
    ),
    "AMEND_UNKNOWN": (
        NotificationKind.UNKNOWN,
        gettext_noop("No answer to the amend of {order}: it is being looked up; do not order again: {detail}"),
    ),
}
EXTERNALLY_ENDED = gettext_noop("Ended in the broker's app: {order}: {cause}")
EXPIRED = gettext_noop("Unfilled at the end of its session: {order}, {left:,} shares")
CORRECTED = gettext_noop("A fill was taken back, the broker does not know it: {order}: {detail}")
EXTERNAL_RECORDED = gettext_noop("An external order was seen: {order}, {qty:,} shares")
AMENDED = gettext_noop("Amended in the broker's app: #{original} continues as {order}, {qty:,} shares at {price:,} won")
RESOLVED = gettext_noop("Found at the broker after all: {order}: {detail}")
STOPPED = gettext_noop("Stop: {order}, {qty:,} shares are being sold")


def _order_events() -> QuerySet[OrderEvent]:
    # root orders only: the re-orders of a stop's chase are no news
    stop = Q(kind=OrderEventKind.CREATED, order__strategy__in=STOPS, order__root__isnull=True)
    news = Q(kind__in=EVENTS) | Q(detail__startswith=VOIDED) | stop | _ended_elsewhere()
    accepted = Q(kind=Event.ACCEPTED) & ~Q(detail__endswith=BY_REPLY)
    return OrderEvent.objects.filter(news | accepted).select_related("order")


def _ended_elsewhere() -> Q:
    """Return the condition for events that ended an order of AEGIS from outside: the broker's app, or session end."""
    ours = Q(order__origin=TradeOrder.Origin.AEGIS)
    external = Q(
        kind__in=[Event.CANCELLED, OrderEventKind.END_EXPLAINED],
        order__end_cause__in=EXTERNAL_CAUSES,
        order__decided_by="",
    )
    return ours & (external | Q(kind=Event.EXPIRED))


def _order_event(event: OrderEvent) -> Notification | None:
    order = event.order
    kind, template = _meaning(event)
    text = _(template).format(
        order=order_name(order),
        detail=event.detail,
        qty=order.qty,
        left=order.open_qty,
        price=order.price,
        original=order.replaces_id,
        cause=order.get_end_cause_display(),
    )
    # one message for one end, though a notice and the list may both report it
    name = f"ended:{order.pk}" if template == EXTERNALLY_ENDED else f"event:{event.pk}"
    return Notification(name, kind, text, event.at)


def _meaning(event: OrderEvent) -> tuple[NotificationKind, str]:
    if event.detail.startswith(VOIDED):
        return NotificationKind.CORRECTION, CORRECTED
    if event.kind == OrderEventKind.CREATED:
        return NotificationKind.STOP, STOPPED
    if event.kind == Event.ACCEPTED and event.order.origin == TradeOrder.Origin.EXTERNAL:
        return NotificationKind.CORRECTION, AMENDED if event.order.replaces_id else EXTERNAL_RECORDED
    if event.kind == Event.ACCEPTED:
        return NotificationKind.UNKNOWN, RESOLVED
    if event.kind == Event.EXPIRED:
        return NotificationKind.CHASE, EXPIRED
    if event.kind in (Event.CANCELLED, OrderEventKind.END_EXPLAINED):
        return NotificationKind.CORRECTION, EXTERNALLY_ENDED
    return EVENTS[event.kind]


def _switch(change: SwitchChange) -> Notification:
    state = _("Trading switch: {state}, by {who}").format(state=change.get_to_state_display(), who=change.by)
    text = f"{state}: {change.reason}" if change.reason else state
    return Notification(f"switch:{change.pk}", NotificationKind.SWITCH, text, change.at)


def _halt(halt: MarketHalt) -> Notification:
    """Return the notification of a circuit breaker. A sidecar is no news: it stops none of our orders."""
    text = _("Circuit breaker: new orders wait until the market trades again; resting ones stay")
    return Notification(f"halt:{halt.pk}", NotificationKind.SWITCH, text, halt.began_at)


def _holding(event: PortfolioEvent) -> Notification:
    text = _("{name} changed without a trade of ours ({kind}): {before:,} shares before, {after:,} now").format(
        name=event.stock_name or event.stock_code,
        kind=event.get_kind_display(),
        before=event.qty_before,
        after=event.qty_after,
    )
    return Notification(f"holding:{event.pk}", NotificationKind.HOLDING, text, event.at)


def _left_out(snapshot: AccountSnapshot) -> Notification | None:
    """Report the holdings that are not counted once a day, and again if the list changes."""
    midnight = snapshot.timestamp.astimezone(KST).replace(hour=0, minute=0, second=0, microsecond=0)
    of_today = AccountSnapshot.objects.filter(timestamp__gte=midnight, pk__lt=snapshot.pk)
    if of_today.filter(left_out=snapshot.left_out).exists():
        return None
    text = _("Left out of the holdings, its line of the balance cannot be read: {lines}").format(
        lines="; ".join(snapshot.left_out)
    )
    return Notification(f"left out:{snapshot.pk}", NotificationKind.HOLDING, text, snapshot.timestamp)


def _correction(row: Reconciliation) -> Notification:
    text = _("Reconciled: the fills of {count} orders were corrected by the broker's list").format(count=row.corrected)
    return Notification(f"look:{row.pk}", NotificationKind.CORRECTION, text, row.at)


def _stop(event: StopEvent) -> Notification:
    title = _(stops.SAID.get(event.kind, event.kind))
    return Notification(
        f"stop:{event.pk}", NotificationKind.STOP, f"{event.stop}: {title}: {event.detail}".rstrip(": "), event.at
    )


SOURCES: tuple[AlertSource, ...] = (
    AlertSource("fill", lambda: TradeExecution.objects.select_related("order"), _fill),
    AlertSource("event", _order_events, _order_event),
    # the stop's order reports this step itself
    AlertSource("stop", lambda: StopEvent.objects.exclude(kind=StopEventKind.ORDERED).select_related("stop"), _stop),
    AlertSource("switch", SwitchChange.objects.all, _switch),
    AlertSource("halt", lambda: MarketHalt.objects.filter(kind=HaltKind.CIRCUIT_BREAKER), _halt),
    AlertSource("holding", PortfolioEvent.objects.all, _holding),
    AlertSource("left out", lambda: AccountSnapshot.objects.exclude(left_out=[]), _left_out),
    AlertSource("look", lambda: Reconciliation.objects.filter(corrected__gt=0), _correction),
)


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """Something that is wrong now. It is reported once it has lasted `patience`."""

    name: str
    text: str
    patience: timedelta


def raise_alarms(alerts: Sequence[ActiveAlert], channels: Sequence[str], *, now: datetime) -> None:
    """Report each alert once when it has lasted its patience, and once more when it is over."""
    with translation.override(settings.LANGUAGE_CODE):
        for alert in alerts:
            _raise(alert, channels, now)
        for alarm in Alarm.objects.exclude(name__in=[alert.name for alert in alerts]):
            _end(alarm, channels, now)


@transaction.atomic
def _raise(alert: ActiveAlert, channels: Sequence[str], now: datetime) -> None:
    Alarm.objects.get_or_create(name=alert.name, defaults={"since": now, "text": alert.text[:300]})
    alarm = Alarm.objects.select_for_update().filter(pk=alert.name).first()
    if alarm is None or alarm.is_reported:
        return
    if alarm.since > now:  # a rehearsal's clock was set back
        alarm.since = now
        alarm.save(update_fields=["since"])
    if now - alarm.since < alert.patience:
        return
    since = alarm.since.astimezone(KST)
    text = _("ALARM since {time}: {what}").format(time=f"{since:%H:%M:%S}", what=alert.text)
    write_messages(
        [Notification(f"alarm:{alarm.pk}:{since:%Y%m%d%H%M%S%f}", NotificationKind.ALARM, text, now)], channels, now=now
    )
    alarm.text, alarm.is_reported = alert.text[:300], True
    alarm.save(update_fields=["text", "is_reported"])


@transaction.atomic
def _end(row: Alarm, channels: Sequence[str], now: datetime) -> None:
    alarm = Alarm.objects.select_for_update().filter(pk=row.pk).first()
    if alarm is None:
        return  # another process ended it first
    if alarm.is_reported:
        since = alarm.since.astimezone(KST)
        text = _("Over, after {seconds:,} s: {what}").format(
            seconds=max(0, int((now - alarm.since).total_seconds())), what=alarm.text
        )
        write_messages(
            [Notification(f"over:{alarm.pk}:{since:%Y%m%d%H%M%S%f}", NotificationKind.ALARM, text, now)],
            channels,
            now=now,
        )
    alarm.delete()
