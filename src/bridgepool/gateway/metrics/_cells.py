"""What counts while a program runs: counters and histograms, one for each set of labels. Pure.

The numbers are plain attributes, and the text of the labels is made once. A client library costs
several times as much per request, and its text of 200 providers takes 50 ms in one step, in which
every stream would stand still.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import attrs

from bridgepool.gateway.metrics._declarations import BUCKETS, Metric
from bridgepool.gateway.metrics._exposition import header, label_pairs, number

_BOUNDS: Final = (*(f"{bound:g}" for bound in BUCKETS), "+Inf")


@attrs.define(eq=False)
class Counter:
    """One counter; only ever add to its `value`."""

    value: int = 0


@attrs.define(eq=False)
class Histogram:
    """One histogram of seconds."""

    counts: list[int] = attrs.field(factory=lambda: [0] * len(_BOUNDS))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.total += seconds


@attrs.define(eq=False)
class Counters:
    """The counters of one metric."""

    metric: Metric
    _cells: dict[tuple[str, ...], tuple[str, Counter]] = attrs.field(factory=dict, init=False)

    def child(self, *values: str) -> Counter:
        """Return the counter with these values of the labels; keep it where it is used often."""
        found = self._cells.get(values)
        if found is None:
            pairs = label_pairs(self.metric.labels, values)
            name = f"{self.metric.name}{{{pairs}}}" if pairs else self.metric.name
            found = self._cells[values] = name, Counter()
        return found[1]

    def lines(self) -> Iterator[str]:
        """Yield the lines for Prometheus."""
        first = header(self.metric)
        for name, counter in tuple(self._cells.values()):
            yield f"{first}{name} {counter.value}\n"
            first = ""

    def forget(self, is_gone: Callable[[Sequence[str]], bool]) -> None:
        """Forget the counters whose values of the labels are gone."""
        self._cells = {key: cell for key, cell in self._cells.items() if not is_gone(key)}


@attrs.define(eq=False)
class Histograms:
    """The histograms of one metric."""

    metric: Metric
    _cells: dict[tuple[str, ...], tuple[str, Histogram]] = attrs.field(factory=dict, init=False)

    def child(self, *values: str) -> Histogram:
        """Return the histogram with these values of the labels."""
        found = self._cells.get(values)
        if found is None:
            found = self._cells[values] = label_pairs(self.metric.labels, values), Histogram()
        return found[1]

    def lines(self) -> Iterator[str]:
        """Yield the lines for Prometheus, those of one histogram together."""
        first, name = header(self.metric), self.metric.name
        for pairs, histogram in tuple(self._cells.values()):
            before, after = (f"{pairs},", f"{{{pairs}}}") if pairs else ("", "")
            count, lines = 0, [first]
            for bound, inside in zip(_BOUNDS, histogram.counts, strict=True):
                count += inside
                lines.append(f'{name}_bucket{{{before}le="{bound}"}} {count}\n')
            lines.append(f"{name}_sum{after} {number(histogram.total)}\n")
            lines.append(f"{name}_count{after} {count}\n")
            yield "".join(lines)
            first = ""

    def forget(self, is_gone: Callable[[Sequence[str]], bool]) -> None:
        """Forget the histograms whose values of the labels are gone."""
        self._cells = {key: cell for key, cell in self._cells.items() if not is_gone(key)}
