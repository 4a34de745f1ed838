"""How a triggered stop prices the steps of its sale: it follows the market down until the position is closed.

Source: spec §9.3 and §9.8 (±3 % of the current price), §9.6 (retries, then at market), §11.3 (NXT takes no market
order). A stop has no band around the price at which it triggered: the current price is asked for at each step.
Prices are won.
"""

import math
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from aegis.broker import Book, Quote
from aegis.pricing import Anchor, Strategy
from aegis.sessions import KST, limit_kind
from aegis.stops import WITNESS_SECONDS
from aegis.terms import Instrument, OrderKind
from aegis.ticks import adjust_price_to_tick, get_tick_size

# two readings of a locked lower limit lie at least this far apart
LOCKED_READING_AFTER = timedelta(seconds=1)


class StepKind(StrEnum):
    """How one step of a sale is priced."""

    LIMIT = "LIMIT"  # a limit near the best bid, or at the strategy's offset
    MARKET = "MARKET"  # the step at market, or at the best bid if none is taken
    AUCTION = "AUCTION"  # once, into an auction: at market if that is legal
    NO_BID = "NO_BID"  # nobody bids: at most the band below the last trade
    LOWER_LIMIT = "LOWER_LIMIT"  # locked at the lower limit: it stands in the queue there


@dataclass(frozen=True, slots=True)
class SalePlan:
    """How a sale goes down: `limit_steps` limit orders, each `step_ticks` ticks nearer, then at market.

    `max_percent`: no limit lies further below the current price, in percent.
    """

    strategy: Strategy
    limit_steps: int
    step_ticks: int
    max_percent: Decimal


@dataclass(frozen=True, slots=True)
class SaleMarket:
    """What a step is priced from. `current` is a price that could trigger a stop, in won (`current_price`).

    `legal`: the order kinds that the venue takes now. `is_locked`: an earlier reading found the lower limit
    locked too.
    """

    quote: Quote
    book: Book
    current: int
    legal: frozenset[OrderKind]
    instrument: Instrument
    is_auction: bool = False
    is_locked: bool = False


@dataclass(frozen=True, slots=True)
class SaleStep:
    """The next order of a sale. `price` in won, 0 for a market order."""

    step: StepKind
    kind: OrderKind
    price: int


@dataclass(frozen=True, slots=True)
class Believed:
    """The price that two trades at least a second apart have reached, in won; at first the one that triggered.

    `last`, `volume` and `at` (seconds) are of the newest trade that a quote showed, on the day and the venue named.
    """

    price: int
    last: int = 0
    volume: int = 0
    at: float = 0.0
    day: str = ""
    venue: str = ""

    def after(self, quote: Quote, at: float) -> "Believed":
        """Return the same after another quote: one whose running total has not risen shows no new trade.

        Each day and venue has its own running total: on another one, or after the clock was set back, none is known.
        """
        day, venue = datetime.fromtimestamp(at, KST).date().isoformat(), quote.market.value
        is_reset = (day, venue) != (self.day, self.venue) or at < self.at
        if quote.volume <= self.volume and self.last and not is_reset:
            return self
        price = self.price
        if self.last and not is_reset and at - self.at >= WITNESS_SECONDS:
            lower, higher = sorted((self.last, quote.price))
            price = higher if higher < price else max(lower, price)
        return Believed(price, quote.price, quote.volume, at, day, venue)


def current_price(quote: Quote, book: Book, believed: int, *, is_main_session: bool) -> int:
    """Return the price to sell from, in won: one trade outside KRX's main session sets none.

    There a last price below the `believed` one counts as far as the best ask confirms it, and one above as far as the
    best bid does.
    """
    if is_main_session or not believed:
        return quote.price
    if quote.price <= believed:
        best_ask = book.asks[0].price if book.asks else believed
        return max(quote.price, min(best_ask, believed))
    best_bid = book.bids[0].price if book.bids else believed
    return min(quote.price, max(best_bid, believed))


def is_locked(market: SaleMarket) -> bool:
    """Whether one reading shows a locked lower limit: no bid, and the last trade or the best ask there."""
    if market.book.bids:
        return False
    best_ask = market.book.asks[0].price if market.book.asks else 0
    return market.quote.lower_limit in (market.current, best_ask)


def next_order(step: int, plan: SalePlan, market: SaleMarket) -> SaleStep | None:
    """Return the order of the sale's step number `step`, from 0; None if the venue takes neither limit nor market."""
    limit = limit_kind(market.legal)
    takes_market = OrderKind.MARKET in market.legal
    if market.is_auction and takes_market:
        return SaleStep(StepKind.AUCTION, OrderKind.MARKET, 0)
    if limit is None:
        return None
    if market.is_auction:
        return SaleStep(StepKind.AUCTION, limit, lowest(market, plan, market.book.expected_price or market.current))
    bids = market.book.bids
    if not bids and plan.strategy.anchor is Anchor.OPPOSITE:
        if is_locked(market) and market.is_locked:
            return SaleStep(StepKind.LOWER_LIMIT, limit, market.quote.lower_limit)
        return SaleStep(StepKind.NO_BID, limit, lowest(market, plan, market.current))
    if step >= plan.limit_steps:
        if takes_market:
            return SaleStep(StepKind.MARKET, OrderKind.MARKET, 0)
        return SaleStep(StepKind.MARKET, limit, _bounded(market, plan, bids[0].price if bids else 0))
    return SaleStep(StepKind.LIMIT, limit, _limit_price(step, plan, market))


def _limit_price(step: int, plan: SalePlan, market: SaleMarket) -> int:
    anchor = market.book.bids[0].price if plan.strategy.anchor is Anchor.OPPOSITE else market.current
    ticks = plan.strategy.offset - step * plan.step_ticks
    target = anchor + ticks * get_tick_size(anchor, market.instrument, quoted=market.quote.quoted_tick)
    return _bounded(market, plan, target)


def _bounded(market: SaleMarket, plan: SalePlan, target: int) -> int:
    """Return a target price on the grid, inside the band round the current price and the day's limits."""
    quoted = market.quote.quoted_tick
    price = adjust_price_to_tick(max(target, 1), "up", market.instrument, quoted=quoted)
    most = math.floor(market.current * (100 + plan.max_percent) / 100)
    highest = adjust_price_to_tick(most, "down", market.instrument, quoted=quoted)
    return min(max(price, lowest(market, plan, market.current)), highest, market.quote.upper_limit)


def lowest(market: SaleMarket, plan: SalePlan, below: int) -> int:
    """Return the lowest price, in won, that is at most the band below a price, and inside the day's limits."""
    least = math.ceil(below * (100 - plan.max_percent) / 100)
    price = adjust_price_to_tick(max(least, 1), "up", market.instrument, quoted=market.quote.quoted_tick)
    return max(price, market.quote.lower_limit)


def keeps_its_place(resting: SaleStep, wanted: SaleStep, *, has_bids: bool) -> bool:
    """Whether an order that rests stays: the next step would not sell sooner, and it loses the place in the queue.

    A market order that rests beside bids has become a limit at an earlier price.
    """
    if resting.kind.is_market:
        return not has_bids
    return not wanted.kind.is_market and resting.price <= wanted.price
