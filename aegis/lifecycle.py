"""The lifecycle of an order: its states, its events, and the table of possible moves.

The unusual moves happen: a fill overtakes our cancel, an order that was given up as lost appears in the list.
"""

from enum import StrEnum


class Status(StrEnum):
    SUBMITTING = "SUBMITTING"  # committed by us, no reply yet
    PENDING = "PENDING"  # the broker has it, nothing filled
    PARTIAL = "PARTIAL"
    FILLED = "FILLED"
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"  # its day or phase ended
    REJECTED = "REJECTED"
    UNKNOWN = "UNKNOWN"  # sent, no reply: the order list or an operator decides


class Event(StrEnum):
    ACCEPTED = "ACCEPTED"
    REFUSED = "REFUSED"
    NO_ANSWER = "NO_ANSWER"
    ABSENT = "ABSENT"  # enough complete lists lack it: it never arrived
    PART_FILLED = "PART_FILLED"
    FULLY_FILLED = "FULLY_FILLED"
    UNFILLED = "UNFILLED"  # the broker does not confirm our fills
    CANCELLED = "CANCELLED"
    EXPIRED = "EXPIRED"
    STILL_OPEN = "STILL_OPEN"  # a notice reported it cancelled or refused, but the list still shows it open


_S, _E = Status, Event

MOVES: dict[tuple[Status, Event], Status] = {
    (_S.SUBMITTING, _E.ACCEPTED): _S.PENDING,
    (_S.SUBMITTING, _E.REFUSED): _S.REJECTED,
    (_S.SUBMITTING, _E.NO_ANSWER): _S.UNKNOWN,  # the broker may have it: ask, never resend
    (_S.UNKNOWN, _E.ACCEPTED): _S.PENDING,
    (_S.UNKNOWN, _E.REFUSED): _S.REJECTED,
    (_S.UNKNOWN, _E.ABSENT): _S.REJECTED,
    (_S.PENDING, _E.REFUSED): _S.REJECTED,  # accepted by the broker, refused by the exchange
    (_S.PENDING, _E.PART_FILLED): _S.PARTIAL,
    (_S.PENDING, _E.FULLY_FILLED): _S.FILLED,
    (_S.PENDING, _E.CANCELLED): _S.CANCELLED,
    (_S.PENDING, _E.EXPIRED): _S.EXPIRED,
    (_S.PARTIAL, _E.PART_FILLED): _S.PARTIAL,
    (_S.PARTIAL, _E.FULLY_FILLED): _S.FILLED,
    (_S.PARTIAL, _E.UNFILLED): _S.PENDING,
    (_S.PARTIAL, _E.CANCELLED): _S.CANCELLED,
    (_S.PARTIAL, _E.EXPIRED): _S.EXPIRED,
    (_S.FILLED, _E.PART_FILLED): _S.PARTIAL,  # the broker's total is smaller than the notices'
    (_S.FILLED, _E.UNFILLED): _S.PENDING,
    (_S.CANCELLED, _E.PART_FILLED): _S.CANCELLED,  # late, but counted
    (_S.CANCELLED, _E.FULLY_FILLED): _S.FILLED,  # a fill overtook our cancel
    (_S.CANCELLED, _E.STILL_OPEN): _S.PENDING,
    (_S.EXPIRED, _E.PART_FILLED): _S.EXPIRED,
    (_S.EXPIRED, _E.FULLY_FILLED): _S.FILLED,
    (_S.CANCELLED, _E.UNFILLED): _S.CANCELLED,
    (_S.EXPIRED, _E.UNFILLED): _S.EXPIRED,
    (_S.REJECTED, _E.PART_FILLED): _S.PARTIAL,  # a notice refused it, but the exchange filled it: the fill counts
    (_S.REJECTED, _E.FULLY_FILLED): _S.FILLED,
    (_S.REJECTED, _E.ACCEPTED): _S.PENDING,  # given up as lost, then found
    (_S.REJECTED, _E.STILL_OPEN): _S.PENDING,  # a notice refused it, but every list shows it open
}

OPEN = frozenset({_S.PENDING, _S.PARTIAL})
# no reply has been recorded: the broker may or may not have it, and there is no number to cancel it by
UNANSWERED = frozenset({_S.SUBMITTING, _S.UNKNOWN})
UNSETTLED = OPEN | UNANSWERED
DONE = frozenset(_S) - UNSETTLED


class IllegalMove(Exception):
    """An event that cannot happen in this state: a bug of ours, or inconsistent data from the broker."""


def after(status: Status, event: Event) -> Status:
    """Return the state that `event` leads to. Raises IllegalMove if the table has no such move."""
    try:
        return MOVES[status, event]
    except KeyError:
        raise IllegalMove(f"{event} cannot happen to an order that is {status}") from None


def fill_event(filled_qty: int, qty: int) -> Event:
    """Return the event for a total of `filled_qty` filled shares of an order of `qty`."""
    if filled_qty >= qty:
        return Event.FULLY_FILLED
    return Event.PART_FILLED if filled_qty else Event.UNFILLED
