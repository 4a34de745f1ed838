"""How customers' orders meet the crowd: queue, partial fills, order kinds."""

from pathlib import Path

import pytest

from aegis.terms import Market as Venue
from aegis.terms import OrderKind, Side
from simulator.api.error_codes import RequestRefused
from simulator.exchange.exchange import OrderNoticeKind
from simulator.exchange.orders import OrderStatus

from .conftest import ACCOUNT, KEPCO, OTHER, SAMSUNG, THIN, Market

BUY, SELL = Side.BUY, Side.SELL


@pytest.fixture
def thin() -> Market:
    """A stock of whose levels a customer can afford several."""
    return Market(codes=frozenset({THIN}))


def kinds(market: Market) -> list[str]:
    return [notice.kind for notice in market.notices()]


def test_a_marketable_order_eats_the_book_level_by_level(thin: Market) -> None:
    (first, quantity), (second, _) = thin.book(THIN).depth(SELL, 2)
    order = thin.buy(quantity + 7, second, code=THIN)
    assert order.status is OrderStatus.FILLED
    fills = thin.ledger()["executions"]
    assert [(fill["price"], fill["quantity"]) for fill in fills] == [(first, quantity), (second, 7)]


def test_what_a_level_cannot_give_rests(thin: Market) -> None:
    price, quantity = thin.book(THIN).depth(SELL, 1)[0]
    order = thin.buy(quantity + 5, price, code=THIN)
    assert (order.filled, order.remaining, order.status) == (quantity, 5, OrderStatus.OPEN)
    assert thin.best(BUY, THIN) == price
    assert thin.book(THIN).quantity(BUY, price) == 5


def test_a_resting_order_waits_for_those_before_it(market: Market) -> None:
    price = market.best(BUY)
    ahead = market.book().quantity(BUY, price)
    mine = market.buy(10, price)
    theirs = market.buy(10, price, account=OTHER)
    venue = market.exchange.venue(SAMSUNG)
    market.exchange.book_fills(venue, venue.execute(SELL, price, ahead + 4, "", market.now))
    assert (mine.filled, theirs.filled) == (4, 0)
    market.exchange.book_fills(venue, venue.execute(SELL, price, 10, "", market.now))
    assert (mine.filled, theirs.filled) == (10, 4)
    assert mine.status is OrderStatus.FILLED


def test_the_crowd_fills_a_resting_order_in_time(market: Market) -> None:
    order = market.buy(50, market.best(BUY))
    for _ in range(400):
        market.step()
        if order.filled:
            break
    assert order.filled


def test_a_price_that_passes_fills_whatever_it_passes(market: Market) -> None:
    price = market.best(BUY)
    lower = price - 500
    order = market.buy(10, lower)
    market.price_to(lower + 100)
    assert order.filled == 0
    market.price_to(lower)
    assert order.status is OrderStatus.FILLED
    assert order.average == lower


def test_notices_come_in_the_order_of_events(market: Market) -> None:
    market.buy(10, market.best(SELL))
    order = market.buy(10, market.best(BUY) - 500)
    market.cancel(order)
    assert kinds(market) == [
        OrderNoticeKind.ACCEPTED,
        OrderNoticeKind.FILLED,
        OrderNoticeKind.ACCEPTED,
        OrderNoticeKind.CONFIRMED,
    ]


def test_an_ioc_order_leaves_nothing_behind(thin: Market) -> None:
    price, quantity = thin.book(THIN).depth(SELL, 1)[0]
    order = thin.buy(quantity + 5, price, code=THIN, kind=OrderKind.LIMIT_IOC)
    assert (order.filled, order.cancelled, order.status) == (quantity, 5, OrderStatus.CANCELLED)
    assert kinds(thin)[-1] is OrderNoticeKind.LAPSED


def test_a_fok_order_is_whole_or_nothing(thin: Market) -> None:
    price, quantity = thin.book(THIN).depth(SELL, 1)[0]
    assert thin.buy(quantity + 5, price, code=THIN, kind=OrderKind.LIMIT_FOK).filled == 0
    assert thin.buy(quantity, price, code=THIN, kind=OrderKind.LIMIT_FOK).status is OrderStatus.FILLED


def test_a_market_order_goes_on_taking_until_it_is_full(thin: Market) -> None:
    whole_book = thin.book(THIN).total(SELL)
    thin.exchange.record("shares", thin.now, account=thin.exchange.account(ACCOUNT).number, code=THIN, quantity=9_000)
    order = thin.sell(whole_book + 2_000, code=THIN, kind=OrderKind.MARKET)
    assert 0 < order.filled < order.quantity
    assert order.status is OrderStatus.OPEN
    for _ in range(5):
        thin.step()
    assert order.status is OrderStatus.FILLED


