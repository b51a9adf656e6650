"""The PROXY protocol, versions 1 and 2: who is behind a TCP proxy or load balancer in front.

Such a proxy sends one head before all other bytes of a connection, also before TLS. Whether a head
comes is known by who connects, and never guessed: all connections of trusted proxies begin with one
and no other connection does. There, a head is what it looks like: a malformed request.

The head is taken from the socket without a byte of what follows, so the stream stays as it is.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

import attrs
import trio

from bridgepool._network import format_address, peer_address
from bridgepool._refusal_log import RefusalLog
from bridgepool.gateway.serving._peer import is_among, parse_networks
from bridgepool.http import RemoteProtocolError

logger = logging.getLogger("bridgepool.gateway.serving")

Address: TypeAlias = tuple[str, int]

HEAD_TIMEOUT: Final = 5.0  # seconds; proxies send it at once
_SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"  # of version 2
_PREFIX: Final = b"PROXY "  # of version 1
_MAX_LINE: Final = 107  # bytes of version 1, its line break included
_FIXED: Final = 16  # bytes of version 2 before the addresses
_MAX_HEAD: Final = 4096  # bytes of version 2; additional values can be as long
_LOCAL, _PROXY = 0x20, 0x21  # version and command
_ADDRESS_BYTES: Final = {0x11: 4, 0x21: 16}  # of TCP over IPv4 and IPv6


@attrs.define(eq=False)
class ProxyHead:
    """The head of one connection, taken piece by piece. Pure."""

    complete: bool = False
    address: Address | None = None
    """Whom the proxy connects; None if it connects for itself, such as for a health check."""
    _data: bytes = b""

    def take(self, available: bytes) -> int:
        """Take what belongs to the head from the bytes that wait; return how many.

        Raises:
            RemoteProtocolError: They do not begin, or continue, a valid head.
        """
        data = self._data + available
        end = _find_end(data)
        taken = (len(data) if end is None else end) - len(self._data)
        self._data = data[:end]
        if end is not None:
            self.complete = True
            version_2 = self._data.startswith(_SIGNATURE)
            self.address = _parse_binary(self._data) if version_2 else _parse_line(self._data)
        return taken


def read_proxy_heads(
    proxies: Iterable[str],
) -> Callable[[trio.abc.Stream], Awaitable[Address | None]]:
    """Return what finds the client of a new connection, as `serve_http` asks for it.

    Args:
        proxies: Addresses and networks, all of whose connections begin with a head.

    Raises:
        ValueError: One is neither.
    """
    networks = parse_networks(proxies)
    refusals = RefusalLog(logger)

    async def find(stream: trio.abc.Stream) -> Address | None:  # noqa: ASYNC910 -- see below
        address = peer_address(stream)
        while isinstance(stream, trio.SSLStream):
            stream = stream.transport_stream
        if not isinstance(stream, trio.SocketStream):
            return address  # not of a network
        if address is None:  # a health check of a proxy: its head is not to be read as HTTP
            raise RemoteProtocolError("the connection was reset")
        if not is_among(networks, address[0]):
            return address  # without waiting: the server receives next
        try:
            return await _read_head(stream.socket) or address
        except RemoteProtocolError as error:
            refusals.warning(
                trio.current_time(),
                "connections of a proxy without a PROXY protocol head refused",
                peer=format_address(address),
                reason=str(error),
            )
            raise

    return find


async def _read_head(connection: trio.socket.SocketType) -> Address | None:
    head = ProxyHead()
    try:
        with trio.fail_after(HEAD_TIMEOUT):
            while not head.complete:
                available = await connection.recv(_MAX_HEAD, socket.MSG_PEEK)
                if not available:
                    raise RemoteProtocolError("the connection ended before its head was complete")
                await connection.recv(head.take(available))
    except trio.TooSlowError:
        raise RemoteProtocolError("the head did not come in time") from None
    except OSError as error:
        raise RemoteProtocolError("the connection broke") from error
    return head.address


def _find_end(data: bytes) -> int | None:
    """Return the length of the head that `data` begins with; None while it is not known."""
    if _SIGNATURE.startswith(data[: len(_SIGNATURE)]):
        if len(data) < _FIXED:
            return None
        end = _FIXED + int.from_bytes(data[14:16], "big")
        if end > _MAX_HEAD:
            raise RemoteProtocolError("the head is too long")
        return end if len(data) >= end else None
    if not _PREFIX.startswith(data[: len(_PREFIX)]):
        raise RemoteProtocolError("the connection does not begin with a head")
    line_end = data.find(b"\n", 0, _MAX_LINE)
    if line_end < 0 and len(data) >= _MAX_LINE:
        raise RemoteProtocolError("the head is too long")
    return line_end + 1 or None


def _parse_line(head: bytes) -> Address | None:
    """Parse a head of version 1: `PROXY TCP4 192.0.2.7 10.0.0.1 50000 443`."""
    words = head[:-2].split(b" ")
    if not head.endswith(b"\r\n") or not head.isascii():
        raise RemoteProtocolError("the head is malformed")
    if words[1:2] == [b"UNKNOWN"]:
        return None
    try:
        _, family, source, _, port, _ = (word.decode() for word in words)
        address = {"TCP4": ipaddress.IPv4Address, "TCP6": ipaddress.IPv6Address}[family](source)
        if not port.isdigit() or int(port) > 65535:
            raise ValueError(port)
    except (ValueError, KeyError):
        raise RemoteProtocolError("the head is malformed") from None
    return str(address), int(port)


def _parse_binary(head: bytes) -> Address | None:
    """Parse a head of version 2."""
    command, family = head[12], head[13]
    if command == _LOCAL or (command == _PROXY and family == 0):
        return None
    size = _ADDRESS_BYTES.get(family)
    if command != _PROXY or size is None or len(head) < _FIXED + 2 * size + 4:
        raise RemoteProtocolError("the head is malformed, or not about TCP")
    source = ipaddress.ip_address(head[_FIXED : _FIXED + size])
    ports = head[_FIXED + 2 * size :]
    return str(source), int.from_bytes(ports[:2], "big")
