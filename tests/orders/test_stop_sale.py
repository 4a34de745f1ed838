"""The sale of a triggered stop: it follows the market down until no guarded share is held."""

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import ValidationError
from django.db import transaction
from django.utils import translation

from aegis.broker import Acceptance, Book, Broker, Level, NotSent, OrderRequest, Quote
from aegis.lifecycle import Status
from aegis.requests import RequestedBy
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market, Side
from aegis.trading_state import TradingState
from infra import clock
from orders import cancel_driver, fills, kill_switch, reconcile, risk, stops
from orders.cancel import Canceller
from orders.models import StopRule, TradeExecution, TradeOrder
from orders.service import NO_CHASE, EntryStop, OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from portfolio.models import AccountSnapshot, Portfolio
from simulator.api.server import Simulator

from .conftest import SAMSUNG
from .exchange_log import ACCOUNT
from .helpers import cancel_externally, fresh
from .test_fills import hear, notice

pytestmark = pytest.mark.django_db
D = Decimal
State = StopRule.State
LINE = 66_000
ORDER = "/uapi/domestic-stock/v1/trading/order-cash"
CHANGE = "/uapi/domestic-stock/v1/trading/order-rvsecncl"


@pytest.fixture
def held(service: OrderService, broker: Broker, simulator: Simulator) -> Callable[[int], None]:
    """Hold N 삼성전자, which trades at 70,000 won."""

    def hold(qty: int = 10) -> None:
        shares = {"account": ACCOUNT, "code": SAMSUNG, "quantity": qty, "cost": 70_000 * qty}
        simulator.command("POST", "/simulator/shares", shares)
        KISFetcher(broker, clock.now).sync_portfolio()

    hold(10)
    return hold


@pytest.fixture
def arm(held: Callable[[int], None]) -> Callable[..., StopRule]:
    def arm(line: int = LINE, kind: StopKind = StopKind.STOP_LOSS, **words: Any) -> StopRule:
        return stops.arm(SAMSUNG, kind, StopUnit.PRICE, D(line), by="kim", at=clock.now(), **words)

    return arm


@pytest.fixture
def fall(simulator: Simulator) -> Callable[..., None]:
    """Let the price fall, and trigger the stops that are named."""

    def fall(price: int, *rows: StopRule) -> None:
        simulator.set_price(SAMSUNG, price, freeze=True)
        for row in rows:
            assert stops.trigger(row.pk, price, clock.now(), seen="feed")

    return fall


@pytest.fixture
def work(broker: Broker, after: Callable[[float], None]) -> Callable[..., None]:
    """Run what the workers run, second by second: due stops, requested cancels, and the order list."""

    def work(seconds: float = 60, at: Any = broker, every: float = 1.0, *, lists: bool = True) -> None:
        until = clock.now() + timedelta(seconds=seconds)
        while clock.now() < until:
            for pk in stops.due_stops(clock.now()):
                stops.run_sale_step(pk, at, clock.now)
            for pk in cancel_driver.due_cancels(clock.now()):
                cancel_driver.drive(pk, at, clock.now)
            after(every)
            if lists:
                reconcile.reconcile(broker, clock.now)

    return work


