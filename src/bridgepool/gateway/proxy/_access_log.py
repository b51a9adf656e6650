"""The access log: one line per request, formatted in microseconds and written in a thread.

A request's task only formats its line and appends it to a `LineWriter`, so that a slow disk or a
stuck pipe never delays a request.

No line holds a header value, a query string or a body: that is where secrets travel. Of the
path it has what `_redaction` lets through, so that a key in it is not shown.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable

import attrs
import msgspec

from bridgepool.gateway.serving._access_log import timestamp

_encode = msgspec.json.Encoder().encode


class Outcome(enum.Enum):
    """How a request ended."""

    COMPLETE = "complete"
    """The client got the provider's whole response, whatever its status."""
    REFUSED = "refused"
    """The gateway refused the request; `code` names the refusal."""
    UPSTREAM_CUT = "upstream_cut"
    """The provider's response broke off after its start; the client's was cut, too."""
    CLIENT_GONE = "client_gone"
    """The client left before the response was complete."""
    SHUTDOWN = "shutdown"
    """The gateway ended before the response was complete."""
    DRAIN_DEADLINE = "drain_deadline"
    """The bridge was closed during the request: its drain deadline had passed."""
    FAILED = "failed"
    """An error of the gateway; the log has the traceback."""


@attrs.define(eq=False)
class AccessRecord:
    """The record of one request; the gateway fills it in while it serves."""

    method: str
    """`*` if it is none of HTTP's own."""
    path: str = ""
    """The path without its query: the provider's name and the words of its API; `*` replaces
    every other segment, such as an id, or a key that a client put there. Set at the end."""
    started: float = attrs.field(factory=time.perf_counter)
    """`time.perf_counter()` when the request's head was complete."""
    client: str = "-"
    """The client's id, `-` before it is known."""
    key: str = "-"
    """The id of the client's key."""
    provider: str = "-"
    generation: int = 0
    """The generation that served it; 0 if none did."""
    status: int = 0
    """The status sent to the client; 0 if none was."""
    bytes_sent: int = 0
    """Bytes of the response body."""
    first_byte: float = 0.0
    """`time.perf_counter()` when the response head was sent; 0 if none was."""
    ended: float = 0.0
    outcome: Outcome = Outcome.COMPLETE
    code: str = ""
    """The code of the refusal, or of the error that cut the response."""


AccessLog = Callable[[AccessRecord], None]
"""Called once for every request, after its end. Must not block or raise."""


def json_line(record: AccessRecord) -> bytes:
    """Format one record as a line of JSON. Every field is always there, in this order."""
    first, duration = _milliseconds(record)
    fields = {
        "time": timestamp(),
        "event": "request",
        "client": record.client,
        "key": record.key,
        "provider": record.provider,
        "generation": record.generation,
        "method": record.method,
        "path": record.path,
        "status": record.status,
        "bytes": record.bytes_sent,
        "first_byte_ms": first,
        "duration_ms": duration,
        "outcome": record.outcome,
        "code": record.code,
    }
    return _encode(fields) + b"\n"


def console_line(record: AccessRecord) -> bytes:
    """Format one record for people."""
    _, duration = _milliseconds(record)
    path, method = ascii(record.path)[1:-1], ascii(record.method)[1:-1]
    code = f" ({record.code})" if record.code else ""
    return (
        f"{timestamp()[11:23]} {record.client:<12} {record.provider}@{record.generation} "
        f"{method} {path} {record.status or '---'} {record.bytes_sent} B "
        f"{duration:.1f} ms {record.outcome.value}{code}\n"
    ).encode()


def _milliseconds(record: AccessRecord) -> tuple[float | None, float]:
    """Return the time to the first byte, if one was sent, and to the end."""
    first = round((record.first_byte - record.started) * 1e3, 3) if record.first_byte else None
    return first, round((record.ended - record.started) * 1e3, 3)
