"""A sign of life of a process of which there is one: beat, who tells people, who answers them.

Ages are counted on the clock of Redis, so that machines need not agree on the time.
"""

import redis

KEPT_SECONDS = 24 * 3600


def beat(store: redis.Redis, key: str) -> None:
    """Leave a sign of life. Raises redis.RedisError."""
    store.set(key, _now(store), ex=KEPT_SECONDS)


def age(store: redis.Redis, key: str) -> float | None:
    """Return how many seconds ago the last sign was left, None where none is remembered. Raises redis.RedisError."""
    left = store.get(key)
    return None if left is None else max(0.0, _now(store) - float(left))


def _now(store: redis.Redis) -> float:
    seconds, micros = store.time()
    return float(seconds) + float(micros) / 1_000_000
