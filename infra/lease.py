"""A lease in Redis with a fencing number: one holder at a time among all processes and machines.

The number grows with every new holder, so a process that resumes after a long pause differs from the
present holder.
"""

import time
import uuid

import redis

# KEYS[1] the lease, KEYS[2] the fencing counter; ARGV: holder, milliseconds
_TAKE = """
if redis.call('SET', KEYS[1], ARGV[1], 'NX', 'PX', ARGV[2]) then return redis.call('INCR', KEYS[2]) end
return 0
"""
_RENEW = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
return 0
"""
_RELEASE = """
if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0
"""


class Lease:
    """The right to do something alone for `seconds`, renewed while it is done."""

    def __init__(self, store: redis.Redis, key: str, seconds: float) -> None:
        self.holder = uuid.uuid4().hex
        self.fence = 0
        self._keys = [key, f"{key}:fence"]
        self._seconds = seconds
        self._ends_at = float("-inf")
        self._take = store.register_script(_TAKE)
        self._renew = store.register_script(_RENEW)
        self._give_up = store.register_script(_RELEASE)

    @property
    def is_ours(self) -> bool:
        """Whether the lease has not expired by our own clock, which continues while a process is paused.

        It does not call Redis. Check it before every action that only the holder may take.
        """
        return time.monotonic() < self._ends_at

    def take(self) -> int:
        """Take the lease; return its fencing number, 0 if another process holds it. Raises redis.RedisError."""
        started_at = time.monotonic()
        self.fence = int(self._take(keys=self._keys, args=[self.holder, int(self._seconds * 1000)]))
        if self.fence:
            self._ends_at = started_at + self._seconds
        return self.fence

    def renew(self) -> bool:
        """Extend the lease by `seconds`; return whether it is still ours. Raises redis.RedisError."""
        started_at = time.monotonic()
        is_renewed = bool(self._renew(keys=self._keys, args=[self.holder, int(self._seconds * 1000)]))
        self._ends_at = started_at + self._seconds if is_renewed else float("-inf")
        return is_renewed

    def release(self) -> None:
        """End the lease, so that another process may take it immediately. Raises redis.RedisError."""
        self._ends_at = float("-inf")
        self._give_up(keys=self._keys, args=[self.holder])
