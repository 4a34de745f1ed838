"""One stock on one venue: its book, its tape, and the market maker that quotes ten levels on each side.

The maker's best bid is the `anchor`, its best ask is one tick above. A move of one tick is a taker that clears the
best level on that side, customers' orders included; then the maker quotes its levels again.
"""

from bisect import bisect_right
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache

from aegis import ticks
from aegis.terms import Instrument, Market, Side
from simulator.exchange import order_flow
from simulator.exchange.listings import ListedStock
from simulator.exchange.order_book import MAKER, Indication, OrderBook, other
from simulator.exchange.trade_tape import MinuteBlock, Tape, TapeBar, TapeTrade


@dataclass(frozen=True, slots=True)
class MakerFill:
    """Shares that changed hands. `buyer` and `seller` are order keys or `MAKER`."""

    price: int
    quantity: int
    buyer: str
    seller: str
    trade: TapeTrade


@lru_cache(maxsize=4_096)
def _grid(lowest: int, highest: int, instrument: Instrument) -> list[int]:
    """Return all prices of a day, in won, in ascending order."""
    is_stock = instrument is Instrument.STOCK
    tiers = ticks.STOCK_LADDER if is_stock else ticks.FUND_LADDER
    top = ticks.STOCK_TOP_TICK if is_stock else ticks.FUND_TOP_TICK
    prices, price = list[int](), lowest
    for end, tick in (*tiers, (highest + 1, top)):
        prices += range(price, min(end, highest + 1), tick)
        price = max(price, end)
    return prices


_EVEN = b"\x80" * 20  # the usual quantity at every level
# how many of a skipped minute's two trades have a buyer as taker, by the minute's way
_BUYERS = bytes(0 if way < order_flow.NO_MOVE else 1 if way == order_flow.NO_MOVE else 2 for way in range(256))


