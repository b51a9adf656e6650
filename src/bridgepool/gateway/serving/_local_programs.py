"""Requests of programs on this machine, told from those of web pages and of proxies on it. Pure."""

from __future__ import annotations

import re
from typing import Final

from bridgepool.gateway.serving._listening import is_loopback
from bridgepool.gateway.serving._peer import parse_address
from bridgepool.http import Headers

# A port is digits, and nothing stands behind an address in brackets but a port.
_AUTHORITY: Final = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::[0-9]*)?")
_FORWARDED_FIELDS: Final = frozenset(
    {b"x-forwarded-for", b"x-forwarded-host", b"x-real-ip", b"forwarded"}
)
_FORWARDED_PAIR: Final = re.compile(rb"(?:([\w-]+)=)?(.*)")  # RFC 7239, or a bare value


def is_local_program(headers: Headers) -> bool:
    """Return whether a request to a loopback address comes from a program of this machine.

    A web page can reach this machine, too, by a foreign origin, or by a name that was rebound to a
    loopback address; and so can the clients of a proxy on this machine.
    """
    if comes_from_elsewhere(headers):
        return False
    for name, value in headers:
        if name == b"host" and not is_loopback_authority(value):
            return False
        if name == b"origin" and not is_loopback_authority(value.partition(b"://")[2]):
            return False
        if name == b"sec-fetch-site" and value.strip().lower() == b"cross-site":
            return False
    return True


def is_loopback_authority(authority: bytes) -> bool:
    """Return whether a host, with or without a port, names this machine."""
    found = _AUTHORITY.fullmatch(authority.decode("latin-1"))
    return found is not None and is_loopback(found["address"] or found["name"])


def comes_from_elsewhere(headers: Headers) -> bool:
    """Return whether a request came through a proxy for a client, or under a name, of elsewhere.

    A proxy on this machine may send a `Host` of its own, so that only these fields tell.
    """
    return any(
        not _is_local(part)
        for name, value in headers
        if name in _FORWARDED_FIELDS
        for part in re.split(rb"[,;]", value)
    )


def _is_local(part: bytes) -> bool:
    """Return whether a part of such a field names this machine, or no machine."""
    found = _FORWARDED_PAIR.fullmatch(part.strip())
    if found is None or (found[1] or b"for").lower() not in (b"for", b"host"):
        return found is not None  # the protocol, say
    place = found[2].strip(b'"')
    if not place or is_loopback_authority(place):
        return True
    address = parse_address(place.decode("latin-1"))
    return address is not None and address.is_loopback
