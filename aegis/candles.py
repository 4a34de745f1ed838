"""Aggregates trades into one-minute bars (분봉), in memory. One `MinuteBarAggregator` per venue, one thread at a time.

Every trade carries the day's running totals, so it begins where the previous trade ended. If it begins later, trades
are missing in between, and the totals give their shares. If it ends earlier, it is a duplicate, or a late trade that
fills a gap. A bar's volume is the difference of two running totals, so a lost frame loses no shares: they count towards
the next bar. Bars next to a gap are not whole: their highs and lows, and which of the two minutes traded the missing
shares, are not known.

A candle is final (closed) five seconds after its interval has ended: `market.queries.CLOSED_AFTER`. `market.queries`
marks it `is_closed` and returns closed candles only, unless the caller asks for the open one. A gap repair may still
replace a final bar.

Minutes are named by their start, `HHMM`: the opening price (시가) of 09:00:00 belongs to 0900, the closing auction's to
1530. A trade at HH:MM:00 opens the minute it names. `value` is won.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time

from aegis.broker import ChartMinute, Trade
from aegis.sessions import KST
from aegis.terms import Market

# how many bars of a stock stay open for late trades, besides the current one
KEPT_MINUTES = 3

_MINUTES = [f"{minute // 60:02}{minute % 60:02}" for minute in range(24 * 60)]
# minute -> the first second (HHMMSS) after it
_UNTIL = dict(zip(_MINUTES, [f"{minute}00" for minute in (*_MINUTES[1:], "2400")], strict=True))


@dataclass(slots=True)
class Bar:
    """One minute of one stock on one venue, in won and shares.

    `count` is the number of trades, None if some were missed. `day_volume` and `day_value` are the day's running totals
    at the end of the minute. `is_whole`: no trade of the minute was missed. Not frozen: a frozen one takes twice the
    time to create.
    """

    code: str
    market: Market
    day: date
    minute: str
    open: int
    high: int
    low: int
    close: int
    volume: int
    value: int
    count: int | None
    day_volume: int
    day_value: int
    is_whole: bool

    @property
    def time(self) -> datetime:
        """The first moment of the minute, in Korea."""
        return datetime.combine(self.day, time(int(self.minute[:2]), int(self.minute[2:])), KST)


class _OpenBar:
    """An unfinished bar. `first` and `last` are the day's running totals before its first and after its last trade.

    `is_suspect`: trades may have followed that were not received. `has_gap`: some are known to be missing.
    """

    __slots__ = (
        "count",
        "first",
        "has_gap",
        "high",
        "is_suspect",
        "last",
        "low",
        "minute",
        "newest",
        "open",
        "sent",
        "until",
    )  # fmt: skip

    def __init__(self, trade: Trade, *, minute: str = "") -> None:
        self.minute = minute or trade.hhmmss[:4]
        self.until = _UNTIL[self.minute]
        self.open = self.high = self.low = trade.price
        self.first, self.last = trade.volume - trade.qty, trade.volume
        self.newest = trade  # the last one by running total: its price is the close
        self.count = 1
        self.sent = -1  # the count with which it was last returned by `changed`, -1 to return it again
        self.is_suspect = self.has_gap = False

    def take(self, trade: Trade) -> None:
        """Count a trade of this minute, in order or late."""
        price = trade.price
        self.high, self.low = max(self.high, price), min(self.low, price)
        if trade.volume > self.last:
            self.last, self.newest = trade.volume, trade
        elif trade.volume <= self.first:
            self.open, self.first = price, trade.volume - trade.qty
        self.count += 1


@dataclass(slots=True)
class _SymbolBars:
    """A stock's newest bars, the current one last, and the ranges of the running total that were not received.

    `floor` holds the running totals, shares and won, at the start of the oldest of these bars. Bars up to the minute
    `released_up_to` are no longer kept.
    """

    floor: tuple[int, int]
    bars: list[_OpenBar]
    released_up_to: str = ""
    gaps: list[tuple[int, int]] = field(default_factory=list)
    is_changed: bool = True

    def is_beside_gap(self, bar: _OpenBar) -> bool:
        """Whether trades within the bar or next to it are known to be missing."""
        return bar.has_gap or any(since <= bar.last and bar.first <= until for since, until in self.gaps)

    def mark_dirty(self, since: int, until: int) -> None:
        """Mark the bars next to a range of the running total as changed, and the bar after them."""
        self.is_changed = True
        previous = None
        for bar in self.bars:
            if (bar.first <= until and since <= bar.last) or (previous is not None and previous.sent == -1):
                bar.sent = -1
            previous = bar

    def take_late(self, trade: Trade) -> bool:
        """Count a late trade in its own minute, which may have had no trade yet; return False if it is too late."""
        minute = trade.hhmmss[:4]
        if minute <= self.released_up_to:
            return False
        number = sum(bar.minute < minute for bar in self.bars)
        if number < len(self.bars) and self.bars[number].minute == minute:
            self.bars[number].take(trade)
        else:
            self.bars.insert(number, _OpenBar(trade))
        if trade.volume <= self.floor[0]:
            self.floor = _totals_before(trade)
        return True


def _totals_before(trade: Trade) -> tuple[int, int]:
    return trade.volume - trade.qty, trade.value - trade.price * trade.qty


@dataclass(slots=True)
class AggregatorCounters:
    """Counts of irregular trades since the aggregator was created."""

    gaps: int = 0
    late: int = 0
    too_late: int = 0
    repeated: int = 0
    recounts: int = 0


class MinuteBarAggregator:
    """Builds the bars of one venue's day, for every stock that trades there."""

    def __init__(self, market: Market, day: date) -> None:
        self.market = market
        self.day = day
        self.counters = AggregatorCounters()
        self._running: dict[str, _OpenBar] = {}
        self._series: dict[str, _SymbolBars] = {}
        self._finished: list[Bar] = []

    def add(self, trades: Iterable[Trade]) -> None:
        """Add trades in the order in which they arrived."""
        running = self._running
        for trade in trades:
            try:
                bar = running[trade.code]
            except KeyError:
                self._begin(trade)
                continue
            qty, volume = trade.qty, trade.volume
            # the common case: it begins where the last trade ended, moves the total, and is in the same minute
            if qty and volume - qty == bar.last and trade.hhmmss < bar.until:
                price = trade.price
                if price > bar.high:
                    bar.high = price
                elif price < bar.low:
                    bar.low = price
                bar.last = volume
                bar.newest = trade
                bar.count += 1
            else:
                self._add_odd(bar, trade)

    def _begin(self, trade: Trade) -> None:
        """Take the first trade of a stock. The day's trades before it were not received."""
        if trade.qty <= 0:
            return
        bar = _OpenBar(trade)
        series = _SymbolBars(_totals_before(trade), [bar])
        self._running[trade.code], self._series[trade.code] = bar, series
        if bar.first:
            self._note_gap(series, 0, bar.first)

    def _add_odd(self, bar: _OpenBar, trade: Trade) -> None:
        """Take a trade that opens a minute, follows a gap, is late or is a duplicate.

        Expected prices of an auction move no total, and are not trades.
        """
        if trade.qty <= 0:
            return
        is_later = trade.hhmmss >= _UNTIL[bar.minute]
        if trade.volume <= bar.last:
            self._recount(trade) if is_later else self._add_late(trade)
            return
        series, last, since = self._series[trade.code], bar.last, trade.volume - trade.qty
        if bar.is_suspect:  # this trade's running total shows whether trades were missed after the bar
            bar.is_suspect, bar.until, bar.sent = False, _UNTIL[bar.minute], -1
            series.is_changed = True
        if is_later:
            self._roll(series, trade)
        else:
            bar.take(trade)
        if since > last:
            self._note_gap(series, last, since)

    def _roll(self, series: _SymbolBars, trade: Trade) -> None:
        """Begin the minute of `trade`, and release the oldest open bar."""
        bar = self._running[trade.code] = _OpenBar(trade)
        series.bars.append(bar)
        series.is_changed = True
        if len(series.bars) > KEPT_MINUTES + 1:
            self._finished.extend(self._unsent_bars(trade.code, series, series.bars[:1]))
            oldest = series.bars.pop(0)
            series.floor, series.released_up_to = (oldest.last, oldest.newest.value), oldest.minute
            series.gaps = [gap for gap in series.gaps if gap[1] > oldest.last]

    def _note_gap(self, series: _SymbolBars, since: int, until: int) -> None:
        self.counters.gaps += 1
        series.gaps.append((since, until))
        series.mark_dirty(since, until)

    def _add_late(self, trade: Trade) -> None:
        """Take a trade that ends before the newest one: it fills a gap, or it is a duplicate."""
        series, since = self._series[trade.code], trade.volume - trade.qty
        gap = next((gap for gap in series.gaps if gap[0] <= since and trade.volume <= gap[1]), None)
        if gap is None:
            self.counters.repeated += 1
        elif not series.take_late(trade):
            self.counters.too_late += 1
        else:
            self.counters.late += 1
            series.gaps.remove(gap)
            rests = ((gap[0], since), (trade.volume, gap[1]))
            series.gaps.extend((since, until) for since, until in rests if since < until)
            series.mark_dirty(*gap)

    def _recount(self, trade: Trade) -> None:
        """Restart a stock whose running totals restarted within the day."""
        self.counters.recounts += 1
        series = self._series.pop(trade.code)
        self._finished.extend(self._unsent_bars(trade.code, series, series.bars))
        self._begin(trade)

    def mark_suspect(self) -> None:
        """Mark every stock's newest bar as suspect until its next trade: the connection was lost, trades may be too."""
        for series in self._series.values():
            bar = series.bars[-1]
            # no time is before "": the next trade takes the slow path
            bar.is_suspect, bar.until, bar.sent = True, "", -1
            series.is_changed = True

    def resume(self, bars: Iterable[Bar]) -> None:
        """Continue from the newest bar of each stock, as another process left it. All of them are suspect."""
        for bar in bars:
            newest = Trade(bar.code, "", bar.close, bar.volume, bar.day_volume, bar.day_value, bar.market)
            minute = _OpenBar(newest, minute=bar.minute)
            minute.open, minute.high, minute.low, minute.count = bar.open, bar.high, bar.low, bar.count or 0
            minute.has_gap = not bar.is_whole
            floor = minute.first, bar.day_value - bar.value
            self._running[bar.code], self._series[bar.code] = minute, _SymbolBars(floor, [minute])
        self.mark_suspect()

    def newest(self) -> list[tuple[str, Trade]]:
        """Return the code and the last trade of each stock that traded since the aggregator was created."""
        return [(code, bar.newest) for code, bar in self._running.items() if bar.newest.hhmmss]

    def changed(self) -> list[Bar]:
        """Return the bars that are new or changed since the last call, those of each stock in order."""
        bars, self._finished = self._finished, []
        for code, series in self._series.items():
            if series.is_changed:
                bars.extend(self._unsent_bars(code, series, series.bars))
                series.is_changed = False
            elif (bar := series.bars[-1]).sent != bar.count:
                bars.append(self._bar(code, series, bar, len(series.bars) - 1))
        return bars

    def _unsent_bars(self, code: str, series: _SymbolBars, bars: Iterable[_OpenBar]) -> Iterator[Bar]:
        for number, bar in enumerate(bars):
            if bar.sent != bar.count:
                yield self._bar(code, series, bar, number)

    def _bar(self, code: str, series: _SymbolBars, bar: _OpenBar, number: int) -> Bar:
        """Return an open bar as a `Bar`. Missing shares count towards the first bar after them."""
        if number:
            previous = series.bars[number - 1]
            since_volume, since_value = previous.last, previous.newest.value
        else:
            since_volume, since_value = series.floor
        bar.sent, has_gap = bar.count, series.is_beside_gap(bar)
        return Bar(
            code=code,
            market=self.market,
            day=self.day,
            minute=bar.minute,
            open=bar.open,
            high=bar.high,
            low=bar.low,
            close=bar.newest.price,
            volume=bar.last - since_volume,
            value=bar.newest.value - since_value,
            count=None if has_gap else bar.count,
            day_volume=bar.last,
            day_value=bar.newest.value,
            is_whole=not (has_gap or bar.is_suspect),
        )


