"""Which days trade, by which timetable: the broker's word, the library where it is silent, the operator's over both."""

from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta

import pytest
from django.test import Client
from django.urls import reverse

from aegis import sessions
from aegis.broker import Broker, CalendarDay, OutcomeUnknown
from aegis.sessions import DayKind, PhaseName
from aegis.terms import Market, OrderKind
from infra import clock
from market import calendar, queries, reference_data
from market.models import Stock, TradingDay, TradingSession
from simulator.api.server import Simulator

pytestmark = pytest.mark.django_db
ClockAt = Callable[[str], datetime]
MONDAY = date(2026, 11, 23)
SATURDAY = date(2026, 11, 28)
CHRISTMAS = date(2026, 12, 25)
Source = TradingDay.Source


class Says:
    """A broker of whom only the calendar is asked: it answers these days, or fails."""

    def __init__(self, days: Sequence[CalendarDay] | None) -> None:
        self.days = days
        self.asked = 0

    def calendar(self, first: date) -> Sequence[CalendarDay]:
        self.asked += 1
        if self.days is None:
            raise OutcomeUnknown("no answer", call="chk-holiday")
        return self.days


def weekdays(first: date, count: int) -> list[CalendarDay]:
    days = [first + timedelta(days=number) for number in range(count)]
    return [CalendarDay(day, is_open=calendar.is_trading_day(day)) for day in days]


def sync(says: Sequence[CalendarDay] | None, first: date = MONDAY) -> int:
    return reference_data.sync_calendar(Says(says), first, now=clock.now())  # type: ignore[arg-type]


def test_the_brokers_calendar_becomes_days_and_phases(broker: Broker) -> None:
    reference_data.sync_calendar(broker, MONDAY, now=clock.now())
    assert TradingDay.objects.filter(source=Source.BROKER).count() >= 20
    assert queries.phases_on(MONDAY) == tuple(sorted(sessions.standard_phases(MONDAY), key=_order))
    assert queries.phases_on(SATURDAY) == ()
    assert TradingSession.objects.filter(day=MONDAY, market=Market.KRX, phase="AFTER_MARKET").exists()


def _order(phase: sessions.Phase) -> tuple[str, ...]:
    return phase.market, phase.starts_at.isoformat(), phase.name


def test_the_library_agrees_with_the_brokers_holidays(broker: Broker) -> None:
    for month in range(1, 13):
        for day in broker.calendar(date(2026, month, 1)):
            assert calendar.is_trading_day(day.day) is day.is_open, day


def test_the_last_day_of_the_year_is_closed_and_the_first_one_opens_late(broker: Broker) -> None:
    sync(None, date(2026, 12, 20))
    assert queries.phases_on(date(2026, 12, 30))
    assert queries.phases_on(date(2026, 12, 31)) == ()
    first = TradingDay.objects.get(pk=date(2027, 1, 4))
    assert (first.kind, first.is_open) == (DayKind.FIRST, True)
    assert TradingDay.objects.get(pk=date(2027, 1, 5)).kind == DayKind.ORDINARY


def test_on_the_exam_day_the_market_opens_at_ten(broker: Broker, clock_at: ClockAt) -> None:
    reference_data.sync_calendar(broker, date(2026, 11, 16), now=clock.now())
    for moment, is_open in (("09:15", False), ("10:00", True), ("16:29", True), ("19:59", True), ("20:00", False)):
        assert queries.is_market_open(Market.KRX, clock_at(f"2026-11-19 {moment}:00")) is is_open, moment
    assert not queries.is_market_open(Market.NXT, clock_at("2026-11-19 08:30:00"))
    assert queries.get_available_market(clock_at("2026-11-19 10:00:00")) is Market.KRX
    assert queries.get_available_market(clock_at("2026-11-19 16:35:00")) is Market.NXT


@pytest.mark.parametrize(
    ("moment", "kinds"),
    [
        ("2026-09-11 17:00:00", {OrderKind.AFTER_HOURS_SINGLE}),
        ("2026-09-11 18:30:00", set()),
        ("2026-09-14 17:00:00", {OrderKind.AFTER_LIMIT, OrderKind.AFTER_BEST}),
        ("2026-09-14 19:59:00", {OrderKind.AFTER_LIMIT, OrderKind.AFTER_BEST}),
    ],
)
def test_the_after_market_came_with_the_fourteenth_of_september(
    broker: Broker, clock_at: ClockAt, moment: str, kinds: set[OrderKind]
) -> None:
    now = clock_at(moment)
    reference_data.sync_calendar(broker, now.date(), now=now)
    legal = sessions.legal_kinds(Market.KRX, queries.today(now), now)
    assert kinds <= legal
    assert bool(kinds) is bool(legal)


