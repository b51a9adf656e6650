"""Raw answers of an upstream, by kind: small tables of variants, crossed with methods and framings.

They are of our own making. Each reaches the client as exactly one message, or not as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.corpus.cases import TOKEN, Case, shown
from tests.corpus.requests import (
    BAD_CODINGS,
    BAD_LENGTHS,
    BAD_SIZES,
    BAD_TRAILERS,
    CHUNKED,
    GOOD_SIZES,
    GOOD_TRAILERS,
    chunk,
)

MARK = b"X-Seen: " + TOKEN + b"\r\n"
BODY = b"<" + TOKEN + b">"
LENGTH = b"Content-Length: 10\r\n\r\n"
EVIL = b"HTTP/1.1 200 OK\r\nX-Seen: " + TOKEN + b"\r\nContent-Length: 8\r\n\r\n" + TOKEN


def head(line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """Return the beginning of a good answer: more fields follow."""
    return line + b"\r\n" + MARK


BAD_LINES = (
    b"HTTP/1.1 0200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 2000 OK", b"HTTP/1.1 abc OK", b"HTTP/1.1",
    b"HTTP/1.1\t200 OK", b"HTTP/2 200 OK", b"HTTP/2.0 200", b"HTTP/1.2 200 OK",
    b"http/1.1 200 OK", b"HTTP/0.9 200 OK", b"ICY 200 OK", b"200 OK", b"HTTP/1.1 200\x00",
    b"HTTP/1.1 200 O\rK", b" HTTP/1.1 200 OK", b"HTTP/1.1 099 x", b"HTTP/1.1 -200 x", b"<html>",
    b"SSH-2.0-x",
    b"HTTP/1.1 200OK", b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 \xef\xbc\x9200 OK", b"HTTP/11 200 OK",
    b"HTTP/1.1 200 OK\nX: y", b"\x16\x03\x01\x02\x00", b"HTTP/1.1 2e2 OK", b"HTTP/1.1 +200 OK",
)  # fmt: skip
GOOD_LINES = (
    b"HTTP/1.1 200 OK", b"HTTP/1.1 200 ", b"HTTP/1.1 200", b"HTTP/1.0 200 OK", b"HTTP/1.1 299 x y",
    b"HTTP/1.1 200 \xff\xfe", b"HTTP/1.1 418 I'm a teapot", b"HTTP/1.1 400 x", b"HTTP/1.1 404 x",
    b"HTTP/1.1 500 x", b"HTTP/1.1 529 x", b"HTTP/1.1 599 x", b"HTTP/1.1 201 x",
    b"HTTP/1.1  200 OK", b"HTTP/1.1 200 O\x08K\x7f", b"HTTP/1.0   404 \x1b[31m",
)  # fmt: skip
KEY_RATE_LIMITED, KEY_REFUSED = KEY_STATUSES = ("status 429", "status 401")
WITHHELD = (300, 301, 302, 303, 305, 306, 307, 308, 399)
GOOD_LENGTHS = (
    b"10", b"010", b"000000010", b" 10", b"10 ", b"\t10\t", b"10,10", b"10, 10", b"10 ,\t10, 10",
    b"10\r\ncontent-length: 10", b"10\r\nContent-Length: 10, 10",
)  # fmt: skip
REPEATED_LENGTHS = (b"2,2", b"2, 2")
PADDED_SIZES = (b"2 ", b"2\t")
BOTH = {
    "length, coding": b"Content-Length: 10\r\n" + CHUNKED + chunk(BODY) + b"0\r\n\r\n",
    "coding, length": CHUNKED[:-2] + LENGTH + chunk(BODY) + b"0\r\n\r\n",
    "two other lengths": b"Content-Length: 9\r\n" + LENGTH + BODY,
    "two codings": b"Transfer-Encoding: x\r\n" + CHUNKED + chunk(BODY) + b"0\r\n\r\n",
    "folded length": b"Content-Length:\r\n 10\r\n\r\n" + BODY,
    "length, folded": b"Content-Length: 1\r\n 0\r\n\r\n" + BODY,
    "a length in a folded line": b"X: 1\r\n Content-Length: 10\r\n\r\n" + BODY,
    "lengths of other digits": b"Content-Length: 10, 010\r\n\r\n" + BODY,
    "a space in the name": b"Content Length: 10\r\n\r\n" + BODY,
    "a control character": b"Content-Length: 10\x0b\r\n\r\n" + BODY,
    "an odd name": b"Transfer-Encoding\xa0: chunked\r\n\r\n" + BODY,
    "folded coding": b"Transfer-Encoding:\r\n chunked\r\n\r\n" + chunk(BODY) + b"0\r\n\r\n",
    "space before the colon": b"Content-Length : 10\r\n\r\n" + BODY,
    "a bare LF before it": b"X: y\nContent-Length: 10\r\n\r\n" + BODY,
    "a bare CR before it": b"X: y\rContent-Length: 10\r\n\r\n" + BODY,
    "a leading space": b" Content-Length: 10\r\n\r\n" + BODY,
    "a NUL in the name": b"Content-Length\x00: 10\r\n\r\n" + BODY,
}
BAD_FIELDS = (
    b"X", b"X\x00: 1", b"X: \x00", b"X: a\rb", b"X: 1\n 2", b"X=1", b"X: 1\nY: 2", b"X: 1\r\r",
    b"X\r\n : 1", b"X: " + b"a" * 70_000, b"\r\n".join([b"X: 1"] * 200),
)  # fmt: skip
# Malformed, but not in a way that matters for framing.
ODD_FIELDS = (
    b"X y: 1", b": 1", b"X: \x08", b"X: \x7f", b"X\t: 1", b"X : 1", b"X: 1\r\n 2",
    b"X: 1\r\n\tY: 2\r\n ", b"X\xff: 1", b"X(: 1", b"X/: 1", b'"X": 1', b"X@: 1", b"X\\: 1",
)  # fmt: skip
GOOD_FIELDS = (
    b"X:", b"X: ", b"X:1", b"X: a\tb", b"X: \xff\x80", b"X: a\x85b", b"X_Y: 1", b"x!#$%&'*+: 1",
    b"Content_Length: 100", b"Transfer_Encoding: chunked", b"X: Content-Length: 9", b"X: a:b:c",
    b"X: \xc4\x8d\xc4\x8aSet-Cookie: a", b"Content-Length-X: 3", b"Status: 500", b"Upgrade: h2c",
    b"Connection: close", b"Connection: keep-alive", b"Connection: Content-Length", b"Trailer: X",
    b"Connection: X-Other, close", b"Set-Cookie: a=b", b"Location: /x", b"Keep-Alive: timeout=5",
    b"X-Accel-Redirect: /x", b"Content-Encoding: chunked", b"Via: 1.1 x", b"Host: x",
    b"Date: today", b"Connection: upgrade", b"\r\n".join([b"X: 1"] * 90),
)  # fmt: skip
EXTRAS = {
    "an answer": EVIL,
    "line breaks": b"\r\n\r\n",
    "a byte": b"x",
    "the end of chunks": b"0\r\n\r\n",
    "an interim answer": b"HTTP/1.1 100 Continue\r\n\r\n",
    "a request": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "half an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n" + TOKEN,
    "a redirect": b"HTTP/1.1 302 x\r\nLocation: /\r\nContent-Length: 0\r\n\r\n",
}
FRAMINGS = {
    "length": LENGTH + BODY,
    "chunks": CHUNKED + chunk(BODY) + b"0\r\n\r\n",
    "an empty body": b"Content-Length: 0\r\n\r\n",
}
INTERIM = b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\nX-Seen: " + TOKEN + b"\r\n\r\n"


def _heads() -> Iterator[Case]:
    good = LENGTH + BODY
    for line in BAD_LINES:
        yield Case("bad status line", shown(line), head(line) + good, "refused")
    for line in GOOD_LINES:
        yield Case("good status line", shown(line), head(line) + good, "forwarded")
    # After these the provider's only key is not used for a while.
    yield Case(KEY_RATE_LIMITED, "429", head(b"HTTP/1.1 429 x") + LENGTH + BODY, "forwarded")
    yield Case(KEY_REFUSED, "401", head(b"HTTP/1.1 401 x") + LENGTH + BODY, "refused")
    for status in WITHHELD:
        raw = head(b"HTTP/1.1 %d x" % status) + b"Location: http://x/\r\n" + good
        yield Case("withheld", str(status), raw, "refused")
    for field in BAD_FIELDS:
        yield Case("bad field", shown(field), head() + field + b"\r\n" + good, "refused")
    for space in (b" ", b"\t"):
        raw = b"HTTP/1.1 200 OK\r\n" + space + MARK + good
        yield Case("bad field", f"white space before the first: {shown(space)}", raw, "refused")
    for field in ODD_FIELDS:
        yield Case("odd field", shown(field), head() + field + b"\r\n" + good, "forwarded")
    for framing, rest in FRAMINGS.items():
        fields, body = (head() + rest).split(b"\r\n\r\n", 1)
        raw = fields.replace(b"\r\n", b"\n") + b"\n\n" + body
        yield Case("line feeds alone", framing, raw, "forwarded")
        mixed = fields.replace(b"\r\n", b"\n", 1) + b"\r\n\r\n" + body
        yield Case("mixed line breaks", f"{framing}, LF first", mixed, "refused")
        mixed = fields + b"\n\n" + body
        yield Case("mixed line breaks", f"{framing}, LF last", mixed, "refused")
    for field in GOOD_FIELDS:
        yield Case("good field", shown(field), head() + field + b"\r\n" + good, "forwarded")


def _framings() -> Iterator[Case]:
    for line in (b"HTTP/1.1 200 OK", b"HTTP/1.1 404 x"):
        status = shown(line[9:12])
        for value in set(BAD_LENGTHS).difference(REPEATED_LENGTHS):
            raw = head(line) + b"Content-Length: " + value + b"\r\n\r\n" + BODY
            yield Case("bad length", f"{status} {shown(value)}", raw, "refused")
        for value in BAD_CODINGS:
            raw = head(line) + b"Transfer-Encoding: " + value + b"\r\n\r\n0\r\n\r\n"
            yield Case("bad coding", f"{status} {shown(value)}", raw, "refused")
        for name, framing in BOTH.items():
            yield Case("two framings", f"{status} {name}", head(line) + framing, "refused")
    for value in GOOD_LENGTHS:
        raw = head() + b"Content-Length: " + value + b"\r\n\r\n" + BODY
        yield Case("good length", shown(value), raw, "forwarded")
    old = head(b"HTTP/1.0 200 OK")
    yield Case("HTTP/1.0", "chunks", old + FRAMINGS["chunks"], "refused")
    for name, start in (("HTTP/1.0", old), ("HTTP/1.1", head())):
        raw = start + b"\r\n" + BODY
        yield Case("until close", name, raw, "forwarded", complete=False)


def _chunks() -> Iterator[Case]:
    start = head() + CHUNKED + chunk(BODY)
    for size in set(BAD_SIZES).difference(PADDED_SIZES):
        raw = start + size + b"\r\n{}\r\n0\r\n\r\n"
        yield Case("bad chunk size", shown(size), raw, "broken")
    for size in (*GOOD_SIZES, *PADDED_SIZES, b"2   ;a=b"):
        raw = start + size + b"\r\n{}\r\n0\r\n\r\n"
        yield Case("good chunk size", shown(size), raw, "forwarded")
    for ending in (b"\n", b"\r", b"", b"\r\r", b"x\r\n", b"\r\n\r\n"):
        raw = start + b"2\r\n{}" + ending + b"0\r\n\r\n0\r\n\r\n"
        yield Case("bad end of a chunk", shown(ending), raw, "broken")
    for trailers in BAD_TRAILERS:
        raw = start + b"0\r\n" + trailers + b"\r\n"
        yield Case("bad trailers", shown(trailers), raw, "broken")
    for trailers in GOOD_TRAILERS:
        raw = start + b"0\r\n" + trailers + b"\r\n"
        yield Case("good trailers", shown(trailers), raw, "forwarded")


def _extras() -> Iterator[Case]:
    for extra, more in EXTRAS.items():
        for framing, rest in FRAMINGS.items():
            for method in ("POST", "GET"):
                name = f"{method} {framing}, then {extra}"
                raw = head() + rest
                yield Case("more behind it", name, raw + more, "forwarded", method=method)
                idle = f"{name}, while idle"
                yield Case("more behind it", idle, raw, "forwarded", idle=more, method=method)
    for line in (b"HTTP/1.1 200 OK", b"HTTP/1.1 204 x", b"HTTP/1.1 304 x"):
        method = "HEAD" if b"200" in line else "GET"
        for framing, rest in FRAMINGS.items():
            fields, body = (head(line) + rest).split(b"\r\n\r\n", 1)
            start, name = fields + b"\r\n\r\n", f"{shown(line)}, {framing}"
            body = body or EVIL
            yield Case("body without need", name, start + body, "forwarded", method=method)
            late = f"{name}, late"
            yield Case("body without need", late, start, "forwarded", late=body, method=method)


def _interim() -> Iterator[Case]:
    good = head() + LENGTH + BODY
    many = {"one": 1, "three": 3, "sixteen": 16}
    for name, count in many.items():
        yield Case("interim answers", name, INTERIM * count + good, "forwarded")
    yield Case("interim answers", "bare LF", b"HTTP/1.1 100 x\n\n" + good, "forwarded")
    folded = b"HTTP/1.1 103 x\r\nX: y\r\n z\r\n\r\n"
    yield Case("interim answers", "a fold", folded + good, "forwarded")
    yield Case("too many interim answers", "seventeen", INTERIM * 17 + good, "refused")
    bad = {
        "101": b"HTTP/1.1 101 x\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        "a body": b"HTTP/1.1 100 x\r\nContent-Length: 8\r\n\r\n" + TOKEN,
        "chunks": b"HTTP/1.1 103 x\r\n" + CHUNKED + chunk(BODY) + b"0\r\n\r\n",
    }
    for name, raw in bad.items():
        yield Case("bad interim answer", name, raw + good, "refused")


def _cuts() -> Iterator[Case]:
    whole = head() + b"Content-Length: 50\r\n\r\n" + BODY * 5
    chunks = head() + CHUNKED + chunk(BODY) * 3 + b"0\r\nX: 1\r\n\r\n"
    for name, raw in (("length", whole), ("chunks", chunks)):
        body = raw.index(b"\r\n\r\n")
        for cut in (0, 1, 9, 17, body, body + 2):
            title = f"{name}, {cut} of {len(raw)} bytes"
            yield Case("cut in the head", title, raw[:cut], "refused", complete=False)
        for cut in (body + 4, body + 5, body + 10, len(raw) - 10, len(raw) - 2, len(raw) - 1):
            title = f"{name}, {cut} of {len(raw)} bytes"
            yield Case("cut in the body", title, raw[:cut], "broken", complete=False)


ANSWERS = (*_heads(), *_framings(), *_chunks(), *_extras(), *_interim(), *_cuts())
"""All cases."""
