"""Compares the wanted feeds with those that the server has acknowledged, and decides what to send. No socket here.

One session takes 41 registrations at most, all feeds together. The wanted list starts with the most important feed:
our own fills, then the stocks with stops, with open orders, held, for reference, watched, with stops on a second
venue; then order books, market states, program trades, indices and others; last the trades of closed venues
(`stream.consumers.SubscriptionPriority`). Feeds that do not fit are dropped from the end of the list and logged.

A refused registration is tried again TRIES times and then makes room; our own fills are tried without end. If the
server reports that it has no more room, the limit is lowered, and one more registration is tried each minute. A
release without an answer is repeated TRIES times and then taken as done: if the server still holds the registration,
the next registration is answered with OPSP0002.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from kis.codec import NOTICE_IDS, PRIVATE_IDS, ControlMessage

log = logging.getLogger(__name__)

LIMIT = 41
TRIES = 3
RETRY_SECONDS = 5.0
# the interval at which our own fills are tried again after TRIES refusals
OWN_FILLS_RETRY_SECONDS = 60.0
ANSWER_SECONDS = 10.0
# how long the limit stays lowered after "no more room", before one more registration is tried
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
        """Return the topic as `TR:key`, without the key if that identifies the account."""
        return f"{self.tr_id}:***" if self.tr_id in PRIVATE_IDS else f"{self.tr_id}:{self.key}"

    @property
    def is_own_fills(self) -> bool:
        return self.tr_id in NOTICE_IDS


@dataclass(slots=True)
class _Attempt:
    """A registration: when it is sent next, how often it was sent, and the server's last refusal."""

    at: float
    tries: int
    refusal: str = ""

    @property
    def is_in_flight(self) -> bool:
        """Whether the registration was sent and may still be answered."""
        return self.tries > 0 and not self.refusal


@dataclass(slots=True)
class _Release:
    """A release: when it is sent next, and how often it was sent."""

    at: float = float("-inf")
    tries: int = 0


