"""Amends (정정) through the broker's own door: what leaves, what counts meanwhile, and what the list makes of it."""

import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any
from unittest import mock

import pytest
from django.db import connection, transaction

from aegis.broker import Acceptance, Broker, BrokerOrderRef
from aegis.chase import Action, Plan
from aegis.lifecycle import Status
from aegis.requests import REPLY_DEADLINE, EndCause, RequestKind, RequestState
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market, OrderKind, Side
from aegis.trading_state import TradingState
from infra import clock
from kis import catalogue
from kis.client import BrokerReply, Client
from orders import cancel_driver, chase, kill_switch, reconcile, stops
from orders.models import BlacklistedStock, BrokerRequest, StopRule, TradeOrder
from orders.order_list import LIST_LAG
from orders.pretrade import PreTrade
from orders.service import NO_CHASE, OrderDenied, OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from rehearsal.ledger_check import compare_with_ledger
from simulator.api.server import Simulator
from tests.orders.test_fills import hear, notice

from .conftest import SAMSUNG
from .exchange_log import ACCOUNT, answered, at_stake, new_orders
from .helpers import fresh

CHEAP = "004090"
CHANGE = "order-rvsecncl"
Buy = Callable[..., TradeOrder]
ClockAt = Callable[[Any], object]
Look = Callable[[], reconcile.ReconcileReport]
# amends beside which something else happens just before the bytes leave
Beside = Callable[[Callable[[BrokerOrderRef], object]], OrderService]
PRINTINGS = [{"amended": "cancelled"}, {"amended": "untouched"}]


@pytest.fixture
def look(broker: Broker, clock_at: ClockAt) -> Look:
    """Read the list, late enough that no cancel or fill counts as fresher than it."""

    def read() -> reconcile.ReconcileReport:
        clock_at(clock.now() + 2 * LIST_LAG)
        return reconcile.reconcile(broker, clock.now)

    return read


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, str]]:
    """What order-rvsecncl was asked, in order."""
    sent, call = list[Mapping[str, str]](), Client.call

    def noting(self: Client, tr: catalogue.TR, parameters: Mapping[str, str], **more: Any) -> BrokerReply:
        if tr is catalogue.REVISE_OR_CANCEL:
            sent.append(parameters)
        return call(self, tr, parameters, **more)

    monkeypatch.setattr(Client, "call", noting)
    return sent


@pytest.fixture
def beside(broker: Broker) -> Beside:
    def that(happens: Callable[[BrokerOrderRef], object]) -> OrderService:
        def amend(placed: BrokerOrderRef, *, price: int, qty: int | None) -> Acceptance:
            happens(placed)
            return broker.amend(placed, price=price, qty=qty)

        return OrderService(mock.MagicMock(wraps=broker, amend=amend), clock.now)

    return that


@pytest.fixture
def hold(service: OrderService, simulator: Simulator, broker: Broker) -> Callable[[int], None]:
    """Hold so many shares of 삼성전자, and know it."""

    def give(qty: int) -> None:
        words = {"account": ACCOUNT, "code": SAMSUNG, "quantity": qty, "cost": qty * 70_000}
        simulator.command("POST", "/simulator/shares", words)
        KISFetcher(broker, clock.now).sync_portfolio()

    return give


@pytest.fixture(params=PRINTINGS, ids=["cancelled", "untouched"])
def either_printing(request: pytest.FixtureRequest, simulator: Simulator) -> None:
    """Both ways in which a list may print what an amend took."""
    simulator.command("POST", "/simulator/printing", request.param)


def by_hand(simulator: Simulator, **words: object) -> dict[str, Any]:
    return dict(simulator.command("POST", "/simulator/orders", {"account": ACCOUNT, **words}))


def number(order: TradeOrder | BrokerOrderRef) -> int:
    return int(order.order_no or 0)


def amend_of(order: TradeOrder) -> BrokerRequest:
    return order.requests.filter(kind=RequestKind.AMEND).latest("id")


def codes(amend: Callable[[], object]) -> list[str]:
    with pytest.raises(OrderDenied) as caught:
        amend()
    return [reason.code for reason in caught.value.reasons]


def resting(simulator: Simulator) -> list[tuple[int, int]]:
    """Return price and open shares of what rests at the exchange, oldest first."""
    orders = simulator.ledger(ACCOUNT)["orders"]
    return [
        (each["price"], each["quantity"] - each["filled"] - each["cancelled"])
        for each in orders
        if each["status"] == "open"
    ]


def equal(broker: Broker, simulator: Simulator) -> str:
    KISFetcher(broker, clock.now).sync_portfolio()
    return str(compare_with_ledger(simulator.ledger(ACCOUNT)))


def tell_nothing(placed: BrokerOrderRef) -> None:
    """Let nothing happen."""


# --- what leaves -----------------------------------------------------------------------------------------------------


