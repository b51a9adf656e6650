"""Request targets in absolute form, converted into a path and a Host field. Pure."""

import re

from bridgepool.http._errors import NotSupported, RemoteProtocolError
from bridgepool.http._framing import without_fields
from bridgepool.http._messages import Request

# RFC 3986 section 3.2.2, reduced to what is safe: no character that begins another component.
HOST = re.compile(rb"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]++")
_absolute_target = re.compile(rb"(?i:https?)://([^/?#@]++)(/[^#]*+|\?[^#]*+|)")


def to_origin_form(request: Request) -> Request:
    """Convert an absolute target into a path and a Host field (RFC 9112 section 3.2.2)."""
    method, target = request.method, request.target
    if target == b"*" and method == b"OPTIONS":
        return request
    if method == b"CONNECT":
        raise NotSupported("CONNECT is not supported")
    parts = _absolute_target.fullmatch(target)
    if parts is None or HOST.fullmatch(parts.group(1)) is None:
        raise RemoteProtocolError("the request target is malformed")
    path = parts.group(2)
    path = path if path.startswith(b"/") else b"/" + path
    headers = ((b"host", parts.group(1)), *without_fields(request.headers, b"host"))
    return Request(method, path, headers, request.http_version)
