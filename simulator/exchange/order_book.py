"""A limit order book with price-time priority. Pure: no clock, no tape, no stock codes.

An entry without an owner belongs to the market maker. Its quantity at a price shrinks from the back and grows at
the back, so that it never moves ahead of a waiting customer.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from aegis.terms import Side

MAKER = ""


@dataclass(slots=True)
class BookEntry:
    """The waiting shares of one owner at one price."""

    owner: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Match:
    """Shares traded with the resting order of `owner`, at that order's price."""

    price: int
    quantity: int
    owner: str


@dataclass(frozen=True, slots=True)
class BookTrade:
    """Shares matched in an auction, at the auction price."""

    quantity: int
    buyer: str
    seller: str


@dataclass(frozen=True, slots=True)
class Indication:
    """The expected price, in won, and volume of an auction. Both are 0 if nothing crosses."""

    price: int = 0
    quantity: int = 0


def other(side: Side) -> Side:
    return Side.SELL if side is Side.BUY else Side.BUY


class OrderBook:
    """Both sides of one stock on one venue."""

    def __init__(self) -> None:
        self._sides: dict[Side, dict[int, list[BookEntry]]] = {Side.BUY: {}, Side.SELL: {}}
        # sums by price of the maker's and the customers' shares: each step reads them
        self._maker_sums: dict[Side, dict[int, int]] = {Side.BUY: {}, Side.SELL: {}}
        self._customer_sums: dict[Side, dict[int, int]] = {Side.BUY: {}, Side.SELL: {}}

    def best(self, side: Side) -> int | None:
        """Return the best price of `side` in won, None if the side is empty."""
        levels = self._sides[side]
        if not levels:
            return None
        return max(levels) if side is Side.BUY else min(levels)

    def prices(self, side: Side) -> list[int]:
        """Return the prices of `side`, best first."""
        return sorted(self._sides[side], reverse=side is Side.BUY)

    def quantity(self, side: Side, price: int) -> int:
        return self._maker_sums[side].get(price, 0) + self._customer_sums[side].get(price, 0)

    def maker_quantity(self, side: Side, price: int) -> int:
        """Return the market maker's shares at `price`."""
        return self._maker_sums[side].get(price, 0)

    def depth(self, side: Side, count: int) -> list[tuple[int, int]]:
        """Return up to `count` pairs of price and quantity, best first."""
        return [(price, self.quantity(side, price)) for price in self.prices(side)[:count]]

    def total(self, side: Side) -> int:
        return sum(self._maker_sums[side].values()) + sum(self._customer_sums[side].values())

    def available(self, taker: Side, limit: int) -> int:
        """Return how many shares a `taker` could trade now at `limit` or better."""
        return sum(self.quantity(other(taker), price) for price in self._reachable(taker, limit))

    def take(self, taker: Side, limit: int, quantity: int) -> list[Match]:
        """Match an incoming order with resting orders; the caller handles the unmatched rest."""
        levels = self._sides[other(taker)]
        matches: list[Match] = []
        for price in self._reachable(taker, limit):
            entries = levels[price]
            while entries and quantity:
                first = entries[0]
                traded = min(first.quantity, quantity)
                matches.append(Match(price, traded, first.owner))
                quantity -= traded
                first.quantity -= traded
                self._count(other(taker), price, first.owner, -traded)
                if not first.quantity:
                    del entries[0]
            if not entries:
                del levels[price]
            if not quantity:
                break
        return matches

    def rest(self, side: Side, price: int, quantity: int, owner: str) -> None:
        """Put `quantity` at the end of the queue at `price`."""
        entries = self._sides[side].setdefault(price, [])
        self._count(side, price, owner, quantity)
        if entries and entries[-1].owner == owner:
            entries[-1].quantity += quantity
        else:
            entries.append(BookEntry(owner, quantity))

    def remove(self, side: Side, price: int, owner: str, quantity: int) -> int:
        """Remove up to `quantity` shares of `owner` from the queue at `price`, newest first; return how many."""
        entries = self._sides[side].get(price, [])
        remaining = quantity
        for index in range(len(entries) - 1, -1, -1):
            if entries[index].owner != owner or not remaining:
                continue
            removed = min(entries[index].quantity, remaining)
            remaining -= removed
            entries[index].quantity -= removed
            if not entries[index].quantity:
                del entries[index]
        if not entries:
            self._sides[side].pop(price, None)
        self._count(side, price, owner, remaining - quantity)
        return quantity - remaining

    def set_maker_quantity(self, side: Side, price: int, quantity: int) -> None:
        """Set the market maker's shares at `price` to `quantity`."""
        change = quantity - self.maker_quantity(side, price)
        if change > 0:
            self.rest(side, price, change, MAKER)
        elif change < 0:
            self.remove(side, price, MAKER, -change)

    def set_maker_levels(self, side: Side, quantities: dict[int, int]) -> None:
        """Set the market maker's shares on `side` to exactly these quantities by price."""
        if not self._customer_sums[side]:  # without customers there are no queue positions to preserve
            self._maker_sums[side] = quantities
            self._sides[side] = {price: [BookEntry(MAKER, quantity)] for price, quantity in quantities.items()}
            return
        for price in self._maker_sums[side].keys() - quantities.keys():
            self.set_maker_quantity(side, price, 0)
        for price, quantity in quantities.items():
            self.set_maker_quantity(side, price, quantity)

    def customer_prices(self, side: Side) -> Iterable[int]:
        """Return the prices at which customers wait on `side`."""
        return self._customer_sums[side]

    def has_customers(self) -> bool:
        return bool(self._customer_sums[Side.BUY] or self._customer_sums[Side.SELL])

    def ahead(self, side: Side, price: int, owner: str) -> int:
        """Return how many shares are ahead of `owner` at `price`."""
        shares = 0
        for entry in self._sides[side].get(price, ()):
            if entry.owner == owner:
                break
            shares += entry.quantity
        return shares

    def indication(self, reference: int) -> Indication:
        """Return the auction's price and volume now (단일가).

        The price is the one with the largest volume, then the smallest imbalance, then the smallest distance to
        `reference`.
        """
        prices = sorted({*self._sides[Side.BUY], *self._sides[Side.SELL]})
        supplies = accumulate(self.quantity(Side.SELL, price) for price in prices)
        demands = list(accumulate(self.quantity(Side.BUY, price) for price in reversed(prices)))[::-1]
        rank, price = min(
            (
                ((-min(demand, supply), abs(demand - supply), abs(price - reference)), price)
                for price, demand, supply in zip(prices, demands, supplies, strict=True)
            ),
            default=((0, 0, 0), 0),
        )
        return Indication(price, -rank[0]) if rank[0] else Indication()

    def uncross(self, reference: int) -> tuple[int, list[BookTrade]]:
        """Execute the auction: return its price and its trades. The price is 0 if nothing crossed."""
        auction = self.indication(reference)
        crossings: list[BookTrade] = []
        remaining = auction.quantity
        while remaining:
            buyer, seller = self._first(Side.BUY), self._first(Side.SELL)
            traded = min(buyer.quantity, seller.quantity, remaining)
            crossings.append(BookTrade(traded, buyer.owner, seller.owner))
            for side, entry in ((Side.BUY, buyer), (Side.SELL, seller)):
                price = self.best(side)
                assert price is not None
                self._count(side, price, entry.owner, -traded)
                entry.quantity -= traded
                if not entry.quantity:
                    self._drop_first(side)
            remaining -= traded
        return auction.price, crossings

    def _count(self, side: Side, price: int, owner: str, change: int) -> None:
        sums = (self._maker_sums if owner == MAKER else self._customer_sums)[side]
        total = sums.get(price, 0) + change
        if total:
            sums[price] = total
        else:
            sums.pop(price, None)

    def _reachable(self, taker: Side, limit: int) -> list[int]:
        levels = self._sides[other(taker)]
        if taker is Side.BUY:
            return sorted(price for price in levels if price <= limit)
        return sorted((price for price in levels if price >= limit), reverse=True)

    def _first(self, side: Side) -> BookEntry:
        price = self.best(side)
        assert price is not None, "an auction's volume is there on both sides"
        return self._sides[side][price][0]

    def _drop_first(self, side: Side) -> None:
        price = self.best(side)
        assert price is not None
        del self._sides[side][price][0]
        if not self._sides[side][price]:
            del self._sides[side][price]
