"""Stops as rows: armed with sense, triggered once, sold whole or told why not."""

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import ValidationError
from django.core.management import CommandError, call_command
from django.utils import translation

from aegis.broker import Acceptance, Broker, BrokerError, BrokerOrderRef, NotSent, OrderRequest, OutcomeUnknown, Quote
from aegis.positions import PositionChange
from aegis.sessions import KST
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market, Side
from infra import clock
from kis.status import SocketState, StreamStatus
from market import partitions
from market.models import DailyPrice, MarketCandle
from orders import kill_switch, reconcile, stop_polling, stops
from orders.models import BasePrice, StopRule, TradeOrder
from orders.service import NO_CHASE, OrderIntent, OrderService
from portfolio.fetcher import KISFetcher
from portfolio.models import Portfolio, PortfolioEvent
from simulator.api.server import Simulator

from .conftest import SAMSUNG

pytestmark = pytest.mark.django_db
D = Decimal
State = StopRule.State
UP = StreamStatus(state=SocketState.CONNECTED, has_own_fills=True, held=("H0STCNT0:005930",))
DOWN = StreamStatus(state=SocketState.LOST)


@pytest.fixture
def held(service: OrderService, broker: Broker, simulator: Simulator) -> Portfolio:
    """Ten shares of 삼성전자, bought at 70,000 won or a tick above."""
    service.place(OrderIntent(SAMSUNG, Side.BUY, 10, strategy="buy_urgent", plan=NO_CHASE))
    reconcile.reconcile(broker, clock.now)
    KISFetcher(broker, clock.now).sync_portfolio()
    return Portfolio.objects.get(stock_code=SAMSUNG)


def loss(value: str = "65000", kind: StopKind = StopKind.STOP_LOSS, unit: StopUnit = StopUnit.PRICE) -> StopRule:
    return stops.arm(SAMSUNG, kind, unit, D(value), by="kim", at=clock.now())


def kinds(row: StopRule) -> list[str]:
    return list(row.events.values_list("kind", flat=True))


def advance(row: StopRule, broker: Broker) -> StopRule:
    stops.run_sale_step(row.pk, broker, clock.now)
    row.refresh_from_db()
    return row


def later(seconds: float) -> Callable[[], datetime]:
    return lambda: clock.now() + timedelta(seconds=seconds)


def sales() -> list[TradeOrder]:
    return list(TradeOrder.objects.filter(order_type=Side.SELL).order_by("pk"))


# --- arming


def test_an_armed_stop_knows_its_limit_and_who_armed_it(held: Portfolio) -> None:
    row = loss("5", unit=StopUnit.PERCENT)
    assert (row.state, row.armed_by, row.stock_name) == (State.ARMED, "kim", held.stock_name)
    assert stops.current_limit(row) == int(held.avg_price * D("0.95"))
    assert kinds(row) == ["ARMED"]


