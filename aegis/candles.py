"""Trades folded into one-minute bars (분봉), in memory. One `MinuteBarAggregator` a venue, one thread at a time.

Every trade comes with the day's running totals, so each says where it belongs: it begins where the one
before it ended. What begins further on shows that trades were lost between, and how many shares; what
ends earlier is a repetition, or a late one that fills such a gap. A bar's volume is the distance between
running totals, and loses nothing where a frame is lost: those shares count to the next bar seen. Bars
next to a gap are not whole: their highs and lows, and which of the two minutes traded the shares, are
not known.

Minutes are named by their first moment, `HHMM`: the opening price (시가) of 09:00:00 lies in 0900, the
closing auction's in 1530. A trade at HH:MM:00 opens the minute it names. `value` is won.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, time

from aegis.broker import ChartMinute, Trade
from aegis.sessions import KST
from aegis.terms import Market

# bars of a stock that are kept open for late trades, besides the running one
KEPT_MINUTES = 3

_MINUTES = [f"{minute // 60:02}{minute % 60:02}" for minute in range(24 * 60)]
# minute -> the first second (HHMMSS) that is no longer in it
_UNTIL = dict(zip(_MINUTES, [f"{minute}00" for minute in (*_MINUTES[1:], "2400")], strict=True))


@dataclass(frozen=True, slots=True)
class Bar:
    """One minute of one stock on one venue, in won and shares.

    `count` is how many trades there were, None where that is not known: some were missed. `day_volume` and `day_value`
    are the day's running totals at its end. `is_whole` says that no trade of the minute was missed.
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
    """A bar in the making. `first` and `last` are the day's running totals before its first and after its last trade.

    It is torn while trades may have followed unheard, and patchy once it is known to have missed some.
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
        self.newest = trade  # the last by running total: it knows the close
        self.count = 1
        self.sent = -1  # the count it was last told with
        self.is_suspect = self.has_gap = False

    def take(self, trade: Trade) -> None:
        """Count a trade of this minute, whenever it comes."""
        price = trade.price
        self.high, self.low = max(self.high, price), min(self.low, price)
        if trade.volume > self.last:
            self.last, self.newest = trade.volume, trade
        elif trade.volume <= self.first:
            self.open, self.first = price, trade.volume - trade.qty
        self.count += 1


@dataclass(slots=True)
class _SymbolBars:
    """A stock's newest bars, the running one last, and the stretches of the running total that were not heard.

    `floor` holds the running totals, shares and won, that the oldest of these bars starts from; bars up to
    `let_go` are kept no longer.
    """

    floor: tuple[int, int]
    bars: list[_OpenBar]
    let_go: str = ""
    gaps: list[tuple[int, int]] = field(default_factory=list)
    is_changed: bool = True

    def has_holes(self, bar: _OpenBar) -> bool:
        """Whether trades beside or within the bar are known to have been missed."""
        return bar.has_gap or any(since <= bar.last and bar.first <= until for since, until in self.gaps)

    def mark_dirty(self, since: int, until: int) -> None:
        """Have the bars beside a stretch of the running total told anew, and the one after them."""
        self.is_changed = True
        before = None
        for bar in self.bars:
            if (bar.first <= until and since <= bar.last) or (before is not None and before.sent == -1):
                bar.sent = -1
            before = bar

    def take_late(self, trade: Trade) -> bool:
        """Count a late trade in its own minute, which may have had none yet; False where it is too late."""
        minute = trade.hhmmss[:4]
        if minute <= self.let_go:
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
    """What was not ordinary, since the fold was made."""

    gaps: int = 0
    late: int = 0
    too_late: int = 0
    repeated: int = 0
    recounts: int = 0


class MinuteBarAggregator:
    """One venue's day as bars, of every stock that trades there."""

    def __init__(self, market: Market, day: date) -> None:
        self.market = market
        self.day = day
        self.counters = AggregatorCounters()
        self._running: dict[str, _OpenBar] = {}
        self._series: dict[str, _SymbolBars] = {}
        self._finished: list[Bar] = []

    def add(self, trades: Iterable[Trade]) -> None:
        """Fold trades in the order they came."""
        running = self._running
        for trade in trades:
            try:
                bar = running[trade.code]
            except KeyError:
                self._begin(trade)
                continue
            qty, volume = trade.qty, trade.volume
            # it begins where the last one ended, moves the total, and lies in the same minute: nearly all do
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
        """Take the first trade of a stock. What the day traded before it was not heard."""
        if trade.qty <= 0:
            return
        bar = _OpenBar(trade)
        series = _SymbolBars(_totals_before(trade), [bar])
        self._running[trade.code], self._series[trade.code] = bar, series
        if bar.first:
            self._note_gap(series, 0, bar.first)

    def _add_odd(self, bar: _OpenBar, trade: Trade) -> None:
        """Take a trade that opens a minute, follows a gap, comes late or comes again.

        Prices that an auction expects move no total, and are no trades.
        """
        if trade.qty <= 0:
            return
        is_later = trade.hhmmss >= _UNTIL[bar.minute]
        if trade.volume <= bar.last:
            self._recount(trade) if is_later else self._add_late(trade)
            return
        series, seen, before = self._series[trade.code], bar.last, trade.volume - trade.qty
        if bar.is_suspect:  # this trade tells whether anything followed it unheard
            bar.is_suspect, bar.until, bar.sent = False, _UNTIL[bar.minute], -1
            series.is_changed = True
        if is_later:
            self._roll(series, trade)
        else:
            bar.take(trade)
        if before > seen:
            self._note_gap(series, seen, before)

    def _roll(self, series: _SymbolBars, trade: Trade) -> None:
        """Begin the minute of `trade`; the oldest bar that was kept open is let go."""
        bar = self._running[trade.code] = _OpenBar(trade)
        series.bars.append(bar)
        series.is_changed = True
        if len(series.bars) > KEPT_MINUTES + 1:
            self._finished.extend(self._told(trade.code, series, series.bars[:1]))
            oldest = series.bars.pop(0)
            series.floor, series.let_go = (oldest.last, oldest.newest.value), oldest.minute
            series.gaps = [gap for gap in series.gaps if gap[1] > oldest.last]

    def _note_gap(self, series: _SymbolBars, since: int, until: int) -> None:
        self.counters.gaps += 1
        series.gaps.append((since, until))
        series.mark_dirty(since, until)

    def _add_late(self, trade: Trade) -> None:
        """Take a trade that ends before the newest one: it fills a gap, else it was heard already."""
        series, before = self._series[trade.code], trade.volume - trade.qty
        gap = next((gap for gap in series.gaps if gap[0] <= before and trade.volume <= gap[1]), None)
        if gap is None:
            self.counters.repeated += 1
        elif not series.take_late(trade):
            self.counters.too_late += 1
        else:
            self.counters.late += 1
            series.gaps.remove(gap)
            rests = ((gap[0], before), (trade.volume, gap[1]))
            series.gaps.extend((since, until) for since, until in rests if since < until)
            series.mark_dirty(*gap)

    def _recount(self, trade: Trade) -> None:
        """The running totals have begun anew within the day: so does the stock."""
        self.counters.recounts += 1
        series = self._series.pop(trade.code)
        self._finished.extend(self._told(trade.code, series, series.bars))
        self._begin(trade)

    def tear(self) -> None:
        """Doubt the newest bar of every stock until its next trade: the connection was lost, trades may be too."""
        for series in self._series.values():
            bar = series.bars[-1]
            # no moment is before this one: the next trade takes the careful way
            bar.is_suspect, bar.until, bar.sent = True, "", -1
            series.is_changed = True

    def resume(self, bars: Iterable[Bar]) -> None:
        """Go on from the newest bar of each stock, as another process left it. All of them are torn."""
        for bar in bars:
            newest = Trade(bar.code, "", bar.close, bar.volume, bar.day_volume, bar.day_value, bar.market)
            minute = _OpenBar(newest, minute=bar.minute)
            minute.open, minute.high, minute.low, minute.count = bar.open, bar.high, bar.low, bar.count or 0
            minute.has_gap = not bar.is_whole
            floor = minute.first, bar.day_value - bar.value
            self._running[bar.code], self._series[bar.code] = minute, _SymbolBars(floor, [minute])
        self.tear()

    def newest(self) -> list[tuple[str, Trade]]:
        """Return the last trade of each stock that was heard since the fold was made, by code."""
        return [(code, bar.newest) for code, bar in self._running.items() if bar.newest.hhmmss]

    def changed(self) -> list[Bar]:
        """Return the bars that are new or different since the last call, each stock's in order."""
        told, self._finished = self._finished, []
        for code, series in self._series.items():
            if series.is_changed:
                told.extend(self._told(code, series, series.bars))
                series.is_changed = False
            elif (bar := series.bars[-1]).sent != bar.count:
                told.append(self._bar(code, series, bar, len(series.bars) - 1))
        return told

    def _told(self, code: str, series: _SymbolBars, bars: Iterable[_OpenBar]) -> Iterator[Bar]:
        for number, bar in enumerate(bars):
            if bar.sent != bar.count:
                yield self._bar(code, series, bar, number)

    def _bar(self, code: str, series: _SymbolBars, bar: _OpenBar, number: int) -> Bar:
        """Return a bar as told. Shares that were not heard count to the first bar after them."""
        if number:
            before = series.bars[number - 1]
            since_volume, since_value = before.last, before.newest.value
        else:
            since_volume, since_value = series.floor
        bar.sent, has_holes = bar.count, series.has_holes(bar)
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
            count=None if has_holes else bar.count,
            day_volume=bar.last,
            day_value=bar.newest.value,
            is_whole=not (has_holes or bar.is_suspect),
        )