def test_an_amend_of_all_goes_through_rvsecncl_with_01_and_everything(
    buy: Buy, service: OrderService, bodies: list[Mapping[str, str]]
) -> None:
    order = buy(price=69_000, market=Market.KRX)
    row = service.amend(order, price=69_500)
    (body,) = bodies
    assert (body["RVSE_CNCL_DVSN_CD"], body["QTY_ALL_ORD_YN"], body["ORD_UNPR"]) == ("01", "Y", "69500")
    assert (body["ORGN_ODNO"], body["ORD_DVSN"], body["EXCG_ID_DVSN_CD"]) == (order.order_no, "00", "KRX")
    assert (row.state, row.qty, row.price, row.replaces_id) == (Status.PENDING, 10, 69_500, order.pk)


def test_an_amend_of_a_part_names_its_quantity(
    buy: Buy, service: OrderService, simulator: Simulator, bodies: list[Mapping[str, str]]
) -> None:
    service.amend(buy(price=69_000), price=69_500, qty=4)
    assert (bodies[0]["QTY_ALL_ORD_YN"], bodies[0]["ORD_QTY"]) == ("N", "4")
    assert resting(simulator) == [(69_000, 6), (69_500, 4)]


@pytest.mark.parametrize("market", list(Market))
def test_an_amend_goes_to_the_venue_that_the_order_names(
    buy: Buy, service: OrderService, bodies: list[Mapping[str, str]], look: Look, market: Market
) -> None:
    row = service.amend(buy(price=69_000, market=market), price=69_500)
    assert [body["EXCG_ID_DVSN_CD"] for body in bodies] == [market.value]
    look()
    assert (fresh(row).state, row.market) == (Status.PENDING, market.value)
    assert amend_of(row.replaces).state == RequestState.CONFIRMED


def test_the_row_and_the_request_stand_before_a_byte_leaves(
    transactional_db: None, buy: Buy, beside: Beside, simulator: Simulator
) -> None:
    order = buy(price=69_000)
    seen = list[Any]()

    def read_elsewhere() -> None:
        request = BrokerRequest.objects.get(kind="AMEND")
        assert request.makes is not None
        seen.extend([request.state, request.order_id, request.makes.status, request.makes.qty, request.makes.price])
        connection.close()

    def another_reads(placed: BrokerOrderRef) -> None:
        reader = threading.Thread(target=read_elsewhere)
        reader.start()
        reader.join()
        seen.append(len(simulator.ledger(ACCOUNT)["orders"]))

    beside(another_reads).amend(order, price=69_500)
    assert seen == ["REQUESTED", order.pk, "SUBMITTING", 10, 69_500, 1]


def test_an_amend_inside_a_transaction_is_refused_and_nothing_leaves(
    transactional_db: None, buy: Buy, service: OrderService, simulator: Simulator
) -> None:
    order = buy(price=69_000)
    with transaction.atomic(), pytest.raises(RuntimeError, match="inside a transaction"):
        service.amend(order, price=69_500)
    assert TradeOrder.objects.count() == 1
    assert resting(simulator) == [(69_000, 10)]


def test_the_chase_of_an_amended_order_ends_and_its_new_one_has_none(buy: Buy, service: OrderService) -> None:
    order = buy()
    row = service.amend(order, price=69_000)
    assert (fresh(order).chase_at, row.chase_at, row.root_pk) == (None, None, order.pk)


# --- what cannot be amended ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words",
    [
        {"kind": OrderKind.CONDITIONAL_LIMIT, "price": 69_000},
        {"kind": OrderKind.STOP_LIMIT, "price": 71_000, "trigger": 70_500},
        {"kind": OrderKind.OWN_BEST},
    ],
)
def test_only_limit_orders_are_amended_and_a_reason_says_so(
    buy: Buy, service: OrderService, simulator: Simulator, words: dict[str, Any]
) -> None:
    order = buy(**{"strategy": "", "market": Market.KRX, "plan": NO_CHASE, **words})
    assert order.is_open, order.refusal
    before = resting(simulator)
    with pytest.raises(OrderDenied, match="only limit orders") as caught:
        service.amend(order, price=69_100)
    assert [reason.code for reason in caught.value.reasons] == ["AMEND_KIND"]
    assert caught.value.reasons[0].figures["kind"] == order.order_kind
    assert resting(simulator) == before


def test_what_is_filled_cancelled_or_has_no_number_is_not_amended(
    buy: Buy, service: OrderService, look: Look, simulator: Simulator
) -> None:
    filled, cancelled, lost = buy(price=70_100), service.cancel(buy(price=69_000)), buy(price=68_900)
    look()
    TradeOrder.objects.filter(pk=lost.pk).update(order_no=None)
    for order in (filled, cancelled, lost):
        assert codes(lambda order=order: service.amend(fresh(order), price=69_500)) == ["NOT_OPEN"]
    assert not BrokerRequest.objects.filter(kind="AMEND").exists()