@pytest.mark.parametrize(
    ("kind", "unit", "value", "words"),
    [
        (StopKind.STOP_LOSS, StopUnit.PRICE, "75000", "75,000"),
        (StopKind.TAKE_PROFIT, StopUnit.PRICE, "60000", "60,000"),
        (StopKind.STOP_LOSS, StopUnit.PERCENT, "0", "값 0"),
        (StopKind.STOP_LOSS, StopUnit.PERCENT, "100", "값 100"),
        (StopKind.STOP_LOSS, StopUnit.ATR, "2", "15"),
    ],
)
def test_a_stop_without_sense_is_refused_by_its_field(
    held: Portfolio, kind: StopKind, unit: StopUnit, value: str, words: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        loss(value, kind, unit)
    assert words in caught.value.message_dict["value"][0]
    assert not StopRule.objects.exists()


def show(price: int) -> None:
    """Let the holding show a price, as one trade on NXT does."""
    Portfolio.objects.update(current_price=price, price_source="FEED", priced_at=clock.now())


def krx_bar(moment: str, close: int) -> None:
    at = datetime.fromisoformat(moment).replace(tzinfo=KST)
    partitions.ensure([at.date()])
    words = {"symbol": SAMSUNG, "venue": "KRX", "interval": "1m", "volume": 1, "value": close, "source": "FEED"}
    MarketCandle.objects.create(time=at, open=close, high=close, low=close, close=close, **words)


def trailing(quote: Quote | None = None) -> StopRule:
    choices = {"quote": quote, "may_trigger_now": True}
    return stops.arm(SAMSUNG, StopKind.TRAILING, StopUnit.PERCENT, D(5), by="kim", at=clock.now(), **choices)


def test_one_print_on_nxt_begins_no_trailing_stop(held: Portfolio, clock_at: Callable[[str], datetime]) -> None:
    krx_bar("2026-11-23 15:30", 70_000)
    clock_at("2026-11-23 16:30:00")
    show(91_000)
    assert trailing().high == 70_000, "KRX's close of today"
    clock_at("2026-11-24 08:05:00")
    assert trailing().high == 70_000, "KRX's close of the day before"
    BasePrice.objects.create(stock_code=SAMSUNG, date=clock.now().date(), price=60_000)
    assert trailing().high == 60_000, "today's base price"
    clock_at("2026-11-24 10:00:00")
    krx_bar("2026-11-24 09:59", 72_000)
    assert trailing().high == 72_000, "KRX's last trade"
    show(71_000)
    assert trailing().high == 71_000


def test_a_quote_of_krx_s_session_begins_a_trailing_stop_and_one_of_nxt_does_not(
    held: Portfolio, broker: Broker, clock_at: Callable[[str], datetime]
) -> None:
    quote = replace(broker.quote(SAMSUNG, Market.KRX), price=73_000, volume=5)
    show(91_000)
    assert trailing(quote).high == 73_000
    krx_bar("2026-11-23 15:30", 70_000)
    clock_at("2026-11-24 08:05:00")
    assert trailing(replace(quote, market=Market.NXT)).high == 70_000


def test_shares_that_are_not_held_need_no_stop(service: OrderService) -> None:
    with pytest.raises(ValidationError) as caught:
        loss()
    assert list(caught.value.message_dict) == ["stock_code"]


def test_several_stops_of_one_kind_may_stand_on_one_stock(held: Portfolio) -> None:
    loss()
    loss("60000")
    assert StopRule.objects.filter(state=State.ARMED).count() == 2


def test_the_true_range_is_taken_from_daily_prices(held: Portfolio) -> None:
    for day in range(1, 21):
        DailyPrice.objects.create(
            stock_code=SAMSUNG, date=f"2026-11-{day:02d}", open=70_000, high=71_000, low=69_000, close=70_000, volume=1
        )
    row = loss("2", unit=StopUnit.ATR)
    assert row.atr == 2_000
    assert stops.current_limit(row) == int(held.avg_price - 4_000)


def test_an_armed_stop_is_edited_and_disarmed_a_triggered_one_only_disarmed(held: Portfolio) -> None:
    row = loss()
    stops.edit(row, StopUnit.PERCENT, D(3), by="lee", at=clock.now())
    row.refresh_from_db()
    assert (row.unit, row.value) == ("PERCENT", D(3))
    assert stops.trigger(row.pk, 64_000, clock.now(), seen="feed")
    with pytest.raises(ValidationError):
        stops.edit(row, StopUnit.PRICE, D(60_000), by="lee", at=clock.now())
    stops.disarm(row, why="lee", at=clock.now())
    with pytest.raises(ValidationError):
        stops.disarm(row, why="lee", at=clock.now())
    assert kinds(row) == ["ARMED", "EDITED", "TRIGGERED", "DISARMED"]


AT_ONCE = "75000"  # above the price: a stop loss there sells at once


def test_a_stop_that_would_trigger_at_once_is_refused_and_says_how_to_confirm(held: Portfolio) -> None:
    with translation.override("en"), pytest.raises(ValidationError, match=r"--confirm-immediate.*may_trigger_now=True"):
        loss(AT_ONCE)
    row = stops.arm(
        SAMSUNG, StopKind.STOP_LOSS, StopUnit.PRICE, D(AT_ONCE), by="kim", at=clock.now(), may_trigger_now=True
    )
    assert row.state == State.ARMED


def test_moving_a_stop_to_where_it_triggers_at_once_needs_the_same_confirmation(held: Portfolio) -> None:
    row = loss()
    with pytest.raises(ValidationError):
        stops.edit(row, StopUnit.PRICE, D(AT_ONCE), by="lee", at=clock.now())
    row.refresh_from_db()
    assert row.value == 65_000
    stops.edit(row, StopUnit.PRICE, D(AT_ONCE), by="lee", at=clock.now(), may_trigger_now=True)
    row.refresh_from_db()
    assert row.value == 75_000


def test_a_value_without_sense_is_not_to_be_confirmed(held: Portfolio) -> None:
    with pytest.raises(ValidationError):
        stops.draft_stop(
            SAMSUNG, StopKind.STOP_LOSS, StopUnit.PERCENT, D(100), by="kim", at=clock.now(), may_trigger_now=True
        )


def test_what_triggers_is_set_for_all_stops_and_for_one(held: Portfolio, settings: Any) -> None:
    row = loss()
    assert row.venues == {Market.KRX, Market.NXT}
    settings.STOP_SOURCES = ("KRX",)
    assert row.venues == {Market.KRX}
    stops.edit(row, StopUnit.PRICE, D(60_000), by="lee", at=clock.now(), sources="nxt, krx")
    row.refresh_from_db()
    assert (row.sources, row.venues) == ("KRX,NXT", {Market.KRX, Market.NXT})
    stops.edit(row, StopUnit.PRICE, D(61_000), by="lee", at=clock.now())
    row.refresh_from_db()
    assert row.sources == "KRX,NXT", "what is not named stays"
    with pytest.raises(ValidationError) as caught:
        stops.edit(row, StopUnit.PRICE, D(60_000), by="lee", at=clock.now(), sources="SOR")
    assert list(caught.value.message_dict) == ["sources"]


# --- by command


def run(*words: str) -> str:
    out = StringIO()
    with translation.override("en"):
        call_command("stops", *words, stdout=out)
    return out.getvalue()


def test_the_command_arms_lists_and_disarms(held: Portfolio) -> None:
    assert "stop loss at 65,000 won (65000 won): armed" in run(SAMSUNG, "--loss", "65,000")
    assert "take profit" in run(SAMSUNG, "--profit", "10%")
    assert len(run().splitlines()) == 2
    row = StopRule.objects.get(kind="STOP_LOSS")
    assert "disarmed" in run("--disarm", str(row.pk))
    (listed,) = json.loads(run("--json"))["stops"]
    assert (listed["code"], listed["kind"], listed["unit"], listed["value"]) == (
        SAMSUNG,
        "TAKE_PROFIT",
        "PERCENT",
        "10",
    )
    assert len(run("--all").splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ([SAMSUNG], "name the stock and one of --loss"),
        (["--loss", "5%"], "name the stock and one of --loss"),
        ([SAMSUNG, "--loss", "five"], "threshold 'five' is none"),
        ([SAMSUNG, "--loss", "75000"], "would fire at once"),
        (["000660", "--loss", "5%"], "000660: a stop guards shares that are held"),
        (["--disarm", "77"], "there is no stop 77"),
        ([SAMSUNG, "--loss", "75000"], "--confirm-immediate"),
        ([SAMSUNG, "--loss", "5%", "--sources", "NYSE"], "names no venues"),
    ],
)
def test_the_command_says_what_would_be_right(held: Portfolio, words: list[str], complaint: str) -> None:
    with pytest.raises(CommandError, match=complaint):
        run(*words)


