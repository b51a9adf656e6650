"""Pings that come alone: answered as RFC 6455 says, and nothing else is touched."""

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridgepool.transports._pings import PingReader

MASK = b"\x01\x02\x03\x04"


def masked(payload: bytes) -> bytes:
    return bytes(byte ^ MASK[place % 4] for place, byte in enumerate(payload))


def frame(first: int, payload: bytes) -> bytes:
    """What a client sends: RFC 6455 section 5.2."""
    size = len(payload)
    if size < 126:
        head = bytes((first, 0x80 | size))
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    return head + MASK + masked(payload)


def ping(payload: bytes = b"") -> bytes:
    return frame(0x89, payload)


@pytest.mark.parametrize("payload", [b"", b"1", b"hello", bytes(range(125))])
def test_a_ping_that_comes_alone_is_answered_with_its_payload(payload: bytes) -> None:
    reader = PingReader()
    for _ in range(3):
        assert reader.answer(ping(payload)) == bytes((0x8A, len(payload))) + payload


@pytest.mark.parametrize(
    "data",
    [
        ping() + ping(),
        ping()[:-1],
        frame(0x82, b""),
        frame(0x88, b""),
        frame(0x8A, b"a pong"),
        frame(0x09, b"in fragments"),
        frame(0xC9, b"reserved bit"),
        frame(0x89, b"x" * 126),
        b"\x89\x00",
        b"\x89",
        b"",
    ],
)
def test_whatever_else_comes_is_left_to_the_websocket_library(data: bytes) -> None:
    assert PingReader().answer(data) is None


frames = st.lists(
    st.one_of(
        st.binary(max_size=20).map(ping),
        st.builds(frame, st.sampled_from((0x82, 0x02, 0x80, 0x8A)), st.binary(max_size=20)),
        st.integers(100, 70_000).map(lambda size: frame(0x82, b"\x89\x80" * (size // 2))),
    ),
    max_size=8,
)


@given(frames, st.data())
def test_what_looks_like_a_ping_inside_a_message_is_none(
    sent: list[bytes], data: st.DataObject
) -> None:
    """Exactly the reads that are one whole ping, from its first byte to its last, are answered."""
    stream = b"".join(sent)
    ends, at = {0}, 0
    for one in sent:
        at += len(one)
        ends.add(at)
    pings = {one for one in sent if one[0] == 0x89}
    cuts = data.draw(st.lists(st.integers(0, len(stream)), max_size=12)) if stream else []
    # Cuts where frames end are what makes a ping come alone; the others what makes it not.
    also = data.draw(st.lists(st.sampled_from(sorted(ends)), max_size=12))
    bounds = sorted({0, len(stream), *cuts, *also})
    reader = PingReader()
    for start, end in itertools.pairwise(bounds):
        read = stream[start:end]
        is_alone = start in ends and read in pings
        assert (reader.answer(read) is not None) == is_alone


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=20))
def test_garbage_is_followed_without_harm(reads: list[bytes]) -> None:
    reader = PingReader()
    for read in reads:
        answer = reader.answer(read)
        assert answer is None or len(answer) == len(read) - 4
        assert len(reader._head) < 10
