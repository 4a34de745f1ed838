"""Execution quality: what orders cost against the arrival price, and against a market order at arrival.

A gap is positive if it cost money: a buy above its benchmark, a sale below it. The savings table is that
of spec §9.7, with actual results in place of expected ones.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from aegis.broker import Book
from aegis.terms import Instrument, Side
from aegis.ticks import get_tick_size, step

# spec §9.7: four trades a day of a million won, 250 days a year
TRADES_A_DAY = 4
WON_A_TRADE = 1_000_000
DAYS_A_YEAR = 250

_HUNDREDTH = Decimal("0.01")
_BASIS_POINTS = 10_000


@dataclass(frozen=True, slots=True)
class Family:
    """One intent with all its re-orders. Prices and amounts are won, quantities shares.

    `style` is the pricing strategy, or the other way in which the order was priced. `arrival_sweep_price` is the
    average price of a market order for `asked_qty` shares by the book at arrival, None if the book was not read.
    """

    style: str
    side: Side
    instrument: Instrument
    on: date
    asked_qty: int
    filled_qty: int
    filled_amount: int
    arrival_price: int
    arrival_sweep_price: Decimal | None
    fees: int = 0
    tax: int = 0


@dataclass(frozen=True, slots=True)
class Gap:
    """How far an average fill is from a benchmark: ticks and basis points per share, won in total. Positive: a cost."""

    ticks: Decimal
    bp: Decimal
    won: int


@dataclass(frozen=True, slots=True)
class Quality:
    """How well one family was executed. `is_estimated`: the market order's price is assumed to be one tick worse."""

    average: Decimal
    market_price: Decimal
    is_estimated: bool
    against_arrival: Gap
    against_market: Gap


@dataclass(frozen=True, slots=True)
class Savings:
    """A line of the savings table: all families of one style.

    Percentages are of the filled amount at the benchmark, positive if money was saved. `estimated` counts the families
    whose market price is estimated. `yearly_usual_won` is the saving at this rate in a year of the specification's
    trades, `yearly_own_won` the saving of these days extrapolated to a year.
    """

    style: str
    families: int
    filled_families: int
    estimated: int
    fill_pct: Decimal
    turnover_won: int
    fees_won: int
    arrival_pct: Decimal
    market_pct: Decimal
    saved_won: int
    yearly_usual_won: int
    yearly_own_won: int


def book_sweep_price(book: Book, side: Side, qty: int) -> Decimal | None:
    """Return the average price, in won, of a market order of `qty` shares on this book, None if its side is empty.

    Shares beyond the visible levels are priced at the last level: the true average is no better.
    """
    levels = book.asks if side is Side.BUY else book.bids
    if not levels:
        return None
    amount, remaining = 0, qty
    for level in levels:
        filled = min(remaining, level.qty)
        amount, remaining = amount + filled * level.price, remaining - filled
    return Decimal(amount + remaining * levels[-1].price) / qty


def measure(family: Family) -> Quality | None:
    """Return how well a family was executed, None if nothing is filled or the arrival price is not known."""
    if not family.filled_qty or not family.arrival_price:
        return None
    average = Decimal(family.filled_amount) / family.filled_qty
    market_price = family.arrival_sweep_price or _one_tick_worse(family)
    return Quality(
        average=average,
        market_price=market_price,
        is_estimated=family.arrival_sweep_price is None,
        against_arrival=_gap(family, average, Decimal(family.arrival_price)),
        against_market=_gap(family, average, market_price),
    )


def _one_tick_worse(family: Family) -> Decimal:
    """Spec §9.7 assumes that a market order fills one tick beyond the last price."""
    return Decimal(step(family.arrival_price, family.side.sign, family.instrument))


def _gap(family: Family, average: Decimal, benchmark: Decimal) -> Gap:
    gap = (average - benchmark) * family.side.sign + 0  # turns the -0 of a sale at its benchmark into 0
    return Gap(
        ticks=(gap / get_tick_size(family.arrival_price, family.instrument)).quantize(_HUNDREDTH),
        bp=(gap / benchmark * _BASIS_POINTS).quantize(_HUNDREDTH),
        won=round(gap * family.filled_qty),
    )


def savings(families: Iterable[Family], *, trading_days: int) -> Sequence[Savings]:
    """Return the savings table, one line per style, sorted by name, from the families of `trading_days` days."""
    by_style: dict[str, list[Family]] = {}
    for family in families:
        by_style.setdefault(family.style, []).append(family)
    return [_savings(style, by_style[style], trading_days) for style in sorted(by_style)]


def total(families: Sequence[Family], *, trading_days: int) -> Savings:
    """Return the last line of the savings table: the families of all styles."""
    return _savings("", families, trading_days)


def _savings(style: str, families: Sequence[Family], trading_days: int) -> Savings:
    qualities = [(family, quality) for family in families if (quality := measure(family)) is not None]
    at_arrival = sum(family.filled_qty * family.arrival_price for family, _ in qualities)
    at_market = sum((family.filled_qty * quality.market_price for family, quality in qualities), Decimal(0))
    saved_won = -sum(quality.against_market.won for _, quality in qualities)
    market_pct = _percent(saved_won, at_market)
    asked_qty = sum(family.asked_qty for family in families)
    return Savings(
        style=style,
        families=len(families),
        filled_families=len(qualities),
        estimated=sum(quality.is_estimated for _, quality in qualities),
        fill_pct=_percent(sum(family.filled_qty for family in families), Decimal(asked_qty)),
        turnover_won=sum(family.filled_amount for family in families),
        fees_won=sum(family.fees + family.tax for family in families),
        arrival_pct=_percent(-sum(quality.against_arrival.won for _, quality in qualities), Decimal(at_arrival)),
        market_pct=market_pct,
        saved_won=saved_won,
        yearly_usual_won=round(market_pct * TRADES_A_DAY * DAYS_A_YEAR * WON_A_TRADE / 100),
        yearly_own_won=round(Decimal(saved_won) * DAYS_A_YEAR / max(1, trading_days)),
    )


def _percent(part: int, whole: Decimal) -> Decimal:
    """Return `part` in percent of `whole`, with three decimals as in the specification."""
    return (Decimal(part) * 100 / whole).quantize(Decimal("0.001")) if whole else Decimal("0.000")
