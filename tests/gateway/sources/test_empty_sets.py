"""An empty set of providers wipes no routing unless it is intended, whatever the source."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from bridgepool import MemoryReloader, ProviderSnapshot
from bridgepool.gateway import Gateway, GatewaySettings, open_control_plane, open_gateway
from bridgepool.gateway.control import MemoryBackend, open_gateway_service, open_store_providers
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.serving._listening import StartError
from bridgepool.gateway.sources._moments import Moment
from bridgepool.gateway.sources._snapshot_file import SnapshotFile
from bridgepool.gateway.sources._source import open_file_source
from bridgepool.gateway.sources._store_source import open_store_source
from bridgepool.remote import Identity
from tests.gateway.control.stores import ADA, draft, opened
from tests.gateway.proxy.rig import openai
from tests.gateway.test_protocol import row
from tests.waiting import wait_until

SETTINGS = GatewaySettings(allow_anonymous=True, min_reload_interval=0.001)
AI = openai("http://127.0.0.1:9/v1")


def readiness(gateway: Gateway) -> dict[str, Any]:
    return gateway._readiness.document(gateway.pool.generation, gateway.pool.snapshot.revision)


async def until_reload_failed(gateway: Gateway) -> str:
    status = gateway.reload_status
    await wait_until(lambda: status.failures_in_a_row)
    assert status.last_error is not None
    return status.last_error


async def until_providers(gateway: Gateway, count: int) -> None:
    await wait_until(lambda: len(gateway.pool.snapshot.providers) == count)


@asynccontextmanager
async def followed(source: MemoryReloader[Provider]) -> AsyncIterator[Gateway]:
    async with open_gateway(source, source.subscribe(), settings=SETTINGS) as gateway:
        await until_providers(gateway, len(source.snapshot.providers))
        yield gateway


async def test_an_empty_set_that_is_not_intended_replaces_nothing_and_is_reported() -> None:
    source = MemoryReloader(ProviderSnapshot([AI], 1))
    async with followed(source) as gateway:
        source.replace(ProviderSnapshot((), 2))
        assert "does not state that this is intended" in await until_reload_failed(gateway)
        found = readiness(gateway)
        assert (found["ready"], found["providers"], found["revision"]) == (True, 1, 1)
        assert found["failed_reloads"] > 0
        source.replace(ProviderSnapshot((), 3, allow_empty=True))
        await until_providers(gateway, 0)
        found = readiness(gateway)
        assert (found["ready"], found["providers"], found["failed_reloads"]) == (True, 0, 0)


async def test_a_gateway_that_never_had_a_provider_is_not_ready() -> None:
    source = MemoryReloader(ProviderSnapshot[Provider](()))
    async with followed(source) as gateway:
        await wait_until(lambda: gateway.reload_status.last_success is not None)
        assert readiness(gateway)["reason"] == "no providers"
        source.replace(ProviderSnapshot([AI]))
        await until_providers(gateway, 1)
        assert gateway.why_not_ready() is None


async def test_a_gateway_with_only_providers_that_cannot_be_used_is_not_ready(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("BRIDGEPOOL_TEST_NOT_SET", raising=False)
    keyless = openai("http://127.0.0.1:9/v1", "keyless", key_env="BRIDGEPOOL_TEST_NOT_SET")
    off = openai("http://127.0.0.1:9/v1", "off", enabled=False)
    source = MemoryReloader(ProviderSnapshot([keyless, off]))
    async with followed(source) as gateway:
        found = readiness(gateway)
        assert (found["reason"], found["unusable"]) == ("no provider can be used", 1)
        source.replace(ProviderSnapshot([keyless, off, AI]))
        await until_providers(gateway, 3)
        found = readiness(gateway)
        assert (found["ready"], found["providers"], found["unusable"]) == (True, 3, 1)
        source.replace(ProviderSnapshot([off]))
        await until_providers(gateway, 1)
        assert gateway.why_not_ready() is None, "to disable all of them is a decision"


async def test_a_file_that_is_emptied_damaged_or_deleted_changes_nothing_and_is_reported(
    tmp_path: Path,
) -> None:
    path = tmp_path / "providers.toml"
    good = (
        '[[providers]]\nname = "ai"\ntype = "openai"\nbase_url = "https://a.example"\nkeys = []\n'
    )
    path.write_text(good)
    path.with_suffix(".kept").hardlink_to(path)  # no later file gets its inode
    async with (
        open_file_source(path, allow_anonymous=True) as source,
        open_gateway(
            source.reloader,
            source.changes,
            first=source.first,
            settings=SETTINGS,
            report=source.report,
        ) as gateway,
    ):

        def put(text: str) -> None:  # renamed into its place, a file counts at once
            draft = path.with_suffix(".new")
            draft.write_text(text)
            os.utime(draft, (1, 1))  # else both times can fall into one tick of the clock
            draft.replace(path)

        for damage in ("", "[[clients]]\n", "[[providers]]\nname = 1\n", None):
            failures = gateway.reload_status.failures
            path.unlink() if damage is None else put(damage)
            with trio.fail_after(60):
                while gateway.reload_status.failures == failures:  # noqa: ASYNC110
                    await trio.sleep(0.005)
            found = readiness(gateway)
            assert (found["ready"], found["providers"]) == (True, 1)
            assert found["failed_reloads"] > 0
        put("providers = []\n")
        await until_providers(gateway, 0)
        assert readiness(gateway)["ready"] is True


@asynccontextmanager
async def from_store(store: Store) -> AsyncIterator[Gateway]:
    with open_store_providers(store) as source:
        async with open_gateway(source, source.changes, settings=SETTINGS) as gateway:
            yield gateway


@asynccontextmanager
async def _following(connect: Any) -> AsyncIterator[Gateway]:
    def identified() -> Any:
        return connect(Identity("front", "any"))

    async with (
        open_control_plane(identified, name="front") as plane,
        open_gateway(plane.providers, plane.providers.changes, settings=SETTINGS) as gateway,
    ):
        yield gateway


async def test_a_new_store_makes_no_gateway_ready_and_an_emptied_one_must_be_intended(
    tmp_path: Path,
) -> None:
    async with opened(str(tmp_path / "store.db")) as store, from_store(store) as gateway:
        await wait_until(lambda: gateway.reload_status.last_success is not None)
        assert gateway.why_not_ready() == "no providers"
        await store.add_provider(ADA, draft("ai"))
        await until_providers(gateway, 1)
        await store.remove_provider(ADA, "ai", allow_empty=True)
        await until_providers(gateway, 0)
        assert gateway.why_not_ready() is None


async def test_no_advice_leads_a_gateway_to_an_empty_store(tmp_path: Path) -> None:
    with pytest.raises(StartError) as caught:
        async with open_store_source(str(tmp_path / "mistyped.db"), None):
            pass
    assert "mistyped.db; check the name" in str(caught.value)
    assert "new" not in str(caught.value)
    assert not os.listdir(tmp_path)


async def test_a_control_plane_passes_on_whether_an_empty_set_is_intended() -> None:
    class Backend(MemoryBackend):
        def is_live(self, key_id: str) -> bool:
            return True

    backend = Backend()
    backend.set_rows([row(1)])
    async with open_gateway_service(backend) as service, _following(service.connect) as gateway:
        await until_providers(gateway, 1)
        backend.set_rows([])
        assert "does not state" in await until_reload_failed(gateway)
        assert gateway.why_not_ready() is None
        backend.set_rows([], allow_empty=True)
        await until_providers(gateway, 0)
        assert gateway.why_not_ready() is None
        backend.set_rows([row(1, type="of-a-newer-version")])
        await wait_until(lambda: gateway.pool.snapshot.revision == backend.revisions.revision)
        assert gateway.why_not_ready() == "no provider can be used"


async def test_a_snapshot_file_keeps_whether_an_empty_set_was_intended(tmp_path: Path) -> None:
    for allow_empty in (True, False):
        file = SnapshotFile(tmp_path / "snapshot")
        empty = ProviderSnapshot[Provider]((), 7, allow_empty=allow_empty)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(file.run)
            file.keep(empty, Moment.now())
            await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()
        loaded = await SnapshotFile(tmp_path / "snapshot").load()
        assert loaded is not None
        assert loaded.snapshot.allow_empty is allow_empty
        source = MemoryReloader(loaded.snapshot)
        async with open_gateway(
            source, source.subscribe(), first=loaded.snapshot, settings=SETTINGS
        ) as gateway:
            assert (gateway.why_not_ready() is None) is allow_empty
