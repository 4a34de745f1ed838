"""The limit price of an order: so many ticks from the last price, or at the best opposite quote.

Source: spec §9.3 to §9.5. An offset of N ticks is N times the tick at the current price, as the spec
computes it, even where the ladder's step changes on the way. Prices are won.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from aegis.broker import Book, Quote
from aegis.terms import Instrument, Side
from aegis.ticks import adjust_price_to_tick, get_tick_size


class Anchor(StrEnum):
    """What an offset is counted from."""

    LAST = "LAST"  # 현재가
    OPPOSITE = "OPPOSITE"  # ask 1 for a buy, bid 1 for a sale


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to price an order; `offset` in ticks, negative is cheaper."""

    name: str
    side: Side
    anchor: Anchor
    offset: int


@dataclass(frozen=True, slots=True)
class Offsets:
    """The user's own offsets in ticks. Source: spec §9.8."""

    buy: int = -2
    sell: int = 2
    urgent_buy: int = 0
    stop_loss: int = 0
    emergency_sell: int = -1


class NoQuote(Exception):
    """The side of the book that the price is taken from is empty."""


def strategies(offsets: Offsets) -> Mapping[str, Strategy]:
    """Return the strategies by name. Source: spec §9.5, SMART_ORDER_CONFIG."""
    table = (
        Strategy("buy_normal", Side.BUY, Anchor.LAST, offsets.buy),
        Strategy("buy_urgent", Side.BUY, Anchor.OPPOSITE, offsets.urgent_buy),
        Strategy("sell_profit", Side.SELL, Anchor.LAST, offsets.sell),
        Strategy("sell_stop", Side.SELL, Anchor.OPPOSITE, offsets.stop_loss),
        Strategy("sell_emergency", Side.SELL, Anchor.LAST, offsets.emergency_sell),
    )
    return {strategy.name: strategy for strategy in table}


def band(quote: Quote, instrument: Instrument, max_percent: Decimal) -> tuple[int, int]:
    """Return the lowest and highest price allowed: `max_percent` round the last price, inside the day's limits."""
    quoted = quote.quoted_tick
    lowest = adjust_price_to_tick(math.ceil(quote.price * (100 - max_percent) / 100), "up", instrument, quoted=quoted)
    most = math.floor(quote.price * (100 + max_percent) / 100)
    highest = adjust_price_to_tick(most, "down", instrument, quoted=quoted)
    return max(lowest, quote.lower_limit), min(highest, quote.upper_limit)


def beyond_band(arrival: int, price: int, max_percent: Decimal) -> bool:
    """Whether `price` is further than `max_percent` from the price at arrival: a chase ends there."""
    return abs(price - arrival) * 100 > arrival * max_percent


def at_market(side: Side) -> Strategy:
    """Return how a market order is priced where it must name a price: at the best opposite quote (spec §11.3)."""
    return Strategy("at market", side, Anchor.OPPOSITE, 0)


def limit_price(
    strategy: Strategy,
    quote: Quote,
    book: Book | None,
    instrument: Instrument,
    *,
    ticks_closer: int = 0,
    max_percent: Decimal,
) -> int:
    """Return the price of `strategy` now, on the grid and inside the band: buys aligned down, sales up.

    `ticks_closer` ticks closer to the other side of the book: 0 at first, it grows with each retry of the chase;
    a buy rises, a sale falls. From 50,000 at -2 it is 49,800, at +3 it is 50,300. Raises NoQuote where the
    strategy needs an opposite quote and there is none.
    """
    offset = strategy.offset + ticks_closer * strategy.side.sign
    anchor = _anchor(strategy, quote, book)
    quoted = quote.quoted_tick
    target = anchor + offset * get_tick_size(anchor, instrument, quoted=quoted)
    price = adjust_price_to_tick(target, "down" if strategy.side is Side.BUY else "up", instrument, quoted=quoted)
    lowest, highest = band(quote, instrument, max_percent)
    return min(max(price, lowest), highest)


def _anchor(strategy: Strategy, quote: Quote, book: Book | None) -> int:
    if strategy.anchor is Anchor.LAST:
        return quote.price
    best = book.best_opposite(strategy.side) if book else None
    if best is None:
        raise NoQuote(f"{quote.code}: the book has no price on the other side")
    return best
