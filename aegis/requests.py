"""Requests to the broker (new order, amend, cancel) and the states of a request.

A request is REQUESTED when its row is committed, SENT when its bytes leave, ACKNOWLEDGED when a reply gives it a
number, and CONFIRMED when a line of the broker's order list references it. Only the list proves which shares a cancel
or an amend took: the row, the sending and the acknowledgement prove nothing about the order. The table of evidence is
in docs/evidence.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from aegis.broker import OrderRecord

# a request whose sender died before it recorded a reply may have been executed until then: the client's time-outs
REPLY_DEADLINE = timedelta(seconds=15)
# the broker stamps whole seconds, by a clock of its own
STAMP_TOLERANCE = timedelta(seconds=2)
# a reply within this time shows when the broker stamped the request
ANSWERED_AT_ONCE = timedelta(seconds=2)
# if the list does not confirm a cancel within this time, the cancel is sent again: a second cancel does no harm
CANCEL_PATIENCE = timedelta(seconds=5)
# an unconfirmed cancel is reported to the operator after this
CANCEL_REPORT_AFTER = timedelta(seconds=30)
# each further cancel of an order waits twice as long as the previous one, up to this
CANCEL_BACKOFF_MAX = timedelta(seconds=60)


class RequestKind(StrEnum):
    NEW = "NEW"
    AMEND = "AMEND"
    CANCEL = "CANCEL"


class RequestState(StrEnum):
    REQUESTED = "REQUESTED"  # its row is committed, nothing has left
    SENT = "SENT"  # its bytes may have left; no reply yet
    ACKNOWLEDGED = "ACKNOWLEDGED"  # the reply gave it a number
    CONFIRMED = "CONFIRMED"  # a line of the order list references it
    REJECTED = "REJECTED"  # the broker or the exchange refused it
    UNKNOWN = "UNKNOWN"  # no readable reply: it may have been executed
    NOT_SENT = "NOT_SENT"  # it provably never reached the broker
    LAPSED = "LAPSED"  # the list showed that its order ended without it


class RequestedBy(StrEnum):
    CALLER = "CALLER"  # a strategy, a command, a message
    CHASE = "CHASE"
    STOP = "STOP"
    OPERATOR = "OPERATOR"
    CANCEL_ALL = "CANCEL_ALL"

    @property
    def is_person(self) -> bool:
        """Whether a person requested it: such a cancel is never held back and never rate-limited."""
        return self in (RequestedBy.OPERATOR, RequestedBy.CANCEL_ALL)


class EndCause(StrEnum):
    """What ended an order, or its remainder."""

    OWN_CANCEL = "OWN_CANCEL"
    OWN_AMEND = "OWN_AMEND"
    EXTERNAL_CANCEL = "EXTERNAL_CANCEL"
    EXTERNAL_AMEND = "EXTERNAL_AMEND"
    SESSION_END = "SESSION_END"  # the exchange cancelled it after the venue's last session
    IMMEDIATE_REMAINDER = "IMMEDIATE_REMAINDER"  # IOC and FOK orders do not rest
    REMAINDER_REJECTED = "REMAINDER_REJECTED"
    UNEXPLAINED = "UNEXPLAINED"  # no line of the list explains it: no order follows


# a request in these states may have a line in the list, or get one
LIVE = frozenset({RequestState.REQUESTED, RequestState.SENT, RequestState.ACKNOWLEDGED, RequestState.UNKNOWN})

_S = RequestState
MOVES: dict[RequestState, frozenset[RequestState]] = {
    _S.REQUESTED: frozenset({_S.SENT, _S.ACKNOWLEDGED, _S.REJECTED, _S.UNKNOWN, _S.NOT_SENT, _S.CONFIRMED, _S.LAPSED}),
    _S.SENT: frozenset({_S.ACKNOWLEDGED, _S.REJECTED, _S.UNKNOWN, _S.NOT_SENT, _S.CONFIRMED, _S.LAPSED}),
    _S.UNKNOWN: frozenset({_S.ACKNOWLEDGED, _S.CONFIRMED, _S.REJECTED, _S.NOT_SENT, _S.LAPSED}),
    _S.ACKNOWLEDGED: frozenset({_S.CONFIRMED, _S.REJECTED, _S.LAPSED}),
    # a line may appear after the order's end was explained by another cause
    _S.LAPSED: frozenset({_S.CONFIRMED}),
    _S.CONFIRMED: frozenset(),
    _S.REJECTED: frozenset({_S.CONFIRMED}),
    _S.NOT_SENT: frozenset(),
}


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A cancel or an amend of ours. `order_no` is the number in its reply, empty without a reply.

    It requested `qty` shares, or all open shares if `is_whole`; `price` is the new price of an amend, in won.
    `deadline` is when it was given up as unanswered: a line that the broker stamped later is external.
    """

    pk: int
    kind: RequestKind
    state: RequestState
    sent_at: datetime
    deadline: datetime
    order_no: str
    qty: int
    is_whole: bool
    price: int = 0


