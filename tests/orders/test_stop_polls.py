"""Prices that are asked for: which of them count as trades, how often, and when their silence is told."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from typing import Any
from unittest import mock

import pytest
from django.core.management import call_command

from aegis.broker import Book, Broker, DayPrice, Level, NotSent, Quote
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market, Side
from infra import clock
from kis.status import SocketState, StreamStatus
from orders import price_polling, stop_polling, stops
from orders.models import StopRule
from orders.service import NO_CHASE, OrderIntent, OrderService
from portfolio.models import Portfolio
from simulator.api.server import Simulator

from .conftest import SAMSUNG
from .test_stops import held, kinds

__all__ = ("held",)

pytestmark = pytest.mark.django_db
D = Decimal
DOWN = StreamStatus(state=SocketState.LOST)
UP = StreamStatus(state=SocketState.CONNECTED, has_own_fills=True, held=(f"H0STCNT0:{SAMSUNG}", f"H0NXCNT0:{SAMSUNG}"))
LINE = 65_000
At = Callable[[datetime | str], datetime]


class Polled:
    """A broker whose quotes and books of one stock are as a test says; it counts what it was asked for."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self.price, self.volume = 70_000, 1_000
        self.ask = 70_100
        self.asked: list[str] = []
        self.is_away = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._broker, name)

    def trade(self, price: int, qty: int = 1) -> None:
        self.price, self.volume = price, self.volume + qty

    def quote(self, code: str, market: Market) -> Quote:
        if self.is_away:
            raise NotSent("no connection")
        self.asked.append(f"quote {market}")
        return Quote(code, market, self.price, 70_000, 91_000, 49_000, is_halted=False, volume=self.volume)

    def book(self, code: str, market: Market) -> Book:
        self.asked.append(f"book {market}")
        return Book(code, market, asks=(Level(self.ask, 1),), bids=(Level(49_000, 1),))


@pytest.fixture
def polled(broker: Broker) -> Polled:
    return Polled(broker)


def arm(
    kind: StopKind = StopKind.STOP_LOSS, value: int = LINE, sources: str = "", quote: Quote | None = None
) -> StopRule:
    unit = StopUnit.PERCENT if kind is StopKind.TRAILING else StopUnit.PRICE
    return stops.arm(SAMSUNG, kind, unit, D(value), by="kim", at=clock.now(), sources=sources, quote=quote)


@pytest.fixture
def watch(polled: Polled, clock_at: At) -> Callable[..., list[int]]:
    """Take the turns of some seconds, one each five; return what they triggered."""

    def take(seconds: int = 5, status: StreamStatus = DOWN) -> list[int]:
        fired: list[int] = []
        for _ in range(seconds // 5):
            clock_at(clock.now() + timedelta(seconds=5))
            fired += stop_polling.check_stops(polled, status, clock.now)  # type: ignore[arg-type]
        return fired

    return take


def armed_yesterday(clock_at: At, moment: str, **words: Any) -> StopRule:
    row = arm(**words)
    day = clock_at(moment)
    StopRule.objects.update(based_on=day.date())
    row.refresh_from_db()
    return row


# --- which polled price is a trade


def test_a_price_without_a_trade_since_the_arming_triggers_nothing(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]]
) -> None:
    row = arm()
    polled.price = 60_000
    assert watch(60) == []
    polled.trade(60_000)
    assert watch() == [row.pk]


def test_what_was_traded_today_is_a_trade_for_a_stop_of_yesterday(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    row = armed_yesterday(clock_at, "2026-11-24 10:00:00")
    polled.price = 60_000
    assert watch() == [row.pk]


def test_after_an_outage_the_first_poll_counts_from_what_the_feed_told(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]]
) -> None:
    row = arm()
    told = stops.FeedTrades(70_000, 70_000, clock.now().date(), {"KRX": 1_000})
    stops.save_last_prices({row.pk: told}, clock.now())
    polled.is_away = True
    assert watch(25) == []
    polled.is_away = False
    polled.trade(60_000)
    assert watch() == [row.pk]


