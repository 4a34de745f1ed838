from datetime import date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aegis import sessions
from aegis.sessions import (
    KST,
    DayKind,
    PhaseName,
    get_available_market,
    immediate_kind,
    is_market_open,
    legal_kinds,
    limit_kind,
    phases_at,
    phases_of,
    shifted,
    standard_phases,
)
from aegis.terms import Market, OrderKind

BEFORE = date(2026, 9, 11)
AFTER = date(2026, 9, 14)
TODAY = date(2026, 11, 23)


def at(clock: str, day: date = TODAY) -> datetime:
    return datetime.combine(day, time.fromisoformat(clock), KST)


@pytest.mark.parametrize(
    ("market", "clock", "is_open"),
    [
        (Market.KRX, "08:19:59", False),
        (Market.KRX, "08:20:00", True),
        (Market.KRX, "09:00:00", True),
        (Market.KRX, "15:29:59", True),
        (Market.KRX, "15:30:00", True),  # at the close, with its own order code
        (Market.KRX, "20:00:00", False),
        (Market.NXT, "07:59:59", False),
        (Market.NXT, "08:00:00", True),
        (Market.NXT, "08:50:00", False),
        (Market.NXT, "09:00:29", False),
        (Market.NXT, "09:00:30", True),
        (Market.NXT, "15:20:00", False),
        (Market.NXT, "15:30:00", True),
        (Market.NXT, "19:59:59", True),
        (Market.NXT, "20:00:00", False),
    ],
)
def test_a_venue_opens_and_closes_on_the_second(market: Market, clock: str, is_open: bool) -> None:
    assert is_market_open(market, standard_phases(TODAY), at(clock)) is is_open


def test_nothing_is_open_on_a_day_without_phases() -> None:
    assert not any(is_market_open(market, (), at("10:00:00")) for market in Market)
    assert get_available_market((), at("10:00:00")) is None


@pytest.mark.parametrize(
    ("clock", "market"),
    [
        ("07:59:59", None),
        ("08:00:00", Market.NXT),
        ("08:49:59", Market.NXT),
        ("08:50:00", Market.KRX),
        ("08:59:59", Market.KRX),
        ("09:00:00", Market.KRX),
        ("15:25:00", Market.KRX),
        ("15:29:59", Market.KRX),
        ("15:30:00", Market.NXT),
        ("19:59:59", Market.NXT),
        ("20:00:00", None),
    ],
)
def test_the_hour_chooses_the_venue_as_the_user_wants_it(clock: str, market: Market | None) -> None:
    assert get_available_market(standard_phases(TODAY), at(clock)) is market


def test_the_krx_after_market_begins_on_its_first_day() -> None:
    before = legal_kinds(Market.KRX, standard_phases(BEFORE), at("17:00:00", BEFORE))
    after = legal_kinds(Market.KRX, standard_phases(AFTER), at("17:00:00", AFTER))
    assert before == {OrderKind.AFTER_HOURS_SINGLE}
    assert OrderKind.AFTER_LIMIT in after
    assert OrderKind.MARKET not in after
    assert OrderKind.LIMIT not in after


def test_the_opening_auction_takes_plain_orders_and_for_ten_minutes_yesterdays_close() -> None:
    phases = standard_phases(TODAY)
    assert legal_kinds(Market.KRX, phases, at("08:35:00")) == {
        OrderKind.LIMIT,
        OrderKind.MARKET,
        OrderKind.PRE_OPEN_CLOSE,
    }
    assert legal_kinds(Market.KRX, phases, at("08:45:00")) == {OrderKind.LIMIT, OrderKind.MARKET}


def test_nxt_never_takes_a_market_order() -> None:
    assert not any(OrderKind.MARKET in phase.kinds for phase in standard_phases(TODAY) if phase.market is Market.NXT)


def test_a_late_open_moves_every_choice_with_it() -> None:
    late = shifted(standard_phases(TODAY), timedelta(hours=1))
    assert not is_market_open(Market.KRX, late, at("09:19:59"))
    assert get_available_market(late, at("09:30:00")) is Market.NXT
    assert get_available_market(late, at("16:00:00")) is Market.KRX


