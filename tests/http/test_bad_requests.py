"""Unacceptable requests get an error status and never reach the handler."""

import logging
import tracemalloc

import pytest
import trio
from trio.testing import MockClock

from bridgepool.http import Exchange, HttpLimits
from tests.http.support import GET, echo, serving

HEAD = b"POST / HTTP/1.1\r\nHost: h\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"

SMUGGLING = {
    "both length headers": (400, HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "both length headers, the other way": (
        400,
        HEAD + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
    ),
    "two different content-lengths": (
        400,
        HEAD + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n",
    ),
    "two equal content-lengths": (400, HEAD + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\n"),
    "a list of content-lengths": (400, HEAD + b"Content-Length: 5, 5\r\n\r\n"),
    "a signed content-length": (400, HEAD + b"Content-Length: +5\r\n\r\n"),
    "a negative content-length": (400, HEAD + b"Content-Length: -5\r\n\r\n"),
    "a content-length in hex": (400, HEAD + b"Content-Length: 0x5\r\n\r\n"),
    "a content-length with an underscore": (400, HEAD + b"Content-Length: 1_0\r\n\r\n"),
    "an empty content-length": (400, HEAD + b"Content-Length:\r\n\r\n"),
    "a content-length of 30 digits": (400, HEAD + b"Content-Length: " + b"1" * 30 + b"\r\n\r\n"),
    "a folded field": (400, HEAD + b"X-A: 1\r\n 2\r\n\r\n"),
    "a folded transfer-encoding": (400, HEAD + b"Transfer-Encoding:\r\n chunked\r\n\r\n"),
    "a fold before the first field": (400, b"GET / HTTP/1.1\r\n Host: h\r\n\r\n"),
    "lines that end with a bare LF": (400, b"GET / HTTP/1.1\nHost: h\n\n"),
    "one field that ends with a bare LF": (400, b"GET / HTTP/1.1\r\nHost: h\nX: y\r\n\r\n"),
    "a bare CR in a value": (400, HEAD + b"X-A: 1\r2\r\n\r\n"),
    "a bare CR at the end of a line": (400, b"GET / HTTP/1.1\rHost: h\r\n\r\n"),
    "a NUL in a value": (400, HEAD + b"X-A: 1\x002\r\n\r\n"),
    "a control character in a value": (400, HEAD + b"X-A: 1\x082\r\n\r\n"),
    "a space before the colon": (400, HEAD + b"Content-Length : 5\r\n\r\n"),
    "a tab before the colon": (400, HEAD + b"Transfer-Encoding\t: chunked\r\n\r\n"),
    "an empty field name": (400, HEAD + b": 5\r\n\r\n"),
    "a field without a colon": (400, HEAD + b"Content-Length 5\r\n\r\n"),
    "a field name in quotes": (400, HEAD + b'"Content-Length": 5\r\n\r\n'),
    "a field name that is not ASCII": (400, HEAD + b"Content-L\xc3\xa9ngth: 5\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    "a host with a path": (400, b"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"),
    "a host with a user": (400, b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n"),
    "an empty host": (400, b"GET / HTTP/1.1\r\nHost:\r\n\r\n"),
    "a target with a space": (400, b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n"),
    "a target without a slash": (400, b"GET a HTTP/1.1\r\nHost: h\r\n\r\n"),
    "a target with a fragment": (400, b"GET /a#b HTTP/1.1\r\nHost: h\r\n\r\n"),
    "a target that is not ASCII": (400, b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n"),
    "an absolute target of another scheme": (400, b"GET ftp://a/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    "an absolute target with a user": (400, b"GET http://u@a/ HTTP/1.1\r\nHost: h\r\n\r\n"),
    "a star that is not of OPTIONS": (400, b"GET * HTTP/1.1\r\nHost: h\r\n\r\n"),
    "two spaces in the request line": (400, b"GET  / HTTP/1.1\r\nHost: h\r\n\r\n"),
    "no version": (400, b"GET /\r\nHost: h\r\n\r\n"),
    "a lower-case version": (400, b"GET / http/1.1\r\nHost: h\r\n\r\n"),
    "a version of the future": (505, b"GET / HTTP/2.0\r\nHost: h\r\n\r\n"),
    "the preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "a version between": (505, b"GET / HTTP/1.2\r\nHost: h\r\n\r\n"),
    "a greeting of TLS": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "a tunnel": (501, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
    "another transfer coding": (501, HEAD + b"Transfer-Encoding: gzip\r\n\r\n"),
    "another coding before chunked": (501, HEAD + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    "chunked twice": (501, HEAD + b"Transfer-Encoding: chunked, chunked\r\n\r\n"),
    "two transfer-encodings": (
        501,
        HEAD + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
    ),
    "a coding that looks like chunked": (501, HEAD + b"Transfer-Encoding: xchunked\r\n\r\n"),
    "a coding behind a vertical tab": (400, HEAD + b"Transfer-Encoding: \x0bchunked\r\n\r\n"),
    "chunked in HTTP/1.0": (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "another expectation": (417, HEAD + b"Expect: 200-ok\r\n\r\n"),
}

BAD_CHUNKS = {
    "a size that is no number": b"xyz\r\nabc\r\n0\r\n\r\n",
    "a signed size": b"+3\r\nabc\r\n0\r\n\r\n",
    "a size in C's hex": b"0x3\r\nabc\r\n0\r\n\r\n",
    "an empty size": b"\r\nabc\r\n0\r\n\r\n",
    "a size of 17 digits": b"00000000000000003\r\nabc\r\n0\r\n\r\n",
    "a space before the size": b" 3\r\nabc\r\n0\r\n\r\n",
    "a space after the size": b"3 \r\nabc\r\n0\r\n\r\n",
    "a size line that ends with a bare LF": b"3\nabc\r\n0\r\n\r\n",
    "a bare LF in an extension": b"3;a\nb\r\nabc\r\n0\r\n\r\n",
    "a bare CR in an extension": b"3;a\rb\r\nabc\r\n0\r\n\r\n",
    "an extension without end": b"3;" + b"a" * 300,
    "a long extension": b"3;" + b"a" * 300 + b"\r\nabc\r\n0\r\n\r\n",
    "a chunk that is longer than its size": b"3\r\nabcd\r\n0\r\n\r\n",
    "a chunk that ends with a bare LF": b"3\r\nabc\n0\r\n\r\n",
    "a folded trailer": b"0\r\nX-A: 1\r\n 2\r\n\r\n",
    "a trailer that ends with a bare LF": b"0\r\nX-A: 1\n\n",
    "a trailer with a space before the colon": b"0\r\nX-A : 1\r\n\r\n",
    "content-length as a trailer": b"0\r\nContent-Length: 1\r\n\r\n",
    "transfer-encoding as a trailer": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
}


async def never(exchange: Exchange) -> None:
    raise AssertionError("a bad request reached the handler")


@pytest.mark.parametrize(("status", "raw"), SMUGGLING.values(), ids=SMUGGLING)
async def test_a_bad_head_is_answered_and_never_reaches_the_handler(
    status: int, raw: bytes
) -> None:
    async with serving(never) as server:
        client = server.connect()
        await client.send(raw + b"GET /smuggled HTTP/1.1\r\nHost: h\r\n\r\n")
        answer = await client.answer()
        assert answer.status == status
        assert answer.headers[b"connection"] == b"close"
        assert answer.body.strip()
        assert await client.read_to_end() == b""
    assert (server.counters.refused, server.counters.requests) == (1, 0)
    assert server.counters.handler_errors == 0


@pytest.mark.parametrize("chunks", BAD_CHUNKS.values(), ids=BAD_CHUNKS)
async def test_a_bad_chunked_body_is_answered_and_ends_the_connection(chunks: bytes) -> None:
    async with serving(echo) as server:
        client = server.connect()
        await client.send(CHUNKED + chunks)
        answer = await client.answer()
        assert (answer.status, answer.headers[b"connection"]) == (400, b"close")
        assert await client.read_to_end() == b""
    assert server.counters.handler_errors == 0


@pytest.mark.parametrize(
    ("status", "raw"),
    {
        "a long target": (414, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: h\r\n\r\n"),
        "a target without end": (414, b"GET /" + b"a" * 70000),
        "a head of 100 kB in one piece": (431, GET[:-2] + b"X: " + b"a" * 100_000 + b"\r\n\r\n"),
        "a head without end": (431, GET[:-2] + b"X: " + b"a" * 100_000),
        "129 fields": (431, GET[:-2] + b"X: y\r\n" * 128 + b"\r\n"),
        "large trailers": (431, CHUNKED + b"0\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"),
        "129 trailers": (431, CHUNKED + b"0\r\n" + b"X: y\r\n" * 129 + b"\r\n"),
        "a body too large": (413, HEAD + b"Content-Length: 1001\r\n\r\n"),
        "a chunk too large": (413, CHUNKED + b"3e9\r\n"),
        "chunks too large together": (413, CHUNKED + b"3e8\r\n" + b"a" * 1000 + b"\r\n1\r\n"),
    }.values(),
)
async def test_what_is_too_large_is_answered_with_its_own_status(status: int, raw: bytes) -> None:
    async with serving(echo, limits=HttpLimits(max_body_bytes=1000)) as server:
        client = server.connect()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(client.send, raw)
            assert (await client.answer()).status == status
            assert await client.read_to_end() == b""


@pytest.mark.parametrize(
    "raw",
    [
        GET[:-2] + b"X: %b\r\n" % (b"a" * 400) * 140 + b"\r\n" + b"b" * 9000,
        GET[:-2] + b"Y: %b\r\nZ\r\n\r\n" % (b"a" * 60_000),
        HEAD + b"Content-Length: 60000\r\n\r\n" + b"a" * 60_000,
    ],
    ids=["many fields", "malformed", "good"],
)
async def test_what_a_connection_has_sent_is_not_kept_after_its_answer(raw: bytes) -> None:
    """A refused one held 230 kB while it was read on, and one that waits held 64 kB."""
    async with serving(echo) as server:
        clients = [server.connect() for _ in range(21)]
        await clients[0].ask(raw)
        tracemalloc.start()
        try:
            for client in clients[1:]:
                await client.ask(raw)
            held = tracemalloc.get_traced_memory()[0] / 20
        finally:
            tracemalloc.stop()
        assert held < 20_000


async def test_messages_exactly_at_the_limits_are_accepted() -> None:
    limits = HttpLimits(max_body_bytes=1000)
    async with serving(echo, limits=limits) as server:
        client = server.connect()
        target = b"/" + b"a" * 8191
        head = b"POST %b HTTP/1.1\r\nHost: h\r\nContent-Length: 1000\r\n" % target
        raw = head + b"X: y\r\n" * 126 + b"\r\n" + b"b" * 1000
        assert (await client.ask(raw)).body == b"b" * 1000


async def test_a_bad_request_behind_a_good_one_does_not_affect_the_good_ones_response() -> None:
    async with serving(echo) as server:
        client = server.connect()
        await client.send(GET + b"bad\r\n\r\n")
        assert (await client.answer()).status == 200
        assert (await client.answer()).status == 400
        assert await client.read_to_end() == b""


async def test_bad_requests_are_logged_once_a_minute_for_each_status(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever sent them could fill the log."""
    caplog.set_level(logging.INFO, "bridgepool.http")
    async with serving(never) as server:
        for _ in range(3):
            for raw in (b"bad\r\n\r\n", b"GET / HTTP/2.0\r\n\r\n") * 20:
                client = server.connect()
                await client.send(raw)
                await client.read_to_end()
            await trio.sleep(61)
    lines = [(line.message, vars(line)["refused"]) for line in caplog.records]
    malformed = "request refused: the request line is malformed"
    version = "request refused: only HTTP/1.0 and HTTP/1.1 are supported"
    assert lines == [(malformed, 1), (version, 1), *[(malformed, 20), (version, 20)] * 2]
    assert server.counters.refused == 120
