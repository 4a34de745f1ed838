"""Whatever customers do, nothing is made and nothing is lost."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from aegis.terms import OrderKind, Side
from simulator.api.error_codes import RequestRefused

from .conftest import ACCOUNT, OTHER, SAMSUNG, Market

actions = st.lists(
    st.one_of(
        st.tuples(
            st.just("order"),
            st.sampled_from(list(Side)),
            st.integers(1, 1_300),
            st.integers(-8, 8),
            st.sampled_from(
                [OrderKind.LIMIT, OrderKind.MARKET, OrderKind.LIMIT_IOC, OrderKind.LIMIT_FOK, OrderKind.MID]
            ),
            st.sampled_from([ACCOUNT, OTHER]),
        ),
        st.tuples(st.just("cancel"), st.integers(0, 10), st.integers(0, 50)),
        st.tuples(st.just("amend"), st.integers(0, 10), st.integers(-5, 5)),
        st.tuples(st.just("step"), st.integers(1, 5)),
        st.tuples(st.just("price"), st.integers(-10, 10)),
    ),
    max_size=25,
)


def act(market: Market, action: tuple[Any, ...]) -> None:
    last = market.exchange.price(SAMSUNG) // 100 * 100
    match action:
        case ("order", side, quantity, offset, kind, account):
            price = 0 if kind in (OrderKind.MARKET, OrderKind.MID) else last + offset * 100
            market.order(side, quantity, price, kind=kind, account=account)
        case ("cancel", index, quantity):
            market.cancel(market.exchange.world.all_open()[index], quantity)
        case ("amend", index, offset):
            order = market.exchange.world.all_open()[index]
            market.amend(order, 0 if order.kind in (OrderKind.MARKET, OrderKind.MID) else last + offset * 100)
        case ("step", count):
            market.step(count)
        case ("price", offset):
            market.price_to(last + offset * 100)


def check(market: Market) -> None:
    world = market.exchange.world
    bid, ask = market.book().best(Side.BUY), market.book().best(Side.SELL)
    assert bid is None or ask is None or bid < ask
    for order in world.orders.values():
        assert 0 <= order.filled <= order.quantity
        assert order.remaining >= 0
        fills = [f for f in world.executions.get(order.account, ()) if f.number == order.number]
        assert order.filled == sum(fill.quantity for fill in fills)
        assert order.amount == sum(fill.quantity * fill.price for fill in fills)
    for number, account in world.accounts.items():
        orders = [order for order in world.orders.values() if order.account == number]
        flow = sum(-order.side.sign * order.amount - order.fee - order.tax for order in orders)
        assert account.cash_d2 == 100_000_000 + flow
        shares = sum(order.side.sign * order.filled for order in orders)
        held = sum(holding.quantity for holding in account.holdings.values())
        assert held == shares >= 0
        assert market.exchange.orderable_cash(number) >= 0
        assert market.exchange.sellable(number, SAMSUNG) >= 0
        assert account.deposit == 100_000_000


@settings(max_examples=300, deadline=None)
@given(actions)
def test_cash_and_shares_are_conserved(steps: list[tuple[Any, ...]]) -> None:
    market = Market("2026-11-23 09:00:01")
    for action in steps:
        try:
            act(market, action)
        except (RequestRefused, IndexError):
            continue
        check(market)


@settings(max_examples=60, deadline=None)
@given(actions)
def test_the_ledger_alone_makes_the_same_world(steps: list[tuple[Any, ...]]) -> None:
    market = Market("2026-11-23 09:00:01")
    for action in steps:
        try:
            act(market, action)
        except (RequestRefused, IndexError):
            continue
    again = type(market.exchange.world)()
    for event in market.exchange.ledger.events():
        again.apply(event)
    world = market.exchange.world
    assert again.accounts == world.accounts
    assert again.orders == world.orders
    assert again.executions == world.executions
    assert again.next_number == world.next_number
    assert {o.number for o in again.all_open()} == {o.number for o in world.all_open()}
