"""Brings one order in step with its lines in the broker's order list, under the order's lock.

The list outranks notices and replies, after the delays of docs/evidence.md: a fill that only a notice told of is
revoked after `FILL_UNLISTED_FOR`, an order is expired `SESSION_END_AFTER` its last session, and what a cancel of ours
released is what a line says that references the order.
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
from orders.order_list import describe as _evidence

log = logging.getLogger(__name__)

Phases = tuple[Phase, ...] | None
# a fill of a notice that was decrypted with our own key is revoked if complete lists lack it for this long
FILL_UNLISTED_FOR = timedelta(minutes=5)
# an order is expired by a complete list that was asked for this long after its last session
SESSION_END_AFTER = timedelta(seconds=60)
# a list that shows open what a notice called cancelled is believed after this
REOPEN_AFTER = timedelta(seconds=60)


@log_context.named
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
    """Bring one order in step with its line of the list; return 1 if fills were corrected.

    `related` are the lines that reference it: cancels and amends, ours and external ones. A line that the list lacks is
    missing only if it `proves_absence`. `phases` are those of the day on which the list was asked for, if at hand.
    """
    order = journal.locked(pk)
    changes = requests.all_changes(order)
    is_old = _is_older_than_fills(order, record, asked_at, is_complete=is_complete)
    if is_old or _is_torn(changes, record, related, asked_at):
        journal.update_fields(order, look_wanted=True)
        return 0
    corrected = _settle_fills(order, record, asked_at=asked_at, now=now)
    _note_withdrawn(order, record)
    ours = _confirm_requests(order, record, related, changes, asked_at=asked_at, now=now)
    # numbers begin anew each day: an order of an earlier one is not left open for a line of somebody else
    is_past = order.order_date < asked_at.astimezone(KST).date()
    may_expire = (is_complete or is_past) and is_over(order, asked_at, phases)
    cause = _cause(order, record, related, ours, changes, asked_at, phases, is_complete=is_complete)
    _settle_end(order, record, cause, asked_at=asked_at, now=now, may_expire=may_expire)
    if is_complete and proves_absence:
        _lapse_requests(order, changes, asked_at=asked_at, now=now)
    _note_confirmed(order, changes, asked_at)
    return corrected


def agrees(order: TradeOrder, record: OrderRecord, asked_at: datetime, phases: Phases) -> bool:
    """Whether a line tells nothing new of an order that rests, so that only its confirmation is to be noted."""
    is_plain = order.is_open and not order.look_wanted and not order.absent_looks
    is_known = order.missing_since is None and order.unlisted_since is None and not record.rejected_qty
    same = (order.filled_qty, order.filled_amount, order.open_qty)
    return (
        is_plain
        and is_known
        and same == (record.filled_qty, record.filled_amount, record.open_qty)
        and not is_over(order, asked_at, phases)
    )


def _note_confirmed(order: TradeOrder, changes: Sequence[BrokerRequest], asked_at: datetime) -> None:
    confirmed_at = max(order.looked_at or asked_at, asked_at)
    is_settled = not _is_wanted_since(order, changes, asked_at) and not _waits_for_its_end(order)
    wanted: dict[str, Any] = {"look_wanted": False, "lookup_at": None}
    if not is_settled:
        wanted = {"look_wanted": True, "lookup_at": journal.next_lookup(order, asked_at)}
    journal.update_fields(order, looked_at=confirmed_at, missing_since=None, absent_looks=0, **wanted)


def _is_wanted_since(order: TradeOrder, changes: Sequence[BrokerRequest], asked_at: datetime) -> bool:
    """Whether something happened after the list was asked for that only a later one can show."""
    if any(each.as_sent().sent_at >= asked_at for each in changes if each.state in LIVE):
        return True
    if not order.look_wanted:
        return False
    return order.notices.filter(state=RawNotice.State.DOUBTFUL, received_at__gte=asked_at).exists()


def _waits_for_its_end(order: TradeOrder) -> bool:
    """Whether it is cancelled, and no list has said yet by what."""
    return order.state is Status.CANCELLED and not order.end_cause


# --- fills -----------------------------------------------------------------------------------------------------------


def _is_older_than_fills(order: TradeOrder, record: OrderRecord, asked_at: datetime, *, is_complete: bool) -> bool:
    """Whether the list lacks fills that we counted, and may still come to show them.

    Meanwhile nothing of the family is ordered, and the screen says that the list does not show them yet.
    """
    if record.filled_qty >= order.filled_qty:
        if order.unlisted_since is not None:
            journal.update_fields(order, unlisted_since=None)
        return False
    live = order.executions.filter(voided_at__isnull=True)
    if live.filter(recorded_at__gt=asked_at - LIST_LAG).exists():
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
    """Whether the line of an order just cancelled does not add up yet: a fill may be missing from it."""
    sent = [each.sent_at for each in changes if each.kind == RequestKind.CANCEL and each.sent_at is not None]
    if not sent or asked_at - max(sent) >= LIST_LAG or record.open_qty:
        return False
    # what an amend took may be printed as cancelled, or not at all
    moved = sum(line.qty for line in related if not line.is_cancel)
    gone = record.qty - record.filled_qty - record.rejected_qty
    return 0 < record.cancelled_qty < gone and record.cancelled_qty + moved < gone


def _settle_fills(order: TradeOrder, record: OrderRecord, *, asked_at: datetime, now: datetime) -> int:
    doubtful = order.notices.filter(state=RawNotice.State.DOUBTFUL, received_at__lt=asked_at)
    if (order.filled_qty, order.filled_amount) == (record.filled_qty, record.filled_amount):
        doubtful.update(state=RawNotice.State.DUPLICATE)
        return 0
    is_explained = _apply_doubtful(order, record, doubtful, now=now)
    for execution in order.executions.filter(voided_at__isnull=True).order_by("-cumulative_qty"):
        if _fits(order, record):
            break
        is_explained = False
        fills.void_fill(execution, order, now=now, why="not on the broker's list")
    qty, amount = record.filled_qty - order.filled_qty, record.filled_amount - order.filled_amount
    if qty:
        is_explained = False
        fills.apply_fill(order, _listed_fill(qty, amount, record, now=now), now=now)
    doubtful.update(state=RawNotice.State.DUPLICATE)
    if order.unlisted_since is not None:
        journal.update_fields(order, unlisted_since=None)
    if is_explained:
        return 0
    log.warning("order %s: fills corrected to %d shares by the broker's list", order.pk, record.filled_qty)
    return 1


def _apply_doubtful(order: TradeOrder, record: OrderRecord, doubtful: "QuerySet[RawNotice]", *, now: datetime) -> bool:
    """Count the doubtful notices that explain what the list has and we have not; False if they do not explain it all.

    Two equal fills within one second look like one notice told twice, until the list shows both.
    """
    waiting = list(doubtful.filter(kind="FILLED").order_by("id"))
    told = [notice for raw in waiting if (notice := fills.readable_notice(raw)) is not None]
    missing = record.filled_qty - order.filled_qty, record.filled_amount - order.filled_amount
    if (
        not told
        or len(told) < len(waiting)
        or missing != (sum(each.qty for each in told), sum(each.qty * each.price for each in told))
    ):
        return False
    for raw, notice in zip(waiting, told, strict=True):
        fills.apply_fill(order, fills.noticed_fill(raw, notice), now=now)
        raw.state = RawNotice.State.APPLIED
        raw.save(update_fields=["state"])
    return True


def _fits(order: TradeOrder, record: OrderRecord) -> bool:
    """Whether what is left to add makes sense: shares with a price, or nothing at all."""
    qty, amount = record.filled_qty - order.filled_qty, record.filled_amount - order.filled_amount
    return (qty > 0 and amount > 0) or (qty == 0 and amount == 0)


def _listed_fill(qty: int, amount: int, record: OrderRecord, *, now: datetime) -> fills.Fill:
    in_day = record.order_date == now.astimezone(KST).date()
    return fills.Fill(
        qty=qty,
        price=(Decimal(amount) / qty).quantize(Decimal("0.0001")),
        amount=amount,
        executed_at=now if in_day else record.stamped_at,
        source=TradeExecution.Source.LIST,
        market=record.market,
    )


def _note_withdrawn(order: TradeOrder, record: OrderRecord) -> None:
    """Note what partial cancels and amends took from an order that is still open."""
    withdrawn = max(0, record.qty - record.filled_qty - record.open_qty) if record.open_qty else order.withdrawn_qty
    if withdrawn != order.withdrawn_qty:
        journal.update_fields(order, withdrawn_qty=withdrawn)


# --- cancels and amends of ours --------------------------------------------------------------------------------------


def _confirm_requests(
    order: TradeOrder,
    record: OrderRecord,
    related: Sequence[OrderRecord],
    changes: Sequence[BrokerRequest],
    *,
    asked_at: datetime,
    now: datetime,
) -> Mapping[str, BrokerRequest]:
    """Confirm the requests of ours that these lines belong to; return each line's request by the line's number."""
    by_key = {each.pk: each for each in changes if _may_have_a_line(each)}
    sent = [request.as_sent() for request in by_key.values()]
    ahead = rules.clock_offset(order.sent_at, order.accepted_at, record.stamped_at)
    found = rules.attribute(sent, related, record, asked_at, ahead)
    ours = {line.order_no: by_key[pk] for pk, line in found.items()}
    external = [line for line in related if line.order_no not in ours]
    for pk, line in found.items():
        request = by_key[pk]
        if request.state == RequestState.CONFIRMED:
            continue
        if line.is_cancel:
            _confirm_cancel(order, request, line, record, external, changes, now=now)
        else:
            _confirm_amend(order, request, line, now=now)
    return ours


def _may_have_a_line(request: BrokerRequest) -> bool:
    never_left = request.state == RequestState.LAPSED and request.sent_at is None
    return not never_left and request.state not in (RequestState.NOT_SENT, RequestState.REJECTED)


def _taken_by(line: OrderRecord) -> int:
    return line.cancelled_qty if line.is_cancel and line.cancelled_qty else line.qty


def _cancelled_of(record: OrderRecord) -> int:
    """Return the shares that an order's own line shows as cancelled.

    A line flagged as cancelled (cncl_yn) with nothing open and without that figure lost all that was neither filled nor
    rejected. UNVERIFIED: that cncl_cfrm_qty is always printed; a recorded list with a cancelled order settles it.
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
    """Confirm a cancel, if the order's own line shows it too. No more counts as released than all lines leave room for.

    A list may print what an amend took as cancelled, or not at all.
    """
    if request.is_whole and record.open_qty:
        return
    cancelled_elsewhere = sum(_taken_by(each) for each in external if each.is_cancel)
    taken_elsewhere = sum(_taken_by(each) for each in external)
    earlier = requests.confirmed_qty(changes)
    earlier_cancels = requests.confirmed_qty([each for each in changes if each.kind == RequestKind.CANCEL])
    qty = min(
        _taken_by(line),
        _cancelled_of(record) - cancelled_elsewhere - earlier_cancels,
        record.qty - record.filled_qty - record.rejected_qty - taken_elsewhere - earlier,
    )
    if qty > 0 and requests.record_confirmed(request, line, qty, at=now):
        journal.append_event(order, OrderEventKind.CANCEL_CONFIRMED, f"{line.order_no}: {qty}", at=now)


