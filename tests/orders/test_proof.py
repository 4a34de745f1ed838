"""What counts as proof where replies, lists and people disagree; the rules are in docs/evidence.md."""

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal
from typing import Any
from unittest import mock

import pytest

from aegis.broker import Acceptance, Broker, BrokerOrderRef, OrderRecord, PartialResponse, UnparsedLine
from aegis.chase import Plan
from aegis.lifecycle import Status
from aegis.requests import EndCause
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market, Side
from infra import clock
from market import reference_data
from orders import chase, fills, reconcile, stops
from orders.cancel import Canceller
from orders.models import RawNotice, StopRule, TradeOrder
from orders.service import OrderDenied, OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from simulator.api.server import Simulator

from .conftest import SAMSUNG
from .exchange_log import ACCOUNT, at_stake
from .helpers import cancel_externally, fresh, place_externally
from .test_fills import hear, notice

CHANGE = "order-rvsecncl"
LIST = "inquire-daily-ccld"
Buy = Callable[..., TradeOrder]
After = Callable[[float], None]
Turn = Callable[..., None]
BUY = OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_normal")


@pytest.fixture
def step(broker: Broker) -> Callable[..., object]:
    """Take one step of an order's chase."""
    return lambda order, at=broker: chase.run_step(order.pk, at, clock.now)


def ordered(simulator: Simulator) -> int:
    """Return the shares of all new orders that reached the exchange."""
    return sum(each["quantity"] for each in simulator.ledger(ACCOUNT)["orders"] if each["request"] == "new")


def standing(simulator: Simulator) -> int:
    """Return the shares that are filled or open there."""
    orders = [each for each in simulator.ledger(ACCOUNT)["orders"] if each["request"] != "cancel"]
    return sum(each["quantity"] - each["cancelled"] for each in orders)


# --- lists that lack what we know -------------------------------------------------------------------------------------


@pytest.fixture
def lost_reorder(buy: Buy, step: Callable[..., object], after: After, simulator: Simulator) -> TradeOrder:
    """A re-order that arrived and whose answer was lost."""
    order = buy()
    after(31)
    for _ in range(3):  # check, cancel, confirm
        step(order)
    simulator.fault("answer_lost", path="order-cash", count=1)
    after(1)
    step(order)
    simulator.clear_faults()
    lost = order.retries.get()
    assert lost.state is Status.UNKNOWN
    return lost


@pytest.mark.parametrize(("fault", "words"), [("empty_list", {"path": LIST}), ("order_missing", {"code": SAMSUNG})])
def test_a_list_that_lacks_known_orders_proves_no_absence(
    lost_reorder: TradeOrder, simulator: Simulator, turn: Turn, fault: str, words: dict[str, Any]
) -> None:
    simulator.fault(fault, **words)
    turn(60)
    assert max(at_stake(simulator.events(), SAMSUNG)) == 10
    assert fresh(lost_reorder).state is Status.UNKNOWN


def test_an_order_of_yesterday_expires_by_its_own_line(
    buy: Buy, broker: Broker, clock_at: Callable[[str], object]
) -> None:
    order = buy(price=69_000)
    clock_at("2026-11-24 10:00:00")
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    torn = mock.MagicMock(wraps=broker, orders=lambda since, until: _torn(broker.orders(since, until)))
    reconcile.reconcile(torn, clock.now)
    assert fresh(order).state is Status.EXPIRED


def _torn(lines: Any) -> list[OrderRecord]:
    raise PartialResponse(list(lines), [UnparsedLine("0000000777", "its kind is 51")])


def test_the_line_of_another_branch_is_not_ours_while_our_own_is_there(buy: Buy, broker: Broker, after: After) -> None:
    order = buy(price=69_000)

    def both(since: Any, until: Any) -> list[OrderRecord]:
        (line,) = broker.orders(since, until)
        return [replace(line, branch="00950", filled_qty=10, filled_amount=690_000, open_qty=0), line]

    after(15)
    reconcile.reconcile(mock.MagicMock(wraps=broker, orders=both), clock.now)
    assert (fresh(order).state, order.filled_qty) == (Status.PENDING, 0)
    assert TradeOrder.objects.filter(branch="00950", origin=TradeOrder.Origin.EXTERNAL).exists()


