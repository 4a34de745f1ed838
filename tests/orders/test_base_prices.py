"""The base price of a morning against the last close: an armed stop moves once, and holds fire until then."""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from unittest import mock

import pytest
from django.core.exceptions import ValidationError

from aegis.broker import Broker, DayPrice, NotSent
from aegis.positions import PositionChange
from aegis.sessions import KST
from aegis.stops import StopKind, StopUnit
from aegis.terms import Market
from infra import clock
from kis.status import StreamStatus
from market import partitions
from market.models import DailyPrice, MarketCandle
from notify import alerts
from notify.models import Message
from orders import base_prices, daily_loss, stop_polling, stops
from orders.models import BasePrice, StopRule
from portfolio.models import Portfolio, PortfolioEvent
from simulator.api.server import Simulator

from .conftest import SAMSUNG
from .test_stops import held, kinds

__all__ = ("held",)

pytestmark = pytest.mark.django_db
D = Decimal
DOWN = StreamStatus()
MORNING = "2026-11-24 07:50:30"


def arm(value: str = "5", kind: StopKind = StopKind.STOP_LOSS, unit: StopUnit = StopUnit.PERCENT) -> StopRule:
    return stops.arm(SAMSUNG, kind, unit, D(value), by="kim", at=clock.now())


@pytest.fixture
def asked() -> list[str]:
    """What the broker below was asked for, in order."""
    return []


