"""The one socket: connect, register, read, answer, reconnect. Codec, subscriptions and silence do the thinking.

It runs in a thread of its caller's. The server's PINGPONG is echoed; no pings of our own. After a
failure it waits 1, 2, 4 … 60 seconds (spec §7.2), longer and longer where the broker says that the key is in
use, and longer still where the door says that there were too many attempts: fast loops get a key blocked.
"""

import logging
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import websocket

from aegis.broker import BrokerError
from kis import websocket_frames
from kis.codec import NOTICE_IDS, BadFrame, Codec, ControlMessage, Data, registration
from kis.liveness import FeedRates
from kis.status import SocketState
from kis.subscriptions import PACE_SECONDS, Subscriptions, Topic
from kis.websocket_frames import BrokenStream, Messages

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
KEY_IN_USE = "OPSP8996"
KEY_IN_USE_PAUSE_SECONDS = 20.0
# a further key that another program goes on using is left alone for so long
LONGEST_IN_USE_SECONDS = 600.0
BAD_APPROVAL = "OPSP0011"
BAD_HTS_ID = "OPSP0017"
CONNECT_SECONDS = 5.0
# Proxies of the environment are none of the broker's business. The library looks at whom to spare the proxy only
# where one is named: this one is never asked
NO_PROXY: Mapping[str, Any] = {"http_proxy_host": "none.invalid", "http_no_proxy": ["*"]}
LOOK_SECONDS = 0.5
# the server's own PINGPONG comes every 10 to 110 seconds
SILENCE_SECONDS = 150.0
# a connection that lived this long had nothing wrong with it: the next pause starts small again
HEALTHY_SECONDS = 30.0
# a notice that cannot be read asks for new keys, so often at most
ANEW_SECONDS = 30.0


