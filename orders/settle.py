"""Settles one order by its lines in the broker's order list, under the order's lock.

The list outranks notices and replies, after the delays of docs/evidence.md: a fill that only a notice reported is
revoked after `FILL_UNLISTED_FOR`, and an order expires `SESSION_END_AFTER` its last session. The shares that a cancel
of ours released are those of the line that references the order.
"""

import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext

from aegis import requests as rules
from aegis.broker import Acceptance, OrderRecord
from aegis.lifecycle import OPEN, Event, Status
from aegis.order_events import OrderEventKind
from aegis.requests import LIVE, EndCause, RequestKind, RequestState
from aegis.sessions import KST, Phase, ends_at
from aegis.terms import Market, OrderKind
from infra import log_context
from market import queries
from orders import fills, journal, requests
from orders.cancel import inherit
from orders.models import BrokerRequest, RawNotice, TradeExecution, TradeOrder
from orders.order_list import LIST_LAG
from orders.order_list import describe_record as _evidence

log = logging.getLogger(__name__)

Phases = tuple[Phase, ...] | None
# a fill by a notice that our own key decrypted is revoked if complete lists lack it for this long
FILL_UNLISTED_FOR = timedelta(minutes=5)
# a complete list that was requested this long after an order's last session expires the order
SESSION_END_AFTER = timedelta(seconds=60)
# a list that shows an order open although a notice reported its cancel counts after this
REOPEN_AFTER = timedelta(seconds=60)


@log_context.with_order_context
@transaction.atomic
def settle(
    pk: int,
    record: OrderRecord,
    *,
    asked_at: datetime,
    now: datetime,
    related: Sequence[OrderRecord] = (),
    is_complete: bool = True,
    proves_absence: bool = True,
    phases: Phases = None,
) -> int:
    """Settle one order by its line of the list; return 1 if fills were corrected, else 0.

    `asked_at` is when the list was requested. `related` are the lines that reference the order: cancels and amends, our
    own and external ones. The absence of a line counts only if the list `proves_absence`. `phases` are the session
    phases of the day of the request, read from the tables if None.
    """
    order = journal.locked(pk)
    changes = requests.all_changes(order)
    is_old = _is_older_than_fills(order, record, asked_at, is_complete=is_complete)
    if is_old or _is_torn(changes, record, related, asked_at):
        journal.update_fields(order, needs_reconciliation=True)
        return 0
    corrected = _settle_fills(order, record, asked_at=asked_at, now=now)
    _note_withdrawn(order, record)
    own_requests = _confirm_requests(order, record, related, changes, asked_at=asked_at, now=now)
    # order numbers restart each day: an unparsed line of today does not keep an order of an earlier day open
    is_past = order.order_date < asked_at.astimezone(KST).date()
    may_expire = (is_complete or is_past) and is_over(order, asked_at, phases)
    cause = _cause(order, record, related, own_requests, changes, asked_at, phases, is_complete=is_complete)
    _settle_end(order, record, cause, asked_at=asked_at, now=now, may_expire=may_expire)
    if is_complete and proves_absence:
        _lapse_requests(order, changes, asked_at=asked_at, now=now)
    _note_confirmed(order, changes, asked_at)
    return corrected


def agrees(order: TradeOrder, record: OrderRecord, asked_at: datetime, phases: Phases) -> bool:
    """Whether a line changes nothing of a resting order, so that only the confirmation is recorded."""
    is_plain = order.is_open and not order.needs_reconciliation and not order.not_found_count
    is_known = order.missing_since is None and order.unlisted_since is None and not record.rejected_qty
    row_figures = (order.filled_qty, order.filled_amount, order.open_qty)
    return (
        is_plain
        and is_known
        and row_figures == (record.filled_qty, record.filled_amount, record.open_qty)
        and not is_over(order, asked_at, phases)
    )


