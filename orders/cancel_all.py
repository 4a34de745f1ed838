"""Cancel all (the emergency brake): cancels everything open at the broker, on every venue, and reports the result."""

from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import monotonic, sleep

from django.db.models import QuerySet
from django.utils.translation import gettext

from aegis.broker import Broker, BrokerError, OpenOrder, OutcomeUnknown, PartialResponse
from aegis.lifecycle import OPEN, UNANSWERED, Status
from aegis.requests import RequestedBy, RequestKind
from aegis.sessions import KST
from market.codes import canonical
from market.queries import canonical_codes
from orders import cancel, reconcile, requests, risk
from orders.models import BrokerRequest, TradeOrder
from orders.order_list import same_branch

# how long `cancel_all` waits for the answers of orders on their way
ANSWER_PATIENCE_SECONDS = 3.0
# how often, and how far apart, each list is read again until it no longer shows the cancelled orders
CONFIRM_READS = 2
CONFIRM_PAUSE_SECONDS = 0.5


@dataclass(slots=True)
class CancelAllResult:
    """What became of all open orders, by order number, with the branch before it if two orders share a number.

    `cancelled`: the open-order list lacks them, and an order list that was read later shows that they ended.
    `unconfirmed`: the cancel was sent, and the lists do not agree yet; it is sent again. `failed` has the reasons,
    `left` are external orders that stay open, `unseen` is why the open orders are not all known.
    """

    cancelled: list[str] = field(default_factory=list)
    unconfirmed: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    unseen: str = ""


@dataclass(frozen=True, slots=True)
class OpenList:
    """The broker's open orders. `unread` are the order numbers of unparsed lines, `why` is the reason."""

    orders: Sequence[OpenOrder]
    unread: frozenset[str] = frozenset()
    why: str = ""

    def shows(self, order: OpenOrder) -> bool:
        """Whether an order is, or may be, in the list."""
        return any(_is_same(order, other) for other in self.orders) or bool({order.placed.order_no, ""} & self.unread)


