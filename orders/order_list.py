"""The broker's list of orders (주식일별주문체결조회) as one answer: its orders, and the lines that reference each.

A list counts only with all its pages. One with lines that nobody can parse, or that lacks an order that we know,
proves nothing by what it lacks.
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

# fills and cancels of the last seconds may be missing from a list
LIST_LAG = timedelta(seconds=10)
# an order that the list has not shown for so long is no longer in it
ASKED_FOR = timedelta(days=7)
# inquire-daily-ccld answers for three months back: an older order that is not settled is left to an operator
LIST_REACHES = timedelta(days=85)
SAME_MINUTE = timedelta(seconds=60)

Identity = tuple[date, str, str, str]
EMPTY = gettext_noop("the list is empty, though orders are known")


@dataclass(frozen=True, slots=True)
class OrderList:
    """One answer. `orders` are new orders and amends, `changes` the cancels and amends by the order they reference.

    `since` is the first day it was asked for, `phases` are those of the day on which it was. `unread` are the lines
    that cannot be parsed; lines that our tables refuse are added to it on the way.
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
        """Whether every line was parsed, and it is not empty while it should show orders that we know."""
        return not self.unread and not self.is_empty_against_us

    @property
    def is_empty_against_us(self) -> bool:
        return self.lacks_known and not self.orders and not self.changes and not self.unread

    @property
    def proves_absence(self) -> bool:
        """Whether what it lacks does not exist: it is complete, and shows every order that we know."""
        return self.is_complete and not self.lacks_known

    @property
    def complaint(self) -> str:
        """Return what is wrong with it, empty if nothing is."""
        parts = [str(line) for line in self.unread] + ([EMPTY] if self.is_empty_against_us else [])
        return "; ".join(parts)[:300]

    def related(self, record: OrderRecord) -> list[OrderRecord]:
        """Return the lines of the cancels and amends of an order."""
        return [line for line in self.changes.get(identity(record), ()) if same_branch(record.branch, line.branch)]

    def evidence_for(self, record: OrderRecord) -> dict[str, Any]:
        """Return what `orders.settle` wants to know of this list beside an order's own line."""
        return {
            "asked_at": self.asked_at,
            "now": self.now,
            "related": self.related(record),
            "is_complete": self.is_complete,
            "proves_absence": self.proves_absence,
        }

    def hides_ours(self) -> bool:
        """Whether a line that cannot be parsed is, or may be, an order of ours that is not settled."""
        numbers = [line.order_no for line in self.unread]
        ours = TradeOrder.objects.filter(status__in=UNSETTLED, order_no__in=numbers)
        return bool(numbers) and (not all(numbers) or ours.exists())


_FIRST_DAY = f"""
    SELECT min(order_date) FROM trade_orders
    WHERE order_date BETWEEN %(reaches)s AND %(today)s
      AND (status IN ({sql.literals(UNSETTLED)}) OR look_wanted AND order_date >= %(asked_since)s)
"""  # noqa: S608


def first_day(asked_at: datetime) -> date:
    """Return the first day that is not settled yet, as far back as the broker's list reaches."""
    today = asked_at.astimezone(KST).date()
    days = {"today": today, "asked_since": today - ASKED_FOR, "reaches": today - LIST_REACHES}
    ((first,),) = sql.fetch(_FIRST_DAY, days)
    return first or today


def fetch(broker: Broker, since: date, asked_at: datetime) -> tuple[Sequence[OrderRecord], list[UnparsedLine]]:
    """Return the orders of `since` to today, and the lines nobody can parse. Raises BrokerError."""
    try:
        return broker.orders(since, asked_at.astimezone(KST).date()), []
    except PartialResponse as error:
        return error.read, list(error.unread)


def arrange(
    records: Sequence[OrderRecord], unread: list[UnparsedLine], *, since: date, asked_at: datetime, now: datetime
) -> OrderList:
    """Return an answer of the broker's with its lines in their places, and their codes as our tables write them."""
    codes = queries.canonical_codes({record.code for record in records})
    records = [replace(record, code=codes.get(record.code, record.code)) for record in records]
    changes = defaultdict(list)
    for record in records:
        if record.original_no:
            changes[record.order_date, record.original_no, record.code, record.side.value].append(record)
    orders = [record for record in records if not record.is_cancel]
    phases, lacks_known = queries.today(asked_at), _lacks_known(orders, since, asked_at)
    return OrderList(orders, changes, unread, asked_at, now, since, phases, lacks_known)


