"""The wires, without I/O: events in, bytes out, whatever the packets."""

import itertools

import h11
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from bridgepool.http import (
    BodyTooLarge,
    EndOfMessage,
    Headers,
    HttpLimits,
    LocalProtocolError,
    RemoteProtocolError,
    Request,
    ResponseHead,
)
from bridgepool.http._h11_wires import H11ClientWire, H11ServerWire

LIMITS = HttpLimits()
Event = Request | ResponseHead | bytes | EndOfMessage


def fed(wire: H11ServerWire | H11ClientWire, pieces: list[bytes]) -> list[Event]:
    """Feed one piece after another; return the events, data joined."""
    events: list[Event] = []
    for piece in pieces:
        wire.receive_data(piece)
        while (event := wire.next_event()) is not None:
            if isinstance(event, bytes) and events and isinstance(events[-1], bytes):
                events[-1] += event
            else:
                events.append(event)
            if isinstance(event, EndOfMessage) and isinstance(wire, H11ServerWire):
                wire.send_head(204, ())
                wire.send_end()
                if wire.keep_alive:
                    wire.start_next()
    return events


def split(raw: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    pieces = [raw[begin:end] for begin, end in itertools.pairwise(places)]
    return [piece for piece in pieces if piece]


REQUESTS = (
    b"GET /a?b HTTP/1.1\r\nHost: h\r\n\r\n"
    b"\r\nPOST / HTTP/1.1\r\nhost:h:80\r\nContent-Length: 5\r\n\r\nhello"
    b"PUT /c HTTP/1.1\r\nHOST: h\r\nTransfer-Encoding: chunked\r\nX-A:  v \t\r\n\r\n"
    b"3;ext=1\r\nabc\r\n0A\r\n0123456789\r\n0\r\nx-t: 1\r\nX-U:2\r\n\r\n"
    b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"
    b"OPTIONS * HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
)
RESPONSES = (
    b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n"
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"5\r\nhello\r\n6\r\n world\r\n0\r\nx-t: 1\r\n\r\n"
)


@given(st.lists(st.integers(0, len(REQUESTS)), max_size=20))
@example(list(range(len(REQUESTS))))
def test_requests_give_the_same_events_however_they_are_split(cuts: list[int]) -> None:
    assert fed(H11ServerWire(LIMITS), split(REQUESTS, cuts)) == [
        Request(b"GET", b"/a?b", ((b"host", b"h"),)),
        EndOfMessage(),
        Request(b"POST", b"/", ((b"host", b"h:80"), (b"content-length", b"5"))),
        b"hello",
        EndOfMessage(),
        Request(
            b"PUT",
            b"/c",
            ((b"host", b"h"), (b"transfer-encoding", b"chunked"), (b"x-a", b"v")),
        ),
        b"abc0123456789",
        EndOfMessage(((b"x-t", b"1"), (b"x-u", b"2"))),
        Request(b"POST", b"/", ((b"host", b"h"), (b"transfer-encoding", b"chunked"))),
        b"ab",
        EndOfMessage(),
        Request(b"OPTIONS", b"*", ((b"host", b"h"), (b"connection", b"close"))),
        EndOfMessage(),
    ]


@given(st.lists(st.integers(0, len(RESPONSES)), max_size=20))
@example(list(range(len(RESPONSES))))
def test_responses_give_the_same_events_however_they_are_split(cuts: list[int]) -> None:
    wire = H11ClientWire(LIMITS)
    wire.send_head(Request(b"GET", b"/", ((b"host", b"h"),)), body=False)
    wire.send_end()
    assert fed(wire, split(RESPONSES, cuts)) == [
        ResponseHead(103, b"Early Hints", ((b"link", b"</a>"),)),
        ResponseHead(200, b"OK", ((b"transfer-encoding", b"chunked"),)),
        b"hello world",
        EndOfMessage(((b"x-t", b"1"),)),
    ]
    assert wire.reusable


TOKEN = st.text("abcXYZ019!#$%&'*+-.^_`|~", min_size=1, max_size=8).map(str.encode)
VALUE = st.binary(max_size=12)


def edited(raw: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
    for place, length, new in edits:
        place %= len(raw) + 1
        raw = raw[:place] + new + raw[place + length :]
    return raw


EDITS = st.lists(
    st.tuples(
        st.integers(0, 300),
        st.integers(0, 3),
        st.one_of(st.sampled_from([b"", b"\n", b"\r", b" ", b"\t", b":", b"0", b";"]), st.binary()),
    ),
    max_size=3,
)
HOSTILE = st.one_of(
    st.builds(edited, st.just(REQUESTS[REQUESTS.index(b"PUT") :]), EDITS),
    st.builds(edited, st.just(RESPONSES), EDITS),
    st.binary(max_size=120),
    st.lists(
        st.one_of(
            st.sampled_from(
                [
                    b"GET / HTTP/1.1\r\n",
                    b"Host: h\r\n",
                    b"\r\n",
                    b"\n",
                    b"\r",
                    b" ",
                    b"\x00",
                    b"Content-Length: 3\r\n",
                    b"Content-Length: +3\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"Transfer-Encoding: chunked, chunked\r\n",
                    b"Expect: 100-continue\r\n",
                    b"Connection: close\r\n",
                    b"3\r\nabc\r\n",
                    b"0\r\n\r\n",
                    b"ffffffffffffffff\r\n",
                    b"HTTP/1.1 200 OK\r\n",
                    b"HTTP/1.0 204 \r\n",
                ]
            ),
            st.tuples(TOKEN, VALUE).map(lambda field: b"%b: %b\r\n" % field),
            st.binary(max_size=5),
        ),
        max_size=14,
    ).map(b"".join),
)


@given(HOSTILE, st.lists(st.integers(0, 200), max_size=5))
def test_hostile_requests_give_events_or_a_clean_error_and_never_more_after_it(
    raw: bytes, cuts: list[int]
) -> None:
    wire = H11ServerWire(LIMITS)
    try:
        fed(wire, [*split(raw, cuts), b""])
    except RemoteProtocolError as error:
        refusal = error
    else:
        return
    for _ in range(2):
        with pytest.raises(type(refusal)):
            wire.next_event()


@given(HOSTILE, st.lists(st.integers(0, 200), max_size=5), st.sampled_from([b"GET", b"HEAD"]))
def test_hostile_responses_give_events_or_a_clean_error(
    raw: bytes, cuts: list[int], method: bytes
) -> None:
    wire = H11ClientWire(LIMITS)
    wire.send_head(Request(method, b"/", ((b"host", b"h"),)), body=False)
    wire.send_end()
    try:
        fed(wire, [*split(raw, cuts), b""])
    except RemoteProtocolError:
        with pytest.raises(RemoteProtocolError):
            wire.next_event()


def h11_reads(raw: bytes) -> tuple[bytes, bytes, Headers, bytes, Headers]:
    """Return method, target, headers, body and trailers of one request, as h11 reads it."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage)
    return (
        request.method,
        request.target,
        tuple(request.headers),
        body,
        tuple(event.headers),
    )


@given(HOSTILE)
def test_every_accepted_request_is_accepted_by_h11_with_the_same_result(raw: bytes) -> None:
    wire = H11ServerWire(LIMITS)
    wire.receive_data(raw)
    body = b""
    try:
        request = wire.next_event()
        while isinstance(event := wire.next_event(), bytes):
            body += event
    except RemoteProtocolError:
        return
    if isinstance(request, Request) and isinstance(event, EndOfMessage):
        read = raw.removeprefix(b"\r\n")
        assert h11_reads(read) == (
            request.method,
            request.target,
            request.headers,
            body,
            event.trailers,
        )


FIELDS = st.lists(
    st.tuples(
        st.text("abcxyz-", min_size=1, max_size=9).map(str.encode),
        st.text('abc XYZ019,;="/', max_size=12).map(str.strip).map(str.encode),
    ),
    max_size=5,
).map(tuple)
PIECES = st.lists(st.binary(max_size=30), max_size=4)


@given(FIELDS, PIECES, FIELDS, st.booleans())
def test_what_a_client_wire_sends_a_server_wire_and_h11_read_back(
    headers: Headers, pieces: list[bytes], trailers: Headers, chunked: bool
) -> None:
    body = b"".join(pieces)
    sent_headers = ((b"host", b"h"), *headers)
    if not chunked:
        sent_headers += ((b"content-length", b"%d" % len(body)),)
        trailers = ()
    client, server = H11ClientWire(LIMITS), H11ServerWire(LIMITS)
    raw = client.send_head(Request(b"POST", b"/x", sent_headers), body=True)
    raw += b"".join(client.send_data(piece) for piece in pieces) + client.send_end(trailers)
    framing: Headers = ()
    if chunked:
        framing = ((b"transfer-encoding", b"chunked"), (b"connection", b"close"))
    server.receive_data(raw)
    events = [server.next_event()]
    while (event := server.next_event()) is not None:
        events.append(event)
    assert events[0] == Request(b"POST", b"/x", sent_headers + framing)
    assert events[-1] == EndOfMessage(trailers)
    assert b"".join(event for event in events if isinstance(event, bytes)) == body
    assert h11_reads(raw) == (b"POST", b"/x", sent_headers + framing, body, trailers)


@pytest.mark.parametrize(
    "field",
    [
        (b"x", b"a\r\nb: c"),
        (b"x", b"a\nb"),
        (b"x", b"a\x00"),
        (b"x\r\ny", b"a"),
        (b"x y", b"a"),
        (b"x:", b"a"),
        (b"", b"a"),
        (b"Upper", b"a"),
        (b"transfer-encoding", b"chunked"),
        (b"connection", b"x-secret"),
        (b"content-length", b"1, 1"),
    ],
)
def test_a_field_that_could_break_the_message_is_not_sent(field: tuple[bytes, bytes]) -> None:
    wire = H11ServerWire(LIMITS)
    with pytest.raises(LocalProtocolError):
        wire.send_head(200, ((b"a", b"b"), field))
    client = H11ClientWire(LIMITS)
    with pytest.raises(LocalProtocolError):
        client.send_head(Request(b"GET", b"/", (field,)), body=True)


@pytest.mark.parametrize("target", [b"", b"/a b", b"/a\r\n", b"/\x80"])
def test_a_target_that_could_break_the_message_is_not_sent(target: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        H11ClientWire(LIMITS).send_head(Request(b"GET", target, ()), body=False)


def test_a_body_must_have_its_content_length() -> None:
    wire = H11ServerWire(LIMITS)
    wire.send_head(200, ((b"content-length", b"3"),))
    wire.send_data(b"ab")
    with pytest.raises(LocalProtocolError, match="longer"):
        wire.send_data(b"cd")
    with pytest.raises(LocalProtocolError, match="1 bytes short"):
        wire.send_end()


def test_a_chunked_body_too_large_is_noticed_at_its_size_line() -> None:
    wire = H11ServerWire(HttpLimits(max_body_bytes=10))
    wire.receive_data(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert isinstance(wire.next_event(), Request)
    wire.receive_data(b"8\r\n12345678\r\n3\r\n")
    assert wire.next_event() == b"12345678"
    with pytest.raises(BodyTooLarge):
        wire.next_event()


def test_a_body_without_framing_lasts_until_the_connection_ends() -> None:
    wire = H11ClientWire(LIMITS)
    wire.send_head(Request(b"GET", b"/", ((b"host", b"h"),)), body=False)
    wire.send_end()
    assert fed(wire, [b"HTTP/1.1 200 OK\r\n\r\nab"])[1:] == [b"ab"]
    assert fed(wire, [b"cd", b""]) == [b"cd", EndOfMessage()]
    assert not wire.reusable


def test_no_100_continue_is_due_once_the_body_has_begun() -> None:
    wire = H11ServerWire(LIMITS)
    head = b"POST / HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\n"
    wire.receive_data(head + b"Transfer-Encoding: chunked\r\n\r\n")
    assert isinstance(wire.next_event(), Request)
    assert wire.expects_continue
    wire.receive_data(b"5")
    assert wire.next_event() is None
    assert not wire.expects_continue