class Falling:
    """A market whose price is gone, `percent` further down, each time an order is on its way."""

    def __init__(self, broker: Broker, simulator: Simulator, percent: float, times: int) -> None:
        self._broker, self._simulator = broker, simulator
        self._percent, self._left = percent, times
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.calls.append(name)
        return getattr(self._broker, name)

    def place(self, request: OrderRequest) -> Acceptance:
        self.calls.append("place")
        if self._left:
            self._left -= 1
            price = self._broker.quote(SAMSUNG, Market.KRX).price
            lower = self._broker.quote(SAMSUNG, Market.KRX).lower_limit
            target = max(lower, round(price * (100 - self._percent) / 100) // 100 * 100)
            self._simulator.set_price(SAMSUNG, target, freeze=True)
        return self._broker.place(request)


def sales() -> list[TradeOrder]:
    return list(TradeOrder.objects.filter(order_type=Side.SELL, origin="AEGIS").order_by("pk"))


def kinds(row: StopRule) -> list[str]:
    return list(row.events.values_list("kind", flat=True))


def state(row: StopRule) -> tuple[str, int]:
    """Return where a stop stands, and the shares that are held still."""
    row.refresh_from_db()
    return row.state, sum(Portfolio.objects.values_list("quantity", flat=True))


def offer_externally(simulator: Simulator, qty: int, price: int = 75_000) -> dict[str, Any]:
    body = {"account": ACCOUNT, "code": SAMSUNG, "side": "SELL", "quantity": qty, "price": price}
    return dict(simulator.command("POST", "/simulator/orders", body) or {})


# --- it follows the market down


@pytest.mark.parametrize("percent", [1, 2.5, 4, 8, 15])
@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_stop_follows_a_fall_of_any_depth_until_all_is_sold(
    arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator, percent: float, times: int
) -> None:
    row = arm()
    fall(LINE, row)
    began = clock.now()
    market = Falling(broker, simulator, percent, times)
    for _ in range(60):
        work(1, market)
        if state(row)[0] == State.DONE:
            break
    if simulator.command("POST", f"/simulator/quotes/{SAMSUNG}", {})["bids"]:
        assert state(row) == (State.DONE, 0)
        assert clock.now() - began <= timedelta(seconds=60)
        assert sum(each.filled_qty for each in sales()) == 10
    else:
        lower = broker.quote(SAMSUNG, Market.KRX).lower_limit
        assert [each.price for each in sales() if each.is_open] == [lower], "it stands in the queue"


def test_each_step_is_priced_from_the_current_price_and_at_last_at_market(
    arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator
) -> None:
    row, seen = arm(), []
    market = Falling(broker, simulator, 4, 3)

    def place(request: OrderRequest) -> Acceptance:
        seen.append((broker.quote(SAMSUNG, Market.KRX).price, request.price))
        return Falling.place(market, request)

    fall(LINE, row)
    work(45, mock.MagicMock(wraps=market, place=place))
    assert [price == 0 for _, price in seen] == [False, False, False, True]
    assert all(price >= current * D("0.97") for current, price in seen if price)
    assert state(row) == (State.DONE, 0)


def test_the_steps_need_no_order_list(arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator) -> None:
    row = arm()
    fall(LINE, row)
    work(45, Falling(broker, simulator, 4, 2), lists=False)
    assert len(sales()) == 3
    reconcile.reconcile(broker, clock.now)
    work(5)
    assert state(row) == (State.DONE, 0)


@pytest.mark.parametrize(("seconds", "orders"), [(2, 1), (8, 1), (13, 2)])
def test_a_step_waits_as_long_as_is_set(
    arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator, seconds: int, orders: int, settings: Any
) -> None:
    settings.STOP_WAIT_SECONDS = 10
    row = arm()
    fall(LINE, row)
    work(seconds, Falling(broker, simulator, 4, 9), every=0.5)
    assert len(sales()) == orders


def test_at_the_lower_limit_without_bids_it_stands_in_the_queue_and_keeps_its_place(
    arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator
) -> None:
    row = arm()
    lower = broker.quote(SAMSUNG, Market.KRX).lower_limit
    fall(lower, row)
    work(90)
    assert [(each.price, each.status) for each in sales()] == [(lower, Status.PENDING)]
    assert {"LOWER_LIMIT", "NO_BID"} & set(kinds(row))
    assert state(row) == (State.ORDERED, 10)


def test_an_ask_at_the_lower_limit_counts_at_its_second_reading(arm: Any, fall: Any, work: Any, broker: Broker) -> None:
    """The last trade is above the lower limit, but nobody bids and shares are offered there."""
    row = arm()
    fall(60_000, row)
    lower = broker.quote(SAMSUNG, Market.KRX).lower_limit

    def book(code: str, market: Market) -> Book:
        return Book(code, market, asks=(Level(lower, 100),), bids=())

    locked = mock.MagicMock(wraps=broker, book=book)
    stops.run_sale_step(row.pk, locked, clock.now)
    assert not sales(), "one reading sets no price"
    work(3, locked)
    assert sales()[0].price == lower


def test_without_a_bid_it_offers_at_most_three_percent_below_the_last_trade_and_says_so(
    arm: Any, fall: Any, work: Any, broker: Broker
) -> None:
    row = arm()
    fall(LINE, row)

    def book(code: str, market: Market) -> Book:
        return Book(code, market, asks=(Level(67_000, 100),), bids=())

    work(3, mock.MagicMock(wraps=broker, book=book))
    (sale,) = sales()
    assert LINE * D("0.97") <= sale.price < LINE
    assert "NO_BID" in kinds(row)


# --- NXT


@pytest.fixture
def on_nxt(held: Any, clock_at: Any, simulator: Simulator) -> None:
    clock_at("2026-11-24 08:10:00")
    simulator.set_price(SAMSUNG, 70_000, freeze=True)


def test_on_nxt_the_last_step_is_the_best_bid(
    on_nxt: None, arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator
) -> None:
    row = arm()
    fall(LINE, row)
    work(60, Falling(broker, simulator, 2, 9))
    simulator.clear_faults()
    work(30)
    assert {each.market for each in sales()} == {Market.NXT}
    assert all(each.price for each in sales())
    assert state(row) == (State.DONE, 0)


def test_one_trade_on_nxt_sets_no_price(on_nxt: None, arm: Any, fall: Any, work: Any, broker: Broker) -> None:
    row = arm()
    fall(LINE, row)
    quote, lower = broker.quote(SAMSUNG, Market.NXT), broker.quote(SAMSUNG, Market.NXT).lower_limit

    def thin_quote(code: str, market: Market) -> Quote:
        return replace(quote, price=lower)

    def thin_book(code: str, market: Market) -> Book:
        return Book(code, market, asks=(Level(LINE + 100, 50),), bids=(Level(lower, 1),))

    work(60, mock.MagicMock(wraps=broker, quote=thin_quote, book=thin_book))
    assert sales(), "it offers all the same"
    assert all(each.price >= LINE * D("0.97") for each in sales())


# --- auctions and VI


@pytest.mark.parametrize(("at", "over"), [("2026-11-24 08:55:00", 305), ("2026-11-23 15:22:00", 485)])
def test_in_an_auction_it_orders_once_at_market_and_keeps_its_place(
    arm: Any, fall: Any, work: Any, clock_at: Any, at: str, over: int
) -> None:
    row = arm()
    clock_at(at)
    fall(LINE, row)
    work(over - 15, every=5)
    assert [(each.order_kind, each.market, each.status) for each in sales()] == [("01", Market.KRX, Status.PENDING)]
    work(60, every=5)
    assert (len(sales()), state(row)) == (1, (State.DONE, 0))


def test_a_limit_order_of_before_an_auction_goes_to_market_once(
    arm: Any, fall: Any, work: Any, clock_at: Any, broker: Broker, simulator: Simulator
) -> None:
    row = arm()
    clock_at("2026-11-23 15:19:58")
    fall(LINE, row)
    work(2, Falling(broker, simulator, 4, 1))
    work(300, every=5)
    assert [each.order_kind for each in sales()] == ["00", "01"]
    work(400, every=10)
    assert (len(sales()), state(row)) == (2, (State.DONE, 0))


def test_in_a_volatility_interruption_it_orders_once_at_market(
    arm: Any, fall: Any, work: Any, simulator: Simulator
) -> None:
    row = arm()
    fall(LINE, row)
    simulator.command("POST", f"/simulator/quotes/{SAMSUNG}", {"vi": "dynamic"})
    work(60, every=2)
    assert [(each.order_kind, each.status) for each in sales()] == [("01", Status.PENDING)]
    work(120, every=2)
    assert (len(sales()), state(row)) == (1, (State.DONE, 0))


def test_a_limit_order_of_before_a_volatility_interruption_goes_to_market_once(
    arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator
) -> None:
    row = arm()
    fall(LINE, row)
    work(2, Falling(broker, simulator, 4, 1))
    simulator.command("POST", f"/simulator/quotes/{SAMSUNG}", {"vi": "static"})
    work(100, every=2)
    assert [each.order_kind for each in sales()] == ["00", "01"]
    work(90, every=2)
    assert (len(sales()), state(row)) == (2, (State.DONE, 0))


# --- until no guarded share is held


def test_shares_locked_by_an_external_sale_are_reported_and_sold_once_they_are_free(
    arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator
) -> None:
    external = offer_externally(simulator, 6)
    reconcile.reconcile(broker, clock.now)
    row = arm()
    fall(LINE, row)
    work(20)
    assert state(row) == (State.TRIGGERED, 6)
    assert kinds(row).count("LOCKED") == 2, "6 of 10, then 6 of 6"
    simulator.command("POST", "/simulator/orders", {"account": ACCOUNT, "cancel": int(external["number"])})
    work(15)
    assert state(row) == (State.DONE, 0)


def test_shares_bought_later_are_guarded_too(
    arm: Any, fall: Any, work: Any, held: Any, broker: Broker, simulator: Simulator
) -> None:
    row = arm()
    held(15)
    fall(LINE, row)
    work(5)
    assert (sum(each.filled_qty for each in sales()), state(row)) == (15, (State.DONE, 0))


def test_a_stop_of_a_fixed_quantity_sells_that_and_leaves_the_rest(arm: Any, fall: Any, work: Any) -> None:
    first, second = arm(quantity=3), arm(quantity=4)
    fall(LINE, first, second)
    work(20)
    assert (state(first), state(second)) == ((State.DONE, 3), (State.DONE, 3))
    assert sorted(each.filled_qty for each in sales()) == [3, 4]


@pytest.mark.parametrize("quantity", [0, 11])
def test_no_more_than_is_held_can_be_guarded(arm: Any, quantity: int) -> None:
    with pytest.raises(ValidationError) as caught:
        arm(quantity=quantity)
    assert list(caught.value.message_dict) == ["quantity"]


def test_two_stops_on_one_stock_make_one_sale(arm: Any, fall: Any, work: Any) -> None:
    first, second = arm(), arm(65_900)
    fall(65_000, first, second)
    work(20)
    assert [each.filled_qty for each in sales()] == [10]
    assert (state(first), state(second)) == ((State.DONE, 0), (State.DONE, 0))


def test_a_falling_stop_takes_the_shares_from_a_take_profit(
    arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator
) -> None:
    loss, profit = arm(), arm(75_000, StopKind.TAKE_PROFIT)
    assert stops.trigger(profit.pk, 75_000, clock.now(), seen="feed")
    work(2)
    assert state(profit)[0] == State.ORDERED
    fall(LINE, loss)
    work(30)
    assert (state(loss), state(profit)) == ((State.DONE, 0), (State.DONE, 0))
    assert sum(each.filled_qty for each in sales()) == 10


@pytest.mark.parametrize("fault", ["answer_lost", "receipt_without_number"])
@pytest.mark.parametrize("quantity", [None, 4])
def test_it_sells_on_though_an_earlier_sale_has_no_answer_and_no_share_twice(
    arm: Any, fall: Any, work: Any, simulator: Simulator, fault: str, quantity: int | None
) -> None:
    row = arm(quantity=quantity)
    fall(LINE, row)
    simulator.fault(fault, path=ORDER, count=1)
    work(60)
    wanted = quantity or 10
    assert state(row) == (State.DONE, 10 - wanted)
    assert sum(each["filled"] for each in simulator.ledger(ACCOUNT)["orders"] if each["side"] == "SELL") == wanted


def test_an_order_that_never_arrived_is_followed_at_once(arm: Any, fall: Any, work: Any, broker: Broker) -> None:
    row, failed = arm(), list[bool]()

    def place(request: OrderRequest) -> Acceptance:
        if not failed:
            failed.append(True)
            raise NotSent("no connection")
        return broker.place(request)

    fall(LINE, row)
    work(8, mock.MagicMock(wraps=broker, place=place))
    assert state(row) == (State.DONE, 0)


@pytest.mark.parametrize("earlier", [False, True])
def test_each_own_buy_is_cancelled_before_a_sale_could_trade_against_it(
    arm: Any, fall: Any, work: Any, service: OrderService, broker: Broker, simulator: Simulator, earlier: bool
) -> None:
    """Whether or not other buys were cancelled for this sale before, an hour ago."""
    row = arm()
    external = offer_externally(simulator, 6)
    fall(LINE, row)
    if earlier:
        service.place(OrderIntent(SAMSUNG, Side.BUY, 2, price=65_900, plan=NO_CHASE))
    work(30)
    assert ("OPPOSITE" in kinds(row)) is earlier
    work(1200, every=10)
    buy = service.place(OrderIntent(SAMSUNG, Side.BUY, 2, price=65_900, plan=NO_CHASE))
    simulator.command("POST", "/simulator/orders", {"account": ACCOUNT, "cancel": int(external["number"])})
    seen: list[str] = []

    def place(request: OrderRequest) -> Acceptance:
        seen.append(fresh(buy).status)
        return broker.place(request)

    work(90, mock.MagicMock(wraps=broker, place=place))
    assert seen[0] == Status.CANCELLED
    assert state(row)[0] == State.DONE


@pytest.mark.parametrize("answer", ["refused", "lost"])
def test_an_own_buy_whose_cancel_nothing_confirms_holds_a_sale_up_for_seconds(
    arm: Any, fall: Any, work: Any, service: OrderService, simulator: Simulator, answer: str
) -> None:
    row = arm()
    fall(LINE, row)
    service.place(OrderIntent(SAMSUNG, Side.BUY, 2, price=65_900, plan=NO_CHASE))
    simulator.fault({"refused": "refusal", "lost": "timeout_unaccepted"}[answer], path=CHANGE, count=9)
    began = clock.now()
    while not sales() and clock.now() - began < timedelta(seconds=30):
        work(1, every=0.5, lists=False)
    assert sales()
    assert clock.now() - began <= timedelta(seconds=8)


def test_an_own_buy_of_unknown_outcome_holds_a_sale_up_for_seconds(
    arm: Any, fall: Any, work: Any, service: OrderService, simulator: Simulator
) -> None:
    row = arm()
    fall(LINE, row)
    simulator.fault("timeout_unaccepted", path=ORDER, count=1)
    buy = service.place(OrderIntent(SAMSUNG, Side.BUY, 2, price=65_900, plan=NO_CHASE))
    assert buy.state is Status.UNKNOWN
    work(6, lists=False)
    assert sales()


# --- others change its order


@pytest.fixture
def resting(arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator) -> tuple[StopRule, TradeOrder]:
    """A stop whose sale rests above the market."""
    row = arm()
    fall(LINE, row)
    work(2, Falling(broker, simulator, 4, 1))
    (sale,) = sales()
    assert sale.is_open
    return row, sale


def test_an_external_cancel_holds_the_stop_until_a_person_arms_it_again(
    resting: tuple[StopRule, TradeOrder], work: Any, simulator: Simulator
) -> None:
    row, sale = resting
    cancel_externally(simulator, sale)
    work(60)
    assert (state(row), len(sales())) == ((State.HELD_EXTERNALLY, 10), 1)
    assert kinds(row).count("HELD_EXTERNALLY") == 1
    stops.rearm(row, by="kim", at=clock.now(), may_trigger_now=True)
    assert stops.trigger(row.pk, 62_000, clock.now(), seen="feed")
    work(5)
    assert state(row) == (State.DONE, 0)


def test_a_stop_that_is_held_ends_once_a_complete_balance_shows_no_share(
    resting: tuple[StopRule, TradeOrder], work: Any, broker: Broker, simulator: Simulator
) -> None:
    row, sale = resting
    amend = {"account": ACCOUNT, "amend": int(sale.order_no or 0), "price": 70_000, "quantity": 10}
    simulator.command("POST", "/simulator/orders", amend)
    work(10)
    assert state(row) == (State.HELD_EXTERNALLY, 10)
    simulator.set_price(SAMSUNG, 70_000, freeze=True)  # it sells in the broker's app
    work(10)
    stops.sync_with_holdings(clock.now())
    assert state(row) == (State.HELD_EXTERNALLY, 0), "no balance shows it yet"
    KISFetcher(broker, clock.now).sync_portfolio()
    AccountSnapshot.objects.update(left_out=["a line that cannot be read"])
    stops.sync_with_holdings(clock.now())
    assert state(row)[0] == State.HELD_EXTERNALLY, "shares may hide in a line that cannot be read"
    AccountSnapshot.objects.update(left_out=[])
    for _ in range(2):
        stops.sync_with_holdings(clock.now())
    assert state(row) == (State.DONE, 0)
    assert kinds(row)[-2:] == ["HELD_EXTERNALLY", "DONE"]


def test_a_stop_that_is_held_stays_while_shares_are_left(
    resting: tuple[StopRule, TradeOrder], work: Any, broker: Broker, simulator: Simulator
) -> None:
    row, sale = resting
    cancel_externally(simulator, sale)
    work(10)
    KISFetcher(broker, clock.now).sync_portfolio()
    stops.sync_with_holdings(clock.now())
    assert state(row) == (State.HELD_EXTERNALLY, 10)


@pytest.mark.parametrize("qty", [10, 4])
def test_an_external_amend_holds_the_stop(
    resting: tuple[StopRule, TradeOrder], work: Any, simulator: Simulator, qty: int
) -> None:
    row, sale = resting
    amend = {"account": ACCOUNT, "amend": int(sale.order_no or 0), "price": 70_000, "quantity": qty}
    simulator.command("POST", "/simulator/orders", amend)
    work(60)
    assert state(row) == (State.HELD_EXTERNALLY, 10)
    assert len(sales()) == 1


def test_an_external_cancel_just_before_our_own_holds_the_stop(
    resting: tuple[StopRule, TradeOrder], work: Any, broker: Broker, simulator: Simulator
) -> None:
    row, sale = resting

    def cancel(placed: Any) -> Acceptance:
        cancel_externally(simulator, sale)
        return broker.cancel(placed)

    work(30, mock.MagicMock(wraps=broker, cancel=cancel))
    assert (state(row), len(sales())) == ((State.HELD_EXTERNALLY, 10), 1)


def test_a_doubtful_line_after_a_lost_reply_to_our_own_cancel_holds_nothing(
    resting: tuple[StopRule, TradeOrder], work: Any, simulator: Simulator
) -> None:
    row, _ = resting
    simulator.fault("answer_lost", path=CHANGE, count=1)
    work(60)
    assert state(row) == (State.DONE, 0)


def test_a_cancel_by_a_person_holds_the_stop(
    resting: tuple[StopRule, TradeOrder], work: Any, service: OrderService
) -> None:
    row, sale = resting
    service.cancel(sale)
    work(30)
    assert (state(row), len(sales())) == ((State.HELD_EXTERNALLY, 10), 1)


def test_a_disarmed_stop_cancels_its_order_and_sells_nothing(resting: tuple[StopRule, TradeOrder], work: Any) -> None:
    row, sale = resting
    stops.disarm(row, why="kim", at=clock.now())
    work(60)
    assert (state(row), len(sales())) == ((State.DISARMED, 10), 1)
    assert fresh(sale).state is Status.CANCELLED


@pytest.mark.parametrize("call", ["sellable_qty", "quote", "book", "place"])
def test_a_stop_that_is_disarmed_at_any_call_sells_nothing(
    arm: Any, fall: Any, work: Any, broker: Broker, call: str
) -> None:
    row = arm()
    fall(LINE, row)

    def disarming(*words: Any) -> Any:
        if StopRule.objects.get().state != State.DISARMED:
            stops.disarm(row, why="kim", at=clock.now())
        return getattr(broker, call)(*words)

    work(30, mock.MagicMock(wraps=broker, **{call: disarming}))
    assert state(row) == (State.DISARMED, 10)
    assert not [each for each in sales() if each.sent_at]


# --- nights, halts, refusals


def test_a_sale_that_the_close_took_back_goes_on_in_the_next_session(
    resting: tuple[StopRule, TradeOrder], work: Any, clock_at: Any, broker: Broker, simulator: Simulator
) -> None:
    row, _ = resting
    clock_at("2026-11-23 20:05:00")
    work(180, every=10)
    assert state(row) == (State.TRIGGERED, 10)
    clock_at("2026-11-24 08:00:10")
    work(30)
    assert state(row) == (State.DONE, 0)
    assert {each.market for each in sales()[1:]} == {Market.NXT}


def test_a_stop_that_waits_through_a_weekend_or_a_halt_sends_no_request(
    arm: Any, fall: Any, work: Any, broker: Broker, clock_at: Any
) -> None:
    row = arm()
    fall(LINE, row)
    kill_switch.halt(by="kim", reason="", at=clock.now())
    watched = mock.MagicMock(wraps=broker)
    work(600, watched, every=10, lists=False)
    clock_at("2026-11-28 10:00:00")
    kill_switch.resume(by="kim", reason="", at=clock.now())
    work(600, watched, every=10, lists=False)
    assert watched.mock_calls == []
    assert state(row) == (State.TRIGGERED, 10)
    assert kinds(row).count("WAITS") == 2


def test_refusals_are_reported_once_and_tried_again_at_longer_intervals(
    arm: Any, fall: Any, work: Any, simulator: Simulator
) -> None:
    row = arm()
    fall(LINE, row)
    simulator.fault("refused_later", count=7)
    work(300, every=2)
    assert state(row) == (State.DONE, 0)
    assert kinds(row).count("REFUSED") == 1
    assert len(sales()) == 8


def test_a_halted_stock_is_asked_about_less_and_less(
    arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator
) -> None:
    row = arm()
    fall(LINE, row)
    simulator.command("POST", f"/simulator/quotes/{SAMSUNG}", {"halt": True})
    watched = mock.MagicMock(wraps=broker)
    work(600, watched, every=5, lists=False)
    assert 8 <= watched.quote.call_count <= 40
    simulator.command("POST", f"/simulator/quotes/{SAMSUNG}", {"halt": False})
    work(70, every=5)
    assert state(row) == (State.DONE, 0)


def test_while_trading_is_halted_not_even_its_cancel_leaves(
    resting: tuple[StopRule, TradeOrder], work: Any, broker: Broker, simulator: Simulator
) -> None:
    row, sale = resting
    simulator.fault("timeout_unaccepted", path=CHANGE, count=1)
    for _ in range(20):
        work(1)
        if fresh(sale).is_cancel_requested:
            break
    assert sale.is_cancel_requested
    kill_switch.halt(by="kim", reason="", at=clock.now())
    watched = mock.MagicMock(wraps=broker)
    work(60, watched, every=3)
    assert [call[0] for call in watched.mock_calls if call[0] in ("cancel", "place")] == []
    kill_switch.resume(by="kim", reason="", at=clock.now())
    work(30)
    assert state(row) == (State.DONE, 0)


def halt() -> None:
    kill_switch.halt(by="kim", reason="", at=clock.now())


@pytest.mark.parametrize("call", ["quote", "book", "cancel"])
def test_a_halt_during_its_step_lets_no_cancel_of_its_order_leave(
    resting: tuple[StopRule, TradeOrder], after: Any, work: Any, broker: Broker, call: str
) -> None:
    row, sale = resting
    halted: list[bool] = []

    def halting(*words: Any) -> Any:
        if not halted:
            halted.append(True)
            halt()
        return getattr(broker, call)(*words)

    after(15)
    stops.run_sale_step(row.pk, mock.MagicMock(wraps=broker, **{call: halting}), clock.now)
    assert halted
    work(30)
    assert fresh(sale).is_open
    kill_switch.resume(by="kim", reason="", at=clock.now())
    work(30)
    assert state(row) == (State.DONE, 0)


@pytest.mark.parametrize("how", ["halted", "disarmed"])
@pytest.mark.parametrize("side", [Side.SELL, Side.BUY])
def test_what_stands_against_a_sale_is_not_cancelled_once_nothing_is_to_be_sold(
    arm: Any, fall: Any, work: Any, service: OrderService, broker: Broker, how: str, side: Side
) -> None:
    row = arm()
    fall(LINE, row)
    price = 75_000 if side is Side.SELL else 65_900
    own = service.place(OrderIntent(SAMSUNG, side, 4, price=price, plan=NO_CHASE))
    done: list[bool] = []

    def cancel(placed: Any) -> Acceptance:
        if not done:
            done.append(True)
            halt() if how == "halted" else stops.disarm(row, why="kim", at=clock.now())
        return broker.cancel(placed)

    stops.run_sale_step(row.pk, mock.MagicMock(wraps=broker, cancel=cancel), clock.now)
    assert done
    work(30)
    assert fresh(own).is_open
    if how == "halted":
        kill_switch.resume(by="kim", reason="", at=clock.now())
        work(30)
        assert state(row)[0] == State.DONE
        assert fresh(own).state is Status.CANCELLED


def test_while_only_sales_pass_own_buys_are_cancelled_for_a_sale(
    arm: Any, fall: Any, work: Any, service: OrderService
) -> None:
    row = arm()
    fall(LINE, row)
    buy = service.place(OrderIntent(SAMSUNG, Side.BUY, 4, price=65_900, plan=NO_CHASE))
    kill_switch.set_state(TradingState.REDUCING, by="kim", reason="", at=clock.now())
    work(30)
    assert (state(row), fresh(buy).state) == ((State.DONE, 0), Status.CANCELLED)


@pytest.mark.parametrize("by", [RequestedBy.OPERATOR, RequestedBy.CANCEL_ALL, RequestedBy.CALLER])
def test_a_halt_holds_back_no_cancel_that_others_requested_before_the_stop(
    arm: Any, fall: Any, work: Any, after: Any, service: OrderService, broker: Broker, simulator: Simulator, by: Any
) -> None:
    row = arm()
    own = service.place(OrderIntent(SAMSUNG, Side.SELL, 4, price=75_000, plan=NO_CHASE))
    simulator.fault("timeout_unaccepted", path=CHANGE, count=1)
    Canceller(broker, clock.now).cancel(fresh(own), by=by)
    after(60)
    fall(LINE, row)

    def cancel(placed: Any) -> Acceptance:
        halt()
        return broker.cancel(placed)

    stops.run_sale_step(row.pk, mock.MagicMock(wraps=broker, cancel=cancel), clock.now)
    assert (fresh(own).cancel_requested_by, fresh(own).is_open) == (by, True)
    work(60)
    assert fresh(own).state is Status.CANCELLED
    assert not [each for each in sales() if each.request_id.startswith("stop:")]


def test_after_an_outage_of_the_broker_it_sells_within_seconds_and_nobody_need_act(
    arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator
) -> None:
    row = arm()
    fall(LINE, row)

    class Down:
        def __getattr__(self, name: str) -> Any:
            def fail(*words: Any, **named: Any) -> Any:
                raise NotSent("no connection")

            return fail

    work(25, Down(), lists=False)
    assert not sales()
    kill_switch.check_trips(clock.now())
    work(5, lists=False)
    assert len(sales()) == 1
    reconcile.reconcile(broker, clock.now)
    assert fresh(sales()[0]).state is Status.FILLED
    assert risk.trading_state() is TradingState.ACTIVE


@pytest.mark.parametrize("dies_at", ["sellable_qty", "quote", "book", "place", "answer", "cancel"])
def test_a_worker_killed_at_any_call_costs_seconds(
    arm: Any, fall: Any, work: Any, after: Any, broker: Broker, simulator: Simulator, dies_at: str
) -> None:
    row = arm()
    fall(LINE, row)
    market = Falling(broker, simulator, 4, 1)

    class Killed(BaseException):
        pass

    def die(*words: Any) -> Any:
        if dies_at == "answer":
            market.place(*words)
        raise Killed

    name = "place" if dies_at == "answer" else dies_at
    dying = mock.MagicMock(wraps=market, **{name: die})
    for _ in range(20):
        try:
            work(1, dying)
        except Killed:
            break
        after(1)
    # nothing that runs in a killed process tidies up
    StopRule.objects.filter(pk=row.pk).update(claimed_until=clock.now() + stops.CLAIM)
    killed_at, before = clock.now(), len(sales())
    for _ in range(40):
        work(1)
        if len(sales()) > before or state(row)[0] == State.DONE:
            break
    # what arrived without an answer rests at the broker, which locks its shares: the list finds it first
    patience = 20 if dies_at == "answer" else 10
    assert clock.now() - killed_at <= timedelta(seconds=patience)
    work(60)
    assert state(row) == (State.DONE, 0)
    assert sum(each.filled_qty for each in sales()) == 10


def test_an_intent_of_a_person_is_still_held_back_by_an_unknown_sale(
    arm: Any, service: OrderService, simulator: Simulator
) -> None:
    simulator.fault("answer_lost", path=ORDER, count=1)
    assert service.place(OrderIntent(SAMSUNG, Side.SELL, 4, price=75_000)).state is Status.UNKNOWN
    with pytest.raises(Exception, match="no known outcome"):
        service.place(OrderIntent(SAMSUNG, Side.SELL, 5, price=75_000))


# --- stops that come with an order


FIVE_PERCENT = EntryStop(StopKind.STOP_LOSS, StopUnit.PERCENT, D(5))


def test_a_stop_attached_to_an_order_is_armed_by_each_fill_for_the_shares_filled(service: OrderService) -> None:
    order = service.place(OrderIntent(SAMSUNG, Side.BUY, 10, price=69_000, stops=(FIVE_PERCENT,)))
    assert not StopRule.objects.exists(), "nothing is filled yet"
    hear(notice(order.order_no, qty=4, price=69_000))
    assert StopRule.objects.get().quantity == 4
    hear(notice(order.order_no, qty=6, price=69_000))
    row = StopRule.objects.get()
    assert (fresh(order).filled_qty, row.quantity, row.state, row.entry_id) == (10, 10, State.ARMED, order.pk)
    assert stops.current_limit(row) == int(Portfolio.objects.get().avg_price * D("0.95"))


@pytest.mark.parametrize("sold_first", [True, False])
@pytest.mark.parametrize("more", [False, True])
@pytest.mark.parametrize("both", [False, True])
def test_what_an_entry_buys_after_its_stop_triggered_is_guarded_too(
    service: OrderService,
    simulator: Simulator,
    broker: Broker,
    fall: Any,
    work: Any,
    request: pytest.FixtureRequest,
    sold_first: bool,
    more: bool,
    both: bool,
) -> None:
    """4 of 10 are filled, the stop triggers, and the other 6 are filled: another row of the same stop guards them."""
    if more:
        request.getfixturevalue("held")
    wanted = (FIVE_PERCENT, EntryStop(StopKind.TRAILING, StopUnit.PERCENT, D(6)))[: 1 + both]
    order = service.place(OrderIntent(SAMSUNG, Side.BUY, 10, price=69_000, stops=wanted, plan=NO_CHASE))
    simulator.set_price(SAMSUNG, 69_000, freeze=True)
    hear(notice(order.order_no, qty=4, price=69_000))
    first = StopRule.objects.get(kind=StopKind.STOP_LOSS)
    fall(60_000, first)
    if sold_first:
        stops.run_sale_step(first.pk, broker, clock.now)
    hear(notice(order.order_no, qty=6, price=69_000))
    assert sorted(StopRule.objects.filter(kind=StopKind.STOP_LOSS).values_list("quantity", flat=True)) == [4, 6]
    work(20)
    for row in StopRule.objects.filter(state=State.ARMED):
        assert stops.trigger(row.pk, 60_000, clock.now(), seen="feed")
    work(60)
    assert set(StopRule.objects.values_list("state", flat=True)) == {State.DONE}
    assert sum(Portfolio.objects.values_list("quantity", flat=True)) == 10 * more


def test_a_stop_of_an_entry_sells_only_what_that_entry_bought(
    service: OrderService, held: Any, work: Any, fall: Any
) -> None:
    order = service.place(
        OrderIntent(SAMSUNG, Side.BUY, 4, strategy="buy_urgent", stops=(FIVE_PERCENT,), plan=NO_CHASE)
    )
    work(3)
    assert fresh(order).state is Status.FILLED
    fall(60_000, StopRule.objects.get())
    work(20)
    assert state(StopRule.objects.get()) == (State.DONE, 10)


def test_the_re_orders_of_a_chase_carry_the_stop_on(
    buy: Any, service: OrderService, simulator: Simulator, work: Any, turn: Any, after: Any
) -> None:
    buy(stops=(FIVE_PERCENT,))
    for _ in range(20):
        turn(seconds=10)
    bought = TradeOrder.objects.filter(order_type=Side.BUY)
    assert bought.count() > 1
    assert sum(each.filled_qty for each in bought) == 10
    assert StopRule.objects.get().quantity == 10


def test_a_fill_that_was_none_takes_its_stop_back(service: OrderService, simulator: Simulator, work: Any) -> None:
    order = service.place(
        OrderIntent(SAMSUNG, Side.BUY, 4, strategy="buy_urgent", stops=(FIVE_PERCENT,), plan=NO_CHASE)
    )
    work(3)
    execution = TradeExecution.objects.get()
    with transaction.atomic():
        fills.void_fill(execution, fresh(order), now=clock.now(), why="test")
    assert StopRule.objects.get().state == State.DISARMED


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ({"value": D(0)}, "more than 0"),
        ({"unit": StopUnit.PRICE, "value": D("0.5")}, "whole number"),
    ],
)
def test_a_stop_of_an_order_that_could_never_trigger_is_refused(words: dict[str, Any], complaint: str) -> None:
    with translation.override("en"), pytest.raises(ValueError, match=complaint):
        replace(FIVE_PERCENT, **words)


