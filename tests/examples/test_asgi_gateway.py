from __future__ import annotations

import re
from pathlib import Path

import trio

from bridgepool.gateway.demo._upstream import WORDS
from tests.examples.support import ask, running, streaming
from tests.examples.test_gateway_server import CHAT, Held, start_upstream

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
    north, south = await start_upstream(nursery, "north"), await start_upstream(nursery, "south")
    held = Held(north)
    providers = tmp_path / "providers.toml"
    providers.write_text(PROVIDER.format(url=north.openai_url))
    hypercorn = ("-m", "hypercorn", "--worker-class", "trio", "--bind", "127.0.0.1:0")
    async with running(*hypercorn, "asgi_gateway:app", env={"PROVIDERS": str(providers)}) as server:
        line = await server.output.wait_for(lambda line: "Running on" in line)
        found = re.search(r"http://127\.0\.0\.1:[0-9]+", line)
        assert found is not None
        url = found[0]
        assert await ask(url, "/") == b"200\nThe application's own page.\n"
        assert (await ask(url, "/ai/readyz")).startswith(b"200\n")

        async with streaming(url, "/ai/ai/v1/chat/completions", CHAT) as stream:
            answer = await stream.receive_some()
            providers.write_text(PROVIDER.format(url=south.openai_url))
            with trio.fail_after(20):
                while b"@south" not in await ask(url, "/ai/ai/v1/models"):
                    pass
            held.go_on.set()
            while piece := await stream.receive_some():
                answer += piece
        assert answer.count(b"@north") == len(WORDS) + 1
        assert answer.endswith(b"data: [DONE]\n\n")
        assert await server.end() == 0