def test_the_command_arms_what_triggers_at_once_if_confirmed_and_names_venues(held: Portfolio) -> None:
    assert "armed" in run(SAMSUNG, "--loss", "75000", "--confirm-immediate", "--sources", "KRX")
    (listed,) = json.loads(run("--json"))["stops"]
    assert (listed["value"], listed["sources"]) == ("75000", ["KRX"])


def test_a_stop_that_triggered_says_at_which_price(held: Portfolio) -> None:
    row = loss()
    stops.trigger(row.pk, 64_900, clock.now(), seen="feed")
    Portfolio.objects.update(quantity=0)
    assert "at 64,900 won" in run("--all")


# --- once


def test_a_stop_triggers_once_and_sells_all_there_is(held: Portfolio, broker: Broker) -> None:
    row = loss()
    assert stops.trigger(row.pk, 64_900, clock.now(), seen="feed")
    assert not stops.trigger(row.pk, 64_800, clock.now(), seen="feed")
    advance(row, broker)
    assert (row.state, row.trigger_price) == (State.ORDERED, 64_900)
    assert [(each.qty, each.strategy, each.request_id) for each in sales()] == [(10, "sell_stop", f"stop:{row.pk}:1")]
    reconcile.reconcile(broker, clock.now)
    stops.run_sale_step(row.pk, broker, later(5))
    row.refresh_from_db()
    assert row.state == State.DONE
    assert kinds(row) == ["ARMED", "TRIGGERED", "ORDERED", "DONE"]


