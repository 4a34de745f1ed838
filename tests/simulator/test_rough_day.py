"""Random customers through every phase of a day, the house restarted in between: nothing is made, nothing lost."""

from collections import Counter
from datetime import timedelta
from pathlib import Path
from random import Random

from aegis import ticks
from aegis.terms import Market as Venue
from aegis.terms import OrderKind, Side
from simulator.api.error_codes import RequestRefused
from simulator.broker import Firm, Settings

from .conftest import _OPENED, SAMSUNG, THIN, Market, kst

CUSTOMERS = ("11111111-01", "22222222-01", "33333333-01")


def house(path: Path) -> Firm:
    firm = Firm(Settings(ledger_path=path, codes=frozenset({SAMSUNG, THIN})))
    _OPENED.append(firm.exchange.ledger)
    return firm


def act(market: Market, chance: Random) -> None:
    """Place an order of any kind anywhere, and now and then change one."""
    code, kind = chance.choice((SAMSUNG, THIN)), chance.choice(list(OrderKind))
    price = ticks.step(market.exchange.price(code), chance.randrange(-20, 21))
    market.order(
        chance.choice(list(Side)),
        chance.randrange(1, 800),
        price if kind.is_priced else 0,
        code=code,
        kind=kind,
        venue=chance.choice(list(Venue)),
        account=chance.choice(CUSTOMERS),
        stop=price,
    )
    waiting = market.exchange.world.all_open()
    if waiting and chance.random() < 0.3:
        order = chance.choice(waiting)
        market.change(order, cancel=chance.random() < 0.5, quantity=chance.randrange(3), price=order.price)


def check(market: Market) -> None:
    exchange = market.exchange
    for number, account in exchange.world.accounts.items():
        lines = exchange.world.orders_of(number)
        assert account.cash_d2 == 100_000_000 + sum(-o.side.sign * o.amount - o.fee - o.tax for o in lines)
        assert exchange.orderable_cash(number) >= 0
        shares: Counter[str] = Counter()
        for order in lines:
            shares[order.code] += order.side.sign * order.filled
            assert 0 <= order.filled <= order.quantity
            assert order.remaining >= 0
        for code, quantity in shares.items():
            assert exchange.sellable(number, code) >= 0
            assert quantity == (account.holdings[code].quantity if code in account.holdings else 0)
    for venue in exchange.venues.values():
        bid, ask = venue.book.best(Side.BUY), venue.book.best(Side.SELL)
        assert venue.is_auction or bid is None or ask is None or bid < ask


def test_a_rough_day_adds_up(tmp_path: Path) -> None:
    path, chance = tmp_path / "ledger.jsonl", Random(3)
    market = Market.__new__(Market)
    market.firm, market.now = house(path), kst("2026-11-23 07:55")
    market.exchange = market.firm.exchange
    placed = 0
    while market.now < kst("2026-11-23 20:10"):
        market.now += timedelta(seconds=chance.choice((5, 40, 200)))
        market.firm.advance(market.now)
        for _ in range(5):
            try:
                act(market, chance)
                placed += 1
            except RequestRefused:
                continue
        if chance.random() < 0.01:
            before = [market.ledger(number)["orders"] for number in CUSTOMERS]
            market.exchange.ledger.close()
            market.firm = house(path)
            market.exchange = market.firm.exchange
            market.exchange.take_news()
            market.firm.advance(market.now)
            after = [market.ledger(number)["orders"] for number in CUSTOMERS]
            assert [len(rows) for rows in after] == [len(rows) for rows in before]
        market.exchange.take_news()
        check(market)
    assert placed > 100