def test_an_order_with_a_cancel_on_its_way_is_not_amended(
    buy: Buy, service: OrderService, simulator: Simulator
) -> None:
    order = buy(price=69_000)
    simulator.fault("cancel_ignored", path=CHANGE, count=1)
    service.cancel(order)
    assert codes(lambda: service.amend(fresh(order), price=69_500)) == ["CHANGE_PENDING"]


# --- races -----------------------------------------------------------------------------------------------------------


def test_a_fill_that_overtakes_the_amend_leaves_one_order_that_is_filled(
    buy: Buy, beside: Beside, look: Look, broker: Broker, simulator: Simulator
) -> None:
    order = buy(price=69_000)
    row = beside(lambda placed: simulator.set_price(SAMSUNG, 69_000)).amend(order, price=69_500)
    assert (row.state, row.never_arrived) == (Status.REJECTED, False)
    look()
    assert (fresh(order).state, order.filled_qty) == (Status.FILLED, 10)
    assert amend_of(order).state == RequestState.REJECTED
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=1")


def test_a_fill_meanwhile_shrinks_the_amend_of_all(
    buy: Buy, service: OrderService, look: Look, broker: Broker, simulator: Simulator, either_printing: None
) -> None:
    simulator.set_price(CHEAP, 16_000, freeze=True)
    best = broker.book(CHEAP, Market.KRX).asks[0]
    # what rests at the best ask is filled at once, and nobody has told us of it
    order = buy(code=CHEAP, price=best.price, qty=best.qty + 25, market=Market.KRX)
    row = service.amend(order, price=best.price - 100)
    assert (row.qty, row.state) == (best.qty + 25, Status.PENDING), "an upper bound, before the list names it"
    look()
    assert (fresh(row).qty, row.open_qty) == (25, 25)
    assert (fresh(order).filled_qty, order.state, order.end_cause) == (best.qty, Status.CANCELLED, EndCause.OWN_AMEND)
    assert amend_of(order).confirmed_qty == 25
    assert max(at_stake(simulator.events(), CHEAP)) == best.qty + 25
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=2")


@pytest.mark.parametrize(
    ("words", "cause"),
    [({"cancel": True}, EndCause.EXTERNAL_CANCEL), ({"amend": True, "price": 69_100}, EndCause.EXTERNAL_AMEND)],
)
def test_what_is_changed_by_hand_meanwhile_is_not_amended_and_not_ordered_again(
    buy: Buy, beside: Beside, look: Look, broker: Broker, simulator: Simulator, either_printing: None,
    words: dict[str, Any], cause: EndCause,
) -> None:  # fmt: skip
    order = buy(price=69_000)
    (act,) = set(words) & {"cancel", "amend"}
    row = beside(lambda placed: by_hand(simulator, **{**words, act: number(placed)})).amend(order, price=69_500)
    look()
    assert (fresh(row).state, fresh(order).state) == (Status.REJECTED, Status.CANCELLED)
    assert order.end_cause == cause
    external = TradeOrder.objects.filter(origin="EXTERNAL")
    assert [(each.replaces_id, each.root_id, each.price) for each in external] == (
        [(order.pk, order.pk, 69_100)] if act == "amend" else []
    )
    assert max(at_stake(simulator.events(), SAMSUNG)) == 10
    assert equal(broker, simulator).startswith("LEDGER EQUAL")


def test_what_is_changed_in_part_by_hand_meanwhile_leaves_the_rest_to_the_amend(
    buy: Buy, beside: Beside, look: Look, broker: Broker, simulator: Simulator, either_printing: None
) -> None:
    order = buy(price=69_000)
    part = {"price": 69_100, "quantity": 3}
    row = beside(lambda placed: by_hand(simulator, amend=number(placed), **part)).amend(order, price=69_500)
    look()
    assert (fresh(row).qty, row.state, fresh(order).end_cause) == (7, Status.PENDING, EndCause.OWN_AMEND)
    assert resting(simulator) == [(69_100, 3), (69_500, 7)]
    assert sum(each.open_qty for each in TradeOrder.objects.filter(status="PENDING")) == 10
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=3")


def test_our_own_cancel_meanwhile_stands_and_the_amend_is_refused(
    buy: Buy, beside: Beside, service: OrderService, look: Look, broker: Broker, simulator: Simulator
) -> None:
    order = buy()
    row = beside(lambda placed: service.cancel(fresh(order))).amend(order, price=69_500)
    look()
    assert (fresh(row).state, fresh(order).state) == (Status.REJECTED, Status.CANCELLED)
    assert order.end_cause == EndCause.OWN_CANCEL
    assert chase.run_due_steps(order.pk, broker, clock.now) is Action.REST
    assert resting(simulator) == []
    assert TradeOrder.objects.count() == 2


