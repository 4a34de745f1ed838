"""One allowance of calls for all processes and machines, kept in Redis; the only place that sleeps.

Every call holds a slot from before it leaves until one second after its answer, by Redis's clock, but no
longer than a second after it must have reached the broker: an answer that takes nine seconds keeps nobody
waiting. So no sliding second holds more calls than slots, and a slot of a process that died comes back.

A stop's calls pass everybody, then a cancel's that a person requested, then a new order's: by rank alone,
however long the others have waited. Among stops the step that began first goes first, with all its calls:
where calls are short one sells after another, instead of all of them reading and none selling. The rest, a
chase's calls first, queues by the moment it came plus a handicap of its class, so that none of them waits
for ever. All but orders and cancels are spaced out, so that slots come back one by one and an order finds
the next within a call's interval.
"""

import random
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import MappingProxyType

import redis

from aegis.broker import NotSent
from kis.catalogue import Urgency
from kis.serving import Step

WINDOW_MS = 1_000
# a slot comes back this long after the call may leave, answered or not: a second for the way to the broker, and the
# broker's own second
LEASE_MS = 2_000
# a call that leaves later than this after it got its slot holds it anew
LEAVES_WITHIN_SECONDS = 0.5
SLOW_SECONDS = 5.0
# calls that a quiet class may make at once before it is spaced out
BURST = 2

# all but orders go this much slower than they could, which leaves a slot free for the next order
SPACING = 1.04

# so much earlier that no time that others have waited makes up for it; milliseconds since 1970 are 13 digits
STRICT_MS = 10**13
# how much later than a chase's call of the same moment a class comes
HANDICAP_MS: Mapping[Urgency, int] = MappingProxyType(
    {
        Urgency.STOP: -3 * STRICT_MS,
        Urgency.CANCEL: -2 * STRICT_MS,
        Urgency.ORDER: -STRICT_MS,
        Urgency.CHASE: 0,
        Urgency.ACCOUNT: 10_000,
        Urgency.QUOTE: 20_000,
        Urgency.BACKFILL: 60_000,
    }
)

# KEYS of each allowance: slots (scored by the moment they come back), queue (scored by rank), alive (waiters,
# scored by the moment they count as gone), pace (when the next spaced call is due), slow (set while the broker
# wants fewer calls), tally (what all processes' calls went through)
# ARGV: id, handicap ms, lease ms, burst, is not spaced out, when its step began (0 for now); then of each allowance:
# slots, interval ms, window ms
# Returns how many allowances gave a slot, in their order, the milliseconds to wait for the next, and the time
_TAKE = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
local id, handicap, lease, burst = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local began = tonumber(ARGV[6])

local function take(slots, queue, alive, due, slow, tally, limit, interval, window)
    if redis.call('EXISTS', slow) == 1 then
        limit = math.max(1, math.floor(limit / 2))
        interval = interval * 2
    end
    redis.call('ZREMRANGEBYSCORE', slots, '-inf', now)
    local free = limit - redis.call('ZCARD', slots)
    local ahead, queued = 0, redis.call('EXISTS', queue) == 1
    local function join()
        redis.call('ZADD', queue, 'NX', (began > 0 and began or now) + handicap, id)
        return redis.call('ZRANK', queue, id)
    end
    if queued then
        for _, gone in ipairs(redis.call('ZRANGEBYSCORE', alive, '-inf', now)) do
            redis.call('ZREM', queue, gone)
            redis.call('ZREM', alive, gone)
        end
        ahead = join()
    end
    local pace = tonumber(redis.call('GET', due) or '0')
    local paced = ARGV[5] == '1' and 0 or math.max(0, pace - now)
    if ahead < free and paced == 0 then
        if queued then
            redis.call('ZREM', queue, id)
            redis.call('ZREM', alive, id)
        end
        redis.call('ZADD', slots, now + lease, id)
        redis.call('PEXPIRE', slots, lease * 2)
        redis.call('SET', due, math.max(pace, now - interval * burst) + interval, 'PX', 10000)
        redis.call('HINCRBY', tally, 'granted', 1)
        return 0
    end
    if not queued then
        ahead = join()
    end
    local wait = paced
    if ahead >= free then
        local nth = math.max(0, ahead - math.max(free, 0))
        local slot = redis.call('ZRANGE', slots, nth, nth, 'WITHSCORES')
        wait = math.max(wait, slot[2] and tonumber(slot[2]) - now or window)
    end
    wait = math.max(1, math.min(math.ceil(wait), 250))
    redis.call('ZADD', alive, now + wait + 2000, id)
    redis.call('PEXPIRE', queue, 120000)
    redis.call('PEXPIRE', alive, 120000)
    return wait
end

local count = #KEYS / 6
for n = 0, count - 1 do
    local key, figure = n * 6, 6 + n * 3
    local wait = take(KEYS[key + 1], KEYS[key + 2], KEYS[key + 3], KEYS[key + 4], KEYS[key + 5], KEYS[key + 6],
        tonumber(ARGV[figure + 1]), tonumber(ARGV[figure + 2]), tonumber(ARGV[figure + 3]))
    if wait > 0 then
        return {n, wait, now}
    end
