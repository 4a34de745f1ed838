"""WebSocket bytes to messages, however they are cut."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kis.websocket_frames import BINARY, CLOSE, LONGEST, PING, TEXT, BrokenStream, Messages, receive


def packed(payload: bytes, opcode: int = TEXT, *, is_last: bool = True) -> bytes:
    first = (0x80 if is_last else 0) | opcode
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, size)
    elif size < 1 << 16:
        head = struct.pack("!BBH", first, 126, size)
    else:
        head = struct.pack("!BBQ", first, 127, size)
    return head + payload


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
def test_every_length_is_read(size: int) -> None:
    assert Messages().take(packed(b"x" * size)) == [(TEXT, b"x" * size)]


@given(st.lists(st.binary(max_size=300), max_size=8), st.lists(st.integers(1, 400), max_size=30))
def test_it_does_not_matter_where_the_line_cuts(payloads: list[bytes], cuts: list[int]) -> None:
    data = b"".join(packed(payload) for payload in payloads)
    line, seen, at = Messages(), [], 0
    for cut in [*cuts, len(data)]:
        seen += line.take(data[at : at + cut])
        at += cut
    seen += line.take(data[at:])
    assert [payload for _, payload in seen] == payloads


def test_a_message_in_parts_is_one_and_control_frames_may_come_between() -> None:
    parts = packed(b"one ", is_last=False), packed(b"?", PING), packed(b"two ", 0, is_last=False), packed(b"three", 0)
    assert Messages().take(b"".join(parts)) == [(PING, b"?"), (TEXT, b"one two three")]


def test_other_kinds_are_told_apart() -> None:
    assert Messages().take(packed(b"b", BINARY) + packed(b"", CLOSE)) == [(BINARY, b"b"), (CLOSE, b"")]


@pytest.mark.parametrize(
    "data",
    [
        b"\x81\x85" + b"mask" + b"hello",  # masked
        b"\xc1\x01x",  # a reserved bit
        b"\x83\x01x",  # an opcode that is none
        b"\x80\x01x",  # the middle of nothing
        struct.pack("!BBQ", 0x81, 127, LONGEST + 1),
    ],
)
def test_what_is_no_websocket_is_told(data: bytes) -> None:
    with pytest.raises(BrokenStream):
        Messages().take(data)


def test_a_quiet_line_brings_nothing_and_a_cut_one_is_told() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert receive(ours, 0.01) == b""
        theirs.sendall(packed(b"hello"))
        assert Messages().take(receive(ours, 10)) == [(TEXT, b"hello")]
        theirs.close()
        with pytest.raises(EOFError):
            receive(ours, 10)
