"""How many frames a second the socket's thread handles: socket, message, codec and handler, all in our own loop.

A server in a process of its own sends H0STCNT0 frames of forty stocks as fast as the socket takes them.
The goal is a figure, not a ratio: the frames of a busy opening. It is compared with the library's own
app loop, unmodified, which delivers text and does nothing with it.
"""

import base64
import hashlib
import multiprocessing
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any

import websocket

from bench.frames import TRADE
from bench.report import Row
from kis import realtime
from kis.codec import Data
from kis.stream import Stream
from kis.subscriptions import Topic

GOAL_FRAMES = 40_000
STOCKS = 40
FRAMES = 200_000
# the peer's loop is slow: fewer frames measure it as well
PEER_FRAMES = 20_000
ROUNDS = 3
_ACCEPT_SALT = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def rows() -> list[Row]:
    with _Server() as url:
        ours = _median([_ours(url, handler) for handler in (_nothing,) * ROUNDS])
        typed = _median([_ours(url, _typed) for _ in range(ROUNDS)])
        peer = _median([_peer(url) for _ in range(ROUNDS)])
    print(f"socket thread, frames a second: {ours:,.0f}, read to typed trades {typed:,.0f}; app loop {peer:,.0f}")
    return [
        Row("socket_thread_frames", ours, GOAL_FRAMES, "frames a second, to a handler that does nothing"),
        Row("socket_thread_typed_frames", typed, GOAL_FRAMES, "frames a second, read to typed trades"),
        Row("socket_thread_vs_app_loop", ours / peer, 4, "websocket-client's WebSocketApp as it comes, text only"),
    ]


def _nothing(data: Data) -> None:
    """Do nothing."""


def _typed(data: Data) -> None:
    realtime.read_records(data)


class _CountingListener:
    """Handles FRAMES frames, then ends the stream."""

    def __init__(self, handler: Callable[[Data], object], stop: threading.Event) -> None:
        self._handler = handler
        self._stop = stop
        self.count = 0
        self.began = self.ended = 0.0

    def handle(self, data: Data, arrived: float) -> None:
        self._handler(data)
        self.count += 1
        if self.count == 1:
            self.began = arrived
        elif self.count == FRAMES:
            self.ended = time.perf_counter()
            self._stop.set()

    def wanted(self) -> Sequence[Topic]:
        return [Topic("H0STCNT0", f"{n:06d}") for n in range(STOCKS)]

    def expected_feeds(self) -> Mapping[Topic, str]:
        return dict.fromkeys(self.wanted(), "REGULAR")

    def on_connected(self) -> None: ...

    def on_registered(self, topic: Topic) -> None: ...

    def on_lost(self) -> None: ...

    def on_undecodable_notice(self) -> None: ...


class _OpenGate:
    def acquire(self) -> float:
        return 0.0

    def approval_key(self) -> str:
        return "bench"

    def invalidate(self, value: str) -> None: ...


def _ours(url: str, handler: Callable[[Data], object]) -> float:
    stop = threading.Event()
    listener = _CountingListener(handler, stop)
    thread = threading.Thread(
        target=Stream(url, gate=_OpenGate(), listener=listener).run, args=(stop,), name="kis-socket"
    )
    thread.start()
    thread.join()
    return (FRAMES - 1) / (listener.ended - listener.began)


def _peer(url: str) -> float:
    arrival_times: list[float] = []

    def on_message(app: Any, message: str) -> None:
        arrival_times.append(time.perf_counter())
        if len(arrival_times) >= PEER_FRAMES:
            app.close()

    websocket.WebSocketApp(url, on_message=on_message).run_forever()
    return (PEER_FRAMES - 1) / (arrival_times[PEER_FRAMES - 1] - arrival_times[0])


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


class _Server:
    """A process that sends frames and reads only the handshake."""

    def __enter__(self) -> str:
        context = multiprocessing.get_context("spawn")
        parent_end, child_end = context.Pipe()
        self._process = context.Process(target=_serve, args=(child_end,), daemon=True)
        self._process.start()
        return f"ws://127.0.0.1:{parent_end.recv()}/tryitout"

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.join()


def _serve(ready: Connection) -> None:
    chunk = _chunk()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready.send(listener.getsockname()[1])
        while True:
            client, _ = listener.accept()
            threading.Thread(target=_send_frames, args=(client, chunk), daemon=True).start()


def _send_frames(client: socket.socket, chunk: bytes) -> None:
    with client:
        request = b""
        while b"\r\n\r\n" not in request:
            request += client.recv(4096)
        key = next(
            header.split(b":", 1)[1].strip() for header in request.split(b"\r\n") if b"Sec-WebSocket-Key" in header
        )
        digest = hashlib.sha1(key + _ACCEPT_SALT.encode()).digest()  # noqa: S324 - the protocol requires SHA-1
        accept = base64.b64encode(digest).decode()
        head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        client.sendall(f"{head}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        try:
            while True:
                client.sendall(chunk)
        except OSError:  # the client has closed the connection
            return


def _chunk() -> bytes:
    """Return a few hundred frames in wire format, one stock after the other."""
    frames = []
    for n in range(STOCKS * 10):
        payload = TRADE.replace("005930", f"{n % STOCKS:06d}").encode()
        frames.append(struct.pack("!BBH", 0x81, 126, len(payload)) + payload)
    return b"".join(frames)