def test_a_day_not_told_of_yet_goes_by_the_library(clock_at: ClockAt) -> None:
    assert queries.is_market_open(Market.KRX, clock_at("2026-11-23 10:00:00"))
    assert not queries.is_market_open(Market.KRX, clock_at("2026-11-28 10:00:00"))
    assert not queries.is_market_open(Market.KRX, clock_at("2026-12-25 10:00:00"))
    assert not queries.is_market_open(Market.KRX, clock_at("2026-11-19 09:15:00"))


def test_a_weekday_holiday_is_closed(broker: Broker, clock_at: ClockAt) -> None:
    clock_at("2026-12-25 10:00:00")
    reference_data.sync_calendar(broker, CHRISTMAS, now=clock.now())
    assert not queries.is_market_open(Market.KRX, clock.now())
    assert queries.get_available_market(clock.now()) is None
    assert TradingDay.objects.get(pk=CHRISTMAS).note


def test_a_holiday_declared_lately_is_the_brokers_to_tell() -> None:
    sync([CalendarDay(MONDAY, is_open=False), *weekdays(MONDAY + timedelta(days=1), 20)])
    assert queries.phases_on(MONDAY) == ()


def test_where_the_service_fails_the_library_stands_in_and_it_is_asked_again(clock_at: ClockAt) -> None:
    clock_at("2026-11-23 08:00:00")
    silent = Says(None)
    reference_data.sync_calendar_of_the_day(silent, now=clock.now())  # type: ignore[arg-type]
    assert TradingDay.objects.get(pk=MONDAY).source == Source.LIBRARY
    assert queries.phases_on(MONDAY)
    reference_data.sync_calendar_of_the_day(silent, now=clock.now())  # type: ignore[arg-type]
    assert silent.asked == 2
    speaking = Says(weekdays(MONDAY, 24))
    for _ in range(2):
        reference_data.sync_calendar_of_the_day(speaking, now=clock.now())  # type: ignore[arg-type]
    assert speaking.asked == 1
    assert TradingDay.objects.get(pk=MONDAY).source == Source.BROKER


def test_a_list_with_holes_is_filled_by_the_library() -> None:
    days = [day for day in weekdays(MONDAY, 24) if day.day.day != 24]
    assert sync(days) == 23
    row = TradingDay.objects.get(pk=date(2026, 11, 24))
    assert (row.source, row.is_open) == (Source.LIBRARY, True)
    assert TradingDay.objects.get(pk=MONDAY).source == Source.BROKER


@pytest.mark.parametrize(
    "nonsense",
    [
        [],
        [CalendarDay(MONDAY + timedelta(days=number), is_open=False) for number in range(24)],
        [CalendarDay(SATURDAY, is_open=True)],
    ],
    ids=["empty", "never open", "open on a Saturday"],
)
def test_an_answer_against_all_reason_is_not_believed(nonsense: list[CalendarDay]) -> None:
    assert sync(nonsense) == 0
    assert queries.phases_on(MONDAY)
    assert queries.phases_on(SATURDAY) == ()


def test_what_the_broker_told_once_outlives_its_silence() -> None:
    sync([CalendarDay(MONDAY, is_open=False), *weekdays(MONDAY + timedelta(days=1), 20)])
    sync(None)
    assert TradingDay.objects.get(pk=MONDAY).is_open is False


def test_phases_follow_the_rules_when_the_rules_change() -> None:
    sync(weekdays(MONDAY, 24))
    TradingSession.objects.filter(day=MONDAY, phase=PhaseName.AFTER_MARKET).delete()
    sync(weekdays(MONDAY, 24))
    assert TradingSession.objects.filter(day=MONDAY, phase=PhaseName.AFTER_MARKET).exists()


