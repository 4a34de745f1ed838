"""A customer's order as the broker keeps it, and what a customer may ask for."""

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from aegis.terms import Market, OrderKind, Side


class OrderStatus(StrEnum):
    OPEN = "open"
    FILLED = "filled"
    CANCELLED = "cancelled"
    REPLACED = "replaced"  # amended: what was left went to a new number
    EXPIRED = "expired"
    REJECTED = "rejected"
    DONE = "done"  # a cancel request, carried out


class Request(StrEnum):
    NEW = "new"
    AMEND = "amend"
    CANCEL = "cancel"


@dataclass(frozen=True, slots=True)
class NewOrder:
    """What order-cash asks for. Prices are won, 0 where the kind has none."""

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
    """One line of the order list. A cancel or amend request is a line of its own."""

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
    book_price: int  # where it stands in a queue; a conditional limit (조건부지정가) leaves its price for the close
    reserve_price: int  # what one share still to be bought locks up
    status: OrderStatus = OrderStatus.OPEN
    filled: int = 0
    amount: int = 0
    fee: int = 0
    tax: int = 0
    cancelled: int = 0  # the next two included
    replaced: int = 0  # went to the new number of an amend
    expired: int = 0  # taken back by the end of a session
    rejected: int = 0
    triggered: bool = False

    @property
    def key(self) -> str:
        """The name of its entry in a book, unique over days."""
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
