"""What we want to hear against what the server has acknowledged. No socket here.

At most 41 registrations fit into one session, all feeds together; what comes first in the wanted list
matters most, and what does not fit is left out and told.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from kis.codec import NOTICE_IDS, Control

log = logging.getLogger(__name__)

LIMIT = 41
TRIES = 3
RETRY_SECONDS = 5.0
ANSWER_SECONDS = 10.0

ALREADY_SUBSCRIBED = "OPSP0002"
NOT_SUBSCRIBED = "OPSP0003"


@dataclass(frozen=True, slots=True)
class Topic:
    """One feed of one key: a stock code, or the HTS id for notices of our own orders."""

    tr_id: str
    key: str

    def __str__(self) -> str:
        """Return it as people read it; whose account it is is nobody's business."""
        return f"{self.tr_id}:***" if self.tr_id in NOTICE_IDS else f"{self.tr_id}:{self.key}"


@dataclass(slots=True)
class _Asked:
    at: float
    tries: int


class Subscriptions:
    """The registrations of one connection. Times are seconds of a monotonic clock, passed in."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self._wanted: tuple[Topic, ...] = ()
        self._left_out: tuple[Topic, ...] = ()
        self._held: set[Topic] = set()
        self._asked: dict[Topic, _Asked] = {}
        self._releasing: set[Topic] = set()

    @property
    def held(self) -> frozenset[Topic]:
        return frozenset(self._held)

    @property
    def left_out(self) -> tuple[Topic, ...]:
        return self._left_out

    def want(self, topics: Sequence[Topic]) -> None:
        """Set what should be held, most important first."""
        unique = tuple(dict.fromkeys(topics))
        self._wanted, left_out = unique[: self._limit], unique[self._limit :]
        if left_out and left_out != self._left_out:
            log.warning(
                "%d feeds do not fit into %d registrations: %s",
                len(left_out),
                self._limit,
                ", ".join(map(str, left_out)),
            )
        self._left_out = left_out

    def reconnected(self) -> None:
        """A new connection holds nothing."""
        self._held.clear()
        self._asked.clear()
        self._releasing.clear()

    def due(self, now: float) -> list[tuple[Topic, bool]]:
        """Return what to send now: (topic, True) to register, (topic, False) to release; releases come first."""
        wanted = set(self._wanted)
        releases = [topic for topic in self._held - wanted if topic not in self._releasing]
        self._releasing.update(releases)
        room = self._limit - len(self._held) - sum(topic not in self._held for topic in self._asked)
        registers = []
        for topic in self._wanted:
            if topic in self._held:
                continue
            asked = self._asked.get(topic)
            if asked is not None and (asked.tries >= TRIES or now < asked.at):
                continue
            if asked is None:
                if room <= 0:
                    break
                room -= 1
            self._asked[topic] = _Asked(at=now + ANSWER_SECONDS, tries=asked.tries + 1 if asked else 1)
            registers.append(topic)
        return [(topic, False) for topic in releases] + [(topic, True) for topic in registers]

    def answered(self, control: Control, now: float) -> None:
        """Take in the server's reply to a registration or a release."""
        topic = Topic(control.tr_id, control.tr_key)
        if topic in self._releasing and (control.is_ok or control.code == NOT_SUBSCRIBED):
            self._releasing.discard(topic)
            self._held.discard(topic)
        elif control.is_ok or control.code == ALREADY_SUBSCRIBED:
            self._asked.pop(topic, None)
            self._held.add(topic)
        elif topic in self._asked:
            asked = self._asked[topic]
            asked.at = now + RETRY_SECONDS * asked.tries
            level = logging.ERROR if asked.tries >= TRIES else logging.WARNING
            log.log(level, "registration of %s refused: %s %s", topic, control.code, control.words)