# an amend that was numbered and not carried out leads to no order
_KNOWN = f"""
    SELECT order_date, order_no, stock_code, order_type FROM trade_orders
    WHERE order_no IS NOT NULL AND order_date >= %(since)s AND accepted_at < %(lag)s AND decided_by = ''
      AND status <> '{Status.REJECTED.value}'
      AND NOT EXISTS (SELECT FROM broker_requests WHERE makes_id = trade_orders.id AND state IN ({sql.literals(LIVE)}))
"""  # noqa: S608


def _lacks_known(orders: Sequence[OrderRecord], since: date, asked_at: datetime) -> bool:
    """Whether an order with a number, of any state, is missing though it is old enough to be in any list.

    One that the exchange turned away may be left out of lists, and one that an operator has decided is not asked for.
    """
    listed = {identity(record) for record in orders}
    return any(row not in listed for row in sql.fetch(_KNOWN, {"since": since, "lag": asked_at - LIST_LAG}))


def identity(record: OrderRecord) -> Identity:
    return record.order_date, record.order_no, record.code, record.side.value


def same_branch(ours: str, theirs: str) -> bool:
    """Whether two branches may be one: a reply, or a list, may leave it out."""
    ours, theirs = ours.lstrip("0"), theirs.lstrip("0")
    return not ours or not theirs or ours == theirs


_LISTED = "order_date = ANY(%(days)s) AND order_no = ANY(%(numbers)s) ORDER BY created_at DESC, id DESC"


class KnownOrders:
    """The rows of the lines of a list. Numbers are compared with date, branch, stock and side, never alone."""

    def __init__(self, records: Sequence[OrderRecord], listed: Sequence[OrderRecord] = ()) -> None:
        """Look up the rows of these lines; `listed` are all lines of the list that they are from."""
        numbers, days = {record.order_no for record in records}, {record.order_date for record in records}
        self._branches = defaultdict(list)
        for record in listed or records:
            self._branches[identity(record)].append(record.branch)
        self._rows = defaultdict(list)
        for row in sql.find(TradeOrder, _LISTED, {"days": list(days), "numbers": list(numbers)}):
            self._rows[row.order_date, row.order_no or "", row.stock_code, row.order_type].append(row)

    def row_of(self, record: OrderRecord) -> TradeOrder | None:
        rows = self._rows.get(identity(record), ())
        exact = next((row for row in rows if same_branch(row.branch, record.branch)), None)
        return exact or next((row for row in rows if self._has_no_line(row) and _is_the_same(row, record)), None)

    def _has_no_line(self, row: TradeOrder) -> bool:
        """Whether no line has its number under its own branch: then another branch's may be it."""
        key = (row.order_date, row.order_no or "", row.stock_code, row.order_type)
        return not any(same_branch(row.branch, branch) for branch in self._branches[key])


def _is_the_same(row: TradeOrder, record: OrderRecord) -> bool:
    """Whether a line under another branch is this order all the same: the same in everything, of the same minute.

    UNVERIFIED: that the branch of a reply (KRX_FWDG_ORD_ORGNO) is always printed as the list's ord_gno_brno; a recorded
    list with an order whose reply was recorded too settles it.
    """
    if row.accepted_at is None:
        return False
    priced = not OrderKind(row.order_kind).is_priced or row.price == record.price
    return (
        (row.qty, row.order_kind) == (record.qty, record.kind.value)
        and priced
        and abs(record.stamped_at - row.accepted_at) <= SAME_MINUTE
    )


@contextmanager
def as_unread(record: OrderRecord, unread: list[UnparsedLine]) -> Iterator[None]:
    """Treat a line that violates a constraint of ours as unparsed, and continue with the rest."""
    try:
        yield
    except (DataError, IntegrityError, IllegalMove) as error:
        unread.append(UnparsedLine(record.order_no, f"it cannot be: {describe(record)}: {error}".partition("\n")[0]))


def describe(record: OrderRecord) -> str:
    """Return the figures of a line, as evidence."""
    return (
        f"list: ordered {record.qty}, filled {record.filled_qty}, open {record.open_qty}, "
        f"cancelled {record.cancelled_qty}, refused {record.rejected_qty}"
    )
