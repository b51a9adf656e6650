"""The record of a request, and the access log: one line per request, written in a thread.

The record is filled in while the request is served, and passed to the observers of the gateway at
its end. The access log is one of them: a request's task only formats its line and appends it to a
`LineWriter`, so that a slow disk or a stuck pipe never delays a request.

No line holds a header value, a query string or a body: that is where secrets travel. Of the
path it has what `_redaction` lets through, so that a key in it is not shown.
"""

from __future__ import annotations

import enum
import time
from collections.abc import Callable

import attrs
import msgspec

from bridgepool.gateway.providers import ErrorForm
from bridgepool.gateway.proxy._tracing import RequestTrace
from bridgepool.gateway.serving._access_log import timestamp
from bridgepool.gateway.usage._bodies import BodyRecorder, BodyRecording
from bridgepool.gateway.usage._reader import UsageReader
from bridgepool.gateway.usage._request_reader import RequestReader
from bridgepool.gateway.usage._tokens import Usage

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
    """The record of one request; the gateway fills it in while it serves.

    The default of a field means that its value is not known.
    """

    method: str
    """`*` if it is none of HTTP's own."""
    request_id: str = ""
    """The id of the request: the client's if it sent a well-formed one. The upstream got it, and
    the client's response has it."""
    peer: str = ""
    """The address that the request came from, with its port; port 0 if a trusted proxy named
    it."""
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
    """The provider that served it, or was to serve it."""
    fallback_from: str = ""
    """The provider that the client asked for, if another took its place."""
    generation: int = 0
    """The generation that served it; 0 if none did."""
    route: str = ""
    """The pattern of the open route that it matched, below the provider's base URL, such as
    `/responses/*`: as rules of clients name it."""
    attempts: int = 0
    """How often an upstream was tried, also one that could not be reached."""
    sent: bool = False
    """Whether all of the last attempt was sent to the upstream; kept for clients with rules."""
    upstream_status: int = 0
    """The status of the upstream's last response; 0 if there was none."""
    upstream_ms: float | None = None
    """Milliseconds from the beginning of the last attempt to the head of its response. Waiting for
    a connection counts."""
    upstream_request_id: str = ""
    """The upstream's own id of the request."""
    upstream_key: str = ""
    """The fingerprint of the provider's key that was used."""
    model: str = ""
    """The model that was asked for, if the request was read: for a rule on models, or with the
    usage; then it is set at the end. Of a websocket, that of the last response."""
    session: str = ""
    """The session id that the client sent; read if usage is."""
    client_kind: str = ""
    """The client's program, by its User-Agent; read if usage is."""
    usage: Usage = Usage()  # noqa: RUF009 -- it is a tuple
    """What the answer told of tokens, models and tools; set at the end, if it was read."""
    usage_reader: UsageReader | None = None
    """Reads the answer that is being served."""
    _request_reader: RequestReader | None = attrs.field(default=None, init=False)
    _body_recorder: BodyRecorder | None = attrs.field(default=None, init=False)
    _recording: BodyRecording | None = attrs.field(default=None, init=False)
    provider_type: str = ""
    """The type of the provider."""
    _errors: ErrorForm | None = attrs.field(default=None, init=False)  # of its route
    trace: RequestTrace | None = None
    """Its trace, if it is traced."""
    websocket: bool = False
    """It became a websocket; the bytes are those of its frames."""
    close_code: int = 0
    """The code that the websocket was closed with, as the client sent or got it; 1005 for a close
    without one, 1006 if there was no close. 0 for no websocket."""
    on_response: RequestObserver | None = None
    """Called at the end of each response on a websocket with a record of its own."""
    wants_responses: bool = False
    """That is wanted, so its messages are read."""
    is_response: bool = False
    """It is the record of a response on a websocket."""
    responses: int = 0
    """Responses on the websocket that have ended, if they have records of their own."""
    unfinished: AccessRecord | None = None
    """The record of the one that has not ended; set at the end."""
    is_stream: bool = False
    """The response is a stream of events, sent as they came."""
    bytes_received: int = 0
    """Bytes of the request body, received and passed on."""
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

    _times: tuple[str, float | None, float] | None = attrs.field(default=None, init=False)

    def note_sent(self) -> None:
        """Note that all of an attempt was sent to the upstream."""
        self.sent = True

    @property
    def has_responses(self) -> bool:
        """Whether there are responses on the websocket with records of their own."""
        return self.responses > 0 or self.unfinished is not None

    def take_usage(self) -> None:
        """Set `usage` and `model` to what was read of the answer and the request."""
        if self.usage_reader is not None:
            self.usage, self.usage_reader = self.usage_reader.result(), None
        if self._request_reader is not None:
            self.model, self._request_reader = self._request_reader.result(), None


RequestObserver = Callable[[AccessRecord], None]
"""Called once for every request, after its end, with its record. Must not block or raise."""


def json_line(record: AccessRecord) -> bytes:
    """Format one record as a line of JSON. Every field is always there, in this order."""
    time_, first, duration = times_of(record)
    fields = {
        "time": time_,
        "event": "request",
        "request_id": record.request_id,
        "peer": record.peer,
        "client": record.client,
        "key": record.key,
        "provider": record.provider,
        "fallback_from": record.fallback_from,
        "generation": record.generation,
        "method": record.method,
        "path": record.path,
        "route": record.route,
        "status": record.status,
        "bytes": record.bytes_sent,
        "first_byte_ms": first,
        "duration_ms": duration,
        "bytes_received": record.bytes_received,
        "attempts": record.attempts,
        "upstream_status": record.upstream_status,
        "upstream_ms": record.upstream_ms,
        "upstream_request_id": record.upstream_request_id,
        "model": record.model or record.usage.model,
        "input_tokens": record.usage.tokens.input,
        "output_tokens": record.usage.tokens.output,
        "close_code": record.close_code,
        "outcome": record.outcome,
        "code": record.code,
    }
    return _encode(fields) + b"\n"


def console_line(record: AccessRecord) -> bytes:
    """Format one record for people."""
    time_, _, duration = times_of(record)
    path, method = ascii(record.path)[1:-1], ascii(record.method)[1:-1]
    code = f" ({record.code})" if record.code else ""
    return (
        f"{time_[11:23]} {record.client:<12} {record.provider}@{record.generation} "
        f"{method} {path} {record.status or '---'} {record.bytes_sent} B "
        f"{duration:.1f} ms {record.outcome.value}{code}\n"
    ).encode()


def times_of(record: AccessRecord) -> tuple[str, float | None, float]:
    """Return the times of a request that has ended, the same for all its observers.

    Returns:
        The wall clock; the milliseconds to the first byte, if one was sent, and to the end.
    """
    if record._times is None:
        first = round((record.first_byte - record.started) * 1e3, 3) if record.first_byte else None
        duration = round((record.ended - record.started) * 1e3, 3)
        record._times = timestamp(), first, duration
    return record._times
