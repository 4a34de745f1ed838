"""The rate limiter of the broker's calls, shared by all processes and machines through Redis.

Each call holds a slot from before it is sent until one second after its answer, by the Redis clock, but no longer than
one second after it must have reached the broker: an answer that takes nine seconds keeps no other call waiting. So no
sliding second has more calls than there are slots, and the slot of a process that died becomes free again.

Calls of a stop pass all others, then those of a cancel that a person requested, then those of a new order, however
long the others have waited. Among stops, the step that started first gets all its calls first: if slots are scarce,
one stop sells after another, instead of all stops reading and none selling. The other calls, a chase's first, queue by
arrival time plus a handicap of their class, so none waits forever. All calls but those of stops, cancels and orders
are spaced out: slots become free one by one, and an order gets the next one within the interval of one call.
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
from kis.catalogue import CallPriority
from kis.serving import Step

WINDOW_MS = 1_000
# a slot becomes free this long after the call may be sent, answered or not: a second for the way to the broker, and
# the second in which the broker counts it
LEASE_MS = 2_000
# a call that is sent later than this after it got its slot takes the slot again
SENT_WITHIN_SECONDS = 0.5
SLOW_SECONDS = 5.0
# spaced calls that may be sent at once after a quiet period
BURST = 2

# spaced calls are slower than the limit by this factor, which leaves a slot reserved for the next order
SPACING = 1.04

# a head start that no waiting time of other calls exceeds; milliseconds since 1970 have 13 digits
STRICT_MS = 10**13
# how much later than a chase's call of the same time a class is queued, in milliseconds
HANDICAP_MS: Mapping[CallPriority, int] = MappingProxyType(
    {
        CallPriority.STOP: -3 * STRICT_MS,
        CallPriority.CANCEL: -2 * STRICT_MS,
        CallPriority.ORDER: -STRICT_MS,
        CallPriority.CHASE: 0,
        CallPriority.ACCOUNT: 10_000,
        CallPriority.QUOTE: 20_000,
        CallPriority.BACKFILL: 60_000,
    }
)

# KEYS, per limiter: slots (scored by the time when they become free), queue (scored by arrival time plus handicap),
# alive (waiting calls, scored by the time when they count as dead), pace (when the next spaced call is due), slow (set
# while the broker wants fewer calls), tally (counters of all processes' calls)
# ARGV: id, handicap ms, lease ms, burst, 1 if not spaced out, start of its step (0 for now); then per limiter: slots,
# interval ms, window ms
# Returns how many limiters granted a slot, in their order, the milliseconds to wait for the next one, and the time
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
# KEYS: the slots of each limiter. ARGV: id, then the window of each in ms. A slot that was not taken, or that becomes
# free sooner, is not changed. Time is rounded up here and down in _TAKE, so no slot becomes free within the second
_GIVE_BACK = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.ceil(clock[2] / 1000)
for n, slots in ipairs(KEYS) do
    redis.call('ZADD', slots, 'XX', 'LT', now + tonumber(ARGV[n + 1]), ARGV[1])
end
"""
# KEYS: the slots of each limiter. ARGV: id, lease ms. A slot that became free meanwhile is taken again
_HOLD = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
for _, slots in ipairs(KEYS) do
    redis.call('ZADD', slots, now + tonumber(ARGV[2]), ARGV[1])
end
"""


@dataclass(slots=True)
class ThrottleCounters:
    """Counters of this process's calls: slots granted, seconds waited, waits given up, and slow-downs."""

    granted: int = 0
    waited_seconds: float = 0.0
    given_up: int = 0
    slowed: int = 0


class Slot:
    """The slots that one call holds, one of each of its rate limiters."""

    def __init__(self, throttles: Sequence["Throttle"], slot_id: str) -> None:
        self._throttles = throttles
        self._id = slot_id
        self._taken_at = time.monotonic()

    def mark_sent(self) -> None:
        """Mark that the call is sent now, and renew its slots if they were taken a while ago.

        The broker counts the call from now on. Raises NotSent if Redis is not reachable.
        """
        if time.monotonic() - self._taken_at <= SENT_WITHIN_SECONDS:
            return
        try:
            self._throttles[0]._hold(
                keys=[throttle._keys[0] for throttle in self._throttles], args=[self._id, LEASE_MS]
            )
        except redis.RedisError as error:
            raise NotSent(f"Redis is not reachable, and without it no call may leave: {error}") from error


