"""How the sockets are, for every process to read: a hash in Redis, written each second by who holds them.

Ages are counted on the clock of Redis, so that machines need not agree on the time; what was not
written for some seconds is stale, and says so.
"""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any

import redis

STALE_SECONDS = 5.0


class SocketState(StrEnum):
    NONE = "NONE"  # nobody has ever held the socket, as far as Redis remembers
    STALE = "STALE"  # the holder no longer speaks: dead, paused or cut off
    CONNECTING = "CONNECTING"
    CONNECTED = "CONNECTED"
    LOST = "LOST"  # between two attempts
    STOPPED = "STOPPED"  # let go on purpose


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """How the socket of one app key is; keys are numbered from 1, and their values shown nowhere."""

    number: int
    state: SocketState
    down_seconds: float | None  # None while it is connected
    held: int
    why: str = ""
    hears_fills: bool = False

    @property
    def is_down(self) -> bool:
        return self.down_seconds is not None or bool(self.why)


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """What an operator may ask of the stream. Ages are seconds at the moment of reading, None for never.

    Counts are of the present holder's, since it took the lease. Topics are written `TR:key`. `frame_age` is of whatever
    came, an echo too; `data_age` of market data alone.
    """

    state: SocketState = SocketState.NONE
    state_seconds: float | None = None
    holder: str = ""
    fence: int = 0
    frames: int = 0
    frame_age: float | None = None
    data_age: float | None = None
    notice_age: float | None = None
    connections: int = 0
    lost_why: str = ""
    next_try_seconds: float | None = None
    deaf: int = 0
    bad_frames: int = 0
    failures: int = 0
    drift: dict[str, int] = field(default_factory=dict)
    held: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    unheard: tuple[str, ...] = ()  # of those left out or refused, the ones that what we hold depends on
    hears_fills: bool = False
    hears_pulse: bool = False  # the feed that is never quiet in regular hours is registered
    chores: dict[str, int] = field(default_factory=dict)
    keys: tuple[KeyStatus, ...] = ()
    written_age: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the socket is connected, its holder speaks, and our own fills are registered."""
        return self.state is SocketState.CONNECTED and self.hears_fills


_AGES = ("state_seconds", "frame_age", "data_age", "notice_age")


def publish(store: redis.Redis, key: str, status: StreamStatus) -> None:
    """Write how it is now. Raises redis.RedisError."""
    words = asdict(status)
    words["written_age"] = _now(store)
    store.set(key, json.dumps(words))


def read(store: redis.Redis, key: str) -> StreamStatus:
    """Return what was last written, as old as it is by now. Raises redis.RedisError."""
    stored = store.get(key)
    if stored is None:
        return StreamStatus()
    words = json.loads(stored)
    age = max(0.0, _now(store) - words["written_age"])
    words["written_age"] = age
    for name in _AGES:
        if words.get(name) is not None:
            words[name] += age
    if words["next_try_seconds"] is not None:
        words["next_try_seconds"] = max(0.0, words["next_try_seconds"] - age)
    words["state"] = SocketState(words["state"])
    if age > STALE_SECONDS and words["state"] is not SocketState.STOPPED:
        words["state"] = SocketState.STALE
    for name in ("held", "left_out", "unheard"):
        words[name] = tuple(words.get(name, ()))
    words["keys"] = tuple(_key(key, age) for key in words.get("keys", ()))
    return StreamStatus(**words)


def _key(words: dict[str, Any], age: float) -> KeyStatus:
    down = words["down_seconds"]
    down = None if down is None else down + age
    return KeyStatus(**{**words, "state": SocketState(words["state"]), "down_seconds": down})


def _now(store: redis.Redis) -> float:
    seconds, micros = store.time()
    return float(seconds) + float(micros) / 1_000_000
