"""Logging context: the order that a thread works on, so that every log line of the thread can include it."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
Result = TypeVar("Result")

_order: ContextVar[int | None] = ContextVar("order", default=None)


def current_order() -> int | None:
    """Return the primary key of the order being worked on, None if there is none."""
    return _order.get()


@contextmanager
def order_context(pk: int | None) -> Iterator[None]:
    """Set the order that the thread works on."""
    token = _order.set(pk)
    try:
        yield
    finally:
        _order.reset(token)


def with_order_context(function: Callable[P, Result]) -> Callable[P, Result]:
    """Decorate a function with the order that is its first argument after `self`: the row or its primary key."""

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> Result:
        with order_context(next((pk for pk in map(_pk, args[:2]) if pk is not None), None)):
            return function(*args, **kwargs)

    return wrapper


def _pk(argument: Any) -> int | None:
    pk = argument if isinstance(argument, int) else getattr(argument, "pk", None)
    return pk if isinstance(pk, int) else None