def _confirm_amend(order: TradeOrder, request: BrokerRequest, line: OrderRecord, *, now: datetime) -> None:
    """Confirm an amend: the line names what it took, and the number of the order that it led to."""
    if not requests.record_confirmed(request, line, line.qty, at=now):
        return
    journal.append_event(order, OrderEventKind.AMEND_CONFIRMED, f"{line.order_no}: {line.qty} @ {line.price}", at=now)
    if request.makes_id is None:
        return
    made = journal.locked(request.makes_id)
    if made.order_no is None or made.never_arrived:
        acceptance = Acceptance(line.branch, line.order_no, line.placed_at)
        journal.record_accepted(made, acceptance, at=now, evidence=_evidence(line))
        inherit(order.pk, made)
    elif order.cancel_wanted_at is not None:
        inherit(order.pk, made)
    if line.qty != made.qty:  # what was asked for went by fills that the list did not have, or lacked some
        journal.update_fields(made, qty=line.qty)
        if made.is_open and made.filled_qty == line.qty:
            _move(made, Event.FULLY_FILLED, now, _evidence(line), chase_at=None)


def _lapse_requests(order: TradeOrder, changes: Sequence[BrokerRequest], *, asked_at: datetime, now: datetime) -> None:
    """Give up the requests that a complete list lacks long after they can have been carried out."""
    for request in requests.record_lapsed(changes, before=asked_at - LIST_LAG):
        # a cancel of the whole is sent again, one of a part is its caller's to repeat
        is_of_part = request.kind == RequestKind.CANCEL and not request.is_whole
        kind = "REDUCTION_LAPSED" if is_of_part else "REQUEST_LAPSED"
        journal.append_event(order, kind, f"{request.kind} {request.order_no}".strip(), at=now)
        if request.makes_id is not None:
            _give_up(journal.locked(request.makes_id), now)


