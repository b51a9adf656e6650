"""Which header fields a proxy forwards. Pure.

Some fields of a message are only about the connection that it came by (RFC 9110 section 7.6.1),
some must be rewritten (Host, Forwarded), and some are reserved for this project. All rules are
in this module. Framing (adding Transfer-Encoding, Connection: close) is done by the wire that
sends. Names are expected in lower case, as wires return them.
"""

import enum
import re

from bridgepool.http._messages import Headers, Request

_INTERNAL_PREFIX = b"x-bridgepool-"
"""Prefix of reserved fields, which are never forwarded in either direction."""
_UNDERSCORE = ord("_")  # a number is found in bytes ten times as fast as other bytes


class ForwardedMode(enum.Enum):
    """What Forwarded (RFC 7239) and X-Forwarded-* report to the upstream about the client."""

    APPEND = "append"
    """Append to what the client sent. Only use this behind a proxy that you trust."""
    REPLACE = "replace"
    """Drop what the client sent, and describe the connection as this proxy sees it."""
    OMIT = "omit"
    """Drop what the client sent and send nothing: for upstreams of third parties."""


# About one connection only (RFC 9110 7.6.1, 11.7; RFC 9112 C.2.2). TE and Trailer are added again
# in the form that a forwarded body has.
_HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"http2-settings",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_NOT_FROM_CLIENT = _HOP_BY_HOP | {b"host", b"expect"}

# Fields that must reach the other end. Connection must not name them (RFC 9110 7.6.1). A sender
# that does so wants them removed, so that the upstream gets a message without its length, its
# credentials or its origin.
_NOT_FOR_CONNECTION = frozenset(
    {
        b"authorization",
        b"cache-control",
        b"content-encoding",
        b"content-length",
        b"content-range",
        b"content-type",
        b"cookie",
        b"date",
        b"expect",
        b"forwarded",
        b"host",
        b"max-forwards",
        b"range",
        b"set-cookie",
        b"via",
        b"x-api-key",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
    }
)

# Claims about the client, with every name that begins with x-forwarded-. APPEND continues them, the
# other modes drop them.
_CLAIMS = frozenset(
    b"""
    cf-connecting-ip cf-connecting-ipv6 cf-pseudo-ipv4 client-ip fastly-client-ip fly-client-ip
    forwarded proxy-client-ip true-client-ip wl-proxy-client-ip x-appengine-remote-addr
    x-appengine-user-ip x-azure-clientip x-azure-socketip x-client-ip x-cluster-client-ip
    x-envoy-external-address x-forwarded x-original-forwarded-for x-original-remote-addr
    x-originating-ip x-proxyuser-ip x-real-ip x-remote-addr x-remote-ip x-true-client-ip
    x-vercel-forwarded-for
    """.split()
)
_NOT_FROM_STRANGER = _NOT_FROM_CLIENT | _CLAIMS
_NOT_FOR_TRUST = (_INTERNAL_PREFIX, b"x-forwarded-")

# Framing, routing, credentials and content fields must be known before the body. A trailer that
# changes them is an attack (RFC 9110 6.5.1).
_NOT_IN_TRAILERS = _HOP_BY_HOP | _NOT_FOR_CONNECTION | {b"content-location", b"etag", b"location"}

_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HOST = re.compile(rb"[0-9A-Za-z._~%:\[\]-]+")


def forward_request_headers(
    request: Request,
    *,
    host: bytes,
    client: str = "",
    scheme: str = "http",
    forwarded: ForwardedMode = ForwardedMode.REPLACE,
    via: bytes = b"",
    drop: frozenset[bytes] = frozenset(),
) -> Headers:
    """Return the fields to send to an upstream for the request of a client.

    Host comes first and is replaced. Content-Length is kept if it frames the body, and dropped if
    the body is chunked, so that a message never has both. Expect: 100-continue is kept if the
    request has a body and the client uses HTTP/1.1 (RFC 9110 10.1.1). TE is reduced to
    ``trailers``, the only coding that survives forwarding. Names with an underscore are dropped:
    many servers take them for the same name with a hyphen, which may have been checked or removed.

    Args:
        request: The head of the client's request.
        host: The value of Host: the upstream's authority.
        client: The client's address as ``host:port``; ``""`` if unknown.
        scheme: ``http`` or ``https``: how the client connected.
        forwarded: What to report to the upstream about the client.
        via: The proxy's name in Via (RFC 9110 7.6.3); empty for no Via.
        drop: Further names to drop, such as the client's own credentials.
    """
    headers = request.headers
    names = {name for name, _ in headers}
    chunked = b"transfer-encoding" in names
    trusted = forwarded is ForwardedMode.APPEND
    unwanted = _NOT_FROM_CLIENT if trusted else _NOT_FROM_STRANGER
    if drop:
        unwanted |= drop
    if b"connection" in names:
        unwanted |= _named_in_connection(headers)
    if chunked:
        unwanted |= {b"content-length"}
    prefixes = _INTERNAL_PREFIX if trusted else _NOT_FOR_TRUST
    out = [(b"host", host)]
    out += [
        header
        for header in headers
        if header[0] not in unwanted
        and not header[0].startswith(prefixes)
        and _UNDERSCORE not in header[0]
    ]
    if b"expect" in names and _waits_for_continue(request, chunked=chunked):
        out.append((b"expect", b"100-continue"))
    if b"te" in names and b"trailers" in _members(headers, b"te"):
        out += ((b"te", b"trailers"), (b"connection", b"te"))  # TE requires both (RFC 9110 10.1.4)
    if chunked and b"trailer" in names:
        out += [header for header in headers if header[0] == b"trailer"]
    if via:
        out.append((b"via", request.http_version + b" " + via))
    if forwarded is not ForwardedMode.OMIT:
        _add_forwarded(out, headers, client, scheme)
    return tuple(out)