# --- whose line it is -------------------------------------------------------------------------------------------------


@pytest.fixture
def read_before_the_reply(broker: Broker) -> Any:
    """A broker whose list is read between a cancel's bytes and its reply."""

    def cancel(placed: BrokerOrderRef) -> Acceptance:
        answer = broker.cancel(placed)
        reconcile.reconcile(broker, clock.now)
        return answer

    return mock.MagicMock(wraps=broker, cancel=cancel)


def test_a_list_read_before_the_reply_ends_no_chase(
    buy: Buy, after: After, turn: Turn, step: Callable[..., object], read_before_the_reply: Any
) -> None:
    order = buy()
    after(31)
    step(order)
    step(order, read_before_the_reply)
    turn(5)
    assert fresh(order).end_cause == EndCause.OWN_CANCEL
    assert order.retries.exists()


def test_a_stop_goes_on_though_the_list_was_read_before_the_reply(
    buy: Buy, broker: Broker, simulator: Simulator, after: After, turn: Turn, step: Any, read_before_the_reply: Any
) -> None:
    shares = {"account": ACCOUNT, "code": SAMSUNG, "quantity": 10, "cost": 700_000}
    simulator.command("POST", "/simulator/shares", shares)
    KISFetcher(broker, clock.now).sync_portfolio()
    stop = stops.arm(SAMSUNG, StopKind.TAKE_PROFIT, StopUnit.PRICE, Decimal(75_000), by="kim", at=clock.now())
    simulator.set_price(SAMSUNG, 75_100, freeze=True)
    assert stops.trigger(stop.pk, 75_100, clock.now(), seen="feed")
    stops.run_sale_step(stop.pk, broker, clock.now)
    order = TradeOrder.objects.get()
    assert order.is_open
    after(31)
    stops.run_sale_step(stop.pk, read_before_the_reply, clock.now)
    for _ in range(10):
        turn()
        stops.run_sale_step(stop.pk, broker, clock.now)
    assert StopRule.objects.get().state == StopRule.State.ORDERED
    assert TradeOrder.objects.count() > 1
    assert standing(simulator) == 10


@pytest.mark.parametrize("fault", ["", "answer_lost", "receipt_without_number"])
@pytest.mark.parametrize("lag", [15.0, 60.0])
def test_our_own_cancel_that_the_list_shows_late_is_ours(
    buy: Buy, simulator: Simulator, after: After, turn: Turn, step: Any, fault: str, lag: float
) -> None:
    order = buy(plan=Plan(30, 5, 0, market_after=False))
    after(100)
    step(order)
    if fault:
        simulator.fault(fault, path=CHANGE, count=1)
    step(order)
    simulator.clear_faults()
    simulator.fault("list_lag", seconds=lag)
    turn(30)
    simulator.clear_faults()
    turn(5)
    assert max(at_stake(simulator.events(), SAMSUNG)) == 10
    assert (fresh(order).end_cause, standing(simulator)) == (EndCause.OWN_CANCEL, 10)


@pytest.mark.parametrize("fault", ["", "answer_lost"])
def test_our_own_cancel_whose_line_cannot_be_parsed_is_called_nobodys(
    buy: Buy, broker: Broker, simulator: Simulator, after: After, turn: Turn, step: Any, fault: str
) -> None:
    def torn(since: Any, until: Any) -> list[OrderRecord]:
        read = list(broker.orders(since, until))
        bad = [UnparsedLine(line.order_no, "its kind is 51") for line in read if line.is_cancel]
        if bad:
            raise PartialResponse([line for line in read if not line.is_cancel], bad)
        return read

    order = buy()
    after(31)
    step(order)
    if fault:
        simulator.fault(fault, path=CHANGE, count=1)
    step(order)
    turn(20, at=mock.MagicMock(wraps=broker, orders=torn))
    assert fresh(order).end_cause == ""
    turn(5)
    assert (order.retries.exists(), fresh(order).end_cause) == (True, EndCause.OWN_CANCEL)


