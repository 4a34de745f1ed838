"""Compares our tables with the simulator's own ledger: after any day they must be equal."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from decimal import Decimal
from typing import Any

from kis.rest_values import order_number
from orders.models import TradeExecution, TradeOrder
from portfolio.models import Portfolio
from portfolio.service import PortfolioService


@dataclass(frozen=True, slots=True)
class Verdict:
    """The numbers of compared records, the cash after two trading days, and a sentence for each difference."""

    orders: int
    executions: int
    holdings: int
    cash_won: int
    differences: Sequence[str]

    def __str__(self) -> str:
        if self.differences:
            return "LEDGER DIFFERS " + "; ".join(self.differences)
        figures = f"orders={self.orders} executions={self.executions} holdings={self.holdings} cash={self.cash_won}"
        return f"LEDGER EQUAL {figures}"


def compare_with_ledger(ledger: Mapping[str, Any], since: date = date.min) -> Verdict:
    """Compare orders, fills, holdings and cash with the ledger of our account (`GET /simulator/ledger`).

    `since` is the ledger's first day: our tables may still have days of an earlier ledger that was lost.
    """
    orders = [order for order in ledger["orders"] if order["request"] != "cancel"]
    holdings = {row["code"]: row for row in ledger["holdings"] if row["quantity"]}
    differences = [
        *_orders(orders, since),
        *_executions(ledger["executions"], since),
        *_holdings(holdings),
        *_cash(ledger["cash"]),
    ]
    return Verdict(
        orders=len(orders),
        executions=len(ledger["executions"]),
        holdings=len(holdings),
        cash_won=ledger["cash"]["d2"],
        differences=differences,
    )


Key = tuple[date, str]


def _key(row: Mapping[str, Any]) -> Key:
    day = row["date"]
    return date.fromisoformat(day), order_number(row["number"])


def _orders(ledger: Sequence[Mapping[str, Any]], since: date) -> list[str]:
    rows = TradeOrder.objects.exclude(order_no=None).filter(order_date__gte=since)
    ours = {(row.order_date, row.order_no): row for row in rows}
    differences = []
    for theirs in ledger:
        key = _key(theirs)
        row = ours.pop(key, None)
        if row is None:
            differences.append(f"order {key[1]} of {key[0]} is not in trade_orders")
            continue
        our_values = (row.stock_code, row.order_type, row.qty, row.filled_qty, row.filled_amount, row.is_open)
        ledger_values = (
            theirs["code"],
            theirs["side"],
            theirs["quantity"],
            theirs["filled"],
            theirs["amount"],
            theirs["status"] == "open",
        )
        if our_values != ledger_values:
            differences.append(f"order {key[1]} of {key[0]}: ours {our_values}, the ledger's {ledger_values}")
    differences += [f"order {number} of {day} is not in the ledger" for day, number in ours]
    return differences


def _executions(ledger: Sequence[Mapping[str, Any]], since: date) -> list[str]:
    """Compare the total shares and won of each order's fills: one row of ours may stand for several fills."""
    theirs: dict[Key, tuple[int, int]] = {}
    for fill in ledger:
        qty, amount = theirs.get(_key(fill), (0, 0))
        theirs[_key(fill)] = (qty + fill["quantity"], amount + fill["quantity"] * fill["price"])
    ours: dict[Key, tuple[int, int]] = {}
    rows = TradeExecution.objects.filter(voided_at__isnull=True, order__order_date__gte=since)
    for row in rows.select_related("order"):
        key = (row.order.order_date, row.order_no)
        qty, amount = ours.get(key, (0, 0))
        ours[key] = (qty + row.exec_qty, amount + row.exec_amount)
    return [
        f"fills of order {key[1]} of {key[0]}: ours {ours.get(key)}, the ledger's {theirs.get(key)}"
        for key in sorted(theirs.keys() | ours.keys())
        if ours.get(key) != theirs.get(key)
    ]


def _holdings(ledger: Mapping[str, Mapping[str, Any]]) -> list[str]:
    ours = {row.stock_code: (row.quantity, row.avg_price) for row in Portfolio.objects.exclude(quantity=0)}
    theirs = {code: (row["quantity"], Decimal(str(row["average_price"]))) for code, row in ledger.items()}
    return [
        f"holding {code}: ours {ours.get(code)}, the ledger's {theirs.get(code)}"
        for code in sorted(theirs.keys() | ours.keys())
        if ours.get(code) != theirs.get(code)
    ]


def _cash(ledger: Mapping[str, int]) -> list[str]:
    snapshot = PortfolioService().get_snapshot()
    if snapshot is None:
        return ["there is no account snapshot"]
    ours = (snapshot.deposit, snapshot.deposit_d1, snapshot.deposit_d2)
    theirs = (ledger["deposit"], ledger["d1"], ledger["d2"])
    return [] if ours == theirs else [f"cash (today, D+1, D+2): ours {ours}, the ledger's {theirs}"]