def test_a_sale_arms_no_stop() -> None:
    with translation.override("en"), pytest.raises(ValueError, match="a sale arms none"):
        OrderIntent(SAMSUNG, Side.SELL, 1, price=70_000, stops=(FIVE_PERCENT,))


# --- whatever orders, replies and lists do


LIST = "/uapi/domestic-stock/v1/trading/inquire-daily-ccld"


def sold_at_the_exchange(simulator: Simulator) -> int:
    return sum(each["filled"] for each in simulator.ledger(ACCOUNT)["orders"] if each["side"] == "SELL")


@pytest.mark.parametrize("lag", [True, False])
def test_a_fixed_quantity_is_not_offered_again_before_the_list_says_what_a_cancel_took(
    arm: Any, fall: Any, work: Any, held: Any, simulator: Simulator, lag: bool
) -> None:
    held(400_000)
    row = arm(quantity=3000)
    fall(LINE, row)
    if lag:
        simulator.fault("list_lag", seconds=40)
    work(45, every=0.5, lists=lag)
    simulator.clear_faults()
    work(90)
    assert sold_at_the_exchange(simulator) <= 3000


def test_a_print_at_the_upper_limit_sets_no_price_on_nxt(
    on_nxt: None, arm: Any, fall: Any, work: Any, broker: Broker
) -> None:
    row = arm()
    fall(LINE, row)

    def quote(code: str, market: Market) -> Quote:
        seen = broker.quote(code, market)
        return replace(seen, price=seen.upper_limit)

    work(60, mock.MagicMock(wraps=broker, quote=quote), every=2)
    assert state(row) == (State.DONE, 0)


