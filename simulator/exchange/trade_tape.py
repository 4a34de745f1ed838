"""The day's record of one stock on one venue (체결 테이프): its trades and their totals."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time
from itertools import accumulate
from operator import add, mul

from aegis.sessions import KST
from aegis.terms import Side

RECENT = 100  # trades kept for the list of recent ones
MINUTE_NAMES = tuple(f"{minute // 60:02d}{minute % 60:02d}" for minute in range(24 * 60))  # HHMM of the day's minutes


@dataclass(frozen=True, slots=True)
class TapeTrade:
    """A trade and the day's figures right after it, in won and shares. `taker` is None in an auction."""

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
    unified: "TapeTrade | None" = None  # the same trade in the day of both venues together


@dataclass(slots=True)
class TapeBar:
    """One minute or one day. `amount` is the day's total up to the end of this bar, in won, as the broker prints it."""

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

    def merged_with(self, later: "TapeBar") -> "TapeBar":
        """Return this bar merged with a later one."""
        high, low = max(self.high, later.high), min(self.low, later.low)
        return TapeBar(self.open, high, low, later.close, self.volume + later.volume, later.amount)


@dataclass(frozen=True, slots=True)
class MinuteBlock:
    """Consecutive minutes of one venue, as columns. A minute has two trades: at its first price and at its last.

    `quantities` are the shares of one trade; `buyers` counts the trades, 0 to 2, whose taker is a buyer.
    """

    opens: Sequence[int]
    closes: Sequence[int]
    quantities: Sequence[int]
    buyers: Sequence[int]

    def __getitem__(self, part: slice) -> "MinuteBlock":
        return MinuteBlock(self.opens[part], self.closes[part], self.quantities[part], self.buyers[part])

    def __len__(self) -> int:
        return len(self.closes)

    def volumes(self) -> Iterable[int]:
        return (2 * quantity for quantity in self.quantities)

    def amounts(self) -> Iterable[int]:
        return map(mul, map(add, self.opens, self.closes), self.quantities)


def minute_start(day: date, minute: int) -> datetime:
    """Return the start of a minute of a day; minutes count from midnight."""
    return datetime.combine(day, time(minute // 60, minute % 60), KST)


@dataclass(frozen=True, slots=True)
class _PendingMinutes:
    """Minutes of a tape whose bars are not built yet. `amount` is the day's amount before the first of them."""

    minutes: range
    blocks: Sequence[MinuteBlock]
    amount: int

    def fill_in(self, bars: dict[str, TapeBar]) -> None:
        """Build the bars. A bar that exists already is earlier than these trades."""
        prices = [column for block in self.blocks for column in (block.opens, block.closes)]
        volumes = map(sum, zip(*(block.volumes() for block in self.blocks), strict=True))
        amounts = map(sum, zip(*(block.amounts() for block in self.blocks), strict=True))
        running = accumulate(amounts, initial=self.amount)
        next(running)
        columns = (self.blocks[0].opens, map(max, *prices), map(min, *prices), self.blocks[-1].closes, volumes, running)
        for minute, bar in zip(self.minutes, map(TapeBar, *columns), strict=True):
            before = bars.get(MINUTE_NAMES[minute])
            bars[MINUTE_NAMES[minute]] = bar if before is None else before.merged_with(bar)


def _trades(day: date, minutes: range, blocks: Sequence[MinuteBlock]) -> Iterator[tuple[datetime, int, int]]:
    for index, minute in enumerate(minutes):
        for block in blocks:
            yield minute_start(day, minute), block.opens[index], block.quantities[index]
            yield minute_start(day, minute), block.closes[index], block.quantities[index]


@dataclass(slots=True)
class Tape:
    """The day up to now. Prices are won, and 0 until the first trade, except `last`: it starts as the base price."""

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
    recent: deque[TapeTrade] = field(default_factory=lambda: deque(maxlen=RECENT))
    log: list[tuple[datetime, int, int]] | None = None  # all trades: moment, won, shares; None unless enabled
    _bars: dict[str, TapeBar] = field(default_factory=dict)
    _pending: list[_PendingMinutes] = field(default_factory=list)
    _pending_until: str = ""

    def add(
        self, at: datetime, price: int, quantity: int, taker: Side | None, unified: TapeTrade | None = None
    ) -> TapeTrade:
        """Add a trade and return it."""
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
        # if the clock was set back, the minute's bar may not be built yet
        bars = self._bars if minute > self._pending_until else self.minutes
        bar = bars.get(minute)
        if bar is None:
            bars[minute] = TapeBar(price, price, price, price, quantity, self.amount)
        else:
            bar.add(price, quantity, self.amount)
        trade = TapeTrade(
            at, price, quantity, taker, self.open, self.high, self.low, self.volume, self.amount,
            self.buys, self.sells, self.bought, self.sold, unified,
        )  # fmt: skip
        self.recent.append(trade)
        return trade

    @property
    def minutes(self) -> dict[str, TapeBar]:
        """The day's bars by minute (HHMM). Bars of skipped minutes are built on the first access."""
        pending, self._pending = self._pending, []
        self._pending_until = ""
        for block in pending:
            block.fill_in(self._bars)
        return self._bars

    def built_bar(self, minute: str) -> TapeBar | None:
        """Return a minute's bar if `add` created it, without building the bars of skipped minutes."""
        return self._bars.get(minute)

    def extend(self, day: date, minutes: range, blocks: Sequence[MinuteBlock]) -> None:
        """Add skipped minutes of one venue, or of both venues together."""
        self._pending.append(_PendingMinutes(minutes, blocks, self.amount))
        self._pending_until = max(self._pending_until, MINUTE_NAMES[minutes[-1]])
        prices = [column for block in blocks for column in (block.opens, block.closes)]
        highs, lows = [max(column) for column in prices], [min(column) for column in prices]
        high, low = highs.index(max(highs)), lows.index(min(lows))
        self._set_extremes(minute_start(day, minutes[0]), blocks[0].opens[0])
        self._set_extremes(minute_start(day, minutes[prices[high].index(highs[high])]), highs[high])
        self._set_extremes(minute_start(day, minutes[prices[low].index(lows[low])]), lows[low])
        self._count(blocks)
        if self.log is not None:
            self.log += _trades(day, minutes, blocks)

    def _count(self, blocks: Sequence[MinuteBlock]) -> None:
        volume = sum(2 * sum(block.quantities) for block in blocks)
        bought = sum(sum(map(mul, block.buyers, block.quantities)) for block in blocks)
        buys = sum(sum(block.buyers) for block in blocks)
        self.last = blocks[-1].closes[-1]
        self.volume += volume
        self.amount += sum(sum(block.amounts()) for block in blocks)
        self.buys += buys
        self.sells += sum(2 * len(block.buyers) for block in blocks) - buys
        self.bought += bought
        self.sold += volume - bought

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
        """Shares bought divided by shares sold, in percent (체결강도); 0 if none were sold."""
        return self.bought / self.sold * 100 if self.sold else 0.0

    def merge_from(self, tapes: Iterable["Tape"]) -> None:
        """Take over the sums and extremes of several venues' tapes."""
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
