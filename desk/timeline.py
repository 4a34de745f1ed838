"""The timeline of a family of orders: attempts, events, notices and executions in one sequence."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.utils.translation import gettext as _
from django.utils.translation import gettext_noop

from aegis.broker import NoticeKind
from aegis.order_events import OrderEventKind
from aegis.sessions import KST
from orders.models import BrokerRequest, OrderEvent, RawNotice, TradeExecution, TradeOrder

# the title of each event, and the tone that colours it
EVENTS = {
    OrderEventKind.CREATED: (gettext_noop("committed"), "quiet"),
    "ACCEPTED": (gettext_noop("accepted by the broker"), "good"),
    "REFUSED": (gettext_noop("refused"), "bad"),
    OrderEventKind.REFUSED_BY_NOTICE: (gettext_noop("refused by the exchange"), "bad"),
    "NO_ANSWER": (gettext_noop("no answer: it may have arrived"), "bad"),
    "ABSENT": (gettext_noop("it never arrived"), "warn"),
    OrderEventKind.UNDECIDED: (gettext_noop("several orders match: a person must decide"), "bad"),
    "PART_FILLED": (gettext_noop("partly filled"), "fill"),
    "FULLY_FILLED": (gettext_noop("filled"), "fill"),
    "UNFILLED": (gettext_noop("fills taken back"), "warn"),
    "CANCELLED": (gettext_noop("cancelled"), "warn"),
    "EXPIRED": (gettext_noop("expired"), "warn"),
    OrderEventKind.CANCEL_WANTED: (gettext_noop("cancel wanted: only sales pass"), "quiet"),
    OrderEventKind.CANCEL_DEFERRED: (gettext_noop("cancel wanted: it is sent once the order is found"), "quiet"),
    OrderEventKind.CANCEL_SENT: (gettext_noop("cancel sent"), "quiet"),
    OrderEventKind.CANCEL_TAKEN: (gettext_noop("cancel taken by the broker"), "quiet"),
    OrderEventKind.CANCEL_REFUSED: (gettext_noop("cancel refused"), "warn"),
    OrderEventKind.CANCEL_UNKNOWN: (gettext_noop("cancel without an answer"), "bad"),
    OrderEventKind.CANCEL_CONFIRMED: (gettext_noop("cancel confirmed by the list"), "warn"),
    OrderEventKind.CANCEL_UNCONFIRMED: (gettext_noop("cancel not confirmed by the list"), "bad"),
    OrderEventKind.AMEND_SENT: (gettext_noop("amend sent"), "quiet"),
    OrderEventKind.AMEND_TAKEN: (gettext_noop("amend taken by the broker"), "quiet"),
    OrderEventKind.AMEND_REFUSED: (gettext_noop("amend refused"), "warn"),
    OrderEventKind.AMEND_UNKNOWN: (gettext_noop("amend without an answer"), "bad"),
    OrderEventKind.AMEND_CONFIRMED: (gettext_noop("amend confirmed by the list"), "good"),
    OrderEventKind.REDUCTION_LAPSED: (gettext_noop("a reduction that the list never showed"), "warn"),
    OrderEventKind.REQUEST_LAPSED: (gettext_noop("a request that the list never showed"), "warn"),
    OrderEventKind.END_EXPLAINED: (gettext_noop("the list says what ended it"), "quiet"),
    "STILL_OPEN": (gettext_noop("still open in the list"), "warn"),
    OrderEventKind.OPEN_AFTER_SESSION: (gettext_noop("still open in the list after its last session"), "bad"),
    OrderEventKind.FILL_UNLISTED: (gettext_noop("fills that are not in the list yet"), "warn"),
    OrderEventKind.NOT_LISTED: (gettext_noop("missing from the list"), "bad"),
    OrderEventKind.STILL_UNDECIDED: (gettext_noop("its outcome is still unknown"), "bad"),
    OrderEventKind.CHASE_WANTED: (gettext_noop("chase wanted now"), "quiet"),
    OrderEventKind.CHASE_PAUSED: (gettext_noop("chase paused"), "quiet"),
    OrderEventKind.CHASE_ENDED: (gettext_noop("chase ended"), "warn"),
    OrderEventKind.KIND_CHANGED: (gettext_noop("order kind changed"), "warn"),
    OrderEventKind.OPERATOR: (gettext_noop("operator"), "person"),
}
NOTICES = {
    NoticeKind.ACCEPTED.value: gettext_noop("accepted"),
    NoticeKind.AMENDED.value: gettext_noop("amended"),
    NoticeKind.CANCELLED.value: gettext_noop("cancelled"),
    NoticeKind.REMAINDER_CANCELLED.value: gettext_noop("remainder cancelled"),
    NoticeKind.REFUSED.value: gettext_noop("refused"),
    NoticeKind.FILLED.value: gettext_noop("filled now"),
}


@dataclass(frozen=True, slots=True)
class Moment:
    """One entry of the timeline. `tone` colours it, `kind` is the event's kind, or the table that it is from."""

    at: datetime
    known_at: datetime
    rank: int
    order: TradeOrder
    kind: str
    tone: str
    title: str
    detail: str


