"""Which price means sell: stop loss (손절), take profit (익절) and trailing stop (추적 손절) of a holding.

A rule has one limit in whole won. A falling rule fires at or under it, a rising one at or over it: a gap
through the limit fires at the first trade behind it. What fires is a trade that happened, in an auction
too; what an auction only expects, and a price of 0, is nothing.

Which trades count is `TriggerRule`'s to say: each of KRX's from its opening uncross to its closing auction; any
other, after hours and on NXT, only with a second witness.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import StrEnum

from aegis.broker import Quote
from aegis.denials import Denial, DenialCode
from aegis.risk import gettext_noop
from aegis.sessions import Phase, PhaseName
from aegis.terms import Market
from aegis.ticks import DAILY_LIMIT_PERCENT

ATR_DAYS = 14
# in won: what no trade of a stock ever reaches
_NO_END = 10**15


class StopKind(StrEnum):
    STOP_LOSS = "STOP_LOSS"  # 손절
    TAKE_PROFIT = "TAKE_PROFIT"  # 익절
    TRAILING = "TRAILING"  # 추적 손절: follows the highest price since it was armed

    @property
    def falls(self) -> bool:
        """Whether it fires when the price falls to its limit; else when it rises there."""
        return self is not StopKind.TAKE_PROFIT


class StopUnit(StrEnum):
    """What a rule's value is: won, percent, or multiples of the average true range of daily prices (ATR).

    A stop loss and a take profit are measured from the average price, a trailing stop from the highest
    price; in won the first two name the price itself, and a trailing stop the distance.
    """

    PRICE = "PRICE"
    PERCENT = "PERCENT"
    ATR = "ATR"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with all that its limit rests on: won but for `value`, whose unit `unit` names.

    `high` is the highest price since it was armed, and matters to trailing stops alone; `atr` to rules by ATR.
    """

    kind: StopKind
    unit: StopUnit
    value: Decimal
    average_price: Decimal
    high: int = 0
    atr: Decimal = Decimal(0)


@dataclass(frozen=True, slots=True)
class Fired:
    """A trade at `price` won reached the limit."""

    price: int
    limit: int


@dataclass(frozen=True, slots=True)
class NewHigh:
    """A trailing stop's highest price moved up to `price`."""

    price: int


Verdict = Fired | NewHigh | None


def evaluate(rule: Rule, price: int) -> Verdict:
    """Return what a trade at `price` won means to a rule; None for nothing."""
    if price <= 0:
        return None
    if rule.kind is StopKind.TRAILING and price > rule.high:
        return NewHigh(price)
    at = limit(rule)
    if price <= at if rule.kind.falls else price >= at:
        return Fired(price, at)
    return None


def limit(rule: Rule) -> int:
    """Return the price, in won, at which a rule fires: the last one inside what it asks for."""
    exact = _exact(rule)
    return int(exact.to_integral_value(ROUND_FLOOR if rule.kind.falls else ROUND_CEILING))


def _exact(rule: Rule) -> Decimal:
    trails = rule.kind is StopKind.TRAILING
    if rule.unit is StopUnit.PRICE and not trails:
        return rule.value
    start = Decimal(rule.high) if trails else rule.average_price
    away = {
        StopUnit.PRICE: rule.value,
        StopUnit.PERCENT: start * rule.value / 100,
        StopUnit.ATR: rule.value * rule.atr,
    }[rule.unit]
    return start - away if rule.kind.falls else start + away


# a second trade is a witness if it comes at least N seconds after the first
WITNESS_SECONDS = 1
# the closing auction ends within half a minute of its hour; the first trades at the closing price come minutes later
UNCROSS_WITHIN = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Heard:
    """What a trade says about a price: won, the second of the day at which it was, and what else bears it out.

    `value` is its won; `ask` and `bid` are the best quotes after it, 0 for none. `counts_alone` says that it needs no
    second witness.
    """

    price: int
    at: int
    value: int = 0
    ask: int = 0
    bid: int = 0
    counts_alone: bool = False


@dataclass(frozen=True, slots=True)
class Crossing:
    """Trades in a row beyond a line that no second witness bears out yet.

    `since` is the second of the first of them, `price` the one that all of them reached, `value` their won together.
    """

    since: int
    price: int
    value: int


