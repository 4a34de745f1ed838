"""When which venue trades, how it matches, and which order codes it takes (장운영 구분).

The hours are dated rows: they change by notice about once a year. Source: the broker's workbook of
2026-09-11 and its notice of 2026-09-09 (KRX after-market and NXT changes from 2026-09-14). Windows
are half-open, `[starts_at, ends_at)`, in Korean time. Which days trade at all is not known here:
callers pass the day's phases, an empty tuple on a holiday.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta
from enum import StrEnum
from zoneinfo import ZoneInfo

from aegis.terms import Market, OrderKind

KST = ZoneInfo("Asia/Seoul")


class PhaseName(StrEnum):
    OPENING_AUCTION = "OPENING_AUCTION"  # 시가 단일가
    PRE_OPEN_CLOSE = "PRE_OPEN_CLOSE"  # 장전 시간외 종가
    PRE_MARKET = "PRE_MARKET"  # 프리마켓
    REGULAR = "REGULAR"  # 정규장
    CLOSING_AUCTION = "CLOSING_AUCTION"  # 종가 단일가
    POST_CLOSE = "POST_CLOSE"  # 장후 시간외 종가
    AFTER_HOURS_SINGLE = "AFTER_HOURS_SINGLE"  # 시간외 단일가
    AFTER_AUCTION = "AFTER_AUCTION"  # NXT, before its after-market
    AFTER_MARKET = "AFTER_MARKET"  # 애프터마켓


class Matching(StrEnum):
    CONTINUOUS = "CONTINUOUS"  # 접속매매
    AUCTION = "AUCTION"  # 단일가: one price at the end of the phase
    FIXED = "FIXED"  # at a price known beforehand


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of one venue's day: what it is called, how it matches, what it takes."""

    market: Market
    name: PhaseName
    starts_at: time
    ends_at: time
    matching: Matching
    kinds: frozenset[OrderKind]

    def holds(self, moment: time) -> bool:
        return self.starts_at <= moment < self.ends_at


def _kinds(codes: str) -> frozenset[OrderKind]:
    return frozenset(OrderKind(code) for code in codes.split())


_AUCTION_KINDS = _kinds("00 01")
_KRX_REGULAR = _kinds("00 01 02 03 04 11 12 13 14 15 16 21 22 23 24")
_KRX_AFTER = _kinds("41 42 43 44 45 46 47")
_NXT_CONTINUOUS = _kinds("00 03 04 11 12 13 14 15 16 21 22 23 24")
_NXT_GTP = _kinds("27 28 29")
_SOR_REGULAR = _kinds("00 01 03 04 11 12 13 14 15 16")
_SOR_ON_NXT = _kinds("00 03 04 11 12 15 16")

AFTER_MARKET_OPENED = date(2026, 9, 14)
_ALWAYS = date.min
_FOREVER = date.max


@dataclass(frozen=True, slots=True)
class PhaseRule:
    """A phase and the trade dates on which it is in force: `[since, until)`."""

    phase: Phase
    since: date = _ALWAYS
    until: date = _FOREVER


def _rule(
    market: Market,
    name: PhaseName,
    window: str,
    matching: Matching,
    kinds: frozenset[OrderKind],
    since: date = _ALWAYS,
    until: date = _FOREVER,
) -> PhaseRule:
    starts_at, ends_at = (time.fromisoformat(part) for part in window.split("-"))
    return PhaseRule(Phase(market, name, starts_at, ends_at, matching, kinds), since, until)


_C, _A, _F = Matching.CONTINUOUS, Matching.AUCTION, Matching.FIXED
_KRX, _NXT, _SOR = Market.KRX, Market.NXT, Market.SOR
_N = PhaseName
_NEW = AFTER_MARKET_OPENED

