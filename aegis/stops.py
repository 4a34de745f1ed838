"""Which price means sell: stop loss (손절), take profit (익절) and trailing stop (추적 손절) of a holding.

A rule has one limit in whole won. A falling rule fires at or under it, a rising one at or over it: a gap
through the limit fires at the first trade behind it. What fires is a trade that happened, in an auction
too; what an auction only expects, and a price of 0, is nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from enum import StrEnum

from aegis.broker import Quote
from aegis.guards import Reason, gettext_noop
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


def against(rule: Rule, price: int) -> Reason | None:
    """Return why a rule is not to be armed while the stock trades at `price` won, None where it may be.

    It names the value and what would be right: a rule could never fire, or would fire at once.
    """
    if rule.value <= 0:
        return Reason("STOP_VALUE", gettext_noop("value {value:f}: more than 0 is needed"), {"value": rule.value})
    if rule.unit is StopUnit.PRICE and rule.value != int(rule.value):
        return Reason("STOP_VALUE", gettext_noop("value {value:f}: whole won are needed"), {"value": rule.value})
    if rule.unit is StopUnit.ATR and rule.atr <= 0:
        words = gettext_noop("the average true range is not known: {days} daily prices are needed (backfill_daily)")
        return Reason("STOP_ATR", words, {"days": ATR_DAYS + 1})
    at = limit(rule)
    if at <= 0:
        words = gettext_noop("value {value:f}: its limit of {limit:,} won is no price")
        return Reason("STOP_VALUE", words, {"value": rule.value, "limit": at})
    if isinstance(evaluate(rule, price), Fired):
        words = gettext_noop("value {value:f}: with a limit of {limit:,} won it would fire at once, at {price:,} won")
        return Reason("STOP_AT_ONCE", words, {"value": rule.value, "limit": at, "price": price})
    return None


def rebased(value: Decimal, ratio: Decimal) -> Decimal:
    """Return an amount of won as it is after a split: `ratio` is the new price over the old, 0.2 for one into five."""
    return (value * ratio).quantize(Decimal("0.0001"))


@dataclass(frozen=True, slots=True)
class Day:
    """A day's prices in won, as far as the true range needs them."""

    high: int
    low: int
    close: int


def average_true_range(days: Sequence[Day], count: int = ATR_DAYS) -> Decimal | None:
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