def _note_confirmed(order: TradeOrder, changes: Sequence[BrokerRequest], asked_at: datetime) -> None:
    confirmed_at = max(order.confirmed_at or asked_at, asked_at)
    is_settled = not _is_wanted_since(order, changes, asked_at) and not _waits_for_its_end(order)
    fields: dict[str, Any] = {"needs_reconciliation": False, "lookup_at": None}
    if not is_settled:
        fields = {"needs_reconciliation": True, "lookup_at": journal.next_lookup(order, asked_at)}
    journal.update_fields(order, confirmed_at=confirmed_at, missing_since=None, not_found_count=0, **fields)


def _is_wanted_since(order: TradeOrder, changes: Sequence[BrokerRequest], asked_at: datetime) -> bool:
    """Whether something happened after the list was requested that only a later list can show."""
    if any(change.as_sent().sent_at >= asked_at for change in changes if change.state in LIVE):
        return True
    if not order.needs_reconciliation:
        return False
    return order.notices.filter(state=RawNotice.State.DOUBTFUL, received_at__gte=asked_at).exists()


def _waits_for_its_end(order: TradeOrder) -> bool:
    """Whether the order is cancelled and its end cause is not known yet."""
    return order.state is Status.CANCELLED and not order.end_cause


# --- fills -----------------------------------------------------------------------------------------------------------


def _is_older_than_fills(order: TradeOrder, record: OrderRecord, asked_at: datetime, *, is_complete: bool) -> bool:
    """Whether the list lacks fills that we counted, and a later list may still show them.

    Until then the family is not re-ordered, and the desk reports that the list does not show the fills yet.
    """
    if record.filled_qty >= order.filled_qty:
        if order.unlisted_since is not None:
            journal.update_fields(order, unlisted_since=None)
        return False
    executions = order.executions.filter(voided_at__isnull=True)
    if executions.filter(recorded_at__gt=asked_at - LIST_LAG).exists():
        return True
    if not is_complete:
        return True
    if order.unlisted_since is None:
        journal.update_fields(order, unlisted_since=asked_at)
        journal.append_event(order, OrderEventKind.FILL_UNLISTED, _evidence(record), at=asked_at)
        return True
    return asked_at - order.unlisted_since < FILL_UNLISTED_FOR


def _is_torn(
    changes: Sequence[BrokerRequest], record: OrderRecord, related: Sequence[OrderRecord], asked_at: datetime
) -> bool:
    """Whether the quantities of a recently cancelled order do not add up yet: a fill may be missing from its line."""
    sent_times = [
        change.sent_at for change in changes if change.kind == RequestKind.CANCEL and change.sent_at is not None
    ]
    if not sent_times or asked_at - max(sent_times) >= LIST_LAG or record.open_qty:
        return False
    # the list may show amended shares as cancelled, or not at all
    amended_qty = sum(line.qty for line in related if not line.is_cancel)
    ended_qty = record.qty - record.filled_qty - record.rejected_qty
    return 0 < record.cancelled_qty < ended_qty and record.cancelled_qty + amended_qty < ended_qty


def _settle_fills(order: TradeOrder, record: OrderRecord, *, asked_at: datetime, now: datetime) -> int:
    doubtful_notices = order.notices.filter(state=RawNotice.State.DOUBTFUL, received_at__lt=asked_at)
    if (order.filled_qty, order.filled_amount) == (record.filled_qty, record.filled_amount):
        doubtful_notices.update(state=RawNotice.State.DUPLICATE)
        return 0
    is_explained = _apply_doubtful(order, record, doubtful_notices, now=now)
    for execution in order.executions.filter(voided_at__isnull=True).order_by("-cumulative_qty"):
        if _fits(order, record):
            break
        is_explained = False
        fills.void_fill(execution, order, now=now, why="not on the broker's list")
    qty, amount = record.filled_qty - order.filled_qty, record.filled_amount - order.filled_amount
    if qty:
        is_explained = False
        fills.apply_fill(order, _listed_fill(qty, amount, record, now=now), now=now)
    doubtful_notices.update(state=RawNotice.State.DUPLICATE)
    if order.unlisted_since is not None:
        journal.update_fields(order, unlisted_since=None)
    if is_explained:
        return 0
    log.warning("order %s: fills corrected to %d shares by the broker's list", order.pk, record.filled_qty)
    return 1


