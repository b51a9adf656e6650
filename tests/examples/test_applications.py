"""A pool in applications of web frameworks on Trio, and in programs on asyncio."""

from __future__ import annotations

import json
import re

import pytest
import trio

from tests.examples.support import ask, output_of, running

FRAMEWORKS = ["fastapi", "starlette", "quart"]


@pytest.mark.parametrize("framework", FRAMEWORKS)
async def test_an_application_holds_a_pool_while_it_serves(framework: str) -> None:
    command = ("-m", "hypercorn", "--worker-class", "trio", "--bind", "127.0.0.1:0")
    env = {"PYTHONWARNINGS": "default"}  # what the frameworks warn about is theirs
    async with running(*command, f"{framework}_pool:app", env=env) as server:
        line = await server.output.wait_for(lambda line: "Running on" in line)
        found = re.search(r"http://127\.0\.0\.1:[0-9]+", line)
        assert found is not None
        url = found[0]
        assert await ask(url, "/ask/ada") == b"200\nada\nby\nnorth\n"
        south = b"south"
        assert await ask(url, "/providers", south, "PUT") == b"200\napplied"
        assert await ask(url, "/providers", south, "PUT") == b"200\nunchanged"
        assert await ask(url, "/ask/ada") == b"200\nada\nby\nsouth\n"
        status, _, body = (await ask(url, "/statistics")).partition(b"\n")
        counts = json.loads(body)
        assert (status, counts["generation"], counts["misses"]) == (b"200", 2, 2)
        with trio.fail_after(60):
            while json.loads((await ask(url, "/statistics")).partition(b"\n")[2])["leased"]:
                pass
        assert await server.end() == 0


@pytest.mark.parametrize("way", ["thread", "guest"])
async def test_a_program_on_asyncio_uses_a_pool(way: str) -> None:
    said = await trio.to_thread.run_sync(output_of, "asyncio_pool.py", way)
    *lines, cost = said.splitlines()
    assert lines == ["ada by north", "ada by south", "cancelled"]
    assert re.fullmatch(r"\d+ us a call", cost)
