"""Response heads are read as leniently as their framing stays unambiguous."""

import h11
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from bridgepool.http import (
    EndOfMessage,
    Headers,
    HttpLimits,
    RemoteProtocolError,
    Request,
    ResponseHead,
)
from bridgepool.http._framing import parse_framing
from bridgepool.http._h11_wires import H11ClientWire
from bridgepool.http._heads import find_head_end, join_fields, parse_response_head
from bridgepool.http._response_heads import find_response_head_end, read_response_head

LIMITS = HttpLimits()
LENGTH = (b"content-length", b"2")


def read(raw: bytes) -> tuple[ResponseHead, bytes, bool]:
    """Read a response byte by byte; return head, body and whether another request may follow."""
    wire = H11ClientWire(LIMITS)
    wire.send_head(Request(b"GET", b"/", ((b"host", b"h"),)), body=False)
    wire.send_end()
    events: list[ResponseHead | bytes | EndOfMessage] = []
    for place in range(len(raw)):
        wire.receive_data(raw[place : place + 1])
        while (event := wire.next_event()) is not None:
            events.append(event)
    head, *pieces, end = events
    assert isinstance(head, ResponseHead)
    assert isinstance(end, EndOfMessage)
    return head, b"".join(piece for piece in pieces if isinstance(piece, bytes)), wire.reusable


@pytest.mark.parametrize(
    ("raw", "reason", "headers"),
    [
        (b"HTTP/1.1 200 OK\nX: 1\nContent-Length: 2\n\n{}", b"OK", ((b"x", b"1"), LENGTH)),
        (b"HTTP/1.1  200  OK\r\nContent-Length: 2\r\n\r\n{}", b"OK", (LENGTH,)),
        (b"HTTP/1.1 200 O\x08K\r\nContent-Length: 2\r\n\r\n{}", b"O K", (LENGTH,)),
        (b"HTTP/1.1 200 OK\r\nX: 1\r\n \t2\r\nContent-Length: 2\r\n\r\n{}", b"OK",
         ((b"x", b"1 2"), LENGTH)),
        (b"HTTP/1.1 200 OK\r\nX \t: 1\r\nContent-Length: 2\r\n\r\n{}", b"OK",
         ((b"x", b"1"), LENGTH)),
        (b"HTTP/1.1 200 OK\r\nX y: 1\r\n(z): 2\r\n: 3\r\nContent-Length: 2\r\n\r\n{}", b"OK",
         (LENGTH,)),
        (b"HTTP/1.1 200 OK\r\nX: a\x1bb\r\nContent-Length: 2\r\n\r\n{}", b"OK",
         ((b"x", b"a b"), LENGTH)),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\nA: b\r\nContent-Length: 2\r\n\r\n{}", b"OK",
         ((b"a", b"b"), LENGTH)),
    ],
)  # fmt: skip
def test_an_oddity_outside_the_framing_is_rewritten_and_ends_the_connection(
    raw: bytes, reason: bytes, headers: Headers
) -> None:
    head, body, reusable = read(raw)
    assert (head.status, head.reason, head.headers) == (200, reason, headers)
    assert body == b"{}"
    assert not reusable


def test_a_chunk_size_may_be_padded() -> None:
    raw = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2   \r\n{}\r\n0  ;x\r\n\r\n"
    assert read(raw)[1:] == (b"{}", True)


