"""The broker's list of orders is the judge: what notices told is held against it, and corrected.

A list counts only with all its pages; an order that is missing from it once proves nothing, and one that is
missing from a list with unreadable lines never does. Orders placed by hand are adopted; orders whose answer
was lost are looked for.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any

from django.db import DataError, IntegrityError, connection, transaction
from django.db.models import Q

from aegis.broker import Acceptance, Broker, BrokerError, OrderRecord, PartlyRead, UnreadLine
from aegis.lifecycle import OPEN, UNSETTLED, Event, IllegalMove, Status
from aegis.sessions import KST
from aegis.terms import Market
from kis import about
from market import service as market
from orders import fills, journal
from orders.ground import FRESH
from orders.models import RawNotice, Reconciliation, TradeExecution, TradeOrder

log = logging.getLogger(__name__)

Outcome = Reconciliation.Outcome
# outcomes that say what our orders are
READ = (Outcome.WHOLE, Outcome.PARTLY)

# an order with no answer that is absent from so many lists, over so long, never arrived; no request of
# ours is on its way for longer, with every wait and time-out of the client
ABSENT_LOOKS = 3
ABSENT_AFTER = timedelta(seconds=90)
# a sender that has not come back by now is dead, or will find that it may not send any more
SENDER_GONE = timedelta(seconds=60)
# the broker stamps by its own clock, and ours may be wrong: a lost order must not be missed for that
CLOCK_TOLERANCE = timedelta(minutes=2)
# the number of the lock, in the database, of whoever reads the list on behalf of others too
LOOK_LOCK = 5_930
# notices ahead of the list by less than this are not a contradiction yet
LIST_LAG = timedelta(seconds=10)
# an order that the list has not told of for so long is no longer in it
ASKED_FOR = timedelta(days=7)


@dataclass(slots=True)
class Report:
    """What one reconciliation did; `error` names the lines of the list that could not be read."""

    seen: int = 0
    corrected: int = 0
    adopted: int = 0
    resolved: int = 0
    error: str = ""


def is_fresh(now: datetime) -> bool:
    """Whether the newest look at the broker's list told of our orders, not long ago. Nothing is sent before that."""
    newest = Reconciliation.objects.first()
    return newest is not None and newest.outcome in READ and now - newest.at <= FRESH


def begin_anew(now: datetime) -> None:
    """Forget what was reconciled before the workers started: it must be seen again before anything is sent."""
    Reconciliation.objects.create(at=now, outcome=Outcome.BEGUN)


def reconcile(broker: Broker, now: Callable[[], datetime]) -> Report:
    """Ask for the orders of every day that is not settled yet, settle them, and say so.

    Lines that cannot be read, or that our tables refuse, are named in the row; the others count. Raises BrokerError
    where the list cannot be had, or hides an order of ours.
    """
    fills.replay_stranded()
    asked_at = now()
    try:
        records, unread = _listed(broker, asked_at)
    except BrokerError as error:
        Reconciliation.objects.create(at=asked_at, outcome=Outcome.FAILED, error=str(error)[:300])
        raise
    report = _reconcile(records, unread, now, asked_at)
    report.error = "; ".join(map(str, unread))[:300]
    if unread:
        log.error("the broker's list of orders has lines that cannot be read: %s", report.error)
    outcome = _outcome(unread)
    Reconciliation.objects.create(at=asked_at, outcome=outcome, **asdict(report))
    if outcome == Outcome.FAILED:
        raise PartlyRead(records, unread)
    return report


def _listed(broker: Broker, asked_at: datetime) -> tuple[Sequence[OrderRecord], list[UnreadLine]]:
    """Return the orders of every day that is not settled yet, and the lines nobody can read. Raises BrokerError."""
    today = asked_at.astimezone(KST).date()
    wanted = Q(status__in=UNSETTLED) | Q(look_wanted=True, order_date__gte=today - ASKED_FOR)
    first = TradeOrder.objects.filter(wanted).order_by("order_date").values_list("order_date", flat=True).first()
    try:
        return broker.orders(min(first or today, today), today), []
    except PartlyRead as error:
        return error.read, list(error.unread)


