from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.broker import Holding
from aegis.positions import (
    PositionChange,
    PositionCounts,
    change,
    is_before_trading,
    lags,
    merged_average,
    position_after_balance,
    position_after_fill,
    profit_rate_pct,
    without_counted,
)
from aegis.sessions import KST
from aegis.terms import Side

DAY = date(2026, 11, 23)


def holding(qty: int, average: str = "1000", bought: int = 0, sold: int = 0) -> Holding:
    return Holding("005930", "삼성전자", qty, qty, Decimal(average), 1_000, 0, Decimal(0), bought, sold)


def buy(line: PositionCounts, qty: int, price: int, day: date = DAY) -> PositionCounts:
    return position_after_fill(line, day, Side.BUY, qty, Decimal(price))


def sell(line: PositionCounts, qty: int, price: int, day: date = DAY) -> PositionCounts:
    return position_after_fill(line, day, Side.SELL, qty, Decimal(price))


def test_buys_weigh_into_the_average_and_sales_leave_it() -> None:
    line = buy(buy(PositionCounts(DAY), 10, 1_000), 5, 1_300)
    assert (line.qty, line.average_price) == (15, Decimal("1100.0000"))
    line = sell(line, 6, 2_000)
    assert (line.qty, line.average_price) == (9, Decimal("1100.0000"))


def test_selling_everything_leaves_nothing_to_average() -> None:
    line = sell(buy(PositionCounts(DAY), 10, 1_000), 10, 1_100)
    assert (line.qty, line.average_price) == (0, Decimal(0))


def test_a_fill_that_the_balance_had_counted_is_not_counted_again() -> None:
    line = position_after_balance(None, DAY, holding(10, bought=10))
    assert buy(line, 10, 1_000).qty == 10


def test_a_fill_that_the_balance_had_counted_in_part_adds_the_rest() -> None:
    line = position_after_balance(None, DAY, holding(4, bought=4))
    assert buy(line, 10, 1_000).qty == 10


def test_a_balance_that_has_not_counted_our_fill_lags() -> None:
    line = buy(PositionCounts(DAY), 10, 1_000)
    assert lags(line, DAY, bought_today=0, sold_today=0)
    assert not lags(line, DAY, bought_today=10, sold_today=0)


def test_a_balance_of_the_day_before_lags() -> None:
    assert lags(PositionCounts(DAY), DAY - timedelta(days=1), bought_today=5, sold_today=5)


def test_a_fill_of_yesterday_is_in_todays_balance_already() -> None:
    line = position_after_balance(None, DAY, holding(10))
    assert buy(line, 5, 1_000, day=DAY - timedelta(days=1)) == line


def test_a_new_day_counts_from_zero() -> None:
    line = position_after_balance(None, DAY, holding(10, bought=10))
    assert buy(line, 5, 1_000, day=DAY + timedelta(days=1)).qty == 15


def test_a_fill_taken_back_leaves_the_quantity_as_before() -> None:
    line = position_after_balance(None, DAY, holding(10))
    assert buy(buy(line, 5, 1_200), -5, 1_200).qty == 10
    assert sell(sell(line, 5, 1_200), -5, 1_200).qty == 10


def test_profit_rate_has_two_decimals_as_the_broker_prints_it() -> None:
    assert profit_rate_pct(Decimal(52_000), 53_000) == Decimal("1.92")
    assert profit_rate_pct(Decimal(0), 53_000) == Decimal("0.00")


def test_two_holdings_of_one_share_become_one() -> None:
    assert merged_average(10, Decimal(1_000), 30, Decimal(2_000)) == Decimal("1750.0000")
    assert merged_average(0, Decimal(0), 0, Decimal(0)) == 0


fills = st.lists(st.tuples(st.sampled_from(Side), st.integers(min_value=1, max_value=50)), min_size=1, max_size=12)


@given(fills, st.integers(min_value=0, max_value=12), st.integers(min_value=0, max_value=12), st.data())
def test_balances_and_fills_may_come_in_any_order(trades, counted_by_broker, known_to_us, data) -> None:
    """Whatever the broker had counted when asked, and whatever we heard before and after, the end is the same."""
    start = 1_000
    counted = trades[:counted_by_broker]
    bought = sum(qty for side, qty in counted if side is Side.BUY)
    sold = sum(qty for side, qty in counted if side is Side.SELL)
    balance = holding(start + bought - sold, bought=bought, sold=sold)

    line = position_after_balance(None, DAY, holding(start))
    heard = data.draw(st.permutations(trades))
    for n, (side, qty) in enumerate(heard):
        if n == known_to_us and not lags(line, DAY, bought, sold):
            line = position_after_balance(line, DAY, balance)
        line = position_after_fill(line, DAY, side, qty, Decimal(1_000))
    assert line.qty == start + sum(side.sign * qty for side, qty in trades)


HELD = PositionCounts(DAY - timedelta(days=3), qty=10, average_price=Decimal("70000"))


@pytest.mark.parametrize(
    ("qty", "average", "bought", "sold", "kind"),
    [
        (10, "70000", 0, 0, None),
        (50, "14000", 0, 0, PositionChange.SPLIT),
        (12, "58333.3333", 0, 0, PositionChange.BONUS_ISSUE),
        (2, "350000", 0, 0, PositionChange.REVERSE_SPLIT),
        (15, "70000", 0, 0, PositionChange.UNEXPLAINED),
        (15, "70000", 5, 0, None),
        (6, "70000", 0, 4, None),
        (0, "0", 0, 0, PositionChange.UNEXPLAINED),
    ],
)
def test_what_no_trade_explains_is_recognised(
    qty: int, average: str, bought: int, sold: int, kind: PositionChange | None
) -> None:
    assert change(HELD, DAY, holding(qty, average, bought, sold)) == kind


