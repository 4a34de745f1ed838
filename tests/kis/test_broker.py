"""The port, kept by the real client in both dialects, live and on paper, against the simulator."""

from datetime import date
from decimal import Decimal

import pytest

from aegis.broker import Balance, BrokerOrderRef, NotSent, OrderRequest, Refused
from aegis.terms import Board, Instrument, Market, OrderKind, Side
from infra import clock

from .conftest import SAMSUNG, Desk

TODAY = date(2026, 11, 23)


def limit(side: Side, qty: int, price: int, market: Market = Market.KRX) -> OrderRequest:
    return OrderRequest(SAMSUNG, side, market, OrderKind.LIMIT, qty, price)


def test_a_quote_has_a_price_within_its_limits(desk: Desk) -> None:
    quote = desk.broker.quote(SAMSUNG, Market.KRX)
    assert quote.price == 70_000
    assert quote.lower_limit < quote.base_price < quote.upper_limit
    assert not quote.is_halted
    assert quote.tick == 100


def test_a_book_has_ten_levels_best_first(desk: Desk) -> None:
    book = desk.broker.book(SAMSUNG, Market.KRX)
    assert len(book.asks) == len(book.bids) == 10
    assert [level.price for level in book.asks] == sorted(level.price for level in book.asks)
    assert book.bids[0].price < book.asks[0].price


def test_a_stock_is_known_by_name_board_and_kind(desk: Desk) -> None:
    samsung = desk.broker.stock(SAMSUNG)
    assert (samsung.code, samsung.name, samsung.board) == (SAMSUNG, "삼성전자", Board.KOSPI)
    assert samsung.trades_on_nxt is not desk.is_paper
    fund = desk.broker.stock("069500")
    assert (fund.name, fund.instrument) == ("KODEX 200", Instrument.ETF)


def test_an_unknown_stock_is_refused(desk: Desk) -> None:
    with pytest.raises(Refused):
        desk.broker.stock("999999")
    with pytest.raises(Refused):
        desk.broker.quote("999999", Market.KRX)


def test_a_buy_goes_from_order_to_balance(desk: Desk) -> None:
    acceptance = desk.broker.place(limit(Side.BUY, 10, 70_100))
    (record,) = desk.broker.orders(TODAY, TODAY)
    assert (record.order_no, record.branch) == (acceptance.order_no, acceptance.branch)
    assert (record.filled_qty, record.open_qty, record.qty) == (10, 0, 10)
    assert record.filled_amount == sum(each["quantity"] * each["price"] for each in desk.ledger()["executions"])
    (holding,) = desk.broker.balance().holdings
    assert (holding.code, holding.qty, holding.bought_today, holding.sold_today) == (SAMSUNG, 10, 10, 0)
    assert holding.average_price == Decimal(desk.ledger()["holdings"][0]["average_price"])


def test_the_balance_is_the_ledgers_in_every_dialect(desk: Desk) -> None:
    desk.broker.place(limit(Side.BUY, 10, 70_100))
    desk.broker.place(limit(Side.SELL, 4, 69_900))
    balance, ledger = desk.broker.balance(), desk.ledger()
    assert isinstance(balance, Balance)
    cash = ledger["cash"]
    assert (balance.deposit, balance.deposit_d1, balance.deposit_d2) == (cash["deposit"], cash["d1"], cash["d2"])
    assert balance.total_asset == cash["total_asset"]
    assert [(each.code, each.qty) for each in balance.holdings] == [(SAMSUNG, 6)]


def test_a_resting_order_can_be_found_and_cancelled(desk: Desk) -> None:
    acceptance = desk.broker.place(limit(Side.BUY, 10, 69_000))
    (order,) = desk.broker.open_orders()
    assert (order.placed.order_no, order.code, order.side, order.qty) == (acceptance.order_no, SAMSUNG, Side.BUY, 10)
    cancel = desk.broker.cancel(order.placed)
    assert cancel.order_no != acceptance.order_no
    assert desk.broker.open_orders() == []
    records = {record.order_no: record for record in desk.broker.orders(TODAY, TODAY)}
    cancelled = records[acceptance.order_no]
    assert (cancelled.open_qty, cancelled.cancelled_qty, cancelled.filled_qty) == (0, 10, 0)
    line = records[cancel.order_no]
    assert (line.is_cancel, line.original_no) == (True, acceptance.order_no)


