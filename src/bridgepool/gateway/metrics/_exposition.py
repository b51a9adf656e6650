"""Metrics as text for Prometheus, written in pieces so that no stream waits for it.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import trio

from bridgepool.gateway.metrics._declarations import Metric

CONTENT_TYPE: Final = (b"content-type", b"text/plain; version=0.0.4; charset=utf-8")
_PIECE: Final = 16384  # characters between two checkpoints: some hundred microseconds
_ESCAPES: Final = str.maketrans({"\\": r"\\", "\n": r"\n", '"': r"\""})


def header(metric: Metric) -> str:
    """Return the two lines before the samples of a metric."""
    text = metric.help.replace("\\", r"\\").replace("\n", r"\n")
    return f"# HELP {metric.name} {text}\n# TYPE {metric.name} {metric.kind}\n"


def label_pairs(names: Sequence[str], values: Sequence[str]) -> str:
    """Return labels without their braces; empty if there are none."""
    pairs = zip(names, values, strict=True)
    return ",".join(f'{name}="{value.translate(_ESCAPES)}"' for name, value in pairs)


def number(value: float) -> str:
    """Return a number."""
    if isinstance(value, float):
        if math.isinf(value):
            return "+Inf" if value > 0 else "-Inf"
        return repr(value) if not value.is_integer() else str(int(value))
    return str(int(value))


def family(metric: Metric, samples: Iterable[tuple[Sequence[str], float]]) -> Iterator[str]:
    """Yield the lines of a gauge or counter; none if it has no samples."""
    first = header(metric)
    for values, value in samples:
        pairs = label_pairs(metric.labels, values)
        name = f"{metric.name}{{{pairs}}}" if pairs else metric.name
        yield f"{first}{name} {number(value)}\n"
        first = ""


async def write(lines: Iterable[str]) -> bytes:
    """Join lines, with a checkpoint after every few hundred of them."""
    written: list[str] = []
    size = 0
    for line in lines:
        written.append(line)
        size += len(line)
        if size > _PIECE:
            size = 0
            await trio.lowlevel.checkpoint()
    await trio.lowlevel.checkpoint()
    return "".join(written).encode()
