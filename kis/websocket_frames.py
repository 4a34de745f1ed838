"""Reads messages from a WebSocket's bytes (RFC 6455, receiving only), about a hundred with one system call.

The library that opens the socket reads frame by frame, with several system calls each, which is too slow for the
thousands of frames per second of a busy market. It still does the handshake and sends.
"""

import socket

TEXT, BINARY, CLOSE, PING, PONG = 0x1, 0x2, 0x8, 0x9, 0xA
CHUNK = 1 << 18
# the broker's longest frames have some kilobytes; a greater length means that the stream is broken
LONGEST = 1 << 24


class BrokenStream(Exception):
    """The bytes are not a valid WebSocket stream."""


def receive(line: socket.socket, seconds: float) -> bytes:
    """Return the bytes received, empty if none arrive within `seconds`. Raises EOFError at the end, and OSError."""
    line.settimeout(seconds)
    try:
        chunk = line.recv(CHUNK)
    except TimeoutError:
        return b""
    if not chunk:
        raise EOFError("the line is cut")
    return chunk


class Messages:
    """Assembles the messages of one connection from its bytes. A message is (opcode, payload)."""

    def __init__(self) -> None:
        self._rest = b""
        self._opcode = 0
        self._parts: list[bytes] = []

    def take(self, chunk: bytes) -> list[tuple[int, bytes]]:
        """Return the messages that `chunk` completes. Raises BrokenStream."""
        data = self._rest + chunk if self._rest else chunk
        messages: list[tuple[int, bytes]] = []
        at, size = 0, len(data)
        while size - at >= 2:
            first, length, start = data[at], data[at + 1], at + 2
            if length == 126:
                start = at + 4
                if size < start:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
            elif length == 127:
                start = at + 10
                if size < start:
                    break
                length = int.from_bytes(data[at + 2 : start], "big")
            elif length > 127:
                raise BrokenStream("a server's frame is masked")
            end = start + length
            if end > size:
                if length > LONGEST:
                    raise BrokenStream(f"a frame of {length} bytes")
                break
            if first == 0x81:  # an unfragmented text message, as nearly every frame is
                messages.append((TEXT, data[start:end]))
            else:
                self._take_part(first, data[start:end], messages)
            at = end
        self._rest = data[at:]
        return messages

    def _take_part(self, first: int, payload: bytes, messages: list[tuple[int, bytes]]) -> None:
        opcode, is_last = first & 0x0F, first & 0x80
        if first & 0x70 or opcode not in (0, TEXT, BINARY, CLOSE, PING, PONG):
            raise BrokenStream(f"a frame that begins with {first:#04x}")
        if opcode >= CLOSE:  # control frames may be sent between the parts of a message
            messages.append((opcode, payload))
            return
        if opcode:
            self._opcode, self._parts = opcode, []
        elif not self._opcode:
            raise BrokenStream("the middle of a message without its beginning")
        self._parts.append(payload)
        if is_last:
            messages.append((self._opcode, b"".join(self._parts)))
            self._opcode, self._parts = 0, []
