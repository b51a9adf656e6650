"""Requests of programs on this machine, told from those of web pages in a browser on it. Pure."""

from __future__ import annotations

import re
from typing import Final

from bridgepool.gateway.serving._listening import is_loopback
from bridgepool.http import Headers

# A port is digits, and nothing stands behind an address in brackets but a port.
_AUTHORITY: Final = re.compile(r"(?:\[(?P<address>[^\]]*)\]|(?P<name>[^:\[\]]*))(?::[0-9]*)?")


def is_local_program(headers: Headers) -> bool:
    """Return whether a request to a loopback address comes from a program of this machine.

    A web page can reach this machine, too, by a foreign origin, or by a name that was rebound to a
    loopback address.
    """
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
