"""How many frames a second the socket's own thread takes: line, message, codec, handler, all of our own loop.

A server in a process of its own sends H0STCNT0 frames of forty stocks as fast as the line takes them.
The goal is a figure, not a ratio: what a busy opening may bring. Beside it stands the library's own
app loop as it comes, which hands over text and does nothing with it.
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
# the peer's loop is slow: fewer tell as much
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
    realtime.read(data)


class _Ear:
    """Takes so many frames, then ends the stream."""

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

    def speaking(self) -> Mapping[Topic, str]:
        return dict.fromkeys(self.wanted(), "REGULAR")

    def connected(self) -> None: ...

    def registered(self, topic: Topic) -> None: ...

    def lost(self) -> None: ...

    def on_undecodable_notice(self) -> None: ...


class _OpenDoor:
    def acquire(self) -> float:
        return 0.0

    def approval_key(self) -> str:
        return "bench"

    def invalidate(self, value: str) -> None: ...


def _ours(url: str, handler: Callable[[Data], object]) -> float:
    stop = threading.Event()
    ear = _Ear(handler, stop)
    thread = threading.Thread(target=Stream(url, door=_OpenDoor(), listener=ear).run, args=(stop,), name="kis-socket")
    thread.start()
    thread.join()
    return (FRAMES - 1) / (ear.ended - ear.began)


def _peer(url: str) -> float:
    seen: list[float] = []

    def on_message(app: Any, message: str) -> None:
        seen.append(time.perf_counter())
        if len(seen) >= PEER_FRAMES:
            app.close()

    websocket.WebSocketApp(url, on_message=on_message).run_forever()
    return (PEER_FRAMES - 1) / (seen[PEER_FRAMES - 1] - seen[0])


def _median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


class _Server:
    """A process that talks and never listens."""

    def __enter__(self) -> str:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        return f"ws://127.0.0.1:{ours.recv()}/tryitout"

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.join()


def _serve(ready: Connection) -> None:
    chunk = _chunk()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ready.send(listener.getsockname()[1])
        while True:
            line, _ = listener.accept()
            threading.Thread(target=_talk, args=(line, chunk), daemon=True).start()


def _talk(line: socket.socket, chunk: bytes) -> None:
    with line:
        request = b""
        while b"\r\n\r\n" not in request:
            request += line.recv(4096)
        key = next(words.split(b":", 1)[1].strip() for words in request.split(b"\r\n") if b"Sec-WebSocket-Key" in words)
        digest = hashlib.sha1(key + _ACCEPT_SALT.encode()).digest()  # noqa: S324 - the protocol's own choice
        accept = base64.b64encode(digest).decode()
        head = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        line.sendall(f"{head}Sec-WebSocket-Accept: {accept}\r\n\r\n".encode())
        try:
            while True:
                line.sendall(chunk)
        except OSError:  # they have heard enough
            return


def _chunk() -> bytes:
    """Return a few hundred frames as they stand on the wire, the stocks in turns."""
    sent = []
    for n in range(STOCKS * 10):
        payload = TRADE.replace("005930", f"{n % STOCKS:06d}").encode()
        sent.append(struct.pack("!BBH", 0x81, 126, len(payload)) + payload)
    return b"".join(sent)
