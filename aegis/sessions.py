"""Trading hours of each venue: its phases, how they match, and which order codes they take (장운영 구분).

The hours are dated rows: they change by notice about once a year. Source: the broker's workbook of
2026-09-11 and its notice of 2026-09-09 (KRX after-market and NXT changes from 2026-09-14). Windows
are half-open, `[starts_at, ends_at)`, in Korean time. This module does not know holidays: callers pass
the day's phases, an empty tuple on a holiday.
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
    FIXED = "FIXED"  # at a price that is known in advance


@dataclass(frozen=True, slots=True)
class Phase:
    """A period of one venue's day: its name, its matching and the order kinds it takes."""

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
# no "01": NXT takes no market orders
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
    # UNVERIFIED: the auction starts at 08:20; the first refused or accepted order before 08:30 settles it
    _rule(_KRX, _N.OPENING_AUCTION, "08:20-09:00", _A, _AUCTION_KINDS, since=_NEW),
    _rule(_KRX, _N.PRE_OPEN_CLOSE, "08:30-08:40", _F, _kinds("05")),
    _rule(_KRX, _N.REGULAR, "09:00-15:20", _C, _KRX_REGULAR),
    _rule(_KRX, _N.CLOSING_AUCTION, "15:20-15:30", _A, _AUCTION_KINDS),
    _rule(_KRX, _N.POST_CLOSE, "15:30-16:00", _F, _kinds("06")),
    _rule(_KRX, _N.AFTER_HOURS_SINGLE, "16:00-18:00", _A, _kinds("07"), until=_NEW),
    _rule(_KRX, _N.AFTER_MARKET, "16:00-20:00", _C, _KRX_AFTER, since=_NEW),
    _rule(_NXT, _N.PRE_MARKET, "08:00-08:50", _C, _NXT_CONTINUOUS, until=_NEW),
    _rule(_NXT, _N.PRE_MARKET, "08:00-08:50", _C, _NXT_CONTINUOUS | _NXT_GTP, since=_NEW),
    # UNVERIFIED: the start at 09:00:30; recorded NXT trades of one opening settle it
    _rule(_NXT, _N.REGULAR, "09:00:30-15:20", _C, _NXT_CONTINUOUS),
    # UNVERIFIED: which codes the auction takes; no official list was seen, so only a plain limit order is assumed
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
    """The timetable of a trading day."""

    ORDINARY = "ORDINARY"
    EXAM = "EXAM"  # 수능, the college entrance exam: the market opens late
    FIRST = "FIRST"  # the first trading day of the year: KRX opens after a ceremony


LATE_BY = timedelta(hours=1)
_DAY_ENDS_AT = time(20, 0)
# the after-hours single-price session ended at 18:00 on every day, late opening or not
_SINGLE_ENDS_AT = time(18, 0)
_OPENING_PHASES = (PhaseName.OPENING_AUCTION, PhaseName.PRE_OPEN_CLOSE, PhaseName.PRE_MARKET)


def phases_of(day: date, kind: DayKind) -> tuple[Phase, ...]:
    """Return the phases of every venue on a trading day of this kind.

    수능: every phase moves by an hour, NXT has no pre-market, and the last phase ends at its usual time. Source: the
    exchange's notice for 2025-11-13. First trading day of a year: KRX opens an hour late and closes at its usual time.
    UNVERIFIED: NXT on the first trading day; the notice of the next one settles it.
    """
    phases = standard_phases(day)
    if kind is DayKind.ORDINARY:
        return phases
    phases = tuple(phase for phase in phases if phase.name is not PhaseName.PRE_MARKET)
    if kind is DayKind.EXAM:
        return tuple(_with_usual_end(phase) for phase in shifted(phases, LATE_BY))
    return tuple(_with_late_opening(phase) for phase in phases)


def _with_usual_end(phase: Phase) -> Phase:
    latest = _SINGLE_ENDS_AT if phase.name is PhaseName.AFTER_HOURS_SINGLE else _DAY_ENDS_AT
    return replace(phase, ends_at=min(phase.ends_at, latest))


def _with_late_opening(phase: Phase) -> Phase:
    (late,) = shifted((phase,), LATE_BY)
    if phase.name in _OPENING_PHASES:
        return late
    return replace(phase, starts_at=late.starts_at) if phase.name is PhaseName.REGULAR else phase


def is_exam_day(day: date) -> bool:
    """Whether 수능 is usually held on `day`: the Thursday from the 13th to the 19th of November.

    UNVERIFIED until the ministry's notice of the year: the rule was right for 2021 to 2026 and wrong for 2020.
    """
    return day.month == 11 and 13 <= day.day <= 19 and day.weekday() == 3


def shifted(phases: Iterable[Phase], by: timedelta) -> tuple[Phase, ...]:
    """Return the phases moved by `by`, as on a late open (수능, first trading day of the year)."""

    def move(moment: time) -> time:
        return (datetime.combine(date(2000, 1, 1), moment) + by).time()

    return tuple(replace(phase, starts_at=move(phase.starts_at), ends_at=move(phase.ends_at)) for phase in phases)