def attribute(
    requests: Sequence[SentRequest],
    lines: Sequence[OrderRecord],
    order: OrderRecord,
    asked_at: datetime,
    ahead: timedelta = timedelta(0),
) -> dict[int, OrderRecord]:
    """Match requests to the lines that reference `order`; return the line of each matched request, by request key.

    A line with the number of our own reply is ours. If a reply was lost, a line counts as ours only if it is the only
    candidate, was stamped between sending and deadline, and fits the request: the price of an amend, and its shares or
    all open shares, after any fill in between. If another cancel took shares, no cancel counts as ours. Any other line
    is external. A request that was not sent, or whose reply may still arrive, has no line. `ahead` is how far the
    broker's clock is ahead of ours.
    """
    line_by_request: dict[int, OrderRecord] = {}
    for request in requests:
        line = next((line for line in lines if line.order_no == request.order_no), None)
        if request.order_no and line is not None:
            line_by_request[request.pk] = line
    unanswered = [request for request in requests if not request.order_no and _is_unanswered(request, asked_at)]
    for request in unanswered:
        same_kind = [line for line in lines if line.is_cancel is (request.kind is RequestKind.CANCEL)]
        candidates = [
            line for line in same_kind if _is_in_time(request, line, ahead) and _fits(request, line, lines, order)
        ]
        # two cancels cannot be distinguished; an amend has its price
        is_unique = len(same_kind if request.kind is RequestKind.CANCEL else candidates) == 1
        if is_unique and candidates and candidates[0] not in line_by_request.values():
            line_by_request[request.pk] = candidates[0]
    return line_by_request


def clock_offset(sent_at: datetime | None, answered_at: datetime | None, stamped_at: datetime) -> timedelta:
    """Return how far the broker's clock is ahead of ours, by its stamp of a request that it answered immediately.

    Zero if there is no such reply, or if the offset is within the stamp's tolerance.
    """
    if sent_at is None or answered_at is None or not timedelta(0) <= answered_at - sent_at <= ANSWERED_AT_ONCE:
        return timedelta(0)
    offset = stamped_at - sent_at
    return offset if abs(offset) > STAMP_TOLERANCE else timedelta(0)


def _is_unanswered(request: SentRequest, asked_at: datetime) -> bool:
    """Whether the request was sent and no reply will come: the reply was lost, or the sender died.

    A request that was given up (LAPSED) may still appear in a later list.
    """
    is_late = request.state is RequestState.SENT and asked_at > request.deadline
    return request.state in (RequestState.UNKNOWN, RequestState.LAPSED) or is_late


def _is_in_time(request: SentRequest, line: OrderRecord, ahead: timedelta) -> bool:
    return request.sent_at - STAMP_TOLERANCE <= line.stamped_at - ahead <= request.deadline + STAMP_TOLERANCE


def _fits(request: SentRequest, line: OrderRecord, lines: Sequence[OrderRecord], order: OrderRecord) -> bool:
    if request.kind is RequestKind.AMEND and line.price != request.price:
        return False
    return _takes_all_that_was_open(line, lines, order) if request.is_whole else line.qty == request.qty


def _takes_all_that_was_open(line: OrderRecord, lines: Sequence[OrderRecord], order: OrderRecord) -> bool:
    """Whether no share is open after `line`, and `line` took all shares that no fill and no other line took."""
    other_qty = sum(other.qty for other in lines if other is not line)
    return order.open_qty == 0 and line.qty == order.qty - order.filled_qty - order.rejected_qty - other_qty


def resend_after(cancels_sent: int) -> timedelta:
    """Return how long the next cancel of an order waits after `cancels_sent` cancels."""
    doublings = min(max(0, cancels_sent - 1), 10)
    return min(CANCEL_PATIENCE * (1 << doublings), CANCEL_BACKOFF_MAX)
