"""A minimal strategy: hold a few shares of each stock of a list, and sell them at a profit or to stop a loss.

    make run                                          in one shell; in another, until Ctrl-C:
    .venv/bin/python -m examples.steady

It reads the holdings from the database and orders through the order service; AEGIS chases unfilled orders by itself.
The request id of each intent contains the day, the stock and the purpose, so that it is ordered once a day, however
often the loop runs.
"""

import os
import sys
import time
from collections.abc import Iterator
from datetime import date
from decimal import Decimal

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "config.settings")
django.setup()

from aegis.broker import BrokerError  # noqa: E402 Django comes first
from aegis.terms import Side  # noqa: E402
from infra import clock  # noqa: E402
from kis.factory import broker  # noqa: E402
from market import queries  # noqa: E402
from orders import risk  # noqa: E402
from orders.service import OrderDenied, OrderIntent, OrderService  # noqa: E402
from portfolio.service import PortfolioService  # noqa: E402

NAME = "steady"
WATCHED = ("005930", "000660", "035420")
SHARES = 10
PROFIT_PCT, LOSS_PCT = Decimal("1.0"), Decimal("-2.0")
TURN_SECONDS = 5.0


def wishes(today: date) -> Iterator[OrderIntent]:
    """Yield the orders to place now, by the holdings of the last balance."""
    holdings = {holding.stock_code: holding for holding in PortfolioService().get_portfolio()}
    for code in WATCHED:
        prefix = f"{NAME}:{today:%Y%m%d}:{code}"
        if code not in holdings:
            yield _intent(code, Side.BUY, SHARES, "buy_normal", f"{prefix}:in")
        elif holdings[code].profit_rate >= PROFIT_PCT:
            yield _intent(code, Side.SELL, holdings[code].quantity, "sell_profit", f"{prefix}:profit")
        elif holdings[code].profit_rate <= LOSS_PCT:
            yield _intent(code, Side.SELL, holdings[code].quantity, "sell_stop", f"{prefix}:stop")


def _intent(code: str, side: Side, qty: int, style: str, request_id: str) -> OrderIntent:
    """Return one order intent: `strategy` is its pricing style, `strategy_id` names this program."""
    return OrderIntent(code, side, qty, strategy=style, strategy_id=NAME, request_id=request_id)


def turn(orders: OrderService) -> None:
    """Place the orders that are due now; an order that AEGIS denies is printed, and tried again in the next turn."""
    if queries.get_available_market(clock.now()) is None:
        return
    for intent in wishes(clock.now().date()):
        try:
            order = orders.place(intent)
            print(f"{intent.request_id}: {order.status}, {order.filled_qty} of {order.qty} filled")
        except OrderDenied as denied:
            print(f"{intent.request_id}: {risk.denial_texts(denied.reasons)}")
        except BrokerError as error:
            print(f"{intent.request_id}: {error}")


if __name__ == "__main__":
    while True:
        turn(OrderService(broker(), clock.now))
        if "--once" in sys.argv:
            break
        time.sleep(TURN_SECONDS)
