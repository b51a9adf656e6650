"""What a real Prometheus, as Debian packages it, makes of the metrics and of the alert rules."""

from __future__ import annotations

import json
import socket
import subprocess
import urllib.parse
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.http import UpstreamError
from tests.gateway.commands.test_admin_port import ask, both_programs, raw
from tests.gateway.control.planes import DRAFT

pytestmark = pytest.mark.monitoring
ALERTS = Path(__file__).parents[2] / "examples" / "monitoring" / "alerts.yml"
TIMEOUT = 120  # seconds; a busy machine is slow, and nothing here is about speed


async def test_promtool_finds_no_fault_and_prometheus_scrapes_both_programs(
    north: SimulatedUpstream, tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with both_programs(north, tmp_path) as (control, urls):
        await control.ask("POST", "/api/v1/providers", DRAFT)
        for url in urls:
            await promtool("check", "metrics", text=await raw(url, "/metrics"))
        async with run_prometheus(urls, tmp_path) as port:
            with trio.fail_after(TIMEOUT):
                await wait_rows(port, "up == 1", 2)
                await wait_rows(port, "bridgepool_info", 2)
                await wait_rows(port, "bridgepool_gateways", 3)
                [row] = await wait_rows(port, 'bridgepool_requests_total{outcome="complete"}', 1)
                assert row["metric"]["route"] == "/chat/completions"
                assert row["value"][1] == "1"


async def test_promtool_accepts_the_alert_rules_and_the_configuration() -> None:
    await promtool("check", "rules", str(ALERTS))
    await promtool("check", "config", str(ALERTS.with_name("prometheus.yml")))


REQUESTS = 'bridgepool_requests_total{instance="i",provider="ai",outcome="%s",status="%s"}'
REFUSALS = 'bridgepool_refusals_total{instance="i",provider="ai",code="%s"}'
EVERY = "0+6x30"  # six more each minute, for half an hour
DISABLED = {REQUESTS % ("refused", "5xx"): EVERY, REFUSALS % "provider_disabled": EVERY}
OVERLOADED = {REQUESTS % ("refused", "5xx"): EVERY, REFUSALS % "provider_overloaded": EVERY}
REFUSED = {REQUESTS % ("refused", "4xx"): "0+600x30", REFUSALS % "rate_limited": "0+600x30"}
NO_BUDGET = {REFUSALS % "budget_exceeded": EVERY}
UNREACHABLE = {REQUESTS % ("refused", "5xx"): EVERY, REFUSALS % "upstream_unreachable": EVERY}
ANSWERED = {REQUESTS % ("complete", "2xx"): EVERY}
BROKEN = {REQUESTS % ("complete", "5xx"): EVERY}
BUDGETS = 'bridgepool_client_budgets{instance="i",rule="money_per_day",state="%s"}'
SPENT = {BUDGETS % "spent": "1x30", BUDGETS % "nearly_spent": "0x30"}
NEARLY = {BUDGETS % "spent": "0x30", BUDGETS % "nearly_spent": "2x30"}
BUG = {REQUESTS % ("failed", "5xx"): "_x15 1x15"}
FIRING = 'alertstate="firing"'
FAILING, BUGS = "BridgepoolUpstreamFailing", "BridgepoolInternalErrors"


async def test_alerts_fire_for_what_they_are_about_and_for_nothing_else(tmp_path: Path) -> None:
    cases = [
        (DISABLED, FAILING, 0),
        (ANSWERED | DISABLED, FAILING, 0),
        (OVERLOADED, FAILING, 0),
        (ANSWERED, FAILING, 0),
        (UNREACHABLE, FAILING, 1),
        (ANSWERED | UNREACHABLE, FAILING, 1),
        (REFUSED | BROKEN, FAILING, 1),
        (ANSWERED | BROKEN, FAILING, 1),
        (BUG, FAILING, 0),
        (BUG, BUGS, 1),
        (ANSWERED | BROKEN | DISABLED, BUGS, 0),
        (SPENT, "BridgepoolBudgetsSpent", 1),  # no refusal is needed
        (NO_BUDGET, "BridgepoolBudgetsSpent", 1),
        (NEARLY, "BridgepoolBudgetsSpent", 0),
        (NEARLY, "BridgepoolBudgetsNearlySpent", 1),
        (SPENT, "BridgepoolBudgetsNearlySpent", 0),
    ]
    document = {
        "rule_files": [str(ALERTS)],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": to} for name, to in series.items()],
                "promql_expr_test": [
                    {
                        "expr": f'count(ALERTS{{alertname="{alert}",{FIRING}}}) or vector(0)',
                        "eval_time": "20m",
                        "exp_samples": [{"labels": "{}", "value": count}],
                    }
                ],
            }
            for series, alert, count in cases
        ],
    }
    path = tmp_path / "tests.yml"
    path.write_text(json.dumps(document))  # which is YAML, too
    await promtool("test", "rules", str(path))


async def promtool(*arguments: str, text: str = "") -> None:
    with trio.fail_after(TIMEOUT):
        done = await trio.run_process(
            ["promtool", *arguments],
            stdin=text.encode(),
            capture_stdout=True,
            capture_stderr=True,
            check=False,
        )
    output = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, output
    assert not text or not output  # it only warns of what a linter of metrics dislikes


@asynccontextmanager
async def run_prometheus(urls: list[str], folder: Path) -> AsyncIterator[int]:
    """Run a Prometheus that scrapes these admin ports; yield its port."""
    targets = ", ".join(f'"{url.partition("://")[2]}"' for url in urls)
    config = folder / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s, scrape_timeout: 1s}\n"
        f"scrape_configs: [{{job_name: bridgepool, static_configs: [{{targets: [{targets}]}}]}}]\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        "prometheus",
        f"--config.file={config}",
        f"--storage.tsdb.path={folder / 'tsdb'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--log.level=error",
    ]
    process = await trio.lowlevel.open_process(command, stdin=subprocess.DEVNULL)
    try:
        yield port
        assert process.poll() is None, "Prometheus ended"
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


async def wait_rows(port: int, query: str, count: int) -> list[Any]:
    """Wait until a query has so many rows; Prometheus has nothing that tells of them."""
    while len(rows := await query_prometheus(port, query)) != count:  # noqa: ASYNC110 -- polls
        await trio.sleep(0.2)
    return rows


async def query_prometheus(port: int, query: str) -> list[Any]:
    target = "/api/v1/query?" + urllib.parse.urlencode({"query": query})
    try:
        _, document = await ask(f"http://127.0.0.1:{port}", target)
    except (UpstreamError, ValueError):
        return []  # it does not listen yet, or is not ready
    return list(document.get("data", {}).get("result", []))
