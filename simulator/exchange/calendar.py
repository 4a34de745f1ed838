"""Trading days of the Korean market from 2024 to 2028, and the days on which it opens late.

By the exchange's rules it is closed on weekends, public holidays with their substitutes, Workers' Day and the
year-end closing day. Of the two kinds of holiday that are announced less than a year ahead (elections, one-off
holidays), the table has those known by November 2026.
"""

from collections.abc import Mapping
from datetime import date, timedelta
from functools import lru_cache
from types import MappingProxyType

from aegis.sessions import DayKind, Phase, PhaseName, phases_of
from aegis.terms import Market

_TABLE = """
2024-01-01 신정
2024-02-09 설날
2024-02-12 설날 대체공휴일
2024-03-01 삼일절
2024-04-10 국회의원 선거일
2024-05-01 근로자의 날
2024-05-06 어린이날 대체공휴일
2024-05-15 부처님오신날
2024-06-06 현충일
2024-08-15 광복절
2024-09-16 추석
2024-09-17 추석
2024-09-18 추석
2024-10-01 국군의 날 임시공휴일
2024-10-03 개천절
2024-10-09 한글날
2024-12-25 성탄절
2024-12-31 연말 휴장일
2025-01-01 신정
2025-01-27 임시공휴일
2025-01-28 설날
2025-01-29 설날
2025-01-30 설날
2025-03-03 삼일절 대체공휴일
2025-05-01 근로자의 날
2025-05-05 어린이날
2025-05-06 부처님오신날 대체공휴일
2025-06-03 대통령 선거일
2025-06-06 현충일
2025-08-15 광복절
2025-10-03 개천절
2025-10-06 추석
2025-10-07 추석
2025-10-08 추석 대체공휴일
2025-10-09 한글날
2025-12-25 성탄절
2025-12-31 연말 휴장일
2026-01-01 신정
2026-02-16 설날
2026-02-17 설날
2026-02-18 설날
2026-03-02 삼일절 대체공휴일
2026-05-01 근로자의 날
2026-05-05 어린이날
2026-05-25 부처님오신날 대체공휴일
2026-06-03 지방선거일
2026-07-17 제헌절
2026-08-17 광복절 대체공휴일
2026-09-24 추석
2026-09-25 추석
2026-10-05 개천절 대체공휴일
2026-10-09 한글날
2026-12-25 성탄절
2026-12-31 연말 휴장일
2027-01-01 신정
2027-02-08 설날
2027-02-09 설날 대체공휴일
2027-03-01 삼일절
2027-05-05 어린이날
2027-05-13 부처님오신날
2027-07-19 제헌절 대체공휴일
2027-08-16 광복절 대체공휴일
2027-09-14 추석
2027-09-15 추석
2027-09-16 추석
2027-10-04 개천절 대체공휴일
2027-10-11 한글날 대체공휴일
2027-12-27 성탄절 대체공휴일
2027-12-31 연말 휴장일
2028-01-26 설날
2028-01-27 설날
2028-01-28 설날
2028-03-01 삼일절
2028-04-12 국회의원 선거일
2028-05-01 근로자의 날
2028-05-02 부처님오신날
2028-05-05 어린이날
2028-06-06 현충일
2028-07-17 제헌절
2028-08-15 광복절
2028-10-02 추석
2028-10-03 추석, 개천절
2028-10-04 추석
2028-10-05 추석 대체공휴일
2028-10-09 한글날
2028-12-25 성탄절
2028-12-29 연말 휴장일
"""
HOLIDAYS: Mapping[date, str] = MappingProxyType(
    {date.fromisoformat(line[:10]): line[11:] for line in _TABLE.strip().splitlines()}
)

# banks and the depository close on public holidays; on these days only the exchange closes
EXCHANGE_ONLY = ("연말 휴장일",)

# 수능
EXAM_DAYS = frozenset(
    date.fromisoformat(text) for text in ("2024-11-14", "2025-11-13", "2026-11-19", "2027-11-18", "2028-11-16")
)
# the first trading day of a year
FIRST_DAYS = frozenset(
    date.fromisoformat(text) for text in ("2024-01-02", "2025-01-02", "2026-01-02", "2027-01-04", "2028-01-03")
)
# paper trading (모의투자) takes order kinds 00 to 04 only, so its day ends with KRX's close
_ON_PAPER = frozenset({PhaseName.OPENING_AUCTION, PhaseName.REGULAR, PhaseName.CLOSING_AUCTION})


def is_trading_day(day: date) -> bool:
    return day.weekday() < 5 and day not in HOLIDAYS


def is_business_day(day: date) -> bool:
    """Return whether banks are open: on trading days and the year-end closing day. Nothing settles on the latter."""
    return day.weekday() < 5 and HOLIDAYS.get(day, EXCHANGE_ONLY[0]) in EXCHANGE_ONLY


@lru_cache(maxsize=4096)
def next_trading_day(day: date, steps: int = 1) -> date:
    """Return the `steps`-th trading day after `day`, or before it if `steps` is negative."""
    day_step = timedelta(days=1 if steps > 0 else -1)
    for _ in range(abs(steps)):
        day += day_step
        while not is_trading_day(day):
            day += day_step
    return day


@lru_cache(maxsize=64)
def phases_on(day: date) -> tuple[Phase, ...]:
    """Return the phases of all venues on `day`, none on a holiday. A late open moves all venues."""
    if not is_trading_day(day):
        return ()
    return phases_of(day, _kind_of(day))


def _kind_of(day: date) -> DayKind:
    if day in EXAM_DAYS:
        return DayKind.EXAM
    return DayKind.FIRST if day in FIRST_DAYS else DayKind.ORDINARY


@lru_cache(maxsize=64)
def paper_phases_on(day: date) -> tuple[Phase, ...]:
    """Return the phases of `day` in which paper trading takes orders: KRX's, up to its close.

    Source: protocol notes §8 (KRX only, ORD_DVSN 00 to 04) and §6.5 (40580000, 장종료).
    """
    return tuple(phase for phase in phases_on(day) if phase.market is Market.KRX and phase.name in _ON_PAPER)