def _apply_doubtful(
    order: TradeOrder, record: OrderRecord, doubtful_notices: "QuerySet[RawNotice]", *, now: datetime
) -> bool:
    """Apply the doubtful notices if they explain exactly the fills that we lack; False if they do not.

    Two equal fills within one second look like one repeated notice until the list shows both.
    """
    raw_notices = list(doubtful_notices.filter(kind="FILLED").order_by("id"))
    notices = [notice for raw in raw_notices if (notice := fills.readable_notice(raw)) is not None]
    difference = record.filled_qty - order.filled_qty, record.filled_amount - order.filled_amount
    if (
        not notices
        or len(notices) < len(raw_notices)
        or difference != (sum(fill.qty for fill in notices), sum(fill.qty * fill.price for fill in notices))
    ):
        return False
    for raw, notice in zip(raw_notices, notices, strict=True):
        fills.apply_fill(order, fills.noticed_fill(raw, notice), now=now)
        raw.state = RawNotice.State.APPLIED
        raw.save(update_fields=["state"])
    return True


def _fits(order: TradeOrder, record: OrderRecord) -> bool:
    """Whether the missing fills are plausible: a positive quantity and amount, or both zero."""
    qty, amount = record.filled_qty - order.filled_qty, record.filled_amount - order.filled_amount
    return (qty > 0 and amount > 0) or (qty == 0 and amount == 0)


def _listed_fill(qty: int, amount: int, record: OrderRecord, *, now: datetime) -> fills.Fill:
    is_today = record.order_date == now.astimezone(KST).date()
    return fills.Fill(
        qty=qty,
        price=(Decimal(amount) / qty).quantize(Decimal("0.0001")),
        amount=amount,
        executed_at=now if is_today else record.stamped_at,
        source=TradeExecution.Source.LIST,
        market=record.market,
    )


def _note_withdrawn(order: TradeOrder, record: OrderRecord) -> None:
    """Record the shares that partial cancels and amends took from an order that is still open."""
    withdrawn = max(0, record.qty - record.filled_qty - record.open_qty) if record.open_qty else order.withdrawn_qty
    if withdrawn != order.withdrawn_qty:
        journal.update_fields(order, withdrawn_qty=withdrawn)


# --- our own cancels and amends --------------------------------------------------------------------------------------


def _confirm_requests(
    order: TradeOrder,
    record: OrderRecord,
    related: Sequence[OrderRecord],
    changes: Sequence[BrokerRequest],
    *,
    asked_at: datetime,
    now: datetime,
) -> Mapping[str, BrokerRequest]:
    """Confirm our requests that these lines belong to; return the request of each line by the line's order number."""
    requests_by_pk = {change.pk: change for change in changes if _may_have_a_line(change)}
    sent_requests = [request.as_sent() for request in requests_by_pk.values()]
    clock_ahead = rules.clock_offset(order.sent_at, order.accepted_at, record.stamped_at)
    lines_by_pk = rules.attribute(sent_requests, related, record, asked_at, clock_ahead)
    own_requests = {line.order_no: requests_by_pk[pk] for pk, line in lines_by_pk.items()}
    external = [line for line in related if line.order_no not in own_requests]
    for pk, line in lines_by_pk.items():
        request = requests_by_pk[pk]
        if request.state == RequestState.CONFIRMED:
            continue
        if line.is_cancel:
            _confirm_cancel(order, request, line, record, external, changes, now=now)
        else:
            _confirm_amend(order, request, line, now=now)
    return own_requests


