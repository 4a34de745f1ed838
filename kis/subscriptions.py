"""What we want to hear against what the server has acknowledged. No socket here.

At most 41 registrations fit into one session, all feeds together; what comes first in the wanted list
matters most, and what does not fit is left out and told. A refused one is tried again a few times and
then makes room; our own fills are asked for without end. Where the server says that it has no more room it
is believed, and one more is tried each minute. A release without an answer is repeated a few times and then
taken as done: if the server holds the registration all the same, the next one says so (OPSP0002).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from kis.codec import NOTICE_IDS, PRIVATE_IDS, ControlMessage

log = logging.getLogger(__name__)

LIMIT = 41
TRIES = 3
RETRY_SECONDS = 5.0
# how often the most important of all is asked for once it was refused so many times
STUBBORN_SECONDS = 60.0
ANSWER_SECONDS = 10.0
# how long "no more room" is believed before one registration more is tried
ROOM_SECONDS = 60.0
# the broker's own samples leave 0.05 to 0.1 s between two requests
PACE_SECONDS = 0.1

RELEASED = "OPSP0001"
ALREADY_SUBSCRIBED = "OPSP0002"
NOT_SUBSCRIBED = "OPSP0003"
NO_MORE_ROOM = "OPSP0008"


@dataclass(frozen=True, slots=True)
class Topic:
    """One feed of one key: a stock code, or the HTS id for notices of our own orders."""

    tr_id: str
    key: str

    def __str__(self) -> str:
        """Return it as people read it; whose account it is is nobody's business."""
        return f"{self.tr_id}:***" if self.tr_id in PRIVATE_IDS else f"{self.tr_id}:{self.key}"

    @property
    def is_own_fills(self) -> bool:
        return self.tr_id in NOTICE_IDS


@dataclass(slots=True)
class _Asked:
    at: float
    tries: int
    refusal: str = ""

    @property
    def is_in_flight(self) -> bool:
        """Whether a registration was sent and may still be answered."""
        return self.tries > 0 and not self.refusal


@dataclass(slots=True)
class _Release:
    """A release: when it is sent next, and how often it was."""

    at: float = float("-inf")
    tries: int = 0


