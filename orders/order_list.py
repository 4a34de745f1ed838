"""The broker's order list (주식일별주문체결조회): its orders, and the cancels and amends of each order.

A list counts only with all its pages. If a list has unparsed lines, or lacks a known order, the absence of an order
from it proves nothing.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import Any

from django.db import DataError, IntegrityError
from django.utils.translation import gettext_noop

from aegis.broker import Broker, OrderRecord, PartialResponse, UnparsedLine
from aegis.lifecycle import UNSETTLED, IllegalMove, Status
from aegis.requests import LIVE
from aegis.sessions import KST, Phase
from aegis.terms import OrderKind
from infra import sql
from market import queries
from orders.models import TradeOrder

# a list may lack fills and cancels that are newer than this
LIST_LAG = timedelta(seconds=10)
# an order is not looked for in the list after this
ASKED_FOR = timedelta(days=7)
# inquire-daily-ccld covers the last three months: an older unsettled order is left to the operator
LIST_REACHES = timedelta(days=85)
SAME_MINUTE = timedelta(seconds=60)

Identity = tuple[date, str, str, str]
EMPTY = gettext_noop("the list is empty, though orders are known")


@dataclass(frozen=True, slots=True)
class OrderList:
    """One answer of the broker. `orders` are new orders and amends, `changes` cancels and amends by their original.

    `since` is the first day of the request, and `phases` are the session phases of the day of the request. `unread`
    are the unparsed lines. Reconciliation adds the lines that violate a constraint of our tables.
    """

    orders: Sequence[OrderRecord]
    changes: Mapping[Identity, Sequence[OrderRecord]]
    unread: list[UnparsedLine]
    asked_at: datetime
    now: datetime
    since: date
    phases: tuple[Phase, ...]
    lacks_known: bool = False

    @property
    def is_complete(self) -> bool:
        """Whether every line was parsed, and the list is not empty although it should show known orders."""
        return not self.unread and not self.is_unexpectedly_empty

    @property
    def is_unexpectedly_empty(self) -> bool:
        return self.lacks_known and not self.orders and not self.changes and not self.unread

    @property
    def proves_absence(self) -> bool:
        """Whether an order that it lacks does not exist: the list is complete and shows every known order."""
        return self.is_complete and not self.lacks_known

    @property
    def complaint(self) -> str:
        """Return the errors of the list as one text of at most 300 characters, empty if there are none."""
        parts = [str(line) for line in self.unread] + ([EMPTY] if self.is_unexpectedly_empty else [])
        return "; ".join(parts)[:300]

    def related(self, record: OrderRecord) -> list[OrderRecord]:
        """Return the cancel and amend lines that reference an order."""
        return [line for line in self.changes.get(identity(record), ()) if same_branch(record.branch, line.branch)]

    def evidence_for(self, record: OrderRecord) -> dict[str, Any]:
        """Return the arguments of `orders.settle.settle` that this list provides beside the order's own line."""
        return {
            "asked_at": self.asked_at,
            "now": self.now,
            "related": self.related(record),
            "is_complete": self.is_complete,
            "proves_absence": self.proves_absence,
        }

    def may_hide_our_orders(self) -> bool:
        """Whether an unparsed line is, or may be, an unsettled order of ours."""
        numbers = [line.order_no for line in self.unread]
        ours = TradeOrder.objects.filter(status__in=UNSETTLED, order_no__in=numbers)
        return bool(numbers) and (not all(numbers) or ours.exists())


_FIRST_DAY = f"""
    SELECT min(order_date) FROM trade_orders
    WHERE order_date BETWEEN %(reaches)s AND %(today)s
      AND (status IN ({sql.literals(UNSETTLED)}) OR needs_reconciliation AND order_date >= %(asked_since)s)
"""  # noqa: S608


def first_day(asked_at: datetime) -> date:
    """Return the first day with an unsettled order, as far back as the broker's list reaches."""
    today = asked_at.astimezone(KST).date()
    days = {"today": today, "asked_since": today - ASKED_FOR, "reaches": today - LIST_REACHES}
    ((first,),) = sql.query(_FIRST_DAY, days)
    return first or today


def fetch(broker: Broker, since: date, asked_at: datetime) -> tuple[Sequence[OrderRecord], list[UnparsedLine]]:
    """Return the records from `since` to today, and the unparsed lines. Raises BrokerError."""
    try:
        return broker.orders(since, asked_at.astimezone(KST).date()), []
    except PartialResponse as error:
        return error.read, list(error.unread)


