"""`ConnectionLimiter`: how many connections servers keep open, in total and for each peer.

Pure, except for its log line. A connection within the limits gets a *place*. Beyond them it gets a
*reserved place*, if one is free: it may carry one request, so that health checks are answered, and
other requests get an error response. Reserved places are few, and few of them go to one peer. All
other connections are closed without a response.
"""

import ipaddress
import logging
import math
from collections import Counter

import attrs

from bridgepool._options import amount
from bridgepool._refusal_log import RefusalLog

LOOPBACK: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = (
    ipaddress.ip_network("127.0.0.0/8"),
    ipaddress.ip_network("::1/128"),
)
_log = logging.getLogger("bridgepool.network")
_IPV6_PREFIX_BITS = 64  # one site has at least that prefix, and as many addresses in it as it likes


@attrs.frozen
class ConnectionPlace:
    """The place of one connection; from `ConnectionLimiter.enter`."""

    reserved: bool
    """The connection is over a limit: it may carry one request."""
    peer: str | None
    """The peer that it counts for; None for one without a limit of its own."""


@attrs.define(eq=False)
class ConnectionLimiter:
    """Limits the open connections of servers; pass one to any number of them.

    Connections over a limit are refused, except that a few of them may carry one request each: see
    the `over_limit` of `bridgepool.http.serve_http`.
    """

    max_connections: float = attrs.field(default=math.inf, validator=amount)
    """Most connections at the same time; `math.inf` for no limit."""
    max_per_peer: float = attrs.field(default=math.inf, validator=amount)
    """Most of them from one address. Of IPv6, the addresses of one /64 count as one."""
    unlimited_peers: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = LOOPBACK
    """Networks whose addresses have no limit of their own, such as those of trusted proxies. By
    default this machine's loopback addresses."""
    reserve: int = attrs.field(default=100, validator=amount)
    """Most connections over a limit that are served one request at the same time."""
    reserve_per_peer: int = attrs.field(default=10, validator=amount)
    """Most of them from one address."""
    open: int = attrs.field(default=0, init=False)
    """Connections open now, within the limits."""
    reserved: int = attrs.field(default=0, init=False)
    """Connections open now, over a limit."""
    refused: int = attrs.field(default=0, init=False)
    """Connections that were over a limit; only grows."""
    handshakes_failed: int = attrs.field(default=0, init=False)
    """Connections of TLS that ended before their handshake had succeeded; only grows."""
    _of_peer: Counter[tuple[str, bool]] = attrs.field(factory=Counter, init=False)
    _refusals: RefusalLog = attrs.field(factory=lambda: RefusalLog(_log), init=False)

    def enter(self, host: str | None, now: float) -> ConnectionPlace | None:
        """Admit a connection, to be given to `leave` at its end.

        Args:
            host: The peer's address; None if it has none.
            now: The time, in seconds.

        Returns:
            None if there is no place at all: close the connection.
        """
        peer = self._limited_peer(host)
        over_peer_limit = peer is not None and self._of_peer[peer, False] >= self.max_per_peer
        if self.open < self.max_connections and not over_peer_limit:
            self.open += 1
            return self._take(ConnectionPlace(False, peer))
        self.refused += 1
        self._log_refusal(host, now, over_peer_limit)
        if self.reserved < self.reserve and (
            peer is None or self._of_peer[peer, True] < self.reserve_per_peer
        ):
            self.reserved += 1
            return self._take(ConnectionPlace(True, peer))
        return None

    def leave(self, place: ConnectionPlace, *, handshake_failed: bool = False) -> None:
        """Give a place back; exactly once.

        Args:
            place: The place.
            handshake_failed: The connection is to be counted in `handshakes_failed`.
        """
        self.handshakes_failed += handshake_failed
        if place.reserved:
            self.reserved -= 1
        else:
            self.open -= 1
        if place.peer is not None:
            key = place.peer, place.reserved
            self._of_peer[key] -= 1
            if not self._of_peer[key]:
                del self._of_peer[key]

    def _take(self, place: ConnectionPlace) -> ConnectionPlace:
        if place.peer is not None:
            self._of_peer[place.peer, place.reserved] += 1
        return place

    def _limited_peer(self, host: str | None) -> str | None:
        address = _parse_address(host) if host is not None else None
        if address is not None and any(address in network for network in self.unlimited_peers):
            return None
        return site_of(host) if host is not None else None

    def _log_refusal(self, host: str | None, now: float, over_peer_limit: bool) -> None:
        self._refusals.warning(
            now,
            "connections over the limit per address refused"
            if over_peer_limit
            else "connections over the limit refused",
            limit=self.max_per_peer if over_peer_limit else self.max_connections,
            open=self.open,
            peer=host or "",
        )


def site_of(host: str) -> str:
    """Return whom an address counts for: itself, or the network of IPv6 that it is in."""
    address = _parse_address(host)
    if address is None:
        return host
    if address.version == 4:
        return str(address)
    return str(ipaddress.ip_network((address, _IPV6_PREFIX_BITS), strict=False))


def _parse_address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return address.ipv4_mapped or ipaddress.IPv6Address(address.packed)  # no zone
    return address