def _give_up(made: TradeOrder, now: datetime) -> None:
    """Give up what an amend was to lead to, whether its sender died, its answer was lost, or nothing followed that."""
    why = gettext("a complete list shows the order to amend without this amend")
    if made.state is Status.SUBMITTING:
        journal.apply_event(made, Event.NO_ANSWER, at=now, detail=why)
    if made.state is Status.UNKNOWN:
        journal.record_not_found(made, why, at=now)
    elif made.state is Status.PENDING and not made.filled_qty:
        # the number stays with the request: a line of the list that has it all the same brings the order back
        lost = {"order_no": None, "branch": "", "never_arrived": True, "chase_at": None, "look_wanted": False}
        lost["refusal"] = why[:200]
        journal.apply_event(made, Event.REFUSED, at=now, detail=why, **lost)


# --- what ended it ---------------------------------------------------------------------------------------------------


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
            goes_on = event is Event.CANCELLED and cause is EndCause.OWN_CANCEL
            ended = {"end_cause": cause or "", "cancel_wanted_at": None, "cancel_due_at": None}
            _move(order, event, now, _evidence(record), **ended, **({} if goes_on else {"chase_at": None}))
            if event is Event.EXPIRED and record.open_qty:
                journal.append_event(order, OrderEventKind.OPEN_AFTER_SESSION, _evidence(record), at=now)
    elif order.state is Status.CANCELLED:
        _settle_cancelled(order, record, cause, asked_at, now)
    elif order.state is Status.REJECTED and _is_open_for_long(order, record, asked_at):
        _move(order, Event.STILL_OPEN, now, _evidence(record), refusal="", end_cause="")


