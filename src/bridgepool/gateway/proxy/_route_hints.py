"""Which route a client with a slip in its base URL meant. Pure."""

from __future__ import annotations

import re

from bridgepool.gateway.providers import ProviderType

_slashes = re.compile(rb"/{2,}")


def find_similar_route(kind: ProviderType, method: bytes, path: bytes) -> str | None:
    """Return the fixed route that is meant by a path that fits none; None if no slip explains it.

    Base URLs are written with or without ``/v1``, with a slash at the end, or with a part of the
    path that the client adds itself.

    Args:
        kind: The provider's type.
        method: The request's.
        path: What follows the provider's name.
    """
    once = _slashes.sub(b"/", path).rstrip(b"/")
    shorter = b"/" + once.partition(b"/")[2].partition(b"/")[2]
    for meant in (once, b"/v1" + once, shorter):
        match = kind.match(method, meant)
        if match is not None and match.path == match.route.path:
            return meant.decode("ascii")
    return None