def test_an_external_cancel_is_not_ours_long_after_the_sender_of_ours_died(
    buy: Buy, simulator: Simulator, after: After, turn: Turn, step: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Death(BaseException):
        """No handler catches it."""

    def die(self: Canceller, placed: BrokerOrderRef, qty: int | None) -> Acceptance:
        assert placed.last_check is not None
        placed.last_check()
        raise Death

    order = buy()
    after(31)
    step(order)
    with monkeypatch.context() as patch:
        patch.setattr(Canceller, "_send", die)
        with pytest.raises(Death):
            step(order)
    after(20)
    cancel_externally(simulator, order)
    after(20)
    turn(10)
    assert (fresh(order).end_cause, ordered(simulator)) == (EndCause.EXTERNAL_CANCEL, 10)


def test_an_external_cancel_after_ours_was_given_up_is_not_ours(
    buy: Buy, simulator: Simulator, after: After, turn: Turn, step: Any
) -> None:
    order = buy(plan=Plan(600, 1, 1, market_after=False))
    after(601)
    step(order)
    simulator.fault("request_lost", path=CHANGE, count=50)
    step(order)
    turn(3)
    after(8)
    cancel_externally(simulator, order)
    simulator.clear_faults()
    turn(20)
    assert (fresh(order).end_cause, ordered(simulator)) == (EndCause.EXTERNAL_CANCEL, 10)


@pytest.mark.parametrize("seconds", [60, 100, 150])
def test_an_equal_external_order_much_later_is_not_the_lost_one(
    service: OrderService, broker: Broker, simulator: Simulator, after: After, turn: Turn, seconds: int
) -> None:
    simulator.fault("request_lost", path="order-cash", count=4)
    order = service.place(BUY)
    simulator.clear_faults()
    for _ in range(seconds // 10):
        after(10)
        reconcile.reconcile(broker, clock.now)
    place_externally(simulator, price=order.price)
    turn(20)
    (theirs,) = simulator.ledger(ACCOUNT)["orders"]
    assert theirs["status"] == "open"
    assert fresh(order).order_no is None
    assert order.state is Status.REJECTED or [each["order_no"] for each in order.candidates] == [theirs["number"]]


# --- a chase that was ended, or has to keep still ---------------------------------------------------------------------


def test_an_answer_that_is_found_revives_no_chase_that_was_ended(
    service: OrderService, simulator: Simulator, turn: Turn
) -> None:
    simulator.fault("answer_lost", path="order-cash", count=1)
    order = service.place(BUY)
    service.end_chase(fresh(order), "kim")
    turn(20)
    assert (ordered(simulator), fresh(order).state, order.chase_at) == (10, Status.PENDING, None)


def test_a_fill_that_is_revoked_revives_no_chase_that_was_ended(
    buy: Buy, service: OrderService, simulator: Simulator, turn: Turn
) -> None:
    order = buy()
    service.end_chase(fresh(order), "kim")
    hear(notice(order.order_no or ""))
    assert fresh(order).state is Status.FILLED
    turn(35, seconds=11.0)
    assert (fresh(order).filled_qty, order.chase_at, ordered(simulator)) == (0, None, 10)


def test_nothing_is_ordered_again_into_a_volatility_interruption(
    buy: Buy, broker: Broker, simulator: Simulator, after: After, step: Any
) -> None:
    order = buy()
    after(31)
    for _ in range(3):  # check, cancel, confirm
        step(order)
    assert fresh(order).state is Status.CANCELLED
    simulator.command("POST", f"/simulator/quotes/{SAMSUNG}", {"vi": "static"})
    assert broker.quote(SAMSUNG, Market.KRX).in_vi
    after(1)
    step(order)
    assert (ordered(simulator), order.events.latest("id").kind) == (10, "CHASE_PAUSED")


def test_a_cancel_lost_before_an_auction_is_not_sent_again_into_it(
    buy: Buy, simulator: Simulator, clock_at: Callable[[str], object], turn: Turn, step: Any
) -> None:
    clock_at("2026-11-23 15:19:25")
    order = buy(market=Market.KRX, plan=Plan(30, 0, 1, market_after=False))
    clock_at("2026-11-23 15:19:56")
    step(order)
    simulator.fault("cancel_ignored", path=CHANGE, count=1)
    step(order)
    for _ in range(10):
        turn(seconds=10.0)
    assert standing(simulator) == 10


def test_a_chase_whose_amend_was_refused_goes_on_by_cancel(
    buy: Buy, simulator: Simulator, after: After, turn: Turn, step: Any, settings: Any
) -> None:
    settings.CHASE_BY = "amend"
    order = buy()
    after(31)
    step(order)
    simulator.fault("refusal", path=CHANGE, count=1)
    step(order)
    simulator.clear_faults()
    turn(10)
    assert order.retries.exclude(order_no=None).exists()
    assert standing(simulator) == 10


def test_a_chase_that_is_wanted_after_a_part_was_amended_goes_on(
    buy: Buy, service: OrderService, broker: Broker, simulator: Simulator, after: After, turn: Turn
) -> None:
    order = buy()
    service.amend(order, price=69_000, qty=4)
    after(15)
    reconcile.reconcile(broker, clock.now)
    service.chase_now(fresh(order))
    turn(15)
    assert standing(simulator) == 10


# --- amends -----------------------------------------------------------------------------------------------------------


def test_an_order_of_yesterday_is_not_amended(
    buy: Buy, service: OrderService, broker: Broker, simulator: Simulator, clock_at: Callable[[str], object]
) -> None:
    order = buy(price=69_000)
    clock_at("2026-11-24 10:00:00")
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    place_externally(simulator)
    with pytest.raises(OrderDenied) as denied:
        service.amend(fresh(order), price=68_500)
    assert [reason.code for reason in denied.value.reasons] == ["NOT_TODAY"]


def test_an_amended_order_keeps_what_it_was_priced_with(buy: Buy, service: OrderService) -> None:
    order = buy(tick_offset=-10)
    row = service.amend(order, price=69_100)
    kept = (order.tick_offset, fresh(order).band_percent, order.arrival_percent)
    assert (row.tick_offset, fresh(row).band_percent, row.arrival_percent) == kept


@pytest.mark.parametrize("printed", ["cancelled", "untouched"])
def test_a_cancel_beside_an_amended_part_ends_the_order_however_the_list_prints_it(
    buy: Buy, service: OrderService, simulator: Simulator, turn: Turn, printed: str
) -> None:
    simulator.command("POST", "/simulator/printing", {"amended": printed})
    order = buy(price=69_000, qty=6)
    service.amend(order, price=69_100, qty=3)
    turn(4)
    service.cancel(fresh(order))
    turn(4)
    assert (fresh(order).state, order.end_cause) == (Status.CANCELLED, EndCause.OWN_CANCEL)
    assert standing(simulator) == 3


def test_a_fill_of_an_amended_order_that_was_kept_is_applied_to_it_by_the_next_list(
    buy: Buy, service: OrderService, turn: Turn, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = buy(price=69_000)
    row = service.amend(order, price=69_100)
    with monkeypatch.context() as patch:
        patch.setattr(
            fills, "apply_notice", lambda *words, **more: False
        )  # the worker dies before it applies the notice
        kept = hear(notice(row.order_no or "", price=69_100, original=order.order_no or "", change="1"))
    fills.replay_stranded()
    kept.refresh_from_db()
    assert (kept.state, kept.order_id, fresh(row).state) == (RawNotice.State.APPLIED, row.pk, Status.FILLED)


def test_a_chase_whose_reorder_stands_already_ends_there(
    buy: Buy, broker: Broker, simulator: Simulator, after: After, step: Any
) -> None:
    order = buy()
    after(31)
    for _ in range(4):  # check, cancel, confirm, reorder
        step(order)
        after(1)
    assert order.retries.count() == 1
    TradeOrder.objects.filter(pk=order.pk).update(chase_at=clock.now())  # its worker died before it noted that
    step(order)
    assert (order.retries.count(), fresh(order).chase_at, ordered(simulator)) == (1, None, 20)
