"""One day of a customer, in every dialect, on both wires, live and on paper, on every venue that is there."""

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import date, timedelta

import pytest
import websocket

from aegis.broker import Acceptance, Balance, OrderRequest
from aegis.terms import Market, OrderKind, Side
from infra import clock
from kis import catalogue
from kis.auth import approval_key
from kis.codec import Codec, ControlMessage, Data, NoticeKind, registration
from kis.environment import Dialect
from kis.realtime import read_records

from .conftest import ACCOUNT, SAMSUNG, WAYS, Desk, Way

TODAY = date(2026, 11, 23)
# paper trades on KRX alone
EVERYWHERE = [(way, market) for way in WAYS for market in (Market if not way[2] else [Market.KRX])]
LISTEN_SECONDS = 3


def named(case: tuple[Way, Market]) -> str:
    (dialect, wire, is_paper), market = case
    return f"{dialect}-{wire}-{'paper' if is_paper else 'live'}-{market}"


@pytest.fixture(params=EVERYWHERE, ids=named)
def place(request: pytest.FixtureRequest, opened: Callable[[Way], Desk]) -> tuple[Desk, Market]:
    way, market = request.param
    return opened(way), market


def limit(side: Side, qty: int, price: int, market: Market) -> OrderRequest:
    return OrderRequest(SAMSUNG, side, market, OrderKind.LIMIT, qty, price)


def test_quote_and_book_of_every_venue(place: tuple[Desk, Market]) -> None:
    desk, market = place
    quote, book = desk.broker.quote(SAMSUNG, market), desk.broker.book(SAMSUNG, market)
    assert (quote.market, book.market) == (market, market)
    assert quote.lower_limit <= quote.price <= quote.upper_limit
    assert (len(book.asks), len(book.bids)) == (10, 10)
    assert book.bids[0].price < book.asks[0].price


def test_charts_of_every_venue(place: tuple[Desk, Market]) -> None:
    desk, market = place
    newest = desk.broker.minutes(SAMSUNG, market, clock.now())
    assert {minute.at.date() for minute in newest} == {TODAY}
    # NXT's chart begins with the simulator: it holds only what traded there
    assert len(newest) == 30 if market is not Market.NXT else 1 <= len(newest) <= 30
    days = desk.broker.daily_chart(SAMSUNG, TODAY - timedelta(days=300), TODAY - timedelta(days=3))
    assert len(days) == 100, "a page"
    assert days[0].day == date(2026, 11, 20)


def revise(desk: Desk, made: Acceptance, market: Market, price: int) -> str:
    """Amend the whole rest of an order to another price; return the new order's number."""
    body = {
        "CANO": ACCOUNT.cano,
        "ACNT_PRDT_CD": ACCOUNT.product,
        "KRX_FWDG_ORD_ORGNO": made.branch,
        "ORGN_ODNO": made.order_no,
        "ORD_DVSN": "00",
        "RVSE_CNCL_DVSN_CD": "01",
        "ORD_QTY": "0",
        "ORD_UNPR": str(price),
        "QTY_ALL_ORD_YN": "Y",
        "CNDT_PRIC": "",
        "EXCG_ID_DVSN_CD": market.value,
    }
    return desk.client.call(catalogue.REVISE_OR_CANCEL, body, market=market).row().text("ODNO")


def test_an_order_is_placed_revised_cancelled_and_listed(place: tuple[Desk, Market]) -> None:
    desk, market = place
    before = desk.broker.orderable(SAMSUNG, OrderKind.LIMIT, 69_000)
    made = desk.broker.place(limit(Side.BUY, 10, 69_000, market))
    assert before.cash - desk.broker.orderable(SAMSUNG, OrderKind.LIMIT, 69_000).cash == pytest.approx(690_000, abs=1)
    revised = revise(desk, made, market, 68_000)
    (order,) = desk.broker.open_orders()
    assert (order.placed.order_no.lstrip("0"), order.qty) == (revised.strip().lstrip("0"), 10)
    assert order.placed.market is market
    desk.broker.cancel(order.placed)
    assert desk.broker.open_orders() == []
    records = desk.broker.orders(TODAY, TODAY)
    assert [record.market for record in records] == [market] * 3
    assert [(record.price, record.filled_qty, record.open_qty) for record in records[:2]] == [
        (69_000, 0, 0),
        (68_000, 0, 0),
    ]
    assert records[1].original_no == made.order_no
    assert desk.broker.orderable(SAMSUNG, OrderKind.LIMIT, 69_000).cash == before.cash


