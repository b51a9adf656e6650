"""The examples that follow a store and a control plane."""

from __future__ import annotations

import re
import signal
from pathlib import Path

import trio

from bridgepool import Secret
from bridgepool.gateway.control._encryption import find_encryption_keys
from bridgepool.gateway.control._records import Actor, KeyValue, ProviderDraft, ProviderPatch
from bridgepool.gateway.control.store import open_store
from tests.e2e.asking import ask, wait_model
from tests.e2e.plane import make_plane, row
from tests.examples.support import ROOT, running
from tests.gateway.proxy.rig import start_upstream

ME = Actor("program", "test")


async def test_an_embedded_gateway_follows_its_store(nursery: trio.Nursery, tmp_path: Path) -> None:
    north, south = await start_upstream(nursery, "north"), await start_upstream(nursery, "south")
    path = str(tmp_path / "bridgepool.db")
    keys = await trio.to_thread.run_sync(find_encryption_keys, path)
    async with open_store(path, keys) as store:
        await store.add_provider(
            ME,
            ProviderDraft(
                name="ai",
                type="openai",
                base_url=north.openai_url,
                keys=(KeyValue(Secret("sk-central")),),
                allow_private=True,
            ),
        )
        async with running("embedded_gateway.py", path, "0") as program:
            url = "http://127.0.0.1:" + await program.said("listening on port ")
            assert (await ask(url, "nobody's")).status == 401
            added = await store.add_client(ME, "ada")
            assert added.key is not None
            key = added.key.reveal()
            await wait_model(url, key, "m@north")
            await store.update_provider(ME, "ai", ProviderPatch(base_url=south.openai_url))
            await wait_model(url, key, "m@south")
            assert await program.end(signal.SIGINT) == 0


async def test_a_pool_follows_a_control_plane_and_acknowledges(
    nursery: trio.Nursery, tmp_path: Path
) -> None:
    north, south = await start_upstream(nursery, "north"), await start_upstream(nursery, "south")
    plane = await make_plane(tmp_path / "plane")
    plane.backend.set_rows([row(north)])
    url = f"ws://127.0.0.1:{plane.port}"
    async with plane.up(), running("follow_control_plane.py", url, str(plane.key_file)) as program:
        assert await program.said("serving ") == f"ai at {north.openai_url}"
        await plane.wait_receipt(plane.backend.revisions.revision)
        revision = plane.backend.set_rows([row(south), row(north, "bad", base_url="nowhere")])
        receipt = await plane.wait_receipt(revision)
        assert [one.name for one in receipt.rejected] == ["bad"]
        await program.output.wait_for(lambda line: line == f"serving ai at {south.openai_url}")
        assert await program.end(signal.SIGINT) == 0


def test_the_snippets_of_the_page_run() -> None:
    page = (ROOT / "docs" / "howto" / "embedded.md").read_text(encoding="utf-8")
    snippets = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(snippet, {})


def test_the_page_shows_both() -> None:
    page = (ROOT / "docs" / "howto" / "embedded.md").read_text(encoding="utf-8")
    assert "examples/embedded_gateway.py" in page
    assert "examples/follow_control_plane.py" in page