def test_best_and_own_best_take_their_price_from_the_book(market: Market) -> None:
    assert market.buy(1, kind=OrderKind.BEST).price == market.best(SELL)
    assert market.buy(1, kind=OrderKind.OWN_BEST).price == market.best(BUY)


def test_a_stop_limit_sleeps_until_its_trigger(market: Market) -> None:
    stop = market.best(SELL) + 300
    order = market.buy(5, stop + 100, kind=OrderKind.STOP_LIMIT, stop=stop)
    assert order.filled == 0
    market.price_to(stop - 100)
    assert (order.filled, order.triggered) == (0, False)
    market.price_to(stop)
    assert order.triggered
    assert order.status is OrderStatus.FILLED


def test_a_midpoint_order_trades_between_bid_and_ask(market: Market) -> None:
    middle = (market.best(BUY) + market.best(SELL)) // 2
    mine = market.buy(10, kind=OrderKind.MID)
    assert mine.filled == 0
    market.buy(10, market.best(SELL), account=OTHER)
    theirs = market.sell(10, kind=OrderKind.MID, account=OTHER)
    assert mine.status is theirs.status is OrderStatus.FILLED
    assert mine.average == middle


def test_an_amended_order_gets_a_new_number_and_the_end_of_the_queue(market: Market) -> None:
    order = market.buy(10, market.best(BUY) - 500)
    amended = market.amend(order, market.best(BUY) - 400)
    assert amended.number > order.number
    assert amended.original == order.number
    assert (order.status, order.remaining, amended.remaining) == (OrderStatus.REPLACED, 0, 10)
    with pytest.raises(RequestRefused, match="nothing left"):
        market.cancel(order)


def test_a_partial_amend_leaves_the_rest_on_the_old_number(market: Market) -> None:
    order = market.buy(10, market.best(BUY) - 500)
    amended = market.amend(order, market.best(BUY) - 400, quantity=4)
    assert (order.remaining, order.status, amended.quantity) == (6, OrderStatus.OPEN, 4)


def test_a_partial_cancel_leaves_the_rest(market: Market) -> None:
    order = market.buy(10, market.best(BUY) - 500)
    line = market.cancel(order, quantity=3)
    assert (order.remaining, order.cancelled, line.status) == (7, 3, OrderStatus.DONE)


def test_a_filled_order_cannot_be_cancelled(market: Market) -> None:
    order = market.buy(10, market.best(SELL))
    with pytest.raises(RequestRefused, match="nothing left"):
        market.cancel(order)


def test_an_unknown_order_cannot_be_cancelled(market: Market) -> None:
    order = market.buy(10, market.best(BUY) - 500)
    order.number = 999
    with pytest.raises(RequestRefused, match="no such order"):
        market.cancel(order)


@pytest.mark.parametrize(
    ("price", "reason"),
    [(71_450, "bad tick"), (120_000, "outside daily limits"), (50_000, "outside daily limits"), (0, "bad tick")],
)
def test_prices_off_the_grid_or_the_day_are_refused(market: Market, price: int, reason: str) -> None:
    with pytest.raises(RequestRefused, match=reason):
        market.buy(1, price)


def test_money_that_is_reserved_cannot_be_spent_twice(market: Market) -> None:
    price = market.best(BUY) - 500
    affordable = 100_000_000 // price
    market.buy(affordable - 1, price)
    with pytest.raises(RequestRefused, match="cash short"):
        market.buy(2, price)


