"""One allowance of calls for all processes and machines, kept in Redis; the only place that sleeps.

Every call holds a slot from before it leaves until one second after its answer, by Redis's clock. The
broker cannot have seen it later than that, so no sliding second ever holds more calls than slots,
whatever the network does. A slot of a process that died comes back when its lease ends.

Who waits, queues by the moment it came plus a handicap of its class: orders pass everybody, and yet
nobody waits for ever. All but orders are spaced out, so that slots come back one by one and an order
finds the next within a call's interval.
"""

import random
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import redis

from aegis.broker import NotSent
from kis.catalogue import Urgency

WINDOW_MS = 1_000
LEASE_MS = 30_000
SLOW_SECONDS = 5.0
# calls that a quiet class may make at once before it is spaced out
BURST = 2

# all but orders go this much slower than they could, which leaves a slot free for the next order
SPACING = 1.04

# how much later than an order of the same moment a class comes
HANDICAP_MS: Mapping[Urgency, int] = MappingProxyType(
    {Urgency.ORDER: 0, Urgency.ACCOUNT: 5_000, Urgency.QUOTE: 15_000, Urgency.BACKFILL: 60_000}
)

# KEYS: slots (scored by the moment they come back), queue (scored by rank), alive (waiters, scored by
# the moment they count as gone), pace (when the next spaced call is due), slow (set while the broker
# wants fewer calls), tally (what all processes' calls went through)
# ARGV: id, handicap ms, slots, lease ms, interval ms, burst, is an order, window ms
# Returns {0, 0} for a slot, else {1, milliseconds to wait}
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local id, limit, interval = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[5])
if redis.call('EXISTS', KEYS[5]) == 1 then
    limit = math.max(1, math.floor(limit / 2))
    interval = interval * 2
end
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
for _, gone in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now)) do
    redis.call('ZREM', KEYS[2], gone)
    redis.call('ZREM', KEYS[3], gone)
end
redis.call('ZADD', KEYS[2], 'NX', now + tonumber(ARGV[2]), id)
local free = limit - redis.call('ZCARD', KEYS[1])
local ahead = redis.call('ZRANK', KEYS[2], id)
local pace = tonumber(redis.call('GET', KEYS[4]) or '0')
local paced = ARGV[7] == '1' and 0 or math.max(0, pace - now)
if ahead < free and paced == 0 then
    redis.call('ZREM', KEYS[2], id)
    redis.call('ZREM', KEYS[3], id)
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[4]), id)
    redis.call('PEXPIRE', KEYS[1], ARGV[4] * 2)
    local earliest = now - interval * tonumber(ARGV[6])
    redis.call('SET', KEYS[4], math.max(pace, earliest) + interval, 'PX', 10000)
    redis.call('HINCRBY', KEYS[6], 'granted', 1)
    return {0, 0}
end
local wait = paced
if ahead >= free then
    local nth = math.max(0, ahead - math.max(free, 0))
    local slot = redis.call('ZRANGE', KEYS[1], nth, nth, 'WITHSCORES')
    local back = slot[2] and tonumber(slot[2]) - now or tonumber(ARGV[8])
    wait = math.max(wait, back)
end
wait = math.max(1, math.min(math.ceil(wait), 250))
redis.call('ZADD', KEYS[3], now + wait + 2000, id)
redis.call('PEXPIRE', KEYS[2], 120000)
redis.call('PEXPIRE', KEYS[3], 120000)
return {1, wait}
"""
_LEAVE = """
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
"""
_GIVE_BACK = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZADD', KEYS[1], 'XX', now + tonumber(ARGV[2]), ARGV[1])
"""


@dataclass(slots=True)
class Counters:
    """What this process's calls went through."""

    granted: int = 0
    waited_seconds: float = 0.0
    given_up: int = 0
    slowed: int = 0


class Throttle:
    """An allowance of so many calls a window, for one app key or one account."""

    def __init__(self, store: redis.Redis, key: str, calls: int, window_ms: int = WINDOW_MS) -> None:
        self._calls = max(1, calls)
        self._window_ms = window_ms
        self._interval_ms = window_ms / self._calls * SPACING
        self._keys = [f"{key}:{part}" for part in ("slots", "queue", "alive", "pace", "slow", "tally")]
        self._store = store
        self._take = store.register_script(_TAKE)
        self._leave = store.register_script(_LEAVE)
        self._give_back = store.register_script(_GIVE_BACK)
        self.counters = Counters()

    @contextmanager
    def slot(self, urgency: Urgency, *, deadline_seconds: float) -> Iterator[None]:
        """Hold one call's slot. Raises NotSent when none came free in time, or Redis is gone."""
        slot_id = uuid.uuid4().hex
        self._wait_for(slot_id, urgency, deadline_seconds)
        try:
            yield
        finally:
            self._return(slot_id)

    def tally(self) -> dict[str, int]:
        """Return how many calls of all processes were `granted` a slot, had `given_up`, and were `refused` by the
        broker as one too many, since Redis was empty. Raises redis.RedisError.
        """
        counted = self._store.hgetall(self._keys[5])
        return {name: int(counted.get(name.encode(), 0)) for name in ("granted", "given_up", "refused")}

    def in_use(self) -> int:
        """Return how many slots are held now. Raises redis.RedisError."""
        seconds, micros = self._store.time()
        return int(self._store.zcount(self._keys[0], seconds * 1000 + micros // 1000, "+inf"))

    def slow_down(self, seconds: float = SLOW_SECONDS) -> None:
        """Halve the allowance for a while: the broker has refused a call as one too many."""
        self.counters.slowed += 1
        try:
            self._store.set(self._keys[4], 1, px=int(seconds * 1000))
            self._store.hincrby(self._keys[5], "refused", 1)
        except redis.RedisError:
            return  # the next call will find Redis gone, and say so

    def _wait_for(self, slot_id: str, urgency: Urgency, deadline_seconds: float) -> None:
        arguments: list[str | int | float] = [
            slot_id,
            HANDICAP_MS[urgency],
            self._calls,
            LEASE_MS,
            self._interval_ms,
            BURST,
            int(urgency is Urgency.ORDER),
            self._window_ms,
        ]
        began = time.monotonic()
        while True:
            try:
                must_wait, wait_ms = self._take(keys=self._keys, args=arguments)
                if not must_wait:
                    break
                pause = (wait_ms + random.uniform(0, 2)) / 1000  # noqa: S311 spreads the waiters
                if time.monotonic() - began + pause > deadline_seconds:
                    self._leave(keys=self._keys, args=[slot_id])
                    self.counters.given_up += 1
                    self._store.hincrby(self._keys[5], "given_up", 1)
                    raise NotSent(f"no call came free within {deadline_seconds:g} seconds: the allowance is used up")
            except redis.RedisError as error:
                raise NotSent(f"Redis is not reachable, and without it no call may leave: {error}") from error
            time.sleep(pause)
        self.counters.granted += 1
        self.counters.waited_seconds += time.monotonic() - began

    def _return(self, slot_id: str) -> None:
        try:
            self._give_back(keys=self._keys, args=[slot_id, self._window_ms])
        except redis.RedisError:
            return  # its lease ends by itself
