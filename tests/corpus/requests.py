"""Raw requests, by kind: small tables of variants, crossed with methods and framings.

They are of our own making. Each is either refused or forwarded as exactly one message.
"""

from __future__ import annotations

from collections.abc import Iterator

from tests.corpus.cases import TOKEN, Case, shown

PATH = b"/ai/v1/chat/completions"
HOST = b"Host: 127.0.0.1\r\n"
MARK = b"X-Case: " + TOKEN + b"\r\n"
BODY = b"{}"
GOOD_LENGTH = b"Content-Length: 2\r\n\r\n{}"
CHUNKED = b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /v1/smuggled HTTP/1.1\r\nHost: x\r\nX-Case: " + TOKEN + b"\r\n\r\n"


def head(method: bytes = b"POST", path: bytes = PATH, version: bytes = b"HTTP/1.1") -> bytes:
    """Return the beginning of a good request: more fields follow."""
    return b"%b %b %b\r\n" % (method, path, version) + HOST + MARK


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


BAD_LENGTHS = (
    b"+2", b"-2", b"-0", b"0x2", b"2_0", b"2 2", b"2,2", b"2, 2", b"2,3", b"", b"2a", b"\xd9\xa2",
    b"2e0", b"2.0", b"2;", b"two", b"99999999999999999999", b"\x0b2", b"2\x00", b"'2'", b"2\x0c",
)  # fmt: skip
GOOD_LENGTHS = (b"2", b"02", b"0000002", b" 2", b"2 ", b"\t2\t", b"000000000000000002")
BAD_CODINGS = (
    b"xchunked", b"chunked, identity", b"identity", b"gzip, chunked", b"chunked;a=b",
    b"\x0bchunked", b"chunked\x00", b'"chunked"', b"chunked,", b", chunked", b"cow", b"",
    b"chunked, chunked", b"identity, chunked", b"ch\xc5\xabnked", b"chunked\x0c", b"deflate",
    b"chunked chunked", b"'chunked'", b"chun\rked",
)  # fmt: skip
BOTH = {
    "length, coding": b"Content-Length: 7\r\n" + CHUNKED + b"2\r\n{}\r\n0\r\n\r\n",
    "coding, length": CHUNKED[:-2] + b"Content-Length: 7\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    "length 0, coding": b"Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "unknown coding, length": b"Transfer-Encoding: x\r\nContent-Length: 2\r\n\r\n{}",
    "two lengths": b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
    "two other lengths": b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n{} ",
    "two codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "folded length": b"Content-Length:\r\n 2\r\n\r\n{}",
    "folded coding": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "space before the colon": b"Content-Length : 2\r\n\r\n{}",
    "tab before the colon": b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "a bare LF before it": b"X: y\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bare CR before it": b"X: y\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a NUL in the name": b"Content-Length\x00: 2\r\n\r\n{}",
    "a leading space": b" Content-Length: 2\r\n\r\n{}",
}
BAD_SIZES = (
    b"xyz", b"+2", b"-2", b"0x2", b"", b" 2", b"2 ", b"\t2", b"2\t", b"2_", b"00000000000000002",
    b"2;a\nb", b"2;a\rb", b"2;" + b"a" * 300, b"2\x00", b"2,", b"2.0", b"\xd9\xa2", b"2;\x00", b"3",
    b"1", b"2\r", b"0\n",
)  # fmt: skip
GOOD_SIZES = (b"2", b"02", b"0000000000000002", b"2;a", b"2;a=b", b'2;a="b;c"', b"2;;", b"2;\xff")
BAD_TRAILERS = (
    b"X: 1\r\n 2\r\n", b"X : 1\r\n", b"X: 1\n", b"X\r\n", b": 1\r\n", b"X: \x00\r\n", b" X: 1\r\n",
    b"Content-Length: 2\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: x\r\n", b"Trailer: x\r\n",
    b"Authorization: x\r\n", b"Connection: close\r\n", b"X: \r\r\n",
)  # fmt: skip
GOOD_TRAILERS = (b"X-Sum: 1\r\n", b"X: \r\n", b"A: 1\r\nB: 2\r\n", b"x_y: 1\r\n", b"X:\t1\t\r\n")
INNER = {
    "a request": SMUGGLED,
    "the end of a chunked body and a request": b"0\r\n\r\n" + SMUGGLED,
    "a request of HTTP/0.9": b"GET /" + TOKEN + b"\r\n",
    "half a head": b"GET /v1/smuggled HTTP/1.1\r\nX-Case: " + TOKEN + b"\r\nX: ",
    "an answer": b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n" + TOKEN,
    "line breaks": b"\r\n\r\n" + TOKEN + b"\r\n\r\n",
}
BAD_TARGETS = (
    b"ai", b"*", b"/ai/v1/chat/../chat/completions", b"/ai/v1/chat/%2e%2e/files",
    b"/ai//v1/chat/completions", b"//ai/v1/chat/completions", b"/ai/v1/chat/completions/..",
    b"/ai/v1/chat/completions/.", b"/ai/v1/chat/completions/a%00", b"/ai/v1/chat/completions/%",
    b"/ai/v1/chat/completions/%zz", b"/ai/v1/chat/completions/a%2525", b"/ai/v1/chat/completions/;",
    b"/ai/v1/chat/completions/a\\b", b"/ai/v1/chat/completions/a%5cb", b"/ai/v1/chat/completions/",
    b"/ai/v1/chat/completions//x", b"/ai/v1/chat/completions#f", b"/ai/v1/files", b"/ai", b"/",
    b"/ai/v1/chat/completions/%2e%2e%2fx", b"/AI/v1/chat/completions", b"/ai%2fv1/chat/completions",
    b"/%61i/v1/chat/completions", b"/ai/v1/chat/completions%0d%0aX", b"http://127.0.0.1",
    b"/ai/v1/chat/completions/x%0a", b"ftp://127.0.0.1/ai/v1/chat/completions", b"?", b"/?",
    b"http://u@127.0.0.1/ai/v1/chat/completions", b"http:///ai/v1/chat/completions", b"http://",
    b"http://127.0.0.1\\/ai/v1/chat/completions", b"/ai/v1/chat/completions\xff", b"/\x7f",
    b"/ai/v1/chat/completions /x", b"/ai/v1/chat/completions\t", b"/" + b"a" * 9000,
)  # fmt: skip
GOOD_TARGETS = (
    PATH, PATH + b"?a=%0d%0aX:1", PATH + b"/id_1-2.3~", b"http://127.0.0.1" + PATH, PATH + b"?",
    b"/ai/v1/responses/a%2Fb", PATH + b"?a&b;c=\"<>", b"HTTP://127.0.0.1" + PATH + b"?x",
)  # fmt: skip
BAD_LINES = {
    "two spaces": b"POST  /ai HTTP/1.1", "a tab": b"POST\t/ai HTTP/1.1", "no version": b"POST /ai",
    "a lower-case version": b"POST /ai http/1.1", "HTTP/2": b"POST /ai HTTP/2.0",
    "HTTP/1.2": b"POST /ai HTTP/1.2", "HTTP/0.9": b"POST /ai HTTP/0.9", "HTTP/11": b"P /ai HTTP/11",
    "a space at the end": b"POST /ai HTTP/1.1 ", "a space at the start": b" POST /ai HTTP/1.1",
    "no method": b"/ai HTTP/1.1", "a method in quotes": b'"POST" /ai HTTP/1.1',
    "a NUL": b"POST /ai\x00 HTTP/1.1", "CONNECT": b"CONNECT x:1 HTTP/1.1", "words": b"a b c d",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01", "the preface of HTTP/2": b"PRI * HTTP/2.0",
    "a bare CR": b"POST /ai HTTP/1.1\rX: y", "a bare LF": b"POST /ai HTTP/1.1\nX: y",
    "a version that is no number": b"POST /ai HTTP/one", "an old method": b"POS\xffT /ai HTTP/1.1",
}  # fmt: skip
BAD_FIELDS = (
    b"X", b"X y: 1", b": 1", b"X\x00: 1", b"X: \x00", b"X: \x08", b"X: \x7f", b"X: a\rb", b"X\t: 1",
    b"X : 1", b" X: 1", b"\tX: 1", b"X: 1\r\n 2", b"X: 1\n 2", b"X\xff: 1", b"X(: 1", b"X/: 1",
    b'"X": 1', b"X=1", b"X@: 1", b"[X]: 1", b"{X}: 1", b"X: 1\nY: 2", b"X: 1\r\r", b"X\\: 1",
    b"X: " + b"a" * 70_000, b"\r\n".join([b"X: 1"] * 200), b"Expect: 200-ok", b"Host: 127.0.0.1",
    b"Host: x",
)  # fmt: skip
GOOD_FIELDS = (
    b"X:", b"X: ", b"X:1", b"X: a\tb", b"X: \xff\x80\xa0", b"X: a\x85b", b"X_Y: 1", b"x!#$%&'*+: 1",
    b"Content_Length: 100", b"Transfer_Encoding: chunked", b"X: Content-Length: 9", b"X: a:b:c",
    b"Transfer-Encodin: chunked", b"Content-Length-X: 3", b"X-Content-Length: 9", b"Te: trailers",
    b"Content-Encoding: chunked", b"X: \xc4\x8d\xc4\x8aY: 2", b"From: me", b"X: \x85 folded",
    b"Status: 200", b"Trailer: Content-Length", b"Range: bytes=0-", b"Max-Forwards: 0",
    b"X-HTTP-Method-Override: DELETE", b"Upgrade-Insecure-Requests: 1",
    b"\r\n".join([b"X: 1"] * 90),
)  # fmt: skip
BAD_HOSTS = (
    None, b"Host:\r\n", b"Host: a b\r\n", b"Host: u@127.0.0.1\r\n", b"Host: 127.0.0.1/x\r\n",
    b"Host: 127.0.0.1#\r\n", b"Host: 127.0.0.1?\r\n", b"Host: 127.0.0.1\\x\r\n", b"Host: a,b\r\n",
    b"Host: 127.0.0.1\r\nHost: 127.0.0.1\r\n", b"Host: evil.example\r\n", b"Host: \xff\r\n",
    b"Host: 127.0.0.1\x00\r\n", b"Host: <x>\r\n", b"Host: http://127.0.0.1\r\n",
)  # fmt: skip
OPTIONS = (
    b"close", b"keep-alive", b"Content-Length", b"X-Other", b"Host", b"Transfer-Encoding", b"TE",
    b"upgrade", b"close, keep-alive", b",,", b"Authorization", b"Content-Type, Content-Length", b"",
)  # fmt: skip
ASKS = {
    "h2c": b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n",
    "websocket": b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
    "TLS": b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n",
    "100-continue": b"Expect: 100-continue\r\n",
    "100-Continue": b"Expect: 100-Continue\r\n",
}
METHODS = (b"POST", b"GET", b"DELETE")


