"""The tables of docs/evidence.md against the code: each delay is its constant, and each rule holds for random lines.

The properties take their delays from the tables, not from the code.
"""

import importlib
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from aegis.broker import HeldBack, OrderRecord, UnparsedLine
from aegis.chase import Action, ChaseBy, ChaseSession, ChaseState, Plan, next_step
from aegis.lifecycle import DONE, Status
from aegis.requests import EndCause, RequestedBy, RequestKind, RequestState, SentRequest, attribute
from aegis.sessions import KST, ends_at
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market, OrderKind, Side
from aegis.trading_state import TradingState
from market import queries
from orders import chase, fills, journal, kill_switch, order_list, reconcile, requests, settle, unknown
from orders.models import BlacklistedStock, BrokerRequest, StopRule, TradeExecution, TradeOrder
from orders.requests import Grounds, new_order_check

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("evidence.md", "evidence.ko.md")
UNITS = {"s": 1, "초": 1, "min": 60, "분": 60, "d": 86_400, "일": 86_400, "lists": 0, "개": 0, "reads": 0, "회": 0}
# the modules whose every delay must be in the tables
JUDGES = ("aegis.requests", "orders.settle", "orders.unknown", "orders.order_list", "orders.reconcile")
Delay = timedelta | int

NOW = datetime(2026, 11, 23, 10, 30, tzinfo=KST)
SECOND = timedelta(seconds=1)
NUMBER = "0000000001"
KINDS = st.sampled_from([OrderKind.LIMIT, OrderKind.MARKET, OrderKind.BEST, OrderKind.OWN_BEST, OrderKind.MID])
seconds = st.integers(-90, 240).map(lambda each: timedelta(seconds=each))
in_database = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True
)
pure = settings(max_examples=500, deadline=None, derandomize=True)


# --- the tables ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Row:
    key: str
    delays: tuple[Delay, ...]
    constants: tuple[str, ...]


@cache
def table(page: str = PAGES[0]) -> Mapping[str, Row]:
    lines = (DOCS / page).read_text(encoding="utf-8").splitlines()
    cells = [
        [cell.strip() for cell in line.strip("|").split("|")] for line in lines if re.match(r"\| [A-Z]\d+ \|", line)
    ]
    rows = [Row(key, delays_of(after), tuple(re.findall(r"`([\w.]+)`", names))) for key, *_, after, names, _ in cells]
    assert len({row.key for row in rows}) == len(rows) > 30
    return {row.key: row for row in rows}


def delays_of(after: str) -> tuple[Delay, ...]:
    found = re.findall(r"([\d.]+)\s?(\w+)", after)
    return tuple(timedelta(seconds=float(n) * UNITS[unit]) if UNITS[unit] else int(n) for n, unit in found)


def after(key: str) -> timedelta:
    """Return the first delay of a row."""
    delay = table()[key].delays[0]
    assert isinstance(delay, timedelta)
    return delay


def constant(name: str) -> Delay:
    module, _, attribute_name = name.rpartition(".")
    value = getattr(importlib.import_module(module), attribute_name)
    is_seconds = attribute_name.endswith("_SECONDS")
    return timedelta(seconds=value) if is_seconds else value


@pytest.mark.parametrize("page", PAGES)
def test_each_delay_of_the_tables_is_a_constant_of_the_code(page: str) -> None:
    for row in table(page).values():
        assert row.delays == tuple(constant(name) for name in row.constants), row.key


def test_both_languages_have_the_same_rows() -> None:
    assert table(PAGES[0]) == table(PAGES[1])


def test_no_delay_of_the_code_is_missing_from_the_tables() -> None:
    named = {name for row in table().values() for name in row.constants}
    for module in JUDGES:
        source = Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8")
        delays = re.findall(r"^([A-Z][A-Z_]+) = (?:timedelta|\d+$)", source, re.MULTILINE)
        assert {f"{module}.{each}" for each in delays} - {"orders.reconcile.LOOK_STOPPED_AFTER"} <= named


# --- orders and lines ------------------------------------------------------------------------------------------------

keys = count(1)


@contextmanager
def undone() -> Iterator[None]:
    """Take back what one example writes."""
    with transaction.atomic():
        yield
        transaction.set_rollback(True)


def order_row(**changes: Any) -> TradeOrder:
    """Return an order that rests at the broker and is chased, not saved."""
    fields: dict[str, Any] = {
        "request_id": f"evidence:{next(keys)}",
        "stock_code": "005930",
        "order_type": Side.BUY.value,
        "market": Market.KRX.value,
        "order_kind": OrderKind.LIMIT.value,
        "qty": 10,
        "price": 69_800,
        "status": Status.PENDING.value,
        "status_at": NOW,
        "order_date": NOW.date(),
        "branch": "06010",
        "order_no": NUMBER,
        "created_at": NOW,
        "quoted_at": NOW,
        "sent_at": NOW,
        "accepted_at": NOW,
        "chase_at": NOW,
        "wait_seconds": 30.0,
        "max_retries": 3,
        "market_after": True,
    }
    return TradeOrder(**{**fields, **changes})