PHASE_RULES: tuple[PhaseRule, ...] = (
    _rule(_KRX, _N.OPENING_AUCTION, "08:30-09:00", _A, _AUCTION_KINDS, until=_NEW),
    # UNVERIFIED: the auction's start at 08:20; the first refused or accepted order before 08:30 settles it
    _rule(_KRX, _N.OPENING_AUCTION, "08:20-09:00", _A, _AUCTION_KINDS, since=_NEW),
    _rule(_KRX, _N.PRE_OPEN_CLOSE, "08:30-08:40", _F, _kinds("05")),
    _rule(_KRX, _N.REGULAR, "09:00-15:20", _C, _KRX_REGULAR),
    _rule(_KRX, _N.CLOSING_AUCTION, "15:20-15:30", _A, _AUCTION_KINDS),
    _rule(_KRX, _N.POST_CLOSE, "15:30-16:00", _F, _kinds("06")),
    _rule(_KRX, _N.AFTER_HOURS_SINGLE, "16:00-18:00", _A, _kinds("07"), until=_NEW),
    _rule(_KRX, _N.AFTER_MARKET, "16:00-20:00", _C, _KRX_AFTER, since=_NEW),
    _rule(_NXT, _N.PRE_MARKET, "08:00-08:50", _C, _NXT_CONTINUOUS, until=_NEW),
    _rule(_NXT, _N.PRE_MARKET, "08:00-08:50", _C, _NXT_CONTINUOUS | _NXT_GTP, since=_NEW),
    # UNVERIFIED: the half minute after nine; recorded NXT trades of one opening settle it
    _rule(_NXT, _N.REGULAR, "09:00:30-15:20", _C, _NXT_CONTINUOUS),
    # UNVERIFIED: which codes the single price takes; no official list was seen, a plain limit is the safe one
    _rule(_NXT, _N.AFTER_AUCTION, "15:30-15:40", _A, _kinds("00")),
    _rule(_NXT, _N.AFTER_MARKET, "15:40-20:00", _C, _NXT_CONTINUOUS),
    _rule(_SOR, _N.PRE_MARKET, "08:00-08:50", _C, _SOR_ON_NXT),
    _rule(_SOR, _N.REGULAR, "09:00-15:20", _C, _SOR_REGULAR),
    _rule(_SOR, _N.AFTER_MARKET, "15:40-20:00", _C, _SOR_ON_NXT),
)


def standard_phases(day: date) -> tuple[Phase, ...]:
    """Return the phases of every venue on an ordinary trading day, by the rules in force on `day`."""
    return tuple(rule.phase for rule in PHASE_RULES if rule.since <= day < rule.until)


class DayKind(StrEnum):
    """By which timetable a trading day goes."""

    ORDINARY = "ORDINARY"
    EXAM = "EXAM"  # 수능: the roads are left to the pupils
    FIRST = "FIRST"  # of the year, after the opening ceremony


LATE_BY = timedelta(hours=1)
_DAY_ENDS_AT = time(20, 0)
# the single prices after hours, while there were any, ended at six on every day
_SINGLE_ENDS_AT = time(18, 0)
_OPENING_PHASES = (PhaseName.OPENING_AUCTION, PhaseName.PRE_OPEN_CLOSE, PhaseName.PRE_MARKET)


def phases_of(day: date, kind: DayKind) -> tuple[Phase, ...]:
    """Return the phases of every venue on a trading day of that kind.

    수능: every phase an hour later, NXT without its pre-market, and the evening ends as ever. Source: the
    exchange's notice for 2025-11-13. The first day of a year: KRX opens an hour late and closes as ever.
    UNVERIFIED: NXT on such a first day; the notice of the next one settles it.
    """
    phases = standard_phases(day)
    if kind is DayKind.ORDINARY:
        return phases
    phases = tuple(phase for phase in phases if phase.name is not PhaseName.PRE_MARKET)
    if kind is DayKind.EXAM:
        return tuple(_ended_as_ever(phase) for phase in shifted(phases, LATE_BY))
    return tuple(_opened_late(phase) for phase in phases)


def _ended_as_ever(phase: Phase) -> Phase:
    latest = _SINGLE_ENDS_AT if phase.name is PhaseName.AFTER_HOURS_SINGLE else _DAY_ENDS_AT
    return replace(phase, ends_at=min(phase.ends_at, latest))


def _opened_late(phase: Phase) -> Phase:
    (late,) = shifted((phase,), LATE_BY)
    if phase.name in _OPENING_PHASES:
        return late
    return replace(phase, starts_at=late.starts_at) if phase.name is PhaseName.REGULAR else phase


def is_exam_day(day: date) -> bool:
    """Whether 수능 is usually held on `day`: the Thursday from the 13th to the 19th of November.

    UNVERIFIED until the ministry's notice of the year: so it was from 2021 to 2026, and in 2020 it was not.
    """
    return day.month == 11 and 13 <= day.day <= 19 and day.weekday() == 3


def shifted(phases: Iterable[Phase], by: timedelta) -> tuple[Phase, ...]:
    """Return the phases moved by `by`, as on a late open (수능, first trading day of the year)."""

    def move(moment: time) -> time:
        return (datetime.combine(date(2000, 1, 1), moment) + by).time()

    return tuple(replace(phase, starts_at=move(phase.starts_at), ends_at=move(phase.ends_at)) for phase in phases)


def phases_at(phases: Iterable[Phase], market: Market, now: datetime) -> tuple[Phase, ...]:
    """Return the phases of `market` that hold `now`; two where a fixed-price session lies in an auction."""
    moment = now.astimezone(KST).time()
    return tuple([phase for phase in phases if phase.market == market and phase.holds(moment)])


