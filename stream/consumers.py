"""What a part of the house does with the broker's feeds: the shape of it. `stream.worker.CONSUMERS` lists who does.

A part that wants feeds has a function without arguments that makes its `Consumer` anew for each term of the
lease, and one line in that list. Nothing of one term outlives it in memory.
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
# A venue counts as open this long before its first trade and after its last: a session of many registrations changes
# its topics in less, and the price of an auction comes some seconds after its end
MARGIN = timedelta(seconds=60)

# Gets the typed values of one frame (see `kis.realtime`) and the `time.perf_counter()` of its arrival. It runs
# on the socket's own thread, where fills are waiting behind it: memory only, no database, no network, no lock
# that anybody holds for long.
Handler = Callable[[Sequence[Any], float], None]


class FeedPriority(IntEnum):
    """How much a feed matters: where registrations run out, the highest figures are left out first."""

    OWN_FILLS = 0
    STOPS = 1
    ORDERED = 2
    HELD = 3
    PULSE = 4  # what tells a deaf connection from a quiet market
    WATCHED = 5
    STOPS_ON_SECOND_VENUE = 6
    BOOKS = 7
    STATES = 8
    PROGRAM = 9
    INDEX = 10
    OTHER = 11
    CLOSED = 12  # trades on a venue that is closed


# without these feeds what we hold is judged late: people are told
VITAL = (FeedPriority.STOPS, FeedPriority.HELD)


@dataclass(frozen=True, slots=True)
class SubscriptionRequest:
    """Feeds somebody wants, most important first. Asked every few seconds, on a thread that may use the database."""

    rank: FeedPriority
    topics: Callable[[], Iterable[Topic]]


def _no_more() -> bool:
    """Say that a chore leaves nothing undone."""
    return False


@dataclass(frozen=True, slots=True)
class StockSubscriptions:
    """Stocks whose trades somebody wants, most important first: on which venue is decided by the time of day.

    `venues` names, by stock, the only venues whose trades matter; of a stock that it does not name, those of all do.
    """

    rank: FeedPriority
    codes: Callable[[], Iterable[str]]
    venues: Callable[[], Mapping[str, Set[Market]]] = dict


def open_venues(phases: Iterable[Phase], now: datetime) -> tuple[Market, ...]:
    """Return the venues that trade at `now`, give or take MARGIN; first the one whose trades decide. Pure.

    In KRX's regular session and closing auction that is KRX, at every other time NXT.
    """
    mine = [phase for phase in phases if phase.market in TRADES and _trades_at(phase, now)]
    is_krx_day = any(
        phase.market is Market.KRX and phase.name in (PhaseName.REGULAR, PhaseName.CLOSING_AUCTION) for phase in mine
    )
    order = (Market.KRX, Market.NXT) if is_krx_day else (Market.NXT, Market.KRX)
    traded = {phase.market for phase in mine}
    return tuple(venue for venue in order if venue in traded)


def _trades_at(phase: Phase, now: datetime) -> bool:
    """Whether a phase brings trades at `now`, give or take MARGIN: the opening auction does at its end only."""
    if phase.matching is Matching.FIXED:
        return False
    day = now.astimezone(KST).date()
    begins_at = phase.ends_at if phase.name is PhaseName.OPENING_AUCTION else phase.starts_at
    return _at(day, begins_at) - MARGIN <= now < _at(day, phase.ends_at) + MARGIN


def _at(day: date, moment: time) -> datetime:
    return datetime.combine(day, moment, tzinfo=KST)


def ranked_trades(
    rank: FeedPriority,
    codes: Iterable[str],
    *,
    venues: Sequence[Market],
    on_nxt: Set[str],
    relevant_venues: Mapping[str, Set[Market]] = MappingProxyType({}),
) -> Iterator[tuple[FeedPriority, Topic]]:
    """Yield the trade feeds of stocks with their ranks: on the venue that decides, a second one, a closed one. Pure.

    `relevant_venues` are the only venues of a stock whose trades matter, such as those that may trigger its stops.
    """
    second = FeedPriority.STOPS_ON_SECOND_VENUE if rank is FeedPriority.STOPS else FeedPriority.OTHER
    for code in codes:
        listed = [venue for venue in TRADES if venue is Market.KRX or code in on_nxt]
        traded = [venue for venue in venues if venue in listed]
        deciding = [venue for venue in traded if venue in relevant_venues.get(code, TRADES)]
        ranks = dict.fromkeys(traded, FeedPriority.OTHER) | dict(zip(deciding, (rank, second), strict=False))
        others = (venue for venue in traded if venue not in deciding)
        for venue in (*deciding, *others, *(venue for venue in listed if venue not in traded)):
            yield ranks.get(venue, FeedPriority.CLOSED), Topic(TRADES[venue], code)


@dataclass(frozen=True, slots=True)
class PeriodicJob:
    """Something done again and again on a thread of its own while the lease is ours, and once more at its end.

    It may use the database. It is not begun once the lease is lost; what it raises is logged and counted. A chore
    whose work anybody may do, and must not be lost with the lease, says through `has_more` that some is left: it is
    repeated at the end until none is.
    """

    name: str
    every_seconds: float
    run: Callable[[], None]
    has_more: Callable[[], bool] = _no_more


def _nothing(*about: object) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Consumer:
    """One part's handlers by TR id, wishes and chores. `connected`, `lost` and `registered`
    run on the socket's thread."""

    handlers: Mapping[str, Handler] = field(default_factory=dict)
    wishes: Sequence[SubscriptionRequest] = ()
    stocks: Sequence[StockSubscriptions] = ()
    chores: Sequence[PeriodicJob] = ()
    connected: Callable[[], None] = _nothing
    lost: Callable[[], None] = _nothing
    registered: Callable[[Topic], None] = _nothing
