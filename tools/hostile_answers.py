"""Answers of upstreams that two parsers may read differently, by kind: the corpus's second half.

Each is followed by another answer, which no client may get: it comes unasked.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tools.hostile_requests import AROUND, CODINGS, LENGTHS, LINE_ENDS, NAMES, SIZE_LINES, TRAILERS

BODY: Final = b"own:@ID;"  # what the client who asked may get
INNER: Final = b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nunasked!;"
CHUNKED: Final = b"@HEX\r\n" + BODY + b"\r\n0\r\n\r\n"
OK: Final = b"HTTP/1.1 200 OK"
CL: Final = b"Content-Length: @SIZE"
TE: Final = b"Transfer-Encoding: chunked"

_STATUS_LINES: Final = (
    b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.1  200 OK", b"HTTP/1.1 200  OK",
    b"HTTP/1.0 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.2 200 OK", b"HTTP/2 200", b"HTTP/2.0 200 OK",
    b"HTTP/11 200 OK", b"http/1.1 200 OK", b"HTTPS/1.1 200 OK", b"ICY 200 OK", b" HTTP/1.1 200 OK",
    b"HTTP/1.1\t200\tOK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 099 OK",
    b"HTTP/1.1 000 OK", b"HTTP/1.1 600 OK", b"HTTP/1.1 999 OK", b"HTTP/1.1 -20 OK",
    b"HTTP/1.1 +200 OK", b"HTTP/1.1 2e2 OK", b"HTTP/1.1 0x1 OK", b"HTTP/1.1 200\x00 OK",
    b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 O\x01K", b"HTTP/1.1 200 \xff", b"HTTP/1.1 200 OK\r",
    b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\nK", b"HTTP/1.1 200OK", b"HTTP/1.1200 OK", b"HTTP/1.1",
    b"200 OK", b"", b"\r\n" + OK, b"\n" + OK, b"\x00" + OK, b"<html>", b"\x15\x03\x01\x00\x02",
    b"HTTP/1.1 200 " + b"a" * 70_000, b"GET / HTTP/1.1", b"HTTP/1.1 1\xb20 OK",
)  # fmt: skip
_STATUSES: Final = (100, 101, 102, 103, 199, 201, 204, 205, 206, 300, 301, 304, 400, 408, 417, 426,
    100, 101, 102, 103, 199, 201, 204, 205, 206, 300, 301, 304, 400, 408, 417, 426, 431, 500, 503,
    599,
                    431, 500, 503, 599)  # fmt: skip
_FIELDS: Final = (
    b"X", b"X y", b": y", b"X\x00: y", b"X: \x00", b"X: \x01", b"X: \x7f", b"X: y\nZ: z",
    b"X: y\rZ: z", b"X: y\r\n z", b" X: y", b"\xff: y", b"X: " + b"y" * 70_000,
    b"X" * 70_000 + b": y", b"\r\n".join(b"X: y" for _ in range(200)), b"X: y\n", b"X: y\r",
    b"Connection: close", b"Connection: keep-alive", b"Connection: upgrade\r\nUpgrade: websocket",
    b"Connection: content-length", b"Connection: transfer-encoding", b"Proxy-Connection: close",
    b"Keep-Alive: timeout=0", b"Trailer: X", b"Upgrade: h2c", b"Content-Encoding: gzip",
    b"Content-Range: bytes 0-0/1", b"TE: trailers",
    b"Content-Type: multipart/byteranges; boundary=a", b"Connection: \x00", b"Set-Cookie: a\r\n b",
)  # fmt: skip


def _answer(*fields: bytes, line: bytes = OK, body: bytes = BODY) -> bytes:
    return b"".join(one + b"\r\n" for one in (line, *fields)) + b"\r\n" + body


def hostile_answers() -> Iterator[tuple[str, bytes]]:
    """Make all answers, each with the name of its kind."""
    for around in AROUND:
        length, size = around.replace(b"%b", b"@SIZE"), around.replace(b"%b", b"@HEX")
        coding = b"Transfer-Encoding:" + around.replace(b"%b", b"chunked")
        yield "length", _answer(b"Content-Length:" + length)
        yield "coding", _answer(coding, body=CHUNKED)
        yield "chunk size", _answer(TE, body=CHUNKED.replace(b"@HEX", size))
    for value in LENGTHS:
        yield "length", _answer(b"Content-Length: " + value)
        yield "two lengths", _answer(CL, b"Content-Length: " + value)
    for value in CODINGS:
        yield "coding", _answer(b"Transfer-Encoding: " + value, body=CHUNKED)
        yield "two codings", _answer(TE, b"Transfer-Encoding: " + value, body=CHUNKED)
        yield "length and coding", _answer(CL, b"Transfer-Encoding: " + value, body=CHUNKED)
    for name in NAMES:
        yield "name of length", _answer(name.replace(b"%b", b"Content-Length") + b": @SIZE")
        coding = name.replace(b"%b", b"Transfer-Encoding") + b": chunked"
        yield "name of coding", _answer(coding, body=CHUNKED)
        yield "length beside a coding", _answer(CL, coding, body=CHUNKED)
    for line in SIZE_LINES:
        yield "chunk size", _answer(TE, body=CHUNKED.replace(b"@HEX", line))
    for end in LINE_ENDS:
        yield "end of a size", _answer(TE, body=CHUNKED.replace(b"@HEX\r\n", b"@HEX" + end))
        yield "end of a chunk", _answer(TE, body=CHUNKED.replace(b"\r\n0\r\n", end + b"0\r\n"))
        yield "end of a head", _answer(CL).replace(b"\r\n\r\n", end + b"\r\n", 1)
    for trailer in TRAILERS:
        yield "trailer", _answer(TE, body=CHUNKED[: -len(b"\r\n")] + trailer + b"\r\n")
    for line in _STATUS_LINES:
        yield "status line", _answer(CL, line=line)
    for status in _STATUSES:
        line = b"HTTP/1.1 %d X" % status
        yield "status with a length", _answer(CL, line=line)
        yield "status with a coding", _answer(TE, line=line, body=CHUNKED)
        yield "status alone", _answer(line=line, body=b"")
        yield "status before another", _answer(line=line, body=b"") + _answer(CL)
    for field in _FIELDS:
        yield "field", _answer(field, CL)
        yield "field before a coding", _answer(field, TE, body=CHUNKED)
    whole = _answer(TE, body=CHUNKED)
    for place in range(3, len(whole), 7):
        yield "cut short", whole[:place]


def fill_in_answer(answer: bytes, name: bytes) -> bytes:
    """Return an answer of the corpus, made of its pattern, and the unasked one behind it."""
    size = len(BODY.replace(b"@ID", name))
    for mark, value in ((b"@ID", name), (b"@SIZE", b"%d" % size), (b"@HEX", b"%x" % size)):
        answer = answer.replace(mark, value)
    return answer + INNER
