"""What we hold: the broker's last balance, plus the fills it had not counted yet.

A balance and a stream of fills arrive in any order, and either may be late. Each line of a balance
says how many shares were bought and sold today as far as the broker had counted. We count our own
fills the same way. Only what we have counted beyond the broker changes a position: whichever came
first, the same shares are never counted twice and never missed.
"""

from dataclasses import dataclass, replace
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum

from aegis.broker import Holding
from aegis.sessions import KST, standard_phases
from aegis.terms import Side

CENT = Decimal("0.0001")  # the broker prints average prices with four decimals


class PositionChange(StrEnum):
    """What may change a holding without a trade of the day."""

    SPLIT = "SPLIT"  # 액면분할
    REVERSE_SPLIT = "REVERSE_SPLIT"  # 액면병합, 감자
    BONUS_ISSUE = "BONUS_ISSUE"  # 무상증자, 주식배당
    UNEXPLAINED = "UNEXPLAINED"  # moved in or out, or traded while nobody looked


@dataclass(frozen=True, slots=True)
class Uncounted:
    """Shares of an execution of ours that the newest balance had not counted, and the won they cost or brought."""

    side: Side
    qty: int
    won: int


@dataclass(frozen=True, slots=True)
class PositionCounts:
    """One stock of the portfolio, in shares and won.

    `broker_*` is what the broker had counted as traded on `day` when its balance was last taken over;
    `our_*` what our own executions of that day add up to. `uncounted` are the executions that are not in the
    account's cash yet, oldest first.
    """

    day: date
    qty: int = 0
    average_price: Decimal = Decimal(0)
    broker_bought: int = 0
    broker_sold: int = 0
    our_bought: int = 0
    our_sold: int = 0
    uncounted: tuple[Uncounted, ...] = ()

    @property
    def uncounted_qty(self) -> int:
        """The shares bought less those sold that the newest balance had not counted."""
        return sum(fill.side.sign * fill.qty for fill in self.uncounted)

    @property
    def paid_won(self) -> int:
        """What these shares cost less what they brought, in won: the account's cash does not show it yet."""
        return sum(fill.side.sign * fill.won for fill in self.uncounted)


def position_after_fill(
    line: PositionCounts, day: date, side: Side, qty: int, price: Decimal, *, cost_won: int = 0
) -> PositionCounts:
    """Return `line` after an execution of `qty` shares at `price` won; a negative `qty` takes one back.

    `cost_won` is its commission and tax, negative where it is taken back. A fill of an earlier day is in the balance
    already.
    """
    if day < line.day:
        return line
    if day > line.day:
        line = PositionCounts(day, line.qty, line.average_price, uncounted=line.uncounted)
    if side is Side.BUY:
        beyond = _beyond(line.our_bought, line.broker_bought, qty)
        line = replace(line, our_bought=line.our_bought + qty)
        after = _bought(line, beyond, price)
    else:
        beyond = _beyond(line.our_sold, line.broker_sold, qty)
        line = replace(line, our_sold=line.our_sold + qty)
        after = _sold(line, beyond)
    if not beyond:
        return after
    won = round(beyond * (price + side.sign * Decimal(cost_won) / qty))
    return replace(after, uncounted=(*after.uncounted, Uncounted(side, beyond, won)))


def _beyond(ours: int, brokers: int, qty: int) -> int:
    """Return how many of `qty` more shares the broker had not counted."""
    return max(0, ours + qty - brokers) - max(0, ours - brokers)


def _sold(line: PositionCounts, qty: int) -> PositionCounts:
    left = line.qty - qty
    return replace(line, qty=left, average_price=line.average_price if left > 0 else Decimal(0))


def _bought(line: PositionCounts, qty: int, price: Decimal) -> PositionCounts:
    total = line.qty + qty
    if qty <= 0 or line.qty < 0:
        # shares taken back, or bought against a balance we never saw: the next balance sets the price
        return replace(line, qty=total)
    cost = line.qty * line.average_price + qty * price
    return replace(line, qty=total, average_price=(cost / total).quantize(CENT))


def lags(line: PositionCounts, day: date, bought_today: int, sold_today: int) -> bool:
    """Whether a balance of `day` has not yet counted fills that we know of: it must not overwrite them."""
    return day < line.day or (day == line.day and (bought_today < line.our_bought or sold_today < line.our_sold))


