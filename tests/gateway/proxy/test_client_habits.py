"""What clients do beyond the APIs: probes, handshakes, slips of the base URL."""

from __future__ import annotations

import pytest
import trio

from bridgepool.gateway import Outcome
from bridgepool.gateway.providers import Client, hash_key, new_client_key
from tests.gateway.proxy.raw import connect, post
from tests.gateway.proxy.rig import open_rig, openai, start_upstream


async def test_a_bare_name_is_answered_without_a_key_and_tells_nothing(
    nursery: trio.Nursery,
) -> None:
    """Claude Code asks `HEAD` of its base URL at each start, without its key."""
    clients = (Client(id="ada", key_hashes=(hash_key(new_client_key()),)),)
    off = openai("http://127.0.0.1:9/v1", enabled=False)
    async with open_rig(off, nursery=nursery, clients=clients) as rig:
        answers = [
            await rig.ask(target, method=method)
            for target in ("/ai", "/ai/", "/none?x=1")
            for method in ("GET", "HEAD")
        ]
        assert {answer.status for answer in answers} == {200}
        assert all(b"x-request-id" in answer.headers for answer in answers)
        assert {answer.body for answer in answers} == {b'{"status": "listening"}\n', b""}
        for target, method in (("/ai", "POST"), ("/ai/v1", "GET"), ("/", "GET")):
            assert (await rig.ask(target, {}, method=method)).status == 401
    assert {record.outcome for record in rig.records[:6]} == {Outcome.COMPLETE}


@pytest.mark.parametrize("target", ["/ai/v1/responses", "/ai/v1/realtime?model=x", "/none/v1/x"])
async def test_a_websocket_handshake_that_is_not_relayed_is_answered_426(
    nursery: trio.Nursery, target: str
) -> None:
    """Clients take it for "use HTTP at once"; after 404 they try for seconds."""
    north = await start_upstream(nursery)
    async with open_rig(openai(north), nursery=nursery) as rig, connect(rig.address) as client:
        head = f"GET {target} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\n"
        await client.send(head.encode() + b"Upgrade: websocket\r\n\r\n")
        answer = (await client.read_until(b'"code"')).lower()
        assert answer.startswith(b"http/1.1 426")
        assert b"\r\nconnection: upgrade\r\n" in answer
        assert b"\r\nupgrade: http/1.1\r\n" in answer
        assert b"websocket_not_supported" in answer
        await client.send(post("/ai/v1/chat/completions"))
        assert b"200 OK" in await client.read_until(b"200 OK"), "the connection stays"
    assert len(north.received) == 1
