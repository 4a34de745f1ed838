"""The one socket: connect, register, read, answer, reconnect. Codec and subscriptions do the thinking.

It runs in a thread of its caller's. The server's PINGPONG is echoed; no pings of our own. After a
failure it waits 1, 2, 4 … 60 seconds (spec §7.2), and longer where the broker says that the key is in
use: fast loops get a key blocked.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import websocket

from aegis.broker import BrokerError
from kis.codec import BadFrame, Codec, Control, Data, registration
from kis.status import SocketState
from kis.subscriptions import Subscriptions, Topic

log = logging.getLogger(__name__)

FIRST_PAUSE_SECONDS = 1.0
LONGEST_PAUSE_SECONDS = 60.0
KEY_IN_USE = "OPSP8996"
KEY_IN_USE_PAUSE_SECONDS = 20.0
BAD_APPROVAL = "OPSP0011"
CONNECT_SECONDS = 5.0
TICK_SECONDS = 0.5
# the server's own PINGPONG comes every 10 to 110 seconds
SILENCE_SECONDS = 150.0
# a connection that lived this long had nothing wrong with it: the next pause starts small again
HEALTHY_SECONDS = 30.0


class Lost(Exception):
    """The connection is over; `pause_seconds` is the least to wait before the next."""

    def __init__(self, why: str, *, pause_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.pause_seconds = pause_seconds


@dataclass(slots=True)
class Counters:
    """What an operator may ask of the stream, since it started."""

    frames: int = 0
    bad_frames: int = 0
    failures: int = 0
    connections: int = 0
    # time.monotonic(), 0 for never
    last_frame_at: float = field(default=0.0)


class Stream:
    """One socket of one app key.

    `wanted` is asked again and again for the topics to hold, most important first. `handle` gets each
    data frame with the `time.perf_counter()` of its arrival; what it raises is logged and counted, and
    the stream goes on. `connected` is called after each (re)connection once registrations are sent, `lost`
    when one is over.
    """

    def __init__(
        self,
        url: str,
        *,
        approval_key: Callable[[], str],
        wanted: Callable[[], Sequence[Topic]],
        handle: Callable[[Data, float], None],
        connected: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._url = url
        self._approval_key = approval_key
        self._wanted = wanted
        self._handle = handle
        self._connected = connected
        self._lost = lost
        self.subscriptions = Subscriptions()
        self._codec = Codec()
        self.counters = Counters()
        self.state = SocketState.CONNECTING
        self.state_since = time.monotonic()
        self.lost_why = ""
        self.next_try_at: float | None = None

    @property
    def held(self) -> frozenset[Topic]:
        return self.subscriptions.held

    def _become(self, state: SocketState) -> None:
        self.state, self.state_since = state, time.monotonic()

    def run(self, stop: threading.Event) -> None:
        """Hold the socket until `stop` is set."""
        pause = FIRST_PAUSE_SECONDS
        while not stop.is_set():
            began = time.monotonic()
            try:
                self._session(stop)
            except Exception as error:
                if not isinstance(error, (Lost, BrokerError, OSError, websocket.WebSocketException)):
                    log.exception("the stream failed; it starts anew")
                least = error.pause_seconds if isinstance(error, Lost) else 0.0
                if time.monotonic() - began > HEALTHY_SECONDS:
                    pause = FIRST_PAUSE_SECONDS
                wait = max(pause, least)
                log.warning("socket lost (%s); next try in %g s", error, wait)
                self.lost_why, self.next_try_at = str(error), time.monotonic() + wait
                self._become(SocketState.LOST)
                stop.wait(wait)
                self.next_try_at = None
                pause = min(pause * 2, LONGEST_PAUSE_SECONDS)

    def _session(self, stop: threading.Event) -> None:
        self._become(SocketState.CONNECTING)
        approval_key = self._approval_key()
        socket = websocket.create_connection(
            self._url, timeout=CONNECT_SECONDS, skip_utf8_validation=True, enable_multithread=False
        )
        try:
            self._begin(socket, approval_key)
            while not stop.is_set():
                self._read_one(socket)
                self._register(socket, approval_key)
        finally:
            socket.close(timeout=1)
            self._lost()

    def _begin(self, socket: websocket.WebSocket, approval_key: str) -> None:
        socket.settimeout(TICK_SECONDS)
        self._codec = Codec()
        self.subscriptions.reconnected()
        self._next_look = 0.0
        self.counters.connections += 1
        self.counters.last_frame_at = time.monotonic()
        self._become(SocketState.CONNECTED)
        log.info("socket connected to %s", self._url)
        self._register(socket, approval_key)
        self._connected()

    def _register(self, socket: websocket.WebSocket, approval_key: str) -> None:
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + TICK_SECONDS
        self.subscriptions.want(self._wanted())
        for topic, register in self.subscriptions.due(now):
            socket.send(registration(approval_key, topic.tr_id, topic.key, register=register))

    def _read_one(self, socket: websocket.WebSocket) -> None:
        try:
            opcode, payload = socket.recv_data()
        except websocket.WebSocketTimeoutException:
            if time.monotonic() - self.counters.last_frame_at > SILENCE_SECONDS:
                raise Lost(f"nothing heard for {SILENCE_SECONDS:g} s") from None
            return
        if opcode == websocket.ABNF.OPCODE_CLOSE:
            raise Lost("the server closed the connection")
        arrived = time.perf_counter()
        self.counters.frames += 1
        self.counters.last_frame_at = time.monotonic()
        text = payload.decode("utf-8", "replace") if isinstance(payload, bytes) else payload
        try:
            frame = self._codec.read(text)
            if isinstance(frame, Control):
                self._answer(socket, frame)
            else:
                self._handle(frame, arrived)
        except BadFrame as error:
            self.counters.bad_frames += 1
            log.warning("frame skipped: %s", error)
        except (Lost, websocket.WebSocketException, OSError):
            raise
        except Exception:  # a fault in one handler must not deafen us to the next fill
            self.counters.failures += 1
            log.exception("a frame could not be handled: %.300r", text)

    def _answer(self, socket: websocket.WebSocket, control: Control) -> None:
        if control.is_ping:
            socket.send(control.text)
        elif control.code == KEY_IN_USE:
            raise Lost("the app key is in use by another session", pause_seconds=KEY_IN_USE_PAUSE_SECONDS)
        elif control.code == BAD_APPROVAL:
            raise Lost("the approval key is not known to the server")
        else:
            self.subscriptions.answered(control, time.monotonic())
