"""The hub on a store that went back: it is served in a new epoch."""

from __future__ import annotations

from pathlib import Path

import attrs
import pytest

from bridgepool import Secret
from bridgepool.gateway.control._errors import StoreUnavailableError
from bridgepool.gateway.control._hub import open_hub
from bridgepool.gateway.control._revisions import Revisions
from tests.gateway.control.backups import back_up, restore
from tests.gateway.control.planes import wait_epoch, wait_revision
from tests.gateway.control.stores import ADA, draft, encryption, opened


async def test_a_store_that_goes_back_under_a_hub_is_served_in_a_new_epoch(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(database_url) as store:
        await store.add_provider(ADA, draft("openai", "sk-one"))
        backup = await back_up(store)
        async with open_hub(store) as hub, open_hub(store) as other:
            change = await store.remove_provider(ADA, "openai", allow_empty=True)
            for each in (hub, other):
                await wait_revision(each, change.revision)
            before = hub.revisions
            await restore(store, backup)
            for each in (hub, other):
                await wait_epoch(each, before.epoch)
            assert hub.revisions == other.revisions
            assert [row.name for row in (await hub.reload()).providers] == ["openai"]
            assert hub.status().read_problem is None
            (entry, _) = await store.audit()
            assert (entry.action, entry.actor.kind) == ("store.restored", "program")
            assert entry.before == {"epoch": before.epoch}
            said = [one for one in caplog.records if "store went back" in one.getMessage()]
            assert len(said) == 1  # the other found it done


async def test_a_backup_under_a_dropped_encryption_key_shows_though_no_change_was_lost(
    database_url: str,
) -> None:
    """Between the backup and its return nothing was changed: only encrypted with another key."""
    async with opened(database_url, encryption("old")) as store:
        await store.add_provider(ADA, draft("openai", "sk-one"))
        backup = await back_up(store)
    async with opened(database_url, encryption("new", "old")) as store:
        await store.rotate_encryption(ADA)
    async with opened(database_url, encryption("new")) as store, open_hub(store) as hub:
        before = hub.revisions.epoch
        assert hub.status().unreadable == 0
        await restore(store, backup)
        await wait_epoch(hub, before)
        assert (hub.status().unreadable, hub.status().read_problem) == (1, None)
        (entry, *_) = await store.audit()
        assert (entry.action, entry.problem is None) == ("store.restored", False)


async def test_a_store_that_came_to_the_same_revision_by_other_changes_shows(
    database_url: str,
) -> None:
    async with opened(database_url) as store, open_hub(store) as hub:
        backup = await back_up(store)
        lost = await store.add_provider(ADA, draft("openai", "sk-lost"))
        await wait_revision(hub, lost.revision)
        before = hub.revisions
        async with hub._turn:  # it reads nothing between the two
            await restore(store, backup)
            change = await store.add_provider(ADA, draft("openai", "sk-new"))
        assert change.revision == lost.revision
        await wait_epoch(hub, before.epoch)
        [row] = (await hub.reload()).providers
        assert row.keys == (Secret("sk-new"),)


async def test_an_epoch_that_somebody_renewed_is_followed(database_url: str) -> None:
    async with (
        opened(database_url) as store,
        opened(database_url) as other,
        open_hub(store) as hub,
    ):
        before = hub.revisions.epoch
        renewed = await other.renew_epoch(ADA)
        await wait_epoch(hub, before)
        assert (hub.revisions.epoch, hub.revisions.revision) == (renewed.epoch, renewed.revision)
        assert hub.revisions == await store.revisions()
        assert len(await store.audit()) == 1


@pytest.mark.parametrize(
    ("seen", "renews"),
    [
        ("same", False),
        ("a later revision", True),
        ("a later clients revision", True),
        ("an epoch that was lost", True),
        ("an epoch that has passed", False),
        ("no epoch", False),
    ],
)
async def test_what_a_gateway_has_seen_shows_to_a_new_hub_that_the_store_went_back(
    database_url: str, seen: str, renews: bool
) -> None:
    async with opened(database_url) as store:
        past = await store.revisions()
        await store.renew_epoch(ADA)
        change = await store.add_client(ADA, "alice")
        backup = await back_up(store)
        lost = await store.renew_epoch(ADA)
        await restore(store, backup)
        present = await store.revisions()
        what = {
            "same": present,
            "a later revision": attrs.evolve(present, revision=change.revision + 1),
            "a later clients revision": attrs.evolve(present, clients=change.revision + 1),
            "an epoch that was lost": attrs.evolve(present, epoch=lost.epoch),
            "an epoch that has passed": attrs.evolve(past, revision=99),
            "no epoch": Revisions(99, 99, 99),
        }[seen]
        async with open_hub(store) as hub:
            for _ in range(2):  # all its gateways have seen the same
                reached = await hub.catch_up(what)
            assert reached == hub.revisions == await store.revisions()
            assert (reached.epoch != present.epoch) == renews
            assert sum(entry.action == "store.restored" for entry in await store.audit()) == (
                1 + renews
            )


async def test_a_gateway_that_pretends_causes_few_epochs(tmp_path: Path) -> None:
    async with opened(str(tmp_path / "store.db")) as store, open_hub(store) as hub:
        for number in range(10):
            await hub.catch_up(Revisions(0, 0, 0, f"made up {number}"))
        for number in range(10, 20):
            with pytest.raises(StoreUnavailableError):
                await hub.catch_up(Revisions(0, 0, 0, f"made up {number}"))
        assert len(await store.audit(limit=1000)) == 10
