"""The emergency brake: cancels everything that is open at the broker, on every venue, and says what came of it."""

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
# how often, and how far apart, each list is read again until those that were cancelled are gone
CONFIRM_READS = 2
CONFIRM_PAUSE_SECONDS = 0.5


@dataclass(slots=True)
class CancelAllResult:
    """What became of everything that was open, by order number, with its branch before it if two orders share one.

    `cancelled`: the open-order list lacks them, and an order list that was read later shows them ended. `unconfirmed`:
    the cancel was sent, and the lists do not agree yet; it is sent again. `failed` says why, `left` are external
    orders, `unseen` is why the open orders are not all known.
    """

    cancelled: list[str] = field(default_factory=list)
    unconfirmed: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    left: list[str] = field(default_factory=list)
    unseen: str = ""


@dataclass(frozen=True, slots=True)
class OpenList:
    """The broker's open orders. `unread` are the numbers of lines that cannot be parsed, `why` says why."""

    orders: Sequence[OpenOrder]
    unread: frozenset[str] = frozenset()
    why: str = ""

    def shows(self, found: OpenOrder) -> bool:
        """Whether an order is, or may be, among them."""
        return any(_is_same(found, each) for each in self.orders) or bool({found.placed.order_no, ""} & self.unread)


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
        # what was cancelled, by the key of its row, or by itself where there is none
        self._sent: list[OpenOrder] = []
        self._failed: list[OpenOrder] = []
        self._rows: set[int] = set()
        self._named: dict[str, OpenOrder] = {}

    def run(self) -> CancelAllResult:
        """Cancel what our rows know to be open, then whatever else the broker holds open on any venue.

        It goes on if one fails, and says so. What has no answer yet is cancelled once it is found.
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
            if is_wanted and order.pk not in self._rows and not _is_amended(order):
                found = OpenOrder(order.placed, order.stock_code, order.side, order.open_qty)
                self._cancel_one(found, order)

    def _of_today(self, states: Collection[Status]) -> QuerySet[TradeOrder]:
        """Return the orders in these states; the number of another day's is somebody else's today."""
        orders = TradeOrder.objects.filter(status__in=states, order_date=self._now().astimezone(KST).date())
        return orders.filter(stock_code=self._code) if self._code else orders

    def _cancel_one(self, found: OpenOrder, order: TradeOrder | None) -> None:
        number = self._name(found)
        if order is not None:
            self._rows.add(order.pk)
        try:
            if order is None:
                self._cancel_without_row(found)
            else:
                cancel.Canceller(self._broker, self._now).cancel(order, by=RequestedBy.CANCEL_ALL, who=self._who)
        except BrokerError as error:
            self._result.failed[number] = risk.say_error(error)
            self._failed.append(found)
        else:
            self._sent.append(found)

    def _cancel_without_row(self, found: OpenOrder) -> None:
        """Cancel an open order that no row of ours is; the request stands by itself until one is.

        What it says is kept beside a failure: by that a row that turns up takes it over.
        """
        now, name = self._now(), cancel.open_order_key(found)
        request = BrokerRequest.objects.create(
            kind=RequestKind.CANCEL,
            state_at=now,
            requested_at=now,
            requested_by=RequestedBy.CANCEL_ALL,
            who=self._who[:150],
            qty=found.qty,
            message=name,
        )
        try:
            acceptance = self._broker.cancel(found.placed)
        except BrokerError as error:
            requests.record_failure(request, error, at=self._now())
            BrokerRequest.objects.filter(pk=request.pk).update(message=f"{name}: {error.message}"[:200])
            if not isinstance(error, OutcomeUnknown):
                raise
        else:
            requests.record_acknowledged(request, acceptance, at=self._now())

    def _cancel_the_rest(self) -> OpenList | None:
        """Cancel what else the broker holds open; return what it shows then, None if it does not tell."""
        try:
            shown = fetch_open(self._broker, self._code)
            for each in shown.orders:
                self._cancel_other(each)
            for _ in range(CONFIRM_READS):
                if not any(shown.shows(each) for each in self._sent):
                    break
                sleep(CONFIRM_PAUSE_SECONDS)
                shown = fetch_open(self._broker, self._code)
        except BrokerError as error:
            self._result.unseen = risk.say_error(error)
            return None
        self._result.unseen = shown.why
        return shown

    def _cancel_other(self, found: OpenOrder) -> None:
        """Cancel an open order of the broker's list, unless it was cancelled by its row."""
        order = row_of(found)
        if order is not None and order.pk in self._rows:
            return
        if is_wanted(found, order, external=self._external):
            self._cancel_one(found, order)
        else:
            self._result.left.append(self._name(found))

    def _confirm(self, shown: OpenList | None) -> None:
        """Sort what was cancelled or failed by the order list: one list may lack an order wrongly, so both must agree.

        A cancel is also refused if the order has just filled: that is no failure.
        """
        gone = [each for each in self._sent if shown is None or not shown.shows(each)]
        for reads in range(1 + CONFIRM_READS):
            if all(map(_is_over, [*gone, *self._failed])):
                break
            if reads:
                sleep(CONFIRM_PAUSE_SECONDS)
            self._read_orders()
        for each in self._sent:
            self._sort(each, is_gone=each in gone and _is_over(each))
        for each in filter(_is_over, self._failed):
            self._result.failed.pop(self._name(each), None)

    def _read_orders(self) -> None:
        """Read the list of orders, by which open orders get their rows; without it the rest goes on."""
        with suppress(BrokerError):
            reconcile.reconcile(self._broker, self._now)

    def _sort(self, found: OpenOrder, *, is_gone: bool) -> None:
        if is_gone:
            self._result.cancelled.append(self._name(found))
        else:
            words = gettext("the cancel was sent; it is sent again until the broker's list confirms it")
            self._result.unconfirmed[self._name(found)] = words

    def _name(self, found: OpenOrder) -> str:
        """Return what an order is called in the report: branches number for themselves, so a number may come twice."""
        number = found.placed.order_no
        if _is_same(found, self._named.setdefault(number, found)):
            return number
        return f"{found.placed.branch}-{number}"

    def _report_unanswered(self) -> None:
        """Name the orders that have no number to cancel them by. One with candidates is among what is open."""
        for order in self._of_today(UNANSWERED).order_by("id"):
            if not order.candidates:
                words = gettext("its answer is not there yet: it is cancelled as soon as it is found")
                self._result.failed[str(order)] = words

    def _wait_for_answers(self) -> None:
        """Wait a moment for the answers of orders on their way."""
        on_its_way = self._of_today([Status.SUBMITTING]).filter(created_at__gt=self._now() - requests.MAX_QUOTE_AGE)
        gives_up_at = monotonic() + ANSWER_PATIENCE_SECONDS
        while on_its_way.all().exists() and monotonic() <= gives_up_at:
            sleep(0.05)

    def _end_chases(self) -> None:
        """End the chases that stand between a cancel and its re-order: no open order is there to sweep."""
        between = TradeOrder.objects.exclude(chase_at=None).exclude(status__in=OPEN)
        for order in between.filter(stock_code=self._code) if self._code else between:
            cancel.end_chase(order, gettext("everything is cancelled"), at=self._now())


