"""What the calls of a thread serve: every call below waits for its turn by the rank of that, however deep.

A quote is asked for because of an order, and has the rank of that order:

    with serving(Urgency.STOP):
        broker.quote(...)

Calls of a stop belong to a step, which has its place in the queue from its first call on.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from uuid import uuid4

from kis.catalogue import TR, Urgency


@dataclass(slots=True, eq=False)
class Step:
    """What a thread does for one stop in one go. `began_ms` is when it asked for its first call, by Redis's clock."""

    id: str = field(default_factory=lambda: uuid4().hex)
    began_ms: int | None = None
    has_called: bool = False


@dataclass(frozen=True, slots=True)
class _Served:
    urgency: Urgency
    step: Step | None


_served: ContextVar[_Served | None] = ContextVar("served", default=None)


@contextmanager
def serving(urgency: Urgency) -> Iterator[None]:
    """Give the calls of this block, or of the function that this decorates, a rank.

    A block inside one as urgent or more keeps that one's rank and step: an order that a stop places is the stop's.
    """
    served = _served.get()
    if served is None or urgency.rank_of() < served.urgency.rank_of():
        served = _Served(urgency, Step() if urgency is Urgency.STOP else None)
    token = _served.set(served)
    try:
        yield
    finally:
        _served.reset(token)


def urgency_of(tr: TR) -> Urgency:
    """Return the rank of a call: that of what it serves, otherwise the operation's own."""
    served = _served.get()
    return served.urgency if served else tr.urgency


def current_step() -> Step | None:
    """Return the step of a stop that the calls of this thread belong to, if any."""
    served = _served.get()
    return served.step if served else None