def recounted(line: PositionCounts, day: date, bought_today: int, sold_today: int) -> PositionCounts:
    """Return `line` without the executions that a balance of `day` has counted though it lags. Ask `lags` first.

    The broker counts the oldest first.
    """
    bought, sold = (bought_today, sold_today) if day == line.day else (0, 0)
    left = {Side.BUY: line.our_bought - bought, Side.SELL: line.our_sold - sold}
    kept = list[Uncounted]()
    for fill in reversed(line.uncounted):
        qty = min(fill.qty, max(0, left[fill.side]))
        left[fill.side] -= qty
        if qty:
            kept.insert(0, Uncounted(fill.side, qty, round(Decimal(fill.won) * qty / fill.qty)))
    return replace(line, uncounted=tuple(kept))


def change(line: PositionCounts, day: date, holding: Holding) -> PositionChange | None:
    """Return what happened to a holding besides the trades of `day`, None where they explain it. Ask `lags` first.

    A split or a bonus issue leaves the cost as it was and moves the shares; a whole multiple of them is a split.
    As many shares at the same price are no change: until its morning the broker may count yesterday's trades for
    today's. Trades of a day do not become fewer: shares that go with them are gone without a trade.
    """
    if holding.qty == line.qty and (not line.qty or holding.average_price == line.average_price):
        return None
    bought, sold = _new_trades(line, day, holding)
    if holding.qty == line.qty + bought - sold:
        return None
    # the broker prints four decimals, and drops fractions of a share
    cost, cost_before = holding.qty * holding.average_price, line.qty * line.average_price
    if not cost_before or not holding.qty or abs(cost - cost_before) > max(line.average_price, holding.average_price):
        return PositionChange.UNEXPLAINED
    if holding.qty < line.qty:
        return PositionChange.REVERSE_SPLIT
    return PositionChange.BONUS_ISSUE if holding.qty % line.qty else PositionChange.SPLIT


def is_before_trading(at: datetime) -> bool:
    """Whether no venue trades yet on the day of `at`. On a late opening the earlier hour is the safe one."""
    at = at.astimezone(KST)
    return at.time() < min(phase.starts_at for phase in standard_phases(at.date()))


def position_after_balance(
    line: PositionCounts | None, day: date, holding: Holding, *, is_before_trading: bool = False
) -> PositionCounts:
    """Return the line that a balance of `day` sets. Ask `lags` first.

    Until its morning the broker may count yesterday's trades as today's: then they are not taken for today's, or the
    first fills of the day would seem to be counted already.
    """
    known = line if line is not None and line.day == day else PositionCounts(day)
    bought, sold = holding.bought_today, holding.sold_today
    if is_before_trading:
        bought = sold = 0
    elif line is not None and _counts_of_yesterday(line, day, holding):
        bought, sold = known.broker_bought, known.broker_sold
    return PositionCounts(
        day=day,
        qty=holding.qty,
        average_price=holding.average_price,
        broker_bought=bought,
        broker_sold=sold,
        our_bought=known.our_bought,
        our_sold=known.our_sold,
    )


def _new_trades(line: PositionCounts, day: date, holding: Holding) -> tuple[int, int]:
    """Return how many shares a balance of `day` counts as bought and sold beyond those that `line` has counted."""
    counted = (max(line.our_bought, line.broker_bought), max(line.our_sold, line.broker_sold))
    bought, sold = counted if line.day == day else (0, 0)
    return max(0, holding.bought_today - bought), max(0, holding.sold_today - sold)


def _counts_of_yesterday(line: PositionCounts, day: date, holding: Holding) -> bool:
    """Whether the counts tell of new trades that cannot be today's: the shares are as many as before."""
    bought, sold = _new_trades(line, day, holding)
    return holding.qty == line.qty and bought != sold


def profit_rate_pct(average_price: Decimal, price: int) -> Decimal:
    """Return the unrealised profit in percent, two decimals, as the broker prints it."""
    if not average_price:
        return Decimal("0.00")
    return ((price - average_price) / average_price * 100).quantize(Decimal("0.01"))


def merged_average(first_qty: int, first: Decimal, second_qty: int, second: Decimal) -> Decimal:
    """Return the average price of two holdings of one share as one, weighed by shares. Source: spec §11.5."""
    total = first_qty + second_qty
    return ((first_qty * first + second_qty * second) / total).quantize(CENT) if total else Decimal(0)