class Subscriptions:
    """The registrations of one connection. Times are seconds of a monotonic clock, passed in."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._most = self._limit = self._told_limit = limit
        self._is_trying = False  # one registration more than the limit
        self._try_at = float("inf")
        self._wanted: tuple[Topic, ...] = ()
        self._left_out: tuple[Topic, ...] = ()
        self._told_left_out: tuple[Topic, ...] = ()
        self._held: set[Topic] = set()
        self._asked: dict[Topic, _Asked] = {}
        self._releasing: dict[Topic, _Release] = {}
        self._next_at = float("-inf")

    @property
    def held(self) -> frozenset[Topic]:
        return frozenset(self._held)

    @property
    def left_out(self) -> tuple[Topic, ...]:
        return self._left_out

    @property
    def limit(self) -> int:
        """Return how many registrations the server takes, as far as is known."""
        return self._limit

    @property
    def occupied(self) -> frozenset[Topic]:
        """Return what the server may hold: registered, asked for, or not yet released."""
        asked = [topic for topic, asked in list(self._asked.items()) if asked.is_in_flight]
        return frozenset([*list(self._held), *asked, *list(self._releasing)])

    @property
    def given_up(self) -> frozenset[Topic]:
        """Return what the server refused so often that another app key should be tried, our own fills included."""
        asked = list(self._asked.items())
        return frozenset(topic for topic, each in asked if each.refusal and each.tries >= TRIES)

    @property
    def refused(self) -> dict[Topic, str]:
        """Return what the server refused, with its words."""
        return {topic: asked.refusal for topic, asked in list(self._asked.items()) if asked.refusal}

    def want(self, topics: Sequence[Topic]) -> None:
        """Set what should be held, most important first."""
        self._wanted = tuple(dict.fromkeys(topics))
        wanted = set(self._wanted)
        for topic in [topic for topic in self._asked if topic not in wanted]:
            if self._asked.pop(topic).is_in_flight:
                # the server may hold it by now: it is released as if it did
                self._releasing[topic] = _Release()
        self._active()

    def reconnected(self) -> None:
        """Forget what was held and asked for: a connection ended or begins, and the server may have room again."""
        self._held.clear()
        self._asked.clear()
        self._releasing.clear()
        self._limit = self._most
        self._is_trying = False
        self._next_at = float("-inf")

    def resubscribe(self, topic: Topic) -> None:
        """Let go of a topic and ask for it again: its key is no longer the one we know."""
        if topic in self._held:
            self._held.discard(topic)
            self._asked.pop(topic, None)
            self._releasing[topic] = _Release()

    def due(self, now: float) -> tuple[Topic, bool] | None:
        """Return what to send now: (topic, True) to register, (topic, False) to release, or None.

        Requests keep the broker's pace. Releases come first, as they make room.
        """
        if now < self._next_at:
            return None
        if self._left_out and self._limit < self._most and now >= self._try_at:
            self._is_trying = True
        active = self._active()
        request = self._due_release(set(active), now) or self._due_register(active, now)
        if request:
            self._next_at = now + PACE_SECONDS
        return request

    def _active(self) -> tuple[Topic, ...]:
        """Return the wanted topics that fit; tell, once, of those that do not."""
        hopeful = [topic for topic in self._wanted if not self._is_given_up(topic)]
        left_out = tuple(hopeful[self._limit :])
        if left_out and left_out != self._told_left_out:
            names = ", ".join(map(str, left_out))
            log.warning("%d feeds do not fit into %d registrations: %s", len(left_out), self._limit, names)
            self._told_left_out = left_out
        self._left_out = left_out
        return tuple(hopeful[: self._room])

    @property
    def _room(self) -> int:
        return min(self._most, self._limit + self._is_trying)

    def _is_given_up(self, topic: Topic) -> bool:
        asked = self._asked.get(topic)
        return asked is not None and asked.tries >= TRIES and bool(asked.refusal) and not topic.is_own_fills

    def _due_release(self, active: set[Topic], now: float) -> tuple[Topic, bool] | None:
        for topic in self._held - active:
            self._releasing.setdefault(topic, _Release())
        for topic, release in list(self._releasing.items()):
            if now < release.at:
                continue
            if release.tries >= TRIES:
                self._presume_released(topic)
                continue
            release.tries += 1
            release.at = now + ANSWER_SECONDS
            return topic, False
        return None

    def _presume_released(self, topic: Topic) -> None:
        """Stop waiting for the answer to a release: it must not keep the topic out."""
        log.warning("no answer to %d releases of %s: it is taken as released", TRIES, topic)
        del self._releasing[topic]
        self._held.discard(topic)

    def _due_register(self, active: tuple[Topic, ...], now: float) -> tuple[Topic, bool] | None:
        taken = self._held | self._releasing.keys() | {t for t in self._asked if not self._is_given_up(t)}
        for topic in active:
            asked = self._asked.get(topic)
            if topic in self._held or topic in self._releasing or (asked is not None and now < asked.at):
                continue
            if asked is None:
                if len(taken) >= self._room:
                    return None
                asked = self._asked[topic] = _Asked(at=now, tries=0)
            if asked.tries >= TRIES and not topic.is_own_fills:
                # the server never answered: it makes room as if it had refused
                asked.refusal = asked.refusal or "no answer"
                continue
            asked.tries += 1
            asked.at = now + ANSWER_SECONDS
            return topic, True
        return None

    def answered(self, control: ControlMessage, now: float) -> Topic | None:
        """Take in the server's reply to a registration or a release; return the topic that is held since now."""
        topic = Topic(control.tr_id, control.tr_key)
        if control.code in (RELEASED, NOT_SUBSCRIBED):
            self._released(topic)
        elif topic in self._releasing:
            pass  # the answer to a registration that is no longer wanted; that to its release follows
        elif control.is_ok or control.code == ALREADY_SUBSCRIBED:
            self._asked.pop(topic, None)
            is_new = topic not in self._held
            self._held.add(topic)
            self._limit = max(self._limit, min(self._most, len(self._held)))
            return topic if is_new else None
        elif control.code == NO_MORE_ROOM and topic in self._asked:
            self._no_more_room(topic, control, now)
        elif topic in self._asked:
            self._refused(topic, control, now)
        elif not control.is_ok:
            # as for a stock that is none: which one is seen when its registration stays without an answer
            log.warning("the server refuses without naming a registration: %s %s", control.code, control.words)
        return None

    def _released(self, topic: Topic) -> None:
        """Note that the server does not hold a topic. A late answer, after it was asked for again, says nothing."""
        if self._releasing.pop(topic, None) is not None or topic not in self._asked:
            self._held.discard(topic)

    def _no_more_room(self, topic: Topic, control: ControlMessage, now: float) -> None:
        """Believe the server, for a while, that it takes no more; the least important make room for the others."""
        del self._asked[topic]
        self._limit = max(1, len(self._held | self._releasing.keys()))
        if self._limit != self._told_limit:
            log.warning("the server takes %d registrations and no more: %s", self._limit, control.words)
            self._told_limit = self._limit
        self._is_trying, self._try_at = False, now + ROOM_SECONDS
        self._next_at = now + RETRY_SECONDS
        self._active()

    def _refused(self, topic: Topic, control: ControlMessage, now: float) -> None:
        asked = self._asked[topic]
        is_last = asked.tries >= TRIES
        asked.refusal = f"{control.code} {control.words}".strip()
        asked.at = now + (STUBBORN_SECONDS if is_last else RETRY_SECONDS * asked.tries)
        if topic.is_own_fills:
            log.critical("the notices of our own fills are refused, fills are seen late: %s", asked.refusal)
        else:
            log.log(logging.ERROR if is_last else logging.WARNING, "%s refused: %s", topic, asked.refusal)