class CancelAll:
    """Cancels everything at one broker, by one clock."""

    def __init__(
        self, broker: Broker, now: Callable[[], datetime], *, external: bool, code: str | None, who: str
    ) -> None:
        self._broker = broker
        self._now = now
        self._external = external
        self._code = code
        self._who = who
        self._result = CancelAllResult()
        # the open orders by the outcome of their cancel, the keys of the rows tried, and the first order of each number
        self._sent: list[OpenOrder] = []
        self._failed: list[OpenOrder] = []
        self._tried_rows: set[int] = set()
        self._orders_by_number: dict[str, OpenOrder] = {}

    def run(self) -> CancelAllResult:
        """Cancel the orders that our rows show open, then all others that the broker holds open on any venue.

        A failure is reported, and the rest continues. An order without an answer is cancelled once it is found.
        """
        self._cancel_ours()
        self._wait_for_answers()
        self._cancel_ours()
        self._read_orders()
        self._cancel_ours()
        self._report_unanswered()
        self._confirm(self._cancel_the_rest())
        return self._result

    def _cancel_ours(self) -> None:
        self._end_chases()
        for order in self._of_today(UNANSWERED):
            cancel.defer_cancel(order, by=RequestedBy.CANCEL_ALL, who=self._who, at=self._now())
        for order in self._of_today(OPEN).exclude(order_no=None).order_by("-id"):
            is_wanted = self._external or order.origin == TradeOrder.Origin.AEGIS
            if is_wanted and order.pk not in self._tried_rows and not _is_amended(order):
                open_order = OpenOrder(order.placed, order.stock_code, order.side, order.open_qty)
                self._cancel_one(open_order, order)

    def _of_today(self, states: Collection[Status]) -> QuerySet[TradeOrder]:
        """Return today's orders in these states: the number of another day's order belongs to another order today."""
        orders = TradeOrder.objects.filter(status__in=states, order_date=self._now().astimezone(KST).date())
        return orders.filter(stock_code=self._code) if self._code else orders

    def _cancel_one(self, open_order: OpenOrder, order: TradeOrder | None) -> None:
        number = self._name(open_order)
        if order is not None:
            self._tried_rows.add(order.pk)
        try:
            if order is None:
                self._cancel_without_row(open_order)
            else:
                cancel.Canceller(self._broker, self._now).cancel(order, by=RequestedBy.CANCEL_ALL, who=self._who)
        except BrokerError as error:
            self._result.failed[number] = risk.error_text(error)
            self._failed.append(open_order)
        else:
            self._sent.append(open_order)

    def _cancel_without_row(self, open_order: OpenOrder) -> None:
        """Cancel an open order that has no row; the request has no order until a row is written.

        The request's message starts with the order's key, also after a failure: by it a later row takes the request.
        """
        now, key = self._now(), cancel.open_order_key(open_order)
        request = BrokerRequest.objects.create(
            kind=RequestKind.CANCEL,
            state_at=now,
            requested_at=now,
            requested_by=RequestedBy.CANCEL_ALL,
            who=self._who[:150],
            qty=open_order.qty,
            message=key,
        )
        try:
            acceptance = self._broker.cancel(open_order.placed)
        except BrokerError as error:
            requests.record_failure(request, error, at=self._now())
            BrokerRequest.objects.filter(pk=request.pk).update(message=f"{key}: {error.message}"[:200])
            if not isinstance(error, OutcomeUnknown):
                raise
        else:
            requests.record_acknowledged(request, acceptance, at=self._now())

    def _cancel_the_rest(self) -> OpenList | None:
        """Cancel what else the broker holds open; return its list after that, None if it cannot be read."""
        try:
            open_list = fetch_open(self._broker, self._code)
            for open_order in open_list.orders:
                self._cancel_other(open_order)
            for _ in range(CONFIRM_READS):
                if not any(open_list.shows(open_order) for open_order in self._sent):
                    break
                sleep(CONFIRM_PAUSE_SECONDS)
                open_list = fetch_open(self._broker, self._code)
        except BrokerError as error:
            self._result.unseen = risk.error_text(error)
            return None
        self._result.unseen = open_list.why
        return open_list

    def _cancel_other(self, open_order: OpenOrder) -> None:
        """Cancel an open order of the broker's list, unless it was cancelled by its row."""
        order = row_of(open_order)
        if order is not None and order.pk in self._tried_rows:
            return
        if is_wanted(open_order, order, external=self._external):
            self._cancel_one(open_order, order)
        else:
            self._result.left.append(self._name(open_order))

    def _confirm(self, open_list: OpenList | None) -> None:
        """Sort the cancelled and failed orders by the order list.

        One list may wrongly lack an order, so both lists must agree. A cancel is also refused if the order has just
        filled: that is not a failure.
        """
        unlisted = [order for order in self._sent if open_list is None or not open_list.shows(order)]
        for attempt in range(1 + CONFIRM_READS):
            if all(map(_is_over, [*unlisted, *self._failed])):
                break
            if attempt:
                sleep(CONFIRM_PAUSE_SECONDS)
            self._read_orders()
        for order in self._sent:
            self._sort(order, is_over=order in unlisted and _is_over(order))
        for order in filter(_is_over, self._failed):
            self._result.failed.pop(self._name(order), None)

    def _read_orders(self) -> None:
        """Read the order list, by which open orders get their rows; if that fails, the rest continues."""
        with suppress(BrokerError):
            reconcile.reconcile(self._broker, self._now)

    def _sort(self, order: OpenOrder, *, is_over: bool) -> None:
        if is_over:
            self._result.cancelled.append(self._name(order))
        else:
            text = gettext("the cancel was sent; it is sent again until the broker's list confirms it")
            self._result.unconfirmed[self._name(order)] = text

    def _name(self, order: OpenOrder) -> str:
        """Return an order's name in the report: each branch has its own numbers, so a number may occur twice."""
        number = order.placed.order_no
        if _is_same(order, self._orders_by_number.setdefault(number, order)):
            return number
        return f"{order.placed.branch}-{number}"

    def _report_unanswered(self) -> None:
        """Report the orders without a number to cancel them by. An order with candidates is among the open orders."""
        for order in self._of_today(UNANSWERED).order_by("id"):
            if not order.candidates:
                text = gettext("its answer is not there yet: it is cancelled as soon as it is found")
                self._result.failed[str(order)] = text

    def _wait_for_answers(self) -> None:
        """Wait a moment for the answers of orders on their way."""
        on_the_way = self._of_today([Status.SUBMITTING]).filter(created_at__gt=self._now() - requests.MAX_QUOTE_AGE)
        ends_at = monotonic() + ANSWER_PATIENCE_SECONDS
        while on_the_way.all().exists() and monotonic() <= ends_at:
            sleep(0.05)

    def _end_chases(self) -> None:
        """End the chases between a cancel and its re-order: they have no open order to cancel."""
        chases = TradeOrder.objects.exclude(chase_at=None).exclude(status__in=OPEN)
        for order in chases.filter(stock_code=self._code) if self._code else chases:
            cancel.end_chase(order, gettext("everything is cancelled"), at=self._now())


