"""Trading days by a calendar library, for days that the broker does not cover: holidays, the year's first and last day.

The library computes the exchange's holidays, with substitute holidays and the year-end closing, from rules.
It includes a holiday declared during the year only from its next version on; until then the broker or an
operator supplies it.
"""

from collections.abc import Mapping
from datetime import date, datetime, timedelta
from functools import lru_cache

import holidays

from aegis.sessions import KST, DayKind, Phase, is_exam_day, legal_kinds, phases_of
from aegis.terms import Market, OrderKind

EXCHANGE = "XKRX"
_SATURDAY = 5


@lru_cache(maxsize=8)
def _closings(year: int) -> Mapping[date, str]:
    return holidays.financial_holidays(EXCHANGE, years=year, language="ko")


def closed_for(day: date) -> str | None:
    """Return why the exchange is closed on a weekday, in Korean; None if it is open or on a weekend."""
    return _closings(day.year).get(day)


def is_trading_day(day: date) -> bool:
    return day.weekday() < _SATURDAY and closed_for(day) is None


def kind_of(day: date) -> DayKind:
    """Return the timetable of a trading day."""
    if is_exam_day(day):
        return DayKind.EXAM
    return DayKind.FIRST if day.month == 1 and day == _first_trading_day(day.year) else DayKind.ORDINARY


@lru_cache(maxsize=8)
def phases_by_library(day: date) -> tuple[Phase, ...]:
    """Return the phases of a day by the library, empty on a holiday."""
    return phases_of(day, kind_of(day)) if is_trading_day(day) else ()


def takes(market: str, kind: str, now: datetime) -> bool:
    """Whether a venue takes an order kind at `now`, by the library's calendar."""
    phases = phases_by_library(now.astimezone(KST).date())
    return OrderKind(kind) in legal_kinds(Market(market), phases, now)


@lru_cache(maxsize=8)
def _first_trading_day(year: int) -> date:
    day = date(year, 1, 1)
    while not is_trading_day(day):
        day += timedelta(days=1)
    return day
