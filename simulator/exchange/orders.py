"""A customer's order in the broker's records, and the parameters of a new order."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from aegis.terms import Market, OrderKind, Side

KRX_AFTER = frozenset(OrderKind(str(code)) for code in range(41, 48))  # the kinds of KRX's after-market


class OrderStatus(StrEnum):
    OPEN = "open"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REPLACED = "replaced"  # amended: the rest moved to a new order number
    EXPIRED = "expired"
    REJECTED = "rejected"
    DONE = "done"  # a completed cancel request


class Request(StrEnum):
    NEW = "new"
    AMEND = "amend"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class NewOrder:
    """The parameters of order-cash. Prices are won, 0 if the kind has none."""

    account: str
    code: str
    side: Side
    market: Market
    kind: OrderKind
    quantity: int
    price: int
    stop_price: int = 0
    tag: str = ""


@dataclass(slots=True)
class Order:
    """One row of the order list. A cancel or amend request is a row of its own."""

    date: date
    number: int
    original: int
    request: Request
    branch: str
    account: str
    code: str
    side: Side
    market: Market
    venue: Market  # where it is now; differs from `market` for SOR
    kind: OrderKind
    quantity: int
    price: int
    stop_price: int
    time: str
    book_price: int  # price in the queue; a conditional limit (조건부지정가) leaves its `price` in the closing auction
    reserve_price: int  # won reserved per unfilled share of a buy
    status: OrderStatus = OrderStatus.OPEN
    filled: int = 0
    amount: int = 0
    fee: int = 0
    tax: int = 0
    cancelled: int = 0  # includes `replaced` and `expired`
    replaced: int = 0  # moved to the new order number of an amend
    expired: int = 0  # withdrawn at the end of a session
    rejected: int = 0
    triggered: bool = False

    @property
    def key(self) -> str:
        """The owner name of its book entries, unique over days."""
        return f"{self.date:%Y%m%d}-{self.number}"

    @property
    def remaining(self) -> int:
        if self.request is Request.CANCEL:
            return 0
        return self.quantity - self.filled - self.cancelled - self.rejected

    @property
    def is_open(self) -> bool:
        return self.status is OrderStatus.OPEN

    @property
    def average(self) -> float:
        return self.amount / self.filled if self.filled else 0.0


@dataclass(frozen=True, slots=True)
class Execution:
    """One fill of one order."""

    date: date
    number: int
    sequence: int
    quantity: int
    price: int
    time: str
    market: Market