class Lost(Exception):
    """The connection is over; `pause_seconds` is the least to wait before the next."""

    def __init__(self, why: str, *, pause_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.pause_seconds = pause_seconds


class KeyInUse(Lost):
    """Another session holds the app key."""


class ConnectionGate(Protocol):
    """What lets a connection through: `kis.connection_limiter.ConnectionLimiter`."""

    def acquire(self) -> float:
        """Return 0, or how many seconds are to be waited before one more attempt. Raises BrokerError."""

    def approval_key(self) -> str:
        """Return the key that opens a socket. Raises BrokerError."""

    def invalidate(self, value: str) -> None:
        """Note that the broker does not know this approval key. Raises BrokerError."""


class Listener(Protocol):
    """Who the stream works for. All of it is called on the stream's own thread."""

    def wanted(self) -> Sequence[Topic]:
        """Return the topics to hold, most important first; asked again and again."""

    def speaking(self) -> Mapping[Topic, str]:
        """Return the feeds whose market trades continuously now, each with the name of its phase."""

    def handle(self, data: Data, arrived: float) -> None:
        """Take a data frame and the `time.perf_counter()` of its arrival.

        What it raises is logged and counted, and the stream goes on; Lost ends the connection.
        """

    def connected(self) -> None:
        """Hear that a connection stands and its first registration is sent."""

    def registered(self, topic: Topic) -> None:
        """Hear that a feed is held from now on: for the first time, or again. What came before was not heard."""

    def lost(self) -> None:
        """Hear that a connection is over."""

    def on_undecodable_notice(self) -> None:
        """Hear that a notice of our own orders could not be read."""


@dataclass(slots=True)
class StreamCounters:
    """What an operator may ask of the stream, since it started. Moments are of `time.monotonic()`, 0 for never.

    `last_frame_at` is also that of an echo, and of a connection made; `last_data_at` of market data alone, to the look.
    """

    frames: int = 0
    bad_frames: int = 0
    failures: int = 0
    connections: int = 0
    deaf: int = 0
    last_frame_at: float = field(default=0.0)
    last_data_at: float = field(default=0.0)


class Stream:
    """One socket of one app key. `usual` names feeds that are known to speak steadily (see `kis.liveness`)."""

    def __init__(
        self,
        url: str,
        *,
        door: ConnectionGate,
        listener: Listener,
        usual: Mapping[Topic, float] | None = None,
        name: str = "socket",
        longest_in_use_seconds: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        self._url = url
        self._name = name
        self._longest_in_use = longest_in_use_seconds
        self._times_in_use = 0
        self._door = door
        self._listener = listener
        self._voices = FeedRates(usual)
        self.subscriptions = Subscriptions()
        self.counters = StreamCounters()
        self.state = SocketState.CONNECTING
        self.state_since = time.monotonic()
        self.down_since: float | None = self.state_since
        self.lost_why = ""
        self.next_try_at: float | None = None
        self._anew_at = float("-inf")

    @property
    def held(self) -> frozenset[Topic]:
        return self.subscriptions.held

    @property
    def is_doubted(self) -> bool:
        """Whether another session held the key at the last try: a line alone proves nothing until it holds a feed."""
        return self._times_in_use > 0

    def run(self, stop: threading.Event) -> None:
        """Hold the socket until `stop` is set."""
        pause = FIRST_PAUSE_SECONDS
        while not stop.is_set():
            began = time.monotonic()
            try:
                if wait := self._door.acquire():
                    self._rest(stop, wait, f"too many connections lately; the next in {wait:.0f} s")
                    continue
                self._session(stop)
            except Exception as error:
                if not isinstance(error, (Lost, BrokerError, OSError, EOFError, websocket.WebSocketException)):
                    log.exception("the stream failed; it starts anew")
                least = self._least_pause(error)
                if time.monotonic() - began > HEALTHY_SECONDS:
                    pause = FIRST_PAUSE_SECONDS
                self._rest(stop, max(pause, least), str(error) or repr(error))
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _least_pause(self, error: Exception) -> float:
        """Return the seconds to wait at least: each time that the key is still in use twice as many."""
        if isinstance(error, KeyInUse):
            self._times_in_use += 1
            pause: float = KEY_IN_USE_PAUSE_SECONDS * 2 ** min(self._times_in_use - 1, 10)
            return min(pause, max(self._longest_in_use, KEY_IN_USE_PAUSE_SECONDS))
        return error.pause_seconds if isinstance(error, Lost) else 0.0

    def _rest(self, stop: threading.Event, seconds: float, why: str) -> None:
        log.warning("no %s (%s); next try in %.0f s", self._name, why, seconds)
        self.lost_why, self.next_try_at = why, time.monotonic() + seconds
        self._become(SocketState.LOST)
        stop.wait(seconds)
        self.next_try_at = None

    def _become(self, state: SocketState) -> None:
        self.state, self.state_since = state, time.monotonic()
        if state is SocketState.CONNECTED:
            self.down_since = None
        elif self.down_since is None:
            self.down_since = self.state_since

    def _session(self, stop: threading.Event) -> None:
        self._become(SocketState.CONNECTING)
        approval_key = self._door.approval_key()
        socket = websocket.create_connection(
            self._url,
            timeout=CONNECT_SECONDS,
            enable_multithread=False,
            **NO_PROXY,
        )
        connection = _Connection(self, socket, approval_key)
        try:
            connection.begin()
            while not stop.is_set():
                connection.turn()
        except BadApproval:
            self._door.invalidate(approval_key)
            raise
        finally:
            socket.close(timeout=1)
            self.subscriptions.reconnected()
            self._listener.lost()

    def is_deaf(self, now: float, counts: Mapping[Topic, int]) -> bool:
        held = self.subscriptions.held
        speaking = {topic: phase for topic, phase in self._listener.speaking().items() if topic in held}
        return self._voices.is_deaf(now, counts, speaking)

    def mute(self, now: float) -> list[Topic]:
        return self._voices.mute(now)


class BadApproval(Lost):
    """The approval key is not known to the server."""


class _Connection:
    """One life of the socket, turn by turn: all that has come is read, then what is due is sent."""

    def __init__(self, stream: Stream, socket: websocket.WebSocket, approval_key: str) -> None:
        self._stream = stream
        self._listener = stream._listener
        if socket.sock is None:
            raise Lost("the line was cut at once")
        self._socket, self._line = socket, socket.sock
        self._messages = Messages()
        self._approval_key = approval_key
        self._codec = Codec()
        self._counts: dict[tuple[str, str], int] = {}
        self._look_at = 0.0
        self._send_at = 0.0

    def begin(self) -> None:
        stream, now = self._stream, time.monotonic()
        stream.subscriptions.reconnected()
        stream._voices.connected(now)
        stream.counters.connections += 1
        stream.counters.last_frame_at = now
        stream._become(SocketState.CONNECTED)
        log.info("%s connected to %s", stream._name, stream._url)
        self._look(now)
        self._register(now)
        self._listener.connected()

    def turn(self) -> None:
        """Read what has come, wait a little where nothing has, and send what is due. Raises Lost, OSError."""
        try:
            messages = self._messages.take(websocket_frames.receive(self._line, PACE_SECONDS))
        except BrokenStream as error:
            raise Lost(str(error)) from error
        now = time.monotonic()
        if messages:
            self._take(messages, now)
        elif now - self._stream.counters.last_frame_at > SILENCE_SECONDS:
            raise Lost(f"nothing heard for {SILENCE_SECONDS:g} s")
        if now >= self._look_at:
            self._look(now)
        if now >= self._send_at:
            self._register(now)

    def _take(self, messages: Sequence[tuple[int, bytes]], now: float) -> None:
        arrived = time.perf_counter()
        counters = self._stream.counters
        counters.frames += len(messages)
        counters.last_frame_at = now
        ticks, is_closed = [], False
        for opcode, payload in messages:
            if opcode == websocket_frames.TEXT and payload[:1] == b"0":
                ticks.append(payload)  # our own fills, and the keys they need, do not wait behind them
            elif opcode in (websocket_frames.TEXT, websocket_frames.BINARY):
                self._hear(payload.decode("utf-8", "replace"), arrived)
            elif opcode == websocket_frames.PING:
                self._socket.pong(payload)
            elif opcode == websocket_frames.CLOSE:
                is_closed = True
        for payload in ticks:
            self._hear(payload.decode("utf-8", "replace"), arrived)
        if is_closed:
            raise Lost("the server closed the connection")

    def _hear(self, text: str, arrived: float) -> None:
        try:
            frame = self._codec.read(text)
            if isinstance(frame, Data):
                body = frame.body
                topic = (frame.tr_id, body[: body.find("^")])
                counts = self._counts
                counts[topic] = counts.get(topic, 0) + 1
                self._listener.handle(frame, arrived)
            else:
                self._answer(frame)
        except BadFrame as error:
            self._stream.counters.bad_frames += 1
            log.warning("frame skipped: %s", error)
            if error.tr_id in NOTICE_IDS:
                self._misheard()
        except (Lost, websocket.WebSocketException, OSError):
            raise
        except Exception:  # a fault in one handler must not deafen us to the next fill
            self._stream.counters.failures += 1
            log.exception("a frame of %s could not be handled", text[2:10])

    def _misheard(self) -> None:
        """Ask for new keys, and let the broker's list be asked for what we could not read."""
        now = time.monotonic()
        if now >= self._stream._anew_at:
            self._stream._anew_at = now + ANEW_SECONDS
            for topic in self._stream.subscriptions.held:
                if topic.is_own_fills:
                    self._stream.subscriptions.resubscribe(topic)
        self._listener.on_undecodable_notice()

    def _look(self, now: float) -> None:
        """Do what need not be done for every frame."""
        self._look_at = now + LOOK_SECONDS
        self._stream.subscriptions.want(self._listener.wanted())
        counts, self._counts = self._counts, {}
        if any(tr_id not in NOTICE_IDS for tr_id, _ in counts):
            self._stream.counters.last_data_at = now
        if self._stream.is_deaf(now, {Topic(*topic): count for topic, count in counts.items()}):
            self._stream.counters.deaf += 1
            raise Lost("no data comes while the market trades")
        for topic in self._stream.mute(now):
            log.warning("%s alone has fallen silent; it is registered anew", topic)
            self._stream.subscriptions.resubscribe(topic)

    def _register(self, now: float) -> None:
        due = self._stream.subscriptions.due(now)
        self._send_at = now + PACE_SECONDS
        if due:
            topic, register = due
            self._socket.send(registration(self._approval_key, topic.tr_id, topic.key, register=register))

    def _answer(self, control: ControlMessage) -> None:
        if control.is_ping:
            self._socket.send(control.text)
        elif control.code == KEY_IN_USE:
            raise KeyInUse("the app key is in use by another session")
        elif control.code == BAD_APPROVAL:
            raise BadApproval("the approval key is not known to the server")
        elif control.code == BAD_HTS_ID:
            raise Lost(f"the broker does not know KIS_HTS_ID: {control.words}", pause_seconds=LONGEST_PAUSE_SECONDS)
        elif topic := self._stream.subscriptions.answered(control, time.monotonic()):
            self._stream._times_in_use = 0
            self._listener.registered(topic)