def test_a_cancel_after_the_amend_takes_back_what_it_became(
    buy: Buy, service: OrderService, look: Look, broker: Broker, simulator: Simulator
) -> None:
    """A person who cancels an order whose amend is not listed yet wants nothing of it open."""
    order = buy(price=69_000)
    simulator.fault("answer_lost", path=CHANGE, count=1)
    row = service.amend(order, price=69_500)
    assert row.state is Status.UNKNOWN
    with pytest.raises(Exception, match=r"."):
        service.cancel(fresh(order))
    for _ in range(8):
        look()
        for pk in cancel_driver.due_cancels(clock.now()):
            cancel_driver.drive(pk, broker, clock.now)
    look()
    assert resting(simulator) == []
    assert (fresh(row).state, fresh(order).end_cause) == (Status.CANCELLED, EndCause.OWN_AMEND)


def test_a_chase_that_is_ended_while_its_amend_is_answered_stays_ended(
    buy: Buy, broker: Broker, service: OrderService, clock_at: ClockAt, simulator: Simulator, settings: Any
) -> None:
    settings.CHASE_BY = "amend"
    order = buy()

    def amend(placed: BrokerOrderRef, *, price: int, qty: int | None) -> Acceptance:
        acceptance = broker.amend(placed, price=price, qty=qty)
        service.end_chase(fresh(order), "by hand")
        return acceptance

    clock_at(clock.now() + timedelta(seconds=31))
    chase.run_due_steps(order.pk, mock.MagicMock(wraps=broker, amend=amend), clock.now)
    row = order.replaced_by.get()
    assert (row.state, row.chase_at, fresh(order).chase_at) == (Status.PENDING, None, None)
    assert resting(simulator) == [(69_900, 10)]


def test_a_chase_that_is_ended_while_its_amend_has_no_answer_stays_ended(
    buy: Buy, broker: Broker, service: OrderService, clock_at: ClockAt, look: Look, simulator: Simulator, settings: Any
) -> None:
    settings.CHASE_BY = "amend"
    order = buy()
    clock_at(clock.now() + timedelta(seconds=31))
    simulator.fault("answer_lost", path=CHANGE, count=1)
    assert chase.run_step(order.pk, broker, clock.now).action is Action.CHECK
    assert chase.run_step(order.pk, broker, clock.now).action is Action.AMEND
    service.end_chase(fresh(order), "by hand")
    look()
    row = order.replaced_by.get()
    assert (row.state, row.chase_at, fresh(order).chase_at) == (Status.PENDING, None, None)


# --- the quantity, and what counts once ------------------------------------------------------------------------------


def open_buys(order: TradeOrder) -> int:
    """Return the shares that open buys may still bring, as another order of the stock sees them."""
    pretrade = PreTrade(mock.MagicMock(), clock.now)
    return pretrade.context(OrderIntent(SAMSUNG, Side.BUY, 1, price=60_000)).competing.others.open_buy_qty


def test_an_amend_counts_once_before_the_list_names_it_and_after(
    buy: Buy, service: OrderService, look: Look, either_printing: None
) -> None:
    order = buy(price=69_000)
    row = service.amend(order, price=69_500)
    assert open_buys(order) == 10
    look()
    assert open_buys(order) == 10
    family = list(TradeOrder.objects.order_by("id"))
    assert [each.state for each in family] == [Status.CANCELLED, Status.PENDING]
    assert chase.remaining_qty(fresh(row), family) == 10


def test_an_amend_of_a_part_counts_once_beside_what_it_left(
    buy: Buy, service: OrderService, look: Look, broker: Broker, simulator: Simulator, either_printing: None
) -> None:
    order = buy(price=69_000)
    row = service.amend(order, price=69_500, qty=4)
    assert open_buys(order) == 10
    look()
    assert (fresh(order).open_qty, order.withdrawn_qty, order.state) == (6, 4, Status.PENDING)
    assert (fresh(row).open_qty, row.replaces_id, amend_of(order).confirmed_qty) == (4, order.pk, 4)
    assert open_buys(order) == 10
    assert chase.remaining_qty(row, list(TradeOrder.objects.all())) == 4
    simulator.set_price(SAMSUNG, 69_000)
    look()
    assert [each.filled_qty for each in TradeOrder.objects.order_by("id")] == [6, 4]
    assert (fresh(order).state, fresh(row).state) == (Status.CANCELLED, Status.FILLED)
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=2")


def test_an_amend_can_be_amended_again(
    buy: Buy, service: OrderService, look: Look, broker: Broker, simulator: Simulator, either_printing: None
) -> None:
    order = buy(price=69_000)
    first = service.amend(order, price=69_300)
    assert codes(lambda: service.amend(first, price=69_400)) == ["CHANGE_PENDING"], "the list has not named it"
    look()
    second = service.amend(fresh(first), price=69_400)
    look()
    assert [each.state for each in TradeOrder.objects.order_by("id")] == ["CANCELLED", "CANCELLED", "PENDING"]
    assert (second.root_pk, second.replaces_id, second.attempt) == (order.pk, first.pk, 2)
    assert resting(simulator) == [(69_400, 10)]
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=3")