def saved(**changes: Any) -> TradeOrder:
    order = order_row(**changes)
    order.save()
    return order


def line_of(order: TradeOrder, **changes: Any) -> OrderRecord:
    """Return the line of an order of which nothing is filled yet."""
    line = OrderRecord(
        order_date=order.order_date,
        branch="06010",
        order_no=order.order_no or NUMBER,
        original_no="",
        code=order.stock_code,
        name="삼성전자",
        side=order.side,
        kind=OrderKind(order.order_kind),
        market=Market(order.market),
        qty=order.qty,
        price=order.price,
        placed_at=order.created_at.astimezone(KST).time(),
        filled_qty=0,
        filled_amount=0,
        open_qty=order.qty,
        cancelled_qty=0,
        rejected_qty=0,
        is_cancelled=False,
        is_cancel=False,
    )
    return replace(line, **changes)


def change_line(order: OrderRecord, number: int, qty: int, at: datetime, *, is_cancel: bool) -> OrderRecord:
    """Return the line of a cancel or an amend of an order."""
    return replace(
        order,
        order_no=f"{number:010d}",
        original_no=order.order_no,
        qty=qty,
        price=0 if is_cancel else order.price + 100,
        placed_at=at.astimezone(KST).time(),
        filled_qty=0,
        filled_amount=0,
        open_qty=0 if is_cancel else qty,
        cancelled_qty=0,
        is_cancel=is_cancel,
    )


def request_row(order: TradeOrder, state: RequestState, **changes: Any) -> BrokerRequest:
    fields: dict[str, Any] = {
        "order": order,
        "kind": RequestKind.CANCEL.value,
        "state": state.value,
        "state_at": NOW,
        "requested_at": NOW,
        "requested_by": RequestedBy.CHASE.value,
        "qty": order.qty,
        "sent_at": NOW,
    }
    return BrokerRequest.objects.create(**{**fields, **changes})


def settled(order: TradeOrder, record: OrderRecord, asked_at: datetime, **words: Any) -> TradeOrder:
    settle.settle(order.pk, record, asked_at=asked_at, now=asked_at, **words)
    order.refresh_from_db()
    return order


def list_of(lines: Sequence[OrderRecord], asked_at: datetime, *, is_parsed: bool = True) -> order_list.OrderList:
    unread = [] if is_parsed else [UnparsedLine("", "a line of nobody's")]
    return order_list.arrange(list(lines), unread, since=NOW.date(), asked_at=asked_at, now=asked_at)


# --- K1: what was requested proves nothing of what took effect -------------------------------------------------------

lines_drawn = st.lists(st.tuples(st.booleans(), st.integers(1, 6), seconds), max_size=3)
NOT_CONFIRMED = [RequestState.SENT, RequestState.ACKNOWLEDGED, RequestState.UNKNOWN, RequestState.NOT_SENT]


@in_database
@given(
    filled=st.integers(0, 4),
    external=lines_drawn,
    state=st.sampled_from([RequestState.ACKNOWLEDGED, RequestState.NOT_SENT]),
    is_listed=st.booleans(),
    asked=st.integers(0, 120),
    is_complete=st.booleans(),
)
@example(
    filled=0,
    external=[(True, 6, SECOND), (True, 4, SECOND)],
    state=RequestState.ACKNOWLEDGED,
    is_listed=False,
    asked=60,
    is_complete=True,
)
@example(
    filled=2, external=[(True, 4, SECOND)], state=RequestState.ACKNOWLEDGED, is_listed=True, asked=60, is_complete=True
)
@pytest.mark.usefixtures("db")
def test_only_what_a_line_of_our_own_cancel_took_is_ordered_again(
    filled: int,
    external: list[tuple[bool, int, timedelta]],
    state: RequestState,
    *,
    is_listed: bool,
    asked: int,
    is_complete: bool,
) -> None:
    """C1, C4, C6, C9, E1: whatever an external cancel, reduction or amend took beside a cancel of the chase."""
    others = sum(qty for _, qty, _ in external)
    left = 10 - filled - others
    is_listed = is_listed and state is RequestState.ACKNOWLEDGED and left > 0
    assume(left >= 0)
    with undone():
        order = saved()
        own_no = f"{900:010d}" if state is RequestState.ACKNOWLEDGED else ""
        request_row(order, state, order_no=own_no)
        record = line_of(order, filled_qty=filled, filled_amount=filled * order.price)
        related = [
            change_line(record, 100 + i, qty, NOW + at, is_cancel=is_cancel)
            for i, (is_cancel, qty, at) in enumerate(external)
        ]
        if is_listed:
            related.append(change_line(record, 900, left, NOW + timedelta(minutes=5), is_cancel=True))
        cancelled = sum(line.qty for line in related if line.is_cancel)
        record = replace(record, open_qty=0 if is_listed else left, cancelled_qty=cancelled)
        order = settled(order, record, NOW + asked * SECOND, related=related, is_complete=is_complete)
        released = requests.released_qty(requests.all_changes(order))
        assert released <= (left if is_listed else 0)
        assert (order.end_cause == EndCause.OWN_CANCEL) <= is_listed
        if order.is_done and not is_listed:
            assert order.chase_at is None
        if is_listed and order.is_done:
            assert (released, order.end_cause) == (left, EndCause.OWN_CANCEL)


