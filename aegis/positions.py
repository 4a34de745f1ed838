"""Positions: the broker's last balance, plus our fills that the balance does not include yet.

Balances and fills arrive in any order, and either may be late. Each line of a balance has the shares
bought and sold today that the broker has counted so far. We count our own fills in the same way, and
only shares that we have counted beyond the broker change a position. So no share is counted twice or
missed, whichever arrives first.
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
    """A change of a holding without a trade of the day."""

    SPLIT = "SPLIT"  # 액면분할
    REVERSE_SPLIT = "REVERSE_SPLIT"  # 액면병합, 감자
    BONUS_ISSUE = "BONUS_ISSUE"  # 무상증자, 주식배당
    UNEXPLAINED = "UNEXPLAINED"  # shares moved in or out, or trades that we did not see


@dataclass(frozen=True, slots=True)
class UncountedFill:
    """Shares of an execution of ours that the newest balance had not counted, and their cost or proceeds in won."""

    side: Side
    qty: int
    won: int


@dataclass(frozen=True, slots=True)
class PositionCounts:
    """One stock of the portfolio, in shares and won.

    `broker_*` are the shares that the broker had counted as traded on `day` in the last accepted balance; `our_*` are
    the sums of our own executions of that day. `uncounted` are the executions that are not in the account's cash yet,
    oldest first.
    """

    day: date
    qty: int = 0
    average_price: Decimal = Decimal(0)
    broker_bought: int = 0
    broker_sold: int = 0
    our_bought: int = 0
    our_sold: int = 0
    uncounted: tuple[UncountedFill, ...] = ()

    @property
    def uncounted_qty(self) -> int:
        """Shares bought minus shares sold that the newest balance had not counted."""
        return sum(fill.side.sign * fill.qty for fill in self.uncounted)

    @property
    def paid_won(self) -> int:
        """Cost minus proceeds of these shares, in won: the account's cash does not include it yet."""
        return sum(fill.side.sign * fill.won for fill in self.uncounted)


def position_after_fill(
    line: PositionCounts, day: date, side: Side, qty: int, price: Decimal, *, cost_won: int = 0
) -> PositionCounts:
    """Return `line` after an execution of `qty` shares at `price` won; a negative `qty` takes an execution back.

    `cost_won` is its commission and tax, negative if it is taken back. A fill of an earlier day is already in the
    balance and changes nothing.
    """
    if day < line.day:
        return line
    if day > line.day:
        line = PositionCounts(day, line.qty, line.average_price, uncounted=line.uncounted)
    if side is Side.BUY:
        uncounted_qty = _beyond(line.our_bought, line.broker_bought, qty)
        line = replace(line, our_bought=line.our_bought + qty)
        after = _bought(line, uncounted_qty, price)
    else:
        uncounted_qty = _beyond(line.our_sold, line.broker_sold, qty)
        line = replace(line, our_sold=line.our_sold + qty)
        after = _sold(line, uncounted_qty)
    if not uncounted_qty:
        return after
    won = round(uncounted_qty * (price + side.sign * Decimal(cost_won) / qty))
    return replace(after, uncounted=(*after.uncounted, UncountedFill(side, uncounted_qty, won)))


def _beyond(ours: int, brokers: int, qty: int) -> int:
    """Return how many of `qty` further shares the broker had not counted."""
    return max(0, ours + qty - brokers) - max(0, ours - brokers)


def _sold(line: PositionCounts, qty: int) -> PositionCounts:
    remaining = line.qty - qty
    return replace(line, qty=remaining, average_price=line.average_price if remaining > 0 else Decimal(0))


def _bought(line: PositionCounts, qty: int, price: Decimal) -> PositionCounts:
    total = line.qty + qty
    if qty <= 0 or line.qty < 0:
        # shares taken back, or bought into a position that we do not know: the next balance sets the price
        return replace(line, qty=total)
    cost = line.qty * line.average_price + qty * price
    return replace(line, qty=total, average_price=(cost / total).quantize(CENT))


