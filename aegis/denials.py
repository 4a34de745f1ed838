"""The codes with which AEGIS denies an order, changes it, or trips the kill switch; and the denial that carries one.

The codes are part of the interface: strategies read them in the reply to an order.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aegis.described import DescribedName


def gettext_noop(text: str) -> str:
    """Mark a sentence for the translation catalogue. It is translated when it is shown."""
    return text


class DenialCode(DescribedName):
    """A stable code and its meaning. `docs/reference/denials.md` is generated from these."""

    AMEND_KIND = "AMEND_KIND", "orders of this kind cannot be amended at this venue: cancel it and place a new order"
    BAND = "BAND", "the next price of a chase leaves the band that its order was given"
    BLACKLISTED = "BLACKLISTED", "the stock is on the blacklist; buys only"
    CASH = "CASH", "not enough orderable cash, at the upper limit for an order without a price"
    CHANGE_PENDING = "CHANGE_PENDING", "a cancel or an amend of the order has no known end yet"
    CHASE_ENDED = "CHASE_ENDED", "the chase ended before its next order was committed"
    CIRCUIT_BREAKER = "CIRCUIT_BREAKER", "a circuit breaker holds the market; new orders wait until it trades again"
    COLLAR = "COLLAR", "the price is too far from the last trade (AEGIS_MAX_COLLAR_PERCENT)"
    DAILY_LIMIT = "DAILY_LIMIT", "the price is outside today's lower and upper limit"
    DAILY_LOSS = "DAILY_LOSS", "the day's loss reached its limit; a reason for a trip"
    DAY_VALUE = "DAY_VALUE", "the day's buys exceed AEGIS_MAX_DAY_WON"
    DUPLICATE = "DUPLICATE", "the same order was asked for within AEGIS_DUPLICATE_SECONDS"
    FILL_UNLISTED = "FILL_UNLISTED", "a fill of the family is not in the broker's list yet"
    FROZEN = "FROZEN", "an order of the same stock and side has no known outcome yet"
    FUND_AFTER_HOURS = "FUND_AFTER_HOURS", "KRX's after-market trades shares only"
    HALTED = "HALTED", "the trading state is HALTED"
    HELD = "HELD", "the chase waits: an auction, a break or a volatility interruption"
    INDEX_DROP = "INDEX_DROP", "an index fell too far within a short time; a reason for a trip"
    INDEX_FALL = "INDEX_FALL", "an index is too far below its open; a reason for a trip"
    KIND_CHANGED = "KIND_CHANGED", "a market order goes as a limit at the best opposite quote; a remark, not a denial"
    LIST_MISSING = "LIST_MISSING", "no complete order list for some minutes; a reason for a trip"
    MARKET_CLOSED = "MARKET_CLOSED", "the venue takes no orders now"
    NAMES_NO_PRICE = "NAMES_NO_PRICE", "the order kind has no price, and one was given"
    NEEDS_PRICE = "NEEDS_PRICE", "the order kind needs a price or a strategy"
    NOTHING_TO_AMEND = "NOTHING_TO_AMEND", "the amend would change nothing"
    NOT_ON_NXT = "NOT_ON_NXT", "the stock does not trade on NXT"
    NOT_OPEN = "NOT_OPEN", "nothing of the order is open"
    NOT_RECONCILED = "NOT_RECONCILED", "the broker's order list was not read lately"
    NOT_TODAY = "NOT_TODAY", "the order is of another trading day"
    NO_QUOTE = "NO_QUOTE", "the other side of the book has no quote"
    ORDER_KIND = "ORDER_KIND", "the venue does not take this order kind now"
    ORDER_VALUE = "ORDER_VALUE", "the order is worth more than AEGIS_MAX_ORDER_WON"
    PACE = "PACE", "too many orders of this side within a minute (AEGIS_MAX_ORDERS_PER_MINUTE)"
    POSITION_WEIGHT = "POSITION_WEIGHT", "the stock would be more of the account than AEGIS_MAX_POSITION_PERCENT"
    QUANTITY = "QUANTITY", "the quantity is no positive whole number, or more than is open"
    REDUCING = "REDUCING", "the trading state is REDUCING: only sales pass"
    REFUSALS = "REFUSALS", "the broker refused several orders in a row; a reason for a trip"
    REQUEST_TAKEN = "REQUEST_TAKEN", "the request id names an order for something else"
    RIVALS = "RIVALS", "other orders were committed first, again and again"
    SECTOR = "SECTOR", "the stock's sector is excluded (AEGIS_EXCLUDED_SECTORS); buys only"
    SELF_CROSS = "SELF_CROSS", "the order could trade against a resting order of the same account"
    SHARES = "SHARES", "not enough sellable shares"
    STOCK_HALTED = "STOCK_HALTED", "the exchange halted the stock"
    STOP_ATR = "STOP_ATR", "the average true range is not known: too few daily prices"
    STOP_AT_ONCE = "STOP_AT_ONCE", "the stop would trigger at once; confirm it to arm it anyway"
    STOP_VALUE = "STOP_VALUE", "the stop's value gives no price"
    STRATEGY = "STRATEGY", "the pricing strategy is unknown for this side"
    TICK = "TICK", "the price is not on the tick grid"
    TRIGGER = "TRIGGER", "a stop-limit order needs a condition price, and no other kind has one"
    UNKNOWN_STOCK = "UNKNOWN_STOCK", "there is no stock with this code"

    @property
    def is_transient(self) -> bool:
        """Whether it ends by itself: a queued re-order waits for that, while a new order is denied."""
        return self in _TRANSIENT


_TRANSIENT = frozenset(
    {
        DenialCode.FROZEN,
        DenialCode.NOT_RECONCILED,
        DenialCode.RIVALS,
        DenialCode.FILL_UNLISTED,
        DenialCode.HELD,
        DenialCode.HALTED,
        DenialCode.REDUCING,
        DenialCode.CIRCUIT_BREAKER,
    }
)


@dataclass(frozen=True, slots=True)
class Denial:
    """One reason against an order: a stable code, and a sentence with named placeholders for `figures`."""

    code: DenialCode
    sentence: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.sentence.format(**self.figures)

    @property
    def is_transient(self) -> bool:
        """Whether it ends by itself: a queued re-order waits for that, while a new order is denied."""
        return self.code.is_transient
