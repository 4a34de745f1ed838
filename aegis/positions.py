"""What we hold: the broker's last balance, plus the fills it had not counted yet.

A balance and a stream of fills arrive in any order, and either may be late. Each balance line says
how many shares were bought and sold today as far as the broker had counted. So the present position
is that line plus whatever of our own fills goes beyond those two counts: whichever came first, the
same shares are never counted twice and never missed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from decimal import Decimal

from aegis.terms import Side

CENT = Decimal("0.0001")  # the broker prints average prices with four decimals


@dataclass(frozen=True, slots=True)
class Baseline:
    """A balance line as it came: shares, average price, and what the broker had counted on `day`."""

    day: date
    qty: int
    average_price: Decimal
    bought_today: int
    sold_today: int


@dataclass(frozen=True, slots=True)
class Fill:
    """One execution of ours, in the order of time."""

    day: date
    side: Side
    qty: int
    price: Decimal


@dataclass(frozen=True, slots=True)
class Position:
    qty: int
    average_price: Decimal


def after_buy(position: Position, qty: int, price: Decimal) -> Position:
    """Return the position after a buy: the average price weighs in the new shares."""
    total = position.qty + qty
    if total <= 0:
        return Position(total, Decimal(0))
    held = max(position.qty, 0)
    cost = held * position.average_price + qty * price
    return Position(total, (cost / (held + qty)).quantize(CENT))


def after_sale(position: Position, qty: int) -> Position:
    """Return the position after a sale: the average price of what is left does not change."""
    left = position.qty - qty
    return Position(left, position.average_price if left > 0 else Decimal(0))


def realised_profit(average_price: Decimal, qty: int, price: Decimal, cost: int) -> int:
    """Return the profit of a sale in whole won, commission and tax of the sale (`cost`) taken off."""
    return int(qty * (price - average_price)) - cost


def beyond(baseline: Baseline, fills: Iterable[Fill]) -> list[Fill]:
    """Return the part of `fills` that `baseline` had not counted, oldest first.

    Fills of earlier days are in the baseline; fills of later days are not. Of its own day, the first
    `bought_today` and `sold_today` shares are. The broker counting more than we know is no matter here.
    """
    counted = {Side.BUY: baseline.bought_today, Side.SELL: baseline.sold_today}
    uncounted = []
    for fill in fills:
        if fill.day < baseline.day:
            continue
        if fill.day > baseline.day:
            uncounted.append(fill)
            continue
        known = min(counted[fill.side], fill.qty)
        counted[fill.side] -= known
        if fill.qty > known:
            uncounted.append(Fill(fill.day, fill.side, fill.qty - known, fill.price))
    return uncounted


def present(baseline: Baseline, fills: Iterable[Fill]) -> Position:
    """Return what we hold now: `baseline` and every fill beyond it."""
    position = Position(baseline.qty, baseline.average_price)
    for fill in beyond(baseline, fills):
        if fill.side is Side.BUY:
            position = after_buy(position, fill.qty, fill.price)
        else:
            position = after_sale(position, fill.qty)
    return position


def merged(first: Position, second: Position) -> Position:
    """Return two holdings of one share as one: quantities add, the average is weighed. Source: spec §11.5."""
    total = first.qty + second.qty
    if total == 0:
        return Position(0, Decimal(0))
    cost = first.qty * first.average_price + second.qty * second.average_price
    return Position(total, (cost / total).quantize(CENT))
