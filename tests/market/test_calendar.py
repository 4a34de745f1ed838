from collections.abc import Callable
from datetime import date

import pytest

from aegis.broker import Broker
from aegis.terms import Market
from kis import clock
from kis.simulator.server import Simulator
from market import collector, service
from market.models import DailyPrice, Stock, TradingDay, TradingSession
from orders import routine

pytestmark = pytest.mark.django_db
ClockAt = Callable[[str], object]
MONDAY = date(2026, 11, 23)
SATURDAY = date(2026, 11, 28)


def test_the_brokers_calendar_becomes_days_and_phases(broker: Broker) -> None:
    told = collector.sync_calendar(broker, MONDAY, now=clock.now())
    assert TradingDay.objects.count() == told
    assert service.phases_on(MONDAY)
    assert service.phases_on(SATURDAY) == ()
    assert TradingSession.objects.filter(day=MONDAY, market=Market.KRX, phase="AFTER_MARKET").exists()


def test_a_day_an_operator_corrected_stays_corrected(broker: Broker, clock_at: ClockAt) -> None:
    collector.sync_calendar(broker, MONDAY, now=clock.now())
    TradingSession.objects.filter(day=MONDAY, market=Market.KRX, phase="REGULAR").update(starts_at="10:00")
    collector.sync_calendar(broker, MONDAY, now=clock.now())
    clock_at("2026-11-23 09:30:00")
    assert not service.is_market_open(Market.KRX, clock.now())


def test_a_day_not_told_of_yet_counts_by_the_week(clock_at: ClockAt) -> None:
    clock_at("2026-11-23 10:00:00")
    assert service.is_market_open(Market.KRX, clock.now())
    clock_at("2026-11-28 10:00:00")
    assert not service.is_market_open(Market.KRX, clock.now())


def test_a_weekday_holiday_is_closed_once_told(broker: Broker, clock_at: ClockAt) -> None:
    clock_at("2026-12-25 10:00:00")
    assert service.is_market_open(Market.KRX, clock.now())
    collector.sync_calendar(broker, clock.now().date(), now=clock.now())
    assert not service.is_market_open(Market.KRX, clock.now())
    assert service.get_available_market(clock.now()) is None


def test_the_calendar_is_asked_for_once_a_day(broker: Broker, simulator: Simulator) -> None:
    routine.sync_calendar(broker, clock.now)
    TradingDay.objects.filter(pk=SATURDAY).delete()
    routine.sync_calendar(broker, clock.now)
    assert not TradingDay.objects.filter(pk=SATURDAY).exists()


def test_a_stock_is_learned_from_the_broker(broker: Broker) -> None:
    stock = collector.sync_stock(broker, "015760", now=clock.now())
    assert (stock.name, stock.board) == ("한국전력", "KOSPI")
    assert Stock.objects.get() == stock


def test_daily_prices_wait_for_the_last_phase_of_the_day(broker: Broker, clock_at: ClockAt) -> None:
    collector.sync_calendar(broker, MONDAY, now=clock.now())
    collector.sync_daily_prices(broker, [])
    clock_at("2026-11-23 19:59:00")
    routine.sync_daily_prices(broker, clock.now)
    assert not DailyPrice.objects.exists()


def test_daily_prices_are_written_once_and_refreshed(broker: Broker) -> None:
    assert collector.sync_daily_prices(broker, ["005930"]) == 30
    collector.sync_daily_prices(broker, ["005930"])
    assert DailyPrice.objects.count() == 30
