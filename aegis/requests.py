"""Requests to the broker (new order, amend, cancel) and what is known of each.

A request is REQUESTED when its row is committed, SENT when its bytes leave, ACKNOWLEDGED when a reply numbers it, and
CONFIRMED when a line of the broker's order list references it. Only the list says what a cancel or an amend took:
the intent, the sending and the acknowledgement prove nothing about the order. The table of evidence is in
docs/evidence.md.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from aegis.broker import OrderRecord

# a request whose sender died before it noted an answer can have been carried out until then: the client's time-outs
REPLY_DEADLINE = timedelta(seconds=15)
# the broker stamps whole seconds, by a clock of its own
STAMP_TOLERANCE = timedelta(seconds=2)
# a reply that came within this says when the broker stamped what it answers
ANSWERED_AT_ONCE = timedelta(seconds=2)
# without a confirmation in the list after this, the cancel is sent again: cancelling twice harms nothing
CANCEL_PATIENCE = timedelta(seconds=5)
# an unconfirmed cancel is reported to the operator after this
CANCEL_REPORT_AFTER = timedelta(seconds=30)
# each further cancel of one order waits twice as long as the one before, up to this
CANCEL_BACKOFF_MAX = timedelta(seconds=60)


class RequestKind(StrEnum):
    NEW = "NEW"
    AMEND = "AMEND"
    CANCEL = "CANCEL"


class RequestState(StrEnum):
    REQUESTED = "REQUESTED"  # its row is committed, nothing has left
    SENT = "SENT"  # its bytes may have left; no reply yet
    ACKNOWLEDGED = "ACKNOWLEDGED"  # the reply numbered it
    CONFIRMED = "CONFIRMED"  # a line of the order list references it
    REJECTED = "REJECTED"  # the broker or the exchange refused it
    UNKNOWN = "UNKNOWN"  # no readable reply: it may have been executed
    NOT_SENT = "NOT_SENT"  # it provably never reached the broker
    LAPSED = "LAPSED"  # the list showed the end of its order without it


class RequestedBy(StrEnum):
    CALLER = "CALLER"  # a strategy, a command, a message
    CHASE = "CHASE"
    STOP = "STOP"
    OPERATOR = "OPERATOR"
    CANCEL_ALL = "CANCEL_ALL"

    @property
    def is_person(self) -> bool:
        """Whether a person wants it: such a cancel is never held back and never rate-bounded."""
        return self in (RequestedBy.OPERATOR, RequestedBy.CANCEL_ALL)


class EndCause(StrEnum):
    """What ended an order, or what was left of it."""

    OWN_CANCEL = "OWN_CANCEL"
    OWN_AMEND = "OWN_AMEND"
    EXTERNAL_CANCEL = "EXTERNAL_CANCEL"
    EXTERNAL_AMEND = "EXTERNAL_AMEND"
    SESSION_END = "SESSION_END"  # the exchange took it back with the venue's last session
    IMMEDIATE_REMAINDER = "IMMEDIATE_REMAINDER"  # IOC and FOK orders do not rest
    REMAINDER_REJECTED = "REMAINDER_REJECTED"
    UNEXPLAINED = "UNEXPLAINED"  # no line of the list says: it is taken for nobody's, and nothing follows


# a request in these states may still be, or become, a line of the list
LIVE = frozenset({RequestState.REQUESTED, RequestState.SENT, RequestState.ACKNOWLEDGED, RequestState.UNKNOWN})

_S = RequestState
MOVES: dict[RequestState, frozenset[RequestState]] = {
    _S.REQUESTED: frozenset({_S.SENT, _S.ACKNOWLEDGED, _S.REJECTED, _S.UNKNOWN, _S.NOT_SENT, _S.CONFIRMED, _S.LAPSED}),
    _S.SENT: frozenset({_S.ACKNOWLEDGED, _S.REJECTED, _S.UNKNOWN, _S.NOT_SENT, _S.CONFIRMED, _S.LAPSED}),
    _S.UNKNOWN: frozenset({_S.ACKNOWLEDGED, _S.CONFIRMED, _S.REJECTED, _S.NOT_SENT, _S.LAPSED}),
    _S.ACKNOWLEDGED: frozenset({_S.CONFIRMED, _S.REJECTED, _S.LAPSED}),
    # a line may turn up after the order's end was explained otherwise
    _S.LAPSED: frozenset({_S.CONFIRMED}),
    _S.CONFIRMED: frozenset(),
    _S.REJECTED: frozenset({_S.CONFIRMED}),
    _S.NOT_SENT: frozenset(),
}


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A cancel or an amend of ours. `order_no` is that of its reply, empty without one.

    It asked for `qty` shares, or for all that was open if `is_whole`; `price` is an amend's new one. `deadline` is when
    it was given up as unanswered: what the broker stamped later was asked for by somebody else.
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
    """Return which of the lines that reference `order` is which request's, by the request's key.

    A line with the number of our own reply is ours. If a reply was lost, the line counts as ours only if it is the only
    one, was stamped between sending and deadline, and is what was asked for: the price of an amend, and its shares, or
    all that was open, whatever filled meanwhile. Where another cancel took something, no cancel counts. Any other line
    is external. A request that has not left, or whose reply may still come, has none. The
    broker's clock is `ahead` of ours by so much.
    """
    found: dict[int, OrderRecord] = {}
    for request in requests:
        line = next((line for line in lines if line.order_no == request.order_no), None)
        if request.order_no and line is not None:
            found[request.pk] = line
    lost = [request for request in requests if not request.order_no and _is_unanswered(request, asked_at)]
    for request in lost:
        same_kind = [line for line in lines if line.is_cancel is (request.kind is RequestKind.CANCEL)]
        fitting = [
            line for line in same_kind if _is_in_time(request, line, ahead) and _fits(request, line, lines, order)
        ]
        # one cancel is like another; an amend has its price
        is_alone = len(same_kind if request.kind is RequestKind.CANCEL else fitting) == 1
        if is_alone and fitting and fitting[0] not in found.values():
            found[request.pk] = fitting[0]
    return found


def clock_offset(sent_at: datetime | None, answered_at: datetime | None, stamped_at: datetime) -> timedelta:
    """Return how far the broker's clock is ahead of ours, by its stamp of a request that it answered at once.

    Zero if the reply says nothing of that, or no more than the stamp's own tolerance.
    """
    if sent_at is None or answered_at is None or not timedelta(0) <= answered_at - sent_at <= ANSWERED_AT_ONCE:
        return timedelta(0)
    offset = stamped_at - sent_at
    return offset if abs(offset) > STAMP_TOLERANCE else timedelta(0)


def _is_unanswered(request: SentRequest, asked_at: datetime) -> bool:
    """Whether the request left and no reply will come: it was lost, or its sender is dead.

    One that was given up because lists lacked it for long may turn up all the same.
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
    """Whether nothing is left open after `line`, and its quantity is what no fill and no other line took."""
    others = sum(each.qty for each in lines if each is not line)
    return order.open_qty == 0 and line.qty == order.qty - order.filled_qty - order.rejected_qty - others


def resend_after(sent: int) -> timedelta:
    """Return how long after the `sent`-th cancel of an order the next one may follow."""
    doublings = min(max(0, sent - 1), 10)
    return min(CANCEL_PATIENCE * (1 << doublings), CANCEL_BACKOFF_MAX)
