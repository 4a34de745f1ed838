"""A limit order book with real queues: price first, then time. Pure: no clock, no tape, no names.

An entry without an owner belongs to the market maker. His quantity at a price shrinks from the back
and grows at the back, so that he never pushes in front of a customer who waits there.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate

from aegis.terms import Side

MAKER = ""


@dataclass(slots=True)
class BookEntry:
    """What one owner has waiting at one price."""

    owner: str
    quantity: int


@dataclass(frozen=True, slots=True)
class Match:
    """Shares that changed hands with `owner`, who was waiting, at the price he waited at."""

    price: int
    quantity: int
    owner: str


@dataclass(frozen=True, slots=True)
class BookTrade:
    """Shares matched in an auction, all at its one price."""

    quantity: int
    buyer: str
    seller: str


@dataclass(frozen=True, slots=True)
class Indication:
    """What an auction would do now: its price, its volume. Both 0 when nothing crosses."""

    price: int = 0
    quantity: int = 0


def other(side: Side) -> Side:
    return Side.SELL if side is Side.BUY else Side.BUY


class OrderBook:
    """Both sides of one stock on one venue."""

    def __init__(self) -> None:
        self._sides: dict[Side, dict[int, list[BookEntry]]] = {Side.BUY: {}, Side.SELL: {}}
        # sums by price, of the maker's shares and of his guests': they are asked for at every step
        self._made: dict[Side, dict[int, int]] = {Side.BUY: {}, Side.SELL: {}}
        self._guests: dict[Side, dict[int, int]] = {Side.BUY: {}, Side.SELL: {}}

    def best(self, side: Side) -> int | None:
        """Return the price first in line on `side`, None when nobody waits there."""
        levels = self._sides[side]
        if not levels:
            return None
        return max(levels) if side is Side.BUY else min(levels)

    def prices(self, side: Side) -> list[int]:
        """Return the prices of `side`, the best first."""
        return sorted(self._sides[side], reverse=side is Side.BUY)

    def quantity(self, side: Side, price: int) -> int:
        return self._made[side].get(price, 0) + self._guests[side].get(price, 0)

    def made_quantity(self, side: Side, price: int) -> int:
        """Return the market maker's part of what waits at `price`."""
        return self._made[side].get(price, 0)

    def depth(self, side: Side, count: int) -> list[tuple[int, int]]:
        """Return up to `count` pairs of price and quantity, the best first."""
        return [(price, self.quantity(side, price)) for price in self.prices(side)[:count]]

    def total(self, side: Side) -> int:
        return sum(self._made[side].values()) + sum(self._guests[side].values())

    def available(self, taker: Side, limit: int) -> int:
        """Return how many shares a `taker` could have at once at `limit` or better."""
        return sum(self.quantity(other(taker), price) for price in self._reachable(taker, limit))

    def take(self, taker: Side, limit: int, quantity: int) -> list[Match]:
        """Match an incoming order against those who wait; what finds nobody is left to the caller."""
        waiting = self._sides[other(taker)]
        matches: list[Match] = []
        for price in self._reachable(taker, limit):
            entries = waiting[price]
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
                del waiting[price]
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
        """Take up to `quantity` of `owner` out of the queue at `price`, the newest first; return how much."""
        entries = self._sides[side].get(price, [])
        left = quantity
        for index in range(len(entries) - 1, -1, -1):
            if entries[index].owner != owner or not left:
                continue
            gone = min(entries[index].quantity, left)
            left -= gone
            entries[index].quantity -= gone
            if not entries[index].quantity:
                del entries[index]
        if not entries:
            self._sides[side].pop(price, None)
        self._count(side, price, owner, left - quantity)
        return quantity - left

    def set_made(self, side: Side, price: int, quantity: int) -> None:
        """Let the market maker have `quantity` at `price`, no more and no less."""
        more = quantity - self.made_quantity(side, price)
        if more > 0:
            self.rest(side, price, more, MAKER)
        elif more < 0:
            self.remove(side, price, MAKER, -more)

    def lay_made(self, side: Side, quantities: dict[int, int]) -> None:
        """Let the market maker have these quantities by price on `side`, and no others."""
        if not self._guests[side]:  # nobody's place in a queue is to be kept
            self._made[side] = quantities
            self._sides[side] = {price: [BookEntry(MAKER, quantity)] for price, quantity in quantities.items()}
            return
        for price in self._made[side].keys() - quantities.keys():
            self.set_made(side, price, 0)
        for price, quantity in quantities.items():
            self.set_made(side, price, quantity)

    def guests(self, side: Side) -> Iterable[int]:
        """Return the prices at which customers wait on `side`."""
        return self._guests[side]

    def has_guests(self) -> bool:
        return bool(self._guests[Side.BUY] or self._guests[Side.SELL])

    def ahead(self, side: Side, price: int, owner: str) -> int:
        """Return how many shares stand before `owner` at `price`."""
        shares = 0
        for entry in self._sides[side].get(price, ()):
            if entry.owner == owner:
                break
            shares += entry.quantity
        return shares

    def indication(self, reference: int) -> Indication:
        """Return the auction's price and volume now (단일가): the most shares, then the least left over.

        Of prices that are equal even so, the one nearest to `reference` wins.
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
        """Hold the auction: return its price and who traded with whom; price 0 when nothing crossed."""
        deal = self.indication(reference)
        crossings: list[BookTrade] = []
        left = deal.quantity
        while left:
            buyer, seller = self._first(Side.BUY), self._first(Side.SELL)
            traded = min(buyer.quantity, seller.quantity, left)
            crossings.append(BookTrade(traded, buyer.owner, seller.owner))
            for side, entry in ((Side.BUY, buyer), (Side.SELL, seller)):
                price = self.best(side)
                assert price is not None
                self._count(side, price, entry.owner, -traded)
                entry.quantity -= traded
                if not entry.quantity:
                    self._drop_first(side)
            left -= traded
        return deal.price, crossings

    def _count(self, side: Side, price: int, owner: str, change: int) -> None:
        sums = (self._made if owner == MAKER else self._guests)[side]
        total = sums.get(price, 0) + change
        if total:
            sums[price] = total
        else:
            sums.pop(price, None)

    def _reachable(self, taker: Side, limit: int) -> list[int]:
        waiting = self._sides[other(taker)]
        if taker is Side.BUY:
            return sorted(price for price in waiting if price <= limit)
        return sorted((price for price in waiting if price >= limit), reverse=True)

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