@in_database
@given(
    state=st.sampled_from(NOT_CONFIRMED),
    gave_number=st.booleans(),
    filled=st.integers(0, 9),
    asked=st.integers(0, 180),
    by=st.sampled_from(RequestedBy),
)
@pytest.mark.usefixtures("db")
def test_an_order_that_ended_without_a_line_of_our_cancel_is_not_ordered_again(
    state: RequestState, *, gave_number: bool, filled: int, asked: int, by: RequestedBy
) -> None:
    """E2: it waits while the line of a live request may follow, and is then taken for nobody's or an external one."""
    with undone():
        order = saved()
        has_number = gave_number and state is RequestState.ACKNOWLEDGED
        request_row(order, state, requested_by=by.value, order_no="0000000900" if has_number else "")
        cancelled = order.qty - filled
        amount = filled * order.price
        record = line_of(order, filled_qty=filled, filled_amount=amount, open_qty=0, cancelled_qty=cancelled)
        asked_at = NOW + asked * SECOND
        order = settled(order, record, asked_at)
        reply_deadline, lag = table()["C5"].delays[1], after("E2")
        given_up_at = NOW if state is RequestState.UNKNOWN else NOW + reply_deadline
        may_follow = state is not RequestState.NOT_SENT and asked_at <= given_up_at + lag
        cause = EndCause.UNEXPLAINED if has_number else EndCause.EXTERNAL_CANCEL
        assert order.end_cause == ("" if may_follow else cause)
        assert order.is_open is may_follow
        assert requests.released_qty(requests.all_changes(order)) == 0
        assert may_follow or order.chase_at is None


LOST = [RequestState.SENT, RequestState.UNKNOWN]
PRICES = st.sampled_from([70_100, 70_200])
sent_requests = st.builds(
    lambda kind, state, at, number, *asked: (kind, state, NOW + at, number, *asked),
    st.sampled_from([RequestKind.CANCEL, RequestKind.AMEND]),
    st.sampled_from([*LOST, *LOST, RequestState.REQUESTED, *NOT_CONFIRMED]),
    st.integers(0, 20).map(lambda each: timedelta(seconds=each)),
    st.sampled_from(["", "", "", f"{101:010d}", f"{109:010d}"]),
    st.integers(1, 6),
    st.booleans(),
    PRICES,
)


@pure
@given(
    drawn=st.lists(sent_requests, min_size=1, max_size=2),
    lines=st.lists(st.tuples(st.booleans(), st.integers(1, 6), st.integers(-10, 60), PRICES), min_size=1, max_size=3),
    filled=st.integers(0, 4),
    asked=st.integers(0, 90),
    rest=st.sampled_from([0, 0, 0, 1]),
    is_open=st.booleans(),
)
def test_a_line_without_the_number_of_our_reply_is_ours_only_if_it_can_be_nobody_elses(
    drawn: list[Any], lines: list[tuple[bool, int, int, int]], filled: int, asked: int, rest: int, *, is_open: bool
) -> None:
    """C4 to C6: `rest` shares are open yet, or gone by what no line explains."""
    tolerance, reply_deadline, _ = table()["C5"].delays
    taken = sum(qty for _, qty, *_ in lines)
    order = line_of(order_row(qty=filled + taken + rest), filled_qty=filled)
    order = replace(order, open_qty=rest if is_open else 0)
    related = [
        replace(change_line(order, 101 + i, qty, NOW + at * SECOND, is_cancel=is_cancel), price=price)
        for i, (is_cancel, qty, at, price) in enumerate(lines)
    ]
    ours = [
        SentRequest(i, kind, state, at, at + reply_deadline, *asked_for)
        for i, (kind, state, at, *asked_for) in enumerate(drawn)
    ]
    asked_at = NOW + asked * SECOND
    found = attribute(ours, related, order, asked_at)
    for request in ours:
        by_number = [line for line in related if line.order_no == request.order_no]
        line = found.get(request.pk)
        if request.order_no:
            assert ([line] if line else []) == by_number
        elif line is not None:
            assert request.state in (RequestState.UNKNOWN, RequestState.LAPSED, RequestState.SENT)
            assert request.state is not RequestState.SENT or asked_at > request.sent_at + reply_deadline
            assert line.is_cancel or line.price == request.price
            assert not line.is_cancel or [each for each in related if each.is_cancel] == [line]
            assert line.is_cancel is (request.kind is RequestKind.CANCEL)
            stamped_at = datetime.combine(line.order_date, line.placed_at, KST)
            assert request.sent_at - tolerance <= stamped_at <= request.deadline + tolerance
            assert request.is_whole or line.qty == request.qty
            assert not request.is_whole or rest == 0, "it took all that was open"
            assert line.order_no not in [each.order_no for each in ours]