@pytest.mark.parametrize(
    ("head", "problem"),
    [
        (b"HTTP/1.1 200 OK\r\nX: 1\nContent-Length: 2\r\n\r\n", "bare line feed"),
        (b"HTTP/1.1 200 OK\nX: 1\r\nContent-Length: 2\n\n", "bare CR"),
        (b"HTTP/1.1 200 OK\nX: 1\r\n\n", "bare CR"),
        (b"HTTP/1.1 200 OK\nX: 1\r\n\r\n", "bare CR"),
        (b"HTTP/1.1 200 OK\r\n X: 1\r\n\r\n", "before the first field"),
        (b"HTTP/1.1 200 OK\r\nX\r\n\r\n", "no colon"),
        (b"HTTP/1.1 200 OK\r\nContent-Length : 2\r\n\r\n", "about framing is malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length:\r\n 2\r\n\r\n", "about framing is malformed"),
        (b"HTTP/1.1 200 OK\r\nX: 1\r\n Content-Length: 2\r\n\r\n", "about framing is malformed"),
        (b"HTTP/1.1 200 OK\r\nTransfer Encoding: chunked\r\n\r\n", "about framing is malformed"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n", "several values"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 02\r\n\r\n", "several values"),
        (b"HTTP/1.1 200OK\r\n\r\n", "status line"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", "has both"),
    ],
)  # fmt: skip
def test_a_head_that_readers_understand_differently_is_refused(head: bytes, problem: str) -> None:
    with pytest.raises(RemoteProtocolError, match=problem):
        read(head + b"{}")


@pytest.mark.parametrize("garbage", [b"<html>\n", b"220 ready\n", b"\nHTTP/1.1 200 OK\n\n"])
def test_garbage_is_refused_at_its_first_line(garbage: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(garbage)


def test_a_head_with_bare_line_feeds_has_the_same_limit() -> None:
    with pytest.raises(RemoteProtocolError, match="larger than"):
        read(b"HTTP/1.1 200 OK\n" + b"X: 1\n" * 20_000)


BREAK = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\r\n "])
LINE = st.one_of(
    st.sampled_from(
        [
            b"Content-Length: 2",
            b"content-length: 2, 2",
            b"Content-Length : 2",
            b"Content-Length: 3",
            b"Transfer-Encoding: chunked",
            b"Transfer-Encoding: identity",
            b"Connection: close",
            b"X: 1",
            b"X y: 1",
            b"X:\x1b1",
            b" 2",
            b"\tContent-Length: 2",
            b"X",
            b"",
        ]
    ),
    st.builds(
        lambda name, value: name + b":" + value, st.binary(max_size=4), st.binary(max_size=6)
    ),
)
STATUS_LINE = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 4 + [b"HTTP/1.0 200 OK", b"HTTP/1.1  200", b"HTTP/1.1 304 \x08"]
)
SAME_BREAKS = st.builds(
    lambda first, lines, end: end.join((first, *lines, b"", b"")),
    STATUS_LINE,
    st.lists(LINE, max_size=6),
    st.sampled_from([b"\r\n", b"\n"]),
)
MIXED_BREAKS = st.builds(
    lambda first, lines: b"".join(part for pair in (first, *lines) for part in pair) + b"\r\n\r\n",
    st.tuples(STATUS_LINE, BREAK),
    st.lists(st.tuples(LINE, BREAK), max_size=6),
)
HEADS = st.one_of(SAME_BREAKS, MIXED_BREAKS)
REST = st.sampled_from([b"", b"{}", b"2\r\n{}\r\n0\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n"])


@given(HEADS, REST)
def test_a_head_that_is_read_strictly_is_read_leniently_with_the_same_result(
    raw: bytes, rest: bytes
) -> None:
    data = raw + rest
    try:
        end = find_head_end(data, 0, 0, LIMITS)
        strict = parse_response_head(data[:end], LIMITS)
        framing = parse_framing(strict.headers, strict.http_version)
    except RemoteProtocolError:
        return
    assume(end > 0)
    assert find_response_head_end(data, 0, 0, LIMITS) == end
    head, lenient_framing, fault = read_response_head(data[:end], LIMITS)
    assert (head, fault) == (strict, "")
    assert lenient_framing == framing


def h11_body(data: bytes) -> tuple[int, bytes] | None:
    """Return status and body as h11 reads them; None where it rejects them or needs more."""
    connection = h11.Connection(h11.CLIENT)
    connection.send(h11.Request(method="GET", target="/", headers=[("host", "h")]))
    connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    connection.receive_data(b"")
    try:
        head = connection.next_event()
        body = b""
        while isinstance(event := connection.next_event(), h11.Data):
            body += event.data
    except h11.RemoteProtocolError:
        return None
    assert isinstance(head, h11.Response)
    assert isinstance(event, h11.EndOfMessage)
    return head.status_code, body


@given(HEADS, REST)
def test_an_odd_response_has_the_body_that_h11_reads_and_a_head_that_can_be_sent_on(
    raw: bytes, rest: bytes
) -> None:
    wire = H11ClientWire(LIMITS)
    wire.send_head(Request(b"GET", b"/", ((b"host", b"h"),)), body=False)
    wire.send_end()
    wire.receive_data(raw + rest)
    wire.receive_data(b"")
    try:
        head = wire.next_event()
        body = b""
        while isinstance(event := wire.next_event(), bytes):
            body += event
    except RemoteProtocolError:
        return
    assert isinstance(head, ResponseHead)
    join_fields(head.headers)
    expected = h11_body(raw + rest)
    if expected is not None:
        assert (head.status, body) == expected
