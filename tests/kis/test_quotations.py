"""What the broker tells of the market as a whole and of its past, asked of the simulator."""

from collections.abc import Callable
from datetime import date, datetime, timedelta
from decimal import Decimal

import pytest

from aegis.broker import Broker, NotSent
from aegis.sessions import KST
from aegis.terms import Market
from infra import clock
from kis.environment import Dialect
from kis.market_data import quarterly_future
from simulator.api.server import Simulator

from .conftest import SAMSUNG, Desk

ClockAt = Callable[..., datetime]


def test_the_daily_chart_comes_a_hundred_days_a_page(broker: Broker) -> None:
    last = date(2026, 11, 20)
    days = broker.daily_chart(SAMSUNG, date(2020, 1, 1), last)
    assert len(days) == 100
    assert days[0].day == last
    older = broker.daily_chart(SAMSUNG, date(2020, 1, 1), days[-1].day - timedelta(days=1))
    assert older[0].day < days[-1].day
    few = broker.daily_chart(SAMSUNG, date(2026, 11, 16), last)
    assert [price.day.day for price in few] == [20, 19, 18, 17, 16]


def test_the_minutes_of_today_come_newest_first(broker: Broker, simulator: Simulator, clock_at: ClockAt) -> None:
    simulator.set_price(SAMSUNG, 70_000)
    now = clock.now()
    minutes = broker.minutes(SAMSUNG, Market.KRX, now)
    assert minutes[0].at == now.replace(second=0, microsecond=0)
    assert len(minutes) == 30
    assert all(minute.low <= min(minute.open, minute.close) for minute in minutes)
    assert minutes[0].close == 70_000
    assert minutes[0].day_value >= minutes[1].day_value
    earlier = broker.minutes(SAMSUNG, Market.KRX, minutes[-1].at - timedelta(minutes=1))
    assert earlier[0].at == minutes[-1].at - timedelta(minutes=1)


def test_the_minutes_of_a_past_day_are_of_that_day_alone(broker: Broker) -> None:
    minutes = broker.minutes(SAMSUNG, Market.KRX, datetime(2026, 11, 20, 10, 0, tzinfo=KST))
    assert {minute.at.date() for minute in minutes} == {date(2026, 11, 20)}
    assert minutes[0].at == datetime(2026, 11, 20, 10, 0, tzinfo=KST)


def test_an_adjusted_chart_is_asked_for_by_another_flag(desk: Desk) -> None:
    days = date(2026, 11, 16), date(2026, 11, 20)
    # the simulator's stocks were never split: both ways tell the same
    assert desk.broker.daily_chart(SAMSUNG, *days) == desk.broker.daily_chart(SAMSUNG, *days, adjusted=False)


def test_indexes_and_the_future_are_told_in_points(desk: Desk) -> None:
    code = desk.broker.near_future()
    assert code == "A01612"
    quote = desk.broker.future(code)
    assert quote.kospi200 == desk.broker.index("2001")
    assert abs(quote.points / quote.kospi200 - 1) < Decimal("0.05")
    assert desk.broker.index("0001") > desk.broker.index("1001") > 0


def test_the_users_dialect_sends_the_users_ids(live_desk: Desk) -> None:
    live_desk.broker.index("2001")
    live_desk.broker.future("A01612")
    live_desk.broker.futures_positions()
    of_the_user = {"FHKUP03500100", "FHKIF03010200", "FHKIF03020100"}
    of_the_broker = {"FHPUP02100000", "FHMIF10000000", "FHPTJ04030000"}
    assert set(live_desk.sent()) == (of_the_user if live_desk.dialect is Dialect.AEGIS_V3 else of_the_broker)


def test_paper_offers_no_positions_of_investors(paper_desk: Desk) -> None:
    with pytest.raises(NotSent) as caught:
        paper_desk.broker.futures_positions()
    assert caught.value.code == "EGW02006"


def test_who_holds_futures(live_desk: Desk) -> None:
    positions = live_desk.broker.futures_positions()
    assert positions.foreign or positions.institution or positions.individual


@pytest.mark.parametrize(
    ("day", "code"),
    [
        ("2026-11-23", "A01612"),
        ("2026-12-10", "A01612"),
        ("2026-12-11", "A01703"),
        ("2027-01-04", "A01703"),
        ("2030-12-31", "A01103"),
    ],
)
def test_the_future_that_expires_next_is_named_by_rule_where_no_list_is_offered(day: str, code: str) -> None:
    assert quarterly_future(date.fromisoformat(day)) == code
