"""A gateway process with a store of its own, changed by another process: this one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import trio

from bridgepool import Secret
from bridgepool.gateway.control._encryption import find_encryption_keys
from bridgepool.gateway.control._records import Actor, KeyValue, ProviderDraft, ProviderPatch
from bridgepool.gateway.control.store import Store, open_store
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from tests.e2e.asking import ask, ready, wait_model
from tests.e2e.process import run_gateway_of

ME = Actor("program", "test")


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Store]:
    keys = await trio.to_thread.run_sync(find_encryption_keys, str(path))
    async with open_store(str(path), keys) as store:
        yield store


def draft(upstream: SimulatedUpstream, name: str = "ai") -> ProviderDraft:
    return ProviderDraft(
        name=name,
        type="openai",
        base_url=upstream.openai_url,
        keys=(KeyValue(Secret("sk-5ecre7-central")),),
        allow_private=True,
    )


async def test_a_store_is_served_and_followed(
    north: SimulatedUpstream, south: SimulatedUpstream, tmp_path: Path
) -> None:
    path = tmp_path / "bridgepool.db"
    async with opened(path) as store:
        await store.add_provider(ME, draft(north))
        added = await store.add_client(ME, "ada")
        assert added.key is not None
        key = added.key.reveal()
        async with run_gateway_of("--store", str(path)) as gateway:
            assert (await ask(gateway.url, key)).model == "m@north"
            assert (await ask(gateway.url, "wrong")).status == 401
            answer = await ready(gateway.url)
            assert answer.document["source"] == "store"
            assert answer.document["revision"] == added.revision
            await store.update_provider(ME, "ai", ProviderPatch(base_url=south.openai_url))
            await wait_model(gateway.url, key, "m@south")
            await store.remove_client(ME, "ada")
            with trio.fail_after(60):
                while (await ask(gateway.url, key)).status != 401:  # noqa: ASYNC110
                    await trio.sleep(0.01)
            await gateway.stop()
    assert "5ecre7" not in gateway.everything
    assert key not in gateway.everything