def test_a_fill_notice_of_all_that_the_amend_took_fills_the_order_once_the_list_names_it(
    buy: Buy, service: OrderService, look: Look, broker: Broker, simulator: Simulator
) -> None:
    simulator.set_price(CHEAP, 16_000, freeze=True)
    best = broker.book(CHEAP, Market.KRX).asks[0]
    order = buy(code=CHEAP, price=best.price, qty=best.qty + 25, market=Market.KRX)
    row = service.amend(order, price=best.price - 100)
    simulator.set_price(CHEAP, best.price - 200)
    hear(notice(row.order_no, qty=25, price=best.price - 100, code=CHEAP))
    assert (fresh(row).state, row.filled_qty, row.qty) == (Status.PARTIAL, 25, best.qty + 25)
    look()
    assert (fresh(row).state, row.filled_qty, row.qty) == (Status.FILLED, 25, 25)
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=2")


def test_a_fill_of_the_new_number_is_counted_though_the_list_has_not_named_it(
    buy: Buy, service: OrderService, look: Look, broker: Broker, simulator: Simulator, either_printing: None
) -> None:
    order = buy(price=69_000)
    row = service.amend(order, price=70_000)
    simulator.set_price(SAMSUNG, 69_900)
    look()
    assert (fresh(row).state, row.filled_qty, fresh(order).filled_qty) == (Status.FILLED, 10, 0)
    assert open_buys(order) == 0
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=2")


# --- cash ------------------------------------------------------------------------------------------------------------

ALMOST_ALL = 1_400  # at 69,000 won: 3.4 million of 100 are left


@pytest.fixture
def unlimited(settings: Any) -> None:
    """Limits of our own that leave the broker's cash as the only one."""
    settings.MAX_ORDER_WON = settings.MAX_DAY_WON = 0
    settings.MAX_POSITION_PERCENT = Decimal(0)


def test_a_raised_buy_needs_cash_for_the_difference_only(
    unlimited: None, buy: Buy, service: OrderService, simulator: Simulator
) -> None:
    order = buy(price=69_000, qty=ALMOST_ALL, market=Market.KRX)
    row = service.amend(order, price=69_500)
    assert (row.state, row.refusal) == (Status.PENDING, "")
    assert resting(simulator) == [(69_500, ALMOST_ALL)]


def test_a_raised_buy_without_the_cash_for_the_difference_is_denied(
    unlimited: None, buy: Buy, service: OrderService, simulator: Simulator
) -> None:
    order = buy(price=69_000, qty=ALMOST_ALL, market=Market.KRX)
    with pytest.raises(OrderDenied) as caught:
        service.amend(order, price=71_900)
    (reason,) = caught.value.reasons
    assert (reason.code, reason.figures["needed"]) == ("CASH", 2_900 * ALMOST_ALL)
    assert resting(simulator) == [(69_000, ALMOST_ALL)]


@pytest.mark.parametrize("words", [{"price": 68_000}, {"price": 68_000, "qty": 4}, {"qty": 4}])
def test_a_cheaper_or_reduced_buy_asks_for_no_cash(
    buy: Buy, service: OrderService, simulator: Simulator, words: dict[str, int]
) -> None:
    order = buy(price=69_000)
    with answered(simulator) as asked:
        service.amend(order, **words)
    assert asked == [CHANGE] if "price" not in words else ["inquire-price", CHANGE]


def test_a_lowered_sale_needs_no_shares_beside_its_own(hold: Any, buy: Buy, service: OrderService) -> None:
    hold(10)
    order = buy(side=Side.SELL, price=71_000, qty=10)
    row = service.amend(order, price=70_500)
    assert (row.state, row.refusal) == (Status.PENDING, "")


# --- risk ------------------------------------------------------------------------------------------------------------


def forbid(how: str) -> None:
    if how == "BLACKLISTED":
        BlacklistedStock.objects.create(stock_code=SAMSUNG, reason="a test")
    else:
        kill_switch.set_state(TradingState(how), by="kim", reason="a test", at=clock.now())


BANS = ["REDUCING", "HALTED", "BLACKLISTED"]


@pytest.mark.parametrize("ban", BANS)
@pytest.mark.parametrize(
    ("side", "words"),
    [
        (Side.BUY, {"price": 68_500}),
        (Side.BUY, {"price": 68_500, "qty": 4}),
        (Side.BUY, {"qty": 4}),
        (Side.SELL, {"price": 72_000}),
        (Side.SELL, {"price": 72_000, "qty": 4}),
        (Side.SELL, {"qty": 4}),
    ],
)
def test_an_amend_that_only_lowers_risk_passes_every_ban(
    hold: Any, buy: Buy, service: OrderService, look: Look, settings: Any, ban: str, side: Side, words: dict[str, int]
) -> None:
    settings.CANCEL_BUYS_ON_REDUCE = False  # what is being cancelled is not amended
    hold(20)
    order = buy(side=side, price=69_000 if side is Side.BUY else 71_000)
    forbid(ban)
    row = service.amend(order, **words)
    assert row.is_open, row.refusal
    look()
    assert (fresh(row).open_qty, row.price) == (words.get("qty", 10), words.get("price", order.price))


