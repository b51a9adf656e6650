"""`open_tracing`: spans of requests to a collector, by OTLP over HTTP."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

import attrs
import trio
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from bridgepool._version import __version__
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._recorder import Tracing
from bridgepool.gateway.proxy._tracing import RequestTrace, begin_trace
from bridgepool.gateway.tracing._spans import GenAiMetrics, PresetIds, SpanMaker
from bridgepool.http import Headers

logger = logging.getLogger("bridgepool.gateway")

_SHUTDOWN_TIMEOUT: Final = 2.0  # seconds for the last spans
_EXPORT_TIMEOUT: Final = 5.0  # seconds
_LOG_INTERVAL: Final = 60.0  # seconds between two lines of an exporter


@attrs.frozen(eq=False)
class OtlpTracing:
    """A `Tracing` that exports by OTLP. Made by `open_tracing`."""

    _sample: float
    _spans: SpanMaker
    _metrics: GenAiMetrics

    def begin(self, headers: Headers) -> RequestTrace | None:
        """Return the trace of a request; None if it is not traced."""
        return begin_trace(headers, self._sample)

    def observe(self, record: AccessRecord) -> None:
        """Make the spans of an ended request or response; threads export them."""
        if record.trace is not None:
            self._spans.make(record, record.trace)
        if record.attempts and not record.has_responses:  # which are counted by themselves
            self._metrics.observe(record, record.provider_type)


@asynccontextmanager
async def open_tracing(
    endpoint: str, *, sample: float = 1.0, service: str = "bridgepool-gateway"
) -> AsyncIterator[Tracing]:
    """Export the spans of requests, while the block runs.

    Threads of their own send them, in batches. What a collector does not take is dropped. Leaving
    the block sends what is left, for two seconds at most: a collector that hangs holds up nothing.

    Args:
        endpoint: The base URL of the collector, such as `http://localhost:4318`. Certificates,
            headers, compression and the rest come from OpenTelemetry's own environment variables.
        sample: The part of the requests without a `traceparent` that is traced, from 0 to 1.
        service: The `service.name`; `OTEL_SERVICE_NAME` and `OTEL_RESOURCE_ATTRIBUTES` win.
    """
    base, ids = endpoint.rstrip("/"), PresetIds()
    named = {"service.name": service, "service.version": __version__}
    resource = Resource.create(named).merge(OTELResourceDetector().detect())
    spans = TracerProvider(
        sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False, id_generator=ids
    )
    exporter = OTLPSpanExporter(f"{base}/v1/traces", timeout=_EXPORT_TIMEOUT)
    spans.add_span_processor(BatchSpanProcessor(exporter))
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(f"{base}/v1/metrics", timeout=_EXPORT_TIMEOUT)
    )
    meters = MeterProvider([reader], resource=resource, shutdown_on_exit=False)
    with _rare_lines():
        try:
            yield OtlpTracing(
                sample,
                SpanMaker(spans.get_tracer("bridgepool", __version__), ids),
                GenAiMetrics.of(meters.get_meter("bridgepool", __version__)),
            )
        finally:
            with trio.CancelScope(shield=True):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(_end, spans.shutdown)
                    nursery.start_soon(_end, meters.shutdown)


@contextmanager
def _rare_lines() -> Iterator[None]:
    """Limit what the exporters log; they log each of their attempts while a collector is away."""
    limits = [
        (logging.getLogger(exporter.__module__), _RareLines())
        for exporter in (OTLPSpanExporter, OTLPMetricExporter)
    ]
    for exporter_log, limit in limits:
        exporter_log.addFilter(limit)
    try:
        yield
    finally:
        for exporter_log, limit in limits:
            exporter_log.removeFilter(limit)


class _RareLines(logging.Filter):
    """Passes one line of each level a minute."""

    def __init__(self) -> None:
        super().__init__()
        self._next: dict[int, float] = {}  # level -> when a line may pass

    def filter(self, record: logging.LogRecord) -> bool:
        now = time.monotonic()
        if now < self._next.get(record.levelno, -math.inf):
            return False
        self._next[record.levelno] = now + _LOG_INTERVAL
        return True


async def _end(shut_down: Callable[[], None]) -> None:
    """Send what is left, in a thread that is abandoned when its time is over."""
    with trio.move_on_after(_SHUTDOWN_TIMEOUT) as scope:
        try:
            await trio.to_thread.run_sync(shut_down, abandon_on_cancel=True)
        except Exception:
            logger.exception("OpenTelemetry could not be shut down")
    if scope.cancelled_caught:
        logger.warning("the last spans and metrics were not sent: the collector is too slow")
