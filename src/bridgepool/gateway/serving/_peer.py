"""Who sent a request that came through trusted proxies. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable
from typing import TypeAlias

from bridgepool._network import format_address
from bridgepool.http import Headers

FindPeer: TypeAlias = Callable[[Headers, str], str]
"""Returns the peer of a request, given its headers and the address of its connection."""

_Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_MAX_HOPS = 32  # entries of X-Forwarded-For that are looked at, from its end


def parse_networks(texts: Iterable[str]) -> tuple[_Network, ...]:
    """Return addresses and networks.

    Raises:
        ValueError: One is neither.
    """
    return tuple(ipaddress.ip_network(text, strict=False) for text in texts)


def is_among(networks: tuple[_Network, ...], host: str) -> bool:
    """Return whether an address, as a socket has it, is in one of the networks."""
    address = parse_address(host)
    return address is not None and any(address in network for network in networks)


def find_peer_behind(proxies: Iterable[str]) -> FindPeer | None:
    """Return what finds the peers behind proxies; None if there are none.

    `X-Forwarded-For` counts only on connections of these proxies, and is read from its end: each
    proxy appends who it got the request from, and what stands before a stranger's address is a
    stranger's word.

    Args:
        proxies: Addresses and networks.

    Raises:
        ValueError: One is neither.
    """
    networks = parse_networks(proxies)
    if not networks:
        return None

    def find(headers: Headers, connection: str) -> str:
        if not is_among(networks, connection):
            return connection
        hops = b",".join([value for name, value in headers if name == b"x-forwarded-for"])
        peer = None
        for hop in reversed(hops.decode("latin-1").split(",")[-_MAX_HOPS:]):
            address = parse_address(hop.strip())
            if address is None:
                break
            peer = address
            if not is_among(networks, str(address)):
                break
        return connection if peer is None else format_address((str(peer), 0))

    return find


def parse_address(text: str) -> _Address | None:
    """Parse an address, with or without a port; None if it is not one."""
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address