@dataclass(frozen=True, slots=True)
class GapRange:
    """Adjacent suspect bars of one stock, and where trades may be missing: after `since`, up to `until`.

    Both are minutes; `since` is empty at the start of the day. `floor` has the day's totals of shares and won at
    `since`.
    """

    bars: tuple[Bar, ...]
    since: str
    until: str
    floor: tuple[int, int]


def doubtful(bars: Iterable[Bar], finished: str) -> list[GapRange]:
    """Return the ranges of a stock's day that need the chart. `bars` are ordered by time.

    `finished` is the last minute that is over. If the newest bar is suspect, so is the time after it: trades may have
    followed that were not received.
    """
    groups: list[tuple[Bar | None, list[Bar], bool]] = []
    previous: Bar | None = None
    for bar in bars:
        if bar.minute > finished:
            break
        if not bar.is_whole:
            if not groups or groups[-1][2]:
                groups.append((previous, [], False))
            groups[-1][1].append(bar)
        elif groups:
            groups[-1] = (*groups[-1][:2], True)
        previous = bar
    return [
        GapRange(
            bars=tuple(group),
            since=since.minute if since else "",
            until=group[-1].minute if has_next else finished,
            floor=(since.day_volume, since.day_value) if since else (0, 0),
        )
        for since, group, has_next in groups
    ]


