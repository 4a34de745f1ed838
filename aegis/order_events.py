"""The kinds of events in the history of an order and of a stop, with their meanings.

The events of an order that change its state are `aegis.lifecycle.Event`; those here do not change it.
`docs/reference/order-events.md` is generated from all of them.
"""

from aegis.described import DescribedName


class OrderEventKind(DescribedName):
    """An event in the history of an order that does not change its state."""

    CREATED = "CREATED", "its row was committed, before anything was sent"
    KIND_CHANGED = "KIND_CHANGED", "a market order goes as a limit at the best opposite quote"
    CHASE_WANTED = "CHASE_WANTED", "a person had its chase take a step at once"
    CHASE_PAUSED = "CHASE_PAUSED", "its chase waits; the detail says for what"
    CHASE_ENDED = "CHASE_ENDED", "its chase ended; the detail says why"
    CANCEL_WANTED = "CANCEL_WANTED", "a cancel was requested, and is driven until the list confirms it"
    CANCEL_DEFERRED = "CANCEL_DEFERRED", "a cancel waits until the broker's number of the order is known"
    CANCEL_SENT = "CANCEL_SENT", "a cancel was sent"
    CANCEL_TAKEN = "CANCEL_TAKEN", "the broker acknowledged a cancel"
    CANCEL_REFUSED = "CANCEL_REFUSED", "the broker refused a cancel, or it was not sent"
    CANCEL_UNKNOWN = "CANCEL_UNKNOWN", "a cancel was sent and has no answer"
    CANCEL_CONFIRMED = "CANCEL_CONFIRMED", "a line of the order list confirms our cancel"
    CANCEL_UNCONFIRMED = "CANCEL_UNCONFIRMED", "the list did not confirm a cancel in time"
    AMEND_SENT = "AMEND_SENT", "an amend was sent"
    AMEND_TAKEN = "AMEND_TAKEN", "the broker acknowledged an amend"
    AMEND_REFUSED = "AMEND_REFUSED", "the broker refused an amend, or it was not sent"
    AMEND_UNKNOWN = "AMEND_UNKNOWN", "an amend was sent and has no answer"
    AMEND_CONFIRMED = "AMEND_CONFIRMED", "a line of the order list confirms our amend"
    REDUCTION_LAPSED = "REDUCTION_LAPSED", "complete lists never showed a cancel of a part"
    REQUEST_LAPSED = "REQUEST_LAPSED", "complete lists never showed a cancel or an amend"
    END_EXPLAINED = "END_EXPLAINED", "what ended it is known now"
    FILL_UNLISTED = "FILL_UNLISTED", "a fill of a notice is not in the broker's list yet"
    NOT_LISTED = "NOT_LISTED", "complete lists lack it"
    OPEN_AFTER_SESSION = "OPEN_AFTER_SESSION", "the list shows it open after its last session"
    OPERATOR = "OPERATOR", "an operator decided its outcome"
    REFUSED_BY_NOTICE = "REFUSED_BY_NOTICE", "a notice refused it after it was accepted"
    UNDECIDED = "UNDECIDED", "two lines fit an order of unknown outcome: a person decides"
    STILL_UNDECIDED = "STILL_UNDECIDED", "it still waits for a person's decision"


class StopEventKind(DescribedName):
    """An event in the history of a stop."""

    ARMED = "ARMED", "armed"
    EDITED = "EDITED", "changed by a person"
    DISARMED = "DISARMED", "disarmed"
    TRIGGERED = "TRIGGERED", "a trade reached its line"
    WAITS = "WAITS", "its sale cannot go on; the detail says why"
    ORDERED = "ORDERED", "an order of its sale was placed"
    AGAIN = "AGAIN", "its sale goes on with another order"
    OPPOSITE = "OPPOSITE", "own buys are cancelled before it sells"
    LOCKED = "LOCKED", "shares that the broker does not let be sold"
    NO_BID = "NO_BID", "there are no bids: it waits at a limit"
    LOWER_LIMIT = "LOWER_LIMIT", "it stands at the day's lower limit"
    REFUSED = "REFUSED", "refused several times in a row"
    DONE = "DONE", "no guarded share is held any more"
    HELD_EXTERNALLY = (
        "HELD_EXTERNALLY",
        "its sale order was changed externally: it guards nothing until armed again",
    )
    REARMED = "REARMED", "armed again after it was held"
    FAILED = "FAILED", "it could not sell (earlier versions)"
    REBASED = "REBASED", "its line follows a split or an ex-rights day"
    HOLDS_FIRE = "HOLDS_FIRE", "it does not trigger until the base price is compared"
    SILENT = "SILENT", "its feed has reported no price for long"
    HEARD = "HEARD", "its feed reports prices again"
    IMPLAUSIBLE = "IMPLAUSIBLE", "a price that the day cannot have was ignored"
