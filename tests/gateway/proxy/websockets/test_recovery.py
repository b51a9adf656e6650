"""Handshakes of websockets pass breakers, limits of running requests, retries and fallbacks."""

from __future__ import annotations

from typing import Any

import attrs
import pytest
import trio
from wsproto.events import AcceptConnection, CloseConnection, RejectConnection

from bridgepool.gateway import GatewaySettings
from bridgepool.gateway.proxy import _attempts
from tests.gateway.proxy.rig import Rig, open_rig, openai
from tests.gateway.proxy.websockets.peers import connect_socket, echo, start_upstream

OPEN = GatewaySettings(allow_anonymous=True, min_reload_interval=0.001)


async def handshake(rig: Rig, target: str = "/ai/v1/responses") -> int:
    """Open a websocket and close it; return the status."""
    async with connect_socket(rig.address, target) as (socket, answer):
        if isinstance(answer, RejectConnection):
            return answer.status_code
        await socket.send(CloseConnection(1000))
        await socket.receive_close()
        return 101


@pytest.mark.parametrize("status", [0, 502, 503, 504, 529])
async def test_handshakes_that_fail_open_the_breaker(nursery: trio.Nursery, status: int) -> None:
    north = await start_upstream(nursery, echo, refuse=status)
    url = north.url
    if not status:  # nobody listens
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        url = f"http://127.0.0.1:{listener.socket.getsockname()[1]}/v1"
        await listener.aclose()
    provider = openai(url, breaker=True, breaker_failures=2)
    async with open_rig(provider, nursery=nursery) as rig:
        for _ in range(2):
            assert await handshake(rig) == (status or 502)
        assert await handshake(rig) == 503
        assert rig.records[-1].code == "circuit_open"
        assert (await rig.ask("/ai/v1/chat/completions", {})).code == "circuit_open"


async def test_an_upstream_without_websockets_does_not_open_the_breaker(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery, echo, refuse=404)
    provider = openai(north.url, breaker=True, breaker_failures=1)
    async with open_rig(provider, nursery=nursery) as rig:
        for _ in range(3):
            assert await handshake(rig) == 426


@pytest.mark.parametrize(
    ("fields", "settings", "code"),
    [
        ({"max_concurrent": 1}, OPEN, "provider_overloaded"),
        ({}, attrs.evolve(OPEN, max_concurrent=1, max_waiting=0), "gateway_overloaded"),
    ],
)
async def test_an_open_websocket_is_a_running_request(
    nursery: trio.Nursery, fields: dict[str, Any], settings: GatewaySettings, code: str
) -> None:
    north = await start_upstream(nursery, echo)
    provider = openai(north.url, max_waiting=0, **fields)
    async with open_rig(provider, nursery=nursery, settings=settings) as rig:
        async with connect_socket(rig.address) as (socket, answer):
            assert isinstance(answer, AcceptConnection)
            assert await handshake(rig) == 503
            assert (await rig.ask("/ai/v1/chat/completions", {})).code == code
            await socket.send(CloseConnection(1000))
            await socket.receive_close()
        await rig.wait_records(3)
        assert [record.code for record in rig.records] == [code, code, ""]
        assert await handshake(rig) == 101


async def test_a_handshake_is_retried_and_falls_back_as_any_request(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_attempts, "_FIRST_DELAY", 0.001)
    north = await start_upstream(nursery, echo, refuse=503)
    south = await start_upstream(nursery, echo)
    ai = openai(north.url, retries=2, retry_on=["503"], fallback=["other"])
    async with open_rig(ai, openai(south.url, "other"), nursery=nursery) as rig:
        async with connect_socket(rig.address) as (socket, answer):
            assert isinstance(answer, AcceptConnection)
            assert (b"x-bridgepool-fallback", b"other") in answer.extra_headers
            await socket.send_text("hello")
            assert await socket.receive() == "hello"
            await socket.send(CloseConnection(1000))
            await socket.receive_close()
        [record] = await rig.wait_records(1)
    assert (record.provider, record.fallback_from, record.attempts) == ("other", "ai", 4)
    assert len(north.requests) == 3