class ContradictoryChart(ValueError):
    """The chart's running totals are lower than those of the trades that were received before."""


def mended(ours: Sequence[Bar], chart: Iterable[ChartMinute], floor: tuple[int, int]) -> list[Bar]:
    """Return the bars to write for a range of bars with gaps, given the chart of the same minutes.

    `chart` is in Korean time. `ours` are all bars of the range, at least one, ordered by time; `floor` has the day's
    totals of shares and won before it. A suspect bar that the chart confirms is whole, and keeps its `count`. A bar
    with a gap, and a minute without a bar, take the chart's figures. A bar that the chart lacks stays suspect.
    Raises ContradictoryChart if the day's total of won falls.
    """
    bars, rows = {bar.minute: bar for bar in ours}, {f"{row.at:%H%M}": row for row in chart if row.volume}
    day_volume, day_value = floor
    result = []
    for minute in sorted(bars.keys() | rows.keys()):
        bar, row = bars.get(minute), rows.get(minute)
        if bar is None or not (bar.is_whole or row is None):
            assert row is not None
            if row.day_value < day_value:
                raise ContradictoryChart(f"{minute}: {row.day_value} won in the day, {day_value} before")
            bar = _charted(bar or ours[0], row, day_volume, day_value)
            result.append(bar)
        elif not bar.is_whole:
            result.append(bar)
        day_volume, day_value = bar.day_volume, bar.day_value
    return result


def _charted(like: Bar, row: ChartMinute, day_volume: int, day_value: int) -> Bar:
    """Return the chart's minute as a bar of the stock of `like`, with the count of `like` if all figures are equal.

    A volume from running totals is right even if trades are missing, so only a bar without a known gap has a count.
    """
    bar = replace(
        like,
        minute=f"{row.at:%H%M}",
        open=row.open,
        high=row.high,
        low=row.low,
        close=row.close,
        volume=row.volume,
        value=row.day_value - day_value,
        count=None,
        day_volume=day_volume + row.volume,
        day_value=row.day_value,
        is_whole=True,
    )
    confirmed = replace(bar, count=like.count)
    return confirmed if confirmed == replace(like, is_whole=True) else bar