@pytest.mark.parametrize("ban", BANS)
def test_a_raised_buy_passes_no_ban(
    buy: Buy, service: OrderService, simulator: Simulator, settings: Any, ban: str
) -> None:
    settings.CANCEL_BUYS_ON_REDUCE = False
    order = buy(price=69_000)
    forbid(ban)
    assert codes(lambda: service.amend(order, price=69_500)) == [ban]
    assert codes(lambda: service.amend(order, price=69_500, qty=1)) == [ban]
    assert resting(simulator) == [(69_000, 10)]


@pytest.mark.parametrize(("ban", "passes"), [("REDUCING", True), ("HALTED", False), ("BLACKLISTED", True)])
def test_a_lowered_sale_passes_what_a_new_sale_passes(
    hold: Any, buy: Buy, service: OrderService, ban: str, passes: bool
) -> None:
    hold(10)
    order = buy(side=Side.SELL, price=71_000)
    forbid(ban)
    if passes:
        assert service.amend(order, price=70_500).is_open
    else:
        assert codes(lambda: service.amend(order, price=70_500)) == [ban]


def test_a_ban_between_judging_and_sending_holds_a_raised_buy_and_not_a_cheaper_one(
    buy: Buy, beside: Beside, service: OrderService, simulator: Simulator
) -> None:
    first, second = buy(price=69_000), buy(price=68_900)
    halting = beside(lambda placed: forbid("HALTED"))
    held = halting.amend(first, price=69_500)
    assert (held.state, held.never_arrived, amend_of(first).state) == (Status.REJECTED, True, "NOT_SENT")
    assert fresh(first).is_open
    assert halting.amend(second, price=68_500).is_open
    assert resting(simulator) == [(69_000, 10), (68_500, 10)]


@pytest.mark.parametrize(
    ("setting", "value", "code"),
    [
        ("MAX_ORDER_WON", 692_000, "ORDER_VALUE"),
        ("MAX_DAY_WON", 692_000, "DAY_VALUE"),
        ("MAX_POSITION_PERCENT", Decimal("0.692"), "POSITION_WEIGHT"),
        ("MAX_COLLAR_PERCENT", Decimal("-1"), "COLLAR"),
    ],
)
def test_a_raised_buy_is_judged_by_every_limit_and_its_own_family_is_counted_once(
    buy: Buy, service: OrderService, broker: Broker, settings: Any, setting: str, value: Any, code: str
) -> None:
    KISFetcher(broker, clock.now).sync_portfolio()
    order = buy(price=69_000)
    setattr(settings, setting, value)
    assert codes(lambda: service.amend(order, price=69_500)) == [code]
    if code not in ("COLLAR", "POSITION_WEIGHT"):
        assert service.amend(order, price=69_200).is_open


def test_a_raised_part_weighs_with_what_it_leaves(
    buy: Buy, service: OrderService, broker: Broker, settings: Any
) -> None:
    KISFetcher(broker, clock.now).sync_portfolio()
    order = buy(price=69_000)
    settings.MAX_POSITION_PERCENT = Decimal("0.65")  # of 100 million won: nine shares and a bit
    assert codes(lambda: service.amend(order, price=69_500, qty=4)) == ["POSITION_WEIGHT"]
    settings.MAX_POSITION_PERCENT = Decimal("0.75")
    assert service.amend(order, price=69_500, qty=4).is_open


def test_an_amend_that_would_meet_an_order_of_the_account_is_denied(hold: Any, buy: Buy, service: OrderService) -> None:
    hold(10)
    order, sale = buy(price=69_000), buy(side=Side.SELL, price=70_500, qty=5)
    assert sale.is_open
    assert codes(lambda: service.amend(order, price=70_500)) == ["SELF_CROSS"]
    assert codes(lambda: service.amend(sale, price=69_000)) == ["SELF_CROSS"]
    assert service.amend(sale, price=70_600).is_open


# --- no known outcome ------------------------------------------------------------------------------------------------

LOST = ["answer_lost", "request_lost"]


@pytest.fixture(params=LOST)
def lost(request: pytest.FixtureRequest, buy: Buy, service: OrderService, simulator: Simulator) -> TradeOrder:
    """A buy of ten at 69,000 won whose amend to 69,500 has no answer: it arrived, or it did not."""
    order = buy()
    simulator.fault(request.param, path=CHANGE, count=1)
    row = service.amend(order, price=69_500)
    assert row.state is Status.UNKNOWN
    return fresh(order)


def is_arrived(simulator: Simulator) -> bool:
    return (69_500, 10) in resting(simulator)


