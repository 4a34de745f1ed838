"""Orders that stand in no queue: they wait for a price, a midpoint, a fixed price, or more of the book.

- A market order that found too little goes on taking whatever the maker lays next.
- A stop limit (스톱지정가) sleeps until the last price reaches its trigger, then it is a limit order.
- A midpoint order (중간가) meets its like, or now and then the crowd, halfway between bid and ask.
- An order at a closing price (장전, 장후 시간외) meets the crowd at that one price.
"""

from datetime import datetime

from aegis.terms import Market, OrderKind, Side
from simulator.exchange import order_flow
from simulator.exchange.exchange import BookChanged, Exchange, Printed
from simulator.exchange.market_maker import Venue
from simulator.exchange.orders import Order

MIDPOINT = frozenset({OrderKind.MID, OrderKind.MID_IOC, OrderKind.MID_FOK})
AT_CLOSE = frozenset({OrderKind.PRE_OPEN_CLOSE, OrderKind.POST_CLOSE})
_CROWD_AT_MIDPOINT = 0.4
_CROWD_AT_CLOSE = 0.3


class OffBook:
    """The waiting room of one exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._held: dict[tuple[str, Market], dict[str, Order]] = {}
        exchange.on_trades = self.wake_stops

    def clear(self) -> None:
        self._held = {}

    def takes(self, order: Order, venue: Venue) -> bool:
        """Whether an order does not belong into `venue`'s queue as things are."""
        if order.kind is OrderKind.STOP_LIMIT and not order.triggered:
            return True
        if order.kind in MIDPOINT or order.kind in AT_CLOSE:
            return True
        # those that must be done at once or not at all go to the book like limits
        return order.kind is OrderKind.MARKET and not venue.is_auction

    def hold(self, order: Order) -> None:
        self._held.setdefault((order.code, order.venue), {})[order.key] = order

    def send(self, order: Order, venue: Venue, at: datetime) -> None:
        """Let a new order of these kinds do at once what it can, and wait with the rest."""
        if order.kind in MIDPOINT:
            self._meet_midpoints(order, venue, at)
        elif order.kind.is_market:
            self._exchange.book_hits(venue, venue.execute(order.side, order.price, order.remaining, order.key, at))
        if order.remaining and not order.kind.is_immediate:
            self.hold(order)
            self.wake_stops(venue, at)

    def work(self, venue: Venue, at: datetime, draw: order_flow.Draw) -> None:
        """Let those who wait at a venue have their turn in one step."""
        for order in self.waiting(venue):
            if order.kind in MIDPOINT:
                self._meet_midpoints(order, venue, at)
                if order.remaining and draw.chance < _CROWD_AT_MIDPOINT:
                    self._meet_crowd(order, venue, self._midpoint(venue), draw, at)
            elif order.kind in AT_CLOSE:
                if draw.chance < _CROWD_AT_CLOSE:
                    self._meet_crowd(order, venue, order.price, draw, at)
            elif order.kind.is_market:
                hits = venue.execute(order.side, order.price, order.remaining, order.key, at)
                self._exchange.book_hits(venue, hits)
        self.wake_stops(venue, at)

    def wake_stops(self, venue: Venue, at: datetime) -> None:
        """Turn stops whose trigger is reached into limit orders."""
        for order in self.waiting(venue):
            if order.kind is not OrderKind.STOP_LIMIT or not venue.tape.volume:
                continue
            last = venue.tape.last
            reached = last >= order.stop_price if order.side is Side.BUY else last <= order.stop_price
            # one stop's trades may have woken the next already
            if reached and self._held[order.code, order.venue].pop(order.key, None) is not None:
                self._exchange.record("change", at, date=order.date.isoformat(), number=order.number, triggered=True)
                self._enter_book(order, venue, at)

    def loosen(self, venue: Venue, at: datetime) -> None:
        """The closing auction begins: conditional limits (조건부지정가) take any price in it."""
        exchange = self._exchange
        for order in exchange.world.all_open():
            is_here = order.code == venue.stock.code and order.venue is venue.market
            if is_here and order.kind is OrderKind.CONDITIONAL_LIMIT:
                exchange.unrest(order, order.remaining)
                worst = venue.highest if order.side is Side.BUY else venue.lowest
                exchange.record("change", at, date=order.date.isoformat(), number=order.number, book_price=worst)
                exchange.rest(order)

    def to_queues(self, venue: Venue) -> None:
        """An auction begins: market orders queue for it."""
        for order in self.waiting(venue):
            if order.kind.is_market:
                del self._held[order.code, order.venue][order.key]
                self._exchange.rest(order)

    def from_queues(self, venue: Venue) -> None:
        """An auction is over: market orders that it left go on taking."""
        for order in self._exchange.world.all_open():
            if order.code == venue.stock.code and order.venue is venue.market and self.takes(order, venue):
                self._exchange.unrest(order, order.remaining)
                self.hold(order)

    def is_busy(self, venue: Venue) -> bool:
        """Whether an order waits at a venue that may trade at any price."""
        return any(order.kind is not OrderKind.STOP_LIMIT for order in self.waiting(venue))

    def triggers(self, venue: Venue, side: Side) -> list[int]:
        """Return the trigger prices of the stops of one side."""
        return [order.stop_price for order in self.waiting(venue) if order.side is side]

    def waiting(self, venue: Venue) -> list[Order]:
        """Return the orders that wait at a venue outside its queues."""
        held = self._held.get((venue.stock.code, venue.market))
        if not held:
            return []
        for key in [key for key, order in held.items() if not order.is_open or not order.remaining]:
            del held[key]
        return list(held.values())

    def _enter_book(self, order: Order, venue: Venue, at: datetime) -> None:
        if venue.is_auction:
            self._exchange.rest(order)
            return
        self._exchange.book_hits(venue, venue.execute(order.side, order.price, order.remaining, order.key, at))
        if order.remaining:
            self._exchange.rest(order)
        self._exchange.tell(BookChanged(order.code, order.venue))

    # --- meeting others without a queue

    def _midpoint(self, venue: Venue) -> int:
        ask, bid = venue.book.best(Side.SELL), venue.book.best(Side.BUY)
        if ask is None or bid is None or venue.is_auction:
            return 0
        return (ask + bid) // 2

    def _meet_midpoints(self, order: Order, venue: Venue, at: datetime) -> None:
        price = self._midpoint(venue)
        for waiting in self.waiting(venue):
            if not price or waiting.kind not in MIDPOINT or waiting.side is order.side or not order.remaining:
                continue
            quantity = min(order.remaining, waiting.remaining)
            self._trade(venue, price, quantity, order.side, at, (order, waiting))

    def _meet_crowd(self, order: Order, venue: Venue, price: int, draw: order_flow.Draw, at: datetime) -> None:
        quantity = min(order.remaining, max(1, int(venue.usual * draw.size)))
        if price:
            self._trade(venue, price, quantity, order.side, at, (order,))

    def _trade(
        self, venue: Venue, price: int, quantity: int, taker: Side, at: datetime, orders: tuple[Order, ...]
    ) -> None:
        trade = venue.print(at, price, quantity, taker)
        for order in orders:
            self._exchange.fill(order, venue.market, price, quantity, at)
        self._exchange.tell(Printed(venue.stock.code, venue.market, (trade,)))
