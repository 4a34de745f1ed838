"""Heartbeats of the processes that exist once: beat, the notifier, the Telegram bot.

Ages are measured by the clock of Redis, so the clocks of the machines need not agree.
"""

import redis

KEPT_SECONDS = 24 * 3600


def beat(store: redis.Redis, key: str) -> None:
    """Record a heartbeat. Raises redis.RedisError."""
    store.set(key, _now(store), ex=KEPT_SECONDS)


def age(store: redis.Redis, key: str) -> float | None:
    """Return the age of the last heartbeat in seconds, None if none is stored. Raises redis.RedisError."""
    last_beat = store.get(key)
    return None if last_beat is None else max(0.0, _now(store) - float(last_beat))


def _now(store: redis.Redis) -> float:
    seconds, micros = store.time()
    return float(seconds) + float(micros) / 1_000_000
