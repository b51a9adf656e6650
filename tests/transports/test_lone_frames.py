"""Frames that come alone: told as RFC 6455 says, and nothing else is touched."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.transports._lone_frames import LoneFrames

MASK = b"\x01\x02\x03\x04"
BY_WHOM = pytest.mark.parametrize("masked", [True, False], ids=["client", "server"])


def frame(first: int, payload: bytes, *, masked: bool) -> bytes:
    """What a client or a server sends: RFC 6455 section 5.2."""
    size, bit = len(payload), 0x80 if masked else 0
    if size < 126:
        head = bytes((first, bit | size))
    elif size < 65536:
        head = struct.pack("!BBH", first, bit | 126, size)
    else:
        head = struct.pack("!BBQ", first, bit | 127, size)
    if not masked:
        return head + payload
    return head + MASK + bytes(byte ^ MASK[at % 4] for at, byte in enumerate(payload))


@BY_WHOM
@pytest.mark.parametrize("payload", [b"", b"1", b"hello", bytes(range(125))])
def test_a_ping_that_comes_alone_is_told(payload: bytes, masked: bool) -> None:
    assert LoneFrames(masked).payload(frame(0x89, payload, masked=masked)) == payload


@BY_WHOM
@pytest.mark.parametrize("size", [0, 1, 3, 125, 126, 127, 1000, 65_535])
def test_a_message_that_comes_alone_is_told(size: int, masked: bool) -> None:
    payload = (bytes(range(251)) * 262)[:size]
    assert LoneFrames(masked).payload(frame(0x82, payload, masked=masked)) == payload
    assert LoneFrames(masked).payload(bytearray(frame(0x82, payload, masked=masked))) == payload


@BY_WHOM
def test_whatever_else_comes_is_left_to_the_websocket_library(masked: bool) -> None:
    def made(first: int, payload: bytes = b"") -> bytes:
        return frame(first, payload, masked=masked)

    long_head = bytes((0x82, 126 | (0x80 if masked else 0), 0, 5)) + MASK * masked + b"hello"
    for data in (
        made(0x89) + made(0x89),
        made(0x82, b"two") + made(0x82, b"at once"),
        made(0x89, b"1")[:-1],
        made(0x82, b"1")[:-1],
        made(0x82, b"x" * 65_536),
        made(0x81, b"a text"),
        made(0x02, b"in fragments"),
        made(0x80, b"the last fragment"),
        made(0x88),
        made(0x8A, b"a pong"),
        made(0x09, b"in fragments"),
        made(0xC9, b"reserved bit"),
        made(0xC2, b"reserved bit"),
        made(0x89, b"x" * 126),
        frame(0x89, b"", masked=not masked),
        frame(0x82, b"1234", masked=not masked),
        long_head,
        b"\x82\xfe\x00",
        b"\x89",
        b"",
    ):
        assert LoneFrames(masked).payload(data) is None, data[:20]


@BY_WHOM
def test_amid_a_message_in_fragments_a_ping_is_told_and_a_message_is_not(masked: bool) -> None:
    frames = LoneFrames(masked)
    ping, message = frame(0x89, b"p", masked=masked), frame(0x82, b"m", masked=masked)
    for first, amid in ((0x02, True), (0x00, True), (0x80, False), (0x01, True), (0x80, False)):
        frames.follow(frame(first, b"part", masked=masked))
        assert frames.payload(ping) == b"p"
        assert frames.payload(message) == (None if amid else b"m")
    assert frames.messages == 2


sent_frames = st.lists(
    st.one_of(
        st.tuples(st.sampled_from((0x89, 0x82, 0x82, 0x81, 0x8A)), st.binary(max_size=20)),
        st.tuples(st.sampled_from((0x02, 0x80)), st.binary(max_size=20)),
        st.integers(100, 70_000).map(lambda size: (0x82, b"\x89\x80\x82\x04" * (size // 4))),
    ),
    max_size=8,
)


@given(sent_frames, st.booleans(), st.data())
def test_what_looks_like_a_frame_inside_a_message_is_none(
    sent: list[tuple[int, bytes]], masked: bool, data: st.DataObject
) -> None:
    """Exactly the reads that are one whole ping or message, from first byte to last, are told."""
    stream, ends, alone, at, amid = b"", {0}, dict[tuple[int, int], bytes](), 0, False
    messages = dict[int, int]()
    for first, payload in sent:
        stream += frame(first, payload, masked=masked)
        is_told = first == 0x89 or (first == 0x82 and not amid and len(payload) < 65_536)
        if is_told:
            alone[at, len(stream)] = payload
        if first < 0x88:
            amid = first < 0x80
            messages[at] = first >= 0x80
        at = len(stream)
        ends.add(at)
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12)) if stream else []
    # Cuts where frames end are what makes one come alone; the others what makes it not.
    also = data.draw(st.lists(st.sampled_from(sorted(ends)), max_size=12))
    frames = LoneFrames(masked)
    for start, end in itertools.pairwise(sorted({0, len(stream), *cuts, *also})):
        assert frames.payload(stream[start:end]) == alone.get((start, end))
        frames.follow(stream[start:end])
    assert frames.messages == sum(messages.values())


@BY_WHOM
@given(reads=st.lists(st.binary(min_size=1, max_size=40), max_size=20))
def test_garbage_is_followed_without_harm(masked: bool, reads: list[bytes]) -> None:
    frames = LoneFrames(masked)
    for read in reads:
        payload = frames.payload(read)
        assert payload is None or len(payload) < len(read)
        frames.follow(read)
        assert len(frames._head) < 10
