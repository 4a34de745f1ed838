"""What a day's trading has won or lost, against an account that is kept beside it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.daily_loss import DayResult, StockDay, result_of

# a share, N bought or sold at a price, with costs: or moved in and out without a trade
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["buy", "sell", "moved", "cash"]), st.integers(1, 50), st.integers(700, 1300), st.integers(0, 9)
    ),
    max_size=12,
)


@given(held=st.integers(0, 100), steps=STEPS, price=st.integers(700, 1300), base=st.just(1000))
def test_the_result_is_what_an_account_without_transfers_has_won(
    held: int, steps: list[tuple[str, int, int, int]], price: int, base: int
) -> None:
    qty, cash, moved = held, 0, 0
    figures = {"bought_qty": 0, "sold_qty": 0, "paid_won": 0, "received_won": 0}
    for what, shares, at, cost in steps:
        if what == "buy":
            qty, cash = qty + shares, cash - shares * at - cost
            figures["bought_qty"] += shares
            figures["paid_won"] += shares * at + cost
        elif what == "sell":
            qty, cash = qty - shares, cash + shares * at - cost
            figures["sold_qty"] += shares
            figures["received_won"] += shares * at - cost
        elif what == "moved":  # as if they had been there since the morning
            qty, moved = qty + shares, moved + shares * base
    stock = StockDay("005930", qty, price, base, **figures)
    assert stock.result_won == qty * price + cash - held * base - moved


@given(ratio=st.sampled_from([2, 5, 10, 50]), qty=st.integers(1, 100), price=st.integers(900, 1100))
def test_a_split_is_no_result(ratio: int, qty: int, price: int) -> None:
    """The balance may show the old count, or yesterday's price, until the first trade."""
    base = 1000
    assert StockDay("A", qty * ratio, price * ratio, base, is_of_today=False).result_won == 0
    assert StockDay("A", qty, price, base * ratio, is_of_today=False).result_won == 0
    assert StockDay("A", qty * ratio, price, base).result_won == qty * ratio * (price - base)


@pytest.mark.parametrize(
    ("stock", "result"),
    [
        (StockDay("A", 10, 900, None), None),  # held since before today, and nothing to measure it from
        (StockDay("A", 10, 900, None, bought_qty=10, paid_won=10_000), -1000),
        (StockDay("A", 10, 0, 1000), 0),  # no price is no value of nothing
    ],
)
def test_what_cannot_be_known_is_not_guessed(stock: StockDay, result: int | None) -> None:
    assert stock.result_won == result


def test_stocks_that_cannot_be_known_are_named() -> None:
    stocks = [StockDay("A", 10, 900, None), StockDay("B", 10, 900, 1000), StockDay("C", 1, 1100, 1000)]
    assert result_of(stocks) == DayResult(-900, ("A",))