def lags(line: PositionCounts, day: date, bought_today: int, sold_today: int) -> bool:
    """Whether a balance of `day` has not yet counted fills that we know: it must not overwrite them."""
    return day < line.day or (day == line.day and (bought_today < line.our_bought or sold_today < line.our_sold))


def without_counted(line: PositionCounts, day: date, bought_today: int, sold_today: int) -> PositionCounts:
    """Return `line` without the executions that a lagging balance of `day` has counted. Check `lags` first.

    The broker counts the oldest executions first.
    """
    bought, sold = (bought_today, sold_today) if day == line.day else (0, 0)
    uncounted_by_side = {Side.BUY: line.our_bought - bought, Side.SELL: line.our_sold - sold}
    still_uncounted = list[UncountedFill]()
    for fill in reversed(line.uncounted):
        qty = min(fill.qty, max(0, uncounted_by_side[fill.side]))
        uncounted_by_side[fill.side] -= qty
        if qty:
            still_uncounted.insert(0, UncountedFill(fill.side, qty, round(Decimal(fill.won) * qty / fill.qty)))
    return replace(line, uncounted=tuple(still_uncounted))


def change(line: PositionCounts, day: date, holding: Holding) -> PositionChange | None:
    """Return the change of a holding that the trades of `day` do not explain, None if there is none.

    Check `lags` first.
    A split or a bonus issue keeps the cost and changes the shares; a whole multiple of the shares is a split. The same
    quantity and average price mean no change: before its day roll the broker may still count yesterday's trades as
    today's. The trades of a day never decrease: shares that disappear with them left without a trade.
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
    """Whether no venue trades yet on the day of `at`. A late opening is ignored, to be safe."""
    at = at.astimezone(KST)
    return at.time() < min(phase.starts_at for phase in standard_phases(at.date()))


def position_after_balance(
    line: PositionCounts | None, day: date, holding: Holding, *, is_before_trading: bool = False
) -> PositionCounts:
    """Return the line that a balance of `day` sets. Check `lags` first.

    Before its day roll the broker may count yesterday's trades as today's. Such counts are not used: otherwise the
    first fills of the day would seem to be counted already.
    """
    counts = line if line is not None and line.day == day else PositionCounts(day)
    bought, sold = holding.bought_today, holding.sold_today
    if is_before_trading:
        bought = sold = 0
    elif line is not None and _counts_of_yesterday(line, day, holding):
        bought, sold = counts.broker_bought, counts.broker_sold
    return PositionCounts(
        day=day,
        qty=holding.qty,
        average_price=holding.average_price,
        broker_bought=bought,
        broker_sold=sold,
        our_bought=counts.our_bought,
        our_sold=counts.our_sold,
    )


def _new_trades(line: PositionCounts, day: date, holding: Holding) -> tuple[int, int]:
    """Return the shares bought and sold that a balance of `day` counts beyond those that `line` has counted."""
    counted = (max(line.our_bought, line.broker_bought), max(line.our_sold, line.broker_sold))
    bought, sold = counted if line.day == day else (0, 0)
    return max(0, holding.bought_today - bought), max(0, holding.sold_today - sold)


def _counts_of_yesterday(line: PositionCounts, day: date, holding: Holding) -> bool:
    """Whether the balance counts new trades that cannot be of today: the quantity is unchanged."""
    bought, sold = _new_trades(line, day, holding)
    return holding.qty == line.qty and bought != sold


def profit_rate_pct(average_price: Decimal, price: int) -> Decimal:
    """Return the unrealised profit in percent, with two decimals as the broker prints it."""
    if not average_price:
        return Decimal("0.00")
    return ((price - average_price) / average_price * 100).quantize(Decimal("0.01"))


def merged_average(first_qty: int, first: Decimal, second_qty: int, second: Decimal) -> Decimal:
    """Return the average price, in won, of two holdings of one stock, weighted by shares. Source: spec §11.5."""
    total = first_qty + second_qty
    return ((first_qty * first + second_qty * second) / total).quantize(CENT) if total else Decimal(0)