# --- K2: a chase knows its day, the auction and the hands of others --------------------------------------------------

PLAN = Plan(wait_seconds=30, max_retries=3, step_ticks=1, market_after=True)
ASKING = (Action.CANCEL, Action.AMEND, Action.REORDER)
offsets = st.integers(-900, 900).map(lambda each: NOW + timedelta(seconds=each))
states = st.builds(
    ChaseState,
    status=st.sampled_from([*Status, *[Status.CANCELLED, Status.PENDING] * 4]),
    retries=st.integers(0, 5),
    trade_date=st.sampled_from([NOW.date(), NOW.date(), NOW.date() - timedelta(days=1)]),
    created_at=offsets,
    due_at=st.sampled_from([None, NOW - SECOND, NOW - SECOND, NOW + SECOND]),
    confirmed_at=st.none() | offsets,
    remaining_qty=st.integers(-2, 10),
    has_successor=st.sampled_from([False, False, True]),
    cancel_sent_at=st.none() | offsets,
    resend_at=st.none() | offsets,
    end_cause=st.none() | st.sampled_from(EndCause),
    released_qty=st.integers(0, 10),
    never_arrived=st.booleans(),
    lost=st.integers(0, 4),
    is_at_market=st.sampled_from([False, False, True]),
    by=st.sampled_from(ChaseBy),
)
auctions = st.builds(
    lambda since, minutes: ChaseSession(auction_since=since, auction_until=NOW + timedelta(minutes=minutes)),
    st.integers(1, 600).map(lambda each: NOW - timedelta(seconds=each)),
    st.integers(1, 10),
)
sessions = auctions | st.builds(ChaseSession, is_open=st.booleans(), takes_market=st.booleans(), is_over=st.booleans())


@pure
@given(order=states, session=sessions, may_order=st.booleans(), days=st.sampled_from([0, 0, 1, 3]))
def test_a_chase_asks_for_nothing_after_its_day_or_after_a_hand(
    order: ChaseState, session: ChaseSession, *, may_order: bool, days: int
) -> None:
    now = NOW + timedelta(days=days)
    decision = next_step(order, PLAN, now=now, may_order=may_order, session=session)
    if order.trade_date < now.date():
        assert decision.action in (Action.END, Action.REST, Action.WAIT)
    if decision.action is Action.REORDER:
        is_ours = order.status is Status.CANCELLED and order.end_cause is EndCause.OWN_CANCEL and order.released_qty > 0
        assert is_ours or (order.status is Status.REJECTED and order.never_arrived)
        assert order.remaining_qty > 0
        assert not order.has_successor
    if decision.action in ASKING and order.cancel_sent_at is None:
        assert may_order
        assert session.is_open
        assert not session.is_over


@pure
@given(order=states, session=sessions, may_order=st.booleans(), is_checked=st.booleans())
def test_an_order_rests_while_nothing_may_follow_it(
    order: ChaseState, session: ChaseSession, *, may_order: bool, is_checked: bool
) -> None:
    """Breaks, the end of the last session, and a trading state that forbids new orders."""
    order = replace(order, status=Status.PENDING, due_at=NOW, trade_date=NOW.date(), cancel_sent_at=None)
    order = replace(order, confirmed_at=NOW if is_checked else None)
    action = next_step(order, PLAN, now=NOW, may_order=may_order, session=session).action
    if not may_order or not session.is_open or session.is_over:
        assert action is Action.WAIT
    elif session.auction_since is None:
        assert action in ((Action.CANCEL, Action.AMEND) if is_checked else (Action.CHECK,))


@pure
@given(
    status=st.sampled_from(sorted(DONE)),
    cause=st.none() | st.sampled_from(EndCause),
    released=st.integers(0, 10),
    wanted=st.integers(-1, 10),
    never_arrived=st.booleans(),
    order=states,
)
def test_only_what_our_own_cancel_released_or_never_arrived_is_ordered_again(
    *, status: Status, cause: EndCause | None, released: int, wanted: int, never_arrived: bool, order: ChaseState
) -> None:
    """C9 and E1, for an order after which the plan has steps left."""
    order = replace(order, due_at=NOW, trade_date=NOW.date(), retries=0, lost=0, is_at_market=False)
    order = replace(order, status=status, end_cause=cause, released_qty=released, remaining_qty=wanted)
    order = replace(order, never_arrived=never_arrived, has_successor=False)
    is_ours = status is Status.CANCELLED and cause is EndCause.OWN_CANCEL and released > 0
    is_lost = status is Status.REJECTED and never_arrived
    action = next_step(order, PLAN, now=NOW).action
    assert (action is Action.REORDER) is (wanted > 0 and (is_ours or is_lost))


