"""Which order a thread works on, so that every line it logs can say so, however deep below."""

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, ParamSpec, TypeVar

Words = ParamSpec("Words")
Result = TypeVar("Result")

_order: ContextVar[int | None] = ContextVar("order", default=None)


def current() -> int | None:
    """Return our number of the order being worked on, None where there is none."""
    return _order.get()


@contextmanager
def order(pk: int | None) -> Iterator[None]:
    """Work on an order."""
    token = _order.set(pk)
    try:
        yield
    finally:
        _order.reset(token)


def named(function: Callable[Words, Result]) -> Callable[Words, Result]:
    """Let a function work on the order that is its first argument, after `self`: the row or its number."""

    @functools.wraps(function)
    def working(*args: Words.args, **kwargs: Words.kwargs) -> Result:
        with order(next((pk for pk in map(_pk, args[:2]) if pk is not None), None)):
            return function(*args, **kwargs)

    return working


def _pk(argument: Any) -> int | None:
    pk = argument if isinstance(argument, int) else getattr(argument, "pk", None)
    return pk if isinstance(pk, int) else None
