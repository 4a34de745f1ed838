"""One allowance of calls for all processes and machines, kept in Redis; the only place that sleeps.

Every call holds a slot from before it leaves until one second after its answer, by Redis's clock. The
broker cannot have seen it later than that, so no sliding second ever holds more calls than slots,
whatever the network does. A slot of a process that died comes back when its lease ends.
"""

import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import redis

from aegis.broker import NotSent
from kis.catalogue import Urgency

WINDOW_MS = 1_000
LEASE_MS = 30_000

# KEYS[1] slots in use, scored by the moment they come back; KEYS[2] set while the broker wants us slower
# ARGV: slots for this class of call, slot id, lease in ms, reduced slots while slowed
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local limit = tonumber(ARGV[1])
if redis.call('EXISTS', KEYS[2]) == 1 then limit = math.min(limit, tonumber(ARGV[4])) end
local used = redis.call('ZCARD', KEYS[1])
if used < limit then
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[3]), ARGV[2])
    redis.call('PEXPIRE', KEYS[1], ARGV[3] * 2)
    return 0
end
local first = redis.call('ZRANGE', KEYS[1], used - limit, used - limit, 'WITHSCORES')
return math.max(1, math.min(tonumber(first[2]) - now, 1000))
"""
_GIVE_BACK = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[2]), ARGV[1])
"""

# how many slots a class leaves to its betters
_RESERVE = {Urgency.ORDER: 0, Urgency.ACCOUNT: 1, Urgency.QUOTE: 2, Urgency.BACKFILL: 4}


class Throttle:
    """The allowance of one app key. `calls_per_second` below one is not served."""

    def __init__(self, store: redis.Redis, key: str, calls_per_second: float) -> None:
        self._slots = max(1, int(calls_per_second))
        self._key = f"{key}:slots"
        self._slow_key = f"{key}:slow"
        self._take = store.register_script(_TAKE)
        self._give_back = store.register_script(_GIVE_BACK)
        self._store = store

    @contextmanager
    def slot(self, urgency: Urgency, *, deadline_seconds: float = 30.0) -> Iterator[None]:
        """Hold one call's slot. Raises NotSent when none came free in time, or Redis is gone."""
        slot_id = uuid.uuid4().hex
        self._wait_for(slot_id, urgency, deadline_seconds)
        try:
            yield
        finally:
            self._return(slot_id)

    def slow_down(self, seconds: float = 5.0) -> None:
        """Halve the allowance for a while: the broker has refused a call as one too many."""
        try:
            self._store.set(self._slow_key, 1, px=int(seconds * 1000))
        except redis.RedisError:
            return  # the next call will find Redis gone, and say so

    def _wait_for(self, slot_id: str, urgency: Urgency, deadline_seconds: float) -> None:
        limit = max(1, self._slots - _RESERVE[urgency])
        arguments: list[str | int] = [limit, slot_id, LEASE_MS, max(1, self._slots // 2)]
        gives_up_at = time.monotonic() + deadline_seconds
        while True:
            try:
                wait_ms = int(self._take(keys=[self._key, self._slow_key], args=arguments))
            except redis.RedisError as error:
                raise NotSent(f"Redis is not reachable, and without it no call may leave: {error}") from error
            if not wait_ms:
                return
            pause = wait_ms / 1000 + random.uniform(0, 0.005)  # noqa: S311 spreads the waiters
            if time.monotonic() + pause > gives_up_at:
                raise NotSent(f"no call came free within {deadline_seconds:g} seconds: the allowance is used up")
            time.sleep(pause)

    def _return(self, slot_id: str) -> None:
        try:
            self._give_back(keys=[self._key], args=[slot_id, WINDOW_MS])
        except redis.RedisError:
            return  # its lease ends by itself
