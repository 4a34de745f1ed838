"""What the calls of a thread serve: every call below waits for its turn by the rank of that, however deep.

A quote is asked for because of an order, and has the rank of that order:

    with serving(Urgency.STOP):
        broker.quote(...)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from kis.catalogue import TR, Urgency

_served: ContextVar[Urgency | None] = ContextVar("served", default=None)


@contextmanager
def serving(urgency: Urgency) -> Iterator[None]:
    """Give the calls of this block, or of the function that this decorates, a rank.

    A block inside a more urgent one keeps that one's rank: an order that a stop places is the stop's.
    """
    outer = _served.get()
    token = _served.set(urgency if outer is None else min(urgency, outer, key=Urgency.rank_of))
    try:
        yield
    finally:
        _served.reset(token)


def urgency_of(tr: TR) -> Urgency:
    """Return the rank of a call: that of what it serves, otherwise the operation's own."""
    return _served.get() or tr.urgency