@pytest.fixture
def at_base(broker: Broker, asked: list[str]) -> Callable[..., Any]:
    """Return a broker whose quotes of the morning have another base price, and whose close of the day before is known.

    Everything else is the real one's.
    """

    def make(base: int, close: int = 70_000, volume: int = 0, price: int | None = None) -> Any:
        def quote(code: str, market: Market) -> Any:
            asked.append(f"quote {market}")
            real = broker.quote(code, market)
            limits = {"lower_limit": base * 7 // 10, "upper_limit": base * 13 // 10}
            return replace(real, price=price or base, base_price=base, volume=volume, **limits)

        def daily_chart(code: str, first: Any, last: Any, *, adjusted: bool = True) -> Any:
            asked.append("adjusted chart" if adjusted else "chart")
            return [DayPrice(last, close, close, close, close, 1)]

        return mock.MagicMock(wraps=broker, quote=quote, daily_chart=daily_chart)

    return make


def bar_of_the_close(price: int, source: str = "FEED") -> None:
    at = datetime(2026, 11, 23, 15, 30, tzinfo=KST)
    partitions.ensure([at.date()])
    MarketCandle.objects.create(
        time=at,
        symbol=SAMSUNG,
        interval="1m",
        venue="KRX",
        open=price,
        high=price,
        low=price,
        close=price,
        volume=1,
        value=price,
        source=source,
    )


def split_event(ratio: D, at: datetime | None = None) -> None:
    before = Portfolio.objects.get(stock_code=SAMSUNG)
    Portfolio.objects.update(avg_price=before.avg_price * ratio, quantity=int(before.quantity / ratio))
    PortfolioEvent.objects.create(
        at=at or clock.now(),
        stock_code=SAMSUNG,
        stock_name="",
        kind=PositionChange.BONUS_ISSUE.value,
        qty_before=before.quantity,
        qty_after=int(before.quantity / ratio),
        avg_price_before=before.avg_price,
        avg_price_after=before.avg_price * ratio,
    )


def awaits_base_price(row: StopRule) -> bool:
    row.refresh_from_db()
    return stops.awaits_base_price(row, clock.now().date())


def test_an_ex_rights_morning_moves_everything_once_and_is_told_before_the_open(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    alerts.gather(clock.now(), ["telegram"])
    won, percent = arm("63000", unit=StopUnit.PRICE), arm("10", kind=StopKind.TAKE_PROFIT)
    trail = arm("5", kind=StopKind.TRAILING)
    line = stops.current_limit(percent)
    clock_at(MORNING)
    assert all(awaits_base_price(row) for row in (won, percent, trail))
    for _ in range(3):
        stop_polling.check_stops(at_base(60_000), DOWN, clock.now)
    for row in (won, percent, trail):
        assert not awaits_base_price(row)
        assert kinds(row) == ["ARMED", "REBASED"]
    assert (won.value, trail.high) == (54_000, held.current_price * 6 // 7)
    assert abs(stops.current_limit(percent) - line * 6 / 7) <= 1
    assert (won.based_on, won.base_price) == (clock.now().date(), 60_000)
    alerts.gather(clock.now(), ["telegram"])
    told = [
        text for text in Message.objects.filter(channel="telegram").values_list("text", flat=True) if "54,000" in text
    ]
    assert len(told) == 1
    assert "60,000" in told[0]


def test_an_ex_rights_open_fires_no_percent_stop(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    row = arm()
    clock_at("2026-11-24 09:00:05")
    broker = at_base(60_000, volume=1_000)
    assert stop_polling.check_stops(broker, DOWN, clock.now) == []
    assert stop_polling.check_stops(at_base(60_000, volume=2_000), DOWN, clock.now) == []
    row.refresh_from_db()
    assert row.state == "ARMED"
    assert stop_polling.check_stops(at_base(60_000, volume=3_000, price=56_000), DOWN, clock.now) == [row.pk]


def test_an_ordinary_morning_changes_nothing_and_asks_once(
    held: Portfolio, at_base: Callable[..., Any], asked: list[str], clock_at: Callable[[str], datetime]
) -> None:
    row = arm()
    bar_of_the_close(70_000)
    clock_at(MORNING)
    for _ in range(3):
        stop_polling.check_stops(at_base(70_000), DOWN, clock.now)
    assert not awaits_base_price(row)
    assert (asked, kinds(row)) == (["quote KRX"], ["ARMED"])


def test_a_night_asks_nothing(
    held: Portfolio, at_base: Callable[..., Any], asked: list[str], clock_at: Callable[[str], datetime]
) -> None:
    arm()
    for moment in ("2026-11-23 20:00:05", "2026-11-24 03:00:00", "2026-11-24 07:49:00", "2026-11-28 10:00:00"):
        clock_at(moment)
        stop_polling.check_stops(at_base(60_000), DOWN, clock.now)
    assert asked == []


@pytest.mark.parametrize("source", ["PARTIAL", "UNSURE"])
def test_a_bar_that_may_miss_the_close_is_not_believed(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime], source: str
) -> None:
    row = arm()
    bar_of_the_close(60_000, source)
    clock_at(MORNING)
    stop_polling.check_stops(at_base(60_000), DOWN, clock.now)
    assert kinds(row) == ["ARMED", "REBASED"]


def test_the_evening_s_daily_price_is_never_compared(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    """It contains trades of the after-market: a close of 71,100 where KRX closed at 70,000 is no ex-rights."""
    row = arm()
    DailyPrice.objects.create(
        stock_code=SAMSUNG, date="2026-11-23", open=70_000, high=71_100, low=69_000, close=71_100, volume=1
    )
    clock_at(MORNING)
    stop_polling.check_stops(at_base(70_000), DOWN, clock.now)
    assert not awaits_base_price(row)
    assert kinds(row) == ["ARMED"]


def test_a_quote_of_yesterday_is_waited_for(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    """Before the broker's day has turned its base price is the day before's, and its volume is not 0."""
    row = arm()
    clock_at(MORNING)
    stop_polling.check_stops(at_base(71_500, volume=3_000_000), DOWN, clock.now)
    assert awaits_base_price(row)
    assert kinds(row) == ["ARMED"]
    clock_at("2026-11-24 07:51:00")
    stop_polling.check_stops(at_base(70_000), DOWN, clock.now)
    assert not awaits_base_price(row)


def test_while_the_base_price_cannot_be_asked_for_it_holds_fire_and_says_so_once(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[datetime | str], datetime]
) -> None:
    row = arm()
    clock_at("2026-11-24 09:00:05")
    failing = mock.MagicMock(wraps=at_base(60_000))
    failing.quote = mock.Mock(side_effect=NotSent("no connection"))
    for _ in range(3):
        stop_polling.check_stops(failing, DOWN, clock.now)
        clock_at(clock.now() + timedelta(seconds=21))
    assert awaits_base_price(row)
    assert kinds(row).count("HOLDS_FIRE") == 1
    stop_polling.check_stops(at_base(60_000, volume=10), DOWN, clock.now)
    assert not awaits_base_price(row)


@pytest.mark.parametrize("is_event_first", [True, False])
@pytest.mark.parametrize("value", ["65000", "5"])
def test_a_split_that_the_account_shows_too_moves_it_once(
    held: Portfolio,
    at_base: Callable[..., Any],
    clock_at: Callable[[str], datetime],
    is_event_first: bool,
    value: str,
) -> None:
    row = arm(value, unit=StopUnit.PRICE if value == "65000" else StopUnit.PERCENT)
    line = stops.current_limit(row)
    clock_at("2026-11-24 07:49:00")
    ratio = D("0.2")
    if is_event_first:
        split_event(ratio)
        stops.sync_with_holdings(clock.now())
    clock_at(MORNING)
    stop_polling.check_stops(at_base(14_000), DOWN, clock.now)
    if not is_event_first:
        split_event(ratio)
        stops.sync_with_holdings(clock.now())
        stops.sync_with_holdings(clock.now())
    row.refresh_from_db()
    assert abs(stops.current_limit(row) - line * ratio) <= 1
    assert (row.basis, row.moved_by) == (1, 1)
    assert kinds(row) == ["ARMED", "REBASED"]


def test_new_shares_that_arrive_weeks_later_move_nothing(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    row, ratio = arm(), D(60_000) / 70_000
    clock_at(MORNING)
    stop_polling.check_stops(at_base(60_000), DOWN, clock.now)
    row.refresh_from_db()
    line = stops.current_limit(row)
    clock_at("2026-12-14 07:30:00")
    split_event(ratio)
    stops.sync_with_holdings(clock.now())
    row.refresh_from_db()
    assert abs(stops.current_limit(row) - line) <= 1
    assert abs(row.basis - 1) < D("0.0001")
    assert kinds(row) == ["ARMED", "REBASED"]


def test_a_change_of_shares_without_another_base_price_is_taken_back(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    """A stop that was armed between an ex-rights day and the arrival of the shares stays where it is."""
    row = arm("65000", unit=StopUnit.PRICE)
    clock_at("2026-11-24 07:30:00")
    split_event(D("0.8"))
    stops.sync_with_holdings(clock.now())
    row.refresh_from_db()
    assert row.value == 52_000
    clock_at(MORNING)
    stop_polling.check_stops(at_base(70_000), DOWN, clock.now)
    row.refresh_from_db()
    assert row.value == 65_000


def test_days_that_nobody_saw_are_made_up_for(
    held: Portfolio, broker: Broker, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    """Armed on Monday; the ex-rights day was Tuesday, and the next start is on Thursday."""
    row = arm("63000", unit=StopUnit.PRICE)
    clock_at("2026-11-26 08:10:00")
    away = at_base(60_000)
    monday = clock.now().date() - timedelta(days=3)

    def chart(code: str, first: Any, last: Any, *, adjusted: bool = True) -> Any:
        before = 60_000 if adjusted else 70_000
        days = [(monday, before)] + [(monday + timedelta(days=n), 60_000) for n in (1, 2)]
        return [DayPrice(day, close, close, close, close, 1) for day, close in reversed(days) if day <= last]

    away.daily_chart = chart
    stop_polling.check_stops(away, DOWN, clock.now)
    row.refresh_from_db()
    assert row.value == 54_000


def test_a_stop_armed_after_the_open_is_of_today(held: Portfolio) -> None:
    row = arm()
    assert row.based_on == clock.now().date()
    assert not awaits_base_price(row)
    assert base_prices.stops_without_base_price(clock.now()) == {}


@pytest.mark.parametrize(("moment", "moves"), [("2026-11-23 10:00:00", True), ("2026-11-24 10:00:00", False)])
def test_a_stop_of_an_earlier_version_is_of_the_day_on_which_it_was_armed(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime], moment: str, moves: bool
) -> None:
    clock_at(moment)
    row = arm("60000", unit=StopUnit.PRICE)
    StopRule.objects.update(based_on=None, counts_from=None)
    clock_at("2026-11-24 10:00:05")
    stop_polling.check_stops(at_base(60_000, volume=5), DOWN, clock.now)
    row.refresh_from_db()
    assert row.based_on == clock.now().date()
    assert (row.value < 60_000) is moves


def test_one_armed_before_the_open_is_of_the_day_before(held: Portfolio, clock_at: Callable[[str], datetime]) -> None:
    clock_at("2026-11-24 07:00:00")
    assert awaits_base_price(arm())


# --- armed on the morning itself


def arm_price(value: str, broker: Any, *, may_trigger_now: bool = False) -> StopRule:
    quote = stop_polling.quote_before(SAMSUNG, "", broker, clock.now) if broker else None
    choices = {"quote": quote, "may_trigger_now": may_trigger_now}
    return stops.arm(SAMSUNG, StopKind.STOP_LOSS, StopUnit.PRICE, D(value), by="kim", at=clock.now(), **choices)


def settled(row: StopRule, broker: Any, clock_at: Callable[[str], datetime]) -> int:
    """Return the price at which a stop triggers once the morning's base price is counted in."""
    clock_at("2026-11-24 07:58:30")
    stop_polling.check_stops(broker, DOWN, clock.now)
    assert not awaits_base_price(row)
    return stops.current_limit(row)


def test_a_price_that_is_named_in_today_s_won_stays(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    clock_at("2026-11-24 07:56:00")
    row = arm_price("57000", at_base(60_000))
    assert settled(row, at_base(60_000), clock_at) == 57_000
    assert kinds(row) == ["ARMED"]


def test_a_price_that_is_named_while_the_broker_tells_the_day_before_moves(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    clock_at("2026-11-24 06:30:00")
    row = arm_price("57400", at_base(70_500, volume=3_000_000))
    assert settled(row, at_base(60_000), clock_at) == 49_200


@pytest.mark.parametrize(("value", "limit"), [("57000", 57_000), ("66500", 57_000)])
def test_without_a_quote_a_price_of_the_morning_is_today_s_unless_it_would_trigger_at_once(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime], value: str, limit: int
) -> None:
    clock_at("2026-11-24 07:56:00")
    assert settled(arm_price(value, None), at_base(60_000), clock_at) == limit


def test_a_price_that_would_trigger_at_today_s_base_price_is_asked_about(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    clock_at("2026-11-24 07:56:00")
    with pytest.raises(ValidationError, match="60,000"):
        arm_price("66500", at_base(60_000))
    row = arm_price("66500", at_base(60_000), may_trigger_now=True)
    assert settled(row, at_base(60_000), clock_at) == 66_500


def test_a_stop_that_is_moved_that_morning_to_today_s_won_stays(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    row = arm("63000", unit=StopUnit.PRICE)
    clock_at("2026-11-24 07:56:00")
    quote = stop_polling.quote_before(SAMSUNG, "", at_base(60_000), clock.now)
    stops.edit(row, StopUnit.PRICE, D(57_000), by="kim", at=clock.now(), quote=quote)
    assert settled(row, at_base(60_000), clock_at) == 57_000


def test_percent_of_the_average_price_and_highs_rest_on_prices_of_before(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    clock_at("2026-11-24 07:56:00")
    quote = stop_polling.quote_before(SAMSUNG, "", at_base(60_000), clock.now)
    percent, trail = (
        stops.arm(SAMSUNG, kind, StopUnit.PERCENT, D(5), by="kim", at=clock.now(), quote=quote)
        for kind in (StopKind.STOP_LOSS, StopKind.TRAILING)
    )
    assert settled(percent, at_base(60_000), clock_at) < 60_000
    trail.refresh_from_db()
    assert trail.high == held.current_price * 6 // 7


def test_a_stop_that_is_only_armed_again_that_morning_moves(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    row = arm("63000", unit=StopUnit.PRICE)
    StopRule.objects.update(state="HELD_EXTERNALLY", base_price=0)
    clock_at("2026-11-24 07:56:00")
    row.refresh_from_db()
    stops.rearm(row, by="kim", at=clock.now(), may_trigger_now=True)
    assert settled(row, at_base(60_000), clock_at) == 54_000


# --- the morning on which a stock trades again after its split


@pytest.mark.parametrize("is_halted", [True, False])
@pytest.mark.parametrize("daily_volume", [0, None, 5])
@pytest.mark.parametrize("told_at", ["2026-11-24 08:05:00", "2026-11-24 09:10:00"])
def test_a_stock_halted_for_its_split_is_not_sold_on_the_morning_it_trades_again(
    held: Portfolio,
    at_base: Callable[..., Any],
    clock_at: Callable[[datetime | str], datetime],
    is_halted: bool,
    daily_volume: int | None,
    told_at: str,
) -> None:
    """It traded nothing on the days before: a quote of yesterday shows no volume either."""
    row = arm("66000", unit=StopUnit.PRICE)
    if daily_volume is not None:
        DailyPrice.objects.create(
            stock_code=SAMSUNG,
            date="2026-11-23",
            open=70_000,
            high=70_000,
            low=70_000,
            close=70_000,
            volume=daily_volume,
        )
    clock_at(MORNING)
    before = at_base(70_000)
    told = before.quote(SAMSUNG, Market.KRX)
    before.quote = lambda code, market: replace(told, is_halted=is_halted)
    before.daily_chart = lambda code, first, last, **_: [DayPrice(last, 70_000, 70_000, 70_000, 70_000, 0)]
    stop_polling.check_stops(before, DOWN, clock.now)
    assert awaits_base_price(row) is (is_halted or daily_volume != 5)
    fired, volume = [], 500_000
    for moment in ("2026-11-24 08:05:00", "2026-11-24 09:00:10", "2026-11-24 09:10:00", "2026-11-24 09:10:05"):
        clock_at(moment)
        if moment == told_at:
            split_event(D("0.2"))
        if moment > "2026-11-24 09":
            for _ in range(3):
                volume += 1_000
                fired += stop_polling.check_stops(at_base(14_000, volume=volume), DOWN, clock.now)
                clock_at(clock.now() + timedelta(seconds=1))
    row.refresh_from_db()
    assert (fired, row.value, row.basis, row.base_price) == ([], 13_200, 1, 14_000)


def test_a_base_price_that_is_due_is_asked_for_when_krx_opens(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    row = arm()
    for moment in ("2026-11-24 08:58:00", "2026-11-24 08:58:25", "2026-11-24 08:59:40"):
        clock_at(moment)
        stop_polling.check_stops(at_base(70_000, volume=3_000_000), DOWN, clock.now)
    row.refresh_from_db()
    assert row.poll_state["base_pause"] == 60
    clock_at("2026-11-24 09:00:00")
    stop_polling.check_stops(at_base(70_000, volume=10), DOWN, clock.now)
    assert not awaits_base_price(row)


def test_a_price_named_on_the_morning_of_the_first_trade_stays(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime]
) -> None:
    DailyPrice.objects.create(
        stock_code=SAMSUNG, date="2026-11-23", open=70_000, high=70_000, low=70_000, close=70_000, volume=0
    )
    clock_at("2026-11-24 07:56:00")
    row = arm_price("13000", at_base(14_000))
    assert f"{row.based_on}" == "2026-11-23"
    clock_at("2026-11-24 09:00:05")
    stop_polling.check_stops(at_base(14_000, volume=10), DOWN, clock.now)
    assert not awaits_base_price(row)
    assert row.value == 13_000


@pytest.mark.parametrize("is_halted", [True, False])
def test_the_daily_loss_is_not_measured_from_a_base_price_of_before_a_split(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[str], datetime], is_halted: bool
) -> None:
    clock_at("2026-11-24 08:30:00")
    before = at_base(70_000)
    told = before.quote(SAMSUNG, Market.KRX)
    before.quote = lambda code, market: replace(told, is_halted=is_halted)
    assert daily_loss.sync_base_prices(before, clock.now) == (not is_halted)
    clock_at("2026-11-24 09:00:05")
    split_event(D("0.2"))
    Portfolio.objects.update(current_price=14_000)
    assert daily_loss.sync_base_prices(at_base(14_000, volume=10), clock.now) == 1
    assert BasePrice.objects.get().price == 14_000
    assert daily_loss.sync_base_prices(at_base(14_000, volume=20), clock.now) == 0


# --- how often it is asked


def test_what_cannot_be_compared_is_asked_about_less_and_less(
    held: Portfolio, at_base: Callable[..., Any], asked: list[str], clock_at: Callable[[datetime | str], datetime]
) -> None:
    row = arm()
    clock_at("2026-11-24 10:00:00")
    broker = at_base(60_000, close=0)
    for _ in range(720):
        stop_polling.check_stops(broker, DOWN, clock.now)
        clock_at(clock.now() + timedelta(seconds=5))
    assert 6 <= asked.count("chart") <= 12
    assert kinds(row).count("HOLDS_FIRE") == 1
    broker = at_base(60_000, volume=5)
    for _ in range(121):
        stop_polling.check_stops(broker, DOWN, clock.now)
        clock_at(clock.now() + timedelta(seconds=5))
    assert not awaits_base_price(row)


def test_a_broker_that_does_not_answer_is_asked_as_often_as_before(
    held: Portfolio, at_base: Callable[..., Any], clock_at: Callable[[datetime | str], datetime]
) -> None:
    row = arm()
    clock_at("2026-11-24 10:00:00")
    failing = mock.MagicMock(wraps=at_base(60_000))
    failing.quote = mock.Mock(side_effect=NotSent("no connection"))
    for _ in range(120):
        stop_polling.check_stops(failing, DOWN, clock.now)
        clock_at(clock.now() + timedelta(seconds=5))
    for _ in range(5):
        stop_polling.check_stops(at_base(60_000, volume=10), DOWN, clock.now)
        clock_at(clock.now() + timedelta(seconds=5))
    assert not awaits_base_price(row)


def test_the_simulator_s_next_morning_is_an_ordinary_one(
    held: Portfolio, broker: Broker, simulator: Simulator, clock_at: Callable[[str], datetime]
) -> None:
    row = arm()
    clock_at(MORNING)
    stop_polling.check_stops(broker, DOWN, clock.now)
    assert not awaits_base_price(row)
    assert kinds(row) == ["ARMED"]