class Throttle:
    """A limit of N calls per window, for one app key or one account."""

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
        priority: CallPriority,
        *,
        deadline_seconds: float,
        also: "Throttle | None" = None,
        step: Step | None = None,
        is_command: bool = False,
    ) -> Iterator["Slot"]:
        """Hold one slot for a call, and before it one of `also`. If both are free, that is one request to Redis.

        A call of a stop's `step` queues from the time when the step started; its commands pass the reads of all steps.
        Raises NotSent if no slot becomes free in time, or Redis is not reachable.
        """
        # the id of the step comes first, so that steps of the same millisecond keep their order from call to call
        slot_id, throttles = f"{step.id if step else ''}{uuid.uuid4().hex}", [also, self] if also else [self]
        try:
            _wait_for(throttles, slot_id, priority, deadline_seconds, step, is_command=is_command)
            yield Slot(throttles, slot_id)
        finally:
            _release_slots(throttles, slot_id)

    def tally(self) -> dict[str, int]:
        """Return the number of all processes' calls that were `granted` a slot, have `given_up`, and were `refused`.

        `refused` calls exceeded the broker's limit. Counts start when Redis was empty. Raises redis.RedisError.
        """
        counts = self._store.hgetall(self._keys[5])
        return {name: int(counts.get(name.encode(), 0)) for name in ("granted", "given_up", "refused")}

    def in_use(self) -> int:
        """Return how many slots are held now. Raises redis.RedisError."""
        seconds, micros = self._store.time()
        return int(self._store.zcount(self._keys[0], seconds * 1000 + micros // 1000, "+inf"))

    def slow_down(self, seconds: float = SLOW_SECONDS) -> None:
        """Halve the limit for `seconds`: the broker has refused a call as one too many."""
        self.counters.slowed += 1
        try:
            self._store.set(self._keys[4], 1, px=int(seconds * 1000))
            self._store.hincrby(self._keys[5], "refused", 1)
        except redis.RedisError:
            return  # the next call raises NotSent if Redis is still not reachable

    def is_slowed(self) -> bool:
        """Whether the limit is halved at present (see `slow_down`). Raises redis.RedisError."""
        return bool(self._store.exists(self._keys[4]))

    def _give_up(self, slot_id: str) -> None:
        self._leave(keys=self._keys, args=[slot_id])
        self.counters.given_up += 1
        self._store.hincrby(self._keys[5], "given_up", 1)


def _wait_for(
    throttles: Sequence[Throttle],
    slot_id: str,
    priority: CallPriority,
    deadline_seconds: float,
    step: Step | None = None,
    *,
    is_command: bool = False,
) -> None:
    handicap = HANDICAP_MS[priority] - (STRICT_MS if step and is_command else 0)
    call_args: list[str | int | float] = [slot_id, handicap, LEASE_MS, BURST, int(handicap < 0)]
    started_at, remaining = time.monotonic(), list(throttles)
    while True:
        try:
            keys = [key for throttle in remaining for key in throttle._keys]
            limits = [
                limit
                for throttle in remaining
                for limit in (throttle._calls, throttle._interval_ms, throttle._window_ms)
            ]
            step_began_ms = step.began_ms or 0 if step else 0
            granted, wait_ms, now_ms = remaining[0]._take(keys=keys, args=[*call_args, step_began_ms, *limits])
            if step is not None and step.began_ms is None:
                step.began_ms = now_ms
            for throttle in remaining[:granted]:
                throttle.counters.granted += 1
                throttle.counters.waited_seconds += time.monotonic() - started_at
            remaining = remaining[granted:]
            if not remaining:
                if step is not None:
                    step.has_called = True
                return
            pause = (wait_ms + random.uniform(0, 2)) / 1000  # noqa: S311 spreads the waiting calls
            if time.monotonic() - started_at + pause > deadline_seconds:
                remaining[0]._give_up(slot_id)
                raise NotSent(f"no call came free within {deadline_seconds:g} seconds: the allowance is used up")
        except redis.RedisError as error:
            raise NotSent(f"Redis is not reachable, and without it no call may leave: {error}") from error
        time.sleep(pause)


def _release_slots(throttles: Sequence[Throttle], slot_id: str) -> None:
    keys, windows = [throttle._keys[0] for throttle in throttles], [throttle._window_ms for throttle in throttles]
    try:
        throttles[0]._give_back(keys=keys, args=[slot_id, *windows])
    except redis.RedisError:
        return  # the slots become free when their lease ends