def _may_have_a_line(request: BrokerRequest) -> bool:
    never_left = request.state == RequestState.LAPSED and request.sent_at is None
    return not never_left and request.state not in (RequestState.NOT_SENT, RequestState.REJECTED)


def _taken_by(line: OrderRecord) -> int:
    return line.cancelled_qty if line.is_cancel and line.cancelled_qty else line.qty


def _cancelled_of(record: OrderRecord) -> int:
    """Return the shares that an order's own line shows as cancelled.

    If the line is flagged as cancelled (cncl_yn), has no open shares and lacks that quantity, all shares that were
    neither filled nor rejected count. UNVERIFIED: that cncl_cfrm_qty is always printed; a recorded list with a
    cancelled order settles it.
    """
    if record.cancelled_qty or not record.is_cancelled or record.open_qty:
        return record.cancelled_qty
    return record.qty - record.filled_qty - record.rejected_qty


def _confirm_cancel(
    order: TradeOrder,
    request: BrokerRequest,
    line: OrderRecord,
    record: OrderRecord,
    external: Sequence[OrderRecord],
    changes: Sequence[BrokerRequest],
    *,
    now: datetime,
) -> None:
    """Confirm a cancel if the order's own line shows it too.

    The released shares are at most those that all other lines leave over. The list may show amended shares as
    cancelled, or not at all.
    """
    if request.is_whole and record.open_qty:
        return
    cancelled_elsewhere = sum(_taken_by(item) for item in external if item.is_cancel)
    taken_elsewhere = sum(_taken_by(item) for item in external)
    earlier_qty = requests.confirmed_qty(changes)
    earlier_cancel_qty = requests.confirmed_qty([item for item in changes if item.kind == RequestKind.CANCEL])
    qty = min(
        _taken_by(line),
        _cancelled_of(record) - cancelled_elsewhere - earlier_cancel_qty,
        record.qty - record.filled_qty - record.rejected_qty - taken_elsewhere - earlier_qty,
    )
    if qty > 0 and requests.record_confirmed(request, line, qty, at=now):
        journal.append_event(order, OrderEventKind.CANCEL_CONFIRMED, f"{line.order_no}: {qty}", at=now)


def _confirm_amend(order: TradeOrder, request: BrokerRequest, line: OrderRecord, *, now: datetime) -> None:
    """Confirm an amend: the line has the shares that it moved, and the number of the new order."""
    if not requests.record_confirmed(request, line, line.qty, at=now):
        return
    journal.append_event(order, OrderEventKind.AMEND_CONFIRMED, f"{line.order_no}: {line.qty} @ {line.price}", at=now)
    if request.makes_id is None:
        return
    new_order = journal.locked(request.makes_id)
    if new_order.order_no is None or new_order.never_arrived:
        acceptance = Acceptance(line.branch, line.order_no, line.placed_at)
        journal.record_accepted(new_order, acceptance, at=now, evidence=_evidence(line))
        inherit(order.pk, new_order)
    elif order.cancel_requested_at is not None:
        inherit(order.pk, new_order)
    if line.qty != new_order.qty:  # the amend moved another quantity than requested, because of fills meanwhile
        journal.update_fields(new_order, qty=line.qty)
        if new_order.is_open and new_order.filled_qty == line.qty:
            _move(new_order, Event.FULLY_FILLED, now, _evidence(line), chase_at=None)


def _lapse_requests(order: TradeOrder, changes: Sequence[BrokerRequest], *, asked_at: datetime, now: datetime) -> None:
    """Mark requests as lapsed if a complete list still lacks them after their deadline."""
    for request in requests.record_lapsed(changes, before=asked_at - LIST_LAG):
        # a cancel of the whole order is sent again; its caller must repeat a partial cancel
        is_of_part = request.kind == RequestKind.CANCEL and not request.is_whole
        kind = OrderEventKind.REDUCTION_LAPSED if is_of_part else OrderEventKind.REQUEST_LAPSED
        journal.append_event(order, kind, f"{request.kind} {request.order_no}".strip(), at=now)
        if request.makes_id is not None:
            _give_up(journal.locked(request.makes_id), now)


