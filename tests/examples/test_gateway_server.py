from __future__ import annotations

import json
import signal

import trio

from bridgepool.gateway.demo._upstream import WORDS
from tests.examples.support import ask, running, streaming
from tests.gateway.proxy.rig import start_upstream
from tests.simulated import Gate

CHAT = b'{"model": "m", "stream": true}'


async def counts(operator: str) -> dict[str, int]:
    status, _, body = (await ask(operator, "/statistics")).partition(b"\n")
    assert status == b"200"
    found: dict[str, int] = json.loads(body)
    return found


async def wait_generation(operator: str, number: int) -> None:
    with trio.fail_after(60):
        while (await counts(operator))["generation"] < number:
            pass


async def test_a_stream_goes_on_while_the_operator_moves_its_provider(
    nursery: trio.Nursery,
) -> None:
    north, south = await start_upstream(nursery, "north"), await start_upstream(nursery, "south")
    gate = Gate(north, at=1)
    arguments = ("--port", "0", "--admin-port", "0", f"ai={north.openai_url}")
    async with running("gateway_server.py", *arguments) as gateway:
        operator, clients = await gateway.said("operator: "), await gateway.said("clients: ")
        async with streaming(clients, "/ai/chat/completions", CHAT) as stream:
            answer = await stream.receive_some()
            url = south.openai_url.encode()
            assert await ask(operator, "/providers/ai", url, "PUT") == b"202\naccepted\n"
            await wait_generation(operator, 2)
            assert b"@south" in await ask(clients, "/ai/chat/completions", CHAT)
            running_now = await counts(operator)
            gate.opened.set()
            while piece := await stream.receive_some():
                answer += piece
        assert running_now["requests running"] == running_now["bridges draining"] == 1
        assert answer.count(b"@north") == len(WORDS) + 1
        assert answer.endswith(b"data: [DONE]\n\n")

        assert (await ask(operator, "/providers/ai", b"nowhere", "PUT")).startswith(b"400\n")
        assert await ask(operator, "/providers/ai", b"", "DELETE") == b"202\naccepted\n"
        await wait_generation(operator, 3)
        assert await ask(clients, "/ai/models") == b"404\nno such provider\n"
        assert (await ask(operator, "/providers/ai", b"", "DELETE")).startswith(b"404\n")
        assert (await counts(operator))["closed under a request"] == 0
        assert await gateway.end() == 0


async def test_it_lets_a_stream_finish_when_it_is_told_to_end(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery, "north")
    gate = Gate(north, at=1)
    arguments = ("--port", "0", "--admin-port", "0", f"ai={north.openai_url}")
    async with running("gateway_server.py", *arguments) as gateway:
        clients = await gateway.said("clients: ")
        async with streaming(clients, "/ai/chat/completions", CHAT) as stream:
            answer = await stream.receive_some()
            gateway.process.send_signal(signal.SIGTERM)
            gate.opened.set()
            while piece := await stream.receive_some():
                answer += piece
        assert answer.endswith(b"data: [DONE]\n\n")
        with trio.fail_after(60):
            assert await gateway.process.wait() == 0


async def test_an_upstream_that_is_not_there_is_a_502() -> None:
    arguments = ("--port", "0", "--admin-port", "0", "ai=http://127.0.0.1:1")
    async with running("gateway_server.py", *arguments) as gateway:
        clients = await gateway.said("clients: ")
        assert (await ask(clients, "/ai/models")).startswith(b"502\n")
        assert await gateway.end() == 0
