"""The priority of the work that a thread's calls serve. Each call inside the block waits with that priority.

A quote that is requested for an order has the priority of that order:

    with serving(CallPriority.STOP):
        broker.quote(...)

Calls of a stop belong to a step. All calls of a step queue from the time of the step's first call.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from uuid import uuid4

from kis.catalogue import TR, CallPriority


@dataclass(slots=True, eq=False)
class Step:
    """The calls that a thread makes for one step of a stop.

    `began_ms` is the time of the first request for a slot, by the Redis clock.
    """

    id: str = field(default_factory=lambda: uuid4().hex)
    began_ms: int | None = None
    has_called: bool = False


@dataclass(frozen=True, slots=True)
class _Work:
    priority: CallPriority
    step: Step | None


_current_work: ContextVar[_Work | None] = ContextVar("served", default=None)


@contextmanager
def serving(priority: CallPriority) -> Iterator[None]:
    """Set the priority of the calls of this block, or of the function that this decorates.

    A block inside another one of the same or a higher priority keeps the outer priority and step: an order that a stop
    places has the priority of the stop.
    """
    work = _current_work.get()
    if work is None or priority.rank < work.priority.rank:
        work = _Work(priority, Step() if priority is CallPriority.STOP else None)
    token = _current_work.set(work)
    try:
        yield
    finally:
        _current_work.reset(token)


def priority_of(tr: TR) -> CallPriority:
    """Return the priority of a call: that of the work it serves, otherwise the operation's own."""
    work = _current_work.get()
    return work.priority if work else tr.priority


def current_step() -> Step | None:
    """Return the step of a stop that the calls of this thread belong to, None if there is none."""
    work = _current_work.get()
    return work.step if work else None
