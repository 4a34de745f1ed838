"""The state of the sockets, which every process can read: JSON in Redis, written each second by their holder.

Ages are measured by the Redis clock, so machines do not need the same time. A state that was not written for
STALE_SECONDS is read as STALE.
"""

import json
from dataclasses import asdict, dataclass, field, fields
from enum import StrEnum
from typing import Any

import redis

STALE_SECONDS = 5.0


class SocketState(StrEnum):
    NONE = "NONE"  # Redis has no state: no process has held the socket yet
    STALE = "STALE"  # the holder no longer writes: it is dead, paused or cut off from Redis
    CONNECTING = "CONNECTING"
    CONNECTED = "CONNECTED"
    LOST = "LOST"  # between two attempts
    STOPPED = "STOPPED"  # released on purpose


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """The state of one app key's socket. Keys are numbered from 1; their values are never shown."""

    number: int
    state: SocketState
    down_seconds: float | None  # None while it is connected
    held: int
    reason: str = ""
    has_own_fills: bool = False

    @property
    def is_down(self) -> bool:
        return self.down_seconds is not None or bool(self.reason)


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """The state of the stream worker. Ages are in seconds at the time of reading, None if it never happened.

    Counts start when the current holder took the lease. Topics are written `TR:key`. `frame_age` is the age of the last
    frame of any kind, a PINGPONG too; `data_age` is that of the last market data.
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
    lost_reason: str = ""
    next_try_seconds: float | None = None
    dead_connections: int = 0
    bad_frames: int = 0
    failures: int = 0
    drift: dict[str, int] = field(default_factory=dict)
    held: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    refused: dict[str, str] = field(default_factory=dict)
    missing_vital: tuple[str, ...] = ()  # the left out or refused topics that stops and holdings depend on
    has_own_fills: bool = False
    has_reference_feed: bool = False  # the feed that always has data in regular hours is registered
    job_failures: dict[str, int] = field(default_factory=dict)
    keys: tuple[KeyStatus, ...] = ()
    written_age: float | None = None

    @property
    def is_alive(self) -> bool:
        """Whether the socket is connected, its holder writes the state, and our own fills are registered."""
        return self.state is SocketState.CONNECTED and self.has_own_fills


_AGES = ("state_seconds", "frame_age", "data_age", "notice_age")


def publish(store: redis.Redis, key: str, status: StreamStatus) -> None:
    """Write the current state. Raises redis.RedisError."""
    payload = asdict(status)
    payload["written_age"] = _now(store)
    store.set(key, json.dumps(payload))


def read_status(store: redis.Redis, key: str) -> StreamStatus:
    """Return the last written state, with its ages as of now. Raises redis.RedisError.

    A worker of another version may have written it: fields that are unknown here are ignored, missing ones have their
    defaults.
    """
    stored = store.get(key)
    if stored is None:
        return StreamStatus()
    payload = json.loads(stored)
    age = max(0.0, _now(store) - payload["written_age"])
    payload["written_age"] = age
    for name in _AGES:
        if payload.get(name) is not None:
            payload[name] += age
    if payload.get("next_try_seconds") is not None:
        payload["next_try_seconds"] = max(0.0, payload["next_try_seconds"] - age)
    payload["state"] = SocketState(payload["state"])
    if age > STALE_SECONDS and payload["state"] is not SocketState.STOPPED:
        payload["state"] = SocketState.STALE
    for name in ("held", "left_out", "missing_vital"):
        payload[name] = tuple(payload.get(name, ()))
    payload["keys"] = tuple(_key_status(values, age) for values in payload.get("keys", ()))
    return StreamStatus(**_known(StreamStatus, payload))


def _key_status(values: dict[str, Any], age: float) -> KeyStatus:
    down_seconds = values["down_seconds"]
    down_seconds = None if down_seconds is None else down_seconds + age
    values = {**values, "state": SocketState(values["state"]), "down_seconds": down_seconds}
    return KeyStatus(**_known(KeyStatus, values))


def _known(kind: type[KeyStatus] | type[StreamStatus], payload: dict[str, Any]) -> dict[str, Any]:
    return {field.name: payload[field.name] for field in fields(kind) if field.name in payload}


def _now(store: redis.Redis) -> float:
    seconds, micros = store.time()
    return float(seconds) + float(micros) / 1_000_000
