"""Which orders can be amended (정정), and which amends only lower risk.

An amend uses order-rvsecncl on the order's venue and keeps the order kind. Any other change is a cancel and a new
order.
"""

from dataclasses import dataclass
from datetime import date

from aegis.terms import Market, OrderKind, Side


@dataclass(frozen=True, slots=True)
class AmendRule:
    """A venue and order kind whose orders can be amended from trade date `since`."""

    market: Market
    kind: OrderKind
    since: date = date.min


# Source: the broker's page of order-rvsecncl. UNVERIFIED: NXT and SOR; a reply to one amend on each settles it.
# UNVERIFIED and therefore left out: 02, 03, 04, 22, 27 and 41, which the broker's app amends too
AMENDABLE: tuple[AmendRule, ...] = (
    AmendRule(Market.KRX, OrderKind.LIMIT),
    AmendRule(Market.NXT, OrderKind.LIMIT, since=date(2025, 3, 4)),
    AmendRule(Market.SOR, OrderKind.LIMIT, since=date(2025, 3, 4)),
)


def can_amend(market: Market, kind: OrderKind, on: date) -> bool:
    """Whether an order of this venue and kind can be amended on a trade date."""
    return any((rule.market, rule.kind) == (market, kind) and rule.since <= on for rule in AMENDABLE)


def only_lowers_risk(side: Side, old_price: int, new_price: int) -> bool:
    """Whether an amend to `new_price` won adds no risk: it does not raise a buy's price or lower a sale's."""
    return (new_price - old_price) * side.sign <= 0
