"""What an order remembers of the moment it was wanted."""

from collections.abc import Callable

from aegis.broker import Broker
from aegis.execution_quality import book_sweep_price
from aegis.terms import Market, Side
from orders.models import TradeOrder

Buy = Callable[..., TradeOrder]


def test_a_best_quote_order_remembers_what_a_market_order_would_have_paid(buy: Buy, broker: Broker) -> None:
    book = broker.book("005930", Market.KRX)
    assert buy(strategy="buy_urgent").arrival_sweep_price == book_sweep_price(book, Side.BUY, 10) == book.asks[0].price


def test_where_the_book_was_not_asked_nothing_is_made_up(buy: Buy) -> None:
    assert buy().arrival_sweep_price is None
