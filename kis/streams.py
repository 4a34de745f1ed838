"""The sockets of several app keys, heard as one: each feed is registered with one key at a time.

The first key is the one that orders use; further keys carry market data, and our own fills (체결통보) while the
first key has no socket. A feed moves after its key was down for `move_seconds`. The new key asks for it once the
old one no longer holds it, so no notice comes twice; what came in between is known by the broker's list, which
`Listener.registered` has asked for. Each stream runs on a thread of its caller's.
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from kis.assignment import KeyState, assign
from kis.codec import NOTICE_IDS, Data
from kis.status import KeyStatus, SocketState
from kis.stream import LONGEST_IN_USE_SECONDS, LONGEST_PAUSE_SECONDS, ConnectionGate, Listener, Stream
from kis.subscriptions import Topic

# a line that was cut is usually back sooner
MOVE_SECONDS = 2.0


class Streams:
    """One stream for each door, and one listener for all."""

    def __init__(
        self,
        url: str,
        *,
        doors: Sequence[ConnectionGate],
        listener: Listener,
        usual: Mapping[Topic, float] | None = None,
        move_seconds: float = MOVE_SECONDS,
    ) -> None:
        self.listener = listener
        self.handling = threading.RLock()  # market data of several sockets comes to its handlers one frame at a time
        self._planning = threading.Lock()
        self._move_seconds = move_seconds
        self._key_of: dict[Topic, int] = {}
        self._refused: list[tuple[int, frozenset[Topic]]] = [(0, frozenset())] * len(doors)
        self.members = tuple(
            Stream(
                url,
                door=door,
                listener=_Share(self, number),
                usual=usual,
                name=f"socket of app key {number + 1}" if len(doors) > 1 else "socket",
                longest_in_use_seconds=LONGEST_IN_USE_SECONDS if number else LONGEST_PAUSE_SECONDS,
            )
            for number, door in enumerate(doors)
        )

    def wanted_of(self, number: int) -> Sequence[Topic]:
        """Return what one key is to hold now: its share, without what another key still holds."""
        with self._planning:
            share = self._plan()[number]
        elsewhere = frozenset[Topic]().union(
            *(each.subscriptions.occupied for each in self.members if each is not self.members[number])
        )
        return [topic for topic in share if topic not in elsewhere]

    def move(self, topic: Topic, number: int) -> None:
        """Let another key carry a feed from now on."""
        with self._planning:
            self._key_of[topic] = number

    def _plan(self) -> Sequence[Sequence[Topic]]:
        now = time.monotonic()
        keys = [self._state_of(number, now) for number in range(len(self.members))]
        shares = assign(self.listener.wanted(), keys, self._key_of)
        self._key_of = {topic: number for number, share in enumerate(shares) for topic in share}
        return shares

    def _state_of(self, number: int, now: float) -> KeyState:
        stream = self.members[number]
        # what a key refused is remembered while its connection lasts, though it is no longer asked for it
        connection, refused = self._refused[number]
        if connection != stream.counters.connections:
            connection, refused = stream.counters.connections, frozenset()
        refused |= stream.subscriptions.given_up
        self._refused[number] = connection, refused
        return KeyState(stream.subscriptions.limit, refused, self._is_available(stream, now))

    def _is_available(self, stream: Stream, now: float) -> bool:
        down_since, next_try_at = stream.down_since, stream.next_try_at
        if down_since is None:
            return True
        return now - down_since < self._move_seconds and (next_try_at or now) - now <= self._move_seconds

    # --- how it is

    @property
    def held(self) -> frozenset[Topic]:
        return frozenset[Topic]().union(*(stream.held for stream in self._connected()))

    @property
    def left_out(self) -> tuple[Topic, ...]:
        """Return what no key has room for, most important first."""
        left_out = {topic for stream in self.members for topic in stream.subscriptions.left_out} - self.held
        return tuple(topic for topic in self.listener.wanted() if topic in left_out)

    @property
    def refused(self) -> dict[Topic, str]:
        """Return what was refused and is not held by another key, with the server's words."""
        held = self.held
        return {t: why for stream in self.members for t, why in stream.subscriptions.refused.items() if t not in held}

    @property
    def leader(self) -> Stream:
        """Return the stream that speaks for all: the one that hears our own fills, else the first that is connected."""
        hearing = [stream for stream in self._connected() if any(topic.is_own_fills for topic in stream.held)]
        return (hearing or list(self._connected()) or list(self.members))[0]

    def data_age(self) -> float | None:
        """Return for how many seconds no key has heard market data, None if none ever has."""
        at = max(stream.counters.last_data_at for stream in self.members)
        return time.monotonic() - at if at else None

    def status(self) -> tuple[KeyStatus, ...]:
        """Return how each key's socket is."""
        now = time.monotonic()
        return tuple(
            KeyStatus(
                number=number,
                state=stream.state,
                down_seconds=None if (since := stream.down_since) is None else now - since,
                held=len(stream.held),
                why=stream.lost_why if stream.down_since is not None or stream.is_doubted else "",
                hears_fills=any(topic.is_own_fills for topic in stream.held),
            )
            for number, stream in enumerate(self.members, start=1)
        )

    def _connected(self) -> Iterable[Stream]:
        return [stream for stream in self.members if stream.state is SocketState.CONNECTED]


class _Share:
    """What one stream hears of the listener, and the listener of it."""

    def __init__(self, streams: Streams, number: int) -> None:
        self._streams = streams
        self._listener = streams.listener
        self._number = number
        self._is_new = False  # a line that holds no feed yet
        self._is_told = False

    def wanted(self) -> Sequence[Topic]:
        return self._streams.wanted_of(self._number)

    def speaking(self) -> Mapping[Topic, str]:
        return self._listener.speaking()

    def handle(self, data: Data, arrived: float) -> None:
        if data.tr_id in NOTICE_IDS:
            # they wait for the database, and market data does not wait for them
            self._listener.handle(data, arrived)
            return
        with self._streams.handling:
            self._listener.handle(data, arrived)

    def connected(self) -> None:
        """Wait for the first feed: a key that another program uses connects, and is refused then."""
        self._is_new = True

    def registered(self, topic: Topic) -> None:
        if self._is_new:
            self._is_new, self._is_told = False, True
            with self._streams.handling:
                self._listener.connected()
        self._listener.registered(topic)

    def lost(self) -> None:
        if self._is_told:
            self._is_told = False
            with self._streams.handling:
                self._listener.lost()

    def on_undecodable_notice(self) -> None:
        self._listener.on_undecodable_notice()
