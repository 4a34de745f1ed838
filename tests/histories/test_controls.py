"""Each guard switched off makes its story end badly: a guard that nobody would miss is not tested.

Every control plays the same story twice, with the guard and without it, and wants the second to fail.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any
from unittest import mock

import httpx
import pytest
from django.conf import settings
from django.db import IntegrityError

from aegis.broker import Acceptance, Broker, BrokerError, OrderRecord, OrderRequest, OutcomeUnknown, Refused
from aegis.chase import ChaseSession, ChaseState
from aegis.lifecycle import Status
from aegis.requests import EndCause, RequestedBy
from aegis.terms import Market, OrderKind, Side
from aegis.trading_state import TradingState
from infra import clock
from infra.lease import Lease
from kis import codec, factory
from kis.auth import Tokens
from kis.catalogue import CallPriority
from kis.throttle import Throttle
from market import reference_data
from orders import chase, fills, journal, pretrade_context, reconcile, requests, settle, unknown
from orders.cancel_all import OpenList
from orders.models import BrokerRequest, TradeOrder, TradingSwitch
from orders.order_list import OrderList
from orders.requests import Grounds
from orders.service import OrderDenied, OrderIntent, OrderService
from orders.submit import Submitter
from simulator.api.server import Simulator
from tests.histories.conftest import Play
from tests.histories.history import ACCOUNT, OWN_BEST, RESTS_FAR, WRONGS
from tests.orders.test_fills import hear, notice

SAMSUNG = "005930"
Off = Callable[[], AbstractContextManager[Any]]

NOTHING: dict[str, Any] = {}
BUY_NORMAL, BUY_URGENT, BUY_THIN = 0, 1, 6


@contextmanager
def _request_ids_of_no_use() -> Iterator[None]:
    row = Submitter.row

    def forgetful(self: Submitter, draft: Any, request_id: str) -> TradeOrder:
        return row(self, draft, f"{request_id}:{time.monotonic_ns()}")

    with mock.patch.object(Submitter, "row", forgetful):
        yield


@contextmanager
def _written_after() -> Iterator[None]:
    """Save the row when the answer is there, as one would who has not thought about it."""

    def unsaved(order: TradeOrder, *words: Any, at: Any, **more: Any) -> bool:
        order.status, order.status_at, order.created_at = Status.SUBMITTING, at, at
        return True

    def send(self: Submitter, order: TradeOrder, grounds: Grounds | None = None) -> TradeOrder:
        kind = OrderKind(order.order_kind)
        request = OrderRequest(order.stock_code, order.side, Market(order.market), kind, order.qty, order.price)
        acceptance = self._broker.place(request)
        order.save()
        journal.record_accepted(order, acceptance, at=self._now(), evidence="reply")
        return order

    with mock.patch.object(journal, "insert_if_unchanged", unsaved), mock.patch.object(Submitter, "send", send):
        yield


@contextmanager
def _sent_again() -> Iterator[None]:
    """Try once more where no answer came."""
    send = Submitter.send

    def stubborn(self: Submitter, order: TradeOrder, grounds: Grounds | None = None) -> TradeOrder:
        order = send(self, order, grounds)
        if order.state is Status.UNKNOWN:
            TradeOrder.objects.filter(pk=order.pk).update(status=Status.SUBMITTING, sent_at=None)
            order.requests.update(state="REQUESTED")
            order.refresh_from_db()
            order = send(self, order, grounds)
        return order

    with mock.patch.object(Submitter, "send", stubborn):
        yield


def _every_notice_counts() -> AbstractContextManager[Any]:
    return mock.patch.object(fills, "_is_doubtful", return_value=False)


HISTORIES: dict[str, tuple[Off, list[tuple[Any, ...]]]] = {
    "one order per request": (
        _request_ids_of_no_use,
        [("order", BUY_NORMAL, "", "", NOTHING), ("again", 0, "", NOTHING)],
    ),
    "the row before the request": (
        _written_after,
        [("order", BUY_NORMAL, "", "after place", NOTHING), ("again", 0, "", NOTHING)],
    ),
    "no answer is no reason to send again": (_sent_again, [("order", BUY_NORMAL, "answer_lost", "", NOTHING)]),
    "a notice heard twice counts once": (
        _every_notice_counts,
        [
            ("order", BUY_THIN, "", "", NOTHING),
            ("hear", "twice", "", NOTHING),
            ("move", 1, 1, NOTHING),
            ("hear", "old", "", NOTHING),
        ],
    ),
}


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_without_its_guard_ends_badly(play_history: Play, name: str) -> None:
    off, actions = HISTORIES[name]
    assert not any(play_history(actions).values())
    with off():
        assert _ends_badly(play_history, actions), f"nobody would miss: {name}"


def _ends_badly(play_history: Play, actions: list[tuple[Any, ...]]) -> bool:
    try:
        return any(play_history(actions).values())
    except IntegrityError:  # the tables themselves will not hold it
        return True


# --- the rules about an order family, each with the counter of its breaches ----------------------------------------


def _any_cancel_is_ours() -> AbstractContextManager[Any]:
    """Take whatever ended an order for our own cancel, because one was wanted."""
    cause = settle._cause

    def ours(*words: Any, **more: Any) -> EndCause | None:
        found = cause(*words, **more)
        is_cancel = found in (EndCause.EXTERNAL_CANCEL, EndCause.EXTERNAL_AMEND, EndCause.UNEXPLAINED)
        return EndCause.OWN_CANCEL if is_cancel else found

    return _all_of(mock.patch.object(settle, "_cause", ours), _what_was_asked_is_released())


def _any_change_is_ours() -> AbstractContextManager[Any]:
    """The same, and the shares that an order placed elsewhere holds are wanted all the same."""
    wanted = mock.patch.object(chase, "remaining_qty", lambda order, family: order.qty - order.filled_qty)
    return _all_of(_any_cancel_is_ours(), wanted)


def _what_was_asked_is_released() -> AbstractContextManager[Any]:
    """Order again what a cancel asked for, not what the list confirms."""

    def asked(changes: Sequence[BrokerRequest]) -> int:
        return max((each.qty for each in changes if each.requested_by == RequestedBy.CHASE), default=0)

    return mock.patch.object(requests, "released_qty", asked)


def _a_family_outlives_its_day() -> AbstractContextManager[Any]:
    state, session = chase._state, chase._session

    def of_today(order: TradeOrder) -> ChaseState:
        return replace(state(order), trade_date=clock.now().date())

    def never_over(order: TradeOrder, now: datetime) -> ChaseSession:
        return replace(session(order, now), is_over=False)

    return _all_of(mock.patch.object(chase, "_state", of_today), mock.patch.object(chase, "_session", never_over))


def _not_looked_at(condition: str) -> AbstractContextManager[Any]:
    """Leave a condition out of the last check before sending."""
    return mock.patch.dict(requests._CONDITIONS, {condition: "true"})


def _unread_lines_are_nobodys() -> AbstractContextManager[Any]:
    resolve = unknown.resolve_unanswered

    def blind(strangers: Sequence[OrderRecord], answer: OrderList) -> int:
        return resolve(strangers, replace(answer, unread=[]))

    return mock.patch.object(unknown, "resolve_unanswered", blind)


def _the_newest_that_fits_is_ours() -> AbstractContextManager[Any]:
    resolve = unknown.resolve_unanswered

    def newest(strangers: Sequence[OrderRecord], answer: OrderList) -> int:
        return resolve(sorted(strangers, key=lambda line: line.order_no)[-1:], answer)

    return mock.patch.object(unknown, "resolve_unanswered", newest)


def _every_price_is_compared() -> AbstractContextManager[Any]:
    could_be = unknown.could_be

    def same_price(order: TradeOrder, record: OrderRecord) -> bool:
        return record.price == order.price and could_be(order, record)

    return mock.patch.object(unknown, "could_be", same_price)


def _sent_is_cancelled() -> AbstractContextManager[Any]:
    is_over = mock.patch("orders.cancel_all._is_over", return_value=True)
    return _all_of(mock.patch.object(OpenList, "shows", return_value=False), is_over)


@contextmanager
def _all_of(*parts: AbstractContextManager[Any]) -> Iterator[None]:
    with ExitStack() as stack:
        for part in parts:
            stack.enter_context(part)
        yield


def _resting(*then: tuple[Any, ...]) -> list[tuple[Any, ...]]:
    return [("order", RESTS_FAR, "", "", NOTHING), *then]


def _external(how: str) -> list[tuple[Any, ...]]:
    return _resting(("work", 3, "", "", {"external": how}))


def _changed(change: str) -> list[tuple[Any, ...]]:
    return _resting(("work", 3, "", "", {"change": change}))


KILLED = _resting(("work", 3, "", "before the re-order", NOTHING), ("night", "morning", NOTHING))
LOST_WITH_TWIN = [("order", RESTS_FAR, "answer_lost", "", NOTHING), ("twin", 0, NOTHING)]
UNREAD = [*LOST_WITH_TWIN, ("look", "row_unreadable", NOTHING)]

# the counter, what switches the rule off, the history
RULES: dict[str, tuple[str, Off, list[tuple[Any, ...]]]] = {
    "a cancel elsewhere is not overruled": ("external_action_overruled", _any_cancel_is_ours, _external("cancel")),
    "an amend elsewhere is not overruled": ("external_action_overruled", _any_change_is_ours, _external("amend")),
    "what was released is ordered again": (
        "reordered_more_than_released",
        _what_was_asked_is_released,
        _external("cancel part"),
    ),
    "a family ends with its trade date": ("ordered_next_day", _a_family_outlives_its_day, KILLED),
    "nothing leaves by an old quote": ("sent_stale", partial(_not_looked_at, "QUOTE"), _changed("late")),
    "nothing leaves once trading is halted": (
        "sent_after_change",
        partial(_not_looked_at, "STATE"),
        _changed("halt"),
    ),
    "nothing of a stock that was blacklisted": (
        "sent_after_change",
        partial(_not_looked_at, "BLACKLIST"),
        _changed("blacklist"),
    ),
    "nothing of a chase that was ended": (
        "sent_after_change",
        partial(_not_looked_at, "CHASE"),
        _changed("end chase"),
    ),
    "nothing leaves into another session": (
        "sent_after_change",
        lambda: _all_of(_not_looked_at("SESSION"), _not_looked_at("QUOTE")),
        _changed("close"),
    ),
    "unread lines may be ours": ("claimed_wrongly", _unread_lines_are_nobodys, UNREAD),
    "of two that fit none is ours": ("claimed_wrongly", _the_newest_that_fits_is_ours, LOST_WITH_TWIN),
    "a kind without a price has none to compare": (
        "duplicate_orders",
        _every_price_is_compared,
        [("print_as", "cancelled", "cancelled", "standing", NOTHING), ("order", OWN_BEST, "answer_lost", "", NOTHING)],
    ),
    "nothing is cancelled that the list shows open": (
        "called_cancelled_while_open",
        _sent_is_cancelled,
        _resting(("cancel_all", "cancel_ignored", NOTHING)),
    ),
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_that_is_switched_off_is_counted(play_history: Play, name: str) -> None:
    counter, off, actions = RULES[name]
    wrongs = play_history(actions)
    assert not any(wrongs.values()), wrongs
    with off():
        assert play_history(actions)[counter], f"nobody would miss: {name}"


def test_every_counter_of_a_rule_has_a_rule_that_raises_it() -> None:
    assert {counter for counter, _, _ in RULES.values()} >= set(WRONGS) - {"overfills", "ledger_differs"}


# --- guards whose stories are no histories -------------------------------------------------------


@pytest.fixture
def service(db: None, broker: Broker, simulator: Simulator) -> OrderService:
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    simulator.set_price(SAMSUNG, 70_000, freeze=True)
    return OrderService(broker, clock.now)


def _placed(service: OrderService, **words: Any) -> TradeOrder:
    return service.place(OrderIntent(SAMSUNG, Side.BUY, 10, **({"strategy": "buy_normal"} | words)))


@pytest.mark.parametrize("guarded", [True, False])
def test_absence_is_believed_only_when_repeated(service: OrderService, broker: Broker, guarded: bool) -> None:
    def lost(request: Any) -> Acceptance:
        broker.place(request)
        raise OutcomeUnknown("no answer")

    losing = mock.MagicMock(wraps=broker, place=lost)
    order = _placed(OrderService(losing, clock.now))
    off = nullcontext() if guarded else mock.patch.multiple(unknown, ABSENT_LISTS=1, ABSENT_AFTER=timedelta(0))
    with off, mock.patch.object(broker, "orders", return_value=[]):
        reconcile.reconcile(broker, clock.now)
    order.refresh_from_db()
    assert (order.state is Status.UNKNOWN) is guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_a_stock_with_an_order_of_unknown_fate_waits(
    service: OrderService, broker: Broker, simulator: Simulator, guarded: bool
) -> None:
    def lost(request: Any) -> Acceptance:
        broker.place(request)
        raise OutcomeUnknown("no answer")

    _placed(OrderService(mock.MagicMock(wraps=broker, place=lost), clock.now))
    real = pretrade_context._competing_orders

    def thawed(*words: Any) -> Any:
        seen = real(*words)
        return replace(seen, others=replace(seen.others, blocked_by_unknown=""))

    with (
        nullcontext() if guarded else mock.patch.object(pretrade_context, "_competing_orders", thawed),
        suppress(OrderDenied),
    ):
        _placed(service)
    assert (len(simulator.ledger(ACCOUNT)["orders"]) == 1) is guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_nothing_is_sent_before_the_list_was_read(service: OrderService, simulator: Simulator, guarded: bool) -> None:
    real = pretrade_context._competing_orders
    fresh = mock.patch.object(
        pretrade_context, "_competing_orders", lambda *words: replace(real(*words), reconciled=True)
    )
    off = nullcontext() if guarded else fresh
    with off:
        _placed(service)
    paths = [each["path"].rpartition("/")[2] for each in simulator.events() if each["event"] == "request"]
    assert ("inquire-daily-ccld" in paths) is guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_the_switch_is_looked_at_in_the_moment_of_sending(
    service: OrderService, simulator: Simulator, guarded: bool
) -> None:
    commit = journal.insert_if_unchanged

    def switched(*words: Any, **more: Any) -> bool:
        is_written = commit(*words, **more)
        TradingSwitch.objects.update(state=TradingState.HALTED)
        return is_written

    blind = mock.patch.dict(requests._CONDITIONS, {"STATE": "true"})
    off = nullcontext() if guarded else blind
    with off, mock.patch.object(journal, "insert_if_unchanged", switched):
        _placed(service)
    assert (simulator.ledger(ACCOUNT)["orders"] == []) is guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_an_order_is_cancelled_where_it_went(
    service: OrderService, simulator: Simulator, clock_at: Callable[[str], object], guarded: bool
) -> None:
    clock_at("2026-11-23 08:10:00")
    order = _placed(service, market=Market.NXT)
    if not guarded:
        TradeOrder.objects.filter(pk=order.pk).update(market=Market.KRX)
        order.refresh_from_db()
    with nullcontext() if guarded else pytest.raises(Refused):
        service.cancel(order)
    (theirs, *_) = [each for each in simulator.ledger(ACCOUNT)["orders"] if each["request"] == "new"]
    assert (theirs["status"] == "cancelled") is guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_a_strangers_fill_is_not_ours(service: OrderService, guarded: bool) -> None:
    order = _placed(service)
    text = notice(order.order_no, account="9999999901")
    if guarded:
        hear(text)
    else:
        (heard,) = codec.notices(codec.Data("H0STCNI0", 1, text))
        fills.ingest(heard, account=heard.account, now=clock.now(), arrived=time.perf_counter())
    order.refresh_from_db()
    assert (order.filled_qty == 0) is guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_a_notice_before_its_order_waits_in_the_inbox(service: OrderService, broker: Broker, guarded: bool) -> None:
    def early(request: Any) -> Acceptance:
        acceptance = broker.place(request)
        hear(notice(acceptance.order_no))
        return acceptance

    hasty = mock.MagicMock(wraps=broker, place=early)
    off = nullcontext() if guarded else mock.patch.object(fills, "replay")
    with off:
        order = _placed(OrderService(hasty, clock.now))
    assert (order.filled_qty == order.qty) is guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_calls_keep_to_the_allowance(broker: Broker, simulator: Simulator, guarded: bool) -> None:
    throttle = Throttle(factory.store(), "control", 5)
    at: list[float] = []
    until = time.monotonic() + 1.5
    while time.monotonic() < until:
        with throttle.slot(CallPriority.QUOTE, deadline_seconds=5.0) if guarded else nullcontext():
            at.append(time.monotonic())
        time.sleep(0.02)
    most = max(sum(1 for each in at if start <= each < start + 1.0) for start in at)
    assert (most <= 5) is guarded


class NoLock:
    """A lock that keeps nobody out."""

    def acquire(self, **words: Any) -> bool:
        return True

    def release(self) -> None:
        return None


def _give_up(seconds: float) -> None:
    """Wait for no minute between two tokens: the story is told."""
    raise LookupError


@pytest.mark.parametrize("guarded", [True, False])
def test_one_of_many_asks_for_a_token(simulator: Simulator, store: Any, guarded: bool) -> None:
    asked: list[int] = []

    class Counting(Tokens):
        def _ask(self) -> Any:
            asked.append(1)
            time.sleep(0.2)
            return super()._ask()

    def get() -> None:
        shared = settings.REDIS_CLIENT()
        if not guarded:
            shared.lock = lambda *args, **words: NoLock()
        with httpx.Client(trust_env=False) as http, suppress(BrokerError), suppress(LookupError):
            Counting(settings.KIS_ENVIRONMENT, settings.KIS_CREDENTIALS, http, shared, sleep=_give_up).get()

    threads = [threading.Thread(target=get) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert (len(asked) == 1) is guarded


@pytest.mark.parametrize("guarded", [True, False])
def test_one_holds_the_socket(store: Any, guarded: bool) -> None:
    off = nullcontext() if guarded else mock.patch.object(Lease, "take", return_value=1)
    with off:
        holders = [bool(Lease(store, "control:socket", 5.0).take()) for _ in range(2)]
    assert (sum(holders) == 1) is guarded
