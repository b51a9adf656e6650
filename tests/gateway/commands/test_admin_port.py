"""The admin ports of the real programs."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
from prometheus_client.parser import text_string_to_metric_families

from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.gateway.metrics._declarations import (
    CONTROL_PLANE_METRICS,
    GATEWAY_METRICS,
    Metric,
)
from bridgepool.http import UpstreamError, open_upstream_client
from tests.e2e.files import provider, write
from tests.e2e.process import GatewayProcess, run_gateway
from tests.gateway.commands.test_process import refused, stream
from tests.gateway.control.planes import DRAFT
from tests.gateway.control.test_process import Control, run_control
from tests.simulated import Gate

ADMIN = ("--admin-listen", "127.0.0.1:0")


async def admin_url(program: GatewayProcess) -> str:
    line = await program.stdout.wait_for(lambda text: text.startswith("admin port on "))
    found = re.fullmatch(r"admin port on (http://127\.0\.0\.1:\d+)", line)
    assert found is not None
    return found[1]


async def ask(url: str, path: str) -> tuple[int, Any]:
    async with (
        open_upstream_client(url) as client,
        client.request(b"GET", path.encode()) as response,
    ):
        body = b""
        while piece := await response.receive_some():
            body += piece
        return response.status, json.loads(body)


@asynccontextmanager
async def both_programs(
    north: SimulatedUpstream, tmp_path: Path
) -> AsyncIterator[tuple[Control, list[str]]]:
    """Run a gateway that has served a request, and a control plane; yield their admin URLs, too."""
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    async with (
        run_gateway(file, *ADMIN, "--read-usage") as gateway,
        run_control(tmp_path, str(tmp_path / "store.db"), *ADMIN) as control,
    ):
        urls = [await admin_url(gateway), await admin_url(control.run)]
        async with open_upstream_client(gateway.url) as client:
            body = json.dumps({"model": "m"}).encode()
            async with client.request(b"POST", b"/ai/v1/chat/completions", (), body) as response:
                assert response.status == 200
                await response.receive_some()
        await gateway.wait_request(status=200)
        yield control, urls


async def test_a_gateways_admin_port_is_served_until_the_last_stream_has_ended(
    north: SimulatedUpstream, tmp_path: Path, nursery: trio.Nursery
) -> None:
    file, gate = tmp_path / "providers.toml", Gate(north)
    write(
        file,
        provider("ai", "openai", north.openai_url),
        provider("off", "openai", north.openai_url, enabled=False),
    )
    said: list[bytes] = []
    broken: list[Exception] = []
    async with run_gateway(file, *ADMIN) as gateway:
        url = await admin_url(gateway)
        assert (await ask(url, "/healthz"))[0] == 200
        assert (await ask(url, "/readyz"))[1]["ready"] is True
        async with trio.open_nursery() as clients:
            clients.start_soon(stream, gateway, said, broken)
            await gate.reached.wait()
            status, document = await ask(url, "/status")
            assert status == 200
            assert (document["program"], document["ready"]["ready"]) == ("gateway", True)
            assert [(row["name"], row["state"]) for row in document["providers"]] == [
                ("ai", "usable"),
                ("off", "disabled"),
            ]
            assert document["providers"][0]["connections"]["in_use"] == 1
            assert document["pool"]["leased"] == 1
            assert document["reloads"]["failures"] == 0
            assert document["requests"]["running"] == 1
            [running] = document["requests"]["oldest"]
            assert (running["provider"], running["route"]) == ("ai", "/chat/completions")
            assert running["bytes"] > 0
            gateway.signal(signal.SIGTERM)
            await refused(gateway.address)
            assert (await ask(url, "/healthz"))[0] == 200
            status, document = await ask(url, "/readyz")
            assert (status, document["reason"]) == (503, "draining")
            assert (await ask(url, "/status"))[1]["requests"]["running"] == 1
            gate.opened.set()
        assert await gateway.wait() == 0
        await gateway.stdout.wait_end()
        with pytest.raises(UpstreamError):
            await ask(url, "/healthz")
    assert not broken


async def test_a_control_planes_admin_port_shows_its_store_and_the_gateways(
    tmp_path: Path,
) -> None:
    async with run_control(tmp_path, str(tmp_path / "store.db"), *ADMIN) as control:
        url = await admin_url(control.run)
        await control.ask("POST", "/api/v1/providers", DRAFT)
        async with control.gateway("front"):
            assert (await ask(url, "/healthz"))[0] == 200
            assert (await ask(url, "/readyz"))[1]["status"] == "ready"
            with trio.fail_after(60):
                while True:
                    document = (await ask(url, "/status"))[1]
                    if document["gateways"]:
                        break
                    await trio.sleep(0.01)
        assert document["program"] == "control plane"
        assert document["connected"] == 1
        assert document["revisions"]["revision"] >= 1
        assert [row["gateway"] for row in document["gateways"]] == ["first"]  # the name of its key


async def test_the_metrics_of_both_programs_are_clean(
    north: SimulatedUpstream, tmp_path: Path, nursery: trio.Nursery
) -> None:
    async with both_programs(north, tmp_path) as (control, urls):
        await control.ask("GET", "/api/v1/providers")
        async with control.gateway("front") as plane:
            await plane.providers.reload()  # there is a session now
            changed = await control.ask("POST", "/api/v1/providers", DRAFT)
            snapshot = await plane.providers.reload()
            plane.providers.acknowledge(changed["revision"], (), epoch=snapshot.epoch)
            path = f"/api/v1/revisions/{changed['revision']}/applied?wait=4"
            assert (await control.ask("GET", path))["complete"]
            for url, metrics in zip(urls, (GATEWAY_METRICS, CONTROL_PLANE_METRICS), strict=True):
                text = await raw(url, "/metrics")
                check(text, metrics)
        assert "bridgepool_rollout_seconds_count 1\n" in text
        assert 'bridgepool_gateways{state="connected"} 1\n' in text
        assert "bridgepool_gateways_behind 0\n" in text
        assert 'route="/api/v1/providers",status="2xx"} 1\n' in text


async def raw(url: str, path: str) -> str:
    async with (
        open_upstream_client(url) as client,
        client.request(b"GET", path.encode()) as response,
    ):
        assert dict(response.headers)[b"content-type"].startswith(b"text/plain; version=0.0.4")
        body = b""
        while piece := await response.receive_some():
            body += piece
        return body.decode()


def check(text: str, metrics: tuple[Metric, ...]) -> None:
    """Check the output with the parser of the client library; `make monitoring` has promtool."""
    found = {family.name for family in text_string_to_metric_families(text)}
    declared = {metric.name.removesuffix("_total") for metric in metrics}
    assert found <= declared
    missing = {
        name  # but for what no provider of the test asks for
        for name in declared - found
        if not re.search("_(breaker|retries|fallbacks|admission|usage|websockets)_?", name)
    }
    assert missing <= {
        "bridgepool_certificate_end_timestamp_seconds",
        "bridgepool_control_connected",
        "bridgepool_models_without_price",
        "bridgepool_refusals",
        "bridgepool_revision",
        "bridgepool_tokens",
        "bridgepool_seed_drift",
    }, missing
