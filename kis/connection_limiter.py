"""A ceiling on attempts to open the broker's WebSocket, and the approval key (접속키).

Both exist once per app key and are shared by all processes and machines through Redis. The broker blocks a key that
connects endlessly (protocol notes §7). A process that crashes loses its own back-off; the ceiling in Redis stays. The
approval key is valid for a day. Issuing another one closes no connection, and is allowed once a second.
"""

import logging
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import redis

from aegis.broker import NotSent

log = logging.getLogger(__name__)

# (window in seconds, most attempts in it). The broker gives no figure; the back-off of `Stream` stays below these
CEILINGS = ((60.0, 6), (600.0, 24))
APPROVAL_SECONDS = 23 * 3600
ISSUE_SECONDS = 30.0


def wait_seconds(attempts: Iterable[float], now: float) -> float:
    """Return the seconds to wait until one more attempt stays below every ceiling, 0 if it already does. Pure."""
    times = sorted(attempts)
    waits = [times[-most] + window - now for window, most in CEILINGS if len(times) >= most]
    return max(0.0, *waits, 0.0)


class ConnectionLimiter:
    """The connection limiter of one app key. `issue` requests an approval key from the broker."""

    def __init__(self, store: redis.Redis, key: str, issue: Callable[[], str]) -> None:
        self._store = store
        self._attempts = f"{key}:attempts"
        self._approval = f"{key}:approval"
        self._issue = issue

    def acquire(self) -> float:
        """Count an attempt and return 0, or return the seconds to wait first. Raises NotSent.

        Only the process that holds the socket's lease calls this, so read and write need no lock.
        """
        longest = max(window for window, _ in CEILINGS)
        try:
            now = self._now()
            self._store.zremrangebyscore(self._attempts, "-inf", now - longest)
            entries: Any = self._store.zrange(self._attempts, 0, -1, withscores=True)
            attempts = [float(at) for _, at in entries]
            if wait := wait_seconds(attempts, now):
                return wait
            self._store.zadd(self._attempts, {uuid.uuid4().hex: now})
            self._store.expire(self._attempts, int(longest))
        except redis.RedisError as error:
            raise NotSent(f"Redis is not reachable, and without it nobody may connect: {error}") from error
        return 0.0

    def approval_key(self) -> str:
        """Return the key that opens a socket: the shared one, or a new one if there is none. Raises BrokerError."""
        try:
            # the lock may end during a slow issue: the key that was issued counts
            with self._store.lock(
                f"{self._approval}:lock",
                timeout=ISSUE_SECONDS,
                blocking_timeout=ISSUE_SECONDS,
                raise_on_release_error=False,
            ):
                shared = self._store.get(self._approval)
                if shared is not None:
                    return shared.decode() if isinstance(shared, bytes) else str(shared)
                value = self._issue()
                self._store.set(self._approval, value, ex=APPROVAL_SECONDS)
                return value
        except redis.RedisError as error:
            raise NotSent(f"Redis is not reachable, and without it nobody may connect: {error}") from error

    def invalidate(self, value: str) -> None:
        """Delete the shared key if it is `value`, which the broker refused: the next caller issues a new one.

        Raises NotSent.
        """
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
