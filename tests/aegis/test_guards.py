from dataclasses import replace
from datetime import datetime

import pytest

from aegis.broker import OrderRequest, Quote
from aegis.guards import Facts, TradingState, reasons
from aegis.sessions import KST, standard_phases
from aegis.terms import Instrument, Market, OrderKind, Side

NOW = datetime(2026, 11, 23, 10, 0, tzinfo=KST)
BUY = OrderRequest("005930", Side.BUY, Market.KRX, OrderKind.LIMIT, 10, 70_000)
SELL = replace(BUY, side=Side.SELL)
QUOTE = Quote("005930", Market.KRX, 70_000, 70_000, 91_000, 49_000, is_halted=False)
GOOD = Facts(
    request=BUY,
    now=NOW,
    state=TradingState.ACTIVE,
    phases=standard_phases(NOW.date()),
    instrument=Instrument.STOCK,
    trades_on_nxt=True,
    quote=QUOTE,
    orderable_cash=10_000_000,
    orderable_qty=140,
    sellable_qty=10,
    cost_won=700_000,
)


def codes(facts: Facts) -> list[str]:
    return [reason.code for reason in reasons(facts)]


def test_nothing_speaks_against_a_good_order() -> None:
    assert codes(GOOD) == []
    assert codes(replace(GOOD, request=SELL)) == []


def test_all_reasons_come_at_once() -> None:
    bad = replace(BUY, qty=0, price=70_050)
    facts = replace(GOOD, request=bad, state=TradingState.HALTED, blacklisted="a utility")
    assert codes(facts) == ["QUANTITY", "HALTED", "BLACKLISTED", "TICK"]


@pytest.mark.parametrize("qty", [0, -1])
def test_a_quantity_must_be_positive(qty: int) -> None:
    assert codes(replace(GOOD, request=replace(BUY, qty=qty))) == ["QUANTITY"]


def test_a_halt_stops_everything_and_reducing_lets_sales_pass() -> None:
    assert codes(replace(GOOD, state=TradingState.HALTED, request=SELL)) == ["HALTED"]
    assert codes(replace(GOOD, state=TradingState.REDUCING)) == ["REDUCING"]
    assert codes(replace(GOOD, state=TradingState.REDUCING, request=SELL)) == []


def test_a_blacklisted_stock_may_be_sold_but_not_bought() -> None:
    assert codes(replace(GOOD, blacklisted="a utility")) == ["BLACKLISTED"]
    assert codes(replace(GOOD, blacklisted="a utility", request=SELL)) == []


def test_a_closed_market_takes_nothing() -> None:
    assert codes(replace(GOOD, phases=())) == ["MARKET_CLOSED"]


def test_a_kind_that_the_phase_does_not_take_is_named() -> None:
    evening = NOW.replace(hour=17)
    assert codes(replace(GOOD, now=evening)) == ["ORDER_KIND"]
    assert codes(replace(GOOD, now=evening, request=replace(BUY, kind=OrderKind.AFTER_LIMIT))) == []
    market_order = replace(BUY, kind=OrderKind.MARKET, price=0)
    assert codes(replace(GOOD, request=market_order)) == []
    assert codes(replace(GOOD, request=replace(market_order, market=Market.NXT))) == ["ORDER_KIND"]


def test_a_stock_that_is_not_on_nxt_cannot_be_sent_there() -> None:
    on_nxt = replace(BUY, market=Market.NXT)
    assert codes(replace(GOOD, request=on_nxt, trades_on_nxt=False)) == ["NOT_ON_NXT"]


def test_a_price_off_the_grid_is_told_its_tick() -> None:
    (reason,) = reasons(replace(GOOD, request=replace(BUY, price=70_050)))
    assert str(reason) == "price 70,050 is not on the grid: the tick there is 100 won"


def test_a_funds_grid_is_its_own() -> None:
    fund = replace(BUY, price=70_005)
    assert codes(replace(GOOD, request=fund, instrument=Instrument.ETF)) == []


@pytest.mark.parametrize(("price", "against"), [(91_000, []), (91_100, ["DAILY_LIMIT"]), (48_950, ["DAILY_LIMIT"])])
def test_a_price_must_lie_within_the_days_limits(price: int, against: list[str]) -> None:
    assert codes(replace(GOOD, request=replace(BUY, price=price))) == against


def test_a_halted_stock_is_not_ordered() -> None:
    assert codes(replace(GOOD, quote=replace(QUOTE, is_halted=True))) == ["STOCK_HALTED"]


@pytest.mark.parametrize(
    ("cash", "qty", "against"),
    [(700_000, 10, []), (699_999, 10, ["CASH"]), (700_000, 9, ["CASH"]), (0, 0, ["CASH"])],
)
def test_cash_must_cover_the_order(cash: int, qty: int, against: list[str]) -> None:
    assert codes(replace(GOOD, orderable_cash=cash, orderable_qty=qty)) == against


@pytest.mark.parametrize(("sellable", "against"), [(10, []), (9, ["SHARES"]), (0, ["SHARES"])])
def test_no_more_is_sold_than_is_free(sellable: int, against: list[str]) -> None:
    assert codes(replace(GOOD, request=SELL, sellable_qty=sellable)) == against
