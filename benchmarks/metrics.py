"""Metrics: what they cost each request, and what a scrape of 200 providers costs everybody else.

Run it with `python -m benchmarks metrics`.
"""

import time
from collections.abc import Callable

import trio
from opentelemetry.sdk.trace import TracerProvider
from prometheus_client import CollectorRegistry, Histogram
from prometheus_client import Counter as LibraryCounter

from benchmarks.table import Row, row
from bridgepool import MemoryReloader, ProviderSnapshot
from bridgepool._connection_limiter import ConnectionLimiter
from bridgepool.gateway import AccessRecord, open_gateway
from bridgepool.gateway.metrics._declarations import BUCKETS
from bridgepool.gateway.metrics._gateway import GatewayMetrics, RequestMetrics
from bridgepool.gateway.metrics._program import ProgramMetrics
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.proxy._tracing import begin_trace
from bridgepool.gateway.tracing._spans import PresetIds, SpanMaker

PROVIDERS = 200
SCRAPES = 20
ROUTES = ("/v1/chat/completions", "/v1/responses")


def run() -> list[Row]:
    """Measure, and return the rows."""
    return [*trio.run(_scrapes), *_observations(), *_traces()]


def _record(provider: str, route: str) -> AccessRecord:
    record = AccessRecord("POST", provider=provider, route=route, status=200)
    record.first_byte, record.ended = record.started + 0.3, record.started + 2.0
    return record


async def _scrapes() -> list[Row]:
    providers = [
        Provider(name=f"p-{n}", type="openai", base_url="https://a.example/v1", keys=["sk"])
        for n in range(PROVIDERS)
    ]
    source = MemoryReloader(ProviderSnapshot(providers))
    requests = RequestMetrics()
    for provider in providers:
        for route in ROUTES:
            requests.observe(_record(provider.name, route))
    took, stalls = [], []
    size = 0
    async with open_gateway(source, source.subscribe(), first=source.snapshot) as gateway:
        program = ProgramMetrics(
            program="gateway", limiters={"main": ConnectionLimiter()}, log_lines_dropped=int
        )
        metrics = GatewayMetrics(gateway, requests, program)
        for _ in range(SCRAPES):
            longest = 0.0

            async def watch() -> None:
                nonlocal longest
                before = time.perf_counter()
                while True:
                    await trio.lowlevel.checkpoint()
                    now = time.perf_counter()
                    longest, before = max(longest, now - before), now

            async with trio.open_nursery() as nursery:
                nursery.start_soon(watch)
                await trio.lowlevel.checkpoint()
                begun = time.perf_counter()
                _, _, body = await metrics.page(None)
                took.append((time.perf_counter() - begun) * 1e3)
                nursery.cancel_scope.cancel()
            stalls.append(longest * 1e3)
            size = body.count(b"\n")
    name = f"/metrics of {PROVIDERS} providers, {size} lines"
    return [
        row(name, took, "ms", target="<= 20 ms"),
        row(f"{name}: longest stall of a scrape", stalls, "ms", target="<= 5 ms"),
    ]


def _observations() -> list[Row]:
    requests, record = RequestMetrics(), _record("p-1", ROUTES[0])
    registry = CollectorRegistry()
    counter = LibraryCounter("a", "a", ["x"], registry=registry).labels("1")
    histograms = [
        Histogram(name, name, ["x"], buckets=BUCKETS, registry=registry).labels("1")
        for name in ("b", "c")
    ]

    def with_library() -> None:
        counter.inc()
        for histogram in histograms:
            histogram.observe(0.3)

    own = _microseconds(lambda: requests.observe(record))
    library = _microseconds(with_library)
    return [
        row(
            "metrics of one request",
            own,
            "us",
            base=library,
            to="bound children of prometheus-client",
        )
    ]


def _traces() -> list[Row]:
    headers = tuple((b"x-%d" % n, b"a") for n in range(12))
    ids = PresetIds()
    spans = TracerProvider(id_generator=ids, shutdown_on_exit=False)
    maker, record = SpanMaker(spans.get_tracer("benchmark"), ids), _record("p-1", ROUTES[0])
    trace = begin_trace(headers, 1.0)
    assert trace is not None
    return [
        row(
            "tracing on, a request that is not traced",
            _microseconds(lambda: begin_trace(headers, 0.0)),
            "us",
        ),
        row("spans of one traced request", _microseconds(lambda: maker.make(record, trace)), "us"),
    ]


def _microseconds(do: Callable[[], object]) -> list[float]:
    samples = []
    for _ in range(11):
        begun = time.perf_counter()
        for _ in range(10_000):
            do()
        samples.append((time.perf_counter() - begun) * 100)
    return samples
