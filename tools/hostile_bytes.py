"""What attackers send to an HTTP port, for the tests and for `make fuzz`: the same for each server.

`PACKETS` are what once ended a server for everybody. `malformed` makes any number of requests that
are wrong in some place.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Final

_UPGRADE: Final = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
_TO_HTTP2: Final = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
    b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
)
_HTTP2: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
_CONNECT: Final = b"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n"


def _frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """Make one frame of HTTP/2."""
    length = struct.pack(">I", len(payload))[1:]
    return length + bytes([kind, flags]) + struct.pack(">I", stream) + payload


_SETTINGS: Final = _frame(4)
# GET / of HPACK's static table, with an authority that is one byte long
_HEADERS: Final = bytes([0x82, 0x84, 0x86, 0x41, 1]) + b"a"

PACKETS: Final[dict[str, tuple[bytes, ...]]] = {
    "a websocket upgrade and one byte": (_UPGRADE + b"\x00",),
    "a websocket upgrade, then one byte": (_UPGRADE, b"\x88"),
    "a websocket upgrade and frames": (_UPGRADE + b"\x81\x01a" * 1000,),
    "CONNECT": (_CONNECT, b"\x16\x03\x01"),
    "CONNECT by HTTP/2": (
        _HTTP2 + _SETTINGS + _frame(1, 4, 1, b"\x02\x07CONNECT\x41\x01a"),
        _frame(0, 0, 1, b"x"),
    ),
    "an upgrade to HTTP/2": (_TO_HTTP2 + _HTTP2 + _SETTINGS, _frame(0, 0, 1) * 1000),
    "HTTP/2 with empty data": (
        _HTTP2 + _SETTINGS + _frame(1, 4, 1, _HEADERS),
        _frame(0, 0, 1) * 20_000,
    ),
    "HTTP/2 with pings": (_HTTP2 + _SETTINGS + _frame(6, 0, 0, bytes(8)) * 20_000,),
    "HTTP/2 with settings": (_HTTP2 + _SETTINGS * 20_000,),
    "HTTP/2 with empty continuations": (
        _HTTP2 + _SETTINGS + _frame(1, 0, 1, _HEADERS),
        _frame(9, 0, 1) * 20_000,
    ),
    "HTTP/2 with resets": (
        _HTTP2
        + _SETTINGS
        + b"".join(
            _frame(1, 5, number, _HEADERS) + _frame(3, 0, number, bytes(4))
            for number in range(1, 4001, 2)
        ),
    ),
    "HTTP/2 with nothing it knows": (_HTTP2 + b"\xff" * 65536,),
}
"""Each packet is sent in pieces, by one connection."""

_PIECES: Final = (
    b"\x00", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b"\xff", b"HTTP/1.1", b"%",
    b"Content-Length: -1\r\n", b"Transfer-Encoding: x\r\n", b"Connection: upgrade\r\n",
    b"Expect: 100-continue\r\n", b"\x80", b"a" * 70_000, b"ffffffffffffffff", b"Content-Length: 5",
    b"Transfer-Encoding: chunked\r\n", b"\r\n ", b"0\r\n\r\n", b"Host: b\r\n", b"..", b"?", b"#",
    b"CONNECT", b"HTTP/1.0", b"HTTP/2.0", b";a=b", b"\x0b", b"\xc0\xaf", b"Connection: close\r\n",
)  # fmt: skip


def malformed(number: int, seed: int, target: str, key: str = "bpa_a") -> Iterator[bytes]:
    """Make requests that are wrong in some places, stop early, or are good in the end.

    Args:
        number: How many.
        seed: The same seed makes the same requests.
        target: The target of the request that they are made from.
        key: The key in it; a valid one gets them further.
    """
    chance = random.Random(seed)
    head = (
        f"POST {target}?a=1 HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {key}\r\n"
        "Content-Type: application/json\r\n"
    ).encode()
    bodies = (
        b'Transfer-Encoding: chunked\r\n\r\n6\r\n{"a":1\r\n1\r\n}\r\n0\r\nX: y\r\n\r\n',
        b'Content-Length: 7\r\n\r\n{"a":1}',
        b'Content-Length: 7\r\nConnection: close\r\n\r\n{"a":1}',
        b'Expect: 100-continue\r\nContent-Length: 7\r\n\r\n{"a":1}',
    )
    for _ in range(number):
        request = bytearray(head + chance.choice(bodies))
        for _ in range(chance.randint(0, 3)):
            begin = chance.randrange(len(request))
            end = min(begin + chance.choice((0, 0, 1, 2, 20)), len(request))
            request[begin:end] = chance.choice(_PIECES)
        yield bytes(request[: chance.choice((None, None, chance.randrange(1, len(request))))])
