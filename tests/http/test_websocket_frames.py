"""Frames as a relay sees them, compared with wsproto, and what is refused of them."""

from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from bridgepool.http import (
    ControlFrame,
    DataPiece,
    FrameScanner,
    Opcode,
    encode_close,
    encode_frame,
    websocket_accept,
)

_EVENTS = st.one_of(
    st.builds(TextMessage, data=st.text(max_size=300), message_finished=st.booleans()),
    st.builds(Ping, payload=st.binary(max_size=125)),
    st.builds(Pong, payload=st.binary(max_size=125)),
    st.builds(BytesMessage, data=st.binary(max_size=70000).map(bytearray)),
)


def _sent(events: list[Event], kind: ConnectionType) -> bytes:
    """Return the bytes of these events; a message that was begun is ended at the end."""
    connection = Connection(kind)
    data, open_message = b"", False
    for event in events:
        if open_message and isinstance(event, BytesMessage):
            continue
        if isinstance(event, TextMessage):
            open_message = not event.message_finished
        data += connection.send(event)
    return data + (connection.send(TextMessage("", message_finished=True)) if open_message else b"")


@given(
    st.lists(_EVENTS, max_size=6),
    st.booleans(),
    st.lists(st.integers(1, 200), min_size=1),
    st.sampled_from([1, 2, 3, math.inf]),
)
def test_whatever_is_split_how_the_bytes_pass_and_the_content_is_known(
    events: list[Event], from_client: bool, sizes: list[int], most: float
) -> None:
    data = _sent(events, ConnectionType.CLIENT if from_client else ConnectionType.SERVER)
    scanner = FrameScanner(from_client, 10**6)
    found: list[DataPiece | ControlFrame] = []
    position = 0
    for size in itertools.cycle([*sizes, 5000]):
        found += scanner.feed(data[position : position + size], most)
        while scanner.has_more:
            found += scanner.feed(b"", most)
        position += size
        if position >= len(data):
            break
    assert scanner.error is None
    assert not scanner.in_message
    other = Connection(ConnectionType.SERVER if from_client else ConnectionType.CLIENT)
    other.receive_data(data)
    expected: list[bytes] = []
    controls: list[tuple[Opcode, bytes]] = []
    for event in other.events():
        if isinstance(event, (TextMessage, BytesMessage)):
            text = event.data
            expected.append(text.encode() if isinstance(text, str) else bytes(text))
        elif isinstance(event, (Ping, Pong)):
            kind = Opcode.PING if isinstance(event, Ping) else Opcode.PONG
            controls.append((kind, bytes(event.payload)))
    pieces = [each for each in found if isinstance(each, DataPiece)]
    assert b"".join(each.payload for each in pieces) == b"".join(expected)
    assert [(each.opcode, each.payload) for each in found if isinstance(each, ControlFrame)] == (
        controls
    )
    again = Connection(ConnectionType.SERVER if from_client else ConnectionType.CLIENT)
    again.receive_data(b"".join(each.raw for each in pieces))
    messages = [event for event in again.events() if isinstance(event, (TextMessage, BytesMessage))]
    assert sum(event.message_finished for event in messages) == sum(each.ends for each in pieces)
    assert sum(each.begins for each in pieces) == sum(each.ends for each in pieces)


@pytest.mark.parametrize(
    ("data", "masked", "code"),
    [
        (b"\xc1\x00", False, 1002),  # a compressed message
        (b"\x83\x00", False, 1002),  # an unknown opcode
        (b"\x81\x80\0\0\0\0", False, 1002),  # a server that masks
        (b"\x81\x00", True, 1002),  # a client that does not
        (b"\x80\x00", False, 1002),  # a message that goes on without a beginning
        (b"\x01\x01a\x81\x01b", False, 1002),  # a message in another
        (b"\x09\x00", False, 1002),  # a ping in parts
        (b"\x89\x7e\x00\x80", False, 1002),  # a long ping
        (b"\x81\x7f\x3f\xff\xff\xff\xff\xff\xff\xff", False, 1009),  # of 2**62 bytes
        (b"\x01\x7e\x00\x80" + b"x" * 128 + b"\x80\x7e\x00\xff", False, 1009),  # in two frames
    ],
)
def test_what_is_not_acceptable_is_refused_by_its_head(
    data: bytes, masked: bool, code: int
) -> None:
    scanner = FrameScanner(masked, 300)
    for byte in range(len(data)):
        scanner.feed(data[byte : byte + 1])
    assert scanner.error is not None
    assert scanner.error.code == code
    assert scanner.feed(b"\x81\x01a") == []


def test_frames_are_written_as_wsproto_reads_them() -> None:
    for length in (0, 125, 126, 65535, 65536):
        for mask in (b"", b"\x01\x02\x03\x04"):
            kind = ConnectionType.SERVER if mask else ConnectionType.CLIENT
            connection = Connection(kind)
            connection.receive_data(encode_frame(Opcode.BINARY, b"x" * length, mask=mask))
            [event] = connection.events()
            assert isinstance(event, BytesMessage)
            assert bytes(event.data) == b"x" * length
    connection = Connection(ConnectionType.CLIENT)
    connection.receive_data(encode_frame(Opcode.CLOSE, encode_close(1012, "é" * 200)))
    [closed] = connection.events()
    assert isinstance(closed, CloseConnection)
    assert closed.code == 1012
    assert websocket_accept(b"dGhlIHNhbXBsZSBub25jZQ==") == b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