def test_two_trades_a_second_apart_set_a_price_on_nxt(
    on_nxt: None, arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator
) -> None:
    """The only ask is far above: the second trade is the witness."""
    row = arm()
    fall(LINE, row)

    def book(code: str, market: Market) -> Book:
        return replace(broker.book(code, market), asks=(Level(LINE + 100, 50),))

    thin = mock.MagicMock(wraps=broker, book=book)
    for _ in range(40):
        simulator.set_price(SAMSUNG, 60_000, freeze=True)
        simulator.set_price(SAMSUNG, 60_100, freeze=True)
        work(2, thin, every=2)
    assert state(row) == (State.DONE, 0)


@pytest.mark.parametrize("is_tried_before", [False, True])
def test_two_trades_set_a_price_on_nxt_whatever_the_total_of_the_day_before(
    on_nxt: None,
    arm: Any,
    fall: Any,
    work: Any,
    broker: Broker,
    simulator: Simulator,
    clock_at: Any,
    is_tried_before: bool,
) -> None:
    row = arm()
    clock_at("2026-11-24 19:58:00")
    fall(LINE, row)
    total, price = 5_000_000, LINE

    def quote(code: str, market: Market) -> Quote:
        nonlocal total
        total += 10
        return replace(broker.quote(code, market), volume=total, price=price)

    def book(code: str, market: Market) -> Book:
        return Book(code, market, asks=(Level(LINE + 100, 50),), bids=(Level(60_000, 500),))

    thin = mock.MagicMock(wraps=broker, quote=quote, book=book)
    simulator.set_price(SAMSUNG, 60_000, freeze=True)
    if is_tried_before:
        work(60, thin, every=2)
        assert state(row)[1] == 10
    clock_at("2026-11-25 08:00:05")
    simulator.set_price(SAMSUNG, 60_000, freeze=True)
    total, price = 1_000, 60_000
    work(150, thin, every=2)
    assert state(row) == (State.DONE, 0)