def test_an_amend_of_unknown_outcome_freezes_its_family_until_the_list_knows(
    lost: TradeOrder, service: OrderService, broker: Broker, look: Look, clock_at: ClockAt, simulator: Simulator
) -> None:
    arrived = is_arrived(simulator)
    assert codes(lambda: service.amend(lost, price=69_600)) == ["CHANGE_PENDING"]
    assert chase.run_due_steps(lost.pk, broker, clock.now) is Action.REST
    if not arrived:
        clock_at(clock.now() + LIST_LAG / 2)
        reconcile.reconcile(broker, clock.now)
        assert codes(lambda: service.amend(fresh(lost), price=69_600)) == ["CHANGE_PENDING"], "it may still arrive"
    look()
    made = amend_of(lost).makes
    assert made is not None
    if arrived:
        assert (fresh(lost).end_cause, made.state, made.open_qty) == (EndCause.OWN_AMEND, Status.PENDING, 10)
        assert amend_of(lost).state == RequestState.CONFIRMED
    else:
        assert (fresh(lost).state, lost.open_qty) == (Status.PENDING, 10)
        assert (made.state, made.never_arrived, amend_of(lost).state) == (Status.REJECTED, True, "LAPSED")
    newest = made if arrived else lost
    assert service.amend(fresh(newest), price=69_600).is_open
    look()
    assert resting(simulator) == [(69_600, 10)]
    assert max(at_stake(simulator.events(), SAMSUNG)) == 10


def test_an_amend_of_unknown_outcome_is_never_followed_by_a_new_order(
    lost: TradeOrder, service: OrderService, broker: Broker, look: Look, simulator: Simulator
) -> None:
    for _ in range(8):
        look()
        for pk in chase.due_orders(clock.now()):
            chase.run_due_steps(pk, broker, clock.now)
        for pk in cancel_driver.due_cancels(clock.now()):
            cancel_driver.drive(pk, broker, clock.now)
    assert [each["request"] for each in simulator.ledger(ACCOUNT)["orders"]].count("new") == 1
    assert sum(qty for _, qty in resting(simulator)) == 10
    assert equal(broker, simulator).startswith("LEDGER EQUAL")


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("seconds", [20, 120])
def test_an_amend_whose_sender_died_is_resolved_by_the_list(
    buy: Buy, beside: Beside, look: Look, simulator: Simulator, clock_at: ClockAt, before: bool, seconds: int
) -> None:
    class Death(BaseException):
        """No handler catches it."""

    def die(placed: BrokerOrderRef, before: bool) -> None:
        if not before:
            assert placed.last_check is not None
            placed.last_check()
        raise Death

    order = buy(price=69_000)
    with pytest.raises(Death):
        beside(lambda placed: die(placed, before)).amend(order, price=69_500)
    clock_at(clock.now() + timedelta(seconds=seconds))
    for _ in range(3):
        look()
    made = amend_of(order).makes
    assert made is not None
    assert (made.state, fresh(order).state) == (Status.REJECTED, Status.PENDING)
    assert resting(simulator) == [(69_000, 10)]


def test_an_amend_that_was_numbered_and_not_carried_out_leaves_its_original(
    buy: Buy, service: OrderService, look: Look, broker: Broker, simulator: Simulator, clock_at: ClockAt
) -> None:
    order = buy(price=69_000)
    simulator.fault("cancel_ignored", path=CHANGE, count=1)
    row = service.amend(order, price=69_500)
    assert (row.state, row.order_no is None) == (Status.PENDING, False)
    look()
    assert codes(lambda: service.amend(fresh(order), price=69_600)) == ["CHANGE_PENDING"]
    clock_at(clock.now() + REPLY_DEADLINE)
    look()
    assert (fresh(row).state, row.never_arrived, fresh(order).state) == (Status.REJECTED, True, Status.PENDING)
    assert service.amend(order, price=69_600).is_open
    look()
    assert resting(simulator) == [(69_600, 10)]
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=2")


def test_an_amend_whose_line_comes_long_after_it_was_given_up_is_back(
    buy: Buy, service: OrderService, look: Look, broker: Broker, simulator: Simulator, clock_at: ClockAt
) -> None:
    order = buy(price=69_000)
    clock_at(clock.now() + timedelta(seconds=80))
    look()
    row = service.amend(order, price=69_500)
    simulator.fault("list_lag", seconds=70)
    for _ in range(3):
        look()
    assert (fresh(row).state, fresh(order).state) == (Status.REJECTED, Status.PENDING)
    simulator.clear_faults()
    look()
    assert (fresh(row).state, row.open_qty, row.never_arrived) == (Status.PENDING, 10, False)
    assert (fresh(order).end_cause, amend_of(order).state) == (EndCause.OWN_AMEND, RequestState.CONFIRMED)
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=2")


def test_a_take_profit_sells_at_once_what_is_sellable_beside_an_amend_without_an_answer(
    hold: Any, buy: Buy, service: OrderService, broker: Broker, simulator: Simulator
) -> None:
    hold(10)
    sale = buy(side=Side.SELL, price=80_000, qty=4)
    stop = stops.arm(SAMSUNG, StopKind.TAKE_PROFIT, StopUnit.PRICE, Decimal(75_000), by="kim", at=clock.now())
    simulator.fault("answer_lost", path=CHANGE, count=1)
    assert service.amend(sale, price=79_000).state is Status.UNKNOWN
    simulator.set_price(SAMSUNG, 75_100)
    assert stops.trigger(stop.pk, 75_100, clock.now(), seen="feed")
    stops.run_sale_step(stop.pk, broker, clock.now)
    sold = TradeOrder.objects.get(request_id__startswith="stop:")
    assert (sold.qty, sold.state) == (6, Status.PENDING), sold.refusal