def test_an_errand_that_died_after_its_order_finds_that_order(held: Portfolio, broker: Broker) -> None:
    row = loss()
    stops.trigger(row.pk, 64_900, clock.now(), seen="feed")
    service = OrderService(broker, clock.now)
    service.place(OrderIntent(SAMSUNG, Side.SELL, 10, strategy="sell_stop", request_id=row.request_id))
    advance(row, broker)
    assert (row.state, len(sales())) == (State.ORDERED, 1)
    assert row.order == sales()[0]


def test_only_one_worker_is_at_it_and_a_claim_runs_out(held: Portfolio, broker: Broker) -> None:
    row = loss()
    stops.trigger(row.pk, 64_900, clock.now(), seen="feed")
    StopRule.objects.filter(pk=row.pk).update(claimed_until=clock.now() + stops.CLAIM)
    assert stops.run_sale_step(row.pk, broker, clock.now) is None
    assert stops.due_stops(clock.now()) == []
    assert stops.due_stops(later(6)()) == [row.pk]


def test_a_take_profit_sells_above_the_price(held: Portfolio, broker: Broker) -> None:
    row = loss("80000", StopKind.TAKE_PROFIT)
    stops.trigger(row.pk, 80_000, clock.now(), seen="feed")
    advance(row, broker)
    assert sales()[0].strategy == "sell_profit"


def test_a_stop_loss_first_cancels_our_own_sale_that_holds_the_shares(held: Portfolio, broker: Broker) -> None:
    OrderService(broker, clock.now).place(OrderIntent(SAMSUNG, Side.SELL, 10, price=75_000))
    row = loss()
    stops.trigger(row.pk, 64_900, clock.now(), seen="feed")
    advance(row, broker)
    assert row.state == State.TRIGGERED
    advance(row, broker)
    assert row.state == State.ORDERED, "the broker acknowledged the cancel: no list is needed"
    reconcile.reconcile(broker, clock.now)
    assert (sales()[0].price, sales()[0].status) == (75_000, "CANCELLED")
    assert sales()[1].qty == 10


class CancelsOnce:
    """A broker whose first cancel comes to nothing."""

    def __init__(self, broker: Broker, error: BrokerError) -> None:
        self._broker = broker
        self._error: BrokerError | None = error

    def __getattr__(self, name: str) -> object:
        return getattr(self._broker, name)

    def cancel(self, placed: BrokerOrderRef) -> Acceptance:
        error, self._error = self._error, None
        if error is not None:
            raise error
        return self._broker.cancel(placed)


@pytest.mark.parametrize("error", [NotSent("no connection"), OutcomeUnknown("no answer")])
def test_a_stop_whose_cancel_came_to_nothing_cancels_again_and_sells(
    held: Portfolio, broker: Broker, clock_at: Callable[[datetime], datetime], error: BrokerError
) -> None:
    OrderService(broker, clock.now).place(OrderIntent(SAMSUNG, Side.SELL, 10, price=75_000))
    row = loss()
    stops.trigger(row.pk, 64_900, clock.now(), seen="feed")
    failing = CancelsOnce(broker, error)
    for _ in range(5):
        advance(row, failing)  # type: ignore[arg-type]
        clock_at(clock.now() + timedelta(seconds=6))
        reconcile.reconcile(broker, clock.now)
    waited_for, sold = sales()
    assert (waited_for.price, waited_for.status) == (75_000, "CANCELLED")
    assert (row.state, sold.status, sold.filled_qty) == (State.DONE, "FILLED", 10)


# --- what stands in the way


def test_halted_it_waits_says_so_once_and_goes_when_resumed(held: Portfolio, broker: Broker) -> None:
    row = loss()
    kill_switch.halt(by="kim", reason="", at=clock.now())
    stops.trigger(row.pk, 64_900, clock.now(), seen="feed")
    advance(row, broker)
    advance(row, broker)
    assert (row.state, kinds(row)) == (State.TRIGGERED, ["ARMED", "TRIGGERED", "WAITS"])
    assert row.note
    assert stops.due_stops(clock.now()) == []
    assert stops.due_stops(later(6)()) == [row.pk]
    kill_switch.resume(by="kim", reason="", at=clock.now())
    advance(row, broker)
    assert row.state == State.ORDERED


