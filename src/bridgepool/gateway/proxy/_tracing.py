"""The trace of a request: which spans it has, and what its upstream is told. No OpenTelemetry.

Theory of operation. Nothing is exported while a request runs. Its trace takes down identifiers and
times, in plain attributes; the spans are made of them at the end of the request. So no task
inherits a span, a stream costs nothing, and the identifier of an attempt is known before its span
exists: that is what `traceparent` tells the upstream.

https://www.w3.org/TR/trace-context-1/
"""

from __future__ import annotations

import random
import re
import time
from types import TracebackType
from typing import Final, Protocol

import attrs

from bridgepool.gateway.providers import Provider
from bridgepool.http import Headers

_PARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})"
)
_STATE: Final = re.compile(rb"[ -~]{1,512}")
_random: Final = random.SystemRandom()


class HasUpstreamStatus(Protocol):
    """The record of a request."""

    upstream_status: int


@attrs.define(eq=False)
class UpstreamAttempt:
    """One attempt of a request, as a context manager; times are `time.perf_counter()`."""

    provider: Provider
    span_id: int
    _record: HasUpstreamStatus | None  # until it has ended
    begun: float = attrs.field(factory=time.perf_counter, init=False)
    ended: float = attrs.field(default=0.0, init=False)
    status: int = attrs.field(default=0, init=False)
    """Of the upstream's response; 0 if there was none."""
    error: str = attrs.field(default="", init=False)
    """The type of the exception that ended it."""

    def __enter__(self) -> None:
        """Begin it."""

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End it."""
        self.ended = time.perf_counter()
        if self._record is not None:
            self.status = self._record.upstream_status
            self._record = None  # it has its attempts
        if kind is not None:
            self.error = kind.__name__.lstrip("_")


@attrs.define(eq=False)
class RequestTrace:
    """The trace of one request; made by `Tracing.begin`."""

    trace_id: int
    parent_id: int = 0
    """The span of the client; 0 if it sent none."""
    state: bytes = b""
    """The client's `tracestate`."""
    span_id: int = attrs.field(factory=lambda: new_id(64), init=False)
    """The span of the request."""
    _attempts: list[UpstreamAttempt] = attrs.field(factory=list, init=False)
    acquire_begun: float = attrs.field(default=0.0, init=False)
    """When the bridge was asked for; 0 if it never was."""
    acquired: float = attrs.field(default=0.0, init=False)
    built: tuple[float, float] = attrs.field(default=(0.0, 0.0), init=False)
    """When the build of that bridge began and ended."""

    def note_acquired(self, begun: float, built: tuple[float, float]) -> None:
        """Note that the bridge is leased."""
        self.acquire_begun, self.acquired, self.built = begun, time.perf_counter(), built

    @property
    def acquire_result(self) -> str:
        """How the bridge was found: `hit`, `miss` or `joined`."""
        begun, ended = self.built
        if ended <= self.acquire_begun:
            return "hit"
        return "miss" if begun >= self.acquire_begun else "joined"

    def _begin_attempt(self, provider: Provider, record: HasUpstreamStatus) -> UpstreamAttempt:
        """Begin the next attempt; it ends when it is left."""
        attempt = UpstreamAttempt(provider, new_id(64), record)
        self._attempts.append(attempt)
        return attempt

    def propagate(self, headers: Headers) -> Headers:
        """Return the headers of a request for its upstream, with the current attempt as parent.

        A `tracestate` goes on with the trace that it belongs to, and with no other.
        """
        dropped = (b"traceparent",) if self.parent_id else (b"traceparent", b"tracestate")
        kept = [field for field in headers if field[0] not in dropped]
        parent = b"00-%032x-%016x-01" % (self.trace_id, self._attempts[-1].span_id)
        return (*kept, (b"traceparent", parent))


def new_id(bits: int) -> int:
    """Return a random identifier that is not 0."""
    return _random.getrandbits(bits) or 1


def begin_trace(headers: Headers, sample: float) -> RequestTrace | None:
    """Return the trace of a request with these headers; None if it is not traced.

    The client decides, if it sent a well-formed `traceparent`. Its headers are passed on then.

    Args:
        headers: of the request.
        sample: the part of the other requests that is traced.
    """
    parent, state = b"", b""
    for name, value in headers:
        if name == b"traceparent":
            parent = value if not parent else b"twice"
        elif name == b"tracestate" and _STATE.fullmatch(value):
            state = value
    found = _PARENT.match(parent) if parent else None
    if found is not None and (len(parent) == 55 or (parent[:2] != b"00" and parent[55:56] == b"-")):
        if not int(found[3], 16) & 1:
            return None
        return RequestTrace(int(found[1], 16), int(found[2], 16), state)
    if sample < 1 and _random.random() >= sample:
        return None
    return RequestTrace(new_id(128))