def _framings() -> Iterator[Case]:
    for method in METHODS:
        for value in BAD_LENGTHS:
            raw = head(method) + b"Content-Length: " + value + b"\r\n\r\n" + BODY
            yield Case("bad length", f"{method.decode()} {shown(value)}", raw, "refused")
        for value in BAD_CODINGS:
            raw = head(method) + b"Transfer-Encoding: " + value + b"\r\n\r\n0\r\n\r\n"
            yield Case("bad coding", f"{method.decode()} {shown(value)}", raw, "refused")
        for name, framing in BOTH.items():
            yield Case(
                "two framings", f"{method.decode()} {name}", head(method) + framing, "refused"
            )
    for value in GOOD_LENGTHS:
        raw = head() + b"Content-Length: " + value + b"\r\n\r\n" + BODY
        yield Case("good length", shown(value), raw, "forwarded")


def _chunks() -> Iterator[Case]:
    end = b"0\r\n\r\n"
    for size in BAD_SIZES:
        raw = head() + CHUNKED + size + b"\r\n{}\r\n" + end
        yield Case("bad chunk size", shown(size), raw, "refused", late_fault=True)
    for size in GOOD_SIZES:
        raw = head() + CHUNKED + size + b"\r\n{}\r\n" + end
        yield Case("good chunk size", shown(size), raw, "forwarded")
    for ending in (b"\n", b"\r", b"", b"\r\r", b"x\r\n", b"\r\n\r\n"):
        raw = head() + CHUNKED + b"2\r\n{}" + ending + end + end
        yield Case("bad end of a chunk", shown(ending), raw, "refused", late_fault=True)
    for trailers in BAD_TRAILERS:
        raw = head() + CHUNKED + chunk(BODY) + b"0\r\n" + trailers + b"\r\n"
        yield Case("bad trailers", shown(trailers), raw, "refused", late_fault=True)
    for trailers in GOOD_TRAILERS:
        raw = head() + CHUNKED + chunk(BODY) + b"0\r\n" + trailers + b"\r\n"
        yield Case("good trailers", shown(trailers), raw, "forwarded")