def _is_open_for_long(order: TradeOrder, record: OrderRecord, asked_at: datetime) -> bool:
    """Whether a list that came long after the end of an order still shows it open, on a day that it can trade."""
    return bool(record.open_qty) and asked_at - order.status_at >= REOPEN_AFTER and not is_over(order, asked_at)


def _settle_cancelled(
    order: TradeOrder, record: OrderRecord, cause: EndCause | None, asked_at: datetime, now: datetime
) -> None:
    if _is_open_for_long(order, record, asked_at):
        _move(order, Event.STILL_OPEN, now, _evidence(record), end_cause="")
        if order.filled_qty:
            _move(order, Event.PART_FILLED, now, _evidence(record))
    elif cause is not None and order.end_cause != cause:
        ended = {} if cause is EndCause.OWN_CANCEL else {"chase_at": None}
        journal.update_fields(order, end_cause=cause.value, **ended)
        journal.append_event(order, OrderEventKind.END_EXPLAINED, cause.value, at=now)


def _ending(order: TradeOrder, record: OrderRecord, cause: EndCause | None, *, may_expire: bool) -> Event | None:
    """Return how the list says that an open order ended, None if it has not, or the list does not say yet."""
    if record.rejected_qty and not record.open_qty and not record.filled_qty:
        return Event.REFUSED if order.state is Status.PENDING else None
    if record.open_qty == 0 and cause is not None:
        return Event.CANCELLED
    return Event.EXPIRED if may_expire else None


