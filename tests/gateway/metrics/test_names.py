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
from bridgepool.gateway.proxy import _refusals
from bridgepool.gateway.proxy._upstream_failures import _OWN_REFUSALS
from tools.metric_tables import PAGE, with_tables

EXAMPLES = Path(__file__).parents[3] / "examples" / "monitoring"
METRICS = {metric.name: metric for metric in (*GATEWAY_METRICS, *CONTROL_PLANE_METRICS)}
SERIES = {
    name + suffix
    for name, metric in METRICS.items()
    for suffix in (("_bucket", "_sum", "_count") if metric.kind == "histogram" else ("",))
}
# name of a series -> its labels; `le`, `instance` and `job` come from Prometheus.
LABELS = {
    name + suffix: {*metric.labels, "le", "instance", "job"}
    for name, metric in METRICS.items()
    for suffix in ("", "_bucket", "_sum", "_count")
}
# They are for joins and for variables.
NEITHER = {"bridgepool_info", "bridgepool_provider_info", "bridgepool_generation"}
# Of Prometheus itself, not of the programs.
OTHERS = {"up"}


def names_in(expression: str) -> set[str]:
    """Return the names of series in a query."""
    without_text = re.sub(r'"[^"]*"|\{[^}]*\}|\b(?:by|without|on) ?\([^)]*\)', " ", expression)
    without_ranges = re.sub(r"\[[^\]]*\]|offset \w+", " ", without_text)
    words = set(re.findall(r"[a-z_][a-z0-9_]*", without_ranges))
    functions = set(re.findall(r"([a-z_][a-z0-9_]*) *\(", without_ranges))
    operators = {"by", "without", "on", "or", "and", "unless", "bool", "offset"}
    return words - functions - operators


def check_labels(expression: str) -> None:
    """Check that each series has the labels that a query selects it by, and those it groups by."""
    lists = re.findall(r"\b(?:by|without|on) ?\(([^)]*)\)", expression)
    grouped = {label.strip() for each in lists for label in each.split(",")}
    for name in names_in(expression) - OTHERS:
        assert grouped <= LABELS[name], expression
    for name, matchers in re.findall(r"([a-z_]+)\{([^}]*)\}", expression):
        selected = set(re.findall(r"([a-z_]+) *[=!]", matchers))
        assert selected <= LABELS.get(name, {"job", "instance"}), expression


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
            check_labels(expression)


def test_the_alert_on_upstreams_counts_the_refusals_that_mean_that_one_failed() -> None:
    known = {one.code for one in vars(_refusals).values() if isinstance(one, _refusals.Refusal)}
    failures = {code for code in known if code.startswith("upstream_")} - _OWN_REFUSALS.keys()
    [expression] = [
        text for text in alert_expressions() if "refusals_total" in text and "/" in text
    ]
    for pattern in re.findall(r'code=~"([^"]*)"', expression):
        assert {code for code in known if re.fullmatch(pattern, code)} == failures


def test_every_metric_has_an_alert_or_a_panel() -> None:
    used = set().union(*map(names_in, alert_expressions() + dashboard_expressions()))
    shown = {re.sub("_(?:bucket|sum|count)$", "", name) for name in used}
    assert METRICS.keys() - shown == NEITHER


def test_the_panels_of_the_dashboard_do_not_overlap() -> None:
    panels = json.loads((EXAMPLES / "dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    places = [panel["gridPos"] for panel in panels]
    for number, place in enumerate(places):
        above = places[number - 2] if number >= 2 else None
        assert (place["x"], place["w"]) == (number % 2 * 12, 12)
        assert place["y"] == (above["y"] + above["h"] if above is not None else 0)