@dataclass(slots=True)
class Venue:
    """One stock on one venue, prices in won. `book` may be crossed only during an auction (`is_auction`)."""

    stock: ListedStock
    market: Market
    base: int
    seed: int
    unified: Tape | None = None  # the day of both venues together, if the stock trades on both
    book: OrderBook = field(default_factory=OrderBook)
    tape: Tape = field(init=False)
    lowest: int = field(init=False)
    highest: int = field(init=False)
    grid: list[int] = field(init=False, repr=False)  # all prices of the day, in ascending order
    anchor: int = field(init=False)
    home: int = field(init=False)
    usual_quantity: int = field(init=False)
    is_auction: bool = False
    changed_at: datetime | None = None
    regular_close: TapeBar | None = None  # the day's figures at the end of the closing auction
    static_reference: int = 0  # reference price of a static interruption; 0 means the day's open
    _quoted_anchor: int | None = None  # the anchor of the maker's last quotes; None after their quantities changed

    def __post_init__(self) -> None:
        self.tape = Tape(last=self.base)
        self.lowest, self.highest = ticks.daily_limits(self.base, self.stock.instrument)
        self.grid = _grid(self.lowest, self.highest, self.stock.instrument)
        self.anchor = self.home = self.base
        depth = 1.0 if self.market is Market.KRX else 0.3
        self.usual_quantity = max(10, int(order_flow.usual_quantity(self.base, self.stock.listed_shares) * depth))

    @property
    def stream(self) -> str:
        """The name of the crowd's random stream."""
        return self.stock.code if self.market is Market.KRX else f"{self.stock.code}:{self.market}"

    @property
    def closing_price(self) -> int:
        """The regular session's close, or the last price if there is none yet."""
        return self.regular_close.close if self.regular_close else self.tape.last

    def close_regular(self) -> None:
        """Save the day's figures at the regular close; later trades do not change them."""
        tape = self.tape
        if tape.volume:
            self.regular_close = TapeBar(tape.open, tape.high, tape.low, tape.last, tape.volume, tape.amount)

    # --- the maker

    def quote_if_changed(self, level_sizes: bytes = _EVEN) -> None:
        """Quote the maker's levels if the anchor or a quantity has changed since the last quotes."""
        if self._quoted_anchor != self.anchor:
            self.quote(level_sizes)

    def quote(self, level_sizes: bytes = _EVEN) -> None:
        """Quote the maker's ten levels on each side; a level below a fifth of the usual quantity is refilled."""
        self._quoted_anchor = self.anchor
        bids, asks = self._levels()
        usual = self.usual_quantity
        for side, prices, part in ((Side.BUY, bids, level_sizes), (Side.SELL, asks, level_sizes[order_flow.LEVELS :])):
            quantities = {}
            for price, share in zip(prices, part, strict=False):
                maker_quantity = self.book.maker_quantity(side, price)
                is_thin = maker_quantity * 5 < usual
                quantities[price] = order_flow.level_quantity(usual, share) if is_thin else maker_quantity
            self.book.set_maker_levels(side, quantities)

    def _levels(self) -> tuple[list[int], list[int]]:
        """Return the maker's ten prices of each side that are within the day's limits, bids and asks, best first."""
        above = bisect_right(self.grid, self.anchor)
        if self.is_auction:  # both sides overlap by two ticks, so that the auction has something to match
            bids = self.grid[max(0, above + 2 - order_flow.LEVELS) : above + 2]
            return bids[::-1], self.grid[max(0, above - 2) : max(0, above - 2 + order_flow.LEVELS)]
        bids, asks = self.grid[max(0, above - order_flow.LEVELS) : above], self.grid[above : above + order_flow.LEVELS]
        lowest_ask = min(self.book.customer_prices(Side.SELL), default=self.highest + 1)
        highest_bid = max(self.book.customer_prices(Side.BUY), default=self.lowest - 1)
        return (
            [price for price in reversed(bids) if price < lowest_ask],
            [price for price in asks if price > highest_bid],
        )

    def _change_level(self, changed_level: int, size: int) -> None:
        """Change the maker's quantity at one level."""
        bids, asks = self._levels()
        side, prices = (Side.BUY, bids) if changed_level < order_flow.LEVELS else (Side.SELL, asks)
        index = changed_level % order_flow.LEVELS
        if index < len(prices):
            self.book.set_maker_quantity(side, prices[index], order_flow.level_quantity(self.usual_quantity, size))

    def _up(self, price: int) -> int:
        return ticks.step(price, 1, self.stock.instrument)

    def _down(self, price: int) -> int:
        return ticks.step(price, -1, self.stock.instrument)

    # --- trading

    def add_trade(self, at: datetime, price: int, quantity: int, taker: Side | None) -> TapeTrade:
        """Add a trade to the tape."""
        unified = self.unified.add(at, price, quantity, taker) if self.unified is not None else None
        return self.tape.add(at, price, quantity, taker, unified)

    def execute(self, side: Side, limit: int, quantity: int, owner: str, at: datetime) -> list[MakerFill]:
        """Match an incoming order as far as the book allows; the caller handles the rest."""
        matches = self.book.take(side, limit, quantity)
        hits = []
        for match in matches:
            trade = self.add_trade(at, match.price, match.quantity, side)
            buyer, seller = (owner, match.owner) if side is Side.BUY else (match.owner, owner)
            hits.append(MakerFill(match.price, match.quantity, buyer, seller, trade))
        for price in {match.price for match in matches}:
            self._follow(side, price)
        if matches:
            self.changed_at = at
            self._quoted_anchor = None
        return hits

    def _follow(self, taker: Side, price: int) -> None:
        """Move the anchor past a level at which the maker's quantity is used up."""
        if self.book.maker_quantity(other(taker), price):
            return
        if taker is Side.BUY and price > self.anchor:
            self.anchor = price
        elif taker is Side.SELL and price <= self.anchor:
            self.anchor = self._down(price)

    def move(self, direction: int, at: datetime) -> list[MakerFill]:
        """Clear the best level of one side: the price moves one tick unless it is at its daily limit."""
        if direction > 0:
            price = self._up(self.anchor)
            if price > self.highest:
                return []
            hits = self._clear(Side.BUY, price, at)
            self.anchor = max(self.anchor, price)
            return hits
        price = self.anchor
        if price < self.lowest:
            return []
        hits = self._clear(Side.SELL, price, at)
        self.anchor = min(self.anchor, self._down(price))
        return hits

    def _clear(self, taker: Side, limit: int, at: datetime) -> list[MakerFill]:
        return self.execute(taker, limit, self.book.available(taker, limit), MAKER, at)

    def walk_to(self, price: int, at: datetime) -> list[MakerFill]:
        """Trade tick by tick until the last price is `price`, so that all orders on the way fill."""
        hits: list[MakerFill] = []
        while self.tape.last != price or not self.tape.volume:
            if price > self.anchor:
                direction = 1
            elif price <= self.anchor:
                direction = -1
            self.quote()
            hits += self.move(direction, at)
        self.home = price
        self.quote()
        return hits

    def set_price(self, price: int) -> None:
        """Set the price to `price` without a trade, for a venue that does not trade now."""
        self.tape.last = self.anchor = self.home = price
        self._quoted_anchor = None
        self.quote()

    def step(self, draw: order_flow.Draw, at: datetime, lead: int | None = None) -> list[MakerFill]:
        """Let the crowd act once. If `lead` is given, the anchor follows it tick by tick instead of the draw."""
        if self.is_auction:
            self._drift(draw)
            return []
        self.quote_if_changed(draw.level_sizes)
        hits = self._trade_taker(draw, at)
        hits += self._trade_midpoint(draw, at)
        direction = self._direction(draw, lead)
        if direction:
            hits += self.move(direction, at)
        self.quote_if_changed(draw.level_sizes)
        self._change_level(draw.changed_level, draw.level_sizes[0])
        self.changed_at = at
        return hits

    def _trade_taker(self, draw: order_flow.Draw, at: datetime) -> list[MakerFill]:
        size = int(self.usual_quantity * draw.size * 0.6)
        if not size:
            return []
        price = self.book.best(other(draw.taker))
        if price is None:
            return []
        maker_quantity = self.book.maker_quantity(other(draw.taker), price)
        level_quantity = self.book.quantity(other(draw.taker), price)
        # the crowd's small orders leave the maker at least one share: only a drawn move shifts the price
        room = level_quantity - 1 if maker_quantity else level_quantity
        return self.execute(draw.taker, price, min(size, room), MAKER, at) if room > 0 else []

    def _trade_midpoint(self, draw: order_flow.Draw, at: datetime) -> list[MakerFill]:
        """Sometimes trade two crowd orders at the midpoint (중간가), a price off the grid."""
        if draw.uniform >= order_flow.HALFWAY or self.book.has_customers():
            return []
        ask, bid = self.book.best(Side.SELL), self.book.best(Side.BUY)
        if ask is None or bid is None or (ask + bid) % 2:
            return []
        quantity = 1 + draw.level_sizes[1] % 9
        trade = self.add_trade(at, (ask + bid) // 2, quantity, draw.taker)
        return [MakerFill(trade.price, quantity, MAKER, MAKER, trade)]

    def _direction(self, draw: order_flow.Draw, lead: int | None) -> int:
        if lead is not None and lead != self.anchor:
            return 1 if lead > self.anchor else -1
        tick = ticks.get_tick_size(self.home, self.stock.instrument)
        return order_flow.next_move(draw.price_move, (self.anchor - self.home) // tick, tick / self.home * 100)

    # --- auctions

    def open_auction(self) -> None:
        """Start to collect orders; nothing trades until `uncross`."""
        self.is_auction = True
        self.quote()

    def _drift(self, draw: order_flow.Draw) -> None:
        direction = self._direction(draw, None)
        if direction:
            anchor = self._up(self.anchor) if direction > 0 else self._down(self.anchor)
            self.anchor = min(self.highest, max(self.lowest, anchor))
        self.quote(draw.level_sizes)
        self._change_level(draw.changed_level, draw.level_sizes[0])

    def indication(self) -> Indication:
        """Return the auction's expected price and volume (예상체결); zeros outside an auction."""
        return self.book.indication(self.tape.last) if self.is_auction else Indication()

    def uncross(self, at: datetime) -> list[MakerFill]:
        """End the auction: all crossing orders trade at one price."""
        self.quote_if_changed()
        price, crossings = self.book.uncross(self.tape.last)
        self.is_auction = False
        hits = []
        if crossings:
            volume = sum(crossing.quantity for crossing in crossings)
            trade = self.add_trade(at, price, volume, None)
            hits = [MakerFill(price, c.quantity, c.buyer, c.seller, trade) for c in crossings]
            self.anchor = price if self.book.quantity(Side.BUY, price) else self._down(price)
            self.changed_at = at
        self.quote()
        return hits

    # --- skipped minutes

    def skipped_prices(self, ways: bytes) -> list[int]:
        """Return the last price of each skipped minute, by the ways of `order_flow.walk` and the pull towards home."""
        grid = self.grid
        home = bisect_right(grid, self.home) - 1
        place = max(0, bisect_right(grid, self.anchor if self.is_auction else self.tape.last) - 1)
        top, prices = len(grid) - 1, []
        for way in ways:
            place += way - order_flow.NO_MOVE - (place - home + order_flow.TICKS_A_PULL // 2) // order_flow.TICKS_A_PULL
            if not 0 <= place <= top:
                place = top if place > 0 else 0
            prices.append(grid[place])
        return prices

    def block(self, ways: bytes, volumes: bytes, prices: list[int]) -> MinuteBlock:
        """Return the trades of skipped minutes that end at `prices`."""
        quantities = order_flow.skipped_quantities(self.usual_quantity)
        return MinuteBlock(
            opens=[self.tape.last, *prices[:-1]],
            closes=prices,
            quantities=[quantities[volume] for volume in volumes],
            buyers=ways.translate(_BUYERS),
        )

    def add_minute(self, minute: MinuteBlock, at: datetime) -> None:
        """Print the two trades of one skipped minute."""
        bought, quantity = minute.buyers[0], minute.quantities[0]
        self.add_trade(at, minute.opens[0], quantity, Side.BUY if bought else Side.SELL)
        self.add_trade(at, minute.closes[0], quantity, Side.BUY if bought == 2 else Side.SELL)
        self.place_at(minute.closes[0], at)

    def place_at(self, price: int, at: datetime) -> None:
        """Move the maker to `price`. Its levels there are quoted when the book is needed."""
        self.anchor = price
        self.changed_at = at
        self._quoted_anchor = None

    def walk_through(self, price: int, at: datetime) -> list[MakerFill]:
        """Trade through the book to `price` and fill customers' orders there; `home` does not change."""
        home = self.home
        hits = self.walk_to(price, at)
        if max(self.book.customer_prices(Side.BUY), default=0) >= price:
            hits += self._clear(Side.SELL, price, at)
        if min(self.book.customer_prices(Side.SELL), default=price + 1) <= price:
            hits += self._clear(Side.BUY, price, at)
        self.home = home
        self.place_at(price, at)
        self.quote()
        return hits