def test_a_market_buy_is_checked_at_the_upper_limit(market: Market) -> None:
    highest = market.exchange.venue(SAMSUNG).highest
    with pytest.raises(RequestRefused, match="cash short"):
        market.buy(100_000_000 // highest + 1, kind=OrderKind.MARKET)
    market.buy(100_000_000 // highest, kind=OrderKind.MARKET)


def test_shares_on_offer_cannot_be_sold_twice(market: Market) -> None:
    market.buy(10, market.best(SELL))
    market.sell(6, market.best(SELL) + 500)
    with pytest.raises(RequestRefused, match="shares short"):
        market.sell(5, market.best(SELL) + 500)
    market.sell(4, market.best(SELL) + 500)


def test_cancelling_frees_what_was_reserved(market: Market) -> None:
    order = market.buy(10, market.best(BUY) - 500)
    assert market.ledger()["cash"]["orderable"] < 100_000_000
    market.cancel(order)
    assert market.ledger()["cash"]["orderable"] == 100_000_000


def test_a_stock_nobody_lists_is_refused(market: Market) -> None:
    with pytest.raises(RequestRefused, match="unknown stock"):
        market.buy(1, 1_000, code="999999")


def test_nxt_has_a_book_of_its_own() -> None:
    market = Market(codes=frozenset({SAMSUNG, KEPCO}))
    order = market.buy(10, market.best(SELL, venue=Venue.NXT), venue=Venue.NXT)
    assert order.status is OrderStatus.FILLED
    assert market.ledger()["executions"][0]["market"] is Venue.NXT


def test_nxt_takes_no_market_order(market: Market) -> None:
    with pytest.raises(RequestRefused, match="kind not taken on NXT"):
        market.buy(1, kind=OrderKind.MARKET, venue=Venue.NXT)


def test_sor_goes_where_the_price_is_better(market: Market) -> None:
    market.exchange.venue(SAMSUNG, Venue.NXT).walk_to(market.best(BUY) - 500, market.now)
    order = market.buy(1, market.best(SELL), venue=Venue.SOR)
    assert (order.market, order.venue) == (Venue.SOR, Venue.NXT)
    assert order.average < market.best(SELL)


def test_one_stop_may_wake_another(market: Market) -> None:
    stop = market.best(SELL) + 200
    first = market.buy(5, stop, kind=OrderKind.STOP_LIMIT, stop=stop - 100)
    second = market.buy(5, stop + 500, kind=OrderKind.STOP_LIMIT, stop=stop - 100, account=OTHER)
    market.price_to(stop - 100)
    assert first.triggered
    assert second.triggered


# --- a limit that becomes a market order in the closing auction (조건부지정가)


def test_a_conditional_limit_is_checked_and_reserved_at_its_own_price(market: Market) -> None:
    price = market.best(BUY) - 500
    order = market.buy(100_000_000 // price - 1, price, kind=OrderKind.CONDITIONAL_LIMIT)
    left = market.ledger()["cash"]["orderable"]
    assert 0 <= left < 2 * price
    assert order.remaining * price == order.remaining * order.reserve_price
    with pytest.raises(RequestRefused, match="cash short"):
        market.buy(2, price, kind=OrderKind.CONDITIONAL_LIMIT)


def test_a_conditional_limit_keeps_its_price_in_the_closing_auction(tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    market = Market("2026-11-23 15:19", ledger_path=path)
    venue = market.exchange.venue(SAMSUNG)
    order = market.buy(5, 60_000, kind=OrderKind.CONDITIONAL_LIMIT)
    market.to("2026-11-23 15:25")
    assert (order.price, order.book_price) == (60_000, venue.highest)
    assert venue.book.quantity(BUY, venue.highest) >= 5
    assert market.ledger()["orders"][0]["price"] == 60_000
    market.exchange.ledger.close()

    again = Market("2026-11-23 15:25", ledger_path=path)
    again.to("2026-11-23 15:31")
    row = again.ledger()["orders"][0]
    assert (row["status"], row["price"]) == (OrderStatus.FILLED, 60_000)
    (fill,) = [notice for notice in again.notices() if notice.kind is OrderNoticeKind.FILLED]
    assert fill.price > 60_000
    assert fill.order["price"] == 60_000


def test_a_conditional_limit_in_the_closing_auction_can_be_cancelled() -> None:
    market = Market("2026-11-23 15:19")
    venue = market.exchange.venue(SAMSUNG)
    order = market.buy(5, 60_000, kind=OrderKind.CONDITIONAL_LIMIT)
    market.to("2026-11-23 15:25")
    market.cancel(order)
    assert list(venue.book.customer_prices(BUY)) == []
    assert market.ledger()["cash"]["orderable"] == 100_000_000


def test_an_account_overdrawn_at_the_close_may_still_ask_for_less() -> None:
    """A conditional limit pays the auction's price: the cash it had not reserved is missing then."""
    market = Market("2026-11-23 15:19")
    market.buy(800, 60_000, kind=OrderKind.CONDITIONAL_LIMIT)
    resting = market.buy(700, 70_000, venue=Venue.NXT)
    market.to("2026-11-23 15:45")
    assert market.ledger()["cash"]["orderable"] < 0
    with pytest.raises(RequestRefused, match="cash short"):
        market.buy(1, 60_000, venue=Venue.NXT)
    assert market.amend(resting, 69_900).price == 69_900
