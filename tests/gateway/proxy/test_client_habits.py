"""What clients do beyond the APIs: probes, handshakes, slips of the base URL."""

from __future__ import annotations

import pytest
import trio

from bridgepool.gateway import GatewaySettings, Outcome
from bridgepool.gateway.providers import Client, hash_key, new_client_key
from tests.gateway.proxy.raw import connect, post
from tests.gateway.proxy.rig import anthropic, open_rig, openai, start_upstream


async def test_a_probe_at_the_start_is_answered_without_a_key_and_tells_nothing(
    nursery: trio.Nursery,
) -> None:
    """Claude Code asks `HEAD` of its base URL, or of /api/hello below it, without its key."""
    clients = (Client(id="ada", key_hashes=(hash_key(new_client_key()),)),)
    off = openai("http://127.0.0.1:9/v1", enabled=False)
    async with open_rig(off, nursery=nursery, clients=clients) as rig:
        answers = [
            await rig.ask(target, method=method)
            for target in ("/ai", "/ai/", "/none?x=1", "/ai/api/hello")
            for method in ("GET", "HEAD")
        ]
        assert {answer.status for answer in answers} == {200}
        assert all(b"x-request-id" in answer.headers for answer in answers)
        assert {answer.body for answer in answers} == {b'{"status": "listening"}\n', b""}
        for record, answer in zip(await rig.wait_records(8), answers, strict=True):
            assert record.bytes_sent == len(answer.body), "a HEAD has none"
            assert record.path in ("/*", "/*/", "/*/api/hello")
        others = [("/ai", "POST"), ("/ai/api/hello", "POST")]
        slips = ("/ai/v1", "/", "//", "/ai//", "/AI", "/?/ai", "/api/hello", "/ai/api/hello/x")
        others += [(target, "GET") for target in slips]
        for target, method in others:
            assert (await rig.ask(target, {}, method=method)).status == 401
    assert {record.outcome for record in rig.records[:8]} == {Outcome.COMPLETE}


@pytest.mark.parametrize(
    "target", ["/ai/v1/chat/completions", "/ai/v1/files?model=x", "/none/v1/x"]
)
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


async def test_a_client_that_retries_for_ever_is_stopped_and_one_that_slips_is_helped(
    nursery: trio.Nursery,
) -> None:
    off = openai("http://127.0.0.1:9/v1", "off", enabled=False)
    agent = ((b"user-agent", b"codex_exec/0.79.0"),)
    async with open_rig(off, openai("http://127.0.0.1:9/v1"), nursery=nursery) as rig:
        stopped = await rig.ask("/off/v1/responses", {}, agent)
        assert (stopped.status, stopped.code) == (400, "provider_disabled")
        assert stopped.json["error"]["type"] == "invalid_request_error"
        assert (await rig.ask("/off/v1/responses", {})).status == 503
        slipped = await rig.ask("/of/v1/responses", {})
        assert "The providers are: off, ai." in slipped.json["error"]["message"]
    settings = GatewaySettings(allow_anonymous=True, no_retry_status=409)
    async with open_rig(off, nursery=nursery, settings=settings) as rig:
        assert (await rig.ask("/off/v1/responses", {}, agent)).status == 409


@pytest.mark.parametrize(
    ("target", "text"),
    [
        (
            "/ai/chat/completions",
            "'/chat/completions' on this gateway. It has '/v1/chat/completions'",
        ),
        ("/ai/v1//chat/completions", "It has '/v1/chat/completions': correct the base URL."),
        ("/ai/v1/chat/completions/", "It has '/v1/chat/completions'"),
        ("/ai/v1/v1/responses", "It has '/v1/responses'"),
        ("/ai/api/v1/responses", "It has '/v1/responses'"),
        ("/claude/messages", "It has '/v1/messages'"),
        ("/claude/v1/v1/messages", "It has '/v1/messages'"),
        ("/claude/api/event_logging/batch", "no route POST '/api/event_logging/batch' on"),
        ("/claude/v1/skills", "no route POST '/v1/skills' on this gateway."),
        ("/ai/v1beta/models/generate", "'/v1beta/models/generate' on this gateway."),
        ("/ai/sk-live/v1/responses", "'/*/v1/responses' on this gateway. It has '/v1/responses'"),
        ("/ai/v1/" + "a" * 25, "'/v1/*' on this gateway."),
    ],
)
async def test_a_slip_of_the_base_url_is_named(
    nursery: trio.Nursery, target: str, text: str
) -> None:
    nowhere = "http://127.0.0.1:9/v1"
    async with open_rig(openai(nowhere), anthropic(nowhere), nursery=nursery) as rig:
        answer = await rig.ask(target, {})
        assert answer.code == "unknown_route"
        assert text in answer.json["error"]["message"]