@pytest.mark.parametrize("has_died", [False, True])
def test_a_triggered_stop_sells_after_the_clock_was_set_back(
    arm: Any, fall: Any, work: Any, clock_at: Any, has_died: bool
) -> None:
    row = arm()
    fall(LINE, row)
    if has_died:
        StopRule.objects.filter(pk=row.pk).update(claimed_until=clock.now() + stops.CLAIM)
    clock_at(clock.now() - timedelta(minutes=20))
    assert stops.overdue_stops(clock.now()) == [row.pk]
    assert stops.seconds_to_next_step(row.pk, clock.now()) == 0.0
    work(20)
    assert state(row) == (State.DONE, 0)


@pytest.mark.parametrize(
    ("now", "try_at", "is_due"),
    [
        ("10:00:00", "10:00:59", False),
        ("10:00:00", "10:02:00", True),
        ("15:21:00", "15:30:10", False),  # what the closing auction leaves
        ("15:21:00", "15:32:00", True),
        ("15:10:00", "15:30:10", True),
    ],
)
def test_a_step_later_than_any_can_be_planned_is_due(
    arm: Any, fall: Any, clock_at: Any, now: str, try_at: str, is_due: bool
) -> None:
    row = arm()
    fall(LINE, row)
    StopRule.objects.filter(pk=row.pk).update(try_at=f"2026-11-23T{try_at}+09:00")
    at = clock_at(f"2026-11-23 {now}")
    assert (stops.due_stops(at) == stops.overdue_stops(at) == [row.pk]) is is_due
    assert (stops.seconds_to_next_step(row.pk, at) == 0.0) is is_due


