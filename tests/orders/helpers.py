"""What several test modules of orders do: run a command, read an order again, order outside AEGIS."""

import json
from io import StringIO
from typing import Any

import pytest
from django.core.management import call_command

from orders.models import TradeOrder
from simulator.api.server import Simulator

from .conftest import SAMSUNG
from .exchange_log import ACCOUNT


def told(*words: str, exit_code: int = 0) -> dict[str, Any]:
    """Run a command with --json and return what it printed, having seen that the exit code is as it should be."""
    out = StringIO()
    if exit_code:
        with pytest.raises(SystemExit) as caught:
            call_command(*words, "--json", stdout=out)
        assert caught.value.code == exit_code
    else:
        call_command(*words, "--json", stdout=out)
    shape = dict(json.loads(out.getvalue()))
    assert (shape["command"], shape["ok"], shape["exit_code"]) == (words[0], not exit_code, exit_code)
    return shape


def fresh(order: TradeOrder) -> TradeOrder:
    order.refresh_from_db()
    return order


def place_externally(simulator: Simulator, qty: int = 10, price: int = 69_000) -> dict[str, Any]:
    """Buy as the customer does in the broker's own app."""
    order = {"code": SAMSUNG, "side": "BUY", "quantity": qty, "price": price, "kind": "00", "market": "KRX"}
    return dict(simulator.command("POST", "/simulator/orders", {"account": ACCOUNT, **order}) or {})


def cancel_externally(simulator: Simulator, order: TradeOrder) -> None:
    simulator.command("POST", "/simulator/orders", {"account": ACCOUNT, "cancel": int(order.order_no or 0)})
