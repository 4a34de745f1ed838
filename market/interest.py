"""Which stocks' daily prices and reference data are kept: the watch list, and what other packages name.

A package above this one registers what it is interested in when Django starts, and is asked each time.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

from market import queries

Provider = Callable[[datetime], Iterable[str]]
_providers: list[Provider] = []


def register(provider: Provider) -> None:
    """Have `provider`'s codes kept too; registered twice it is asked once."""
    if provider not in _providers:
        _providers.append(provider)


def codes(now: datetime) -> set[str]:
    """Return the codes of all stocks of interest at `now`."""
    return set(queries.watched_codes()).union(*(provider(now) for provider in _providers))