def test_a_claim_by_a_clock_that_is_a_little_ahead_stands(arm: Any, fall: Any, broker: Broker) -> None:
    row = arm()
    fall(LINE, row)
    StopRule.objects.filter(pk=row.pk).update(claimed_until=clock.now() + stops.CLAIM + timedelta(seconds=2))
    assert stops.due_stops(clock.now()) == []
    assert stops.run_sale_step(row.pk, broker, clock.now) is None


def test_a_lost_reply_to_its_cancel_holds_up_no_sale_while_the_list_is_down(
    resting: tuple[StopRule, TradeOrder], work: Any, simulator: Simulator
) -> None:
    simulator.fault("answer_lost", path=CHANGE, count=1)
    simulator.fault("refusal", path=LIST)
    work(40, lists=False)
    assert len(sales()) > 1
    assert sold_at_the_exchange(simulator) == 10


def test_an_own_sale_that_is_filled_unnoticed_holds_up_no_stop(
    arm: Any, fall: Any, work: Any, service: OrderService, simulator: Simulator
) -> None:
    row = arm()
    service.place(OrderIntent(SAMSUNG, Side.SELL, 4, price=71_000, plan=NO_CHASE))
    simulator.set_price(SAMSUNG, 72_000, freeze=True)
    simulator.fault("refusal", path=LIST)
    fall(LINE, row)
    work(20, lists=False)
    assert sold_at_the_exchange(simulator) == 10