@dataclass(frozen=True, slots=True)
class GapRange:
    """Neighbouring doubtful bars of one stock, and where trades may be missing: after `since`, up to `until`.

    Both are minutes, `since` empty at the day's beginning; `floor` the day's totals of shares and won there.
    """

    bars: tuple[Bar, ...]
    since: str
    until: str
    floor: tuple[int, int]


def doubtful(bars: Iterable[Bar], finished: str) -> list[GapRange]:
    """Return the stretches of a stock's day, given by time, that need a chart; `finished` is the last minute over.

    What follows the newest bar is doubtful where that bar is: trades after it may have gone unheard.
    """
    groups: list[tuple[Bar | None, list[Bar], bool]] = []
    before: Bar | None = None
    for bar in bars:
        if bar.minute > finished:
            break
        if not bar.is_whole:
            if not groups or groups[-1][2]:
                groups.append((before, [], False))
            groups[-1][1].append(bar)
        elif groups:
            groups[-1] = (*groups[-1][:2], True)
        before = bar
    return [
        GapRange(
            bars=tuple(group),
            since=since.minute if since else "",
            until=group[-1].minute if is_closed else finished,
            floor=(since.day_volume, since.day_value) if since else (0, 0),
        )
        for since, group, is_closed in groups
    ]


def mended(ours: Sequence[Bar], chart: Iterable[ChartMinute], floor: tuple[int, int]) -> list[Bar]:
    """Return what is to be written of a stretch of bars with holes, given the chart of the same minutes.

    `chart` is in Korean time. `ours` are all the bars of the stretch, at least one, by time; `floor` the day's
    totals of shares and won before it. A bar that was merely doubted and that the chart confirms is whole, and
    keeps its `count`; one with holes, and a minute we know nothing of, becomes the chart's; one the chart is
    silent about stays doubtful.
    """
    known, told = {bar.minute: bar for bar in ours}, {f"{row.at:%H%M}": row for row in chart if row.volume}
    day_volume, day_value = floor
    result = []
    for minute in sorted(known.keys() | told.keys()):
        bar, row = known.get(minute), told.get(minute)
        if bar is None or not (bar.is_whole or row is None):
            assert row is not None
            bar = _charted(bar or ours[0], row, day_volume, day_value)
            result.append(bar)
        elif not bar.is_whole:
            result.append(bar)
        day_volume, day_value = bar.day_volume, bar.day_value
    return result


def _charted(like: Bar, row: ChartMinute, day_volume: int, day_value: int) -> Bar:
    """Return the chart's minute as a bar of the stock of `like`; `like` itself, whole, where it is just that.

    A volume reckoned from running totals is right with trades missed, so only a bar without known holes has its count.
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
