"""The code of docs/howto/embed-gateway.md does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import trio

from bridgepool import MemoryReloader, ProviderSnapshot
from bridgepool.gateway.providers import ErrorDetails
from bridgepool.http import open_upstream_client
from tests.e2e.files import provider, write
from tests.gateway.proxy.rig import openai, start_upstream

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "embed-gateway.md"


def code() -> dict[str, Any]:
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL):
        exec(block, names)
    return names


async def test_the_program_of_the_page_serves_and_follows_a_replacement(
    nursery: trio.Nursery,
) -> None:
    north, south = await start_upstream(nursery), await start_upstream(nursery, "south")
    source = MemoryReloader(ProviderSnapshot([openai(north)]))
    port = await nursery.start(code()["serve"], source)
    async with open_upstream_client(f"http://127.0.0.1:{port}") as client:

        async def ask() -> bytes:
            request = client.request(b"POST", b"/ai/v1/chat/completions", (), b'{"model": "m"}')
            async with request as response:
                return await response.receive_some()

        assert b"m@north" in await ask()
        source.replace(ProviderSnapshot([openai(south)]))
        with trio.fail_after(60):
            while b"m@south" not in await ask():
                pass
    nursery.cancel_scope.cancel()


async def test_the_page_serves_a_file_as_well(nursery: trio.Nursery, tmp_path: Path) -> None:
    north = await start_upstream(nursery)
    write(tmp_path / "providers.toml", provider("ai", "openai", north.openai_url))
    names = code()
    served = trio.Event()

    async def serve_http(*_: object) -> None:
        served.set()
        await trio.lowlevel.checkpoint()

    names["serve_http"] = serve_http  # its port is fixed, and may be taken here

    async def open_tcp_listeners(*_: object, **__: object) -> list[object]:
        await trio.lowlevel.checkpoint()
        return []

    names["trio"] = type("Trio", (), {"open_tcp_listeners": staticmethod(open_tcp_listeners)})
    await names["serve_file"](str(tmp_path / "providers.toml"))
    assert served.is_set()


def test_the_provider_type_of_the_page_has_its_routes_and_its_error_form() -> None:
    names = code()
    own = names["TYPES"][-1]
    assert own.match(b"POST", b"/v2/query").path == b"/query"
    assert own.match(b"DELETE", b"/v2/indexes") is None
    error = ErrorDetails(503, "upstream_busy", "Try again.", "r-1")
    assert own.errors.document(error) == {
        "fault": {"reason": "upstream_busy", "text": "Try again."}
    }
