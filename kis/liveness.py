"""When a connection that still echoes has gone deaf: no data while the market trades. Pure; seconds of any clock.

What is usual is learned, feed by feed and phase by phase, so that a thin stock, a quiet hour or a closed
market alarm nobody: a silence counts only where so many frames should have come that it cannot be chance.
"""

import math
from collections.abc import Iterable, Mapping

from kis.subscriptions import Topic

# so many frames must be missing; trades come in bursts, so it is far more than chance alone would ask for
MISSED_FRAMES = 100
LEAST_SECONDS = 30.0
# of one or two stocks alone all may be stopped for two minutes by a volatility interruption (VI)
FEW_TOPICS = 3
FEW_SECONDS = 180.0
# how far back "usual" looks
MEMORY_SECONDS = 300.0
# each time that a new connection changed nothing the patience doubles, so often
MOST_DOUBLINGS = 5
# how often a feed that is silent alone is registered anew before it is believed
MOST_RENEWALS = 2


def patience(rates: Iterable[float], fruitless: int = 0) -> float:
    """Return for how many seconds feeds that speak so many times a second may all be silent together.

    `fruitless` counts the new connections that heard nothing either. Infinity where none is known to speak.
    """
    lively = [rate for rate in rates if rate > 0]
    if not lively:
        return math.inf
    least = LEAST_SECONDS if len(lively) >= FEW_TOPICS else FEW_SECONDS
    return float(max(least, MISSED_FRAMES / sum(lively)) * 2 ** min(fruitless, MOST_DOUBLINGS))


class FeedRates:
    """How often each feed speaks in each phase of the day, kept over connections.

    `usual` gives the frames a second of feeds that are known to speak steadily, before they are heard.
    """

    def __init__(self, usual: Mapping[Topic, float] | None = None) -> None:
        self._usual = usual or {}
        self._rates: dict[tuple[Topic, str], float] = {}
        self._looked_at = 0.0
        self._heard_at = 0.0
        self._speaking: frozenset[tuple[Topic, str]] = frozenset()
        self._fruitless = 0
        self._last: dict[Topic, float] = {}
        self._renewals: dict[Topic, int] = {}

    def connected(self, now: float) -> None:
        """Begin to listen anew."""
        self._looked_at = self._heard_at = now
        self._last.clear()

    def is_deaf(self, now: float, counts: Mapping[Topic, int], speaking: Mapping[Topic, str]) -> bool:
        """Take in the frames of each feed since the last look, and say whether the connection is deaf.

        `speaking` are the registered feeds whose market matches orders continuously at present, each with
        the name of its phase: a stock that is halted, or in an auction, is not among them.
        """
        expected = frozenset(speaking.items())
        if not expected & self._speaking:
            # a phase begins: what was silent until now had nothing to say
            self._looked_at = self._heard_at = now
        self._last.update({topic: now for topic, _ in expected - self._speaking})
        self._speaking = expected
        if any(counts.get(topic) for topic in speaking):
            self._learn(now, counts)
            self._fruitless = 0
        elif now - self._heard_at > patience(map(self._rate, expected), self._fruitless):
            self._fruitless += 1
            return True
        return False

    def mute(self, now: float) -> list[Topic]:
        """Return the lively feeds that alone have fallen silent, each a few times at most until it is heard again.

        What is usual of them fades while the others speak, so that only a sudden silence counts.
        """
        mute = []
        for voice in self._speaking:
            topic, renewals = voice[0], self._renewals.get(voice[0], 0)
            since = self._last.setdefault(topic, now)
            if renewals < MOST_RENEWALS and now - since > patience([self._rate(voice)], renewals):
                self._renewals[topic], self._last[topic] = renewals + 1, now
                mute.append(topic)
        return mute

    def _rate(self, voice: tuple[Topic, str]) -> float:
        return self._rates.get(voice, self._usual.get(voice[0], 0.0))

    def _learn(self, now: float, counts: Mapping[Topic, int]) -> None:
        """Move what is usual towards what was just heard. During a silence of all nothing is learned."""
        elapsed = max(now - self._looked_at, 0.001)
        weight = 1 - math.exp(-elapsed / MEMORY_SECONDS)
        for voice in self._speaking:
            rate = self._rate(voice)
            count = counts.get(voice[0], 0)
            self._rates[voice] = rate + weight * (count / elapsed - rate)
            if count:
                self._last[voice[0]] = now
                self._renewals.pop(voice[0], None)
        self._looked_at = self._heard_at = now