def test_an_order_that_never_arrived_is_followed_by_the_next_generation(
    held: Portfolio, broker: Broker, simulator: Simulator
) -> None:
    row = loss()
    stops.trigger(row.pk, 64_900, clock.now(), seen="feed")
    TradeOrder.objects.create(
        request_id=row.request_id,
        stock_code=SAMSUNG,
        order_type="SELL",
        market="KRX",
        order_kind="00",
        qty=10,
        price=65_000,
        status="REJECTED",
        status_at=clock.now(),
        created_at=clock.now(),
        order_date=clock.now().date(),
        never_arrived=True,
        refusal="lost",
    )
    advance(row, broker)
    assert (row.state, row.generation) == (State.ORDERED, 2)
    assert sales()[-1].request_id == f"stop:{row.pk}:2"
    assert kinds(row) == ["ARMED", "TRIGGERED", "ORDERED", "AGAIN", "ORDERED"]


def test_a_take_profit_whose_order_a_person_cancelled_is_held_and_says_what_is_left(
    held: Portfolio, broker: Broker
) -> None:
    row = loss("80000", StopKind.TAKE_PROFIT)
    stops.trigger(row.pk, 80_000, clock.now(), seen="feed")
    advance(row, broker)
    OrderService(broker, clock.now).cancel(sales()[0])
    reconcile.reconcile(broker, clock.now)
    advance(row, broker)
    assert row.state == State.HELD_EXTERNALLY
    assert "10" in row.note


# --- what happens to the shares


def test_what_is_not_held_any_more_needs_no_stop(held: Portfolio) -> None:
    row = loss()
    Portfolio.objects.update(quantity=0)
    stops.sync_with_holdings(clock.now())
    row.refresh_from_db()
    assert (row.state, kinds(row)) == (State.DISARMED, ["ARMED", "DISARMED"])


@pytest.fixture
def vanished(held: Portfolio, broker: Broker, simulator: Simulator, clock_at: Callable[[str], datetime]) -> StopRule:
    """A stop whose shares are missing from one balance, of the morning after."""
    row = loss()
    clock_at("2026-11-24 10:00:00")
    simulator.fault("empty_list", path="/uapi/domestic-stock/v1/trading/inquire-balance", count=1)
    KISFetcher(broker, clock.now).sync_portfolio()
    assert not Portfolio.objects.exists()
    return row


def test_one_balance_that_lacks_the_shares_takes_no_stop_away(vanished: StopRule, broker: Broker) -> None:
    stops.sync_with_holdings(clock.now())
    KISFetcher(broker, clock.now).sync_portfolio()
    stops.sync_with_holdings(clock.now())
    vanished.refresh_from_db()
    assert (vanished.state, vanished.value) == (State.ARMED, D(65_000))


def test_shares_that_stay_away_need_no_stop(vanished: StopRule) -> None:
    stops.sync_with_holdings(clock.now() + stops.GONE_AFTER)
    vanished.refresh_from_db()
    assert vanished.state == State.DISARMED


def test_a_stop_that_fired_asks_the_broker_what_a_balance_lacks(vanished: StopRule, broker: Broker) -> None:
    stops.trigger(vanished.pk, 64_900, clock.now(), seen="feed")
    advance(vanished, broker)
    assert (vanished.state, sales()[0].qty) == (State.ORDERED, 10)