end
return {count, 0, now}
"""
_LEAVE = """
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
"""
# KEYS: the slots of each allowance. ARGV: id, then the window of each in ms. What was never taken is left alone, and
# what comes back sooner does. Rounded up, where taking rounds down: a slot never comes back within the second
_GIVE_BACK = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.ceil(clock[2] / 1000)
for n, slots in ipairs(KEYS) do
    redis.call('ZADD', slots, 'XX', 'LT', now + tonumber(ARGV[n + 1]), ARGV[1])
end
"""
# KEYS: the slots of each allowance. ARGV: id, lease ms. One that has come back meanwhile is taken all the same
_HOLD = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for _, slots in ipairs(KEYS) do
    redis.call('ZADD', slots, now + tonumber(ARGV[2]), ARGV[1])
end
"""


@dataclass(slots=True)
class ThrottleCounters:
    """What this process's calls went through."""

    granted: int = 0
    waited_seconds: float = 0.0
    given_up: int = 0
    slowed: int = 0


class Slot:
    """What one call holds of its allowances."""

    def __init__(self, allowances: Sequence["Throttle"], slot_id: str) -> None:
        self._allowances = allowances
        self._id = slot_id
        self._taken_at = time.monotonic()

    def leave(self) -> None:
        """Note that the call leaves now. The broker counts it from here, which may be a while after it was taken.

        Raises NotSent if Redis is gone.
        """
        if time.monotonic() - self._taken_at <= LEAVES_WITHIN_SECONDS:
            return
        try:
            self._allowances[0]._hold(keys=[each._keys[0] for each in self._allowances], args=[self._id, LEASE_MS])
        except redis.RedisError as error:
            raise NotSent(f"Redis is not reachable, and without it no call may leave: {error}") from error


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
        self._hold = store.register_script(_HOLD)
        self.counters = ThrottleCounters()

    @contextmanager
    def slot(
        self,
        urgency: Urgency,
        *,
        deadline_seconds: float,
        first: "Throttle | None" = None,
        step: Step | None = None,
        is_command: bool = False,
    ) -> Iterator["Slot"]:
        """Hold one call's slot, and before it one of `first`; where both are free that is one trip to Redis.

        A call of a stop's `step` queues since that began; its commands pass the reads of all steps.
        Raises NotSent when one came not free in time, or Redis is gone.
        """
        # steps of the same millisecond keep their order from call to call
        slot_id, needed = f"{step.id if step else ''}{uuid.uuid4().hex}", [first, self] if first else [self]
        try:
            _wait_for(needed, slot_id, urgency, deadline_seconds, step, is_command=is_command)
            yield Slot(needed, slot_id)
        finally:
            _return(needed, slot_id)

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

    def is_slowed(self) -> bool:
        """Whether the broker refused a call as one too many a moment ago. Raises redis.RedisError."""
        return bool(self._store.exists(self._keys[4]))

    def _gave_up(self, slot_id: str) -> None:
        self._leave(keys=self._keys, args=[slot_id])
        self.counters.given_up += 1
        self._store.hincrby(self._keys[5], "given_up", 1)


def _wait_for(
    allowances: Sequence[Throttle],
    slot_id: str,
    urgency: Urgency,
    deadline_seconds: float,
    step: Step | None = None,
    *,
    is_command: bool = False,
) -> None:
    handicap = HANDICAP_MS[urgency] - (STRICT_MS if step and is_command else 0)
    call: list[str | int | float] = [slot_id, handicap, LEASE_MS, BURST, int(handicap < 0)]
    began, left = time.monotonic(), list(allowances)
    while True:
        try:
            keys = [key for each in left for key in each._keys]
            figures = [figure for each in left for figure in (each._calls, each._interval_ms, each._window_ms)]
            since = step.began_ms or 0 if step else 0
            taken, wait_ms, now_ms = left[0]._take(keys=keys, args=[*call, since, *figures])
            if step is not None and step.began_ms is None:
                step.began_ms = now_ms
            for each in left[:taken]:
                each.counters.granted += 1
                each.counters.waited_seconds += time.monotonic() - began
            left = left[taken:]
            if not left:
                if step is not None:
                    step.has_called = True
                return
            pause = (wait_ms + random.uniform(0, 2)) / 1000  # noqa: S311 spreads the waiters
            if time.monotonic() - began + pause > deadline_seconds:
                left[0]._gave_up(slot_id)
                raise NotSent(f"no call came free within {deadline_seconds:g} seconds: the allowance is used up")
        except redis.RedisError as error:
            raise NotSent(f"Redis is not reachable, and without it no call may leave: {error}") from error
        time.sleep(pause)


def _return(allowances: Sequence[Throttle], slot_id: str) -> None:
    keys, windows = [each._keys[0] for each in allowances], [each._window_ms for each in allowances]
    try:
        allowances[0]._give_back(keys=keys, args=[slot_id, *windows])
    except redis.RedisError:
        return  # its lease ends by itself
