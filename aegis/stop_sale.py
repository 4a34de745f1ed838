"""Prices the steps of a stop's sale: it follows the market down until the position is closed.

Source: spec §9.3 and §9.8 (±3 % of the current price), §9.6 (retries, then at market), §11.3 (NXT takes no market
order). There is no band around the price at which the stop triggered: each step reads the current price.
Prices are won.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from aegis.broker import Book, Quote
from aegis.pricing import Anchor, Strategy, price_band
from aegis.sessions import KST, limit_kind
from aegis.stops import WITNESS_SECONDS
from aegis.terms import Instrument, OrderKind
from aegis.ticks import adjust_price_to_tick, get_tick_size

# two readings of a locked lower limit are at least this far apart
LOCKED_READING_AFTER = timedelta(seconds=1)


class StepKind(StrEnum):
    """How one step of a sale is priced."""

    LIMIT = "LIMIT"  # a limit near the best bid, or at the strategy's offset
    MARKET = "MARKET"  # a market order, or a limit at the best bid if the venue takes no market orders
    AUCTION = "AUCTION"  # once, into an auction: at market if that is legal
    NO_BID = "NO_BID"  # no bids: a limit at the bottom of the band below the last trade
    LOWER_LIMIT = "LOWER_LIMIT"  # locked at the lower limit: it waits in the queue there


@dataclass(frozen=True, slots=True)
class SalePlan:
    """The steps of a sale: `limit_steps` limit orders, each `step_ticks` ticks lower, then a market order.

    `max_percent`: how far below the current price a limit may be, in percent.
    """

    strategy: Strategy
    limit_steps: int
    step_ticks: int
    max_percent: Decimal


@dataclass(frozen=True, slots=True)
class SaleMarket:
    """The market data that a step is priced from. `current` is the result of `current_price`, in won.

    `legal`: the order kinds that the venue takes now. `is_locked`: an earlier reading showed a locked lower limit
    too.
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
class ConfirmedPrice:
    """The price that two trades at least a second apart have reached, in won; at first the price that triggered.

    `last`, `volume` and `at` (seconds) belong to the newest trade that a quote showed, on `day` and `venue`.
    """

    price: int
    last: int = 0
    volume: int = 0
    at: float = 0.0
    day: str = ""
    venue: str = ""

    def after(self, quote: Quote, at: float) -> "ConfirmedPrice":
        """Return the state after another quote. A quote whose running total has not risen shows no new trade.

        Each day and venue has its own running total: on a new one, or after the clock was set back, it starts again.
        """
        day, venue = datetime.fromtimestamp(at, KST).date().isoformat(), quote.market.value
        is_reset = (day, venue) != (self.day, self.venue) or at < self.at
        if quote.volume <= self.volume and self.last and not is_reset:
            return self
        price = self.price
        if self.last and not is_reset and at - self.at >= WITNESS_SECONDS:
            lower, higher = sorted((self.last, quote.price))
            price = higher if higher < price else max(lower, price)
        return ConfirmedPrice(price, quote.price, quote.volume, at, day, venue)


def current_price(quote: Quote, book: Book, believed: int, *, is_main_session: bool) -> int:
    """Return the price to sell from, in won. A single trade outside KRX's main session does not set it.

    There, a last price below `believed` counts only as far down as the best ask, and one above only as far up as the
    best bid.
    """
    if is_main_session or not believed:
        return quote.price
    if quote.price <= believed:
        best_ask = book.asks[0].price if book.asks else believed
        return max(quote.price, min(best_ask, believed))
    best_bid = book.bids[0].price if book.bids else believed
    return min(quote.price, max(best_bid, believed))


def is_locked(market: SaleMarket) -> bool:
    """Whether one reading shows a locked lower limit: no bids, and the last trade or the best ask is at the limit."""
    if market.book.bids:
        return False
    best_ask = market.book.asks[0].price if market.book.asks else 0
    return market.quote.lower_limit in (market.current, best_ask)


def next_order(step: int, plan: SalePlan, market: SaleMarket) -> SaleStep | None:
    """Return the order of step `step`, from 0; None if the venue takes neither limit nor market orders."""
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
    target = anchor + ticks * get_tick_size(anchor, market.instrument, quoted=market.quote)
    return _bounded(market, plan, target)


def _bounded(market: SaleMarket, plan: SalePlan, target: int) -> int:
    """Return a target price moved onto the grid, into the band around the current price and the day's limits."""
    lowest, highest = price_band(market.quote, market.instrument, plan.max_percent, center=market.current)
    price = adjust_price_to_tick(max(target, 1), "up", market.instrument, quoted=market.quote)
    return min(max(price, lowest), highest)


def lowest(market: SaleMarket, plan: SalePlan, below: int) -> int:
    """Return the lowest price, in won, inside the band below the price `below` and inside the day's limits."""
    return price_band(market.quote, market.instrument, plan.max_percent, center=below)[0]


def keeps_its_place(resting: SaleStep, next_step: SaleStep, *, has_bids: bool) -> bool:
    """Whether a resting order stays: the next step would not sell sooner, and would lose the place in the queue.

    A market order that rests while there are bids has become a limit order at an earlier price.
    """
    if resting.kind.is_market:
        return not has_bids
    return not next_step.kind.is_market and resting.price <= next_step.price