def test_an_own_sale_whose_sender_was_killed_holds_up_no_stop(arm: Any, fall: Any, work: Any, broker: Broker) -> None:
    class Killed(BaseException):
        pass

    row = arm()
    dying = OrderService(mock.MagicMock(wraps=broker, place=mock.Mock(side_effect=Killed)), clock.now)
    with pytest.raises(Killed):
        dying.place(OrderIntent(SAMSUNG, Side.SELL, 1, price=75_000, plan=NO_CHASE))
    fall(LINE, row)
    work(10)
    assert any(each.request_id.startswith("stop:") for each in sales())


@pytest.mark.parametrize("other", [StopKind.TRAILING, StopKind.TAKE_PROFIT])
def test_two_stops_of_one_entry_sell_once_what_it_bought(
    service: OrderService, held: Any, work: Any, fall: Any, other: StopKind
) -> None:
    both = (FIVE_PERCENT, EntryStop(other, StopUnit.PERCENT, D(6)))
    service.place(OrderIntent(SAMSUNG, Side.BUY, 4, strategy="buy_urgent", stops=both, plan=NO_CHASE))
    work(3)
    fall(60_000, *StopRule.objects.filter(kind__in=["STOP_LOSS", "TRAILING"]))
    work(60)
    for row in StopRule.objects.filter(state=State.ARMED):
        assert stops.trigger(row.pk, 60_000, clock.now(), seen="feed")
    work(60)
    assert sum(Portfolio.objects.values_list("quantity", flat=True)) == 10


def test_a_falling_stop_of_an_entry_does_not_wait_for_its_take_profit(
    service: OrderService, held: Any, work: Any, fall: Any, broker: Broker, simulator: Simulator
) -> None:
    both = (FIVE_PERCENT, EntryStop(StopKind.TAKE_PROFIT, StopUnit.PERCENT, D(6)))
    service.place(OrderIntent(SAMSUNG, Side.BUY, 4, strategy="buy_urgent", stops=both, plan=NO_CHASE))
    work(3)
    loss, profit = StopRule.objects.order_by("pk")
    fall(75_000, profit)
    work(2, Falling(broker, simulator, 4, 1))
    assert [each.is_open for each in sales()] == [True]
    fall(60_000, loss)
    work(10)
    assert state(loss) == (State.DONE, 10)
    work(30)
    assert (state(profit), sold_at_the_exchange(simulator)) == ((State.DONE, 10), 4)


@pytest.mark.parametrize("call", ["sellable_qty", "quote", "book", "place"])
@pytest.mark.parametrize("other", [StopKind.TRAILING, StopKind.TAKE_PROFIT])
def test_two_stops_of_one_entry_that_trigger_a_moment_apart_sell_once(
    service: OrderService, held: Any, work: Any, fall: Any, broker: Broker, simulator: Simulator, call: str, other: Any
) -> None:
    both = (FIVE_PERCENT, EntryStop(other, StopUnit.PERCENT, D(6)))
    service.place(OrderIntent(SAMSUNG, Side.BUY, 4, strategy="buy_urgent", stops=both, plan=NO_CHASE))
    work(3)
    first, second = StopRule.objects.order_by("pk")
    fall(60_000, second)
    done: list[bool] = []

    def racing(*words: Any) -> Any:
        if not done:
            done.append(True)
            assert stops.trigger(first.pk, 60_000, clock.now(), seen="feed")
            stops.run_sale_step(first.pk, broker, clock.now)
        return getattr(broker, call)(*words)

    stops.run_sale_step(second.pk, mock.MagicMock(wraps=broker, **{call: racing}), clock.now)
    assert done
    work(60)
    assert sold_at_the_exchange(simulator) == 4
    assert (state(first), state(second)) == ((State.DONE, 10), (State.DONE, 10))


