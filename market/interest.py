"""The stocks whose daily prices and reference data are kept: the watch list, and the stocks of other packages.

A package above this one registers a provider of codes when Django starts; it is called each time.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

from market import queries

Provider = Callable[[datetime], Iterable[str]]
_providers: list[Provider] = []


def register(provider: Provider) -> None:
    """Add a provider of codes. A second registration has no effect."""
    if provider not in _providers:
        _providers.append(provider)


def codes(now: datetime) -> set[str]:
    """Return the codes of all stocks of interest at `now`."""
    return set(queries.watched_codes()).union(*(provider(now) for provider in _providers))
