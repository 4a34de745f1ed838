"""One holder at a time, over all processes and machines: a lease in Redis with a fencing number.

The number grows with every new holder, so whoever comes back from a long pause can be told from who
holds the lease now.
"""

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
        self._holder = uuid.uuid4().hex
        self._keys = [key, f"{key}:fence"]
        self._milliseconds = int(seconds * 1000)
        self._take = store.register_script(_TAKE)
        self._renew = store.register_script(_RENEW)
        self._give_up = store.register_script(_GIVE_UP)

    def take(self) -> int:
        """Return the fencing number of a new lease, 0 while another holds it. Raises redis.RedisError."""
        return int(self._take(keys=self._keys, args=[self._holder, self._milliseconds]))

    def renew(self) -> bool:
        """Return whether the lease is still ours, for another term. Raises redis.RedisError."""
        return bool(self._renew(keys=self._keys, args=[self._holder, self._milliseconds]))

    def give_up(self) -> None:
        """Let the next holder in at once. Raises redis.RedisError."""
        self._give_up(keys=self._keys, args=[self._holder])