def test_a_part_that_is_cancelled_externally_before_our_own_cancel_holds_the_stop(
    resting: tuple[StopRule, TradeOrder], work: Any, broker: Broker, simulator: Simulator
) -> None:
    row, sale = resting
    done: list[bool] = []

    def cancel(placed: Any) -> Acceptance:
        if not done:
            done.append(True)
            part = {"account": ACCOUNT, "cancel": int(sale.order_no or 0), "quantity": 4}
            simulator.command("POST", "/simulator/orders", part)
        return broker.cancel(placed)

    watched = mock.MagicMock(wraps=broker, cancel=cancel)
    # the broker has confirmed nothing but the list, read at once, shows whose cancel it was
    for _ in range(40):
        work(1, watched)
    row.refresh_from_db()
    assert row.state == State.HELD_EXTERNALLY


def test_an_order_of_an_earlier_step_that_is_cancelled_externally_holds_the_stop(
    arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator
) -> None:
    row = arm()
    fall(LINE, row)
    simulator.fault("answer_lost", path=ORDER, count=1)
    stops.run_sale_step(row.pk, Falling(broker, simulator, 4, 1), clock.now)
    work(6, lists=False)
    simulator.command("POST", "/simulator/orders", {"account": ACCOUNT, "cancel": 1})
    work(60)
    assert state(row)[0] == State.HELD_EXTERNALLY


@pytest.mark.parametrize("call", ["sellable_qty", "quote", "book", "place"])
def test_an_external_cancel_that_becomes_known_during_a_step_holds_the_stop(
    arm: Any, fall: Any, work: Any, after: Any, broker: Broker, simulator: Simulator, call: str
) -> None:
    row = arm()
    fall(LINE, row)
    simulator.fault("answer_lost", path=ORDER, count=1)
    stops.run_sale_step(row.pk, Falling(broker, simulator, 4, 1), clock.now)
    after(6)
    simulator.command("POST", "/simulator/orders", {"account": ACCOUNT, "cancel": 1})
    done: list[bool] = []

    def waiting(*words: Any) -> Any:
        if not done:
            done.append(True)
            for _ in range(2):
                after(7)
                reconcile.reconcile(broker, clock.now)
        return getattr(broker, call)(*words)

    for _ in range(10):
        stops.run_sale_step(row.pk, mock.MagicMock(wraps=broker, **{call: waiting}), clock.now)
        if done:
            break
        after(1)
    assert done
    work(60)
    assert state(row) == (State.HELD_EXTERNALLY, 10)
    assert sold_at_the_exchange(simulator) == 0


def test_a_cancel_of_the_one_sale_of_two_stops_holds_both(
    arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator
) -> None:
    first, second = arm(), arm(65_900)
    fall(65_800, first, second)
    work(4, Falling(broker, simulator, 4, 1))
    cancel_externally(simulator, sales()[0])
    work(30)
    assert (state(first), state(second)) == ((State.HELD_EXTERNALLY, 10), (State.HELD_EXTERNALLY, 10))


def test_a_cancel_of_one_of_two_sales_beside_each_other_leaves_the_other(
    arm: Any, fall: Any, work: Any, broker: Broker, simulator: Simulator
) -> None:
    first, second = arm(quantity=3), arm(quantity=4)
    fall(65_800, first, second)
    work(2, Falling(broker, simulator, 4, 2))
    one, two = sales()
    assert [one.is_open, two.is_open] == [True, True]
    cancel_externally(simulator, one)
    work(60)
    assert (state(first), state(second)) == ((State.HELD_EXTERNALLY, 6), (State.DONE, 6))


def test_a_fill_that_is_voided_after_its_stop_triggered_is_not_sold(
    service: OrderService, held: Any, work: Any, fall: Any
) -> None:
    order = service.place(OrderIntent(SAMSUNG, Side.BUY, 4, price=58_000, stops=(FIVE_PERCENT,), plan=NO_CHASE))
    hear(notice(order.order_no, qty=4, price=58_000))
    row = StopRule.objects.get()
    fall(60_000, row)
    kill_switch.halt(by="kim", reason="", at=clock.now())
    with transaction.atomic():
        fills.void_fill(TradeExecution.objects.get(), fresh(order), now=clock.now(), why="test")
    kill_switch.resume(by="kim", reason="", at=clock.now())
    work(30)
    assert not sales()
    assert state(row)[0] == State.DISARMED


def test_a_stop_that_was_moved_is_not_triggered_by_its_old_line(arm: Any, after: Any) -> None:
    row = arm()
    judged_from = row.counts_since
    after(1)
    stops.edit(row, StopUnit.PRICE, D(60_000), by="kim", at=clock.now())
    assert not stops.trigger(row.pk, 65_900, clock.now(), seen="feed", judged_from=judged_from)
    row.refresh_from_db()
    assert stops.trigger(row.pk, 59_900, clock.now(), seen="feed", judged_from=row.counts_since)


def test_arming_again_at_a_price_beyond_the_line_asks_for_confirmation(
    resting: tuple[StopRule, TradeOrder], work: Any, broker: Broker, simulator: Simulator
) -> None:
    row, sale = resting
    cancel_externally(simulator, sale)
    work(5)
    KISFetcher(broker, clock.now).sync_portfolio()
    row.refresh_from_db()
    with pytest.raises(ValidationError):
        stops.rearm(row, by="kim", at=clock.now())
    stops.rearm(row, by="kim", at=clock.now(), may_trigger_now=True)
    assert state(row)[0] == State.ARMED


def test_a_call_that_waits_long_for_its_turn_is_not_taken_over(
    arm: Any, fall: Any, broker: Broker, transactional_db: None, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stops, "CLAIM", timedelta(seconds=0.6))
    monkeypatch.setattr(stops, "RENEW_SECONDS", 0.2)
    row = arm()
    fall(LINE, row)

    def waiting(*words: Any) -> int:
        time.sleep(1.5)
        assert stops.due_stops(clock.now()) == [], "the claim is with_rule"
        return broker.sellable_qty(*words)

    stops.run_sale_step(row.pk, mock.MagicMock(wraps=broker, sellable_qty=waiting), clock.now)
    assert state(row)[0] == State.ORDERED
    assert StopRule.objects.get(pk=row.pk).claimed_until is None