class TriggerRule:
    """Decides from the trades of a stock whether one stop triggers, and how far up its highest price moves.

    A trade that does not count alone needs a second witness: another trade beyond the line at least a second later,
    `least_value` won traded beyond it, or the best quote: for a fall the ask at or below the line, for a rise the bid
    at or above it; a highest price needs a bid at that price. A trade back inside the line ends the crossing. Give it
    only trades that are new (`is_new`), each once and in the order they came.
    """

    __slots__ = ("crossing", "least_value", "line", "rise", "rule")

    def __init__(
        self, rule: Rule, least_value: int = 0, crossing: Crossing | None = None, rise: Crossing | None = None
    ) -> None:
        self.rule = rule
        self.line = limit(rule)
        self.least_value = least_value  # 0: no value is a witness
        self.crossing = crossing  # beyond the limit
        self.rise = rise  # above the highest price

    def renewed(self, rule: Rule, least_value: int) -> "TriggerRule":
        """Return the same for a rule that was read again; what was heard counts on if the line is the same."""
        if (rule, least_value) == (self.rule, self.least_value):
            return self
        is_same = replace(rule, high=self.rule.high) == self.rule
        return TriggerRule(rule, least_value, *((self.crossing, self.rise) if is_same else ()))

    def concerns(self, price: int) -> bool:
        """Whether a trade at `price` changes anything; most do not, and need no look at all."""
        if self.crossing is not None or self.rise is not None:
            return True
        if self.rule.kind is StopKind.TAKE_PROFIT:
            return price >= self.line
        return price <= self.line or (self.rule.kind is StopKind.TRAILING and price > self.rule.high)

    def hear(self, trade: Heard) -> Verdict:
        """Return what a trade does: it triggers the stop, moves its highest price up, or nothing yet."""
        if trade.price <= 0:
            return None
        if self.rule.kind is StopKind.TRAILING and (high := self._risen(trade)):
            self._move_up(high, trade)
            return NewHigh(high)
        rises = not self.rule.kind.falls
        quoted = trade.bid >= self.line if rises else 0 < trade.ask <= self.line
        self.crossing, proven = self._proven(self.crossing, trade, self.line, rises=rises, quoted=quoted)
        return Fired(trade.price, self.line) if proven else None

    def _risen(self, trade: Heard) -> int:
        quoted = trade.bid >= trade.price
        self.rise, high = self._proven(self.rise, trade, self.rule.high + 1, rises=True, quoted=quoted)
        return high

    def _move_up(self, high: int, trade: Heard) -> None:
        self.rule = replace(self.rule, high=high)
        self.line, self.crossing = limit(self.rule), None
        if trade.price <= high:
            self.rise = None

    def _proven(
        self, before: Crossing | None, trade: Heard, line: int, *, rises: bool, quoted: bool
    ) -> tuple[Crossing | None, int]:
        """Return the crossing that goes on with a trade, and the price that two witnesses reached; 0 for none yet."""
        if trade.price < line if rises else trade.price > line:
            return None, 0
        begun = Crossing(trade.at, trade.price, trade.value)
        if trade.counts_alone or quoted or 0 < self.least_value <= trade.value:
            return begun, trade.price
        if before is None:
            return begun, 0
        reached = min(before.price, trade.price) if rises else max(before.price, trade.price)
        grown = Crossing(before.since, reached, before.value + trade.value)
        if trade.at - before.since >= WITNESS_SECONDS or 0 < self.least_value <= grown.value:
            return begun, reached
        return grown, 0


def is_new(qty: int, volume: int, total: int) -> bool:
    """Whether shares were traded that `total`, the day's newest running total of shares, does not count yet.

    A frame that came twice, late or from before tells no more than the total already does.
    """
    return qty > 0 and volume > total


@dataclass(frozen=True, slots=True)
class Hours:
    """The stretch of a day, as `HHMMSS`, in which each trade on KRX counts alone; empty on a day without one."""

    since: str = ""
    until: str = ""

    def count_alone(self, market: Market, hhmmss: str) -> bool:
        return market is Market.KRX and self.since <= hhmmss < self.until


