"""The id of a request, by which clients, logs, spans and upstreams name it.

A client may choose the id. Then it is sent on and logged, so its form is strict: it cannot break a
line, and it cannot be a key of ours that was put there by mistake.
"""

from __future__ import annotations

import os
import re
from typing import Final

from bridgepool.gateway.providers import ErrorForm
from bridgepool.gateway.providers._access_keys import holds_access_key
from bridgepool.http import Headers, get_header

REQUEST_ID_HEADER: Final = b"x-request-id"
"""Of requests, in both directions, and of every response."""
UPSTREAM_ID_HEADER: Final = b"x-upstream-request-id"
"""Of responses: what the upstream sent as `x-request-id`, if that is another id."""

_FORM: Final = re.compile(rb"[A-Za-z0-9._:=+/-]{1,128}")


def new_request_id() -> str:
    """Return a new id: 96 random bits."""
    return "req_" + os.urandom(12).hex()


def find_request_id(headers: Headers) -> str:
    """Return the client's id of a request if it sent one that is well-formed, else a new one.

    Well-formed are 1 to 128 letters, digits and ``. _ : = + / -`` which hold no key of ours. An
    id that was sent twice is not used.
    """
    found: bytes | None = None
    for name, value in headers:
        if name == REQUEST_ID_HEADER:
            if found is not None:
                return new_request_id()
            found = value
    return (_well_formed(found) if found else "") or new_request_id()


def send_request_id(headers: Headers, request_id: str) -> Headers:
    """Return the headers of a request for its upstream, with its id in place of the client's."""
    kept = [field for field in headers if field[0] != REQUEST_ID_HEADER]
    kept.append((REQUEST_ID_HEADER, request_id.encode("ascii")))
    return tuple(kept)


def return_request_id(headers: Headers, request_id: str) -> Headers:
    """Return the headers of a response for the client, with the id of its request.

    An id of the upstream's own that has the same name goes under `UPSTREAM_ID_HEADER`.
    """
    own = request_id.encode("ascii")
    kept = [
        field if field[0] != REQUEST_ID_HEADER else (UPSTREAM_ID_HEADER, field[1])
        for field in headers
        if field != (REQUEST_ID_HEADER, own) and field[0] != UPSTREAM_ID_HEADER
    ]
    kept.append((REQUEST_ID_HEADER, own))
    return tuple(kept)


def find_upstream_id(headers: Headers, form: ErrorForm, request_id: str) -> str:
    """Return the upstream's own id in its response; empty if it has none that is well-formed."""
    found = get_header(headers, form.request_id_header) or get_header(headers, REQUEST_ID_HEADER)
    text = _well_formed(found) if found is not None else ""
    return text if text != request_id else ""


def _well_formed(value: bytes) -> str:
    """Return an id as text; empty if it is not well-formed."""
    if _FORM.fullmatch(value) is None or holds_access_key(value):
        return ""
    return value.decode("ascii")
