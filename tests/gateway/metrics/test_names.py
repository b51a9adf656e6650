"""Names of metrics: declared once, the same in the docs, the alerts and the dashboard."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import metrics as client_library

from bridgepool.gateway.metrics._declarations import (
    CONTROL_PLANE_METRICS,
    GATEWAY_METRICS,
    Metric,
)
from tools.metric_tables import PAGE, with_tables

EXAMPLES = Path(__file__).parents[3] / "examples" / "monitoring"
METRICS = {metric.name: metric for metric in (*GATEWAY_METRICS, *CONTROL_PLANE_METRICS)}
SERIES = {
    name + suffix
    for name, metric in METRICS.items()
    for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
}
# Of Prometheus itself, not of the programs.
OTHERS = {"up"}


def names_in(expression: str) -> set[str]:
    """Return the names of series in a query."""
    without_text = re.sub(r'"[^"]*"|\{[^}]*\}|\b(?:by|without|on) ?\([^)]*\)', " ", expression)
    without_ranges = re.sub(r"\[[^\]]*\]", " ", without_text)
    words = set(re.findall(r"[a-z_][a-z0-9_]*", without_ranges))
    functions = set(re.findall(r"([a-z_][a-z0-9_]*) *\(", without_ranges))
    operators = {"by", "without", "on", "or", "and", "unless", "bool", "offset"}
    return words - functions - operators


@pytest.mark.parametrize("metrics", [GATEWAY_METRICS, CONTROL_PLANE_METRICS])
def test_names_follow_the_rules_of_prometheus(metrics: tuple[Metric, ...]) -> None:
    assert len({metric.name for metric in metrics}) == len(metrics)
    for metric in metrics:
        assert re.fullmatch(r"bridgepool_[a-z_]+", metric.name)
        assert metric.name.endswith("_total") == (metric.kind == "counter")
        assert metric.help.endswith(".")
        client_library.Gauge(metric.name, metric.help, metric.labels, registry=None)  # it is valid


def test_the_tables_of_the_page_are_those_of_the_declarations() -> None:
    """If this fails: python -m tools.metric_tables"""
    page = PAGE.read_text()
    assert page == with_tables(page)


def alert_expressions() -> list[str]:
    text = (EXAMPLES / "alerts.yml").read_text()
    return re.findall(r"^ +expr: (.+)$", text, re.M)


def dashboard_expressions() -> list[str]:
    found: list[str] = []

    def look(part: Any) -> None:
        if isinstance(part, dict):
            found.extend(text for key, text in part.items() if key == "expr")
            for inner in part.values():
                look(inner)
        elif isinstance(part, list):
            for inner in part:
                look(inner)

    look(json.loads((EXAMPLES / "dashboard.json").read_text()))
    return found


def test_alerts_and_dashboard_use_metrics_that_exist() -> None:
    for expressions in (alert_expressions(), dashboard_expressions()):
        assert len(expressions) >= 10
        for expression in expressions:
            names = names_in(expression)
            assert names, expression
            assert names <= SERIES | OTHERS, expression
