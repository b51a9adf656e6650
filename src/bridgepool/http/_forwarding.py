"""Which fields of a message a proxy hands on. Pure.

A message that came in over one connection is not the message that goes out over the next:
some fields speak about the connection they came by (RFC 9110 section 7.6.1), some must be
written anew (Host, Forwarded), and some are ours alone. All rules are in this module; framing
(adding Transfer-Encoding, Connection: close) is the business of the wire that sends.

Names are expected in lower case, as the wire gives them.
"""

import enum
import re

from bridgepool.http._messages import Headers, Request

_INTERNAL_PREFIX = b"x-bridgepool-"
"""Fields with this prefix are ours: neither a client nor an upstream can send one through."""


class ForwardedMode(enum.Enum):
    """What the upstream is told about the client, in Forwarded (RFC 7239) and its forerunners."""

    APPEND = "append"
    """Add ourselves to what the client claims: only behind a proxy of your own."""
    REPLACE = "replace"
    """Drop what the client claims and tell what we saw."""
    OMIT = "omit"
    """Tell nothing and drop what the client claims: for upstreams of other people."""


# About one connection only (RFC 9110 7.6.1, 11.7; RFC 9112 C.2.2). TE and Trailer come back
# in the form that we can answer for.
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

# What whole chains rely on. A sender may not name such a field in Connection (RFC 9110 7.6.1);
# one who does hopes that we take it out, so that the upstream sees a message without its
# length, its credentials or its origin.
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

# Claims about who the client is. In APPEND they are continued, otherwise they go.
_CLAIMS = frozenset(
    {
        b"forwarded",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-port",
        b"x-forwarded-proto",
        b"x-forwarded-server",
        b"x-real-ip",
    }
)

# Framing, routing, credentials and how to read the content are settled before a body ends: a
# trailer that says otherwise is an attack (RFC 9110 6.5.1).
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
    """Return the fields to send upstream for a request that a client sent to us.

    Host comes first and is ours. Content-Length stays when it frames the body and goes when
    the body is chunked, so that both never stand in one message. Expect: 100-continue stays
    when there is a body to wait for and the client speaks HTTP/1.1 (RFC 9110 10.1.1). TE
    shrinks to ``trailers``, the one coding that a forwarded body keeps.

    Args:
        request: What the client sent.
        host: The upstream's authority, for Host.
        client: The client's address as ``host:port``; ``""`` when unknown.
        scheme: ``http`` or ``https``: how the client reached us.
        forwarded: What to say about the client.
        via: Our name in Via (RFC 9110 7.6.3); empty for no Via.
        drop: Further names to take out, such as the client's own credentials.
    """
    headers = request.headers
    names = {name for name, _ in headers}
    chunked = b"transfer-encoding" in names
    unwanted = _NOT_FROM_CLIENT | drop
    if b"connection" in names:
        unwanted |= _named_in_connection(headers)
    if forwarded is not ForwardedMode.APPEND:
        unwanted |= _CLAIMS
    if chunked:
        unwanted |= {b"content-length"}
    out = [(b"host", host)]
    out += [
        header
        for header in headers
        if header[0] not in unwanted and not header[0].startswith(_INTERNAL_PREFIX)
    ]
    if b"expect" in names and _waits_for_continue(request, chunked=chunked):
        out.append((b"expect", b"100-continue"))
    if b"te" in names and b"trailers" in _members(headers, b"te"):
        out += ((b"te", b"trailers"), (b"connection", b"te"))  # TE needs both (RFC 9110 10.1.4)
    if chunked and b"trailer" in names:
        out += [header for header in headers if header[0] == b"trailer"]
    if via:
        out.append((b"via", request.http_version + b" " + via))
    if forwarded is not ForwardedMode.OMIT:
        _tell_about_client(out, headers, client, scheme)
    return tuple(out)


def forward_response_headers(
    headers: Headers, *, via: bytes = b"", drop: frozenset[bytes] = frozenset()
) -> Headers:
    """Return the fields to send to the client for a response of the upstream.

    The mirror of `forward_request_headers`: an upstream can neither speak about our connection
    to the client nor send fields in our name.

    Args:
        headers: What the upstream sent.
        via: Our name in Via (RFC 9110 7.6.3); empty for no Via.
        drop: Further names to take out.
    """
    names = {name for name, _ in headers}
    unwanted = _HOP_BY_HOP | drop
    if b"connection" in names:
        unwanted |= _named_in_connection(headers)
    if b"transfer-encoding" in names:
        unwanted = (unwanted | {b"content-length"}) - {b"trailer"}
    out = [
        header
        for header in headers
        if header[0] not in unwanted and not header[0].startswith(_INTERNAL_PREFIX)
    ]
    if via:
        out.append((b"via", b"1.1 " + via))
    return tuple(out)


def forward_trailers(trailers: Headers) -> Headers:
    """Return the trailer fields that may be handed on, in either direction.

    A receiver may merge trailers into the header, so whatever frames, routes, authenticates or
    says how to read the content is left out (RFC 9110 6.5.1).
    """
    return tuple(
        header
        for header in trailers
        if header[0] not in _NOT_IN_TRAILERS
        and header[0] not in _CLAIMS
        and not header[0].startswith(_INTERNAL_PREFIX)
    )


def _named_in_connection(headers: Headers) -> frozenset[bytes]:
    return _members(headers, b"connection") - _NOT_FOR_CONNECTION


def _members(headers: Headers, wanted: bytes) -> frozenset[bytes]:
    """Return the members of a list field, in lower case, without their parameters."""
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


def _tell_about_client(
    out: list[tuple[bytes, bytes]], received: Headers, client: str, scheme: str
) -> None:
    """Add ourselves to Forwarded and X-Forwarded-*; fields left in `out` are continued."""
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
    if host and b"x-forwarded-host" not in present:  # these two tell of the first hop
        out.append((b"x-forwarded-host", host))
    if b"x-forwarded-proto" not in present:
        out.append((b"x-forwarded-proto", proto))


def _append(out: list[tuple[bytes, bytes]], name: bytes, value: bytes) -> None:
    """Join all lines of a list field into one and put `value` at its end."""
    values = [v for n, v in out if n == name and v]
    if values:
        out[:] = [header for header in out if header[0] != name]
    out.append((name, b", ".join((*values, value))))


def _address(client: str) -> bytes:
    """Take the bare IP address out of ``host:port`` or ``[host]:port``."""
    host = client[1:].partition("]")[0] if client.startswith("[") else client.rpartition(":")[0]
    return host.encode("ascii")


def _node(address: bytes) -> bytes:
    if not address:
        return b"unknown"
    return b'"[' + address + b']"' if b":" in address else address


def _quoted(value: bytes) -> bytes:
    return value if _TOKEN.fullmatch(value) else b'"' + value + b'"'
