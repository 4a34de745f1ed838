"""One WebSocket: connects, registers feeds, reads, answers, reconnects. Rules are in codec, subscriptions and liveness.

It runs on a thread of the caller. The server's PINGPONG is echoed; AEGIS sends no pings itself. After a failure it
waits 1, 2, 4 … 60 seconds (spec §7.2). It waits longer, with doubled pauses, if the broker says that the key is in use,
and as long as the connection limiter requires after too many attempts: the broker blocks keys that reconnect quickly.
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
# the longest pause for a further key that another program keeps using
LONGEST_IN_USE_SECONDS = 600.0
BAD_APPROVAL = "OPSP0011"
BAD_HTS_ID = "OPSP0017"
CONNECT_SECONDS = 5.0
# The connection never goes through a proxy that environment variables name. The library checks `http_no_proxy` only if
# a proxy is given, so this one is given and never used
NO_PROXY: Mapping[str, Any] = {"http_proxy_host": "none.invalid", "http_no_proxy": ["*"]}
CHECK_SECONDS = 0.5
# the server's own PINGPONG comes every 10 to 110 seconds
SILENCE_SECONDS = 150.0
# after a connection that lasted this long, the next pause is short again
HEALTHY_SECONDS = 30.0
# a notice that cannot be read requests new AES keys, once in this time at most
RESUBSCRIBE_SECONDS = 30.0


class Lost(Exception):
    """The connection ended. `pause_seconds` is the minimum wait before the next one."""

    def __init__(self, why: str, *, pause_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.pause_seconds = pause_seconds


class KeyInUse(Lost):
    """Another session holds the app key."""


class ConnectionGate(Protocol):
    """Permits connections. Implemented by `kis.connection_limiter.ConnectionLimiter`."""

    def acquire(self) -> float:
        """Return 0, or the seconds to wait before one more attempt. Raises BrokerError."""

    def approval_key(self) -> str:
        """Return the key that opens a socket. Raises BrokerError."""

    def invalidate(self, value: str) -> None:
        """Discard an approval key that the broker refused. Raises BrokerError."""


class Listener(Protocol):
    """The user of the stream. The stream calls all methods on its own thread."""

    def wanted(self) -> Sequence[Topic]:
        """Return the topics to hold, most important first. Called every CHECK_SECONDS."""

    def expected_feeds(self) -> Mapping[Topic, str]:
        """Return the feeds whose market trades continuously now, each with the name of its phase."""

    def handle(self, data: Data, arrived: float) -> None:
        """Handle a data frame. `arrived` is the `time.perf_counter()` of its arrival.

        Errors that it raises are logged and counted, and the stream continues. Lost ends the connection.
        """

    def on_connected(self) -> None:
        """Called when a connection is open and its first registration is sent."""

    def on_registered(self, topic: Topic) -> None:
        """Called when a feed is registered, for the first time or again. Data from before was not received."""

    def on_lost(self) -> None:
        """Called when a connection ended."""

    def on_undecodable_notice(self) -> None:
        """Called when a notice of our own orders could not be read."""


@dataclass(slots=True)
class StreamCounters:
    """Counters of a stream since it started. Times are of `time.monotonic()`, 0 for never.

    Any frame updates `last_frame_at`, a PINGPONG too, and so does a new connection. Only market data updates
    `last_data_at`, with a precision of CHECK_SECONDS.
    """

    frames: int = 0
    bad_frames: int = 0
    failures: int = 0
    connections: int = 0
    dead_connections: int = 0
    last_frame_at: float = field(default=0.0)
    last_data_at: float = field(default=0.0)


class Stream:
    """One socket of one app key. `known_rates` has feeds with a known, steady rate (see `kis.liveness`)."""

    def __init__(
        self,
        url: str,
        *,
        gate: ConnectionGate,
        listener: Listener,
        known_rates: Mapping[Topic, float] | None = None,
        name: str = "socket",
        longest_in_use_seconds: float = LONGEST_PAUSE_SECONDS,
    ) -> None:
        self._url = url
        self._name = name
        self._longest_in_use = longest_in_use_seconds
        self._in_use_count = 0
        self._gate = gate
        self._listener = listener
        self._feed_rates = FeedRates(known_rates)
        self.subscriptions = Subscriptions()
        self.counters = StreamCounters()
        self.state = SocketState.CONNECTING
        self.state_since = time.monotonic()
        self.down_since: float | None = self.state_since
        self.lost_reason = ""
        self.next_try_at: float | None = None
        self._resubscribe_at = float("-inf")

    @property
    def held(self) -> frozenset[Topic]:
        return self.subscriptions.held

    @property
    def is_key_in_use(self) -> bool:
        """Whether another session used the key at the last attempt, and no feed is registered since then.

        A connection alone proves nothing: the server refuses a key in use only after the connection.
        """
        return self._in_use_count > 0

    def run(self, stop: threading.Event) -> None:
        """Hold the socket until `stop` is set."""
        pause = FIRST_PAUSE_SECONDS
        while not stop.is_set():
            started_at = time.monotonic()
            try:
                if wait := self._gate.acquire():
                    self._wait(stop, wait, f"too many connections lately; the next in {wait:.0f} s")
                    continue
                self._run_session(stop)
            except Exception as error:
                if not isinstance(error, (Lost, BrokerError, OSError, EOFError, websocket.WebSocketException)):
                    log.exception("the stream failed; it restarts")
                least_pause = self._least_pause(error)
                if time.monotonic() - started_at > HEALTHY_SECONDS:
                    pause = FIRST_PAUSE_SECONDS
                self._wait(stop, max(pause, least_pause), str(error) or repr(error))
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _least_pause(self, error: Exception) -> float:
        """Return the minimum seconds to wait. They double each time that the key is still in use."""
        if isinstance(error, KeyInUse):
            self._in_use_count += 1
            pause: float = KEY_IN_USE_PAUSE_SECONDS * 2 ** min(self._in_use_count - 1, 10)
            return min(pause, max(self._longest_in_use, KEY_IN_USE_PAUSE_SECONDS))
        return error.pause_seconds if isinstance(error, Lost) else 0.0

    def _wait(self, stop: threading.Event, seconds: float, why: str) -> None:
        log.warning("no %s (%s); next try in %.0f s", self._name, why, seconds)
        self.lost_reason, self.next_try_at = why, time.monotonic() + seconds
        self._set_state(SocketState.LOST)
        stop.wait(seconds)
        self.next_try_at = None

    def _set_state(self, state: SocketState) -> None:
        self.state, self.state_since = state, time.monotonic()
        if state is SocketState.CONNECTED:
            self.down_since = None
        elif self.down_since is None:
            self.down_since = self.state_since

    def _run_session(self, stop: threading.Event) -> None:
        self._set_state(SocketState.CONNECTING)
        approval_key = self._gate.approval_key()
        socket = websocket.create_connection(
            self._url,
            timeout=CONNECT_SECONDS,
            enable_multithread=False,
            **NO_PROXY,
        )
        connection = _Connection(self, socket, approval_key)
        try:
            connection.start()
            while not stop.is_set():
                connection.turn()
        except BadApproval:
            self._gate.invalidate(approval_key)
            raise
        finally:
            socket.close(timeout=1)
            self.subscriptions.clear()
            self._listener.on_lost()

    def detect_dead_connection(self, now: float, counts: Mapping[Topic, int]) -> bool:
        held = self.subscriptions.held
        expected = {topic: phase for topic, phase in self._listener.expected_feeds().items() if topic in held}
        return self._feed_rates.detect_dead_connection(now, counts, expected)

    def detect_silent_feeds(self, now: float) -> list[Topic]:
        return self._feed_rates.detect_silent_feeds(now)


class BadApproval(Lost):
    """The server does not know the approval key."""


class _Connection:
    """One connection. Each turn reads everything that was received, then sends what is due."""

    def __init__(self, stream: Stream, socket: websocket.WebSocket, approval_key: str) -> None:
        self._stream = stream
        self._listener = stream._listener
        if socket.sock is None:
            raise Lost("the line was cut at once")
        self._socket, self._raw_socket = socket, socket.sock
        self._messages = Messages()
        self._approval_key = approval_key
        self._codec = Codec()
        self._counts: dict[tuple[str, str], int] = {}
        self._check_at = 0.0
        self._send_at = 0.0

    def start(self) -> None:
        stream, now = self._stream, time.monotonic()
        stream.subscriptions.clear()
        stream._feed_rates.restart(now)
        stream.counters.connections += 1
        stream.counters.last_frame_at = now
        stream._set_state(SocketState.CONNECTED)
        log.info("%s connected to %s", stream._name, stream._url)
        self._check(now)
        self._register(now)
        self._listener.on_connected()

    def turn(self) -> None:
        """Read what was received, or wait up to PACE_SECONDS for it, and send what is due. Raises Lost, OSError."""
        try:
            messages = self._messages.take(websocket_frames.receive(self._raw_socket, PACE_SECONDS))
        except BrokenStream as error:
            raise Lost(str(error)) from error
        now = time.monotonic()
        if messages:
            self._read(messages, now)
        elif now - self._stream.counters.last_frame_at > SILENCE_SECONDS:
            raise Lost(f"nothing heard for {SILENCE_SECONDS:g} s")
        if now >= self._check_at:
            self._check(now)
        if now >= self._send_at:
            self._register(now)

    def _read(self, messages: Sequence[tuple[int, bytes]], now: float) -> None:
        arrived = time.perf_counter()
        counters = self._stream.counters
        counters.frames += len(messages)
        counters.last_frame_at = now
        market_data, is_closed = [], False
        for opcode, payload in messages:
            if opcode == websocket_frames.TEXT and payload[:1] == b"0":
                market_data.append(payload)  # handled last: our own fills, and the AES keys they need, come first
            elif opcode in (websocket_frames.TEXT, websocket_frames.BINARY):
                self._handle_text(payload.decode("utf-8", "replace"), arrived)
            elif opcode == websocket_frames.PING:
                self._socket.pong(payload)
            elif opcode == websocket_frames.CLOSE:
                is_closed = True
        for payload in market_data:
            self._handle_text(payload.decode("utf-8", "replace"), arrived)
        if is_closed:
            raise Lost("the server closed the connection")

    def _handle_text(self, text: str, arrived: float) -> None:
        try:
            frame = self._codec.read(text)
            if isinstance(frame, Data):
                body = frame.body
                topic = (frame.tr_id, body[: body.find("^")])
                counts = self._counts
                counts[topic] = counts.get(topic, 0) + 1
                self._listener.handle(frame, arrived)
            else:
                self._handle_control(frame)
        except BadFrame as error:
            self._stream.counters.bad_frames += 1
            log.warning("frame skipped: %s", error)
            if error.tr_id in NOTICE_IDS:
                self._on_undecodable_notice()
        except (Lost, websocket.WebSocketException, OSError):
            raise
        except Exception:  # a fault in one handler must not stop the next fill
            self._stream.counters.failures += 1
            log.exception("a frame of %s could not be handled", text[2:10])

    def _on_undecodable_notice(self) -> None:
        """Request new AES keys, and report the notice: the broker's order list shows what it said."""
        now = time.monotonic()
        if now >= self._stream._resubscribe_at:
            self._stream._resubscribe_at = now + RESUBSCRIBE_SECONDS
            for topic in self._stream.subscriptions.held:
                if topic.is_own_fills:
                    self._stream.subscriptions.resubscribe(topic)
        self._listener.on_undecodable_notice()

    def _check(self, now: float) -> None:
        """Update the wanted topics and check for silent feeds. Done every CHECK_SECONDS, not for every frame."""
        self._check_at = now + CHECK_SECONDS
        self._stream.subscriptions.set_wanted(self._listener.wanted())
        counts, self._counts = self._counts, {}
        if any(tr_id not in NOTICE_IDS for tr_id, _ in counts):
            self._stream.counters.last_data_at = now
        if self._stream.detect_dead_connection(now, {Topic(*topic): count for topic, count in counts.items()}):
            self._stream.counters.dead_connections += 1
            raise Lost("no data comes while the market trades")
        for topic in self._stream.detect_silent_feeds(now):
            log.warning("only %s is silent; it is registered again", topic)
            self._stream.subscriptions.resubscribe(topic)

    def _register(self, now: float) -> None:
        request = self._stream.subscriptions.take_next_request(now)
        self._send_at = now + PACE_SECONDS
        if request:
            topic, register = request
            self._socket.send(registration(self._approval_key, topic.tr_id, topic.key, register=register))

    def _handle_control(self, control: ControlMessage) -> None:
        if control.is_ping:
            self._socket.send(control.text)
        elif control.code == KEY_IN_USE:
            raise KeyInUse("the app key is in use by another session")
        elif control.code == BAD_APPROVAL:
            raise BadApproval("the approval key is not known to the server")
        elif control.code == BAD_HTS_ID:
            raise Lost(f"the broker does not know KIS_HTS_ID: {control.message}", pause_seconds=LONGEST_PAUSE_SECONDS)
        elif topic := self._stream.subscriptions.handle_reply(control, time.monotonic()):
            self._stream._in_use_count = 0
            self._listener.on_registered(topic)