def test_on_nxt_a_second_poll_with_a_trade_between_is_the_witness(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    row = armed_yesterday(clock_at, "2026-11-24 08:05:00")
    polled.trade(60_000)
    assert watch(30) == [], "one trade, however often it is asked for"
    polled.trade(70_000)
    assert watch() == []
    polled.trade(60_000)
    assert watch() == []
    polled.trade(60_000)
    assert watch() == [row.pk]


def test_on_nxt_the_best_ask_is_a_witness_at_once(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    row = armed_yesterday(clock_at, "2026-11-24 08:05:00")
    polled.trade(60_000)
    polled.ask = LINE
    assert watch() == [row.pk]
    assert polled.asked == ["quote NXT", "book NXT"]


def test_on_krx_no_book_is_asked_for(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    row = armed_yesterday(clock_at, "2026-11-24 10:00:00")
    polled.trade(60_000)
    assert watch() == [row.pk]
    assert polled.asked == ["quote KRX"]


def test_one_polled_share_on_nxt_lifts_no_high(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    row = armed_yesterday(clock_at, "2026-11-24 08:05:00", kind=StopKind.TRAILING, value=10)
    for price in (91_000, 70_000):
        polled.trade(price)
        assert watch() == []
    row.refresh_from_db()
    assert row.high < 71_000
    for price in (91_000, 75_000):
        polled.trade(price)
        watch()
    row.refresh_from_db()
    assert row.high == 75_000


def test_a_book_that_does_not_come_is_no_witness(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    armed_yesterday(clock_at, "2026-11-24 08:05:00")
    polled.book = mock.Mock(side_effect=NotSent("no connection"))  # type: ignore[method-assign]
    polled.trade(60_000)
    assert watch() == []


@pytest.mark.parametrize("is_held", [False, True])
def test_a_crossing_between_the_arming_and_the_first_poll_triggers(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], is_held: bool
) -> None:
    quote = stop_polling.quote_before(SAMSUNG, "", polled, clock.now)  # type: ignore[arg-type]
    assert quote is not None
    assert (quote.market, quote.volume) == (Market.KRX, 1_000)
    row, other = arm(quote=quote), arm()
    polled.trade(60_000)
    assert watch(10, UP if is_held else DOWN) == [row.pk]
    move_to(other, 64_000, polled)
    polled.price = 60_000
    assert watch(200, DOWN) == [], "nothing was traded since"
    move_to(other, 63_000, polled)
    polled.trade(60_000)
    assert watch() == [other.pk]


def move_to(row: StopRule, price: int, polled: Polled) -> None:
    polled.price = 70_000
    quote = stop_polling.quote_before(SAMSUNG, "", polled, clock.now)  # type: ignore[arg-type]
    stops.edit(row, StopUnit.PRICE, D(price), by="kim", at=clock.now(), quote=quote)


def test_a_total_that_cannot_be_asked_for_arms_all_the_same(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    polled.is_away = True
    assert stop_polling.quote_before(SAMSUNG, "", polled, clock.now) is None  # type: ignore[arg-type]
    clock_at("2026-11-24 08:55:00")
    polled.is_away = False
    assert stop_polling.quote_before(SAMSUNG, "KRX", polled, clock.now) is None  # type: ignore[arg-type]


def test_a_broker_that_hangs_holds_up_no_arming(
    held: Portfolio, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stop_polling, "QUOTE_PATIENCE_SECONDS", 0.05)
    asked, ends = threading.Event(), threading.Event()

    def quote(code: str, market: Market) -> Quote:
        asked.set()
        ends.wait(10)
        raise NotSent("no connection")

    hanging = mock.MagicMock(wraps=broker, quote=quote)
    try:
        assert stop_polling.quote_before(SAMSUNG, "", hanging, clock.now) is None
        assert asked.is_set()
    finally:
        ends.set()


def test_of_a_stop_armed_before_the_first_trade_of_a_day_each_trade_counts(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    clock_at("2026-11-24 08:59:40")
    row = arm(sources="KRX")
    clock_at("2026-11-24 09:00:01")
    polled.price, polled.volume = 60_000, 1
    assert watch() == [row.pk]


def test_the_command_arms_with_the_running_total_of_now(held: Portfolio, broker: Broker) -> None:
    call_command("stops", SAMSUNG, "--loss", "5%", stdout=StringIO())
    row = StopRule.objects.get()
    assert row.poll_state["volumes"]["KRX"] == broker.quote(SAMSUNG, Market.KRX).volume


class Unsettled(Polled):
    """One whose base price cannot be compared, as its charts are away."""

    is_chart_away = True
    base = 70_000

    def quote(self, code: str, market: Market) -> Quote:
        return replace(super().quote(code, market), base_price=self.base)

    def daily_chart(self, code: str, first: date, last: date, *, adjusted: bool = True) -> list[DayPrice]:
        if self.is_chart_away:
            raise NotSent("no connection")
        return [DayPrice(last, 70_000, 70_000, 70_000, 70_000, 1)]


@pytest.mark.parametrize("first_volume", [0, 1_000])
@pytest.mark.parametrize(
    ("base", "price", "fires"), [(70_000, LINE, True), (60_000, 60_000, False), (60_000, 55_000, True)]
)
def test_a_trade_that_comes_while_it_holds_fire_is_judged_afterwards(
    held: Portfolio, broker: Broker, clock_at: At, first_volume: int, base: int, price: int, fires: bool
) -> None:
    polled = Unsettled(broker)
    row = armed_yesterday(clock_at, "2026-11-24 09:30:00")
    StopRule.objects.update(based_on="2026-11-23", base_price=0)
    polled.price, polled.volume, polled.base = base, first_volume, base
    fired: list[int] = []

    def turns() -> None:
        for _ in range(8):
            clock_at(clock.now() + timedelta(seconds=5))
            fired.extend(stop_polling.check_stops(polled, DOWN, clock.now))  # type: ignore[arg-type]

    turns()
    polled.trade(price)
    turns()
    assert fired == []
    polled.is_chart_away = False
    turns()
    assert fired == ([row.pk] if fires else [])


def test_a_feed_that_told_a_trade_while_it_held_fire_is_not_silent(
    held: Portfolio, broker: Broker, clock_at: At
) -> None:
    polled = Unsettled(broker)
    row = armed_yesterday(clock_at, "2026-11-24 09:30:00")
    StopRule.objects.update(based_on="2026-11-23", base_price=0)
    for turn in range(60):
        clock_at(clock.now() + timedelta(seconds=5))
        if turn == 6:
            polled.trade(70_000)
            stops.save_last_prices(
                {row.pk: stops.FeedTrades(70_000, 0, clock.now().date(), {"KRX": polled.volume})}, clock.now()
            )
        stop_polling.check_stops(polled, UP, clock.now)  # type: ignore[arg-type]
    assert "SILENT" not in kinds(row)


# --- when it is asked


@pytest.mark.parametrize(
    ("moment", "sources", "asked"),
    [
        ("08:05:00", "", {"quote NXT"}),
        ("08:05:00", "KRX", set()),
        ("08:52:00", "", set()),
        ("10:00:00", "", {"quote KRX"}),
        ("10:00:00", "NXT", {"quote NXT"}),
        ("15:25:00", "", set()),
        ("15:30:10", "", {"quote KRX"}),  # what the closing auction traded at
        ("15:33:00", "", set()),
        ("16:30:00", "", {"quote NXT"}),
        ("16:30:00", "KRX", {"quote KRX"}),
        ("20:00:00", "", set()),
    ],
)
def test_the_venue_that_trades_and_may_trigger_is_asked(
    held: Portfolio,
    polled: Polled,
    watch: Callable[..., list[int]],
    clock_at: At,
    moment: str,
    sources: str,
    asked: set[str],
) -> None:
    armed_yesterday(clock_at, f"2026-11-24 {moment}", sources=sources)
    watch(20)
    assert set(polled.asked) == asked


def test_the_uncross_of_the_closing_auction_triggers_at_once(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    row = armed_yesterday(clock_at, "2026-11-24 15:29:55")
    polled.trade(60_000)
    assert watch(10) == [row.pk]


@pytest.mark.parametrize("how", ["armed", "moved", "moved without a quote"])
def test_the_uncross_triggers_a_stop_that_was_armed_or_moved_in_its_auction(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At, how: str
) -> None:
    if how != "armed":
        clock_at("2026-11-24 15:10:00")
        row = arm(value=60_000, sources="KRX")
        assert watch(10) == []
    clock_at("2026-11-24 15:25:00")
    polled.is_away = how == "moved without a quote"
    quote = stop_polling.quote_before(SAMSUNG, "KRX", polled, clock.now)  # type: ignore[arg-type]
    assert (quote is None) is polled.is_away
    if how == "armed":
        row = arm(sources="KRX", quote=quote)
    else:
        stops.edit(row, StopUnit.PRICE, D(LINE), by="kim", at=clock.now(), quote=quote)
    clock_at("2026-11-24 15:30:02")
    polled.is_away = False
    polled.trade(LINE)
    assert watch(20) == [row.pk]


def test_a_stop_that_was_moved_without_a_quote_counts_from_what_its_feed_told(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    clock_at("2026-11-24 10:00:00")
    row = arm(value=60_000, quote=stop_polling.quote_before(SAMSUNG, "", polled, clock.now))  # type: ignore[arg-type]
    told = stops.FeedTrades(66_000, 0, clock.now().date(), {"KRX": 5_000})
    stops.save_last_prices({row.pk: told}, clock.now())
    row.refresh_from_db()
    stops.edit(row, StopUnit.PRICE, D(66_000), by="kim", at=clock.now())
    polled.price, polled.volume = 66_000, 5_000
    assert watch(20) == [], "nothing was traded since"
    polled.trade(66_000)
    assert watch(20) == [row.pk]


def test_a_quiet_stock_is_asked_about_less_and_less(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]]
) -> None:
    row = arm()
    watch(600, UP)
    assert 6 <= len(polled.asked) <= 9
    assert kinds(row) == ["ARMED"]
    polled.asked.clear()
    watch(100, DOWN)
    assert len(polled.asked) == 20, "one whose feed is not held is asked about each turn"


@pytest.mark.parametrize("is_heard", [False, True])
def test_a_clock_that_was_set_back_hides_no_stop(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At, is_heard: bool
) -> None:
    row = armed_yesterday(clock_at, "2026-11-24 11:00:00")
    watch(300, UP)
    if is_heard:
        StopRule.objects.update(feed_at=clock.now())
    clock_at("2026-11-24 10:00:00")
    polled.trade(60_000)
    assert watch(5, UP) == [row.pk]


def test_after_a_clock_was_set_back_two_polls_are_witnesses(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    row = armed_yesterday(clock_at, "2026-11-24 08:30:00")
    polled.trade(60_000)
    watch(5)
    clock_at("2026-11-24 08:10:00")
    for _ in range(2):
        polled.trade(60_000)
        fired = watch()
    assert fired == [row.pk]


def test_a_deaf_feed_is_told_after_the_clock_was_set_back(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    row = armed_yesterday(clock_at, "2026-11-24 11:00:00")
    watch(60, UP)
    StopRule.objects.update(feed_at=clock.now())
    clock_at("2026-11-24 10:00:00")
    for _ in range(60):
        polled.trade(69_000)
        watch(5, UP)
    assert "SILENT" in kinds(row)


# --- when silence is told


@pytest.mark.parametrize("status", [DOWN, replace(UP, held=())])
def test_neither_a_new_stop_nor_a_start_reports_silence(
    held: Portfolio, watch: Callable[..., list[int]], clock_at: At, status: StreamStatus
) -> None:
    row = arm()
    watch(10, status)
    watch(30, UP)
    clock_at("2026-11-23 11:00:00")
    watch(15, status)
    assert kinds(row) == ["ARMED"]
    watch(10, status)
    assert kinds(row) == ["ARMED", "SILENT"]
    watch(30, UP)
    assert kinds(row) == ["ARMED", "SILENT", "HEARD"]


def test_a_start_with_prices_that_moved_meanwhile_reports_no_silence(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    row = arm()
    told = stops.FeedTrades(70_000, 70_000, clock.now().date(), {"KRX": 1_000})
    stops.save_last_prices({row.pk: told}, clock.now())
    clock_at("2026-11-23 11:00:00")
    polled.trade(68_000, 500)
    watch(10, DOWN)
    watch(60, UP)
    assert kinds(row) == ["ARMED"]


def test_a_deaf_feed_is_told_and_asked_about_each_turn(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]]
) -> None:
    row = arm()
    watch(60, UP)
    for _ in range(60):
        polled.trade(69_000)
        watch(5, UP)
    assert kinds(row) == ["ARMED", "SILENT"]
    polled.asked.clear()
    watch(100, UP)
    assert len(polled.asked) == 20


# --- the venue of an order


def test_an_order_before_nine_goes_into_krx_s_opening_auction(
    held: Portfolio, service: OrderService, clock_at: At, simulator: Simulator
) -> None:
    clock_at("2026-11-24 08:55:00")
    order = service.place(OrderIntent(SAMSUNG, Side.SELL, 3, strategy="sell_stop", plan=NO_CHASE))
    assert (order.market, order.status) == ("KRX", "PENDING")


def test_holdings_are_not_asked_about_in_an_auction(held: Portfolio, polled: Polled, clock_at: At) -> None:
    for moment in ("08:55:00", "15:25:00"):
        clock_at(f"2026-11-24 {moment}")
        assert price_polling.poll(polled, DOWN, clock.now) == 0  # type: ignore[arg-type]
    assert polled.asked == []


def test_a_feed_that_was_not_held_before_a_break_is_given_its_time_again(
    held: Portfolio, watch: Callable[..., list[int]], clock_at: At
) -> None:
    row = arm()
    watch(10, DOWN)
    clock_at("2026-11-23 11:00:00")
    watch(15, DOWN)
    assert kinds(row) == ["ARMED"]


def test_another_day_s_running_total_hides_no_trade(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]], clock_at: At
) -> None:
    row = arm()
    polled.trade(70_000, 1_000_000)
    watch()
    clock_at("2026-11-24 10:00:00")
    StopRule.objects.update(based_on=clock.now().date())
    polled.price, polled.volume = 60_000, 500
    assert watch() == [row.pk]


def test_a_total_that_begins_anew_within_the_day_hides_no_trade_for_long(
    held: Portfolio, polled: Polled, watch: Callable[..., list[int]]
) -> None:
    row = arm()
    polled.trade(70_000, 1_000_000)
    watch(10)
    polled.price, polled.volume = 60_000, 5
    assert watch() == []
    polled.trade(60_000)
    assert watch() == [row.pk]
