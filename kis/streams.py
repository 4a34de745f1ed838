"""The WebSockets of several app keys as one source of data. Each feed is registered with one key at a time.

Orders use the first key. Further keys carry market data, and our own fills (체결통보) while the first key has no
connection. A feed moves to another key after its key was down for `move_seconds`. The new key registers it once the
old key no longer holds it, so no notice is received twice. Fills in between are found in the broker's order list:
`Listener.on_registered` starts a reconciliation. The caller runs each stream on a thread of its own.
"""

import threading
import time
from collections.abc import Iterable, Mapping, Sequence

from kis.assignment import KeyState, assign
from kis.codec import NOTICE_IDS, Data
from kis.status import KeyStatus, SocketState
from kis.stream import LONGEST_IN_USE_SECONDS, LONGEST_PAUSE_SECONDS, ConnectionGate, Listener, Stream
from kis.subscriptions import Topic

# a connection that broke is usually back sooner
MOVE_SECONDS = 2.0


class Streams:
    """One stream per connection gate (`gates`, one per app key), and one listener for all of them."""

    def __init__(
        self,
        url: str,
        *,
        gates: Sequence[ConnectionGate],
        listener: Listener,
        known_rates: Mapping[Topic, float] | None = None,
        move_seconds: float = MOVE_SECONDS,
    ) -> None:
        self.listener = listener
        self.handling = threading.RLock()  # handlers take the market data of all sockets one frame at a time
        self._plan_lock = threading.Lock()
        self._move_seconds = move_seconds
        self._key_of: dict[Topic, int] = {}
        # of each key: the number of its connection, and the topics that the server refused during it
        self._refusals: list[tuple[int, frozenset[Topic]]] = [(0, frozenset())] * len(gates)
        self.members = tuple(
            Stream(
                url,
                gate=gate,
                listener=_Share(self, number),
                known_rates=known_rates,
                name=f"socket of app key {number + 1}" if len(gates) > 1 else "socket",
                longest_in_use_seconds=LONGEST_IN_USE_SECONDS if number else LONGEST_PAUSE_SECONDS,
            )
            for number, gate in enumerate(gates)
        )

    def wanted_of(self, number: int) -> Sequence[Topic]:
        """Return the topics that one key should hold now: its share, without those that another key still holds."""
        with self._plan_lock:
            share = self._plan()[number]
        elsewhere = frozenset[Topic]().union(
            *(stream.subscriptions.occupied for stream in self.members if stream is not self.members[number])
        )
        return [topic for topic in share if topic not in elsewhere]

    def move(self, topic: Topic, number: int) -> None:
        """Assign a feed to another key from now on."""
        with self._plan_lock:
            self._key_of[topic] = number

    def _plan(self) -> Sequence[Sequence[Topic]]:
        now = time.monotonic()
        keys = [self._state_of(number, now) for number in range(len(self.members))]
        shares = assign(self.listener.wanted(), keys, self._key_of)
        self._key_of = {topic: number for number, share in enumerate(shares) for topic in share}
        return shares

    def _state_of(self, number: int, now: float) -> KeyState:
        stream = self.members[number]
        # a refusal is remembered for the whole connection: the key no longer registers the feed, so none repeats it
        connection, refused = self._refusals[number]
        if connection != stream.counters.connections:
            connection, refused = stream.counters.connections, frozenset()
        refused |= stream.subscriptions.exhausted
        self._refusals[number] = connection, refused
        return KeyState(stream.subscriptions.limit, refused, self._is_available(stream, now))

    def _is_available(self, stream: Stream, now: float) -> bool:
        down_since, next_try_at = stream.down_since, stream.next_try_at
        if down_since is None:
            return True
        return now - down_since < self._move_seconds and (next_try_at or now) - now <= self._move_seconds

    # --- status

    @property
    def held(self) -> frozenset[Topic]:
        return frozenset[Topic]().union(*(stream.held for stream in self._connected()))

    @property
    def left_out(self) -> tuple[Topic, ...]:
        """Return the topics that no key has room for, most important first."""
        left_out = {topic for stream in self.members for topic in stream.subscriptions.left_out} - self.held
        return tuple(topic for topic in self.listener.wanted() if topic in left_out)

    @property
    def refused(self) -> dict[Topic, str]:
        """Return the refused topics that no other key holds, with the server's message."""
        held = self.held
        return {
            topic: message
            for stream in self.members
            for topic, message in stream.subscriptions.refused.items()
            if topic not in held
        }

    @property
    def leader(self) -> Stream:
        """Return the stream whose state represents all: the one with our own fills, else the first connected one."""
        fill_streams = [stream for stream in self._connected() if any(topic.is_own_fills for topic in stream.held)]
        return (fill_streams or list(self._connected()) or list(self.members))[0]

    def data_age(self) -> float | None:
        """Return the seconds since any key received market data, None if none ever did."""
        at = max(stream.counters.last_data_at for stream in self.members)
        return time.monotonic() - at if at else None

    def status(self) -> tuple[KeyStatus, ...]:
        """Return the state of each key's socket."""
        now = time.monotonic()
        return tuple(
            KeyStatus(
                number=number,
                state=stream.state,
                down_seconds=None if (down_since := stream.down_since) is None else now - down_since,
                held=len(stream.held),
                reason=stream.lost_reason if stream.down_since is not None or stream.is_key_in_use else "",
                has_own_fills=any(topic.is_own_fills for topic in stream.held),
            )
            for number, stream in enumerate(self.members, start=1)
        )

    def _connected(self) -> Iterable[Stream]:
        return [stream for stream in self.members if stream.state is SocketState.CONNECTED]


class _Share:
    """The listener of one stream. It passes on that stream's share of the topics, and its calls to the common one."""

    def __init__(self, streams: Streams, number: int) -> None:
        self._streams = streams
        self._listener = streams.listener
        self._number = number
        self._is_new = False  # a connection that holds no feed yet
        self._is_reported = False  # whether the common listener knows of the connection

    def wanted(self) -> Sequence[Topic]:
        return self._streams.wanted_of(self._number)

    def expected_feeds(self) -> Mapping[Topic, str]:
        return self._listener.expected_feeds()

    def handle(self, data: Data, arrived: float) -> None:
        if data.tr_id in NOTICE_IDS:
            # without the lock: notices wait for the database, and market data must not wait for them
            self._listener.handle(data, arrived)
            return
        with self._streams.handling:
            self._listener.handle(data, arrived)

    def on_connected(self) -> None:
        """Report the connection at its first registered feed only: a key in use elsewhere connects, and is refused."""
        self._is_new = True

    def on_registered(self, topic: Topic) -> None:
        if self._is_new:
            self._is_new, self._is_reported = False, True
            with self._streams.handling:
                self._listener.on_connected()
        self._listener.on_registered(topic)

    def on_lost(self) -> None:
        if self._is_reported:
            self._is_reported = False
            with self._streams.handling:
                self._listener.on_lost()

    def on_undecodable_notice(self) -> None:
        self._listener.on_undecodable_notice()