def test_a_referenced_number_keeps_its_zeros(desk: Desk) -> None:
    placed = [desk.broker.place(limit(Side.BUY, 1, 69_000)) for _ in range(10)]
    tenth = next(each for each in desk.broker.open_orders() if each.placed.order_no == placed[-1].order_no)
    assert tenth.placed.order_no == "0000000010"
    cancel = desk.broker.cancel(tenth.placed)
    records = {record.order_no: record for record in desk.broker.orders(TODAY, TODAY)}
    assert records[cancel.order_no].original_no == "0000000010"


def test_cancelling_twice_is_refused(desk: Desk) -> None:
    acceptance = desk.broker.place(limit(Side.BUY, 10, 69_000))
    placed = BrokerOrderRef(TODAY, acceptance.branch, acceptance.order_no, Market.KRX, OrderKind.LIMIT)
    desk.broker.cancel(placed)
    with pytest.raises(Refused):
        desk.broker.cancel(placed)


def test_what_can_be_bought_leaves_out_what_open_orders_hold(desk: Desk) -> None:
    before = desk.broker.orderable(SAMSUNG, OrderKind.LIMIT, 70_000)
    desk.broker.place(limit(Side.BUY, 100, 69_000))
    after = desk.broker.orderable(SAMSUNG, OrderKind.LIMIT, 70_000)
    assert before.qty > after.qty
    assert before.cash - after.cash == 6_900_000
    assert before.qty * 70_000 <= before.cash


def test_what_can_be_sold_leaves_out_what_open_orders_hold(desk: Desk) -> None:
    assert desk.broker.sellable_qty(SAMSUNG) == 0
    desk.broker.place(limit(Side.BUY, 10, 70_100))
    assert desk.broker.sellable_qty(SAMSUNG) == 10
    desk.broker.place(limit(Side.SELL, 4, 75_000))
    assert desk.broker.sellable_qty(SAMSUNG) == 6


@pytest.mark.parametrize(
    "order",
    [
        limit(Side.BUY, 10, 70_050),
        limit(Side.BUY, 10, 150_000),
        limit(Side.BUY, 100_000, 70_000),
        limit(Side.SELL, 1, 70_000),
        OrderRequest("999999", Side.BUY, Market.KRX, OrderKind.LIMIT, 1, 70_000),
        OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.AFTER_LIMIT, 1, 70_000),
    ],
    ids=["off the grid", "over the limit", "no cash", "no shares", "no stock", "wrong phase"],
)
def test_the_broker_refuses_what_it_must(desk: Desk, order: OrderRequest) -> None:
    with pytest.raises(Refused) as caught:
        desk.broker.place(order)
    assert caught.value.code
    assert caught.value.message


def test_a_list_of_many_pages_is_whole(desk: Desk) -> None:
    placed = [desk.broker.place(limit(Side.BUY, 1, 60_000)).order_no for _ in range(110)]
    assert [record.order_no for record in desk.broker.orders(TODAY, TODAY)] == placed
    assert len(desk.broker.open_orders()) == 110


def test_the_calendar_is_asked_where_it_is_offered(desk: Desk) -> None:
    if desk.is_paper:
        with pytest.raises(NotSent) as caught:
            desk.broker.calendar(TODAY)
        assert caught.value.code == "EGW02006"
        return
    days = {day.day: day.is_open for day in desk.broker.calendar(TODAY)}
    assert days[TODAY]
    assert not days[date(2026, 11, 28)]


def test_nxt_takes_orders_live_and_not_on_paper(desk: Desk) -> None:
    order = limit(Side.BUY, 3, 60_000, Market.NXT)
    if desk.is_paper:
        with pytest.raises(Refused):
            desk.broker.place(order)
        return
    acceptance = desk.broker.place(order)
    (resting,) = desk.broker.open_orders()
    assert resting.placed.market is Market.NXT
    with pytest.raises(Refused):
        desk.broker.cancel(BrokerOrderRef(TODAY, acceptance.branch, acceptance.order_no, Market.KRX, OrderKind.LIMIT))
    desk.broker.cancel(resting.placed)
    assert desk.broker.open_orders() == []


def test_a_market_order_fills_at_once_on_krx(desk: Desk) -> None:
    desk.broker.place(OrderRequest(SAMSUNG, Side.BUY, Market.KRX, OrderKind.MARKET, 5, 0))
    (record,) = desk.broker.orders(TODAY, TODAY)
    assert (record.kind, record.price, record.filled_qty) == (OrderKind.MARKET, 0, 5)
    assert clock.now().date() == record.order_date
