"""The limit price of an order: so many ticks from the last price, or at the best opposite quote.

Source: spec §9.3 to §9.5. An offset of N ticks is N times the tick at the current price, as the spec
computes it, even where the ladder's step changes on the way. Prices are won.
"""

from collections.abc import Mapping
from dataclasses import dataclass
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


def band(quote: Quote, instrument: Instrument, max_percent: float) -> tuple[int, int]:
    """Return the lowest and highest price allowed: `max_percent` round the last price, inside the day's limits."""
    lowest = adjust_price_to_tick(round(quote.price * (1 - max_percent / 100)), "up", instrument)
    highest = adjust_price_to_tick(round(quote.price * (1 + max_percent / 100)), "down", instrument)
    return max(lowest, quote.lower_limit), min(highest, quote.upper_limit)


def beyond_band(arrival: int, price: int, max_percent: float) -> bool:
    """Whether `price` is further than `max_percent` from the price at arrival: a chase ends there."""
    return abs(price - arrival) * 100 > arrival * max_percent


def offset_price(quote: Quote, side: Side, offset: int, instrument: Instrument, max_percent: float) -> int:
    """Return the last price plus `offset` ticks, on the grid and inside the band.

    Buys are aligned down, sales up. 50,000 at -2 is 49,800; at +3 it is 50,300.
    """
    return _aligned(quote.price, offset, quote, side, instrument, max_percent)


def limit_price(
    strategy: Strategy, quote: Quote, book: Book | None, instrument: Instrument, *, nearer: int, max_percent: float
) -> int:
    """Return the price of `strategy` now, `nearer` ticks closer to the other side of the book.

    `nearer` is 0 at first and grows with each retry of the chase: a buy rises, a sale falls.
    Raises NoQuote where the strategy needs an opposite quote and there is none.
    """
    offset = strategy.offset + nearer * strategy.side.sign
    anchor = quote.price
    if strategy.anchor is Anchor.OPPOSITE:
        best = book.best_opposite(strategy.side) if book else None
        if best is None:
            raise NoQuote(f"{quote.code}: the book has no price on the other side")
        anchor = best
    return _aligned(anchor, offset, quote, strategy.side, instrument, max_percent)


def _aligned(anchor: int, offset: int, quote: Quote, side: Side, instrument: Instrument, max_percent: float) -> int:
    target = anchor + offset * get_tick_size(anchor, instrument)
    price = adjust_price_to_tick(target, "down" if side is Side.BUY else "up", instrument)
    lowest, highest = band(quote, instrument, max_percent)
    return min(max(price, lowest), highest)