@pytest.fixture
def listening(place: tuple[Desk, Market]) -> Iterator[tuple[websocket.WebSocket, Codec]]:
    """A session of the broker's socket that holds our own notices."""
    desk, _ = place
    client, codec = desk.client, Codec()
    key = approval_key(client.environment, client.credentials, client._http)
    tr_id = "H0STCNI9" if desk.is_paper else "H0STCNI0"
    with closing(websocket.create_connection(client.environment.socket_url, timeout=LISTEN_SECONDS)) as line:
        line.send(registration(key, tr_id, client.credentials.hts_id, register=True))
        answer = codec.read(str(line.recv()))
        assert isinstance(answer, ControlMessage)
        assert answer.code == "OPSP0000"
        yield line, codec


def next_notice(line: websocket.WebSocket, codec: Codec) -> object:
    while not isinstance(frame := codec.read(str(line.recv())), Data):
        continue
    (notice,) = read_records(frame)
    return notice


def test_every_step_is_told_on_the_socket(
    place: tuple[Desk, Market], listening: tuple[websocket.WebSocket, Codec]
) -> None:
    desk, market = place
    ask = desk.broker.book(SAMSUNG, market).asks[0].price
    made = desk.broker.place(limit(Side.BUY, 1, ask, market))
    accepted, filled = next_notice(*listening), next_notice(*listening)
    assert [accepted.kind, filled.kind] == [NoticeKind.ACCEPTED, NoticeKind.FILLED]
    assert {accepted.order_no, filled.order_no} == {made.order_no}
    assert (filled.account, filled.code, filled.side, filled.qty) == (ACCOUNT.digits, SAMSUNG, Side.BUY, 1)
    (execution,) = desk.ledger()["executions"]
    assert filled.price == execution["price"] <= ask
    assert filled.market is (Market.NXT if market is Market.NXT else filled.market)
    resting = desk.broker.place(limit(Side.BUY, 2, 60_000, market))
    (order,) = desk.broker.open_orders()
    desk.broker.cancel(order.placed)
    told = [next_notice(*listening) for _ in range(2)]
    assert next(notice.kind for notice in told) is NoticeKind.ACCEPTED
    assert told[-1].kind is NoticeKind.CANCELLED
    assert told[-1].original_no == resting.order_no


def portfolio(desk: Desk) -> Balance:
    """Trade on both venues, and return the balance as it then stands."""
    for order in (
        limit(Side.BUY, 10, 70_300, Market.KRX),
        limit(Side.BUY, 5, 70_300, Market.NXT),
        limit(Side.SELL, 3, 69_700, Market.NXT),
        limit(Side.SELL, 1, 69_700, Market.SOR),
    ):
        desk.broker.place(order)
    return replace(desk.broker.balance(), asked_at=clock.now())


@pytest.mark.parametrize("wire", ["2026-07", "2026-09"])
def test_both_dialects_see_the_same_portfolio(opened: Callable[[Way], Desk], clock_at: object, wire: str) -> None:
    balances, ledgers = [], []
    for dialect in Dialect:
        desk = opened((dialect, wire, False))
        balances.append(portfolio(desk))
        ledgers.append(desk.ledger())
    official, users = (replace(balance, asked_at=balances[0].asked_at) for balance in balances)
    assert official == users
    (holding,) = official.holdings
    assert (holding.qty, holding.bought_today, holding.sold_today) == (11, 15, 4)
    assert ledgers[0]["holdings"] == ledgers[1]["holdings"]