def _bodies() -> Iterator[Case]:
    for inner, data in INNER.items():
        framings = {
            "length": b"Content-Length: %d\r\n\r\n%b" % (len(data), data),
            "chunks": CHUNKED + chunk(data) + b"0\r\n\r\n",
            "small chunks": CHUNKED + b"".join(chunk(data[i : i + 1]) for i in range(len(data)))
            + b"0\r\n\r\n",
        }  # fmt: skip
        for name, framing in framings.items():
            title = f"{inner}, {name}"
            yield Case("smuggled in a body", title, head() + framing, "forwarded")
            for method in (b"GET", b"HEAD", b"DELETE"):
                raw = head(method, PATH + b"/x") + framing
                yield Case("body without need", f"{method.decode()} {title}", raw, "refused")
    for method in (b"GET", b"HEAD", b"DELETE"):
        empty = {"length 0": b"Content-Length: 0\r\n\r\n", "none": b"\r\n"}
        for name, framing in empty.items():
            raw = head(method, PATH + b"/x") + framing
            yield Case("no body", f"{method.decode()} {name}", raw, "forwarded")


def _heads() -> Iterator[Case]:
    for target in BAD_TARGETS:
        raw = head(path=target) + GOOD_LENGTH
        yield Case("bad target", shown(target), raw, "refused")
    for target in GOOD_TARGETS:
        yield Case("good target", shown(target), head(path=target) + GOOD_LENGTH, "forwarded")
    for name, line in BAD_LINES.items():
        yield Case("bad request line", name, line + b"\r\n" + HOST + MARK + GOOD_LENGTH, "refused")
    for field in BAD_FIELDS:
        yield Case("bad field", shown(field), head() + field + b"\r\n" + GOOD_LENGTH, "refused")
    for field in GOOD_FIELDS:
        yield Case("good field", shown(field), head() + field + b"\r\n" + GOOD_LENGTH, "forwarded")
    for host in BAD_HOSTS:
        raw = b"POST %b HTTP/1.1\r\n" % PATH + (host or b"") + MARK + GOOD_LENGTH
        yield Case("bad host", shown(host or b"none"), raw, "refused")
    for option in OPTIONS:
        raw = head() + b"Connection: " + option + b"\r\n" + GOOD_LENGTH
        yield Case("connection", shown(option), raw, "forwarded")
    for name, fields in ASKS.items():
        yield Case("upgrade or expectation", name, head() + fields + GOOD_LENGTH, "forwarded")
    old = head(version=b"HTTP/1.0")
    yield Case("HTTP/1.0", "length", old + GOOD_LENGTH, "forwarded")
    kept = old + b"Connection: keep-alive\r\n" + GOOD_LENGTH
    yield Case("HTTP/1.0", "kept", kept, "forwarded")
    yield Case("HTTP/1.0", "chunks", old + CHUNKED + chunk(BODY) + b"0\r\n\r\n", "refused")


