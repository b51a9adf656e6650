"""The store as a reloader of an embedded gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import pytest
import trio
import trio.testing

from bridgepool import ProviderSnapshot, ReloadError, open_bridge_pool, watch_providers
from bridgepool.gateway.control._embedded import StoreProviders, open_store_providers
from bridgepool.gateway.control._records import ProviderPatch
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.providers import Clients, Provider
from bridgepool.testing import check_reloader
from tests.gateway.control.backups import back_up, restore
from tests.gateway.control.stores import ADA, draft, encryption, opened


async def lose_revision(store: Store) -> None:
    await store._database.write(lambda tx: tx.execute("DELETE FROM state"))


async def bring_back_revision(store: Store, revision: int) -> None:
    statement = "INSERT INTO state VALUES (1, ?, ?, ?, (SELECT MIN(id) FROM epochs), '')"
    await store._database.write(lambda tx: tx.execute(statement, revision, revision, revision))


@attrs.define(eq=False)
class Rig:
    """A store whose one provider moves with each change."""

    store: Store
    reloader: StoreProviders
    lost: int | None = None  # the revision, while the store is broken

    @property
    def changes(self) -> trio.abc.ReceiveChannel[None]:
        return self.reloader.changes

    async def change(self, number: int) -> None:
        if self.lost is not None:
            await bring_back_revision(self.store, self.lost)
            self.lost = None
        row = draft("openai", base_url=f"https://p{number}.example")
        await self.store.apply_providers(ADA, [row])

    async def break_source(self) -> None:
        if self.lost is None:
            self.lost = (await self.store.revisions()).revision
            await lose_revision(self.store)


def test_it_keeps_the_contract_of_a_reloader(database_url: str) -> None:
    @asynccontextmanager
    async def open_rig() -> AsyncIterator[Rig]:
        async with opened(database_url) as store:
            with open_store_providers(store) as source:
                rig = Rig(store, source)
                yield rig
                await rig.change(-1)

    check_reloader(open_rig, max_examples=5, make_clock=lambda: trio.testing.MockClock(rate=20))


async def test_clients_and_rejections_are_of_the_same_reading_as_the_snapshot(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        with open_store_providers(store) as source:
            assert (source.clients, source.rejected) == (Clients(), ())
            await store.add_provider(ADA, draft("one", "key-1"))
            key = (await store.add_client(ADA, "web")).key
            assert key is not None
            assert len(source.clients) == 0
            snapshot = await source.reload()
            assert snapshot.revision == 2
            assert [provider.name for provider in snapshot.providers] == ["one"]
            assert source.clients.authenticate(key.reveal().encode()) is not None
            await lose_revision(store)
            with pytest.raises(ReloadError, match="damaged"):
                await source.reload()
            assert len(source.clients) == 1


async def test_a_store_that_came_to_the_same_revision_by_other_changes_is_in_a_new_epoch(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        with open_store_providers(store) as source:
            backup = await back_up(store)
            await store.add_provider(ADA, draft("lost"))
            before = await source.reload()
            await restore(store, backup)
            change = await store.add_provider(ADA, draft("new"))
            assert change.revision == before.revision
            after = await source.reload()
            assert [provider.name for provider in after.providers] == ["new"]
            assert after.epoch != before.epoch


async def test_a_row_that_cannot_be_decrypted_is_rejected_and_its_last_form_stays(
    database_url: str,
) -> None:
    async with opened(database_url, encryption("one", "two")) as store:
        with open_store_providers(store) as source:
            await store.add_provider(ADA, draft("first", "key-1"))
            await source.reload()
            async with opened(database_url, encryption("two", "one")) as other:
                await other.add_provider(ADA, draft("second", "key-2"))
            async with opened(database_url, encryption("lost", "one")) as other:
                await other.update_provider(
                    ADA, "first", ProviderPatch(base_url="https://moved.example")
                )
            snapshot = await source.reload()
            [first, second] = snapshot.providers
            assert (first.name, str(first.base_url)) == ("first", "https://api.openai.example/v1")
            assert second.name == "second"
            [rejection] = source.rejected
            assert rejection.name == "first"
            assert f"encrypted with the key {encryption('lost').current}" in rejection.reason


async def test_what_did_not_change_is_not_made_again(database_url: str) -> None:
    async with opened(database_url) as store:
        await store.apply_providers(ADA, [draft(f"p{number}", "key") for number in range(200)])
        with open_store_providers(store) as source:
            first = (await source.reload()).providers
            await store.update_provider(ADA, "p7", ProviderPatch(enabled=False), allow_empty=True)
            second = (await source.reload()).providers
            made = [one.name for one, other in zip(first, second, strict=True) if one is not other]
            assert made == ["p7"]


async def test_a_pool_follows_a_store_that_another_process_would_change(
    database_url: str,
) -> None:
    @asynccontextmanager
    async def open_nothing(_key: str, _snapshot: object) -> AsyncIterator[None]:
        yield

    empty: ProviderSnapshot[Provider] = ProviderSnapshot(())
    async with opened(database_url) as store, opened(database_url) as elsewhere:
        with open_store_providers(store) as source:
            async with (
                open_bridge_pool(open_nothing, empty) as pool,
                trio.open_nursery() as nursery,
            ):
                await nursery.start(watch_providers, pool, source, source.changes)
                change = await elsewhere.add_provider(ADA, draft("one"))
                with trio.fail_after(60):
                    while pool.snapshot.revision != change.revision:
                        await trio.testing.wait_all_tasks_blocked(0.01)
                nursery.cancel_scope.cancel()