def phases_at(phases: Iterable[Phase], market: Market, now: datetime) -> tuple[Phase, ...]:
    """Return the phases of `market` that contain `now`: two if a fixed-price session overlaps an auction."""
    moment = now.astimezone(KST).time()
    return tuple([phase for phase in phases if phase.market == market and phase.holds(moment)])


def first_start(phases: Iterable[Phase], now: datetime) -> datetime | None:
    """Return when the first venue opens on the day of `now`, None on a day without trading."""
    return _earliest_start(phases, now)


def krx_open(phases: Iterable[Phase], now: datetime) -> datetime | None:
    """Return when KRX's regular session starts on the day of `now`, None on a day without one."""
    return _earliest_start((p for p in phases if p.market is Market.KRX and p.name is PhaseName.REGULAR), now)


def _earliest_start(phases: Iterable[Phase], now: datetime) -> datetime | None:
    first = min((phase.starts_at for phase in phases), default=None)
    return datetime.combine(now.astimezone(KST), first, KST) if first else None


def auction_at(phases: Iterable[Phase], market: Market, now: datetime) -> Phase | None:
    """Return the auction (단일가) of `market` at `now`, None outside an auction."""
    return next((phase for phase in phases_at(phases, market, now) if phase.matching is Matching.AUCTION), None)


def ends_at(market: Market, kind: OrderKind, phases: Iterable[Phase]) -> time | None:
    """Return the time until which an order of this venue and kind can trade on a day with these phases.

    The remainder of a SOR order may rest on NXT, so it ends with NXT's last phase. On KRX, an order that rests from the
    regular session takes part in the closing auction. None if the venue has no phases that day.
    """
    venue = Market.NXT if market is Market.SOR else market
    venue_phases = [phase for phase in phases if phase.market is venue]
    if market is Market.SOR:
        return max((phase.ends_at for phase in venue_phases), default=None)
    accepting = [phase for phase in venue_phases if kind in phase.kinds] or venue_phases
    closing_auction = [phase for phase in venue_phases if phase.name is PhaseName.CLOSING_AUCTION]
    if closing_auction and any(phase.name is PhaseName.REGULAR for phase in accepting):
        accepting = accepting + closing_auction
    return max((phase.ends_at for phase in accepting), default=None)


def is_market_open(market: Market, phases: Iterable[Phase], now: datetime) -> bool:
    """Whether `market` takes any order at `now`, given the day's phases. Source: spec §11.6."""
    return bool(phases_at(phases, market, now))


def legal_kinds(market: Market, phases: Iterable[Phase], now: datetime) -> frozenset[OrderKind]:
    """Return the order codes `market` takes at `now`; empty while it takes none."""
    return kinds_of(phases_at(phases, market, now))


def kinds_of(open_phases: Iterable[Phase]) -> frozenset[OrderKind]:
    """Return the order codes that any of these phases takes."""
    return frozenset[OrderKind]().union(*(phase.kinds for phase in open_phases))


def limit_kind(legal: frozenset[OrderKind]) -> OrderKind | None:
    """Return the code of a plain limit order among the `legal` codes, None if it is not among them."""
    return next((kind for kind in (OrderKind.LIMIT, OrderKind.AFTER_LIMIT) if kind in legal), None)


def immediate_kind(legal: frozenset[OrderKind]) -> OrderKind | None:
    """Return the code of an order that fills immediately: market, else a limit to price at the best opposite quote.

    Source: spec §11.3: NXT takes no market orders. None if neither is legal.
    """
    return OrderKind.MARKET if OrderKind.MARKET in legal else limit_kind(legal)


def kind_for(requested: OrderKind | None, legal: frozenset[OrderKind], *, names_price: bool) -> OrderKind:
    """Return the code to order with, given the `legal` codes: the requested one, else a plain limit or market order.

    Only a market order is replaced: by a limit order if market orders are not legal.
    """
    if requested not in (None, OrderKind.MARKET):
        return requested
    return (limit_kind(legal) if names_price else immediate_kind(legal)) or OrderKind.LIMIT


def is_trading(market: Market, phases: Iterable[Phase], now: datetime) -> bool:
    """Whether `market` matches orders continuously at `now` (접속매매); an auction only collects them."""
    return any(phase.matching is Matching.CONTINUOUS for phase in phases_at(phases, market, now))


def get_available_market(phases: Sequence[Phase], now: datetime) -> Market | None:
    """Return the preferred venue among those that take an order at `now`: KRX in its regular hours, else NXT, else KRX.

    Source: spec §11.6 (NXT before and after KRX's hours). The hours come from the day's phases, so they follow a late
    open. From 08:50, when NXT has closed, KRX's opening auction takes the order. None if no venue takes a plain limit
    order.
    """
    moment = now.astimezone(KST).time()
    krx = [p for p in phases if p.market is Market.KRX and p.name in (_N.REGULAR, _N.CLOSING_AUCTION)]
    if krx and min(p.starts_at for p in krx) <= moment < max(p.ends_at for p in krx):
        return Market.KRX
    venues = (venue for venue in (Market.NXT, Market.KRX) if limit_kind(legal_kinds(venue, phases, now)))
    return next(venues, None)
