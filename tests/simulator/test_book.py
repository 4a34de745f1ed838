from hypothesis import given
from hypothesis import strategies as st

from aegis.terms import Side
from simulator.exchange.order_book import MAKER, Indication, Match, OrderBook

orders = st.lists(
    st.tuples(st.sampled_from(list(Side)), st.integers(95, 105), st.integers(1, 50)), min_size=1, max_size=40
)


def filled(*rows: tuple[Side, int, int, str]) -> OrderBook:
    book = OrderBook()
    for side, price, quantity, owner in rows:
        book.rest(side, price, quantity, owner)
    return book


def test_the_better_price_goes_first_then_the_earlier_order() -> None:
    book = filled((Side.SELL, 101, 5, "late"), (Side.SELL, 100, 5, "first"), (Side.SELL, 100, 5, "second"))
    assert book.take(Side.BUY, 101, 12) == [Match(100, 5, "first"), Match(100, 5, "second"), Match(101, 2, "late")]


def test_a_limit_stops_the_taker() -> None:
    book = filled((Side.SELL, 100, 5, "a"), (Side.SELL, 101, 5, "b"))
    assert book.take(Side.BUY, 100, 9) == [Match(100, 5, "a")]
    assert book.best(Side.SELL) == 101


def test_the_maker_grows_behind_a_customer_and_shrinks_from_the_back() -> None:
    book = filled((Side.BUY, 100, 10, MAKER), (Side.BUY, 100, 5, "me"))
    book.set_maker_quantity(Side.BUY, 100, 30)
    assert book.ahead(Side.BUY, 100, "me") == 10
    book.set_maker_quantity(Side.BUY, 100, 4)
    assert book.ahead(Side.BUY, 100, "me") == 4
    assert book.quantity(Side.BUY, 100) == 9


def test_a_cancelled_order_leaves_the_queue() -> None:
    book = filled((Side.BUY, 100, 5, "a"), (Side.BUY, 100, 5, "b"))
    assert book.remove(Side.BUY, 100, "a", 9) == 5
    assert book.take(Side.SELL, 100, 9) == [Match(100, 5, "b")]
    assert book.best(Side.BUY) is None


def test_an_auction_takes_the_price_of_the_most_shares() -> None:
    book = filled(
        (Side.BUY, 102, 10, "a"), (Side.BUY, 100, 30, "b"), (Side.SELL, 99, 20, "c"), (Side.SELL, 101, 15, "d")
    )
    assert book.indication(100) == Indication(100, 20)
    price, crossings = book.uncross(100)
    assert price == 100
    assert [(c.buyer, c.seller, c.quantity) for c in crossings] == [("a", "c", 10), ("b", "c", 10)]


def test_an_auction_that_does_not_cross_does_nothing() -> None:
    book = filled((Side.BUY, 99, 10, "a"), (Side.SELL, 100, 10, "b"))
    assert book.uncross(100) == (0, [])
    assert book.quantity(Side.BUY, 99) == 10


@given(orders)
def test_an_auction_never_leaves_the_book_crossed(rows: list[tuple[Side, int, int]]) -> None:
    book = OrderBook()
    for number, (side, price, quantity) in enumerate(rows):
        book.rest(side, price, quantity, str(number))
    price, crossings = book.uncross(100)
    bid, ask = book.best(Side.BUY), book.best(Side.SELL)
    assert bid is None or ask is None or bid < ask
    for crossing in crossings:
        assert rows[int(crossing.buyer)][1] >= price >= rows[int(crossing.seller)][1]


@given(orders)
def test_shares_are_neither_made_nor_lost(rows: list[tuple[Side, int, int]]) -> None:
    book, traded = OrderBook(), 0
    for number, (side, price, quantity) in enumerate(rows):
        matched = sum(match.quantity for match in book.take(side, price, quantity))
        traded += matched
        if quantity > matched:
            book.rest(side, price, quantity - matched, str(number))
        bid, ask = book.best(Side.BUY), book.best(Side.SELL)
        assert bid is None or ask is None or bid < ask
    waiting = book.total(Side.BUY) + book.total(Side.SELL)
    assert waiting + 2 * traded == sum(quantity for _, _, quantity in rows)


def test_the_maker_lays_his_levels_around_those_who_wait() -> None:
    book = OrderBook()
    book.set_maker_levels(Side.BUY, {100: 30, 99: 30})
    assert book.depth(Side.BUY, 5) == [(100, 30), (99, 30)]
    book.rest(Side.BUY, 99, 5, "A")
    book.set_maker_levels(Side.BUY, {101: 20, 99: 10})
    assert book.depth(Side.BUY, 5) == [(101, 20), (99, 15)]
    assert book.ahead(Side.BUY, 99, "A") == 10
    book.remove(Side.BUY, 99, "A", 5)
    book.set_maker_levels(Side.BUY, {98: 7})
    assert (book.depth(Side.BUY, 5), book.total(Side.BUY)) == ([(98, 7)], 7)
