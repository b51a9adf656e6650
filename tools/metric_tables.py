"""Write the tables of metrics in `docs/howto/observability.md` from their declarations.

    python -m tools.metric_tables

Run it after a change of `bridgepool.gateway.metrics`; a test fails while the page differs.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from bridgepool.gateway.metrics._declarations import (
    CONTROL_PLANE_METRICS,
    GATEWAY_METRICS,
    Metric,
)

PAGE: Final = Path(__file__).parent.parent / "docs" / "howto" / "observability.md"
_PROGRAMS: Final = {"gateway": GATEWAY_METRICS, "control-plane": CONTROL_PLANE_METRICS}
_BLOCK: Final = re.compile(r"(<!-- metrics: (\S+) -->\n).*?(<!-- end of metrics -->)", re.DOTALL)


def with_tables(page: str) -> str:
    """Return the page with its tables of metrics written anew."""
    return _BLOCK.sub(lambda block: block[1] + _table(_PROGRAMS[block[2]]) + block[3], page)


def _table(metrics: Sequence[Metric]) -> str:
    return "| metric | kind | labels | |\n|---|---|---|---|\n" + "".join(map(_row, metrics))


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    return f"| `{metric.name}` | {metric.kind} | {labels} | {metric.help} |\n"


if __name__ == "__main__":
    PAGE.write_text(with_tables(PAGE.read_text()))
