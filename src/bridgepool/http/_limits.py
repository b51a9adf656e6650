"""Limits of servers and upstream clients: sizes, numbers and times."""

import math
from typing import Protocol

import attrs

from bridgepool._options import amount, count, seconds

_SLOW_START = 5.0  # seconds before a client has to reach `min_receive_rate`


class MessageLimits(Protocol):
    """The largest message that a wire accepts, in bytes."""

    @property
    def max_target_bytes(self) -> int:
        """Longest request target."""
        ...

    @property
    def max_header_bytes(self) -> int:
        """Largest head, and largest trailer section."""
        ...

    @property
    def max_header_count(self) -> int:
        """Most fields in either."""
        ...

    @property
    def max_body_bytes(self) -> float:
        """Largest body to be received; `math.inf` for no limit."""
        ...


@attrs.frozen(kw_only=True)
class HttpLimits:
    """The limits of `serve_http` for one connection or request.

    `ConnectionLimiter` has those for the number of connections.

    Args:
        max_target_bytes: Longest request target; 414 beyond.
        max_header_bytes: Largest head, and largest trailer section; 431 beyond.
        max_header_count: Most fields in either; 431 beyond.
        max_body_bytes: Largest request body with any framing; 413 beyond. `math.inf` for no limit.
        header_timeout: Seconds from the first byte of a head to its last; 408 beyond.
        idle_timeout: Seconds that a connection may wait for its next request.
        unauthenticated_timeout: Seconds from the beginning of a connection within which a handler
            must call `Exchange.authenticated`; otherwise the connection ends after its current
            exchange. `math.inf` for handlers without authentication.
        body_timeout: Seconds that a handler waits for the next bytes of a body.
        max_body_time: Seconds that a handler waits for all of a body; 408 beyond. Only its waits
            count: a client is not slow because the handler is.
        min_receive_rate: Bytes a second that a client must send on average while a head or a body
            is awaited, after the first five seconds; 408 below. 0 for no such limit.
        send_timeout: Seconds that a client may go without accepting a byte.
        read_ahead_bytes: Bytes received before the handler asks for them. Reading ahead is how a
            disconnect is noticed while the handler is busy.
    """

    max_target_bytes: int = attrs.field(default=8192, validator=amount)
    max_header_bytes: int = attrs.field(default=65536, validator=amount)
    max_header_count: int = attrs.field(default=128, validator=amount)
    max_body_bytes: float = attrs.field(default=math.inf, validator=amount)
    header_timeout: float = attrs.field(default=15.0, validator=seconds)
    idle_timeout: float = attrs.field(default=75.0, validator=seconds)
    unauthenticated_timeout: float = attrs.field(default=math.inf, validator=seconds)
    body_timeout: float = attrs.field(default=60.0, validator=seconds)
    max_body_time: float = attrs.field(default=math.inf, validator=seconds)
    min_receive_rate: float = attrs.field(default=0.0, validator=amount)
    send_timeout: float = attrs.field(default=60.0, validator=seconds)
    read_ahead_bytes: int = attrs.field(default=65536, validator=amount)

    def slowest(self, received: int) -> float:
        """Return how many seconds a client may take for so many bytes."""
        if not self.min_receive_rate:
            return math.inf
        return _SLOW_START + received / self.min_receive_rate


@attrs.frozen(kw_only=True)
class UpstreamLimits:
    """The limits of an upstream client; times in seconds, `math.inf` for no limit.

    All times but the first three are applied by one timekeeper task, with a precision of a
    twentieth of the shortest of them, at no cost for a single request. For an exact deadline of a
    whole request use `trio.fail_after`.

    Args:
        max_connections: Most connections at the same time, idle ones included.
        max_waiting: Most requests that wait for a connection; `PoolFull` beyond.
        tenant_share: Largest part of the connections that one tenant may use, of those that the
            other tenants leave, and the same of the places to wait: more than 0, up to 1. With 0.5,
            one tenant that takes all it can get has a half of them, two have a third each. See
            `UpstreamClient.request`.
        wait_timeout: Longest wait of a request for a connection; then `PoolFull`.
        connect_timeout: Time for name resolution, TCP and TLS together.
        expect_timeout: Longest wait for 100 (Continue) before the body is sent anyway (RFC 9110
            section 10.1.1).
        head_timeout: Time from the last byte of the request to the end of the response's head.
        read_timeout: Longest silence within a response's body while it is being read.
        write_timeout: Longest time in which the upstream accepts no byte of a body.
        idle_expiry: How long an unused connection is kept.
        max_target_bytes: Not checked; part of `MessageLimits`.
        max_header_bytes: Largest head or trailer section of a response.
        max_header_count: Most fields in either.
        max_body_bytes: Largest body of a response.
    """

    max_connections: int = attrs.field(default=1000, validator=count)
    max_waiting: int = attrs.field(default=1000, validator=amount)
    tenant_share: float = attrs.field(
        default=1.0, validator=[amount, attrs.validators.gt(0.0), attrs.validators.le(1.0)]
    )
    wait_timeout: float = attrs.field(default=30.0, validator=seconds)
    connect_timeout: float = attrs.field(default=10.0, validator=seconds)
    expect_timeout: float = attrs.field(default=1.0, validator=seconds)
    head_timeout: float = attrs.field(default=600.0, validator=seconds)
    read_timeout: float = attrs.field(default=300.0, validator=seconds)
    write_timeout: float = attrs.field(default=60.0, validator=seconds)
    idle_expiry: float = attrs.field(default=60.0, validator=seconds)
    max_target_bytes: int = attrs.field(default=65536, validator=amount)
    max_header_bytes: int = attrs.field(default=65536, validator=amount)
    max_header_count: int = attrs.field(default=128, validator=amount)
    max_body_bytes: float = attrs.field(default=math.inf, validator=amount)