def test_a_plain_limit_has_another_code_after_hours() -> None:
    phases = standard_phases(TODAY)
    assert limit_kind(legal_kinds(Market.KRX, phases, at("10:00:00"))) is OrderKind.LIMIT
    assert limit_kind(legal_kinds(Market.KRX, phases, at("17:00:00"))) is OrderKind.AFTER_LIMIT
    assert limit_kind(legal_kinds(Market.KRX, phases, at("15:45:00"))) is None


def test_what_goes_through_at_once_is_a_limit_where_no_market_order_is_taken() -> None:
    phases = standard_phases(TODAY)
    assert immediate_kind(legal_kinds(Market.KRX, phases, at("10:00:00"))) is OrderKind.MARKET
    assert immediate_kind(legal_kinds(Market.NXT, phases, at("10:00:00"))) is OrderKind.LIMIT
    assert immediate_kind(legal_kinds(Market.KRX, phases, at("17:00:00"))) is OrderKind.AFTER_LIMIT


@given(st.times(), st.sampled_from([BEFORE, AFTER, TODAY]), st.sampled_from(Market))
def test_a_venue_is_open_exactly_when_it_takes_some_kind_of_order(moment, day, market) -> None:
    now = datetime.combine(day, moment, KST)
    phases = standard_phases(day)
    assert is_market_open(market, phases, now) is bool(legal_kinds(market, phases, now))
    assert len({phase.name for phase in phases_at(phases, market, now)}) == len(phases_at(phases, market, now))


def windows(kind: DayKind, market: Market, day: date = date(2026, 11, 19)) -> dict[PhaseName, str]:
    return {
        phase.name: f"{phase.starts_at:%H:%M}-{phase.ends_at:%H:%M}"
        for phase in sessions.phases_of(day, kind)
        if phase.market is market
    }


def test_on_the_exam_day_everything_is_an_hour_later_and_the_evening_ends_as_ever() -> None:
    krx, nxt = windows(DayKind.EXAM, Market.KRX), windows(DayKind.EXAM, Market.NXT)
    assert krx[PhaseName.REGULAR] == "10:00-16:20"
    assert krx[PhaseName.CLOSING_AUCTION] == "16:20-16:30"
    assert krx[PhaseName.AFTER_MARKET] == "17:00-20:00"
    assert PhaseName.PRE_MARKET not in nxt
    assert nxt[PhaseName.AFTER_MARKET] == "16:40-20:00"


def test_on_an_exam_day_of_old_the_single_prices_ended_at_six() -> None:
    krx = windows(DayKind.EXAM, Market.KRX, date(2025, 11, 13))
    assert krx[PhaseName.AFTER_HOURS_SINGLE] == "17:00-18:00"


def test_the_year_begins_an_hour_late_and_closes_as_ever() -> None:
    krx = windows(DayKind.FIRST, Market.KRX, date(2027, 1, 4))
    assert krx[PhaseName.REGULAR] == "10:00-15:20"
    assert krx[PhaseName.OPENING_AUCTION] == "09:20-10:00"
    assert krx[PhaseName.AFTER_MARKET] == "16:00-20:00"


def test_every_phase_of_every_kind_of_day_lasts() -> None:
    for kind in DayKind:
        assert all(phase.starts_at < phase.ends_at for phase in sessions.phases_of(date(2026, 11, 19), kind))


@pytest.mark.parametrize(
    "day", ["2021-11-18", "2022-11-17", "2023-11-16", "2024-11-14", "2025-11-13", "2026-11-19", "2027-11-18"]
)
def test_the_exam_is_held_on_a_thursday_in_the_middle_of_november(day: str) -> None:
    exam = date.fromisoformat(day)
    assert sessions.is_exam_day(exam)
    assert not any(sessions.is_exam_day(exam + timedelta(days=days)) for days in (-7, -1, 1, 7))


@given(st.times(), st.sampled_from(DayKind), st.sampled_from([BEFORE, AFTER, TODAY]))
def test_the_venue_that_is_named_takes_a_plain_order_now(moment: time, kind: DayKind, day: date) -> None:
    now, phases = datetime.combine(day, moment, KST), phases_of(day, kind)
    takes = {each for each in (Market.KRX, Market.NXT) if limit_kind(legal_kinds(each, phases, now))}
    named = get_available_market(phases, now)
    assert named in takes if takes else named is None
