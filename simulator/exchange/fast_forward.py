"""Skipped time: passes many minutes of the market at once.

A price moves by one draw per minute (`order_flow.walk`); the draws do not depend on how the time is divided into
jumps. Minutes that touch no customer's order are added to the tapes in bulk. A minute whose price reaches a
resting order or the trigger of a stop is traded through the book.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from aegis.terms import Market, Side
from simulator.exchange import order_flow
from simulator.exchange.conditional_orders import OffBookOrders
from simulator.exchange.exchange import Exchange
from simulator.exchange.market_maker import Venue
from simulator.exchange.trade_tape import MinuteBlock, minute_start

STEPS_A_MINUTE = 120
_MINUTE = timedelta(minutes=1)


@dataclass(slots=True)
class _Route:
    """The minutes of one venue, and the index of the first minute that touches a customer's order."""

    venue: Venue
    block: MinuteBlock
    touched_at: int


class FastForward:
    """Passes time of one exchange in which no phase begins or ends."""

    def __init__(self, exchange: Exchange, offbook: OffBookOrders, seed: int) -> None:
        self._exchange = exchange
        self._offbook = offbook
        self._seed = seed

    def pass_time(self, start: datetime, until: datetime, active: Iterable[Venue], at_close: set[Market]) -> None:
        """Pass the minutes that begin in `[start, until)`. The markets in `at_close` trade at a closing price only."""
        minutes = _minutes(start, until)
        stocks: dict[str, list[Venue]] = {}
        for venue in active:
            stocks.setdefault(venue.stock.code, []).append(venue)
        for venues in stocks.values():
            trading = []
            for venue in venues:
                if venue.is_auction or venue.market in at_close:
                    self._pass_off_book(venue, minutes)
                else:
                    trading.append(venue)
            self._trade(trading, minutes)

    def _pass_off_book(self, venue: Venue, minutes: range) -> None:
        """Let the price of an auction drift, and trade orders at a closing price with the crowd."""
        day = self._exchange.world.today()
        if venue.is_auction and minutes:
            ways, _ = order_flow.walk(self._seed, day, venue.stream, minutes)
            venue.place_at(venue.skipped_prices(ways)[-1], minute_start(day, minutes[-1]))
        for minute in minutes:
            if not self._offbook.waiting(venue):
                return
            self._offbook.step(venue, minute_start(day, minute), self._draw(venue, day, minute))

    def _trade(self, venues: list[Venue], minutes: range) -> None:
        """Pass the minutes of one stock on all its venues, KRX first."""
        while venues and minutes:
            routes = self._routes(venues, minutes)
            # the last minute is printed separately: the list of recent trades shows it
            single_index = min(len(minutes) - 1, *(route.touched_at for route in routes))
            self._pass_untouched(routes, minutes[:single_index])
            for route in routes:
                self._pass_minute(route, single_index, minutes[single_index])
            minutes = minutes[single_index + 1 :]

    def _routes(self, venues: list[Venue], minutes: range) -> list[_Route]:
        day, routes, lead = self._exchange.world.today(), [], None
        for venue in venues:
            ways, volumes = order_flow.walk(self._seed, day, venue.stream, minutes)
            prices = lead if lead is not None else venue.skipped_prices(ways)
            lead = prices  # NXT follows KRX
            routes.append(_Route(venue, venue.block(ways, volumes, prices), self._first_touched(venue, prices)))
        return routes

    def _first_touched(self, venue: Venue, prices: Sequence[int]) -> int:
        """Return the index of the first minute that touches a customer's order, the number of minutes if none does."""
        if self._offbook.is_busy(venue):
            return 0
        below = max((*venue.book.customer_prices(Side.BUY), *self._offbook.triggers(venue, Side.SELL)), default=0)
        above = min(
            (*venue.book.customer_prices(Side.SELL), *self._offbook.triggers(venue, Side.BUY)),
            default=venue.highest + 1,
        )
        return next((i for i, price in enumerate(prices) if price <= below or price >= above), len(prices))

    def _pass_untouched(self, routes: list[_Route], minutes: range) -> None:
        if not minutes:
            return
        day, blocks = self._exchange.world.today(), [route.block[: len(minutes)] for route in routes]
        for route, block in zip(routes, blocks, strict=True):
            route.venue.tape.extend(day, minutes, [block])
            route.venue.place_at(block.closes[-1], minute_start(day, minutes[-1]))
        if (unified := routes[0].venue.unified) is not None:
            unified.extend(day, minutes, blocks)

    def _pass_minute(self, route: _Route, index: int, minute: int) -> None:
        """Pass one minute, through the book if it touches a customer's order."""
        day, venue = self._exchange.world.today(), route.venue
        at, price = minute_start(day, minute), route.block.closes[index]
        hits = venue.walk_through(price, at) if index >= route.touched_at else []
        if not hits:
            venue.add_minute(route.block[index : index + 1], at)
        self._exchange.book_fills(venue, hits)
        if index >= route.touched_at:
            self._offbook.step(venue, at, self._draw(venue, day, minute))

    def _draw(self, venue: Venue, day: date, minute: int) -> order_flow.Draw:
        return order_flow.draw_step(self._seed, day, venue.stream, minute * STEPS_A_MINUTE)


def _minutes(start: datetime, until: datetime) -> range:
    """Return the minutes of the day that begin in `[start, until)`."""
    midnight = start.replace(hour=0, minute=0, second=0, microsecond=0)
    return range(-((midnight - start) // _MINUTE), -((midnight - until) // _MINUTE))
