"""The access log of the API: who asked for what, and how it ended.

No line holds a header value, a query, a body or a name from a path: only the words of the API's
own routes are shown.
"""

from __future__ import annotations

import re
import secrets
import time
from collections.abc import Callable
from typing import Final, TypeAlias

import attrs
import msgspec

from bridgepool.gateway.control.operations import OPERATIONS
from bridgepool.gateway.control.operations._operation import PREFIX
from bridgepool.gateway.proxy._redaction import HIDDEN
from bridgepool.gateway.serving._access_log import timestamp

_MAX_SEGMENTS: Final = 8  # more than any route has; the rest is one segment
_WORDS: Final = frozenset(
    word
    for operation in OPERATIONS
    for word in (PREFIX + operation.path).split("/")
    if not word.startswith("{")
).union(("healthz", "readyz", "openapi.json"))
_PATHS: Final = ("/openapi.json", *(PREFIX + operation.path for operation in OPERATIONS))
_PATTERNS: Final = tuple(re.sub(r"\{[^}]*\}", HIDDEN, path).split("/") for path in _PATHS)


@attrs.define(eq=False)
class ApiRecord:
    """The record of one request; the guard fills it in while it serves."""

    method: str
    """`*` if it is none of HTTP's own."""
    route: str
    """The words of the path; `*` replaces every other segment, such as a name or an id."""
    peer: str
    """The address that it came from."""
    request_id: str = attrs.field(factory=lambda: secrets.token_hex(8))
    """The response has it in `x-request-id`."""
    actor: str = "-"
    """The name of the admin key; `-` if there was none, or it was refused."""
    status: int = 0
    """The status of the response; 0 if there was none."""
    revision: int | None = None
    """The revision in the response."""
    code: str = "client_gone"
    """The code of the error in the response; empty if it was served; `client_gone` if the client
    left before the response was complete, or the process ended."""
    started: float = attrs.field(factory=time.perf_counter)
    ended: float = 0.0

    @property
    def pattern(self) -> str:
        """The path of an operation, with `*` for names; `*` for every other path.

        There are as many as operations, whatever strangers ask for; of `route` there are not.
        """
        words = self.route.split("/")
        for pattern in _PATTERNS:
            if len(pattern) == len(words) and all(
                one in (HIDDEN, word) for one, word in zip(pattern, words, strict=True)
            ):
                return "/".join(pattern)
        return HIDDEN


ApiLog: TypeAlias = Callable[[ApiRecord], None]
"""Called once for every request, after its end."""


def redact_path(segments: tuple[str, ...]) -> str:
    """Return a path with the words of the API's routes, and `*` for all else."""
    shown = [word if word in _WORDS else HIDDEN for word in segments[:_MAX_SEGMENTS]]
    return "/" + "/".join(shown)


def json_line(record: ApiRecord) -> bytes:
    """Format one record as a line of JSON. Every field is always there, in this order."""
    fields = {
        "time": timestamp(),
        "event": "api request",
        "request_id": record.request_id,
        "peer": record.peer,
        "actor": record.actor,
        "method": record.method,
        "route": record.route,
        "status": record.status,
        "duration_ms": _milliseconds(record),
        "revision": record.revision,
        "code": record.code,
    }
    return msgspec.json.encode(fields) + b"\n"


def console_line(record: ApiRecord) -> bytes:
    """Format one record for people."""
    code = f" ({record.code})" if record.code else ""
    revision = f" revision {record.revision}" if record.revision is not None else ""
    return (
        f"{timestamp()[11:23]} {record.actor:<12} {record.method} {record.route} "
        f"{record.status or '---'} {_milliseconds(record):.1f} ms{revision}{code}\n"
    ).encode()


def _milliseconds(record: ApiRecord) -> float:
    return round((record.ended - record.started) * 1e3, 3)