@pure
@given(order=states, session=auctions, is_step_of_the_auction=st.booleans())
def test_an_order_keeps_its_place_in_an_auction_until_the_result_is_in_the_list(
    order: ChaseState, session: ChaseSession, *, is_step_of_the_auction: bool
) -> None:
    """L6."""
    assert session.auction_since is not None
    assert session.auction_until is not None
    order = replace(order, trade_date=NOW.date(), due_at=NOW - SECOND, remaining_qty=max(1, order.remaining_qty))
    order = replace(order, status=Status.PENDING, cancel_sent_at=None, has_successor=False)
    if is_step_of_the_auction:
        order = replace(order, retries=max(1, order.retries), created_at=session.auction_since + SECOND)
    else:
        order = replace(order, is_at_market=True, never_arrived=False)
    decision = next_step(order, PLAN, now=NOW, session=session)
    assert (decision.action, decision.until) == (Action.WAIT, session.auction_until + after("L6"))


@in_database
@given(
    state=st.sampled_from(NOT_CONFIRMED),
    nights=st.integers(1, 4),
    has_line=st.booleans(),
    filled=st.integers(0, 9),
    is_complete=st.booleans(),
)
@pytest.mark.usefixtures("db")
def test_nothing_of_yesterday_is_ordered_again_in_the_morning(
    state: RequestState, *, nights: int, has_line: bool, filled: int, is_complete: bool
) -> None:
    """E3, and the end of a family with its trade date: whatever was sent in the evening, and whatever the list says."""
    with undone():
        order = saved()
        request_row(order, state, order_no="0000000900" if state is RequestState.ACKNOWLEDGED else "")
        left = order.qty - filled
        record = line_of(order, filled_qty=filled, filled_amount=filled * order.price, open_qty=0, cancelled_qty=left)
        related = [change_line(record, 900, left, NOW + SECOND, is_cancel=True)] if has_line else []
        morning = NOW + timedelta(days=nights)
        order = settled(order, record, morning, related=related, is_complete=is_complete)
        action = chase.next_decision(order, morning).action
        assert action.step is None
        assert not order.is_done or order.chase_at is None or action is Action.END


# --- K4: age is counted from the quote -------------------------------------------------------------------------------


@in_database
@given(quote_age=st.integers(0, 60), commit_age=st.integers(0, 60), is_change=st.booleans())
@pytest.mark.usefixtures("db")
def test_what_leaves_late_leaves_by_the_age_of_its_quote(*, quote_age: int, commit_age: int, is_change: bool) -> None:
    """L5."""
    with undone():
        committed_at, quoted_at = NOW - commit_age * SECOND, NOW - quote_age * SECOND
        grounds = Grounds(quoted_at)
        if is_change:
            order = saved()
            request = request_row(order, RequestState.REQUESTED, requested_at=committed_at, sent_at=None)
            check = requests.change_check(request, order, grounds, lambda: NOW)
        else:
            order = about_to_leave(created_at=committed_at, quoted_at=quoted_at)
            check = new_order_check(order, grounds, lambda: NOW)
        assert why_held_back(check) == ("" if quote_age * SECOND <= after("L5") else "QUOTE")


def about_to_leave(**changes: Any) -> TradeOrder:
    """Return an order that is committed, with its request."""
    unsent: dict[str, Any] = {"order_no": None, "sent_at": None, "accepted_at": None, "chase_at": None}
    order = saved(status=Status.SUBMITTING.value, **{**unsent, **changes})
    request_row(order, RequestState.REQUESTED, kind=RequestKind.NEW.value, sent_at=None)
    return order


def why_held_back(check: Any) -> str:
    """Return the name of the condition that keeps a request, empty if it leaves."""
    try:
        check()
    except HeldBack as held:
        return held.code
    return ""


# --- K5: what was judged before is asked for again -------------------------------------------------------------------

CHANGES = ("STATE", "SESSION", "BLACKLIST", "CHASE", "STOP")


@in_database
@given(changed=st.sets(st.sampled_from(CHANGES)), waited=st.integers(0, 20), is_buy=st.booleans())
@example(changed={"STATE"}, waited=0, is_buy=True)
@example(changed={"SESSION"}, waited=0, is_buy=True)
@example(changed={"BLACKLIST"}, waited=0, is_buy=True)
@example(changed={"CHASE"}, waited=0, is_buy=True)
@example(changed={"STOP"}, waited=0, is_buy=False)
@example(changed=set(), waited=20, is_buy=True)
@pytest.mark.usefixtures("db")
def test_whatever_changed_while_an_order_waited_keeps_it_from_leaving(
    changed: set[str], *, waited: int, is_buy: bool
) -> None:
    """L5: each change between the judgement and the sending, alone and with others."""
    with undone():
        now = NOW + waited * SECOND
        before = saved()
        stop = StopRule.objects.create(**ARMED)
        side = Side.BUY if is_buy else Side.SELL
        order = about_to_leave(order_type=side.value, order_kind=OrderKind.LIMIT.value, created_at=NOW, quoted_at=NOW)
        grounds = Grounds(NOW, follows=before.pk, stop=(stop.pk, stop.generation))
        if "STATE" in changed:
            kill_switch.set_state(TradingState.HALTED, by="kim", reason="a test", at=now)
        if "SESSION" in changed:
            TradeOrder.objects.filter(pk=order.pk).update(order_kind=OrderKind.POST_CLOSE.value)
            order.refresh_from_db()
        if "BLACKLIST" in changed:
            BlacklistedStock.objects.create(stock_code=order.stock_code, reason="a test")
        if "CHASE" in changed:
            TradeOrder.objects.filter(pk=before.pk).update(chase_at=None)
        if "STOP" in changed:
            StopRule.objects.filter(pk=stop.pk).update(state=StopRule.State.DISARMED.value)
        why = why_held_back(new_order_check(order, grounds, lambda: now))
        expected = changed if is_buy else changed - {"BLACKLIST"}
        assert why in (expected or {""})
        order.refresh_from_db()
        state = RequestState.REQUESTED if expected else RequestState.SENT
        assert (order.sent_at, order.requests.get().state) == (None if expected else now, state)


