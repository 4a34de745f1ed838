"""What a part of the house does with the broker's feeds: the shape of it. `desk.stream.PLUGS` lists who does.

A part that wants feeds has a function without arguments that makes its `Plug` anew for each term of the
lease, and one line in that list. Nothing of one term outlives it in memory.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any

from kis.subscriptions import Topic

# Gets the typed values of one frame (see `kis.feeds`) and the `time.perf_counter()` of its arrival. It runs
# on the socket's own thread, where fills are waiting behind it: memory only, no database, no network, no lock
# that anybody holds for long.
Handler = Callable[[Sequence[Any], float], None]


class Rank(IntEnum):
    """How much a feed matters: where registrations run out, the highest figures are left out first."""

    OWN_FILLS = 0
    HELD = 1
    ORDERED = 2
    STOPS = 3
    PULSE = 4  # what tells a deaf connection from a quiet market
    WATCHED = 5
    BOOKS = 6
    STATES = 7
    PROGRAM = 8
    INDEX = 9
    OTHER = 10


# without these feeds what we hold is judged late: people are told
VITAL = (Rank.HELD, Rank.STOPS)


@dataclass(frozen=True, slots=True)
class Wish:
    """Feeds somebody wants, most important first. Asked every few seconds, on a thread that may use the database."""

    rank: Rank
    topics: Callable[[], Iterable[Topic]]


def _no_more() -> bool:
    """Say that a chore leaves nothing undone."""
    return False


@dataclass(frozen=True, slots=True)
class Chore:
    """Something done again and again on a thread of its own while the lease is ours, and once more at its end.

    It may use the database. It is not begun once the lease is lost; what it raises is logged and counted. A chore
    whose work anybody may do, and must not be lost with the lease, says through `has_more` that some is left: it is
    repeated at the end until none is.
    """

    name: str
    every_seconds: float
    run: Callable[[], None]
    has_more: Callable[[], bool] = _no_more


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Plug:
    """One part's handlers by TR id, wishes and chores. `connected` and `lost` run on the socket's thread."""

    handlers: Mapping[str, Handler] = field(default_factory=dict)
    wishes: Sequence[Wish] = ()
    chores: Sequence[Chore] = ()
    connected: Callable[[], None] = _nothing
    lost: Callable[[], None] = _nothing