@dataclass(frozen=True, slots=True)
class Note:
    """A remark on an order beside its status. `tone` colours it."""

    tone: str
    text: str


def differences(order: TradeOrder) -> Sequence[Note]:
    """Return the present differences between an order and the broker's list. No query."""
    remarks = []
    if not order.is_done and order.cancel_requested_at is not None:
        template = _("cancel requested at {at} ({by}), not confirmed by the list")
        remarks.append(
            Note(
                "warn",
                template.format(at=_clock(order.cancel_requested_at), by=order.get_cancel_requested_by_display()),
            )
        )
    if order.missing_since is not None:
        template = _("missing from the broker's list since {at}")
        remarks.append(Note("bad", template.format(at=_clock(order.missing_since))))
    if order.unlisted_since is not None:
        template = _("fills not in the list yet, since {at}")
        remarks.append(Note("warn", template.format(at=_clock(order.unlisted_since))))
    return remarks


def notes(order: TradeOrder) -> Sequence[Note]:
    """Return an order's origin, its differences from the broker's list, and the cause of its end. No query."""
    remarks = []
    if order.replaces_id is not None:
        is_ours = order.origin == TradeOrder.Origin.AEGIS
        template = _("amended from #{pk} by AEGIS") if is_ours else _("amended from #{pk} in the broker's app")
        remarks.append(Note("quiet", template.format(pk=order.replaces_id)))
    remarks += differences(order)
    if order.withdrawn_qty and order.is_open:
        remarks.append(
            Note("quiet", _("{qty:,} shares of it were cancelled or amended").format(qty=order.withdrawn_qty))
        )
    if order.end_cause:
        remarks.append(Note("quiet", str(order.get_end_cause_display())))
    remarks += [Note("quiet", text) for text in (order.refusal, order.chase_note) if text]
    return remarks


def _clock(at: datetime) -> str:
    return f"{at.astimezone(KST):%m-%d %H:%M:%S}"


def requests_of(family: Sequence[TradeOrder]) -> Sequence[BrokerRequest]:
    """Return the requests to the broker for a family, the newest last."""
    return list(BrokerRequest.objects.filter(order__in=family).select_related("makes").order_by("id"))


def family_of(order: TradeOrder) -> Sequence[TradeOrder]:
    """Return the root and its re-orders, in the order they were sent."""
    return list(order.family.order_by("attempt", "id"))


def timeline(family: Sequence[TradeOrder]) -> Sequence[Moment]:
    """Return the moments of a family, in the order in which AEGIS learned of them. Three queries."""
    by_pk = {order.pk: order for order in family}
    moments = [*_events(by_pk), *_executions(by_pk), *_notices(by_pk)]
    return sorted(moments, key=lambda moment: (moment.known_at, moment.rank))


def _events(orders: dict[int, TradeOrder]) -> Iterator[Moment]:
    for event in OrderEvent.objects.filter(order__in=orders):
        title, tone = EVENTS.get(event.kind, (event.kind, "quiet"))
        yield Moment(event.at, event.at, event.pk, orders[event.order_id], event.kind, tone, _(title), event.detail)


def _executions(orders: dict[int, TradeOrder]) -> Iterator[Moment]:
    for fill in TradeExecution.objects.filter(order__in=orders):
        voided = _("(taken back)") if fill.voided_at else ""
        title = _("{qty:,} shares at {price:,.0f}").format(qty=fill.exec_qty, price=fill.exec_price)
        detail = _("{total:,} in all, commission {fee:,}, tax {tax:,}, by {source} {voided}").format(
            total=fill.cumulative_qty, fee=fill.fee, tax=fill.tax, source=fill.get_source_display(), voided=voided
        )
        yield Moment(
            fill.executed_at,
            fill.recorded_at,
            fill.pk,
            orders[fill.order_id],
            "EXECUTION",
            "fill",
            title,
            detail.strip(),
        )


def _notices(orders: dict[int, TradeOrder]) -> Iterator[Moment]:
    for notice in RawNotice.objects.filter(order__in=orders):
        title = _("notice: {kind}").format(kind=_(NOTICES.get(notice.kind, notice.kind)))
        assert notice.order_id is not None  # the query selects notices by their order
        delay = "" if notice.committed_ms is None else f", {notice.committed_ms:.1f} ms"
        detail = f"{notice.get_state_display()}{delay}"
        yield Moment(
            notice.received_at,
            notice.received_at,
            notice.pk,
            orders[notice.order_id],
            "NOTICE",
            "notice",
            title,
            detail,
        )
