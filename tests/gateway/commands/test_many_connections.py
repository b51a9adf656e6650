"""More connections than a program accepts: health is answered, the others are refused in order."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import trio

from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.http import open_upstream_client
from tests.e2e.files import provider, write
from tests.e2e.process import run_gateway
from tests.gateway.control.test_process import follow, run_control

LIMIT = 20


async def get(url: str, target: str) -> tuple[int, bytes]:
    """Make one request on a connection of its own."""
    async with (
        open_upstream_client(url) as client,
        client.request(b"GET", target.encode()) as response,
    ):
        body = b""
        while piece := await response.receive_some():
            body += piece
        return response.status, body


@asynccontextmanager
async def idle_connections(url: str) -> AsyncIterator[None]:
    """As many as the program accepts, each after a request."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    async with AsyncExitStack() as stack:
        for _ in range(LIMIT):
            stream = await trio.open_tcp_stream(parts.hostname, parts.port)
            await stack.enter_async_context(stream)
            await stream.send_all(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await stream.receive_some()).startswith(b"HTTP/1.1 200")
        yield


async def test_a_full_gateway_answers_health_checks_and_refuses_others_in_their_form(
    north: SimulatedUpstream, tmp_path: Path
) -> None:
    file = tmp_path / "providers.toml"
    write(file, provider("ai", "openai", north.openai_url))
    async with (
        run_gateway(file, "--max-connections", str(LIMIT)) as gateway,
        idle_connections(gateway.url),
    ):
        for path in ("/healthz", "/readyz"):
            assert (await get(gateway.url, path))[0] == 200
        status, body = await get(gateway.url, "/ai/v1/models")
        assert (status, json.loads(body)["error"]["code"]) == (503, "too_many_connections")
        await gateway.wait_event("connections over the limit refused", limit=LIMIT)
        await gateway.wait_request(code="too_many_connections", status=503)


async def test_a_full_api_answers_health_checks_and_gateways_still_connect(tmp_path: Path) -> None:
    store = str(tmp_path / "store.db")
    async with (
        run_control(tmp_path, store, "--max-connections", str(LIMIT)) as control,
        idle_connections(control.api),
        control.gateway() as remote,
    ):
        for path in ("/healthz", "/readyz"):
            assert (await get(control.api, path))[0] == 200
        status, body = await get(control.api, "/openapi.json")
        assert (status, json.loads(body)["error"]["code"]) == (503, "too_many_connections")
        with trio.fail_after(60):
            await remote.providers.changes.receive()


async def test_open_files_bound_both_ports_of_a_control_plane(tmp_path: Path) -> None:
    """Idle connections took all its files: neither health nor a change was possible any more."""
    store = str(tmp_path / "store.db")
    async with (
        run_control(tmp_path, store, open_files=600) as control,
        control.gateway() as remote,
        AsyncExitStack() as stack,
    ):
        # It has raised its own limit: a quarter of it would be enough for 18.
        await control.run.wait_event("open-file limit too low", open_files=600, accepted=75)
        admin = await stack.enter_async_context(open_upstream_client(control.api))
        key = ((b"authorization", b"Bearer " + control.admin_key.encode()),)

        async def write(target: bytes, body: bytes) -> int:
            headers = (*key, (b"content-type", b"application/json"))
            async with admin.request(b"POST", target, headers, body) as response:
                answer = b""
                while piece := await response.receive_some():
                    answer += piece
            assert response.status == 201
            return int(json.loads(answer)["revision"])

        await follow(remote, await write(b"/api/v1/clients", b'{"id": "ada"}'))
        for url in (control.api, control.rpc):
            parts = urlsplit(url)
            assert parts.hostname is not None
            assert parts.port is not None
            for _ in range(150):
                stream = await trio.open_tcp_stream(parts.hostname, parts.port)
                await stack.enter_async_context(stream)
        for path in ("/healthz", "/readyz"):
            assert (await get(control.api, path))[0] == 200
        await follow(remote, await write(b"/api/v1/clients", b'{"id": "bob"}'))
        assert "cannot be accepted" not in control.run.everything
