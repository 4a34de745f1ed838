"""Orders outside the book's queues: they wait for a trigger, a midpoint, a fixed price, or more liquidity.

- A market order that is not filled completely takes what the market maker quotes next.
- A stop limit order (스톱지정가) is inactive until the last price reaches its trigger, then it is a limit order.
- A midpoint order (중간가) trades with another midpoint order, or sometimes with the crowd, halfway between bid
  and ask.
- An order at a closing price (장전, 장후 시간외) trades with the crowd at that price.
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


class OffBookOrders:
    """The orders of one exchange that wait outside the queues."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._orders: dict[tuple[str, Market], dict[str, Order]] = {}
        exchange.on_trades = self.wake_stops

    def clear(self) -> None:
        self._orders = {}

    def is_off_book(self, order: Order, venue: Venue) -> bool:
        """Return whether an order does not belong in `venue`'s queue in its current state."""
        if order.kind is OrderKind.STOP_LIMIT and not order.triggered:
            return True
        if order.kind in MIDPOINT or order.kind in AT_CLOSE:
            return True
        # immediate orders (IOC, FOK) enter the book like limit orders
        return order.kind is OrderKind.MARKET and not venue.is_auction

    def hold(self, order: Order) -> None:
        self._orders.setdefault((order.code, order.venue), {})[order.key] = order

    def execute(self, order: Order, venue: Venue, at: datetime) -> None:
        """Execute a new order of these kinds as far as possible now; the rest waits."""
        if order.kind in MIDPOINT:
            self._match_midpoints(order, venue, at)
        elif order.kind.is_market:
            self._exchange.book_fills(venue, venue.execute(order.side, order.price, order.remaining, order.key, at))
        if order.remaining and not order.kind.is_immediate:
            self.hold(order)
            self.wake_stops(venue, at)

    def step(self, venue: Venue, at: datetime, draw: order_flow.Draw) -> None:
        """Give each order that waits at a venue its turn in one step."""
        for order in self.waiting(venue):
            if order.kind in MIDPOINT:
                self._match_midpoints(order, venue, at)
                if order.remaining and draw.uniform < _CROWD_AT_MIDPOINT:
                    self._trade_with_crowd(order, venue, self._midpoint(venue), draw, at)
            elif order.kind in AT_CLOSE:
                if draw.uniform < _CROWD_AT_CLOSE:
                    self._trade_with_crowd(order, venue, order.price, draw, at)
            elif order.kind.is_market:
                hits = venue.execute(order.side, order.price, order.remaining, order.key, at)
                self._exchange.book_fills(venue, hits)
        self.wake_stops(venue, at)

    def wake_stops(self, venue: Venue, at: datetime) -> None:
        """Turn stop orders whose trigger is reached into limit orders."""
        for order in self.waiting(venue):
            if order.kind is not OrderKind.STOP_LIMIT or not venue.tape.volume:
                continue
            last = venue.tape.last
            is_reached = last >= order.stop_price if order.side is Side.BUY else last <= order.stop_price
            # the trades of one stop may already have triggered the next
            if is_reached and self._orders[order.code, order.venue].pop(order.key, None) is not None:
                self._exchange.record("change", at, date=order.date.isoformat(), number=order.number, triggered=True)
                self._enter_book(order, venue, at)

    def free_conditional_limits(self, venue: Venue, at: datetime) -> None:
        """At the start of the closing auction: conditional limit orders (조건부지정가) accept any price in it."""
        exchange = self._exchange
        for order in exchange.world.all_open():
            is_here = order.code == venue.stock.code and order.venue is venue.market
            if is_here and order.kind is OrderKind.CONDITIONAL_LIMIT:
                exchange.remove_from_book(order, order.remaining)
                worst = venue.highest if order.side is Side.BUY else venue.lowest
                exchange.record("change", at, date=order.date.isoformat(), number=order.number, book_price=worst)
                exchange.add_to_book(order)

    def enter_auction(self, venue: Venue) -> None:
        """At the start of an auction: market orders join its queue."""
        for order in self.waiting(venue):
            if order.kind.is_market:
                del self._orders[order.code, order.venue][order.key]
                self._exchange.add_to_book(order)

    def leave_auction(self, venue: Venue) -> None:
        """At the end of an auction: market orders that it did not fill trade on outside the queue."""
        for order in self._exchange.world.all_open():
            if order.code == venue.stock.code and order.venue is venue.market and self.is_off_book(order, venue):
                self._exchange.remove_from_book(order, order.remaining)
                self.hold(order)

    def is_busy(self, venue: Venue) -> bool:
        """Return whether an order that may trade at any price waits at a venue."""
        return any(order.kind is not OrderKind.STOP_LIMIT for order in self.waiting(venue))

    def triggers(self, venue: Venue, side: Side) -> list[int]:
        """Return the trigger prices, in won, of the stop orders of one side."""
        return [order.stop_price for order in self.waiting(venue) if order.side is side]

    def waiting(self, venue: Venue) -> list[Order]:
        """Return the open orders that wait at a venue outside its queues."""
        orders = self._orders.get((venue.stock.code, venue.market))
        if not orders:
            return []
        for key in [key for key, order in orders.items() if not order.is_open or not order.remaining]:
            del orders[key]
        return list(orders.values())

    def _enter_book(self, order: Order, venue: Venue, at: datetime) -> None:
        if venue.is_auction:
            self._exchange.add_to_book(order)
            return
        self._exchange.book_fills(venue, venue.execute(order.side, order.price, order.remaining, order.key, at))
        if order.remaining:
            self._exchange.add_to_book(order)
        self._exchange.publish(BookChanged(order.code, order.venue))

    # --- trading without a queue

    def _midpoint(self, venue: Venue) -> int:
        ask, bid = venue.book.best(Side.SELL), venue.book.best(Side.BUY)
        if ask is None or bid is None or venue.is_auction:
            return 0
        return (ask + bid) // 2

    def _match_midpoints(self, order: Order, venue: Venue, at: datetime) -> None:
        price = self._midpoint(venue)
        for counterpart in self.waiting(venue):
            if not price or counterpart.kind not in MIDPOINT or counterpart.side is order.side or not order.remaining:
                continue
            quantity = min(order.remaining, counterpart.remaining)
            self._trade(venue, price, quantity, order.side, at, (order, counterpart))

    def _trade_with_crowd(self, order: Order, venue: Venue, price: int, draw: order_flow.Draw, at: datetime) -> None:
        quantity = min(order.remaining, max(1, int(venue.usual_quantity * draw.size)))
        if price:
            self._trade(venue, price, quantity, order.side, at, (order,))

    def _trade(
        self, venue: Venue, price: int, quantity: int, taker: Side, at: datetime, orders: tuple[Order, ...]
    ) -> None:
        trade = venue.add_trade(at, price, quantity, taker)
        for order in orders:
            self._exchange.fill(order, venue.market, price, quantity, at)
        self._exchange.publish(Printed(venue.stock.code, venue.market, (trade,)))
