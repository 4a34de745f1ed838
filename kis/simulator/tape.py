"""The day's record of one stock on one venue (체결 테이프): every trade, and what they add up to."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from aegis.terms import Side

RECENT = 100  # trades kept for the list of recent ones


@dataclass(frozen=True, slots=True)
class Trade:
    """A trade and the day's figures right after it. `taker` is None in an auction."""

    at: datetime
    price: int
    quantity: int
    taker: Side | None
    open: int
    high: int
    low: int
    volume: int
    amount: int
    buys: int
    sells: int
    bought: int
    sold: int
    unified: "Trade | None" = None  # the same trade in the day of both venues together


@dataclass(slots=True)
class Bar:
    """One minute, or one day. `amount` is the day's, up to and with this bar, as the broker prints it."""

    open: int
    high: int
    low: int
    close: int
    volume: int
    amount: int

    def add(self, price: int, quantity: int, amount: int) -> None:
        self.high = max(self.high, price)
        self.low = min(self.low, price)
        self.close = price
        self.volume += quantity
        self.amount = amount


@dataclass(slots=True)
class Tape:
    """A day so far. Prices are 0 until the first trade; `last` begins as the base price."""

    last: int
    open: int = 0
    high: int = 0
    low: int = 0
    open_at: datetime | None = None
    high_at: datetime | None = None
    low_at: datetime | None = None
    volume: int = 0
    amount: int = 0
    buys: int = 0
    sells: int = 0
    bought: int = 0
    sold: int = 0
    minutes: dict[str, Bar] = field(default_factory=dict)
    recent: deque[Trade] = field(default_factory=lambda: deque(maxlen=RECENT))
    log: list[tuple[datetime, int, int]] | None = None  # every trade: when, won, shares; kept where somebody asked

    def add(self, at: datetime, price: int, quantity: int, taker: Side | None, unified: Trade | None = None) -> Trade:
        """Print a trade."""
        self._set_extremes(at, price)
        if self.log is not None:
            self.log.append((at, price, quantity))
        self.last = price
        self.volume += quantity
        self.amount += price * quantity
        if taker is Side.BUY:
            self.buys += 1
            self.bought += quantity
        elif taker is Side.SELL:
            self.sells += 1
            self.sold += quantity
        minute = f"{at:%H%M}"
        bar = self.minutes.get(minute)
        if bar is None:
            self.minutes[minute] = Bar(price, price, price, price, quantity, self.amount)
        else:
            bar.add(price, quantity, self.amount)
        trade = Trade(
            at, price, quantity, taker, self.open, self.high, self.low, self.volume, self.amount,
            self.buys, self.sells, self.bought, self.sold, unified,
        )  # fmt: skip
        self.recent.append(trade)
        return trade

    def _set_extremes(self, at: datetime, price: int) -> None:
        if not self.open:
            self.open, self.open_at = price, at
        if price > self.high:
            self.high, self.high_at = price, at
        if not self.low or price < self.low:
            self.low, self.low_at = price, at

    @property
    def average(self) -> float:
        """The day's volume-weighted average price (가중 평균), 0 before the first trade."""
        return self.amount / self.volume if self.volume else 0.0

    @property
    def strength(self) -> float:
        """Bought against sold shares in percent (체결강도)."""
        return self.bought / self.sold * 100 if self.sold else 0.0

    def absorb(self, tapes: Iterable["Tape"]) -> None:
        """Become the days of several venues together, as far as sums and extremes go."""
        traded = [tape for tape in tapes if tape.volume]
        if not traded:
            return
        first = min(traded, key=lambda tape: tape.open_at.timestamp() if tape.open_at else float("inf"))
        high, low = max(traded, key=lambda tape: tape.high), min(traded, key=lambda tape: tape.low)
        self.open, self.open_at = first.open, first.open_at
        self.high, self.high_at = high.high, high.high_at
        self.low, self.low_at = low.low, low.low_at
        self.last = traded[0].last
        for name in ("volume", "amount", "buys", "sells", "bought", "sold"):
            setattr(self, name, sum(getattr(tape, name) for tape in traded))
