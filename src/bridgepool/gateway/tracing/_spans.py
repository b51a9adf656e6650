"""The spans of an ended request, by the semantic conventions for HTTP and for generative AI.

The names of the latter are those of version 0.1.0 of their own repository; they are written out
here, since the package of constants follows another version.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final

import attrs
from opentelemetry.context import Context
from opentelemetry.metrics import Counter, Histogram, Meter
from opentelemetry.sdk.trace.id_generator import IdGenerator, RandomIdGenerator
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    Tracer,
    TraceState,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from bridgepool.gateway.proxy._access_log import AccessRecord, Outcome
from bridgepool.gateway.proxy._tracing import RequestTrace, UpstreamAttempt

Attributes = dict[str, AttributeValue]

# The end of a route -> `gen_ai.operation.name`.
OPERATIONS: Final[Mapping[str, str]] = {
    "/chat/completions": "chat",
    "/responses": "chat",
    "/messages": "chat",
    "/completions": "text_completion",
    "/complete": "text_completion",
    "/embeddings": "embeddings",
}
_SECONDS: Final = tuple(0.01 * 2**power for power in range(14))  # to 81.92
_TOKENS: Final = {
    "gen_ai.usage.input_tokens": "input",
    "gen_ai.usage.output_tokens": "output",
    "gen_ai.usage.cache_read.input_tokens": "cached_read",
    "gen_ai.usage.cache_write.input_tokens": "cached_write",
    "gen_ai.usage.reasoning.output_tokens": "reasoning",
}


class PresetIds(IdGenerator):
    """Gives spans the identifiers that their requests have told to upstreams already."""

    def __init__(self) -> None:
        self.span_id = self.trace_id = 0
        self._random = RandomIdGenerator()

    def generate_span_id(self) -> int:
        """Return the preset identifier once, then random ones."""
        preset, self.span_id = self.span_id, 0
        return preset or self._random.generate_span_id()

    def generate_trace_id(self) -> int:
        """Return the preset identifier once, then random ones."""
        preset, self.trace_id = self.trace_id, 0
        return preset or self._random.generate_trace_id()


@attrs.define(eq=False)
class SpanMaker:
    """Makes the spans of ended requests. About 100 µs for each; nothing of it awaits."""

    _tracer: Tracer
    _ids: PresetIds

    def make(self, record: AccessRecord, trace: RequestTrace) -> None:
        """Make and end the spans of a request, or the one of a response on a websocket."""
        if record.is_response:
            if record.attempts:  # it was sent
                self._make_response(record, trace)
            return
        clock = _Clock()
        self._ids.trace_id, self._ids.span_id = trace.trace_id, trace.span_id
        span = self._tracer.start_span(
            f"{record.method} {record.route}".strip(),
            context=_parent(trace),
            kind=SpanKind.SERVER,
            attributes=_request_attributes(record),
            start_time=clock.at(record.started),
        )
        if record.outcome is not Outcome.COMPLETE or record.status >= 500:
            error = record.code or record.outcome.value
            span.set_attribute("error.type", error)
            if record.status >= 500 or record.outcome is not Outcome.REFUSED:
                span.set_status(Status(StatusCode.ERROR, error))
        inside = set_span_in_context(span, Context())
        if trace.acquired:
            self._make_acquire(trace, inside, clock)
        for number, attempt in enumerate(trace._attempts, 1):
            self._make_attempt(record, attempt, number, inside, clock)
        if trace._attempts and record.first_byte:
            stream = self._tracer.start_span(
                "stream",
                context=inside,
                attributes={"bridgepool.bytes": record.bytes_sent},
                start_time=clock.at(record.first_byte),
            )
            stream.end(clock.at(record.ended))
        span.end(clock.at(record.ended))

    def _make_response(self, record: AccessRecord, trace: RequestTrace) -> None:
        """Make and end the span of a response on a websocket, a child of the websocket's."""
        clock, operation = _Clock(), operation_of(record.route)
        flags = TraceFlags(TraceFlags.SAMPLED)
        parent = SpanContext(trace.trace_id, trace.span_id, is_remote=False, trace_flags=flags)
        attributes = _inference_attributes(record, trace._attempts[-1], operation)
        span = self._tracer.start_span(
            f"{operation} {record.model}".strip(),
            context=set_span_in_context(NonRecordingSpan(parent), Context()),
            kind=SpanKind.CLIENT,
            attributes=attributes | _answer_attributes(record),
            start_time=clock.at(record.started),
        )
        failed = record.upstream_status >= 400
        if failed or record.outcome is not Outcome.COMPLETE:
            error = str(record.upstream_status) if failed else record.code or record.outcome.value
            span.set_attribute("error.type", error)
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(clock.at(record.ended))

    def _make_acquire(self, trace: RequestTrace, inside: Context, clock: _Clock) -> None:
        result = trace.acquire_result
        acquire = self._tracer.start_span(
            "acquire",
            context=inside,
            attributes={"bridgepool.acquire": result},
            start_time=clock.at(trace.acquire_begun),
        )
        if result == "miss":
            # Its parent is given, not inherited: the build runs in a task of its own.
            begun, ended = trace.built
            context = set_span_in_context(acquire, Context())
            build = self._tracer.start_span("build", context=context, start_time=clock.at(begun))
            build.end(clock.at(ended))
        acquire.end(clock.at(trace.acquired))

    def _make_attempt(
        self,
        record: AccessRecord,
        attempt: UpstreamAttempt,
        number: int,
        inside: Context,
        clock: _Clock,
    ) -> None:
        last = number == record.attempts
        operation = operation_of(record.route)
        self._ids.span_id = attempt.span_id
        span = self._tracer.start_span(
            f"{operation} {record.model}".strip(),
            context=inside,
            kind=SpanKind.CLIENT,
            attributes=_attempt_attributes(record, attempt, number, operation),
            start_time=clock.at(attempt.begun),
        )
        if last and attempt.status and not record.has_responses:  # with spans of their own
            span.set_attributes(_answer_attributes(record))
        _set_error(span, attempt)
        span.end(clock.at(attempt.ended))