def forward_response_headers(
    headers: Headers, *, via: bytes = b"", drop: frozenset[bytes] = frozenset()
) -> Headers:
    """Return the fields to send to a client for the response of an upstream.

    The counterpart of `forward_request_headers`: hop-by-hop and reserved fields are dropped, and
    names with an underscore.

    Args:
        headers: The fields that the upstream sent.
        via: The proxy's name in Via (RFC 9110 7.6.3); empty for no Via.
        drop: Further names to drop.
    """
    names = {name for name, _ in headers}
    unwanted = _HOP_BY_HOP | drop if drop else _HOP_BY_HOP
    if b"connection" in names:
        unwanted |= _named_in_connection(headers)
    if b"transfer-encoding" in names:
        unwanted = (unwanted | {b"content-length"}) - {b"trailer"}
    out = [
        header
        for header in headers
        if header[0] not in unwanted
        and not header[0].startswith(_INTERNAL_PREFIX)
        and _UNDERSCORE not in header[0]
    ]
    if via:
        out.append((b"via", b"1.1 " + via))
    return tuple(out)


def forward_trailers(trailers: Headers) -> Headers:
    """Return the trailer fields that may be forwarded, in either direction.

    A receiver may merge trailers into the header. So they obey the rules of a head, and fields
    about framing, routing, authentication and content are dropped (RFC 9110 6.5.1).
    """
    return tuple(
        header
        for header in trailers
        if header[0] not in _NOT_IN_TRAILERS
        and header[0] not in _CLAIMS
        and not header[0].startswith(_NOT_FOR_TRUST)
        and _UNDERSCORE not in header[0]
    )


def _named_in_connection(headers: Headers) -> frozenset[bytes]:
    return _members(headers, b"connection") - _NOT_FOR_CONNECTION


def _members(headers: Headers, wanted: bytes) -> frozenset[bytes]:
    """Return the members of a list field in lower case, without their parameters."""
    return frozenset(
        member.partition(b";")[0].strip(b" \t").lower()
        for name, value in headers
        if name == wanted
        for member in value.split(b",")
    )


def _waits_for_continue(request: Request, *, chunked: bool) -> bool:
    headers = request.headers
    if request.http_version < b"1.1" or b"100-continue" not in _members(headers, b"expect"):
        return False
    return chunked or any(n == b"content-length" and v.strip(b"0") for n, v in headers)


def _add_forwarded(
    out: list[tuple[bytes, bytes]], received: Headers, client: str, scheme: str
) -> None:
    """Add this hop to Forwarded and X-Forwarded-*, after the values that `out` has."""
    address = _address(client)
    host = next((value for name, value in received if name == b"host"), b"")
    if not _HOST.fullmatch(host):
        host = b""
    proto = scheme.encode("ascii")
    element = b"for=" + _node(address)
    if host:
        element += b";host=" + _quoted(host)
    _append(out, b"forwarded", element + b";proto=" + proto)
    _append(out, b"x-forwarded-for", address or b"unknown")
    present = {name for name, _ in out}
    if host and b"x-forwarded-host" not in present:  # these two describe the first hop
        out.append((b"x-forwarded-host", host))
    if b"x-forwarded-proto" not in present:
        out.append((b"x-forwarded-proto", proto))


def _append(out: list[tuple[bytes, bytes]], name: bytes, value: bytes) -> None:
    """Join all lines of a list field into one, with `value` at the end."""
    values = [v for n, v in out if n == name and v]
    if values:
        out[:] = [header for header in out if header[0] != name]
    out.append((name, b", ".join((*values, value))))


def _address(client: str) -> bytes:
    """Return the IP address in ``host:port`` or ``[host]:port``."""
    host = client[1:].partition("]")[0] if client.startswith("[") else client.rpartition(":")[0]
    return host.encode("ascii")


def _node(address: bytes) -> bytes:
    if not address:
        return b"unknown"
    return b'"[' + address + b']"' if b":" in address else address


def _quoted(value: bytes) -> bytes:
    return value if _TOKEN.fullmatch(value) else b'"' + value + b'"'
