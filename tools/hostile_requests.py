"""Requests that two parsers may read differently, by kind: the first half of the corpus.

Each of them carries another request where a careless reader may take it for the next one. In the
patterns, ``@TARGET`` is the target, ``@ID`` the number of the request.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

INNER: Final = b"GET /smuggled?@ID HTTP/1.1\r\nHost: a\r\nX-Id: smuggled\r\n\r\n"
LINE: Final = b"POST @TARGET HTTP/1.1"
_SIZE: Final = b"@SIZE"  # the length of `INNER`, in decimal
_HEX: Final = b"@HEX"  # the same, for a chunk
CHUNKED: Final = b"@HEX\r\n" + INNER + b"\r\n0\r\n\r\n"
TE: Final = b"Transfer-Encoding: chunked"
CL: Final = b"Content-Length: @SIZE"

# Values that only one spelling of is right: each is put where a length or a coding belongs.
AROUND: Final = (
    b"%b", b" %b", b"%b ", b"\t%b", b"%b\t", b"+%b", b"-%b", b"0%b", b"%b0", b"0x%b", b"%b,%b",
    b"%b, %b", b"%b,", b",%b", b"%b;a=b", b"%b;", b'"%b"', b"'%b'", b"%b\x00", b"\x00%b",
    b"%b\x0b", b"\x0b%b", b"%b\x0c", b"%b\xa0", b"\xa0%b", b"%b\x7f", b"%b\x85", b"%b.0", b"%be0",
    b"%b_", b"%b %b", b"%b#", b"%b\r\n ", b"\r\n %b", b"\r\n\t%b", b"%b\n", b"\n%b", b"%b\r",
    b"\r%b", b"%b\\", b"(%b)", b"%b/1", b"%b:1", b"x%b", b"%bx",
)  # fmt: skip
LENGTHS: Final = (
    b"", b"0", b"00", b"-0", b"+0", b"-1", b"1", b"9" * 20, b"9" * 400, b"18446744073709551616",
    b"4294967296", b"1e1", b"NaN", b"inf", b"\xd9\xa3", b"%33", b"0b11", b"0,@SIZE", b"@SIZE,0",
    b"1, 2", b"null", b"one",
)  # fmt: skip
CODINGS: Final = (
    b"", b"identity", b"gzip", b"deflate, chunked", b"chunked, identity", b"identity, chunked",
    b"chunked, chunked", b"gzip, chunked", b"chunk", b"chunke d", b"Chunked", b"CHUNKED",
    b"chunKed", b"trailers", b"none", b"x", b"chunked\x01", b"\xffchunked", b"chunked; q=1",
    b"chunked, cow", b"chun\xc5\xbfked", b"null", b"chunked chunked",
)  # fmt: skip
NAMES: Final = (
    b"%b ", b"%b\t", b" %b", b"\t%b", b"%b\x00", b"\x00%b", b"%b\x0b", b"\x0b%b", b"%b:", b":%b",
    b"%b\r", b"\r%b", b"X: y\n%b", b"X: y\r%b", b"X: y\r\n\n%b", b"\xef%b", b"%b\xa0", b"X-%b",
    b"(%b)", b'"%b"', b"%b/", b"%b,", b"%b;",
)  # fmt: skip
SIZE_LINES: Final = (
    b"@HEX;a", b"@HEX;a=b", b"@HEX ;a", b"@HEX; a=b", b'@HEX;a="b"', b'@HEX;a="\r\n"',
    b"@HEX;\x00", b"@HEX;\n", b"@HEX;a\nb", b"@HEX;a\rb", b"@HEX;" + b"a" * 70_000, b"", b"g",
    b"0" * 100 + b"@HEX", b"f" * 16, b"f" * 17, b"1" + b"0" * 15 + b"@HEX", b"-1", b"@HEX=1",
    b"@HEX\r", b"@HEX h", b"@HEX;;", b"\r\n@HEX", b"@HEX\r\n", b"0;@HEX", b"@HEX\xff", b"\xd9\xa3",
    b"0x0",
)  # fmt: skip
LINE_ENDS: Final = (
    b"\n", b"\r", b"\r\r\n", b"\n\r", b"\r\n\r\n", b" \r\n", b"\r\n ", b"\x00\r\n", b"", b"x\r\n",
    b"\n\n",
)  # fmt: skip
TRAILERS: Final = (
    b"X: y\r\n", CL + b"\r\n", TE + b"\r\n", b"Host: b\r\n", b"Authorization: Bearer b\r\n",
    b"X : y\r\n", b" X: y\r\n", b"X y\r\n", b"X: y\n", b"X: y\r", b": y\r\n", b"X: \x00\r\n",
    b"X: y\r\n z\r\n", b"X: y\r\n" * 200, b"X: " + b"y" * 70_000 + b"\r\n", b"X: y\n\r\n", b"\n",
    b"Connection: close\r\n", b"Content-Type: a\r\n", b"GET / HTTP/1.1\r\n",
)  # fmt: skip
_LINES: Final = (
    b"post @TARGET HTTP/1.1", b"POST  @TARGET HTTP/1.1", b"POST @TARGET  HTTP/1.1", b" " + LINE,
    b"POST\t@TARGET\tHTTP/1.1", LINE + b" ", LINE + b"\t", b"POST @TARGET HTTP/1.1 HTTP/1.1",
    b"POST @TARGET", b"POST", b"", b"POST @TARGET HTTP/1.0", b"POST @TARGET HTTP/0.9",
    b"POST @TARGET HTTP/1.2", b"POST @TARGET HTTP/2.0", b"POST @TARGET HTTP/1.10",
    b"POST @TARGET HTTP/1", b"POST @TARGET HTTP/11", b"POST @TARGET http/1.1",
    b"POST @TARGET HTTPS/1.1", b"POST @TARGET XHTTP/1.1", b"POST @TARGET HTTP/1.1\x00",
    b"POST\x00 @TARGET HTTP/1.1", b"PO ST @TARGET HTTP/1.1", b"POST @TARGET\x00 HTTP/1.1",
    b"POST @TARGET\xff HTTP/1.1", b"POST @TARGET#f HTTP/1.1", b"POST @TARGET\\ HTTP/1.1",
    b"POST //@TARGET HTTP/1.1", b"POST /..@TARGET HTTP/1.1", b"POST /%2e%2e@TARGET HTTP/1.1",
    b"POST /.@TARGET HTTP/1.1", b"POST @TARGET/../x HTTP/1.1", b"POST @TARGET;a HTTP/1.1",
    b"POST @TARGET%00 HTTP/1.1", b"POST @TARGET%0d%0aX:y HTTP/1.1",
    b"POST http://a@TARGET HTTP/1.1", b"POST http://b@TARGET HTTP/1.1",
    b"POST http://@TARGET HTTP/1.1", b"POST ftp://a@TARGET HTTP/1.1",
    b"POST http://a:b@c@TARGET HTTP/1.1", b"POST * HTTP/1.1", b"POST a:1 HTTP/1.1",
    b"POST ?@TARGET HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT a:1 HTTP/1.1",
    b"CONNECT @TARGET HTTP/1.1", b"TRACE @TARGET HTTP/1.1", b"PRI * HTTP/2.0",
    b"\x16\x03\x01 / HTTP/1.1", b"P\xd6ST @TARGET HTTP/1.1", b"POST @TARGET HTTP/1.1\r",
    b"\r\n" + LINE, b"\n" + LINE, b"\r" + LINE, b"\x00" + LINE,
    b"a" * 70_000 + b" @TARGET HTTP/1.1", b"POST @TARGET" + b"a" * 70_000 + b" HTTP/1.1",
)  # fmt: skip
_HOSTS: Final = (
    (), (b"Host:",), (b"Host: ",), (b"Host: a", b"Host: a"), (b"Host: a", b"Host: b"),
    (b"Host: a b",), (b"Host: a,b",), (b"Host: a\x00",), (b"Host: a/b",), (b"Host: a@b",),
    (b"Host: a?b",), (b"Host: a#b",), (b"Host: \xff",), (b"Host : a",), (b" Host: a",),
    (b"Host: a\r\n b",), (b"Host: http://a",), (b"Host: a:b:c",), (b"Host: [::1",),
    (b"Host: a\\b",), (b"X: y", b" Host: a"), (b"Host: a\t",),
)  # fmt: skip
_FIELDS: Final = (
    b"X", b"X y", b": y", b"X\x00: y", b"X: \x00", b"X: \x01", b"X: \x7f", b"X: y\nZ: z",
    b"X: y\rZ: z", b"X: y\r\n z", b"X: y\r\n\tz", b" X: y", b"X\r\n: y", b"\xff: y", b"X: \xff",
    b"X@Y: z", b"X[]: z", b"X: " + b"y" * 70_000, b"X" * 70_000 + b": y",
    b"\r\n".join(b"X: y" for _ in range(200)), b"X: y\n", b"X: y\r", b"X: y\r\n\n", b"X: y\n\r",
    b"Connection: close", b"Connection: keep-alive", b"Connection: content-length",
    b"Connection: transfer-encoding", b"Connection: host, accept",
    b"Connection: upgrade\r\nUpgrade: websocket", b"Connection: upgrade\r\nUpgrade: h2c",
    b"Connection: \x00", b"Connection: close, close", b"Keep-Alive: timeout=1",
    b"Proxy-Connection: close", b"Expect: 100-continue", b"Expect: 100-Continue",
    b"Expect: 200-ok", b"Expect: x, 100-continue", b"Expect: 100-continue, 100-continue",
    b"Expect:", b"TE: trailers", b"TE: chunked", b"Trailer: Host", b"Max-Forwards: 0",
    b"Range: bytes=0-0", b"Via: 1.1 a", b"X-HTTP-Method-Override: DELETE",
)  # fmt: skip
_BETWEEN: Final = (
    b"", b"\r\n", b"\n", b"\r\n\r\n", b"\r", b"\x00", b" ", b"x", b"0\r\n\r\n",
    b"\r\n\r\n\r\n\r\n",
)  # fmt: skip


def _request(*fields: bytes, line: bytes = LINE, body: bytes = INNER, host: bool = True) -> bytes:
    lines = (line, *((b"Host: a",) if host else ()), b"X-Id: @ID", *fields)
    return b"".join(one + b"\r\n" for one in lines) + b"\r\n" + body


def _fill(pattern: bytes, value: bytes) -> bytes:
    return pattern.replace(b"%b", value)


def hostile_requests() -> Iterator[tuple[str, bytes]]:
    """Make all requests, each with the name of its kind."""
    for around in AROUND:
        yield "length", _request(b"Content-Length:" + _fill(around, _SIZE))
        yield "coding", _request(b"Transfer-Encoding:" + _fill(around, b"chunked"), body=CHUNKED)
        yield "chunk size", _request(TE, body=CHUNKED.replace(_HEX, _fill(around, _HEX)))
    for value in LENGTHS:
        yield "length", _request(b"Content-Length: " + value)
        yield "two lengths", _request(CL, b"Content-Length: " + value)
        yield "two lengths", _request(b"Content-Length: " + value, CL)
    for coding in CODINGS:
        yield "coding", _request(b"Transfer-Encoding: " + coding, body=CHUNKED)
        yield "two codings", _request(TE, b"Transfer-Encoding: " + coding, body=CHUNKED)
        yield "length and coding", _request(CL, b"Transfer-Encoding: " + coding, body=CHUNKED)
        yield "coding and length", _request(b"Transfer-Encoding: " + coding, CL, body=CHUNKED)
    for name in NAMES:
        yield "name of length", _request(_fill(name, b"Content-Length") + b": @SIZE")
        yield (
            "name of coding",
            _request(_fill(name, b"Transfer-Encoding") + b": chunked", body=CHUNKED),
        )
        yield (
            "length beside a coding",
            _request(CL, _fill(name, b"Transfer-Encoding") + b": chunked", body=CHUNKED),
        )
    for line in SIZE_LINES:
        yield "chunk size", _request(TE, body=CHUNKED.replace(_HEX, line))
    for end in LINE_ENDS:
        yield "end of a size", _request(TE, body=CHUNKED.replace(b"@HEX\r\n", b"@HEX" + end))
        yield "end of a chunk", _request(TE, body=CHUNKED.replace(b"\r\n0\r\n", end + b"0\r\n"))
        yield "last chunk", _request(TE, body=CHUNKED[: -len(b"\r\n\r\n")] + end + b"\r\n")
        yield "end of a head", _request(CL).replace(b"\r\n\r\n", end + b"\r\n", 1)
    for trailer in TRAILERS:
        yield "trailer", _request(TE, body=CHUNKED[: -len(b"\r\n")] + trailer + b"\r\n" + INNER)
    for line in _LINES:
        yield "request line", _request(CL, line=line)
    for fields in _HOSTS:
        yield "host", _request(*fields, CL, host=False)
    for field in _FIELDS:
        yield "field", _request(field, CL)
        yield "field before a coding", _request(field, TE, body=CHUNKED)
    for method in (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"TRACE", b"PUT", b"PATCH", b"QUERY"):
        line = method + b" @TARGET HTTP/1.1"
        yield "body on a method", _request(CL, line=line)
        yield "body on a method", _request(TE, line=line, body=CHUNKED)
        yield "body on a method", _request(b"Content-Length: 0", line=line)
    for between in _BETWEEN:
        yield "next request", _request(CL) + between + INNER
        yield "next request", _request(TE, body=CHUNKED) + between + INNER
    whole = _request(TE, body=CHUNKED)
    for size in range(5, len(whole), 11):
        yield "cut short", whole[:size]


def fill_in(request: bytes, target: bytes, name: bytes, fields: bytes = b"") -> bytes:
    """Return a request of the corpus, made of its pattern.

    Args:
        request: The pattern.
        target: The target.
        name: Six characters that tell it from the others.
        fields: Further fields of its head, each with its line end.
    """
    size = len(INNER.replace(b"@ID", name))
    request = request.replace(b"X-Id: @ID\r\n", b"X-Id: @ID\r\n" + fields)
    values = {b"@TARGET": target, b"@ID": name, b"@SIZE": b"%d" % size, b"@HEX": b"%x" % size}
    for mark, value in values.items():
        request = request.replace(mark, value)
    return request
