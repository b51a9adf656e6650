"""The records of requests, from their beginning to the observers."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Protocol

import attrs

from bridgepool.gateway.providers import ErrorForm, ProviderType
from bridgepool.gateway.proxy._access_log import AccessRecord, Outcome, RequestObserver
from bridgepool.gateway.proxy._recorded_bodies import report_bodies
from bridgepool.gateway.proxy._redaction import PathRedactor, redact_method
from bridgepool.gateway.proxy._refusals import find_error_form, invalid_request, render
from bridgepool.gateway.proxy._request_id import find_request_id
from bridgepool.gateway.proxy._tracing import RequestTrace
from bridgepool.gateway.proxy._usage import note_client
from bridgepool.gateway.serving._peer import FindPeer
from bridgepool.gateway.usage._bodies import BodyRecorder
from bridgepool.http import Headers, InvalidRequest, Request

logger = logging.getLogger("bridgepool.gateway")


class Tracing(Protocol):
    """Traces requests; `open_tracing` opens one that exports by OTLP."""

    def begin(self, headers: Headers) -> RequestTrace | None:
        """Return the trace of a request with these headers; None if it is not traced."""
        ...

    def observe(self, record: AccessRecord) -> None:
        """Export the spans of an ended request, or response on a websocket (`is_response`).

        Must not block or raise.
        """
        ...


@attrs.define(eq=False)
class Recorder:
    """Makes the record of each request, counts it, and passes it to the observers at its end.

    Args:
        types: The provider types in force.
        observers: Each gets every record.
        find_peer: Returns the peer of a request; None if it is that of its connection.
        begin_trace: Returns the trace of a request; None if no request is traced.
        body_recorder: Records the bodies of requests and answers; None if none are.
        response_observers: Each gets a record of each response on a websocket.
        reads_usage: Note what the headers of requests tell of clients and their sessions, too.
    """

    _types: tuple[ProviderType, ...]
    _observers: tuple[RequestObserver, ...]
    _reads_usage: bool
    _find_peer: FindPeer | None = None
    _begin_trace: Callable[[Headers], RequestTrace | None] | None = None
    _body_recorder: BodyRecorder | None = None
    _response_observers: tuple[RequestObserver, ...] = ()
    running: set[AccessRecord] = attrs.field(factory=set, init=False)
    """The records of the requests that are being served."""
    ended: dict[Outcome, int] = attrs.field(factory=lambda: dict.fromkeys(Outcome, 0), init=False)
    """Ended requests by outcome."""
    redactor: PathRedactor = attrs.field(init=False)
    """Redacts the paths of requests."""

    def __attrs_post_init__(self) -> None:
        self.redactor = PathRedactor(self._types)

    def begin(self, method: bytes, headers: Headers, peer: str) -> AccessRecord:
        """Begin the record of a request."""
        if self._find_peer is not None:
            peer = self._find_peer(headers, peer)
        record = AccessRecord(redact_method(method), find_request_id(headers), peer)
        record._body_recorder = self._body_recorder
        record.on_response = self._observe_response
        record.wants_responses = bool(self._response_observers)
        if self._reads_usage:
            note_client(record, headers)
        if self._begin_trace is not None:
            record.trace = self._begin_trace(headers)
        self.running.add(record)
        return record

    def error_form(self, request: Request, record: AccessRecord) -> ErrorForm:
        """Return the error form of the route, or of the provider's type, or guess it."""
        if record._errors is not None:
            return record._errors
        for kind in self._types:
            if kind.name == record.provider_type:
                return kind.errors
        return find_error_form(self._types, request.target.partition(b"?")[0], request.headers)

    def end(self, record: AccessRecord, path: bytes) -> None:
        """Complete a record, and pass it to the observers.

        Args:
            record: From `begin`.
            path: The path of the request without its query.
        """
        self.running.discard(record)
        self.ended[record.outcome] += 1
        record.ended = time.perf_counter()
        record.take_usage()
        if record.method == "HEAD":
            record.bytes_sent = 0  # its response has no body, whatever was to be sent
        if self._observers:
            record.path = self.redactor.redact(path, record.fallback_from or record.provider)
        last = record.unfinished
        if last is not None:
            last.outcome, last.code, last.ended = record.outcome, record.code, record.ended
            self._observe_response(last)
        self._call(self._observers, record)

    def _observe_response(self, record: AccessRecord) -> None:
        if record._recording is not None:
            report_bodies(record)
        self._call(self._response_observers, record)

    def _call(self, observers: tuple[RequestObserver, ...], record: AccessRecord) -> None:
        for observe in observers:
            try:
                observe(record)
            except Exception:
                fields = {"request_id": record.request_id}
                logger.exception("request observer failed", extra=fields)

    def refuse_invalid(self, invalid: InvalidRequest) -> tuple[Headers, bytes]:
        """Refuse input that is not an acceptable request; its record begins and ends."""
        path, headers = invalid.target.partition(b"?")[0], invalid.headers
        refusal = invalid_request(invalid.error)
        record = self.begin(invalid.method, headers, invalid.client)
        form = find_error_form(self._types, path, headers)
        answer = render(refusal, form, record.request_id)
        record.status, record.code = refusal.status, refusal.code
        record.outcome = Outcome.REFUSED
        record.bytes_sent, record.first_byte = len(answer[1]), time.perf_counter()
        self.end(record, path)
        return answer