def test_a_single_share_that_vanishes_is_no_reverse_split() -> None:
    assert change(replace(HELD, qty=1), DAY, holding(0, "0", 0, 0)) is PositionChange.UNEXPLAINED


def test_trades_counted_before_are_not_counted_as_a_change() -> None:
    assert change(buy(HELD, 5, 70_000), DAY, holding(15, "70000", bought=5)) is None


def test_shares_that_go_with_todays_trades_in_one_balance_are_gone_without_a_trade() -> None:
    line = position_after_balance(None, DAY, holding(10, "70000", bought=10))
    assert change(line, DAY, holding(0, "0")) is PositionChange.UNEXPLAINED


@pytest.mark.parametrize("qty", [10, 0])
def test_yesterdays_trades_that_the_broker_still_counts_after_midnight_are_no_split(qty: int) -> None:
    evening = position_after_balance(None, DAY, holding(qty, "70000", bought=10, sold=10 - qty))
    night = holding(qty, "70000", bought=10, sold=10 - qty)
    assert change(evening, DAY + timedelta(days=1), night) is None
    kept = position_after_balance(evening, DAY + timedelta(days=1), night)
    assert change(kept, kept.day, holding(qty, "70000")) is None


priced = st.lists(
    st.tuples(st.sampled_from(Side), st.integers(1, 50), st.integers(900, 1_100)), min_size=1, max_size=12
)


@given(priced, st.data())
def test_cash_of_a_balance_less_what_we_paid_since_is_the_cash_after_every_fill(trades, data) -> None:
    """We hear of the trades in order; in between come balances that had counted fewer of them, or more."""
    line, cash, least = position_after_balance(None, DAY, holding(1_000)), 0, 0
    for heard in range(len(trades) + 1):
        if heard:
            line = position_after_fill(line, DAY, trades[heard - 1][0], *trades[heard - 1][1:])
        if data.draw(st.booleans()):
            counted = trades[: data.draw(st.integers(least, len(trades)))]
            bought = sum(qty for side, qty, _ in counted if side is Side.BUY)
            sold = sum(qty for side, qty, _ in counted if side is Side.SELL)
            is_late = lags(line, DAY, bought, sold)
            if is_late and len(counted) > heard:
                continue  # one side late and the other early: the next balance settles it
            cash, least = -sum(side.sign * qty * price for side, qty, price in counted), len(counted)
            if is_late:
                line = without_counted(line, DAY, bought, sold)
            else:
                line = position_after_balance(line, DAY, holding(1_000 + bought - sold, bought=bought, sold=sold))
    assert cash - line.paid_won == -sum(side.sign * qty * price for side, qty, price in trades)


def test_the_commission_of_a_fill_counted_in_part_is_counted_in_part() -> None:
    line = position_after_balance(None, DAY, holding(4, bought=4))
    line = position_after_fill(line, DAY, Side.BUY, 10, Decimal(1_000), cost_won=100)
    assert (line.uncounted_qty, line.paid_won) == (6, 6_060)


def test_fills_of_yesterday_wait_for_a_balance_over_midnight() -> None:
    line = buy(buy(PositionCounts(DAY, 10), 5, 1_000), 2, 1_100, day=DAY + timedelta(days=1))
    assert line.paid_won == 7_200
    late = without_counted(line, DAY, bought_today=5, sold_today=0)
    assert late.paid_won == 2_200, "a balance of yesterday's end has counted yesterday's"


@pytest.mark.parametrize(("bought", "sold"), [(10, 0), (0, 10), (10, 10)])
def test_a_fill_of_the_morning_counts_though_the_nights_balance_told_yesterdays_trades_as_todays(
    bought: int, sold: int
) -> None:
    night = position_after_balance(None, DAY, holding(10, bought=bought, sold=sold), is_before_trading=True)
    assert buy(night, 10, 1_000).qty == 20
    assert sell(night, 10, 1_000).qty == 0


@pytest.mark.parametrize(("bought", "sold"), [(10, 0), (0, 10), (12, 7)])
def test_counts_that_changed_no_share_since_yesterday_are_yesterdays_even_after_the_opening(
    bought: int, sold: int
) -> None:
    evening = position_after_balance(None, DAY, holding(10, bought=bought, sold=sold))
    morning = position_after_balance(evening, DAY + timedelta(days=1), holding(10, bought=bought, sold=sold))
    assert buy(morning, 10, 1_000, day=morning.day).qty == 20
    again = position_after_balance(morning, morning.day, holding(10, bought=bought, sold=sold))
    assert buy(again, 10, 1_000, day=morning.day).qty == 20


def test_counts_that_explain_the_shares_are_todays() -> None:
    evening = position_after_balance(None, DAY, holding(10))
    morning = position_after_balance(evening, DAY + timedelta(days=1), holding(20, bought=10))
    assert buy(morning, 10, 1_000, day=morning.day).qty == 20


@pytest.mark.parametrize(
    ("moment", "is_before"),
    [((0, 10), True), ((7, 59), True), ((8, 0), False), ((15, 0), False), ((23, 59), False)],
)
def test_nothing_trades_before_the_first_phase_of_the_day(moment: tuple[int, int], is_before: bool) -> None:
    assert is_before_trading(datetime(2026, 11, 23, *moment, tzinfo=KST)) is is_before