@pytest.mark.parametrize("fault", LOST)
@pytest.mark.parametrize("kind", [StopKind.STOP_LOSS, StopKind.TAKE_PROFIT])
def test_a_stop_sells_what_is_sellable_beside_a_sale_whose_amend_has_no_answer(
    hold: Any, buy: Buy, service: OrderService, broker: Broker, simulator: Simulator, clock_at: ClockAt,
    kind: StopKind, fault: str,
) -> None:  # fmt: skip
    hold(10)
    sale = buy(side=Side.SELL, price=80_000, qty=4)
    stop = stops.arm(SAMSUNG, kind, StopUnit.PRICE, Decimal(65_000 if kind.falls else 75_000), by="kim", at=clock.now())
    simulator.fault(fault, path=CHANGE, count=1)
    assert service.amend(sale, price=79_000).state is Status.UNKNOWN
    simulator.set_price(SAMSUNG, 64_900 if kind.falls else 75_100)
    assert stops.trigger(stop.pk, 64_900 if kind.falls else 75_100, clock.now(), seen="feed")
    began = clock.now()
    ordered = TradeOrder.objects.filter(request_id__startswith="stop:")
    while not ordered.exists():
        assert clock.now() - began < REPLY_DEADLINE, StopRule.objects.get().note
        stops.run_sale_step(stop.pk, broker, clock.now)
        clock_at(clock.now() + timedelta(seconds=3))
        reconcile.reconcile(broker, clock.now)
    assert ordered.get().qty == (10 if kind.falls else 6)
    assert ordered.get().state is not Status.REJECTED, ordered.get().refusal


def test_an_amend_without_an_answer_takes_no_cash_from_other_stocks_but_the_difference(
    unlimited: None, buy: Buy, service: OrderService, simulator: Simulator
) -> None:
    order = buy(price=69_000, qty=700, market=Market.KRX)
    simulator.fault("answer_lost", path=CHANGE, count=1)
    assert service.amend(order, price=69_500).state is Status.UNKNOWN
    simulator.set_price(CHEAP, 16_000, freeze=True)
    # 51 million are left, and the amend may have taken a third of one
    assert buy(code=CHEAP, price=15_000, qty=3_000, market=Market.KRX).is_open


# --- the chase -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["cancel", "amend"])
def test_a_chase_comes_nearer_either_way_and_ends_at_market(
    buy: Buy, broker: Broker, clock_at: ClockAt, simulator: Simulator, settings: Any, either_printing: None, by: str
) -> None:
    settings.CHASE_BY = by
    settings.MAX_AUTO_REQUESTS_PER_MINUTE = 0
    order = buy(strategy="buy_normal", tick_offset=-10, plan=Plan(30, 3, 1, market_after=True))
    for _ in range(60):
        for pk in chase.due_orders(clock.now()):
            chase.run_due_steps(pk, broker, clock.now)
        clock_at(clock.now() + timedelta(seconds=3))
    limits = [(OrderKind.LIMIT, price) for price in (69_000, 69_100, 69_200, 69_300)]
    assert new_orders(simulator) == [*limits, (OrderKind.MARKET, 0)]
    reconcile.reconcile(broker, clock.now)
    family = list(TradeOrder.objects.order_by("attempt"))
    assert [each.attempt for each in family] == [0, 1, 2, 3, 4]
    assert sum(each.filled_qty for each in family) == order.qty
    assert not TradeOrder.objects.exclude(chase_at=None).exists()
    assert max(at_stake(simulator.events(), SAMSUNG)) == order.qty
    assert equal(broker, simulator).startswith("LEDGER EQUAL orders=5")


@pytest.mark.parametrize("fault", LOST)
def test_a_chase_by_amends_that_lose_their_answers_goes_on_by_the_list(
    buy: Buy, broker: Broker, clock_at: ClockAt, simulator: Simulator, settings: Any, fault: str
) -> None:
    settings.CHASE_BY = "amend"
    settings.MAX_AUTO_REQUESTS_PER_MINUTE = 0
    order = buy(strategy="buy_normal", tick_offset=-10, plan=Plan(30, 2, 1, market_after=True))
    simulator.fault(fault, path=CHANGE, count=1)
    for _ in range(120):
        for pk in chase.due_orders(clock.now()):
            chase.run_due_steps(pk, broker, clock.now)
        clock_at(clock.now() + timedelta(seconds=3))
        reconcile.reconcile(broker, clock.now)
    assert sum(each.filled_qty for each in TradeOrder.objects.all()) == order.qty
    assert max(at_stake(simulator.events(), SAMSUNG)) == order.qty
    assert equal(broker, simulator).startswith("LEDGER EQUAL")
