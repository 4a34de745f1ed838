"""Stale feed detection: a connection that answers PINGPONG but has no data while the market trades. Pure; seconds.

The usual rate of each feed in each phase is learned, so a thin stock, a quiet hour or a closed market causes no alarm:
a silence counts only if at least MISSED_FRAMES expected frames are missing, more than chance explains.
"""

import math
from collections.abc import Iterable, Mapping

from kis.subscriptions import Topic

# expected frames that must be missing before a silence counts; high because trades come in bursts
MISSED_FRAMES = 100
LEAST_SECONDS = 30.0
# with fewer topics than this, a volatility interruption (VI) may silence all of them for two minutes
FEW_TOPICS = 3
FEW_SECONDS = 180.0
# the time constant of the moving average that gives the usual rate
MEMORY_SECONDS = 300.0
# the silence that is accepted doubles after each new connection without data, this often at most
MOST_DOUBLINGS = 5
# how often a feed that is silent alone is registered again before its silence is accepted
MOST_RENEWALS = 2


def max_silence_seconds(rates: Iterable[float], failed_attempts: int = 0) -> float:
    """Return the seconds for which feeds with these rates, in frames per second, may all be silent together.

    `failed_attempts` is the number of new connections, or registrations, that brought no data either. Infinity if no
    rate is above zero.
    """
    active_rates = [rate for rate in rates if rate > 0]
    if not active_rates:
        return math.inf
    least_seconds = LEAST_SECONDS if len(active_rates) >= FEW_TOPICS else FEW_SECONDS
    return float(max(least_seconds, MISSED_FRAMES / sum(active_rates)) * 2 ** min(failed_attempts, MOST_DOUBLINGS))


class FeedRates:
    """The frame rate of each feed in each phase of the day, kept across connections.

    `known_rates` has the frames per second of feeds with a known, steady rate. It is used until a rate is learned.
    """

    def __init__(self, known_rates: Mapping[Topic, float] | None = None) -> None:
        self._known_rates = known_rates or {}
        self._rates: dict[tuple[Topic, str], float] = {}
        self._learned_at = 0.0
        self._last_data_at = 0.0
        self._expected: frozenset[tuple[Topic, str]] = frozenset()
        self._dead_connections = 0
        self._last_frame_at: dict[Topic, float] = {}
        self._renewals: dict[Topic, int] = {}

    def restart(self, now: float) -> None:
        """Restart all silences at a new connection."""
        self._learned_at = self._last_data_at = now
        self._last_frame_at.clear()

    def detect_dead_connection(self, now: float, counts: Mapping[Topic, int], expected: Mapping[Topic, str]) -> bool:
        """Take the number of frames of each feed since the last call, and return whether the connection is dead.

        `expected` has the registered feeds whose market matches orders continuously at present, each with the name of
        its phase. A stock that is halted or in an auction is not among them.
        """
        feeds = frozenset(expected.items())
        if not feeds & self._expected:
            # a phase starts: no data was expected until now
            self._learned_at = self._last_data_at = now
        self._last_frame_at.update({topic: now for topic, _ in feeds - self._expected})
        self._expected = feeds
        if any(counts.get(topic) for topic in expected):
            self._learn(now, counts)
            self._dead_connections = 0
        elif now - self._last_data_at > max_silence_seconds(map(self._rate, feeds), self._dead_connections):
            self._dead_connections += 1
            return True
        return False

    def detect_silent_feeds(self, now: float) -> list[Topic]:
        """Return the feeds that are silent while others are not, each MOST_RENEWALS times at most until its next frame.

        The usual rate of a silent feed decays while the others have data, so only a sudden silence counts.
        """
        silent = []
        for feed in self._expected:
            topic, renewals = feed[0], self._renewals.get(feed[0], 0)
            silent_since = self._last_frame_at.setdefault(topic, now)
            if renewals < MOST_RENEWALS and now - silent_since > max_silence_seconds([self._rate(feed)], renewals):
                self._renewals[topic], self._last_frame_at[topic] = renewals + 1, now
                silent.append(topic)
        return silent

    def _rate(self, feed: tuple[Topic, str]) -> float:
        return self._rates.get(feed, self._known_rates.get(feed[0], 0.0))

    def _learn(self, now: float, counts: Mapping[Topic, int]) -> None:
        """Move the usual rates towards the current ones. Nothing is learned while all feeds are silent."""
        elapsed = max(now - self._learned_at, 0.001)
        weight = 1 - math.exp(-elapsed / MEMORY_SECONDS)
        for feed in self._expected:
            rate = self._rate(feed)
            count = counts.get(feed[0], 0)
            self._rates[feed] = rate + weight * (count / elapsed - rate)
            if count:
                self._last_frame_at[feed[0]] = now
                self._renewals.pop(feed[0], None)
        self._learned_at = self._last_data_at = now
