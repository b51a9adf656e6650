"""The parts of an HTTP message, as wires, servers and clients exchange them."""

import attrs

Headers = tuple[tuple[bytes, bytes], ...]
"""Header or trailer fields: names in lower case, in their order, with repetitions."""


@attrs.frozen
class Request:
    """The head of a request, validated.

    Attributes:
        method: As sent; methods are case-sensitive.
        target: In origin form (`/path?query`), or `*` of an OPTIONS request.
        headers: All fields, including those about connection and framing.
        http_version: `1.0` or `1.1`.
    """

    method: bytes
    target: bytes
    headers: Headers
    http_version: bytes = b"1.1"


@attrs.frozen
class ResponseHead:
    """The head of a response, validated; `status` below 200 is an interim one.

    Attributes:
        status: Three digits.
        reason: The reason phrase as sent, possibly empty.
        headers: All fields, including those about connection and framing.
        http_version: `1.0` or `1.1`.
    """

    status: int
    reason: bytes
    headers: Headers
    http_version: bytes = b"1.1"


@attrs.frozen
class EndOfMessage:
    """The message that was being received is complete.

    Attributes:
        trailers: The fields after a chunked body; empty with any other framing.
    """

    trailers: Headers = ()


NO_TRAILERS = EndOfMessage()
"""The end of a message without trailers."""


def get_header(headers: Headers, name: bytes) -> bytes | None:
    """Return the value of the first field with this (lower-case) name, or None."""
    for candidate, value in headers:
        if candidate == name:
            return value
    return None


def is_websocket_handshake(request: Request) -> bool:
    """Return whether a request asks to open a websocket (RFC 6455 section 4.1).

    By its method and its Upgrade field only; the rest of it may still be wrong.
    """
    if request.method != b"GET":
        return False
    upgrade = get_header(request.headers, b"upgrade")
    return upgrade is not None and b"websocket" in upgrade.lower().replace(b" ", b"").split(b",")