@pytest.fixture
def corrected(admin_client: Client) -> Callable[..., None]:
    """Correct a day in the admin: its own fields, and times of its phases by their number."""

    def correct(day: date, *, sessions: dict[int, dict[str, str]] | None = None, **fields: str) -> None:
        row = TradingDay.objects.get(pk=day)
        words = {"date": f"{day}", "is_open": "on" if row.is_open else "", "kind": row.kind, "note": row.note}
        phases = list(row.sessions.all())
        words |= {"sessions-TOTAL_FORMS": f"{len(phases)}", "sessions-INITIAL_FORMS": f"{len(phases)}"}
        for number, phase in enumerate(phases):
            told = {"id": phase.pk, "day": day, "market": phase.market, "phase": phase.phase}
            told |= {"starts_at": phase.starts_at, "ends_at": phase.ends_at, "matching": phase.matching}
            told |= {"order_kinds": phase.order_kinds} | (sessions or {}).get(phase.pk, {})
            words |= {f"sessions-{number}-{name}": f"{value}" for name, value in told.items()}
        url = reverse("admin:market_tradingday_change", args=[day])
        response = admin_client.post(url, {**words, **fields})
        assert response.status_code == 302, response.content.decode()

    return correct


def test_a_phase_an_operator_moved_stays_moved(corrected: Callable[..., None], clock_at: ClockAt) -> None:
    sync(weekdays(MONDAY, 24))
    regular = TradingSession.objects.get(day=MONDAY, market=Market.KRX, phase=PhaseName.REGULAR)
    corrected(MONDAY, sessions={regular.pk: {"starts_at": "10:00"}})
    sync(weekdays(MONDAY, 24))
    assert TradingDay.objects.get(pk=MONDAY).source == Source.OPERATOR
    assert not queries.is_market_open(Market.KRX, clock_at("2026-11-23 09:30:00"))


def test_a_day_an_operator_closed_stays_closed_until_given_back(
    corrected: Callable[..., None], admin_client: Client
) -> None:
    sync(weekdays(MONDAY, 24))
    corrected(MONDAY, is_open="", note="임시 휴장")
    sync(weekdays(MONDAY, 24))
    assert queries.phases_on(MONDAY) == ()
    words = {"action": "give_back", "_selected_action": [f"{MONDAY}"]}
    admin_client.post(reverse("admin:market_tradingday_changelist"), words)
    sync(weekdays(MONDAY, 24))
    assert queries.phases_on(MONDAY)


def test_an_operator_may_name_another_exam_day(corrected: Callable[..., None], clock_at: ClockAt) -> None:
    sync(weekdays(MONDAY, 24))
    day = date(2026, 12, 3)
    corrected(day, kind=DayKind.EXAM.value)
    assert not queries.is_market_open(Market.KRX, clock_at("2026-12-03 09:15:00"))
    assert queries.is_market_open(Market.KRX, clock_at("2026-12-03 16:29:00"))


def test_looking_at_a_day_corrects_nothing(corrected: Callable[..., None]) -> None:
    sync(weekdays(MONDAY, 24))
    corrected(MONDAY)
    assert TradingDay.objects.get(pk=MONDAY).source == Source.BROKER


def test_a_stock_is_learned_from_the_broker(broker: Broker) -> None:
    stock = reference_data.sync_stock(broker, "015760", now=clock.now())
    assert (stock.name, stock.board) == ("한국전력", "KOSPI")
    assert Stock.objects.get() == stock


def test_our_stocks_are_learned_once_a_day_and_strangers_are_told_of(
    broker: Broker, caplog: pytest.LogCaptureFixture, clock_at: ClockAt
) -> None:
    assert reference_data.sync_stocks(broker, ["015760", "005930", "999999"], now=clock.now()) == 2
    assert "999999" in caplog.text
    assert reference_data.sync_stocks(broker, ["015760", "005930"], now=clock.now()) == 0
    clock_at("2026-11-24 08:00:00")
    assert reference_data.sync_stocks(broker, ["015760", "005930"], now=clock.now()) == 2


def test_the_calendar_is_asked_for_once_a_day(broker: Broker, simulator: Simulator) -> None:
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    TradingDay.objects.filter(pk=SATURDAY).delete()
    reference_data.sync_calendar_of_the_day(broker, now=clock.now())
    assert not TradingDay.objects.filter(pk=SATURDAY).exists()