ARMED: dict[str, Any] = {
    "stock_code": "005930",
    "kind": StopKind.STOP_LOSS.value,
    "unit": StopUnit.PRICE.value,
    "value": 65_000,
    "state": StopRule.State.TRIGGERED.value,
    "state_at": NOW,
    "armed_by": "kim",
    "armed_at": NOW,
}


# --- K6: what fits one case must not lose the other ------------------------------------------------------------------


@pure
@given(
    kind=KINDS,
    asked_price=st.sampled_from([69_700, 69_800]),
    listed_price=st.sampled_from([0, 69_700, 69_800]),
    placed=st.integers(-400, 400),
    sent_after=st.integers(0, 60),
    changes=st.sets(st.sampled_from(["qty", "code", "side", "kind", "market", "original_no"]), max_size=1),
)
def test_a_lost_order_is_found_by_what_it_was_sent_with_and_by_nothing_else(
    *, kind: OrderKind, asked_price: int, listed_price: int, placed: int, sent_after: int, changes: set[str]
) -> None:
    """O3: kinds without a price are found at any price that the list prints, kinds with one at theirs alone."""
    price = asked_price if kind.is_priced else 0
    sent_at = NOW + sent_after * SECOND
    order = order_row(order_kind=kind.value, price=price, order_no=None, sent_at=sent_at)
    placed_at = NOW + placed * SECOND
    other: dict[str, Any] = {
        "qty": 11,
        "code": "000660",
        "side": Side.SELL,
        "kind": OrderKind.LIMIT_IOC,
        "market": Market.NXT,
        "original_no": "0000000007",
    }
    line = line_of(order, price=listed_price, placed_at=placed_at.time(), **{name: other[name] for name in changes})
    claim, deadline, tolerance, absent_after = table()["O3"].delays
    assert isinstance(tolerance, timedelta)
    assert isinstance(claim, timedelta)
    may_be = NOW - tolerance <= placed_at <= sent_at + absent_after + tolerance
    fits = may_be and not changes and (not kind.is_priced or listed_price == price)
    assert unknown.could_be(order, line) is fits
    assert unknown.is_in_time(order, line) is (sent_at - claim <= placed_at <= sent_at + deadline + claim)


@in_database
@given(alike=st.integers(0, 3), is_parsed=st.booleans(), kind=KINDS, twins=st.integers(1, 2))
@pytest.mark.usefixtures("db")
def test_a_line_is_claimed_only_if_it_is_the_only_one_and_every_line_was_parsed(
    *, alike: int, is_parsed: bool, kind: OrderKind, twins: int
) -> None:
    """O3 and O10: two candidates are an operator's, and a list with unparsed lines claims nothing."""
    with undone():
        price = 69_800 if kind.is_priced else 0
        lost = {"status": Status.UNKNOWN.value, "order_no": None, "accepted_at": None, "order_kind": kind.value}
        orders = [saved(**lost, price=price, branch="") for _ in range(twins)]
        lines = [line_of(orders[0], order_no=f"{700 + i:010d}", price=69_800) for i in range(alike)]
        answer = list_of(lines, NOW + SECOND, is_parsed=is_parsed)
        reconcile._reconcile(answer)
        for order in orders:
            order.refresh_from_db()
        is_found = is_parsed and alike == twins == 1
        assert [order.order_no for order in orders] == ["0000000700" if is_found else None] * twins
        assert not TradeOrder.objects.filter(origin=TradeOrder.Origin.EXTERNAL).exists()
        expected = [f"{700 + i:010d}" for i in range(alike)] if is_parsed and not is_found else []
        assert [[each["order_no"] for each in order.candidates] for order in orders] == [expected] * twins


# --- lists that lag, are torn, or lack an order ----------------------------------------------------------------------


