"""Rows of measurements, and how they are shown.

A figure is worth something only beside a floor or a peer that was measured in the same run on
the same machine, so a row carries both: its own median and spread, and its ratio to that.
"""

import statistics
from collections.abc import Iterable, Sequence

import attrs


@attrs.frozen
class Row:
    """One measured figure."""

    name: str
    median: float
    spread: float
    """Half the distance between the first and the third quartile, in the row's unit."""
    unit: str
    ratio: float | None = None
    """Of this row to that of `to`, both from this run."""
    to: str = ""
    target: str = ""
    """What the ratio or the median has to keep, in words; empty when nothing was promised."""


def row(
    name: str,
    samples: Sequence[float],
    unit: str,
    *,
    base: Sequence[float] = (),
    to: str = "",
    target: str = "",
    in_turn: bool = False,
) -> Row:
    """Make a row from samples, with the ratio to the samples of a floor or a peer.

    The ratio is of the medians. When each sample was taken beside one of the base, it is the
    median of their ratios: processors change their clocks, and such pairs have the same.
    """
    median = statistics.median(samples)
    ratio: float | None = None
    if in_turn:
        ratio = statistics.median(a / b for a, b in zip(samples, base, strict=True))
    elif base:
        ratio = median / statistics.median(base)
    return Row(name, median, spread(samples), unit, ratio, to, target)


def spread(samples: Sequence[float]) -> float:
    """Return half the distance between the quartiles; 0 for fewer than two samples."""
    if len(samples) < 2:
        return 0.0
    low, _, high = statistics.quantiles(samples, n=4, method="inclusive")
    return (high - low) / 2


def format_table(rows: Iterable[Row]) -> str:
    """Lay the rows out as lines of aligned columns, names to the left, numbers to the right."""
    cells = [("", "median", "±", "unit", "ratio", "to", "target")]
    cells += [
        (
            entry.name,
            _number(entry.median),
            _number(entry.spread),
            entry.unit,
            "" if entry.ratio is None else f"{entry.ratio:.2f} x",
            entry.to,
            entry.target,
        )
        for entry in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(7)]
    numeric = {1, 2, 4}
    lines = [
        "  ".join(
            cell.rjust(width) if column in numeric else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in cells
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)


def _number(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
