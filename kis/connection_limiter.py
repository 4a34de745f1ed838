"""What lets a connection through the broker's door: a ceiling on attempts, and the approval key (접속키).

Both are one per app key, over all processes and machines, in Redis. Endless connecting gets a key
blocked (protocol notes §7), and a crashing process forgets its own patience: the ceiling does not. The
approval key is valid for a day; issuing another closes nothing, and is allowed once a second.
"""

import logging
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import redis

from aegis.broker import NotSent

log = logging.getLogger(__name__)

# (window in seconds, attempts at most). The broker names no figure; the pauses of a patient client stay below
CEILINGS = ((60.0, 6), (600.0, 24))
APPROVAL_SECONDS = 23 * 3600
ISSUE_SECONDS = 30.0


def wait_seconds(attempts: Iterable[float], now: float) -> float:
    """Return how long to wait before one more attempt stays below every ceiling; 0 for none. Pure."""
    made = sorted(attempts)
    waits = [made[-most] + window - now for window, most in CEILINGS if len(made) >= most]
    return max(0.0, *waits, 0.0)


class ConnectionLimiter:
    """The broker's socket door for one app key. `issue` asks the broker for an approval key."""

    def __init__(self, store: redis.Redis, key: str, issue: Callable[[], str]) -> None:
        self._store = store
        self._attempts = f"{key}:attempts"
        self._approval = f"{key}:approval"
        self._issue = issue

    def acquire(self) -> float:
        """Return 0 and count an attempt, or how many seconds are to be waited first. Raises NotSent.

        The lease lets one process at a time come here.
        """
        longest = max(window for window, _ in CEILINGS)
        try:
            now = self._now()
            self._store.zremrangebyscore(self._attempts, "-inf", now - longest)
            scored: Any = self._store.zrange(self._attempts, 0, -1, withscores=True)
            made = [float(at) for _, at in scored]
            if wait := wait_seconds(made, now):
                return wait
            self._store.zadd(self._attempts, {uuid.uuid4().hex: now})
            self._store.expire(self._attempts, int(longest))
        except redis.RedisError as error:
            raise NotSent(f"Redis is not reachable, and without it nobody may connect: {error}") from error
        return 0.0

    def approval_key(self) -> str:
        """Return the key that opens a socket, the shared one where there is one. Raises BrokerError."""
        try:
            with self._store.lock(f"{self._approval}:lock", timeout=ISSUE_SECONDS, blocking_timeout=ISSUE_SECONDS):
                shared = self._store.get(self._approval)
                if shared is not None:
                    return shared.decode() if isinstance(shared, bytes) else str(shared)
                value = self._issue()
                self._store.set(self._approval, value, ex=APPROVAL_SECONDS)
                return value
        except redis.RedisError as error:
            raise NotSent(f"Redis is not reachable, and without it nobody may connect: {error}") from error

    def invalidate(self, value: str) -> None:
        """Note that the broker does not know this key: the next caller has a new one issued. Raises NotSent."""
        log.warning("the broker refused the approval key; a new one will be asked for")
        try:
            shared = self._store.get(self._approval)
            if shared is not None and (shared.decode() if isinstance(shared, bytes) else str(shared)) == value:
                self._store.delete(self._approval)
        except redis.RedisError as error:
            raise NotSent(f"Redis is not reachable: {error}") from error

    def _now(self) -> float:
        seconds, micros = self._store.time()
        return float(seconds) + float(micros) / 1_000_000