@in_database
@given(asked=st.lists(st.tuples(st.integers(0, 500), st.booleans()), min_size=1, max_size=7))
@pytest.mark.usefixtures("db")
def test_a_fill_that_the_list_lacks_stands_until_complete_lists_have_lacked_it_long_enough(
    asked: list[tuple[int, bool]],
) -> None:
    """F4."""
    lag, unlisted_for = table()["F4"].delays
    assert isinstance(lag, timedelta)
    with undone():
        order = saved(qty=10)
        count_fill(order, 4)
        first_lacking: datetime | None = None
        is_void = False
        for offset, is_complete in sorted(asked):
            asked_at = NOW + offset * SECOND
            order = settled(order, line_of(order), asked_at, is_complete=is_complete)
            if asked_at >= NOW + lag:
                is_void = is_void or bool(first_lacking and is_complete and asked_at - first_lacking >= unlisted_for)
                first_lacking = first_lacking or (asked_at if is_complete else None)
            assert order.filled_qty == (0 if is_void else 4)
            assert (order.unlisted_since is not None) is (first_lacking is not None and not is_void)


def count_fill(order: TradeOrder, qty: int) -> None:
    fill = fills.Fill(qty, order.price, qty * order.price, NOW, TradeExecution.Source.NOTICE, Market.KRX)
    fills.apply_fill(order, fill, now=NOW)


LISTS = ("complete", "complete", "unparsed", "empty")


@in_database
@given(asked=st.lists(st.tuples(st.integers(0, 150), st.sampled_from(LISTS)), min_size=1, max_size=8))
@example(asked=[(30, "complete"), (60, "complete"), (90, "complete")])
@example(asked=[(1, "complete"), (2, "complete"), (3, "complete"), (89, "complete")])
@example(asked=[(92, "empty"), (93, "empty"), (94, "empty")])
@pytest.mark.usefixtures("db")
def test_an_order_without_an_answer_never_arrived_only_by_complete_lists_over_a_long_time(
    asked: list[tuple[int, str]],
) -> None:
    """O5: an empty list proves nothing while another order is open."""
    looks, absent_after = table()["O5"].delays
    with undone():
        order = saved(status=Status.UNKNOWN.value, order_no=None, branch="", accepted_at=None, chase_at=None)
        other = saved(stock_code="000660", order_no="0000000900", accepted_at=NOW - timedelta(minutes=1))
        lacking = 0
        for offset, what in sorted(asked):
            asked_at, is_complete = NOW + offset * SECOND, what == "complete"
            lines = [] if what == "empty" else [line_of(other)]
            unknown.resolve_unanswered([], list_of(lines, asked_at, is_parsed=what != "unparsed"))
            order.refresh_from_db()
            lacking += is_complete
            never_arrived = is_complete and lacking >= looks and asked_at >= NOW + absent_after  # type: ignore[operator]
            assert order.never_arrived is never_arrived
            assert order.chase_at is None, "its caller sends it again, or not"
            if never_arrived:
                break


@in_database
@given(asked=st.lists(st.tuples(st.integers(0, 150), st.booleans()), min_size=1, max_size=8))
@example(asked=[(20, True), (50, True), (80, True)])
@pytest.mark.usefixtures("db")
def test_an_open_order_that_lists_lack_stays_open_and_is_reported_in_time(asked: list[tuple[int, bool]]) -> None:
    """L2."""
    looks, missing_after, lag = table()["L2"].delays
    assert isinstance(lag, timedelta)
    with undone():
        order = saved()
        other = line_of(order, code="000660", order_no="0000000900")
        lacking: list[datetime] = []
        for offset, is_parsed in sorted(asked):
            asked_at = NOW + offset * SECOND
            reconcile._reconcile(list_of([other], asked_at, is_parsed=is_parsed))
            if is_parsed and asked_at > NOW + lag:
                lacking.append(asked_at)
            order.refresh_from_db()
            is_long = len(lacking) >= looks and lacking[-1] - lacking[0] >= missing_after  # type: ignore[operator]
            assert order.is_open
            assert order.missing_since == (lacking[0] if lacking else None)
            assert order.events.filter(kind="NOT_LISTED").exists() is is_long


@in_database
@given(minutes=st.integers(-3, 3), rest=st.integers(0, 59), is_open=st.booleans(), is_complete=st.booleans())
@pytest.mark.usefixtures("db")
def test_an_order_expires_by_a_complete_list_of_long_enough_after_its_last_session(
    *, minutes: int, rest: int, is_open: bool, is_complete: bool
) -> None:
    """E3."""
    last = ends_at(Market.KRX, OrderKind.LIMIT, queries.today(NOW))
    assert last is not None
    ended_at = datetime.combine(NOW.date(), last, KST)
    asked_at = ended_at + timedelta(minutes=minutes, seconds=rest)
    with undone():
        order = saved()
        record = line_of(order, open_qty=10 if is_open else 0, cancelled_qty=0 if is_open else 10)
        order = settled(order, record, asked_at, is_complete=is_complete)
        if asked_at >= ended_at:
            is_over = is_complete and asked_at >= ended_at + after("E3")
            assert order.state is (Status.EXPIRED if is_over else Status.PENDING)
            assert order.events.filter(kind="OPEN_AFTER_SESSION").exists() is (is_over and is_open)
            assert chase.next_decision(order, asked_at).action.step is None
        else:
            assert order.state is (Status.PENDING if is_open else Status.CANCELLED)


