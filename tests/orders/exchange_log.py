"""What the exchange's own event log says: the calls that it answered, and the shares at stake after each event."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from simulator.api.server import Simulator

ACCOUNT = "50000000-01"


def calls(events: Sequence[dict[str, Any]]) -> list[str]:
    """Return the operations that clients asked for, by the last part of their paths, in order."""
    return [event["path"].rsplit("/", 1)[-1] for event in events if event["event"] == "request"]


@contextmanager
def answered(simulator: Simulator) -> Iterator[list[str]]:
    """Fill the list, at the end of the block, with the operations that were asked for in it."""
    asked: list[str] = []
    begun = len(simulator.events())
    yield asked
    asked += calls(simulator.events()[begun:])


def at_stake(events: Sequence[dict[str, Any]], code: str) -> list[int]:
    """Return the shares of one stock that were open or filled, after each event that changed them.

    An amend is one moment: its new line and what it takes from the old one are two events.
    """
    open_qty: dict[int, int] = {}
    filled, moments = 0, list[int]()
    is_amending = False
    for event in events:
        number = event.get("number")
        if event["event"] == "order" and (order := event["order"])["code"] == code and order["request"] != "cancel":
            open_qty[order["number"]] = order["quantity"]
            is_amending = order["request"] == "amend"
        elif event["event"] == "fill" and number in open_qty:
            open_qty[number] -= event["quantity"]
            filled += event["quantity"]
        elif event["event"] in ("cancel", "reject") and number in open_qty:
            open_qty[number] -= event["quantity"]
            is_amending = False
        else:
            continue
        if not is_amending:
            moments.append(filled + sum(open_qty.values()))
    return moments


def new_orders(simulator: Simulator) -> list[tuple[str, int]]:
    """Return kind and price of every order and amend of the account, oldest first."""
    orders = simulator.ledger(ACCOUNT)["orders"]
    return [(each["kind"], each["price"]) for each in orders if each["request"] != "cancel"]