def _set_error(span: Span, attempt: UpstreamAttempt) -> None:
    """Say why an attempt failed. A cancelled one would otherwise look like a good one."""
    error = attempt.error or (str(attempt.status) if attempt.status >= 400 else "")
    if error:
        span.set_attribute("error.type", error)
        span.set_status(Status(StatusCode.ERROR, error))


class _Clock:
    """Turns `time.perf_counter()` into nanoseconds of Unix time."""

    def __init__(self) -> None:
        self._offset = time.time() - time.perf_counter()

    def at(self, moment: float) -> int:
        return int((moment + self._offset) * 1e9)


def _parent(trace: RequestTrace) -> Context:
    if not trace.parent_id:
        return Context()
    state = TraceState.from_header([trace.state.decode("ascii")]) if trace.state else None
    flags = TraceFlags(TraceFlags.SAMPLED)
    context = SpanContext(trace.trace_id, trace.parent_id, True, flags, state)
    return set_span_in_context(NonRecordingSpan(context), Context())


def operation_of(route: str) -> str:
    """Return the `gen_ai.operation.name` of a route; the route itself for others."""
    return next((name for end, name in OPERATIONS.items() if route.endswith(end)), route)


def _request_attributes(record: AccessRecord) -> Attributes:
    attributes: Attributes = {
        "http.request.method": record.method,
        "http.route": record.route,
        "http.response.status_code": record.status,
        "client.address": record.peer.rpartition(":")[0].strip("[]"),
        "bridgepool.request_id": record.request_id,
        "bridgepool.client": record.client,
        "bridgepool.provider": record.provider,
        "bridgepool.generation": record.generation,
        "bridgepool.outcome": record.outcome.value,
    }
    if record.session:
        attributes["gen_ai.conversation.id"] = record.session
    return attributes


def _attempt_attributes(
    record: AccessRecord, attempt: UpstreamAttempt, number: int, operation: str
) -> Attributes:
    attributes = _inference_attributes(record, attempt, operation)
    attributes |= {"http.request.method": record.method, "bridgepool.attempt": number}
    if attempt.status:
        attributes["http.response.status_code"] = attempt.status
    return attributes


def _inference_attributes(
    record: AccessRecord, attempt: UpstreamAttempt, operation: str
) -> Attributes:
    address = attempt.provider.base_url
    attributes: Attributes = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": attempt.provider.type,
        "server.address": address.host,
        "server.port": address.port,
        "bridgepool.provider": attempt.provider.name,
    }
    if record.model:
        attributes["gen_ai.request.model"] = record.model
    if record.session:
        attributes["gen_ai.conversation.id"] = record.session
    return attributes


def _answer_attributes(record: AccessRecord) -> Attributes:
    usage = record.usage
    attributes: Attributes = {}
    texts = {"gen_ai.response.model": usage.model, "gen_ai.response.id": usage.response_id}
    attributes.update({name: text for name, text in texts.items() if text})
    if usage.finish:
        attributes["gen_ai.response.finish_reasons"] = (usage.finish,)
    if record.first_byte and record.is_stream:
        first = record.first_byte - record.started
        attributes["gen_ai.response.time_to_first_chunk"] = round(first, 6)
    for name, field in _TOKENS.items():
        count = getattr(usage.tokens, field)
        if count is not None:
            attributes[name] = count
    return attributes


@attrs.define(eq=False)
class GenAiMetrics:
    """The metrics of the conventions for generative AI, of every request to a provider."""

    _duration: Histogram
    _first: Histogram
    _tokens: tuple[tuple[str, Counter], ...]
    """The counters of tokens, by the field of `Tokens`."""

    @classmethod
    def of(cls, meter: Meter) -> GenAiMetrics:
        """Create the instruments."""
        duration, first = (
            meter.create_histogram(
                f"gen_ai.client.inference.{name}",
                unit="s",
                explicit_bucket_boundaries_advisory=_SECONDS,
            )
            for name in ("duration", "time_to_first_chunk")
        )
        tokens = tuple(
            (field, meter.create_counter(_token_metric(name), unit="{token}"))
            for name, field in _TOKENS.items()
        )
        return cls(duration, first, tokens)

    def observe(self, record: AccessRecord, kind: str) -> None:
        """Count an ended request; `kind` is the type of its provider."""
        attributes: Attributes = {
            "gen_ai.operation.name": operation_of(record.route),
            "gen_ai.provider.name": kind,
        }
        if record.model:
            attributes["gen_ai.request.model"] = record.model
        self._count_tokens(record, attributes)
        if record.websocket and not record.is_response:
            return  # it lasts as long as its client wants
        if record.code or record.upstream_status >= 400:
            attributes["error.type"] = record.code or str(record.upstream_status)
        self._duration.record(record.ended - record.started, attributes)
        if record.first_byte and record.is_stream:
            self._first.record(record.first_byte - record.started, attributes)

    def _count_tokens(self, record: AccessRecord, attributes: Attributes) -> None:
        usage = record.usage
        attributes = {**attributes, "gen_ai.token.modality": "unknown"}
        if usage.model:
            attributes["gen_ai.response.model"] = usage.model
        for field, counter in self._tokens:
            count = getattr(usage.tokens, field)
            if count:
                counter.add(count, attributes)


def _token_metric(attribute: str) -> str:
    return attribute.replace("gen_ai.", "gen_ai.client.inference.")