def first_start(phases: Iterable[Phase], now: datetime) -> datetime | None:
    """Return when the first venue begins its day on the day of `now`, None on a day without trading."""
    return _first(phases, now)


def krx_open(phases: Iterable[Phase], now: datetime) -> datetime | None:
    """Return when KRX's regular session begins on the day of `now`, None on a day without one."""
    return _first((p for p in phases if p.market is Market.KRX and p.name is PhaseName.REGULAR), now)


def _first(phases: Iterable[Phase], now: datetime) -> datetime | None:
    first = min((phase.starts_at for phase in phases), default=None)
    return datetime.combine(now.astimezone(KST), first, KST) if first else None


def auction_at(phases: Iterable[Phase], market: Market, now: datetime) -> Phase | None:
    """Return the auction (단일가) that `market` holds at `now`, None outside one."""
    return next((phase for phase in phases_at(phases, market, now) if phase.matching is Matching.AUCTION), None)


def ends_at(market: Market, kind: OrderKind, phases: Iterable[Phase]) -> time | None:
    """Return when an order of this venue and kind can trade for the last time on a day with these phases.

    A remainder routed by SOR may rest on NXT, so it ends with NXT's last phase. On KRX what rests from the regular
    session takes part in the closing auction. None if the venue has no phases that day.
    """
    where = Market.NXT if market is Market.SOR else market
    own = [phase for phase in phases if phase.market is where]
    if market is Market.SOR:
        return max((phase.ends_at for phase in own), default=None)
    taking = [phase for phase in own if kind in phase.kinds] or own
    closing = [phase for phase in own if phase.name is PhaseName.CLOSING_AUCTION]
    if closing and any(phase.name is PhaseName.REGULAR for phase in taking):
        taking = taking + closing
    return max((phase.ends_at for phase in taking), default=None)


def is_market_open(market: Market, phases: Iterable[Phase], now: datetime) -> bool:
    """Whether `market` takes any order at `now`, given the day's phases. Source: spec §11.6."""
    return bool(phases_at(phases, market, now))


def legal_kinds(market: Market, phases: Iterable[Phase], now: datetime) -> frozenset[OrderKind]:
    """Return the order codes `market` takes at `now`; empty while it takes none."""
    return frozenset[OrderKind]().union(*(phase.kinds for phase in phases_at(phases, market, now)))


def limit_kind(legal: frozenset[OrderKind]) -> OrderKind | None:
    """Return the code of a plain limit order where `legal` codes are taken, None where there is none."""
    return next((kind for kind in (OrderKind.LIMIT, OrderKind.AFTER_LIMIT) if kind in legal), None)


def immediate_kind(legal: frozenset[OrderKind]) -> OrderKind | None:
    """Return the code that goes through at once: market, else a limit to be set at the best opposite quote.

    Source: spec §11.3: NXT takes no market order. None where neither is taken.
    """
    return OrderKind.MARKET if OrderKind.MARKET in legal else limit_kind(legal)


def kind_for(asked: OrderKind | None, legal: frozenset[OrderKind], *, names_price: bool) -> OrderKind:
    """Return the code to order with where `legal` codes are taken: the one asked for by name, else the plain one.

    A market order is the one kind that gives way: to a limit where none is taken.
    """
    if asked not in (None, OrderKind.MARKET):
        return asked
    return (limit_kind(legal) if names_price else immediate_kind(legal)) or OrderKind.LIMIT


def is_trading(market: Market, phases: Iterable[Phase], now: datetime) -> bool:
    """Whether `market` matches orders as they come at `now` (접속매매); in an auction it collects them."""
    return any(phase.matching is Matching.CONTINUOUS for phase in phases_at(phases, market, now))


def get_available_market(phases: Sequence[Phase], now: datetime) -> Market | None:
    """Return the venue to prefer of those that take an order at `now`: KRX in its regular hours, else NXT, else KRX.

    Source: spec §11.6 (before and after KRX's hours NXT), read from the day's own phases so that it moves with a late
    open. From 08:50, when NXT has closed, KRX's opening auction takes the order. None if no venue takes a plain one.
    """
    moment = now.astimezone(KST).time()
    krx = [p for p in phases if p.market is Market.KRX and p.name in (_N.REGULAR, _N.CLOSING_AUCTION)]
    if krx and min(p.starts_at for p in krx) <= moment < max(p.ends_at for p in krx):
        return Market.KRX
    takes = (each for each in (Market.NXT, Market.KRX) if limit_kind(legal_kinds(each, phases, now)))
    return next(takes, None)
