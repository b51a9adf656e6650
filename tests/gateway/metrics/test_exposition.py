"""The text for Prometheus, read back by the parser of its client library."""

from __future__ import annotations

import math

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from bridgepool.gateway.metrics._cells import Counters, Histograms
from bridgepool.gateway.metrics._declarations import BUCKETS, Metric
from bridgepool.gateway.metrics._exposition import family, write

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


async def parsed(lines: object) -> Samples:
    text = (await write(lines)).decode()  # type: ignore[arg-type]  # any lines of this module
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for found in text_string_to_metric_families(text)
        for sample in found.samples
    }


@pytest.mark.parametrize("value", [0, 1, True, 2.5, 1e-9, 1e15, -3, math.inf, 12345678901234])
async def test_numbers_and_labels_are_read_back_as_they_were(value: float) -> None:
    odd = 'a "quoted"\\ text\nof two lines, ü'
    metric = Metric("a_b", "gauge", 'Of a \\ and a\nline, "so".', ("x", "y"))
    found = await parsed(family(metric, [((odd, ""), value)]))
    assert found == {("a_b", frozenset({("x", odd), ("y", "")})): float(value)}


async def test_a_metric_without_samples_writes_nothing() -> None:
    assert await write(family(Metric("a", "gauge", "A."), [])) == b""


async def test_counters_and_histograms_count_by_label() -> None:
    counters = Counters(Metric("a_total", "counter", "A.", ("x",)))
    counters.child("1").value += 1
    counters.child("1").value += 1
    counters.child("2").value += 5
    one = ("a_total", frozenset({("x", "1")}))
    two = ("a_total", frozenset({("x", "2")}))
    assert await parsed(counters.lines()) == {one: 2, two: 5}
    counters.forget(lambda values: values == ("1",))
    assert await parsed(counters.lines()) == {two: 5}

    histograms = Histograms(Metric("b_seconds", "histogram", "B."))
    for seconds in (0.0, BUCKETS[0], 0.3, 1e9):
        histograms.child().observe(seconds)
    found = await parsed(histograms.lines())

    def bucket(bound: str) -> float:
        return found["b_seconds_bucket", frozenset({("le", bound)})]

    assert [bucket("0.05"), bucket("0.25"), bucket("0.5"), bucket("600"), bucket("+Inf")] == [
        2, 2, 3, 3, 4,
    ]  # fmt: skip
    assert found["b_seconds_count", frozenset()] == 4
    assert found["b_seconds_sum", frozenset()] == pytest.approx(1e9 + 0.35)


async def test_other_tasks_run_while_many_lines_are_written() -> None:
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            await trio.lowlevel.checkpoint()
            turns += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await write(f"line {number}\n" for number in range(100_000))
        nursery.cancel_scope.cancel()
    assert turns >= 50
