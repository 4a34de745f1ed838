"""How the steps of a stop's sale are priced: bounded by the current price, down to the last share."""

import math
from dataclasses import replace
from datetime import datetime
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis.broker import Book, Level, Quote
from aegis.pricing import Anchor, Strategy
from aegis.sessions import KST, phases_at, standard_phases
from aegis.stop_sale import (
    ConfirmedPrice,
    SaleMarket,
    SalePlan,
    SaleStep,
    StepKind,
    current_price,
    keeps_its_place,
    next_order,
)
from aegis.terms import Instrument, Market, OrderKind, Side
from aegis.ticks import adjust_price_to_tick, daily_limits, is_on_tick

PLAN = SalePlan(
    Strategy("sell_stop", Side.SELL, Anchor.OPPOSITE, 0), limit_steps=3, step_ticks=1, max_percent=Decimal(3)
)
KRX = frozenset({OrderKind.LIMIT, OrderKind.MARKET})
NXT = frozenset({OrderKind.LIMIT})
NOW = datetime(2026, 11, 23, 17, 0, tzinfo=KST)


def market(
    last: int, bid: int | None, ask: int | None = None, *, base: int = 70_000, legal: frozenset[OrderKind] = KRX,
    believed: int = 0, is_main: bool = True, **words: object,
) -> SaleMarket:  # fmt: skip
    lower, upper = daily_limits(base, Instrument.STOCK)
    quote = Quote("005930", Market.KRX, last, base, upper, lower, is_halted=False)
    book = Book(
        "005930", Market.KRX, (Level(ask, 10),) if ask else (), (Level(bid, 10),) if bid else (),
        expected_price=int(words.pop("expected", 0)),  # type: ignore[call-overload]
    )  # fmt: skip
    current = current_price(quote, book, believed, is_main_session=is_main)
    return SaleMarket(quote, book, current, legal, Instrument.STOCK, **words)  # type: ignore[arg-type]


on_grid = st.integers(49_000, 91_000).map(lambda price: adjust_price_to_tick(price, "down", Instrument.STOCK))


@given(
    last=on_grid, bid=st.none() | on_grid, ask=st.none() | on_grid, step=st.integers(0, 9),
    legal=st.sampled_from([KRX, NXT]), is_auction=st.booleans(), is_locked=st.booleans(),
)  # fmt: skip
def test_no_limit_lies_more_than_three_percent_below_the_current_price_but_a_locked_one(
    last: int, bid: int | None, ask: int | None, step: int, legal: frozenset[OrderKind], is_auction: bool,
    is_locked: bool,
) -> None:  # fmt: skip
    seen = market(last, bid, ask, legal=legal, is_auction=is_auction, is_locked=is_locked)
    order = next_order(step, PLAN, seen)
    assert order is not None, "there is always an order where a limit or a market order is taken"
    if order.kind.is_market:
        assert OrderKind.MARKET in legal
        assert is_auction or step >= PLAN.limit_steps
        return
    assert seen.quote.lower_limit <= order.price <= seen.quote.upper_limit
    assert is_on_tick(order.price, Instrument.STOCK)
    if order.step is StepKind.LOWER_LIMIT:
        assert (bid, order.price) == (None, seen.quote.lower_limit)
        assert seen.quote.lower_limit in (last, ask)
    else:
        assert order.price >= min(math.ceil(last * 0.97), last)


@given(last=on_grid, ask=on_grid, bid=on_grid, believed=on_grid)
def test_outside_the_main_session_a_last_trade_counts_as_far_as_the_book_confirms_it(
    last: int, ask: int, bid: int, believed: int
) -> None:
    seen = market(last, bid, ask, believed=believed, is_main=False)
    assert min(last, believed) <= seen.current <= max(last, believed)
    if last <= believed and ask <= last:
        assert seen.current == last, "shares are offered there: it fell that far"
    if last >= believed and bid >= last:
        assert seen.current == last, "shares are wanted there: it rose that far"


@given(st.lists(st.tuples(on_grid, st.integers(0, 3)), max_size=8), on_grid)
def test_a_believed_price_was_reached_by_two_trades_or_triggered(trades: list[tuple[int, int]], trigger: int) -> None:
    believed, volume = ConfirmedPrice(trigger), 0
    for number, (price, qty) in enumerate(trades):
        volume += qty
        quote = replace(market(price, None).quote, volume=volume)
        believed = believed.after(quote, number * 2.0)
        reached = [trigger, *(p for p, q in trades[: number + 1] if q or number == 0)]
        assert min(reached) <= believed.price <= max(reached)


def test_one_trade_at_the_lower_limit_sets_no_price_on_nxt_and_a_real_fall_does() -> None:
    thin = market(49_000, 49_000, 66_100, believed=66_000, is_main=False, legal=NXT)
    assert (thin.current, next_order(5, PLAN, thin)) == (66_000, SaleStep(StepKind.MARKET, OrderKind.LIMIT, 64_100))
    real = market(60_000, 59_900, 60_100, believed=66_000, is_main=False, legal=NXT)
    assert (real.current, next_order(5, PLAN, real)) == (60_100, SaleStep(StepKind.MARKET, OrderKind.LIMIT, 59_900))


@pytest.mark.parametrize(
    ("step", "order"),
    [
        (0, SaleStep(StepKind.LIMIT, OrderKind.LIMIT, 69_900)),
        (1, SaleStep(StepKind.LIMIT, OrderKind.LIMIT, 69_800)),
        (2, SaleStep(StepKind.LIMIT, OrderKind.LIMIT, 69_700)),
        (3, SaleStep(StepKind.MARKET, OrderKind.MARKET, 0)),
        (9, SaleStep(StepKind.MARKET, OrderKind.MARKET, 0)),
    ],
)
def test_limits_come_first_each_a_tick_nearer_then_the_market(step: int, order: SaleStep) -> None:
    assert next_order(step, PLAN, market(70_000, 69_900, 70_000)) == order


def test_in_an_auction_without_market_orders_it_is_three_percent_below_the_expected_price() -> None:
    seen = market(70_000, None, None, legal=NXT, is_auction=True, expected=60_000)
    assert next_order(0, PLAN, seen) == SaleStep(StepKind.AUCTION, OrderKind.LIMIT, 58_200)


def test_nothing_is_ordered_where_neither_limit_nor_market_is_taken() -> None:
    assert next_order(0, PLAN, market(70_000, 69_900, legal=frozenset({OrderKind("06")}))) is None


def test_after_hours_on_krx_its_own_limit_is_used() -> None:
    (evening,) = phases_at(standard_phases(NOW.date()), Market.KRX, NOW)
    order = next_order(3, PLAN, market(70_000, 69_900, legal=evening.kinds))
    assert order == SaleStep(StepKind.MARKET, OrderKind.AFTER_LIMIT, 69_900)


def test_the_place_in_the_queue_is_kept_where_the_next_step_would_not_sell_sooner() -> None:
    limit = SaleStep(StepKind.LIMIT, OrderKind.LIMIT, 49_000)
    at_market = SaleStep(StepKind.MARKET, OrderKind.MARKET, 0)
    assert keeps_its_place(limit, limit, has_bids=False)
    assert not keeps_its_place(SaleStep(StepKind.LIMIT, OrderKind.LIMIT, 50_000), limit, has_bids=False)
    assert not keeps_its_place(limit, at_market, has_bids=True)
    assert keeps_its_place(at_market, at_market, has_bids=False)
    assert not keeps_its_place(at_market, limit, has_bids=True), "what rests of it has become a limit"