def _cause(
    order: TradeOrder,
    record: OrderRecord,
    related: Sequence[OrderRecord],
    ours: Mapping[str, BrokerRequest],
    changes: Sequence[BrokerRequest],
    asked_at: datetime,
    phases: Phases,
    *,
    is_complete: bool,
) -> EndCause | None:
    """Return what ended an order of which nothing is open at the broker, None if the list does not say, or not yet."""
    if record.open_qty or record.filled_qty >= record.qty:
        return None
    if record.rejected_qty and record.filled_qty:
        return EndCause.REMAINDER_REJECTED
    left = record.qty - record.filled_qty - record.rejected_qty - sum(map(_taken_by, related))
    if related and left <= 0:
        last = max(related, key=lambda line: (line.placed_at, line.order_no))
        is_asked = any(_may_still_be_answered(each, last, asked_at) for each in changes)
        return None if is_asked and last.order_no not in ours else _cause_of(last, ours)
    if not (record.cancelled_qty or record.is_cancelled):
        return None
    if OrderKind(order.order_kind).is_immediate:
        return EndCause.IMMEDIATE_REMAINDER
    if has_ended(order, asked_at, phases) or _own_line_may_follow(changes, asked_at, is_complete=is_complete):
        return None
    was_ours = any(each.kind == RequestKind.CANCEL and each.order_no for each in changes)
    return EndCause.UNEXPLAINED if was_ours else EndCause.EXTERNAL_CANCEL


def _cause_of(line: OrderRecord, ours: Mapping[str, BrokerRequest]) -> EndCause | None:
    request = ours.get(line.order_no)
    if request is None:
        return EndCause.EXTERNAL_CANCEL if line.is_cancel else EndCause.EXTERNAL_AMEND
    if not line.is_cancel:
        return EndCause.OWN_AMEND
    # the line is ours, and the order's own line does not show it yet
    return EndCause.OWN_CANCEL if request.state == RequestState.CONFIRMED else None


def _may_still_be_answered(request: BrokerRequest, line: OrderRecord, asked_at: datetime) -> bool:
    """Whether a line may be that of a request of ours whose reply, with the line's number, is on its way."""
    is_same_kind = (request.kind == RequestKind.CANCEL) is line.is_cancel
    return is_same_kind and request.state == RequestState.SENT and asked_at <= request.as_sent().deadline


def _own_line_may_follow(changes: Sequence[BrokerRequest], asked_at: datetime, *, is_complete: bool) -> bool:
    """Whether a cancel of ours may be what ended it, though the list does not have its line yet, or it is unparsed."""
    sent = [each.as_sent() for each in changes if each.state in LIVE]
    return any(asked_at <= each.deadline + LIST_LAG or not is_complete for each in sent)


def has_ended(order: TradeOrder, moment: datetime, phases: Phases = None) -> bool:
    """Whether no session is left at `moment`, on a day with these phases, in which the order could trade."""
    today = moment.astimezone(KST).date()
    if order.order_date != today:
        return order.order_date < today
    phases = queries.phases_on(today) if phases is None else phases
    last = ends_at(Market(order.market), OrderKind(order.order_kind), phases)
    return last is not None and moment >= datetime.combine(today, last, KST)


def is_over(order: TradeOrder, asked_at: datetime, phases: Phases = None) -> bool:
    """Whether a list asked for then may expire the order: its last session ended a minute before."""
    return has_ended(order, asked_at - SESSION_END_AFTER, phases)


def _move(order: TradeOrder, event: Event, now: datetime, detail: str, **fields: object) -> None:
    """Move an order whose lock we hold."""
    if not journal.apply_event(order, event, at=now, detail=detail, **fields):
        raise RuntimeError(f"order {order.pk} moved under our lock")