def _outcome(unread: Sequence[UnreadLine]) -> Outcome:
    """Return what a list is worth: one that hides an order of ours tells nothing that could be traded on."""
    if not unread:
        return Outcome.WHOLE
    numbers = [line.order_no for line in unread]
    hides_ours = not all(numbers) or TradeOrder.objects.filter(status__in=UNSETTLED, order_no__in=numbers).exists()
    return Outcome.FAILED if hides_ours else Outcome.PARTLY


def forget(before: datetime, at_most: int) -> int:
    """Delete looks of before then that changed nothing; return how many. The others tell why an order is as it is."""
    idle = Reconciliation.objects.filter(at__lt=before, corrected=0, adopted=0, resolved=0)
    return Reconciliation.objects.filter(
        pk__in=list(idle.order_by("id").values_list("pk", flat=True)[:at_most])
    ).delete()[0]


def look(broker: Broker, now: Callable[[], datetime]) -> None:
    """Have the list read, by us or by another worker who begins after this was wanted. Raises BrokerError.

    However many want it at once, it is read twice at most.
    """
    wanted_at = now()
    with _alone():
        newest = Reconciliation.objects.first()
        if newest is None or newest.outcome not in READ or newest.at < wanted_at:
            reconcile(broker, now)


@contextmanager
def _alone() -> Iterator[None]:
    """Hold a lock of the database over calls that no transaction should wait for; it ends with its connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", [LOOK_LOCK])
    try:
        yield
    finally:
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_unlock(%s)", [LOOK_LOCK])


def _reconcile(
    listed: Sequence[OrderRecord], unread: list[UnreadLine], now: Callable[[], datetime], asked_at: datetime
) -> Report:
    records = [record for record in listed if not record.is_cancel]
    report = Report(seen=len(records))
    known = _known(records)
    strangers = []
    for record in records:
        order = known.get(_identity(record))
        if order is None:
            strangers.append(record)
        elif _needs_settling(order, record):
            with _read(record, unread):
                report.corrected += settle(order.pk, record, asked_at=asked_at, now=now())
    _resolve_unanswered(strangers, report, unread, now=now())
    _adopt_strangers(strangers, report, unread, asked_at=asked_at, now=now())
    return report


def _identity(record: OrderRecord) -> tuple[date, str, str, str]:
    return record.order_date, record.order_no, record.code, record.side.value


def _known(records: Sequence[OrderRecord]) -> dict[tuple[date, str, str, str], TradeOrder]:
    """Return the rows of these lines, by what tells one from another."""
    numbers, days = {record.order_no for record in records}, {record.order_date for record in records}
    rows = TradeOrder.objects.filter(order_date__in=days, order_no__in=numbers)
    return {(row.order_date, row.order_no or "", row.stock_code, row.order_type): row for row in rows}


@contextmanager
def _read(record: OrderRecord, unread: list[UnreadLine]) -> Iterator[None]:
    """Count a line as unread that our tables refuse, as one filled over what was asked for: others come after it."""
    try:
        yield
    except (DataError, IntegrityError, IllegalMove) as error:
        unread.append(UnreadLine(record.order_no, f"it cannot be: {_evidence(record)}: {error}".partition("\n")[0]))


def _needs_settling(order: TradeOrder, record: OrderRecord) -> bool:
    """Whether the list may tell more than the row knows; a settled order is passed over without a lock."""
    return (
        order.look_wanted
        or not order.is_done
        or order.filled_qty != record.filled_qty
        or order.filled_amount != record.filled_amount
    )


@about.named
@transaction.atomic
def settle(pk: int, record: OrderRecord, *, asked_at: datetime, now: datetime) -> int:
    """Bring one order in step with its line of the list; return 1 where fills were corrected."""
    order = journal.locked(pk)
    executions = list(order.executions.filter(voided_at__isnull=True).order_by("cumulative_qty"))
    if record.filled_qty < order.filled_qty and any(each.recorded_at > asked_at - LIST_LAG for each in executions):
        return 0  # the list was made before these fills: ask again
    if _is_torn(order, record, asked_at):
        return 0
    corrected = _settle_fills(order, executions, record, asked_at=asked_at, now=now)
    _settle_state(order, record, now=now)
    answered = {} if _is_wanted_since(order, asked_at) else {"look_wanted": False}
    journal.note(order, looked_at=max(order.looked_at or asked_at, asked_at), **answered)
    return corrected


def _is_wanted_since(order: TradeOrder, asked_at: datetime) -> bool:
    """Whether something happened after the list was asked for that only a later one can tell of."""
    if order.cancel_sent_at is not None and order.cancel_sent_at >= asked_at:
        return True
    later = RawNotice.objects.filter(order=order, state=RawNotice.State.DOUBTFUL, received_at__gte=asked_at)
    return later.exists()


def _is_torn(order: TradeOrder, record: OrderRecord, asked_at: datetime) -> bool:
    """Whether the line of an order just cancelled is behind: still open, or it does not add up yet.

    A fill from before the cancel may be still to come; ordered anew, its shares would be bought twice.
    """
    if order.cancel_sent_at is None or asked_at - order.cancel_sent_at >= LIST_LAG:
        return False
    if record.open_qty:
        return order.state is Status.CANCELLED
    told = record.filled_qty + record.cancelled_qty + record.rejected_qty
    return record.cancelled_qty > 0 and told < record.qty


def _settle_fills(
    order: TradeOrder,
    executions: Sequence[TradeExecution],
    record: OrderRecord,
    *,
    asked_at: datetime,
    now: datetime,
) -> int:
    doubtful = RawNotice.objects.filter(order=order, state=RawNotice.State.DOUBTFUL, received_at__lt=asked_at)
    if (order.filled_qty, order.filled_amount) == (record.filled_qty, record.filled_amount):
        doubtful.update(state=RawNotice.State.DUPLICATE)
        return 0
    for execution in reversed(executions):
        if _fits(order, record):
            break
        fills.void(execution, order, now=now, why="not on the broker's list")
    qty, amount = record.filled_qty - order.filled_qty, record.filled_amount - order.filled_amount
    if qty:
        fills.count(order, _listed_fill(qty, amount, record, now=now), now=now)
    doubtful.update(state=RawNotice.State.DUPLICATE)
    log.warning("order %s: fills corrected to %d shares by the broker's list", order.pk, record.filled_qty)
    return 1


def _fits(order: TradeOrder, record: OrderRecord) -> bool:
    """Whether what is left to add makes sense: shares with a price, or nothing at all."""
    qty, amount = record.filled_qty - order.filled_qty, record.filled_amount - order.filled_amount
    return (qty > 0 and amount > 0) or (qty == 0 and amount == 0)


def _listed_fill(qty: int, amount: int, record: OrderRecord, *, now: datetime) -> fills.Fill:
    in_day = record.order_date == now.astimezone(KST).date()
    return fills.Fill(
        qty=qty,
        price=(Decimal(amount) / qty).quantize(Decimal("0.0001")),
        amount=amount,
        executed_at=now if in_day else datetime.combine(record.order_date, record.placed_at, KST),
        source=TradeExecution.Source.LIST,
        market=record.market,
    )


def _settle_state(order: TradeOrder, record: OrderRecord, *, now: datetime) -> None:
    event = _event(order, record, now)
    if event is not None:
        ended = {} if order.cancel_sent_at and event is Event.CANCELLED else {"chase_at": None}
        if not journal.move(order, event, at=now, detail=_evidence(record), **ended):
            raise RuntimeError(f"order {order.pk} moved under our lock")


def _event(order: TradeOrder, record: OrderRecord, now: datetime) -> Event | None:
    """Return what the list says became of an order that we hold for open."""
    if order.state not in OPEN:
        return None
    if record.rejected_qty and not record.filled_qty:
        return Event.REFUSED if order.state is Status.PENDING else None
    if _day_is_over(order, now) and order.cancel_sent_at is None:
        return Event.EXPIRED  # the list shows what the close took back as cancelled
    if record.open_qty == 0 and (record.cancelled_qty or record.is_cancelled):
        return Event.CANCELLED
    return Event.EXPIRED if _day_is_over(order, now) else None


def _day_is_over(order: TradeOrder, now: datetime) -> bool:
    """Whether no venue can fill this order any more: a SOR remainder lives on NXT until its last phase ends."""
    today = now.astimezone(KST).date()
    return order.order_date < today or (order.order_date == today and market.days_over(now))


def _evidence(record: OrderRecord) -> str:
    return (
        f"list: ordered {record.qty}, filled {record.filled_qty}, open {record.open_qty}, "
        f"cancelled {record.cancelled_qty}, refused {record.rejected_qty}"
    )


def _resolve_unanswered(
    strangers: list[OrderRecord], report: Report, unread: list[UnreadLine], *, now: datetime
) -> None:
    """Look for the orders whose answer was lost among those of the list that no row claims.

    Absence from a list with `unread` lines is not counted: a line that nobody can read may be the order.
    """
    for order in _unanswered(now):
        found = [record for record in strangers if _could_be(order, record)]
        if len(found) == 1:
            strangers.remove(found[0])
            with _read(found[0], unread):
                report.resolved += _claim(order, found[0], now=now)
        elif found:
            _call_a_person(order, found, now=now)
        elif not unread:
            _count_absence(order, report, now=now)


def _claim(order: TradeOrder, record: OrderRecord, *, now: datetime) -> bool:
    """Take a line of the list for the order whose answer was lost; False where another was first."""
    acceptance = Acceptance(record.branch, record.order_no, record.placed_at)
    try:
        with transaction.atomic():
            if not journal.accepted(order, acceptance, at=now, evidence=_evidence(record)):
                return False
    except IntegrityError:
        log.warning("order %s: number %s has just been taken by another row", order.pk, record.order_no)
        return False
    fills.replay(order)
    settle(order.pk, record, asked_at=now, now=now)
    return True


def _call_a_person(order: TradeOrder, found: Sequence[OrderRecord], *, now: datetime) -> None:
    """Keep what the order could be, for a person to decide; said once for each set of candidates."""
    candidates = [_candidate(record) for record in found]
    numbers = ", ".join(each["order_no"] for each in candidates)
    if [each["order_no"] for each in order.candidates] != [each["order_no"] for each in candidates]:
        log.error("order %s could be any of %s at the broker: a person must decide", order.pk, numbers)
        journal.write(order, "UNDECIDED", numbers, at=now)
    journal.note(order, candidates=candidates, absent_looks=0)


def _candidate(record: OrderRecord) -> dict[str, Any]:
    """Return what a person needs to tell two orders apart."""
    return {
        "order_no": record.order_no,
        "branch": record.branch,
        "market": record.market.value,
        "placed_at": f"{record.placed_at:%H:%M:%S}",
        "qty": record.qty,
        "price": record.price,
        "filled_qty": record.filled_qty,
        "open_qty": record.open_qty,
        "cancelled_qty": record.cancelled_qty,
    }


def _unanswered(now: datetime) -> Sequence[TradeOrder]:
    """Return the orders to look for: UNKNOWN ones, and those whose sender died before recording an answer."""
    stale = now - SENDER_GONE
    lost = TradeOrder.objects.filter(status=Status.UNKNOWN) | TradeOrder.objects.filter(
        status=Status.SUBMITTING, created_at__lt=stale
    )
    orders = list(lost.order_by("id"))
    for order in orders:
        if order.state is Status.SUBMITTING:
            journal.move(order, Event.NO_ANSWER, at=now, detail="its sender did not come back", look_wanted=True)
    return orders


def _could_be(order: TradeOrder, record: OrderRecord) -> bool:
    """Whether a line is what was asked for, placed while the request may have been on its way and not hours later."""
    placed_at = datetime.combine(record.order_date, record.placed_at, KST)
    latest = (order.sent_at or order.created_at) + ABSENT_AFTER + CLOCK_TOLERANCE
    return (
        record.code == order.stock_code
        and record.side == order.side
        and record.qty == order.qty
        and record.price == order.price
        and record.kind.value == order.order_kind
        and (record.market == Market(order.market) or order.market == Market.SOR)
        and order.created_at - CLOCK_TOLERANCE <= placed_at <= latest
    )


def _count_absence(order: TradeOrder, report: Report, *, now: datetime) -> None:
    looks = order.absent_looks + 1
    journal.note(order, absent_looks=looks)
    if looks >= ABSENT_LOOKS and now - (order.sent_at or order.created_at) >= ABSENT_AFTER:
        report.resolved += journal.absent(order, f"absent from {looks} complete lists", at=now)


def _adopt_strangers(
    strangers: Sequence[OrderRecord], report: Report, unread: list[UnreadLine], *, asked_at: datetime, now: datetime
) -> None:
    """Take in orders placed elsewhere. One that a request of ours may still claim waits for that answer."""
    for record in strangers:
        with _read(record, unread):
            if _turned_up(record, now=now):
                report.resolved += 1
            elif not _is_claimable(record) and (order := _adopt(record, asked_at=asked_at, now=now)):
                report.adopted += 1
                fills.replay(order)  # what came before its row was to be seen


def _is_claimable(record: OrderRecord) -> bool:
    unanswered = TradeOrder.objects.filter(status__in=[Status.SUBMITTING, Status.UNKNOWN])
    return unanswered.filter(stock_code=record.code, order_type=record.side).exists()


def _turned_up(record: OrderRecord, *, now: datetime) -> bool:
    """Whether a line of the list is an order of ours that was given up for lost: it is claimed then.

    One that surely never left is none: a line like it was placed by hand.
    """
    lost = TradeOrder.objects.filter(
        never_arrived=True,
        events__kind=Event.ABSENT,
        order_date=record.order_date,
        stock_code=record.code,
        order_type=record.side,
    )
    found = [order for order in lost.order_by("-id") if _could_be(order, record)]
    return len(found) == 1 and _claim(found[0], record, now=now)


@transaction.atomic
def _adopt(record: OrderRecord, *, asked_at: datetime, now: datetime) -> TradeOrder | None:
    """Write the row of an order placed by hand, and its fills; None where somebody else has just done so."""
    row = TradeOrder(
        request_id=f"external:{record.order_date:%Y%m%d}:{record.branch}:{record.order_no}",
        origin=TradeOrder.Origin.EXTERNAL,
        stock_code=record.code,
        stock_name=record.name,
        order_type=record.side,
        market=record.market,
        order_kind=record.kind,
        qty=record.qty,
        price=record.price,
        order_date=record.order_date,
    )
    acceptance = Acceptance(record.branch, record.order_no, record.placed_at)
    evidence = f"placed by hand; {_evidence(record)}"
    placed_at = datetime.combine(record.order_date, record.placed_at, KST)
    try:
        with transaction.atomic():
            journal.found(row, acceptance, placed_at=placed_at, at=now, evidence=evidence)
    except IntegrityError:
        if _identity(record) in _known([record]):
            return None
        raise
    fills.replay(row)
    settle(row.pk, record, asked_at=asked_at, now=now)
    return row