class Subscriptions:
    """The registrations of one connection. Callers pass the time, in seconds of a monotonic clock."""

    def __init__(self, limit: int = LIMIT) -> None:
        self._most = self._limit = self._logged_limit = limit
        self._is_trying = False  # whether one registration above the limit is tried
        self._try_at = float("inf")
        self._wanted: tuple[Topic, ...] = ()
        self._left_out: tuple[Topic, ...] = ()
        self._logged_left_out: tuple[Topic, ...] = ()
        self._held: set[Topic] = set()
        self._attempts: dict[Topic, _Attempt] = {}
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
        """Return how many registrations the server accepts, as far as known."""
        return self._limit

    @property
    def occupied(self) -> frozenset[Topic]:
        """Return the topics that the server may hold: registered, requested, or not yet released."""
        requested = [topic for topic, attempt in list(self._attempts.items()) if attempt.is_in_flight]
        return frozenset([*list(self._held), *requested, *list(self._releasing)])

    @property
    def exhausted(self) -> frozenset[Topic]:
        """Return the topics refused so often that another app key should be tried, our own fills included."""
        attempts = list(self._attempts.items())
        return frozenset(topic for topic, attempt in attempts if attempt.refusal and attempt.tries >= TRIES)

    @property
    def refused(self) -> dict[Topic, str]:
        """Return the topics that the server refused, with its message."""
        return {topic: attempt.refusal for topic, attempt in list(self._attempts.items()) if attempt.refusal}

    def set_wanted(self, topics: Sequence[Topic]) -> None:
        """Set the topics that should be held, most important first."""
        self._wanted = tuple(dict.fromkeys(topics))
        wanted = set(self._wanted)
        for topic in [topic for topic in self._attempts if topic not in wanted]:
            if self._attempts.pop(topic).is_in_flight:
                # the server may hold it by now, so it is released
                self._releasing[topic] = _Release()
        self._active()

    def clear(self) -> None:
        """Clear all registrations: a connection ended or starts, and the server may have room again."""
        self._held.clear()
        self._attempts.clear()
        self._releasing.clear()
        self._limit = self._most
        self._is_trying = False
        self._next_at = float("-inf")

    def resubscribe(self, topic: Topic) -> None:
        """Release a held topic and register it again, for example to get a new AES key."""
        if topic in self._held:
            self._held.discard(topic)
            self._attempts.pop(topic, None)
            self._releasing[topic] = _Release()

    def take_next_request(self, now: float) -> tuple[Topic, bool] | None:
        """Return what to send now: (topic, True) to register, (topic, False) to release, or None.

        Requests are PACE_SECONDS apart. Releases are sent first, because they make room.
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
        """Return the wanted topics that fit. Log those that do not, once per change."""
        candidates = [topic for topic in self._wanted if not self._is_exhausted(topic)]
        left_out = tuple(candidates[self._limit :])
        if left_out and left_out != self._logged_left_out:
            names = ", ".join(map(str, left_out))
            log.warning("%d feeds do not fit into %d registrations: %s", len(left_out), self._limit, names)
            self._logged_left_out = left_out
        self._left_out = left_out
        return tuple(candidates[: self._room])

    @property
    def _room(self) -> int:
        return min(self._most, self._limit + self._is_trying)

    def _is_exhausted(self, topic: Topic) -> bool:
        attempt = self._attempts.get(topic)
        return attempt is not None and attempt.tries >= TRIES and bool(attempt.refusal) and not topic.is_own_fills

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
        """Stop waiting for the answer to a release, so that the topic can be registered again."""
        log.warning("no answer to %d releases of %s: it is taken as released", TRIES, topic)
        del self._releasing[topic]
        self._held.discard(topic)

    def _due_register(self, active: tuple[Topic, ...], now: float) -> tuple[Topic, bool] | None:
        occupied = self._held | self._releasing.keys() | {t for t in self._attempts if not self._is_exhausted(t)}
        for topic in active:
            attempt = self._attempts.get(topic)
            if topic in self._held or topic in self._releasing or (attempt is not None and now < attempt.at):
                continue
            if attempt is None:
                if len(occupied) >= self._room:
                    return None
                attempt = self._attempts[topic] = _Attempt(at=now, tries=0)
            if attempt.tries >= TRIES and not topic.is_own_fills:
                # the server never answered: the topic makes room as if it had been refused
                attempt.refusal = attempt.refusal or "no answer"
                continue
            attempt.tries += 1
            attempt.at = now + ANSWER_SECONDS
            return topic, True
        return None

    def handle_reply(self, control: ControlMessage, now: float) -> Topic | None:
        """Handle the server's reply to a registration or a release. Return a topic that is newly held, else None."""
        topic = Topic(control.tr_id, control.tr_key)
        if control.code in (RELEASED, NOT_SUBSCRIBED):
            self._record_released(topic)
        elif topic in self._releasing:
            pass  # the answer to a registration that is no longer wanted; the answer to its release follows
        elif control.is_ok or control.code == ALREADY_SUBSCRIBED:
            self._attempts.pop(topic, None)
            is_new = topic not in self._held
            self._held.add(topic)
            self._limit = max(self._limit, min(self._most, len(self._held)))
            return topic if is_new else None
        elif control.code == NO_MORE_ROOM and topic in self._attempts:
            self._lower_limit(topic, control, now)
        elif topic in self._attempts:
            self._record_refused(topic, control, now)
        elif not control.is_ok:
            # for example an unknown stock code: its registration stays without an answer, which shows which one it is
            log.warning("the server refuses without naming a registration: %s %s", control.code, control.message)
        return None

    def _record_released(self, topic: Topic) -> None:
        """Record that the server does not hold a topic. A late answer is ignored if the topic is requested again."""
        if self._releasing.pop(topic, None) is not None or topic not in self._attempts:
            self._held.discard(topic)

    def _lower_limit(self, topic: Topic, control: ControlMessage, now: float) -> None:
        """Lower the limit to what the server holds; the least important topics make room. Try more in ROOM_SECONDS."""
        del self._attempts[topic]
        self._limit = max(1, len(self._held | self._releasing.keys()))
        if self._limit != self._logged_limit:
            log.warning("the server accepts only %d registrations: %s", self._limit, control.message)
            self._logged_limit = self._limit
        self._is_trying, self._try_at = False, now + ROOM_SECONDS
        self._next_at = now + RETRY_SECONDS
        self._active()

    def _record_refused(self, topic: Topic, control: ControlMessage, now: float) -> None:
        attempt = self._attempts[topic]
        is_last = attempt.tries >= TRIES
        attempt.refusal = f"{control.code} {control.message}".strip()
        attempt.at = now + (OWN_FILLS_RETRY_SECONDS if is_last else RETRY_SECONDS * attempt.tries)
        if topic.is_own_fills:
            log.critical("the notices of our own fills are refused, fills are seen late: %s", attempt.refusal)
        else:
            log.log(logging.ERROR if is_last else logging.WARNING, "%s refused: %s", topic, attempt.refusal)
