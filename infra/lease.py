"""One holder at a time, over all processes and machines: a lease in Redis with a fencing number.

The number grows with every new holder, so whoever comes back from a long pause can be told from who
holds the lease now.
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
_GIVE_UP = """
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
        self._give_up = store.register_script(_GIVE_UP)

    @property
    def is_ours(self) -> bool:
        """Whether the last term still runs by our own clock, which goes on while a process is paused.

        No question to Redis: ask it before every act that only the holder may do.
        """
        return time.monotonic() < self._ends_at

    def take(self) -> int:
        """Return the fencing number of a new lease, 0 while another holds it. Raises redis.RedisError."""
        asked_at = time.monotonic()
        self.fence = int(self._take(keys=self._keys, args=[self.holder, int(self._seconds * 1000)]))
        if self.fence:
            self._ends_at = asked_at + self._seconds
        return self.fence

    def renew(self) -> bool:
        """Return whether the lease is still ours, for another term. Raises redis.RedisError."""
        asked_at = time.monotonic()
        renewed = bool(self._renew(keys=self._keys, args=[self.holder, int(self._seconds * 1000)]))
        self._ends_at = asked_at + self._seconds if renewed else float("-inf")
        return renewed

    def give_up(self) -> None:
        """Let the next holder in at once. Raises redis.RedisError."""
        self._ends_at = float("-inf")
        self._give_up(keys=self._keys, args=[self.holder])
