"""The limit price of an order: N ticks from the last price, or from the best opposite quote.

Source: spec §9.3 to §9.5. An offset of N ticks is N times the tick at the current price, as the spec
computes it, even if the ladder's tick changes in between. Prices are won.
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
    """The price that an offset is counted from."""

    LAST = "LAST"  # 현재가
    OPPOSITE = "OPPOSITE"  # ask 1 for a buy, bid 1 for a sale


@dataclass(frozen=True, slots=True)
class Strategy:
    """A way to price an order. `offset` is in ticks; a negative one lowers the price."""

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


def price_band(
    quote: Quote, instrument: Instrument, max_percent: Decimal, *, center: int | None = None
) -> tuple[int, int]:
    """Return the lowest and highest price allowed: within `max_percent` of the price `center` and the day's limits.

    This is the ±3 % band of spec §9.3 (`AEGIS_MAX_OFFSET_PERCENT`), from the current price, the quote's unless given. A
    stop's sale has its own width (`aegis.stop_sale`). The price collar (`aegis.risk.check_price_collar`) and the band
    around the arrival price (`beyond_band`) are other limits.
    """
    center = quote.price if center is None else center
    lowest_exact = math.ceil(center * (100 - max_percent) / 100)
    lowest = adjust_price_to_tick(max(lowest_exact, 1), "up", instrument, quoted=quote)
    highest_exact = math.floor(center * (100 + max_percent) / 100)
    highest = adjust_price_to_tick(highest_exact, "down", instrument, quoted=quote)
    return max(lowest, quote.lower_limit), min(highest, quote.upper_limit)


def beyond_band(arrival: int, price: int, max_percent: Decimal) -> bool:
    """Whether `price` is further than `max_percent` from the price at arrival: a chase ends there."""
    return abs(price - arrival) * 100 > arrival * max_percent


def at_market(side: Side) -> Strategy:
    """Return the pricing of a market order that must have a price: the best opposite quote (spec §11.3).

    NXT takes no market orders: `aegis.sessions.kind_for` and `immediate_kind` choose a limit order there instead.
    """
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
    """Return the price of `strategy` now, in won, on the grid and inside the band: buys rounded down, sales up.

    `ticks_closer` moves the price that many ticks towards the other side of the book, a buy up and a sale down: 0 at
    first, more with each retry of the chase. From 50,000, -2 ticks give 49,800 and +3 ticks 50,300. Raises NoQuote if
    the strategy needs an opposite quote and there is none.
    """
    offset = strategy.offset + ticks_closer * strategy.side.sign
    anchor = _anchor(strategy, quote, book)
    target = anchor + offset * get_tick_size(anchor, instrument, quoted=quote)
    price = adjust_price_to_tick(target, "down" if strategy.side is Side.BUY else "up", instrument, quoted=quote)
    lowest, highest = price_band(quote, instrument, max_percent)
    return min(max(price, lowest), highest)


def _anchor(strategy: Strategy, quote: Quote, book: Book | None) -> int:
    if strategy.anchor is Anchor.LAST:
        return quote.price
    best = book.best_opposite(strategy.side) if book else None
    if best is None:
        raise NoQuote(f"{quote.code}: the book has no price on the other side")
    return best
