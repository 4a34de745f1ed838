"""The trigger rules of stops: stop loss (손절), take profit (익절) and trailing stop (추적 손절) of a holding.

A rule has one limit in whole won. A falling rule fires at or below it, a rising rule at or above it; if the price gaps
through the limit, the first trade beyond it fires. Only a real trade fires, in an auction too. An auction's expected
price and a price of 0 are ignored. A stop triggers only once: `orders.stops.trigger` changes its row by
compare-and-set.

`TriggerRule` decides which trades count: every trade on KRX from its opening uncross to its closing auction; any other
trade, after hours or on NXT, only with a second witness.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import StrEnum

from aegis.broker import Quote
from aegis.denials import Denial, DenialCode, gettext_noop
from aegis.sessions import Phase, PhaseName
from aegis.terms import Market
from aegis.ticks import DAILY_LIMIT_PERCENT

ATR_DAYS = 14
# a price, in won, that no stock reaches
_NO_END = 10**15


class StopKind(StrEnum):
    STOP_LOSS = "STOP_LOSS"  # 손절
    TAKE_PROFIT = "TAKE_PROFIT"  # 익절
    TRAILING = "TRAILING"  # 추적 손절: follows the highest price since it was armed

    @property
    def falls(self) -> bool:
        """Whether it fires when the price falls to its limit; otherwise it fires when the price rises to it."""
        return self is not StopKind.TAKE_PROFIT


class StopUnit(StrEnum):
    """The unit of a rule's value: won, percent, or multiples of the average true range of daily prices (ATR).

    A stop loss and a take profit are measured from the average price, a trailing stop from the highest price. In won,
    the value of the first two is the price itself, and that of a trailing stop the distance.
    """

    PRICE = "PRICE"
    PERCENT = "PERCENT"
    ATR = "ATR"


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule with everything that its limit depends on, in won except `value`, whose unit is `unit`.

    `high` is the highest price since it was armed, for trailing stops only; `atr` is for rules in ATR only.
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
    trigger_limit: int


@dataclass(frozen=True, slots=True)
class NewHigh:
    """The highest price of a trailing stop rose to `price` won."""

    price: int


Verdict = Fired | NewHigh | None


def evaluate(rule: Rule, price: int) -> Verdict:
    """Return the effect of a trade at `price` won on a rule, None if it has none."""
    if price <= 0:
        return None
    if rule.kind is StopKind.TRAILING and price > rule.high:
        return NewHigh(price)
    at = trigger_limit(rule)
    if price <= at if rule.kind.falls else price >= at:
        return Fired(price, at)
    return None


def trigger_limit(rule: Rule) -> int:
    """Return the price, in whole won, at which a rule fires: rounded away from the start price."""
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
# the closing auction ends up to half a minute late; the first trades at the closing price follow minutes later
UNCROSS_WITHIN = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class StopTrade:
    """A trade as a stop evaluates it: its price in won, the second of the day, and the evidence for the price.

    `value` is the won traded; `ask` and `bid` are the best quotes after it, 0 for none. `counts_alone`: it needs no
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
    """Consecutive trades beyond a line that no second witness confirms yet.

    `since` is the second of the day of the first one, `price` the price that all of them reached, `value` the sum of
    their won.
    """

    since: int
    price: int
    value: int


class TriggerRule:
    """Decides from the trades of a stock whether one stop triggers, and how far its highest price rises.

    A trade that does not count alone needs a second witness: another trade beyond the line at least a second later,
    `least_value` won traded beyond it, or the best quote: for a fall the ask at or below the line, for a rise the bid
    at or above it; a highest price needs a bid at that price. A trade back inside the line ends the crossing. Pass only
    trades that are new (`is_new`), each once and in order of arrival.
    """

    __slots__ = ("crossing", "least_value", "line", "rise", "rule")

    def __init__(
        self, rule: Rule, least_value: int = 0, crossing: Crossing | None = None, rise: Crossing | None = None
    ) -> None:
        self.rule = rule
        self.line = trigger_limit(rule)
        self.least_value = least_value  # 0: no value is a witness
        self.crossing = crossing  # beyond the limit
        self.rise = rise  # above the highest price

    def with_rule(self, rule: Rule, least_value: int) -> "TriggerRule":
        """Return the state for a rule that was read again. Crossings are kept if only the rule's `high` differs."""
        if (rule, least_value) == (self.rule, self.least_value):
            return self
        is_same = replace(rule, high=self.rule.high) == self.rule
        return TriggerRule(rule, least_value, *((self.crossing, self.rise) if is_same else ()))

    def concerns(self, price: int) -> bool:
        """Whether a trade at `price` can change anything. Most trades cannot, and are skipped."""
        if self.crossing is not None or self.rise is not None:
            return True
        if self.rule.kind is StopKind.TAKE_PROFIT:
            return price >= self.line
        return price <= self.line or (self.rule.kind is StopKind.TRAILING and price > self.rule.high)

    def hear(self, trade: StopTrade) -> Verdict:
        """Return the effect of a trade: it triggers the stop, raises its highest price, or None."""
        if trade.price <= 0:
            return None
        if self.rule.kind is StopKind.TRAILING and (high := self._risen(trade)):
            self._move_up(high, trade)
            return NewHigh(high)
        rises = not self.rule.kind.falls
        quoted = trade.bid >= self.line if rises else 0 < trade.ask <= self.line
        self.crossing, proven = self._proven(self.crossing, trade, self.line, rises=rises, quoted=quoted)
        return Fired(trade.price, self.line) if proven else None

    def _risen(self, trade: StopTrade) -> int:
        quoted = trade.bid >= trade.price
        self.rise, high = self._proven(self.rise, trade, self.rule.high + 1, rises=True, quoted=quoted)
        return high

    def _move_up(self, high: int, trade: StopTrade) -> None:
        self.rule = replace(self.rule, high=high)
        self.line, self.crossing = trigger_limit(self.rule), None
        if trade.price <= high:
            self.rise = None

    def _proven(
        self, previous: Crossing | None, trade: StopTrade, line: int, *, rises: bool, quoted: bool
    ) -> tuple[Crossing | None, int]:
        """Return the crossing after a trade, and the price that two witnesses reached; 0 for none yet."""
        if trade.price < line if rises else trade.price > line:
            return None, 0
        restarted = Crossing(trade.at, trade.price, trade.value)
        if trade.counts_alone or quoted or 0 < self.least_value <= trade.value:
            return restarted, trade.price
        if previous is None:
            return restarted, 0
        reached = min(previous.price, trade.price) if rises else max(previous.price, trade.price)
        extended = Crossing(previous.since, reached, previous.value + trade.value)
        if trade.at - previous.since >= WITNESS_SECONDS or 0 < self.least_value <= extended.value:
            return restarted, reached
        return extended, 0