@in_database
@given(first=st.integers(0, 100), pause=st.integers(0, 100), filled=st.integers(0, 9))
@pytest.mark.usefixtures("db")
def test_a_list_that_shows_open_what_a_notice_cancelled_is_believed_after_a_while(
    *, first: int, pause: int, filled: int
) -> None:
    """C3."""
    with undone():
        order = saved(status=Status.CANCELLED.value)
        asked_at, since = NOW + first * SECOND, NOW
        amount = filled * order.price
        record = line_of(order, filled_qty=filled, filled_amount=amount, open_qty=10 - filled)
        order = settled(order, record, asked_at)
        since = asked_at if filled else NOW
        assert order.is_open is (asked_at >= since + after("C3"))
        order = settled(order, record, asked_at + pause * SECOND)
        assert order.is_open is (asked_at + pause * SECOND >= since + after("C3"))
        assert order.filled_qty == filled


@in_database
@given(asked_qty=st.integers(1, 10), taken=st.integers(1, 10), numbered=st.booleans())
@pytest.mark.usefixtures("db")
def test_an_amended_order_has_the_quantity_of_its_line_and_never_more(
    *, asked_qty: int, taken: int, numbered: bool
) -> None:
    """C10: what filled before the amend took effect is not in the order that it led to."""
    asked_qty = max(asked_qty, taken) if numbered else 10
    with undone():
        order = saved()
        state, number = (Status.PENDING, "0000000900") if numbered else (Status.UNKNOWN, None)
        made = saved(qty=asked_qty, price=69_900, status=state.value, order_no=number, root=order, attempt=1)
        TradeOrder.objects.filter(pk=made.pk).update(replaces=order)
        acknowledged = RequestState.ACKNOWLEDGED if numbered else RequestState.UNKNOWN
        words: dict[str, Any] = {"kind": RequestKind.AMEND.value, "makes": made, "state_at": NOW + 20 * SECOND}
        words |= {"qty": asked_qty, "is_whole": asked_qty == 10, "price": made.price}
        request_row(order, acknowledged, order_no=number or "", **words)
        filled = 10 - taken
        record = line_of(order, filled_qty=filled, filled_amount=filled * order.price, open_qty=0)
        line = change_line(record, 900, taken, NOW + SECOND, is_cancel=False)
        order = settled(order, record, NOW + 60 * SECOND, related=[line])
        made.refresh_from_db()
        assert (order.state, order.end_cause) == (Status.CANCELLED, EndCause.OWN_AMEND)
        assert (made.qty, made.order_no, made.state) == (taken, "0000000900", Status.PENDING)


# --- single cases ----------------------------------------------------------------------------------------------------


@pytest.mark.django_db
def test_an_amend_that_was_given_up_is_no_new_order_of_the_list() -> None:
    order = saved()
    made = saved(status="UNKNOWN", order_no=None, branch="", accepted_at=None, root=order, attempt=1, replaces=order)
    request_row(order, RequestState.UNKNOWN, kind="AMEND", makes=made, price=made.price, state_at=NOW + 20 * SECOND)
    record = line_of(order)
    reconcile._reconcile(list_of([record], NOW + 120 * SECOND))
    made.refresh_from_db()
    assert made.never_arrived
    by_hand = replace(line_of(made), order_no="0000000777", placed_at=(NOW + 100 * SECOND).time())
    reconcile._reconcile(list_of([record, by_hand], NOW + 125 * SECOND))
    made.refresh_from_db()
    assert made.order_no is None
    assert TradeOrder.objects.get(origin=TradeOrder.Origin.EXTERNAL).order_no == "0000000777"


@pytest.mark.django_db
def test_a_line_that_a_given_up_order_may_be_waits_for_a_list_with_every_line_parsed() -> None:
    lost = saved(status="UNKNOWN", order_no=None, branch="", accepted_at=None, chase_at=None)
    journal.record_not_found(lost, "absent", at=NOW + 100 * SECOND)
    line = line_of(lost, order_no="0000000777")
    reconcile._reconcile(list_of([line], NOW + 110 * SECOND, is_parsed=False))
    assert not TradeOrder.objects.filter(origin=TradeOrder.Origin.EXTERNAL).exists()
    reconcile._reconcile(list_of([line], NOW + 120 * SECOND))
    lost.refresh_from_db()
    assert lost.order_no == "0000000777"


@pytest.mark.django_db
def test_a_cancel_takes_effect_though_the_list_prints_no_cancelled_quantity() -> None:
    order = saved()
    request_row(order, RequestState.ACKNOWLEDGED, order_no="0000000900")
    record = line_of(order, open_qty=0, cancelled_qty=0, is_cancelled=True)
    own = change_line(record, 900, 10, NOW + SECOND, is_cancel=True)
    order = settled(order, record, NOW + 20 * SECOND, related=[own])
    request = order.requests.get()
    assert (order.state, order.end_cause) == (Status.CANCELLED, EndCause.OWN_CANCEL)
    assert (request.state, request.confirmed_qty) == (RequestState.CONFIRMED, 10)
