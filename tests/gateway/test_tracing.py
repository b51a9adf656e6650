"""Traces: what clients and upstreams are told, and the spans that a collector receives."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum

from bridgepool.gateway import GatewaySettings, open_tracing
from bridgepool.gateway import _process as process
from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._tracing import begin_trace
from bridgepool.gateway.tracing import _otlp as otlp
from bridgepool.gateway.tracing._spans import GenAiMetrics
from bridgepool.gateway.usage._tokens import Tokens, Usage
from bridgepool.http import Exchange, serve_http
from tests.gateway.proxy.rig import open_rig, openai, start_upstream
from tests.gateway.proxy.websockets.peers import connect_socket
from tests.gateway.proxy.websockets.peers import start_upstream as start_socket_upstream
from tests.gateway.proxy.websockets.rig import SERVED, TOKENS, Upstream, create, events
from tests.waiting import wait_until

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "observability.md"
CHAT = "/ai/v1/chat/completions"
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{PARENT}-01".encode()


def begun(value: bytes, sample: float = 0.0) -> tuple[int, int] | None:
    trace = begin_trace(((b"traceparent", value),), sample)
    return (trace.trace_id, trace.parent_id) if trace is not None else None


def test_the_client_decides_if_it_sent_a_trace() -> None:
    assert begun(SAMPLED) == (int(TRACE, 16), int(PARENT, 16))
    assert begun(SAMPLED[:-1] + b"0", sample=1.0) is None
    assert begun(b"01" + SAMPLED[2:] + b"-more") == (int(TRACE, 16), int(PARENT, 16))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"ff" + SAMPLED[2:],
        SAMPLED + b"-more",
        SAMPLED.upper(),
        b"00-" + b"0" * 32 + SAMPLED[35:],
        SAMPLED[:36] + b"0" * 16 + b"-01",
        SAMPLED[:-1],
    ],
)
def test_what_is_no_trace_counts_as_none(value: bytes) -> None:
    assert begun(value) is None
    new = begun(value, sample=1.0)
    assert new is not None
    assert new[0] != int(TRACE, 16)
    assert new[1] == 0


def test_a_tracestate_goes_on_with_its_own_trace_only() -> None:
    state = (b"tracestate", b"vendor=1")
    for parent, kept in ((SAMPLED, True), (SAMPLED + b"-more", False)):
        headers = ((b"traceparent", parent), state, (b"accept", b"*/*"))
        trace = begin_trace(headers, 1.0)
        assert trace is not None
        trace._begin_attempt(openai("http://127.0.0.1:9/v1"), AccessRecord("POST"))
        sent = dict(trace.propagate(headers))
        assert (state[0] in sent, b"accept" in sent) == (kept, True)
        assert sent[b"traceparent"].startswith(b"00-%032x-" % trace.trace_id)


def test_a_part_of_the_other_requests_is_traced() -> None:
    traced = sum(begin_trace((), 0.5) is not None for _ in range(2000))
    assert 800 < traced < 1200


@attrs.define(eq=False)
class Collector:
    """A real receiver of OTLP over HTTP."""

    url: str = ""
    spans: list[Span] = attrs.field(factory=list)
    metrics: set[str] = attrs.field(factory=set)
    service: str = ""

    async def handle(self, exchange: Exchange) -> None:
        body = b"".join([piece async for piece in exchange.body])
        if exchange.request.target == b"/v1/traces":
            request = ExportTraceServiceRequest.FromString(body)
            for resource in request.resource_spans:
                names = {one.key: one.value.string_value for one in resource.resource.attributes}
                self.service = names["service.name"]
                for scope in resource.scope_spans:
                    self.spans.extend(scope.spans)
        else:
            received = ExportMetricsServiceRequest.FromString(body)
            for one in received.resource_metrics:
                for scope in one.scope_metrics:
                    self.metrics.update(metric.name for metric in scope.metrics)
        await exchange.answer(200, ((b"content-type", b"application/x-protobuf"),))

    def named(self, name: str) -> list[Span]:
        return [span for span in self.spans if span.name == name]


@asynccontextmanager
async def open_collector(nursery: trio.Nursery) -> AsyncIterator[Collector]:
    collector = Collector()
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    collector.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    nursery.start_soon(serve_http, collector.handle, listeners)
    yield collector


def attributes(span: Span) -> dict[str, object]:
    return {
        one.key: getattr(one.value, str(one.value.WhichOneof("value"))) for one in span.attributes
    }


async def test_a_collector_gets_the_spans_of_a_request_and_the_upstream_its_parent(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery)
    settings = GatewaySettings(allow_anonymous=True, reads_usage=True)
    async with (
        open_collector(nursery) as collector,
        open_tracing(collector.url, sample=0) as tracing,
        open_rig(openai(north), nursery=nursery, settings=settings, tracing=tracing) as rig,
    ):
        headers = ((b"traceparent", SAMPLED), (b"tracestate", b"vendor=1"))
        await rig.ask(CHAT, {"model": "m", "stream": True}, headers)
        await rig.ask(CHAT, {"model": "m"}, headers)
        await rig.ask("/nowhere/v1/models", headers=headers)
        await rig.ask(CHAT, {"model": "m"})  # not traced
        records = await rig.wait_records(4)
    assert collector.service == "bridgepool-gateway"
    first, second, third = [
        span for span in collector.spans if span.kind == Span.SpanKind.SPAN_KIND_SERVER
    ]
    for span in collector.spans:
        assert span.trace_id.hex() == TRACE
        assert 0 <= span.end_time_unix_nano - span.start_time_unix_nano < 10e9
        assert abs(span.start_time_unix_nano - time.time_ns()) < 60e9
    assert first.name == "POST /chat/completions"
    assert first.parent_span_id.hex() == PARENT
    assert first.trace_state == "vendor=1"
    told = attributes(first)
    assert told["http.response.status_code"] == 200
    assert told["bridgepool.request_id"] == records[0].request_id
    assert told["bridgepool.outcome"] == "complete"
    # The upstream's parent is the span of the attempt.
    attempts = collector.named("chat m")
    assert [one.parent_span_id for one in attempts] == [first.span_id, second.span_id]
    parents = [seen.header(b"traceparent") for seen in north.received]
    assert parents[:2] == [f"00-{TRACE}-{one.span_id.hex()}-01".encode() for one in attempts]
    assert parents[2] is None
    assert north.received[0].header(b"tracestate") == b"vendor=1"
    asked = attributes(attempts[0])
    assert asked["gen_ai.operation.name"] == "chat"
    assert asked["gen_ai.provider.name"] == "openai"
    assert asked["gen_ai.request.model"] == "m"
    assert asked["server.address"] == "127.0.0.1"
    assert asked["http.response.status_code"] == 200
    assert asked["gen_ai.response.model"] == "m@north"
    # The first request built the bridge, and the second found it.
    acquires = collector.named("acquire")
    assert [attributes(one)["bridgepool.acquire"] for one in acquires] == ["miss", "hit", "hit"]
    [build] = collector.named("build")
    assert build.parent_span_id == acquires[0].span_id
    assert len(collector.named("stream")) == 2
    assert attributes(third)["error.type"] == "unknown_provider"
    assert "gen_ai.client.inference.usage.input_tokens" in collector.metrics
    assert collector.metrics < documented_metrics()


def documented_metrics() -> set[str]:
    rows = re.findall(r"^\| `(gen_ai\.[a-z_.]+)` \| (?:s|{token}) \|", PAGE.read_text(), re.M)
    return set(rows)


def test_times_are_of_requests_and_streams_and_tokens_of_everything_that_is_read() -> None:
    reader = InMemoryMetricReader()
    metrics = GenAiMetrics.of(MeterProvider([reader]).get_meter("test"))
    usage = Usage(Tokens(10, 5, cached_read=4, cached_write=3, reasoning=2), model="m-1")
    cases: tuple[dict[str, Any], ...] = (
        {"is_stream": True},
        {},
        {"websocket": True},
        {"code": "upstream_cut"},
    )
    for fields in cases:
        record = AccessRecord("POST", route="/responses", model="m", usage=usage, **fields)
        record.started, record.first_byte, record.ended = 1.0, 1.25, 3.0
        metrics.observe(record, "openai")
    unknown = AccessRecord("POST", route="/responses", started=1.0)
    unknown.ended = 2.0
    metrics.observe(unknown, "openai")
    data = reader.get_metrics_data()
    assert data is not None
    [scope] = data.resource_metrics[0].scope_metrics
    assert {metric.name for metric in scope.metrics} == documented_metrics()
    counts = dict[str, float]()
    for metric in scope.metrics:
        name = metric.name.removeprefix("gen_ai.client.inference.")
        points: Any = metric.data.data_points  # of a counter or a histogram
        assert all(one.attributes["gen_ai.operation.name"] == "chat" for one in points)
        if isinstance(metric.data, Sum):
            [point] = points
            assert point.attributes["gen_ai.response.model"] == "m-1"
            assert point.attributes["gen_ai.token.modality"] == "unknown"
            counts[name] = point.value
        else:
            counts[name] = sum(one.count for one in points)
    assert counts == {
        "duration": 4,
        "time_to_first_chunk": 1,
        "usage.input_tokens": 40,
        "usage.output_tokens": 20,
        "usage.cache_read.input_tokens": 16,
        "usage.cache_write.input_tokens": 12,
        "usage.reasoning.output_tokens": 8,
    }


async def test_each_response_on_a_websocket_has_a_span_below_that_of_the_websocket(
    nursery: trio.Nursery,
) -> None:
    upstream = Upstream()
    north = await start_socket_upstream(nursery, upstream.serve)
    async with (
        open_collector(nursery) as collector,
        open_tracing(collector.url) as tracing,
        open_rig(openai(north.url), nursery=nursery, tracing=tracing) as rig,
    ):
        async with connect_socket(rig.address) as (socket, _):
            for model in ("m-1", "m-2"):
                await socket.send_text(create(model))
                assert await events(socket, 2) == SERVED
            upstream.hold = trio.Event()
            await socket.send_text(create("m-3"))
            assert await events(socket, 1) == SERVED[:1]
        await rig.wait_records(1)
    [whole] = [span for span in collector.spans if span.kind == Span.SpanKind.SPAN_KIND_SERVER]
    assert whole.name == "GET /responses"
    spans = [span for number in (1, 2, 3) for span in collector.named(f"chat m-{number}")]
    responses = [span for span in spans if "bridgepool.attempt" not in attributes(span)]
    assert len(responses) == 3
    for number, span in enumerate(responses, 1):
        assert (span.trace_id, span.parent_span_id) == (whole.trace_id, whole.span_id)
        assert span.start_time_unix_nano <= span.end_time_unix_nano
        begun_before = whole.start_time_unix_nano - span.start_time_unix_nano
        ended_after = span.end_time_unix_nano - whole.end_time_unix_nano
        assert max(begun_before, ended_after) < 5e9  # two clocks are read, not at once
        told = attributes(span)
        assert told["gen_ai.operation.name"] == "chat"
        assert told["gen_ai.provider.name"] == "openai"
        assert told["gen_ai.request.model"] == told["gen_ai.response.model"] == f"m-{number}"
        assert told["gen_ai.response.id"] == f"resp_{number}"
        assert told.get("gen_ai.usage.input_tokens") == (TOKENS - 10 if number < 3 else None)
        assert told.get("error.type") == (None if number < 3 else "client_gone")
    [attempt] = [span for span in collector.spans if "bridgepool.attempt" in attributes(span)]
    assert not {name for name in attributes(attempt) if name.startswith("gen_ai.usage")}
    assert {f"gen_ai.client.inference.{name}" for name in ("duration", "usage.input_tokens")} <= (
        collector.metrics
    )


async def test_every_attempt_has_a_span_and_a_failed_one_says_why(nursery: trio.Nursery) -> None:
    async with (
        open_collector(nursery) as collector,
        open_tracing(collector.url) as tracing,
        open_rig(openai("http://127.0.0.1:9/v1"), nursery=nursery, tracing=tracing) as rig,
    ):
        await rig.ask(CHAT, {})
        await rig.wait_records(1)
    [attempt] = collector.named("chat")
    assert attempt.status.code == 2
    assert attributes(attempt)["error.type"] == "ConnectFailed"
    [request] = [s for s in collector.spans if s.kind == Span.SpanKind.SPAN_KIND_SERVER]
    assert not request.parent_span_id
    assert request.status.code == 2
    assert attributes(request)["error.type"] == "upstream_unreachable"


async def test_a_collector_that_hangs_holds_up_neither_requests_nor_the_end(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(otlp, "_SHUTDOWN_TIMEOUT", 0.2)
    monkeypatch.setattr(otlp, "_EXPORT_TIMEOUT", 60.0)
    north = await start_upstream(nursery)
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")  # nobody accepts
    port = listeners[0].socket.getsockname()[1]
    async with (
        open_tracing(f"http://127.0.0.1:{port}") as tracing,
        open_rig(openai(north), nursery=nursery, tracing=tracing) as rig,
    ):
        for _ in range(5):
            assert (await rig.ask(CHAT, {})).status == 200
    assert "the last spans and metrics were not sent: the collector is too slow" in caplog.messages
    late = Collector()
    nursery.start_soon(serve_http, late.handle, listeners)
    # No thread of it runs beside the next tests.
    await wait_until(lambda: not any("Otel" in thread.name for thread in threading.enumerate()))
    assert len(late.named("POST /chat/completions")) == 5


async def test_a_collector_that_is_away_fills_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """The exporter logs each of its attempts, several in a batch, and a batch each few seconds."""
    exporter = logging.getLogger(OTLPSpanExporter.__module__)
    async with otlp.open_tracing("http://127.0.0.1:1"):
        for _ in range(3):
            exporter.warning("trying again")
            exporter.error("given up")
        assert caplog.messages == ["trying again", "given up"]
    exporter.warning("of another program")
    assert caplog.messages[2:] == ["of another program"]


def test_opentelemetry_is_loaded_only_if_asked_for() -> None:
    code = "import sys, bridgepool.gateway._process; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert not {name for name in loaded.stdout.split() if name.startswith("opentelemetry")}


async def test_the_gateway_as_a_program_traces_with_its_option(nursery: trio.Nursery) -> None:
    options = GatewayOptions(otel_endpoint="http://127.0.0.1:9", otel_sample=0.5)
    async with AsyncExitStack() as stack:
        assert isinstance(await process._enter_tracing(stack, options), otlp.OtlpTracing)
        assert await process._enter_tracing(stack, GatewayOptions()) is None