def _give_up(new_order: TradeOrder, now: datetime) -> None:
    """Give up the new order of an amend: its sender died, its answer was lost, or the amend was not carried out."""
    reason = gettext("a complete list shows the order to amend without this amend")
    if new_order.state is Status.SUBMITTING:
        journal.apply_event(new_order, Event.NO_ANSWER, at=now, detail=reason)
    if new_order.state is Status.UNKNOWN:
        journal.record_not_found(new_order, reason, at=now)
    elif new_order.state is Status.PENDING and not new_order.filled_qty:
        # the request keeps the number: if a later list has a line with it, the order is restored
        fields: dict[str, Any] = {
            "order_no": None,
            "branch": "",
            "never_arrived": True,
            "chase_at": None,
            "needs_reconciliation": False,
        }
        fields["refusal"] = reason[:200]
        journal.apply_event(new_order, Event.REFUSED, at=now, detail=reason, **fields)


# --- end causes ------------------------------------------------------------------------------------------------------


def _settle_end(
    order: TradeOrder,
    record: OrderRecord,
    cause: EndCause | None,
    *,
    asked_at: datetime,
    now: datetime,
    may_expire: bool,
) -> None:
    if order.state in OPEN:
        event = _ending(order, record, cause, may_expire=may_expire)
        if event is not None:
            cause = EndCause.SESSION_END if event is Event.EXPIRED else cause
            chase_continues = event is Event.CANCELLED and cause is EndCause.OWN_CANCEL
            fields = {"end_cause": cause or "", "cancel_requested_at": None, "cancel_due_at": None}
            _move(order, event, now, _evidence(record), **fields, **({} if chase_continues else {"chase_at": None}))
            if event is Event.EXPIRED and record.open_qty:
                journal.append_event(order, OrderEventKind.OPEN_AFTER_SESSION, _evidence(record), at=now)
    elif order.state is Status.CANCELLED:
        _settle_cancelled(order, record, cause, asked_at, now)
    elif order.state is Status.REJECTED and _is_open_for_long(order, record, asked_at):
        _move(order, Event.STILL_OPEN, now, _evidence(record), refusal="", end_cause="")


def _is_open_for_long(order: TradeOrder, record: OrderRecord, asked_at: datetime) -> bool:
    """Whether a list still shows an order open after `REOPEN_AFTER` from its end, while it can still trade."""
    return bool(record.open_qty) and asked_at - order.status_at >= REOPEN_AFTER and not is_over(order, asked_at)


def _settle_cancelled(
    order: TradeOrder, record: OrderRecord, cause: EndCause | None, asked_at: datetime, now: datetime
) -> None:
    if _is_open_for_long(order, record, asked_at):
        _move(order, Event.STILL_OPEN, now, _evidence(record), end_cause="")
        if order.filled_qty:
            _move(order, Event.PART_FILLED, now, _evidence(record))
    elif cause is not None and order.end_cause != cause:
        fields = {} if cause is EndCause.OWN_CANCEL else {"chase_at": None}
        journal.update_fields(order, end_cause=cause.value, **fields)
        journal.append_event(order, OrderEventKind.END_EXPLAINED, cause.value, at=now)


def _ending(order: TradeOrder, record: OrderRecord, cause: EndCause | None, *, may_expire: bool) -> Event | None:
    """Return the event by which an open order ended, None if it did not end or the list does not show it yet."""
    if record.rejected_qty and not record.open_qty and not record.filled_qty:
        return Event.REFUSED if order.state is Status.PENDING else None
    if record.open_qty == 0 and cause is not None:
        return Event.CANCELLED
    return Event.EXPIRED if may_expire else None


