"""Has the kernel ask whether the network and the other machine are there.

That costs this process nothing, and finds what a connection dies of most often, in about
`heartbeat_timeout`: while nothing is on its way by TCP's keepalive (RFC 9293 section 3.8.4), and
else by how long what was sent may stay without an acknowledgement (RFC 5482, Linux only; without
it the heartbeats find out). It does not find a process that is frozen: see `_heartbeat`.
"""

import contextlib
import errno
import math
import socket

import trio

_PROBES = 5
_MOST = 32_000  # seconds; Linux takes 32,767


def let_kernel_ask(stream: trio.abc.Stream, timeout: float) -> None:
    """Have a TCP connection fail with ETIMEDOUT after so many seconds without the other machine.

    In whole seconds, and one more: what the ends find out themselves tells more. Streams that are
    not TCP, with or without TLS, are left alone, and so is what the platform lacks.
    """
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream) or math.isinf(timeout):
        return
    sock = stream.socket
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    seconds = min(math.ceil(timeout) + 1, _MOST)
    between = max(1, seconds // (2 * _PROBES))
    first = max(1, seconds - _PROBES * between)
    with contextlib.suppress(OSError):  # it is gone already: whoever reads or writes is told
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", first),
            ("TCP_KEEPALIVE", first),  # the name of the same on macOS
            ("TCP_KEEPINTVL", between),
            ("TCP_KEEPCNT", _PROBES),
            ("TCP_USER_TIMEOUT", seconds * 1000),
        ):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def kernel_gave_up(error: BaseException | None) -> bool:
    """Whether this is how a connection fails when the kernel's questions stay unanswered."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.ETIMEDOUT:
            return True
        error = error.__cause__
    return False