def is_new(qty: int, volume: int, total: int) -> bool:
    """Whether a trade has shares that `total`, the newest running total of the day's shares, does not include yet.

    A duplicate, late or old frame adds nothing to the total.
    """
    return qty > 0 and volume > total


@dataclass(frozen=True, slots=True)
class Hours:
    """The hours, as `HHMMSS`, in which each trade on KRX counts alone; empty on a day without such hours."""

    since: str = ""
    until: str = ""

    def count_alone(self, market: Market, hhmmss: str) -> bool:
        return market is Market.KRX and self.since <= hhmmss < self.until


def hours_of(phases: Iterable[Phase]) -> Hours:
    """Return KRX's hours from its opening uncross to the end of its closing auction."""
    names = (PhaseName.REGULAR, PhaseName.CLOSING_AUCTION)
    krx_phases = [phase for phase in phases if phase.market is Market.KRX and phase.name in names]
    if not krx_phases:
        return Hours()
    end = datetime.combine(date.min, max(phase.ends_at for phase in krx_phases)) + UNCROSS_WITHIN
    return Hours(f"{min(phase.starts_at for phase in krx_phases):%H%M%S}", f"{end:%H%M%S}")


def second_of(hhmmss: str) -> int:
    """Return the second of the day of a time `HHMMSS`."""
    return int(hhmmss[:2]) * 3600 + int(hhmmss[2:4]) * 60 + int(hhmmss[4:6])


def why_invalid(rule: Rule, price: int) -> Denial | None:
    """Return why a rule must not be armed while the stock trades at `price` won, None if it may be armed.

    A rule must be able to fire, and must not fire at once. The denial names the value and what is needed.
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
        template = gettext_noop("the average true range is not known: {days} daily prices are needed (backfill_daily)")
        return Denial(DenialCode.STOP_ATR, template, {"days": ATR_DAYS + 1})
    at = trigger_limit(rule)
    if at <= 0:
        template = gettext_noop("value {value:f}: its limit of {limit:,} won is not a valid price")
        return Denial(DenialCode.STOP_VALUE, template, {"value": rule.value, "limit": at})
    if isinstance(evaluate(rule, price), Fired):
        template = gettext_noop(
            "value {value:f}: with a limit of {limit:,} won it would fire at once, at {price:,} won"
        )
        return Denial(DenialCode.STOP_AT_ONCE, template, {"value": rule.value, "limit": at, "price": price})
    return None


def adjust_for_ratio(value: Decimal, ratio: Decimal) -> Decimal:
    """Return an amount of won adjusted for a split. `ratio` is the new price over the old: 0.2 for one into five."""
    return (value * ratio).quantize(Decimal("0.0001"))


@dataclass(frozen=True, slots=True)
class DayRange:
    """The prices of a day, in won, that the true range needs."""

    high: int
    low: int
    close: int


def average_true_range(days: Sequence[DayRange], count: int = ATR_DAYS) -> Decimal | None:
    """Return the mean true range of the last `count` of `days`, in won; None if there are too few. Oldest day first.

    A day's true range spans its high, its low and the previous close. A day without a trade, whose high and low the
    broker gives as 0, is left out, for example the halted days before a split.
    """
    days = [day for day in days if day.high > 0 and day.low > 0]
    if len(days) <= count:
        return None
    pairs = zip(days[-count - 1 : -1], days[-count:], strict=True)
    spans = [max(day.high, previous.close) - min(day.low, previous.close) for previous, day in pairs]
    return (Decimal(sum(spans)) / count).quantize(Decimal("0.0001"))


def plausible(close_before: int | None, quote: Quote | None = None) -> range:
    """Return the prices, in won, at which a stock may trade on the day after a close at `close_before`.

    A price outside this range is not a fall but a changed number of shares (split, reverse split) that the account does
    not show yet. Without a close every price is plausible, as on a stock's first day. The limits are not rounded to
    ticks, which differ by instrument: a stop must fire at the lowest price of the day. If the base price of the
    broker's `quote` is that close, or that close less a distribution, the quote's limits count too: those of a
    leveraged fund are wider.
    """
    if not close_before:
        return range(1, _NO_END)
    width = -(-close_before * DAILY_LIMIT_PERCENT // 100)
    lowest, highest = max(1, close_before - width), close_before + width
    if quote is not None and abs(quote.base_price - close_before) <= width:
        lowest, highest = min(lowest, quote.lower_limit), max(highest, quote.upper_limit)
    return range(lowest, highest + 1)
