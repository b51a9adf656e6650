"""What the two sides of a websocket tell each other before the first message."""

from collections.abc import Mapping

import attrs

from bridgepool._secret import Secret


@attrs.frozen
class Handshake:
    """What a client asked for."""

    path: str
    """Without the query, as it was sent."""
    query: Mapping[str, str]
    """Decoded; of a name that comes twice, the last value."""
    bearer: Secret | None
    """The token that came as `Authorization`; None when there is none, or more than one."""
    peer: str
    """The client's address, for logs; empty if it is not known."""


@attrs.frozen
class Refused:
    """An `admit` returns this instead of an identity to turn a client away.

    It is answered with the HTTP status and `{"code": ..., "reason": ...}`, which the client
    raises as `HandshakeRefusedError`.
    """

    status: int = attrs.field(validator=[attrs.validators.ge(400), attrs.validators.le(599)])
    code: str
    """A word for programs."""
    reason: str
    """A sentence for people: what to do. It must hold no secret."""


_positive = attrs.validators.gt(0.0)


@attrs.frozen(kw_only=True)
class WebSocketLimits:
    """How much and how long; durations in seconds. Give both ends the same."""

    max_message_bytes: int = attrs.field(default=16 << 20, validator=attrs.validators.gt(0))
    """The largest message that is sent or taken."""
    handshake_timeout: float = attrs.field(default=10.0, validator=_positive)
    """From the start of a connection to the first message, TLS included."""
    heartbeat_interval: float = attrs.field(default=45.0, validator=_positive)
    """After so long without a byte from the other side, it is asked whether it is there. This
    finds a process that is frozen; the network is watched by the kernels all the time."""
    heartbeat_timeout: float = attrs.field(default=20.0, validator=_positive)
    """The connection is broken after so long without a byte that answers a question or, for a
    client, a message; without a word from the other machine's kernel; without the other side
    taking what is sent; and without the owner of a channel receiving what came."""
    close_timeout: float = attrs.field(default=2.0, validator=_positive)
    """For what was sent but not yet written, and for the goodbyes, when a channel is closed."""