def fetch_open(broker: Broker, code: str | None) -> OpenList:
    """Return what the broker holds open, of one stock or of all. Raises BrokerError."""
    try:
        found, unread, why = broker.open_orders(), frozenset[str](), ""
    except PartialResponse as error:
        found, why = error.read, risk.say_error(error)
        unread = frozenset(line.order_no for line in error.unread)
    codes = canonical_codes({each.code for each in found})
    orders = [replace(each, code=codes.get(each.code, each.code)) for each in found]
    return OpenList([each for each in orders if code in (None, each.code)], unread, why)


def is_wanted(found: OpenOrder, order: TradeOrder | None, *, external: bool) -> bool:
    """Whether an open order of the broker's is to be cancelled: one of ours, one that may be, or any if `external`."""
    ours = may_be_ours(found) if order is None else order.origin == TradeOrder.Origin.AEGIS
    return external or ours


def _is_amended(order: TradeOrder) -> bool:
    """Whether an acknowledged amend of ours has moved it: it is the new order then that is cancelled."""
    return order.replaced_by.filter(status__in=OPEN, made_by__is_whole=True).exists()


def _is_same(one: OpenOrder, other: OpenOrder) -> bool:
    """Whether two lines are one order: numbers are compared with date, branch, stock and side, never alone."""
    mine, theirs = one.placed, other.placed
    same = (mine.order_date, mine.order_no, one.code, one.side) == (
        theirs.order_date,
        theirs.order_no,
        other.code,
        other.side,
    )
    return same and same_branch(mine.branch, theirs.branch)


def _is_over(found: OpenOrder) -> bool:
    """Whether the row of an order says that it is over. One without a row is not known to be."""
    order = row_of(found)
    return order is not None and order.is_done


def row_of(found: OpenOrder) -> TradeOrder | None:
    """Return the row of an open order of the broker's, by all that tells one order from another."""
    placed = found.placed
    same = TradeOrder.objects.filter(
        order_date=placed.order_date,
        order_no=placed.order_no,
        stock_code=canonical(found.code),
        order_type=found.side,
    )
    return next((row for row in same if same_branch(row.branch, placed.branch)), None)


def may_be_ours(found: OpenOrder) -> bool:
    """Whether an open order that no row is may be one of ours whose answer was lost: cancel_all takes no chances."""
    unanswered = TradeOrder.objects.filter(status__in=UNANSWERED, order_date=found.placed.order_date)
    return unanswered.filter(stock_code=found.code, order_type=found.side).exists()


def would_cancel(broker: Broker, *, external: bool, code: str | None) -> OpenList:
    """Return what `cancel_all` would cancel, by the broker's own list. Raises BrokerError."""
    shown = fetch_open(broker, code)
    wanted = [each for each in shown.orders if is_wanted(each, row_of(each), external=external)]
    return replace(shown, orders=wanted)
