"""Which web pages may call the gateway, and what browsers are told about it. Pure.

A browser asks by a preflight before it sends a page's request to another origin, and lets the page
read the response only if that names the page's origin (https://fetch.spec.whatwg.org/#http-cors-protocol).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final

import attrs

from bridgepool.http import Headers, Request, get_header

_ORIGIN: Final = re.compile(r"null|[a-z][a-z0-9+.-]*://[^\s/?#@*,]+")
_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_FIELD_NAMES: Final = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4096}")
_PREFLIGHT_MAX_AGE: Final = b"7200"  # seconds; browsers remember it no longer than that


def parse_origin(text: str) -> bytes:
    """Return an origin as browsers send it.

    Raises:
        ValueError: It is not one; says why.
    """
    origin = text.strip().lower()
    if not _ORIGIN.fullmatch(origin):
        raise ValueError(
            f"{text!r} is not an origin: write SCHEME://HOST or SCHEME://HOST:PORT, without a path "
            "or wildcard; or null"
        )
    return origin.encode()


def _to_origins(texts: Iterable[str]) -> frozenset[bytes]:
    return frozenset(map(parse_origin, texts))


@attrs.frozen
class Cors:
    """The origins whose pages may call the gateway."""

    _origins: frozenset[bytes] = attrs.field(converter=_to_origins)

    def allowed_origin(self, headers: Headers) -> bytes | None:
        """Return the origin of a request if its pages may call the gateway, else None."""
        if not self._origins:
            return None
        origin = get_header(headers, b"origin")
        return origin if origin is not None and origin.lower() in self._origins else None

    def headers_for(self, headers: Headers) -> Headers:
        """Return the fields of every response to a request with these headers."""
        origin = self.allowed_origin(headers)
        return () if origin is None else _cors_headers(origin)


def is_preflight(request: Request) -> bool:
    """Return whether a browser asks what a page of another origin may send."""
    return (
        request.method == b"OPTIONS"
        and get_header(request.headers, b"origin") is not None
        and get_header(request.headers, b"access-control-request-method") is not None
    )


def _cors_headers(origin: bytes) -> Headers:
    return (
        (b"access-control-allow-origin", origin),
        (b"access-control-expose-headers", b"*"),
        (b"vary", b"origin"),
    )


def preflight_headers(request: Request) -> Headers:
    """Return the fields of the response to a preflight, besides those of every response."""
    fields: list[tuple[bytes, bytes]] = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-max-age", _PREFLIGHT_MAX_AGE),
    ]
    names = get_header(request.headers, b"access-control-request-headers")
    if names is not None and _FIELD_NAMES.fullmatch(names):
        # Named one by one: a wildcard does not count for Authorization.
        fields.append((b"access-control-allow-headers", names))
    if get_header(request.headers, b"access-control-request-private-network") == b"true":
        fields.append((b"access-control-allow-private-network", b"true"))
    return tuple(fields)