def test_a_split_moves_amounts_in_won_once(held: Portfolio) -> None:
    row = loss()
    PortfolioEvent.objects.create(
        at=clock.now(),
        stock_code=SAMSUNG,
        stock_name="",
        kind=PositionChange.SPLIT.value,
        qty_before=10,
        qty_after=50,
        avg_price_before=D(70_000),
        avg_price_after=D(14_000),
    )
    stops.sync_with_holdings(clock.now())
    stops.sync_with_holdings(clock.now())
    row.refresh_from_db()
    assert (row.value, row.high) == (D(13_000), held.current_price // 5)
    assert kinds(row) == ["ARMED", "REBASED"]


# --- silence


def heard(row: StopRule, price: int) -> None:
    told = stops.FeedTrades(price, price, clock.now().date(), {})
    stops.save_last_prices({row.pk: told}, clock.now())


def traded(quote: Quote, **words: int) -> Quote:
    """The same quote after one more trade."""
    return replace(quote, volume=quote.volume + 1, **words)


def test_while_the_feed_tells_nobody_asks(held: Portfolio, broker: Broker, simulator: Simulator) -> None:
    row = loss()
    heard(row, 70_000)
    simulator.set_price(SAMSUNG, 60_000, freeze=True)
    assert stop_polling.check_stops(broker, UP, clock.now) == []


@pytest.mark.parametrize("status", [DOWN, replace(UP, held=())])
def test_without_a_feed_the_broker_is_asked_and_the_stop_fires(
    held: Portfolio, broker: Broker, simulator: Simulator, status: StreamStatus
) -> None:
    row = loss()
    assert stop_polling.check_stops(broker, status, clock.now) == []
    assert stop_polling.check_stops(broker, status, later(stop_polling.GRACE_SECONDS)) == []
    simulator.set_price(SAMSUNG, 64_000, freeze=True)
    assert stop_polling.check_stops(broker, status, later(stop_polling.GRACE_SECONDS + 5)) == [row.pk]
    row.refresh_from_db()
    assert (row.state, row.trigger_price) == (State.TRIGGERED, 64_000)
    assert kinds(row) == ["ARMED", "SILENT", "TRIGGERED"]


def test_a_quiet_stock_is_no_deaf_feed(held: Portfolio, broker: Broker) -> None:
    row = loss()
    heard(row, Portfolio.objects.get().current_price)
    price = broker.quote(SAMSUNG, sales()[0].market if sales() else "KRX").price
    heard(row, price)
    assert stop_polling.check_stops(broker, UP, later(20)) == []
    assert kinds(row) == ["ARMED"]


def test_a_price_the_feed_did_not_tell_is_told_and_its_return_too(
    held: Portfolio, broker: Broker, simulator: Simulator, clock_at: Callable[[datetime], datetime]
) -> None:
    row = loss()
    heard(row, 70_000)
    stop_polling.check_stops(broker, UP, later(20))
    simulator.set_price(SAMSUNG, 68_000, freeze=True)
    for seconds in (25, 30):
        assert kinds(row) == ["ARMED"], "it may still be on its way"
        stop_polling.check_stops(broker, UP, later(seconds))
    row.refresh_from_db()
    assert row.is_silent
    clock_at(clock.now() + timedelta(seconds=31))
    heard(row, 68_000)
    stop_polling.check_stops(broker, UP, clock.now)
    assert kinds(row) == ["ARMED", "SILENT", "HEARD"]


def test_out_of_hours_nobody_asks(held: Portfolio, broker: Broker, clock_at: Callable[[str], datetime]) -> None:
    loss()
    clock_at("2026-11-28 10:00:00")
    assert stop_polling.check_stops(broker, DOWN, clock.now) == []


def test_a_stock_of_krx_alone_is_watched_in_krx_s_evening(
    service: OrderService, broker: Broker, simulator: Simulator, clock_at: Callable[[str], datetime]
) -> None:
    code = "004090"
    service.place(OrderIntent(code, Side.BUY, 2, strategy="buy_urgent", plan=NO_CHASE))
    reconcile.reconcile(broker, clock.now)
    KISFetcher(broker, clock.now).sync_portfolio()
    price = Portfolio.objects.get(stock_code=code).current_price
    row = stops.arm(code, StopKind.STOP_LOSS, StopUnit.PERCENT, D(5), by="kim", at=clock.now())
    clock_at("2026-11-23 15:45:00")
    assert (stop_polling.check_stops(broker, DOWN, clock.now), kinds(row)) == ([], ["ARMED"]), "it trades nowhere then"
    clock_at("2026-11-23 16:30:00")
    stop_polling.check_stops(broker, DOWN, clock.now)
    simulator.set_price(code, price * 9 // 1_000 * 100, freeze=True)
    assert stop_polling.check_stops(broker, DOWN, clock.now) == [row.pk]


def test_a_price_beyond_the_day_s_limits_fires_nothing_and_is_told_once(held: Portfolio, broker: Broker) -> None:
    row = loss()
    DailyPrice.objects.create(
        stock_code=SAMSUNG, date="2026-11-20", open=70_000, high=71_000, low=69_000, close=70_000, volume=1
    )
    quote = broker.quote(SAMSUNG, Market.KRX)
    split = replace(quote, price=14_000, base_price=14_000, lower_limit=9_800, upper_limit=18_200)
    for _ in range(2):
        split = traded(split)
        assert not stop_polling.judge(row, split, clock.now())
    assert stop_polling.judge(row, traded(split, price=64_000, lower_limit=49_000), clock.now())
    assert kinds(row) == ["ARMED", "IMPLAUSIBLE", "TRIGGERED"]


def test_a_fall_below_thirty_percent_fires_where_the_day_s_limits_are_wider(held: Portfolio, broker: Broker) -> None:
    row = loss()
    DailyPrice.objects.create(
        stock_code=SAMSUNG, date="2026-11-20", open=70_000, high=71_000, low=69_000, close=70_000, volume=1
    )
    leveraged = replace(
        broker.quote(SAMSUNG, Market.KRX), price=35_000, base_price=70_000, lower_limit=28_000, upper_limit=112_000
    )
    stop_polling.judge(row, leveraged, clock.now())
    assert stop_polling.judge(row, traded(leveraged), clock.now())


def test_a_stop_waits_for_a_sale_on_its_way_and_sells_all(
    held: Portfolio, broker: Broker, simulator: Simulator, clock_at: Callable[[datetime], datetime]
) -> None:
    row, fired = loss(), []

    def slowly(request: OrderRequest) -> Acceptance:
        acceptance = broker.place(request)
        if not fired:  # the broker has taken it, and its answer is still to come
            fired.append(stops.trigger(row.pk, 64_000, clock.now(), seen="feed"))
            simulator.set_price(SAMSUNG, 64_000, freeze=True)
            for _ in range(3):
                stops.run_sale_step(row.pk, broker, clock.now)
        return acceptance

    OrderService(mock.MagicMock(wraps=broker, place=slowly), clock.now).place(
        OrderIntent(SAMSUNG, Side.SELL, 5, price=80_000)
    )
    for _ in range(6):
        clock_at(clock.now() + timedelta(seconds=10))
        reconcile.reconcile(broker, clock.now)
        for pk in stops.due_stops(clock.now()):
            stops.run_sale_step(pk, broker, clock.now)
    row.refresh_from_db()
    assert row.state == State.DONE
    assert not Portfolio.objects.filter(stock_code=SAMSUNG, quantity__gt=0).exists()


def test_a_price_that_the_feed_s_day_cannot_have_is_asked_about(held: Portfolio, broker: Broker) -> None:
    row = loss()
    DailyPrice.objects.create(
        stock_code=SAMSUNG, date="2026-11-20", open=70_000, high=71_000, low=69_000, close=70_000, volume=1
    )
    real = broker.quote(SAMSUNG, Market.KRX)
    split = replace(real, price=14_000, base_price=14_000, lower_limit=9_800, upper_limit=18_200)
    fund = replace(real, price=48_300, base_price=70_000, lower_limit=28_000, upper_limit=112_000)
    assert not stop_polling.ask(row.pk, mock.Mock(quote=lambda *words: split), clock.now)
    assert stop_polling.ask(row.pk, mock.Mock(quote=lambda *words: fund), clock.now)
    assert kinds(row) == ["ARMED", "IMPLAUSIBLE", "TRIGGERED"]


def test_one_stop_that_cannot_be_watched_leaves_the_others(
    held: Portfolio, broker: Broker, simulator: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    row, odd = loss(), stops.arm(SAMSUNG, StopKind.TRAILING, StopUnit.PERCENT, D(5), by="kim", at=clock.now())
    look = stop_polling._look

    def fails(rule: StopRule, *words: Any) -> bool:
        if rule.pk == odd.pk:
            raise ZeroDivisionError
        return look(rule, *words)

    monkeypatch.setattr(stop_polling, "_look", fails)
    stop_polling.check_stops(broker, DOWN, clock.now)
    simulator.set_price(SAMSUNG, 64_000, freeze=True)
    assert stop_polling.check_stops(broker, DOWN, clock.now) == [row.pk]
