"""What the two sides of a websocket exchange in the handshake, and the limits of both."""

from collections.abc import Mapping

import attrs

from bridgepool._options import count, positive_seconds
from bridgepool._secret import Secret


@attrs.frozen
class Handshake:
    """The request of a client."""

    path: str
    """As sent, without the query."""
    query: Mapping[str, str]
    """Decoded; the last value of a name that is repeated."""
    bearer: Secret | None
    """The token of `Authorization`; None if there is none, or more than one."""
    peer: str
    """The address of the client, for logs; empty if unknown."""
    foreign_origin: bool = False
    """Whether a browser asks on behalf of a web page from another host than this one."""


@attrs.frozen
class Refused:
    """What `admit` returns to refuse a client.

    The answer has the HTTP status and `{"code": ..., "reason": ...}`, which the client raises as
    `HandshakeRefusedError`.
    """

    status: int = attrs.field(validator=[attrs.validators.ge(400), attrs.validators.le(599)])
    code: str
    """For programs."""
    reason: str
    """For people: what to do. It must not contain a secret."""


@attrs.frozen(kw_only=True)
class WebSocketLimits:
    """Sizes, and durations in seconds. Use the same at both ends."""

    max_message_bytes: int = attrs.field(default=16 << 20, validator=count)
    """The largest message that is sent or received."""
    handshake_timeout: float = attrs.field(default=10.0, validator=positive_seconds)
    """For connecting, TLS and the handshake together."""
    heartbeat_interval: float = attrs.field(default=45.0, validator=positive_seconds)
    """The other side is pinged after so long without a byte from it. This finds a process that is
    frozen; the kernels check the network all the time."""
    heartbeat_timeout: float = attrs.field(default=20.0, validator=positive_seconds)
    """The connection is broken after so long without a byte after a ping or, for a client, after a
    message and a ping; without an answer of the other machine's kernel; without the other side
    accepting data; and without the owner of the channel receiving what is unread."""
    close_timeout: float = attrs.field(default=2.0, validator=positive_seconds)
    """For queued messages and the closing handshake when a channel is closed."""