def _pieces() -> Iterator[Case]:
    whole = head() + b"Content-Length: 20\r\n\r\n" + b"x" * 20
    chunks = head() + CHUNKED + chunk(b"x" * 20) + b"0\r\nX: 1\r\n\r\n"
    for name, raw in (("length", whole), ("chunks", chunks)):
        body = raw.index(b"\r\n\r\n")
        for cut in (1, 5, 30, body, body + 2, body + 4, body + 5, body + 10, len(raw) - 1):
            title = f"{name}, {cut} of {len(raw)} bytes"
            yield Case("cut", title, raw[:cut], "refused", complete=False)
    good = head() + GOOD_LENGTH
    follows = {
        "a good request": (good, 2), "line breaks": (b"\r\n\r\n\r\n" + good, 2),
        "a word": (b"word\r\n\r\n", 1), "a bare LF": (b"\nGET / HTTP/1.1\r\n\r\n", 1),
        "a body that was not announced": (b"{}" * 40 + b"\r\n\r\n", 1),
        "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 1), "NULs": (b"\x00" * 50 + b"\r\n\r\n", 1),
    }  # fmt: skip
    for name, (more, messages) in follows.items():
        yield Case("more behind it", name, good + more, "forwarded", messages=messages)
    leading = {"one": b"\r\n", "three": b"\r\n" * 3}
    for name, raw in leading.items():
        yield Case("line breaks before it", name, raw + good, "forwarded")


REQUESTS = (*_framings(), *_chunks(), *_bodies(), *_heads(), *_pieces())
"""All cases."""
