from __future__ import annotations

import re
import signal
from pathlib import Path

import trio

from bridgepool.gateway.demo._upstream import WORDS
from tests.e2e.talking import start_talking_upstream
from tests.examples.support import Example, ask, running, streaming
from tests.examples.test_gateway_server import CHAT
from tests.gateway.proxy.websockets.peers import connect_socket
from tests.simulated import Gate

RESPONSES = "/ai/ai/v1/responses"
CREATE = '{"type": "response.create", "model": "m", "input": "Hello."}'


async def url_of(server: Example) -> str:
    line = await server.output.wait_for(lambda line: "Running on" in line)
    found = re.search(r"http://127\.0\.0\.1:[0-9]+", line)
    assert found is not None
    return found[0]


PROVIDER = """
[[providers]]
name = "ai"
type = "openai"
base_url = "{url}"
keys = ["sk-central"]
allow_private = true
"""


async def test_a_gateway_inside_an_application_follows_its_file_while_it_streams(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    north = await start_talking_upstream(nursery, "north")
    south = await start_talking_upstream(nursery, "south")
    gate = Gate(north.plain, at=1)
    providers = tmp_path / "providers.toml"
    providers.write_text(PROVIDER.format(url=north.openai_url))
    hypercorn = ("-m", "hypercorn", "--worker-class", "trio", "--bind", "127.0.0.1:0",
                 "--graceful-timeout", "1")  # fmt: skip
    async with running(*hypercorn, "asgi_gateway:app", env={"PROVIDERS": str(providers)}) as server:
        url = await url_of(server)
        assert await ask(url, "/") == b"200\nThe application's own page.\n"
        assert (await ask(url, "/ai/readyz")).startswith(b"200\n")

        async with streaming(url, "/ai/ai/v1/chat/completions", CHAT) as stream:
            answer = await stream.receive_some()
            providers.write_text(PROVIDER.format(url=south.openai_url))
            with trio.fail_after(60):
                while b"@south" not in await ask(url, "/ai/ai/v1/models"):
                    pass
            gate.opened.set()
            while piece := await stream.receive_some():
                answer += piece
        assert answer.count(b"@north") == len(WORDS) + 1
        assert answer.endswith(b"data: [DONE]\n\n")
        # Without a call, hypercorn ends its websockets when its time is over.
        async with connect_socket(url.removeprefix("http://"), RESPONSES) as (socket, _):
            server.process.send_signal(signal.SIGTERM)
            assert await socket.receive_close() == (1001, "shutting_down")
        with trio.fail_after(30):
            assert await server.process.wait() == 0


async def test_an_application_that_says_when_it_stops_closes_its_websockets_between_responses(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    """And so does not wait for idle ones."""
    go_on = trio.Event()
    north = await start_talking_upstream(nursery, "north")
    north.before_words = go_on.wait
    providers = tmp_path / "providers.toml"
    providers.write_text(PROVIDER.format(url=north.openai_url))
    env = {"PROVIDERS": str(providers), "BIND": "127.0.0.1:0"}
    async with running("asgi_server.py", env=env) as server:
        address = (await url_of(server)).removeprefix("http://")
        async with (
            connect_socket(address, RESPONSES) as (idle, _),
            connect_socket(address, RESPONSES) as (busy, _),
        ):
            await busy.send_text(CREATE)
            assert "response.created" in str(await busy.receive())
            server.process.send_signal(signal.SIGTERM)
            assert await idle.receive_close() == (1012, "shutting_down")
            go_on.set()
            while "response.completed" not in str(await busy.receive()):
                pass
            assert await busy.receive_close() == (1012, "shutting_down")
        with trio.fail_after(30):  # its own time is 60 s
            assert await server.process.wait() == 0