def hours_of(phases: Iterable[Phase]) -> Hours:
    """Return KRX's hours from its opening uncross through its regular session to the end of its closing auction."""
    names = (PhaseName.REGULAR, PhaseName.CLOSING_AUCTION)
    own = [phase for phase in phases if phase.market is Market.KRX and phase.name in names]
    if not own:
        return Hours()
    end = datetime.combine(date.min, max(phase.ends_at for phase in own)) + UNCROSS_WITHIN
    return Hours(f"{min(phase.starts_at for phase in own):%H%M%S}", f"{end:%H%M%S}")


def second_of(hhmmss: str) -> int:
    """Return the second of the day of a time as six digits."""
    return int(hhmmss[:2]) * 3600 + int(hhmmss[2:4]) * 60 + int(hhmmss[4:6])


def why_invalid(rule: Rule, price: int) -> Denial | None:
    """Return why a rule is not to be armed while the stock trades at `price` won, None where it may be.

    It names the value and what would be right: a rule could never fire, or would fire at once.
    """
    if rule.value <= 0:
        return Denial(
            DenialCode.STOP_VALUE, gettext_noop("value {value:f}: more than 0 is needed"), {"value": rule.value}
        )
    if rule.unit is StopUnit.PRICE and rule.value != int(rule.value):
        return Denial(
            DenialCode.STOP_VALUE, gettext_noop("value {value:f}: whole won are needed"), {"value": rule.value}
        )
    if rule.unit is StopUnit.ATR and rule.atr <= 0:
        words = gettext_noop("the average true range is not known: {days} daily prices are needed (backfill_daily)")
        return Denial(DenialCode.STOP_ATR, words, {"days": ATR_DAYS + 1})
    at = limit(rule)
    if at <= 0:
        words = gettext_noop("value {value:f}: its limit of {limit:,} won is no price")
        return Denial(DenialCode.STOP_VALUE, words, {"value": rule.value, "limit": at})
    if isinstance(evaluate(rule, price), Fired):
        words = gettext_noop("value {value:f}: with a limit of {limit:,} won it would fire at once, at {price:,} won")
        return Denial(DenialCode.STOP_AT_ONCE, words, {"value": rule.value, "limit": at, "price": price})
    return None


def rebased(value: Decimal, ratio: Decimal) -> Decimal:
    """Return an amount of won as it is after a split: `ratio` is the new price over the old, 0.2 for one into five."""
    return (value * ratio).quantize(Decimal("0.0001"))


@dataclass(frozen=True, slots=True)
class DayRange:
    """A day's prices in won, as far as the true range needs them."""

    high: int
    low: int
    close: int


def average_true_range(days: Sequence[DayRange], count: int = ATR_DAYS) -> Decimal | None:
    """Return the mean true range of the last `count` days, the oldest first, in won; None where there are too few.

    A day's true range spans its high, its low and the close before it. A day without a trade, whose high and low the
    broker gives as 0, has none and is left out: so are the halted days before a split.
    """
    days = [day for day in days if day.high > 0 and day.low > 0]
    if len(days) <= count:
        return None
    pairs = zip(days[-count - 1 : -1], days[-count:], strict=True)
    spans = [max(day.high, before.close) - min(day.low, before.close) for before, day in pairs]
    return (Decimal(sum(spans)) / count).quantize(Decimal("0.0001"))


def plausible(close_before: int | None, quote: Quote | None = None) -> range:
    """Return the prices, in won, that a day may trade at after one that closed at `close_before`.

    A price outside is no fall but another count of shares (split, reverse split), which the account does not
    show yet. Without a close everything is plausible, as on a stock's first day. The limits are taken without
    the ticks that cut them, which differ by instrument: the lowest price of the day must fire. Where the broker's
    `quote` reckons from that close, or from one less a distribution, its limits count too: those of a leveraged
    fund are wider.
    """
    if not close_before:
        return range(1, _NO_END)
    width = -(-close_before * DAILY_LIMIT_PERCENT // 100)
    lowest, highest = max(1, close_before - width), close_before + width
    if quote is not None and abs(quote.base_price - close_before) <= width:
        lowest, highest = min(lowest, quote.lower_limit), max(highest, quote.upper_limit)
    return range(lowest, highest + 1)
