"""Modes of the order lists where the real broker's format is not known. Each is set at start or by a control command.

UNVERIFIED: which values the real broker uses. One amended order, one order that expired at the end of its session
and one order without a price, read from inquire-daily-ccld, settle it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any, Literal

from simulator.exchange.orders import Order, OrderStatus, Request

CHOICES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "amended": ("cancelled", "untouched"),
        "closed": ("cancelled", "open"),
        "unpriced": ("standing", "zero"),
    }
)


class BadPrinting(Exception):
    """A mode or a value that does not exist. The message names both and the possible values."""


@dataclass(frozen=True, slots=True)
class Printing:
    """The modes in force.

    `amended`: the original of an amend prints the amended quantity as cancelled, or nothing as cancelled.
    `closed`: a quantity that expired at the end of the session is printed as cancelled, or as still open.
    `unpriced`: an order kind without a price prints its price in the book, or 0.
    """

    amended: Literal["cancelled", "untouched"] = "cancelled"
    closed: Literal["cancelled", "open"] = "cancelled"
    unpriced: Literal["standing", "zero"] = "standing"

    def with_modes(self, modes: Mapping[str, Any]) -> "Printing":
        """Return these modes with the given ones replaced. Raises BadPrinting."""
        for name, value in modes.items():
            if name not in CHOICES:
                raise BadPrinting(f"{name!r} is not a printing mode; the modes are {', '.join(CHOICES)}")
            if value not in CHOICES[name]:
                raise BadPrinting(f"{name} {value!r}: one of {', '.join(CHOICES[name])} is needed")
        return replace(self, **modes)

    def cancelled_quantity(self, order: Order) -> int:
        """Return the shares printed as cancelled (취소확인수량)."""
        if order.request is Request.CANCEL:
            return order.quantity
        amended = order.replaced if self.amended == "untouched" else 0
        return order.cancelled - amended - self._left_open(order)

    def open_quantity(self, order: Order) -> int:
        """Return the shares printed as still open (잔여수량)."""
        return order.remaining + self._left_open(order)

    def is_cancelled(self, order: Order) -> bool:
        """Return whether the row is flagged as cancelled (취소여부). The original of an amend is not."""
        if order.request is Request.CANCEL:
            return True
        if order.status is OrderStatus.REPLACED:
            return False
        return order.cancelled - order.replaced > self._left_open(order)

    def price(self, order: Order) -> int:
        """Return the printed order price in won (주문단가)."""
        if order.kind.is_market or (self.unpriced == "zero" and not order.kind.is_priced):
            return 0
        return order.price

    def _left_open(self, order: Order) -> int:
        return order.expired if self.closed == "open" else 0


DEFAULT = Printing()