def arrange(
    records: Sequence[OrderRecord], unread: list[UnparsedLine], *, since: date, asked_at: datetime, now: datetime
) -> OrderList:
    """Return the broker's records as an `OrderList`, with stock codes as our tables write them."""
    codes = queries.canonical_codes({record.code for record in records})
    records = [replace(record, code=codes.get(record.code, record.code)) for record in records]
    changes = defaultdict(list)
    for record in records:
        if record.original_no:
            changes[record.order_date, record.original_no, record.code, record.side.value].append(record)
    orders = [record for record in records if not record.is_cancel]
    phases, lacks_known = queries.today(asked_at), _lacks_known(orders, since, asked_at)
    return OrderList(orders, changes, unread, asked_at, now, since, phases, lacks_known)


# an amend that has a number but is not carried out produces no order
_KNOWN = f"""
    SELECT order_date, order_no, stock_code, order_type FROM trade_orders
    WHERE order_no IS NOT NULL AND order_date >= %(since)s AND accepted_at < %(lag)s AND decided_by = ''
      AND status <> '{Status.REJECTED.value}'
      AND NOT EXISTS (SELECT FROM broker_requests WHERE makes_id = trade_orders.id AND state IN ({sql.literals(LIVE)}))
"""  # noqa: S608


def _lacks_known(orders: Sequence[OrderRecord], since: date, asked_at: datetime) -> bool:
    """Whether a numbered order of any state is missing although it is old enough to be in every list.

    A rejected order may be left out of lists, and an order that an operator decided is not expected.
    """
    identities = {identity(record) for record in orders}
    return any(row not in identities for row in sql.query(_KNOWN, {"since": since, "lag": asked_at - LIST_LAG}))


def identity(record: OrderRecord) -> Identity:
    return record.order_date, record.order_no, record.code, record.side.value


def same_branch(ours: str, theirs: str) -> bool:
    """Whether two branches may be the same: a reply or a list may omit the branch."""
    ours, theirs = ours.lstrip("0"), theirs.lstrip("0")
    return not ours or not theirs or ours == theirs


_ROWS_OF_NUMBERS = "order_date = ANY(%(days)s) AND order_no = ANY(%(numbers)s) ORDER BY created_at DESC, id DESC"


class KnownOrders:
    """Our rows for the records of a list. Numbers are compared with date, branch, stock and side, never alone."""

    def __init__(self, records: Sequence[OrderRecord], all_records: Sequence[OrderRecord] = ()) -> None:
        """Look up the rows of `records`; `all_records` are all orders of their list."""
        numbers, days = {record.order_no for record in records}, {record.order_date for record in records}
        self._branches = defaultdict(list)
        for record in all_records or records:
            self._branches[identity(record)].append(record.branch)
        self._rows = defaultdict(list)
        for row in sql.find(TradeOrder, _ROWS_OF_NUMBERS, {"days": list(days), "numbers": list(numbers)}):
            self._rows[row.order_date, row.order_no or "", row.stock_code, row.order_type].append(row)

    def row_of(self, record: OrderRecord) -> TradeOrder | None:
        rows = self._rows.get(identity(record), ())
        exact = next((row for row in rows if same_branch(row.branch, record.branch)), None)
        return exact or next((row for row in rows if self._has_no_line(row) and _is_same_order(row, record)), None)

    def _has_no_line(self, row: TradeOrder) -> bool:
        """Whether no record has the row's number and branch: then a record of another branch may match."""
        key = (row.order_date, row.order_no or "", row.stock_code, row.order_type)
        return not any(same_branch(row.branch, branch) for branch in self._branches[key])


def _is_same_order(row: TradeOrder, record: OrderRecord) -> bool:
    """Whether a record of another branch is this order: the same quantity, kind and price, and the same minute.

    UNVERIFIED: that the branch of a reply (KRX_FWDG_ORD_ORGNO) always equals the list's ord_gno_brno. A recorded list
    with an order whose reply was recorded too settles it.
    """
    if row.accepted_at is None:
        return False
    is_same_price = not OrderKind(row.order_kind).is_priced or row.price == record.price
    return (
        (row.qty, row.order_kind) == (record.qty, record.kind.value)
        and is_same_price
        and abs(record.stamped_at - row.accepted_at) <= SAME_MINUTE
    )


@contextmanager
def collect_unparsed(record: OrderRecord, unread: list[UnparsedLine]) -> Iterator[None]:
    """Treat a record that violates a constraint of our tables as unparsed, and continue with the rest."""
    try:
        yield
    except (DataError, IntegrityError, IllegalMove) as error:
        unread.append(
            UnparsedLine(record.order_no, f"it cannot be: {describe_record(record)}: {error}".partition("\n")[0])
        )


def describe_record(record: OrderRecord) -> str:
    """Return the quantities of a record, in shares, as evidence for the order's events."""
    return (
        f"list: ordered {record.qty}, filled {record.filled_qty}, open {record.open_qty}, "
        f"cancelled {record.cancelled_qty}, refused {record.rejected_qty}"
    )
