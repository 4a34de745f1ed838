"""A strategy of the simplest kind: own a little of each stock of a list, sell it for a profit or to stop a loss.

    make run                                          in one shell; in another, until Ctrl-C:
    .venv/bin/python -m examples.steady

It reads what AEGIS knows from the database and orders through the order service; what stays unfilled AEGIS chases
by itself. Each wish has a request id of its own and of the day, so that any number of turns orders it once.
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
    """Return what to order now, by what we hold as last seen."""
    held = {holding.stock_code: holding for holding in PortfolioService().get_portfolio()}
    for code in WATCHED:
        name = f"{NAME}:{today:%Y%m%d}:{code}"
        if code not in held:
            yield _intent(code, Side.BUY, SHARES, "buy_normal", f"{name}:in")
        elif held[code].profit_rate >= PROFIT_PCT:
            yield _intent(code, Side.SELL, held[code].quantity, "sell_profit", f"{name}:profit")
        elif held[code].profit_rate <= LOSS_PCT:
            yield _intent(code, Side.SELL, held[code].quantity, "sell_stop", f"{name}:stop")


def _intent(code: str, side: Side, qty: int, style: str, request_id: str) -> OrderIntent:
    """Return one wish: `strategy` is how it is priced, `strategy_id` who wants it."""
    return OrderIntent(code, side, qty, strategy=style, strategy_id=NAME, request_id=request_id)


def turn(orders: OrderService) -> None:
    """Order what is wished for; what AEGIS refuses is told and wished for again with the next turn."""
    if queries.get_available_market(clock.now()) is None:
        return
    for intent in wishes(clock.now().date()):
        try:
            order = orders.place(intent)
            print(f"{intent.request_id}: {order.status}, {order.filled_qty} of {order.qty} filled")
        except OrderDenied as denied:
            print(f"{intent.request_id}: {risk.say_all(denied.reasons)}")
        except BrokerError as error:
            print(f"{intent.request_id}: {error}")


if __name__ == "__main__":
    while True:
        turn(OrderService(broker(), clock.now))
        if "--once" in sys.argv:
            break
        time.sleep(TURN_SECONDS)
