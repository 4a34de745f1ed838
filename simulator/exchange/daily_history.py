"""Daily prices: the simulated days, and before them a generated history drawn from the seed.

The generated history runs backwards from the base price of the world's first day to the listing date.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date

from aegis import ticks
from simulator.exchange import order_flow
from simulator.exchange.calendar import next_trading_day
from simulator.exchange.listings import STOCKS
from simulator.exchange.state import World
from simulator.exchange.trade_tape import Tape, TapeBar


@dataclass(frozen=True, slots=True)
class HistoryDay:
    """One day, week, month or year of one stock. Prices and `amount` are won; `before` is the previous close."""

    day: date
    open: int
    high: int
    low: int
    close: int
    volume: int
    amount: int
    before: int


@dataclass(slots=True)
class History:
    """The daily prices of one world."""

    world: World
    _past: dict[str, list[HistoryDay]] = field(default_factory=dict)

    def days(self, code: str, tape: Tape | None, until: date | None = None) -> Iterator[HistoryDay]:
        """Yield trading days back to the listing, newest first. `tape` adds today if the stock has traded today."""
        today = self.world.today()
        base = self.world.bases[code]
        if tape is not None and tape.volume and (until is None or today <= until):
            yield HistoryDay(today, tape.open, tape.high, tape.low, tape.last, tape.volume, tape.amount, base)
        bars = self.world.closes.get(code, {})
        closes = sorted(bars, reverse=True)
        for index, day in enumerate(closes):
            if day >= today:
                continue
            bar: TapeBar = bars[day]
            before = bars[closes[index + 1]].close if index + 1 < len(closes) else STOCKS[code].base_price
            if until is None or day <= until:
                yield HistoryDay(day, bar.open, bar.high, bar.low, bar.close, bar.volume, bar.amount, before)
        yield from self._generated_days(code, until)

    def _generated_days(self, code: str, until: date | None) -> Iterator[HistoryDay]:
        past = self._past.setdefault(code, [])
        for index in itertools.count():
            if index == len(past):
                day = self._day_before(past[-1] if past else None)
                if day < STOCKS[code].listed_on:
                    return
                past.append(self._generate_day(code, day, past[-1] if past else None))
            if until is None or past[index].day <= until:
                yield past[index]

    def _day_before(self, later: HistoryDay | None) -> date:
        first = self.world.first_day
        assert first is not None
        return next_trading_day(later.day if later else first, -1)

    def _generate_day(self, code: str, day: date, later: HistoryDay | None) -> HistoryDay:
        """Generate `day`, the trading day before `later` or before the world's first day."""
        stock = STOCKS[code]
        close = later.before if later else stock.base_price
        change, *shape = order_flow.day_return(self.world.seed, day, code)

        def snap(price: float) -> int:
            return max(1, ticks.adjust_price_to_tick(int(price), "down", stock.instrument))

        before = snap(close / (1 + change))
        opened = snap(before + (close - before) * shape[0])
        high = max(opened, close, snap(max(before, close) * (1 + 0.012 * shape[1])))
        low = min(opened, close, snap(min(before, close) * (1 - 0.012 * shape[2])))
        volume = int(order_flow.usual_quantity(close, stock.listed_shares) * (3_000 + 9_000 * shape[1]))
        return HistoryDay(day, opened, high, low, close, volume, volume * (opened + high + low + close) // 4, before)

    def periods(self, code: str, tape: Tape | None, unit: str, until: date | None = None) -> Iterator[HistoryDay]:
        """Yield days (D), weeks (W), months (M) or years (Y), newest first, dated by their last trading day."""
        if unit == "D":
            yield from self.days(code, tape, until)
            return
        group: list[HistoryDay] = []
        for day in self.days(code, tape, until):
            if group and _period_key(group[0].day, unit) != _period_key(day.day, unit):
                yield _merge_days(group)
                group = []
            group.append(day)
        if group:
            yield _merge_days(group)

    def yesterday(self, code: str) -> HistoryDay:
        return next(self.days(code, None))


def _period_key(day: date, unit: str) -> tuple[int, ...]:
    if unit == "W":
        return tuple(day.isocalendar()[:2])
    return (day.year, day.month) if unit == "M" else (day.year,)


def _merge_days(days: list[HistoryDay]) -> HistoryDay:
    return HistoryDay(
        day=days[0].day,
        open=days[-1].open,
        high=max(day.high for day in days),
        low=min(day.low for day in days),
        close=days[0].close,
        volume=sum(day.volume for day in days),
        amount=sum(day.amount for day in days),
        before=days[-1].before,
    )