def _cause(
    order: TradeOrder,
    record: OrderRecord,
    related: Sequence[OrderRecord],
    own_requests: Mapping[str, BrokerRequest],
    changes: Sequence[BrokerRequest],
    asked_at: datetime,
    phases: Phases,
    *,
    is_complete: bool,
) -> EndCause | None:
    """Return the end cause of an order without open shares at the broker, None if the list does not show it (yet)."""
    if record.open_qty or record.filled_qty >= record.qty:
        return None
    if record.rejected_qty and record.filled_qty:
        return EndCause.REMAINDER_REJECTED
    unexplained_qty = record.qty - record.filled_qty - record.rejected_qty - sum(map(_taken_by, related))
    if related and unexplained_qty <= 0:
        last_line = max(related, key=lambda line: (line.placed_at, line.order_no))
        may_be_ours = any(_may_still_be_answered(change, last_line, asked_at) for change in changes)
        return None if may_be_ours and last_line.order_no not in own_requests else _cause_of(last_line, own_requests)
    if not (record.cancelled_qty or record.is_cancelled):
        return None
    if OrderKind(order.order_kind).is_immediate:
        return EndCause.IMMEDIATE_REMAINDER
    if has_ended(order, asked_at, phases) or _own_line_may_follow(changes, asked_at, is_complete=is_complete):
        return None
    has_own_cancel = any(change.kind == RequestKind.CANCEL and change.order_no for change in changes)
    return EndCause.UNEXPLAINED if has_own_cancel else EndCause.EXTERNAL_CANCEL


def _cause_of(line: OrderRecord, own_requests: Mapping[str, BrokerRequest]) -> EndCause | None:
    request = own_requests.get(line.order_no)
    if request is None:
        return EndCause.EXTERNAL_CANCEL if line.is_cancel else EndCause.EXTERNAL_AMEND
    if not line.is_cancel:
        return EndCause.OWN_AMEND
    # the line is ours; an unconfirmed request means that the order's own line does not show it yet
    return EndCause.OWN_CANCEL if request.state == RequestState.CONFIRMED else None


def _may_still_be_answered(request: BrokerRequest, line: OrderRecord, asked_at: datetime) -> bool:
    """Whether a line may belong to a request of ours whose reply, with the line's number, has not arrived yet."""
    is_same_kind = (request.kind == RequestKind.CANCEL) is line.is_cancel
    return is_same_kind and request.state == RequestState.SENT and asked_at <= request.as_sent().deadline


def _own_line_may_follow(changes: Sequence[BrokerRequest], asked_at: datetime, *, is_complete: bool) -> bool:
    """Whether a request of ours may have ended the order although the list lacks its line, or the line is unparsed."""
    sent_requests = [request.as_sent() for request in changes if request.state in LIVE]
    return any(asked_at <= request.deadline + LIST_LAG or not is_complete for request in sent_requests)


def has_ended(order: TradeOrder, moment: datetime, phases: Phases = None) -> bool:
    """Whether no session in which the order could trade is left at `moment`; `phases` are those of that day."""
    today = moment.astimezone(KST).date()
    if order.order_date != today:
        return order.order_date < today
    phases = queries.phases_on(today) if phases is None else phases
    last_end = ends_at(Market(order.market), OrderKind(order.order_kind), phases)
    return last_end is not None and moment >= datetime.combine(today, last_end, KST)


def is_over(order: TradeOrder, asked_at: datetime, phases: Phases = None) -> bool:
    """Whether a list requested at `asked_at` may expire the order: `SESSION_END_AFTER` its last session."""
    return has_ended(order, asked_at - SESSION_END_AFTER, phases)


def _move(order: TradeOrder, event: Event, now: datetime, detail: str, **fields: Any) -> None:
    """Move an order under its lock. Raises RuntimeError if its state changed meanwhile."""
    if not journal.apply_event(order, event, at=now, detail=detail, **fields):
        raise RuntimeError(f"order {order.pk} moved under our lock")
