"""The interface of a part of AEGIS that uses the broker's feeds. `stream.worker.CONSUMERS` lists these parts.

Such a part has a function without arguments that creates a new `Consumer` for each session of the leader, and one line
in that list. No object in memory outlives its session.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from enum import IntEnum
from types import MappingProxyType
from typing import Any

from aegis.sessions import KST, Matching, Phase, PhaseName
from aegis.terms import Market
from kis.subscriptions import Topic

TRADES: Mapping[Market, str] = MappingProxyType({Market.KRX: "H0STCNT0", Market.NXT: "H0NXCNT0"})
# A venue counts as open from this long before its first trade until this long after its last. All registrations of a
# session can be changed in less time, and the price of an auction arrives some seconds after its end
MARGIN = timedelta(seconds=60)

# Takes the typed values of one frame (see `kis.realtime`) and the `time.perf_counter()` of its arrival. It runs on the
# socket's thread, and fills wait until it returns: it may use memory only, no database, no network, and no lock that
# any thread holds for long.
Handler = Callable[[Sequence[Any], float], None]


class SubscriptionPriority(IntEnum):
    """The priority of a feed. If the 41 registrations are not enough, the highest numbers are dropped first.

    Our own fills go before all of them (`stream.worker`).
    """

    STOPS = 1
    ORDERED = 2
    HELD = 3
    REFERENCE = 4  # always has data in regular hours: distinguishes a dead connection from a quiet market
    WATCHED = 5
    STOPS_ON_SECOND_VENUE = 6
    BOOKS = 7
    STATES = 8
    PROGRAM = 9
    INDEX = 10
    OTHER = 11
    CLOSED = 12  # trades on a venue that is closed


# stops and holdings are evaluated late without these feeds: an alarm is raised if one is missing
VITAL = (SubscriptionPriority.STOPS, SubscriptionPriority.HELD)


@dataclass(frozen=True, slots=True)
class SubscriptionRequest:
    """The feeds that a consumer wants, most important first.

    `topics` is called every few seconds, on a thread that may use the database.
    """

    priority: SubscriptionPriority
    topics: Callable[[], Iterable[Topic]]


def _no_more() -> bool:
    """The default of `has_more`: no work is left."""
    return False


@dataclass(frozen=True, slots=True)
class StockSubscriptions:
    """The stocks whose trades a consumer wants, most important first. The time of day decides on which venue.

    `venues` has, by stock, the only venues whose trades matter. For other stocks all venues matter.
    """

    priority: SubscriptionPriority
    codes: Callable[[], Iterable[str]]
    venues: Callable[[], Mapping[str, Set[Market]]] = dict


def open_venues(phases: Iterable[Phase], now: datetime) -> tuple[Market, ...]:
    """Return the venues that trade at `now`, plus or minus MARGIN, the leading venue first. Pure.

    KRX leads in its regular session and its closing auction, NXT at all other times.
    """
    open_phases = [phase for phase in phases if phase.market in TRADES and _trades_at(phase, now)]
    is_krx_leading = any(
        phase.market is Market.KRX and phase.name in (PhaseName.REGULAR, PhaseName.CLOSING_AUCTION)
        for phase in open_phases
    )
    order = (Market.KRX, Market.NXT) if is_krx_leading else (Market.NXT, Market.KRX)
    trading_venues = {phase.market for phase in open_phases}
    return tuple(venue for venue in order if venue in trading_venues)


def _trades_at(phase: Phase, now: datetime) -> bool:
    """Whether a phase has trades at `now`, plus or minus MARGIN. The opening auction has them only at its end."""
    if phase.matching is Matching.FIXED:
        return False
    day = now.astimezone(KST).date()
    begins_at = phase.ends_at if phase.name is PhaseName.OPENING_AUCTION else phase.starts_at
    return _at(day, begins_at) - MARGIN <= now < _at(day, phase.ends_at) + MARGIN


def _at(day: date, moment: time) -> datetime:
    return datetime.combine(day, moment, tzinfo=KST)


def ranked_trades(
    priority: SubscriptionPriority,
    codes: Iterable[str],
    *,
    venues: Sequence[Market],
    on_nxt: Set[str],
    relevant_venues: Mapping[str, Set[Market]] = MappingProxyType({}),
) -> Iterator[tuple[SubscriptionPriority, Topic]]:
    """Yield the trade feeds of stocks with their priorities: on the leading venue, the second one, closed ones. Pure.

    `relevant_venues` has, by stock, the only venues whose trades matter, such as those that may trigger its stops.
    """
    second_priority = (
        SubscriptionPriority.STOPS_ON_SECOND_VENUE
        if priority is SubscriptionPriority.STOPS
        else SubscriptionPriority.OTHER
    )
    for code in codes:
        all_venues = [venue for venue in TRADES if venue is Market.KRX or code in on_nxt]
        open_now = [venue for venue in venues if venue in all_venues]
        relevant = [venue for venue in open_now if venue in relevant_venues.get(code, TRADES)]
        priorities = dict.fromkeys(open_now, SubscriptionPriority.OTHER)
        priorities |= dict(zip(relevant, (priority, second_priority), strict=False))
        others = (venue for venue in open_now if venue not in relevant)
        for venue in (*relevant, *others, *(venue for venue in all_venues if venue not in open_now)):
            yield priorities.get(venue, SubscriptionPriority.CLOSED), Topic(TRADES[venue], code)


@dataclass(frozen=True, slots=True)
class PeriodicJob:
    """Work that is repeated on a thread of its own while the lease is ours, and done once more at the end.

    It may use the database. It does not run after the lease is lost. Its errors are logged and counted. A job whose
    work is valid without the lease and must not be lost returns True from `has_more` while work is left: it is then
    repeated at the end until no work is left.
    """

    name: str
    every_seconds: float
    run: Callable[[], None]
    has_more: Callable[[], bool] = _no_more


def _nothing(*args: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """The handlers by TR id, the wanted feeds and the jobs of one part of AEGIS.

    `on_connected`, `on_lost` and `on_registered` run on the socket's thread.
    """

    handlers: Mapping[str, Handler] = field(default_factory=dict)
    requests: Sequence[SubscriptionRequest] = ()
    stocks: Sequence[StockSubscriptions] = ()
    jobs: Sequence[PeriodicJob] = ()
    on_connected: Callable[[], None] = _nothing
    on_lost: Callable[[], None] = _nothing
    on_registered: Callable[[Topic], None] = _nothing
