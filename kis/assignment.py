"""Decides which app key carries which feed. Pure: no socket, no clock.

Feeds are placed in the order of their rank until every key is full. A feed stays with its key while that key is
available and does not refuse it, so a small change moves few feeds. A feed that does not fit is queued behind the
feeds of one key, which tries to register it when the server may have room again.
"""

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field

from kis.subscriptions import Topic


@dataclass(frozen=True, slots=True)
class KeyState:
    """The state of one app key: how many registrations it takes, which feeds it refused, whether it is available."""

    capacity: int
    refused: Set[Topic] = field(default_factory=frozenset)
    is_available: bool = True


def assign(
    wanted: Sequence[Topic], keys: Sequence[KeyState], current: Mapping[Topic, int] | None = None
) -> list[tuple[Topic, ...]]:
    """Return the feeds of each key, most important first. `wanted` is ranked; `current` maps feeds to key numbers.

    If no key is available, feeds are placed as if all keys were: the first key that connects then has its feeds.
    """
    if not any(key.is_available for key in keys):
        keys = [KeyState(key.capacity, key.refused) for key in keys]
    places = _Places(keys, current or {})
    ranked = list(dict.fromkeys(wanted))
    chosen = _chosen(ranked, keys)
    for topic in chosen:
        places.keep(topic)
    for topic in chosen:
        places.place(topic)
    for topic in ranked:
        places.queue(topic)
    return [tuple(topic for topic in ranked if places.key_of.get(topic) == number) for number in range(len(keys))]


def _chosen(ranked: Sequence[Topic], keys: Sequence[KeyState]) -> list[Topic]:
    """Return the feeds that fit, by rank, without those that every available key refuses."""
    available = [key for key in keys if key.is_available]
    candidates = [topic for topic in ranked if any(topic not in key.refused for key in available)]
    return candidates[: sum(key.capacity for key in available)]


class _Places:
    """The free registrations of each key while feeds are placed one by one."""

    def __init__(self, keys: Sequence[KeyState], current: Mapping[Topic, int]) -> None:
        self._keys = keys
        self._current = current
        self._room = [key.capacity if key.is_available else 0 for key in keys]
        self._queued = [0] * len(keys)
        self.key_of: dict[Topic, int] = {}

    def keep(self, topic: Topic) -> None:
        """Leave a feed with the key that carries it now, if that key has room and does not refuse it."""
        number = self._current.get(topic)
        if number is not None and number in self._open_to(topic):
            self._take(topic, number)

    def place(self, topic: Topic) -> None:
        """Give a feed to the key with the most room, and our own fills to the first key with room."""
        numbers = [] if topic in self.key_of else list(self._open_to(topic))
        if numbers:
            self._take(topic, numbers[0] if topic.is_own_fills else max(numbers, key=lambda n: (self._room[n], -n)))

    def queue(self, topic: Topic) -> None:
        """Queue a feed without a place behind its current key, or behind the key with the shortest queue."""
        if topic in self.key_of:
            return
        numbers = [number for number, key in enumerate(self._keys) if key.is_available]
        current = self._current.get(topic)
        number = current if current in numbers else min(numbers, key=lambda n: self._queued[n])
        self._queued[number] += 1
        self.key_of[topic] = number

    def _open_to(self, topic: Topic) -> Iterator[int]:
        return (n for n, key in enumerate(self._keys) if self._room[n] > 0 and topic not in key.refused)

    def _take(self, topic: Topic, number: int) -> None:
        self._room[number] -= 1
        self.key_of[topic] = number