def fetch_open(broker: Broker, code: str | None) -> OpenList:
    """Return the broker's open orders, of one stock or of all. Raises BrokerError."""
    try:
        lines, unread, why = broker.open_orders(), frozenset[str](), ""
    except PartialResponse as error:
        lines, why = error.read, risk.error_text(error)
        unread = frozenset(line.order_no for line in error.unread)
    codes = canonical_codes({line.code for line in lines})
    orders = [replace(line, code=codes.get(line.code, line.code)) for line in lines]
    return OpenList([order for order in orders if code in (None, order.code)], unread, why)


def is_wanted(open_order: OpenOrder, order: TradeOrder | None, *, external: bool) -> bool:
    """Whether to cancel an open order of the broker: an order of ours, one that may be ours, or any if `external`."""
    is_ours = may_be_ours(open_order) if order is None else order.origin == TradeOrder.Origin.AEGIS
    return external or is_ours


def _is_amended(order: TradeOrder) -> bool:
    """Whether an acknowledged amend of ours has moved the order: then the new order is cancelled instead."""
    return order.replaced_by.filter(status__in=OPEN, made_by__is_whole=True).exists()


def _is_same(first: OpenOrder, second: OpenOrder) -> bool:
    """Whether two lines are the same order: numbers are compared with date, branch, stock and side, never alone."""
    ref, other_ref = first.placed, second.placed
    is_same = (ref.order_date, ref.order_no, first.code, first.side) == (
        other_ref.order_date,
        other_ref.order_no,
        second.code,
        second.side,
    )
    return is_same and same_branch(ref.branch, other_ref.branch)


def _is_over(open_order: OpenOrder) -> bool:
    """Whether an order's row shows that it has ended. Without a row that is not known."""
    order = row_of(open_order)
    return order is not None and order.is_done


def row_of(open_order: OpenOrder) -> TradeOrder | None:
    """Return the row of an open order of the broker, by every field that identifies an order."""
    placed = open_order.placed
    candidates = TradeOrder.objects.filter(
        order_date=placed.order_date,
        order_no=placed.order_no,
        stock_code=canonical(open_order.code),
        order_type=open_order.side,
    )
    return next((row for row in candidates if same_branch(row.branch, placed.branch)), None)


def may_be_ours(open_order: OpenOrder) -> bool:
    """Whether an open order without a row may be ours, with its answer lost: if in doubt, cancel_all cancels it."""
    unanswered = TradeOrder.objects.filter(status__in=UNANSWERED, order_date=open_order.placed.order_date)
    return unanswered.filter(stock_code=open_order.code, order_type=open_order.side).exists()


def would_cancel(broker: Broker, *, external: bool, code: str | None) -> OpenList:
    """Return what `cancel_all` would cancel, by the broker's own list. Raises BrokerError."""
    open_list = fetch_open(broker, code)
    orders = [order for order in open_list.orders if is_wanted(order, row_of(order), external=external)]
    return replace(open_list, orders=orders)
