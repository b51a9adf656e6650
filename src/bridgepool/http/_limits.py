"""How much and how long a server takes from one client."""

import math
from typing import Protocol

import attrs


class MessageLimits(Protocol):
    """What a wire must know to refuse a message: how large its parts may be, in bytes."""

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
        """Largest body that is to be received; `math.inf` for any."""
        ...


@attrs.frozen(kw_only=True)
class HttpLimits:
    """The limits of `serve_http`, each for one connection or one request but for the first.

    Args:
        max_connections: Most connections that are served at the same time. Those beyond are
            answered with 503 and closed. `math.inf` for no limit but the system's.
        max_target_bytes: Longest request target; 414 beyond.
        max_header_bytes: Largest head, and largest trailer section; 431 beyond.
        max_header_count: Most fields in either; 431 beyond.
        max_body_bytes: Largest request body, whatever its framing; 413 beyond.
            `math.inf` for none.
        header_timeout: Seconds from the first byte of a head to its last; 408 beyond.
        idle_timeout: Seconds that a connection may wait for its next request.
        body_timeout: Seconds that a handler which reads waits for the next body bytes.
        send_timeout: Seconds that a client may take no byte of what is sent to it.
        read_ahead_bytes: Bytes taken in before anybody asked for them: while a handler is
            busy, reading ahead is how it is noticed that the client has left.
    """

    max_connections: float = math.inf
    max_target_bytes: int = 8192
    max_header_bytes: int = 65536
    max_header_count: int = 128
    max_body_bytes: float = math.inf
    header_timeout: float = 15.0
    idle_timeout: float = 75.0
    body_timeout: float = 60.0
    send_timeout: float = 60.0
    read_ahead_bytes: int = 65536


@attrs.frozen(kw_only=True)
class UpstreamLimits:
    """The limits of an upstream client; times in seconds, `math.inf` for none.

    All but the first three times are kept by one timekeeper task to a twentieth of the
    shortest of them, at no cost to the single request. For an exact deadline on a whole
    request use `trio.fail_after`.

    Args:
        max_connections: Most connections at once, idle ones included.
        max_waiting: Most requests that wait for a connection; `PoolFull` beyond.
        wait_timeout: How long a request waits for a connection; then `PoolFull`.
        connect_timeout: For name, TCP and TLS together.
        expect_timeout: How long to wait for 100 (Continue) before the body is sent all the
            same (RFC 9110 section 10.1.1).
        head_timeout: From the request's last byte to the end of the answer's head.
        read_timeout: The longest silence in an answer's body, while it is being read.
        write_timeout: The longest time in which the upstream takes no byte of a body.
        idle_expiry: How long an unused connection is kept.
        max_target_bytes: Part of what the wire asks for; requests are ours, so not checked.
        max_header_bytes: Largest head or trailer section of an answer.
        max_header_count: Most fields in either.
        max_body_bytes: Largest body of an answer.
    """

    max_connections: int = 1000
    max_waiting: int = 1000
    wait_timeout: float = 30.0
    connect_timeout: float = 10.0
    expect_timeout: float = 1.0
    head_timeout: float = 600.0
    read_timeout: float = 300.0
    write_timeout: float = 60.0
    idle_expiry: float = 60.0
    max_target_bytes: int = 65536
    max_header_bytes: int = 65536
    max_header_count: int = 128
    max_body_bytes: float = math.inf
