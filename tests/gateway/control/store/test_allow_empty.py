"""The last enabled provider goes only if that is intended."""

from __future__ import annotations

import pytest

from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._records import ProviderPatch
from tests.gateway.control.stores import ADA, draft, opened

OFF = ProviderPatch(enabled=False)


async def test_the_last_enabled_provider_is_not_removed_or_disabled_by_accident(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        await store.add_provider(ADA, draft("one"))
        await store.add_provider(ADA, draft("off", enabled=False))
        with pytest.raises(InvalidChangeError, match="--allow-empty"):
            await store.update_provider(ADA, "one", OFF)
        with pytest.raises(InvalidChangeError, match="no enabled provider would be left"):
            await store.remove_provider(ADA, "one")
        assert (await store.revisions()).revision == 2
        await store.add_provider(ADA, draft("two"))
        await store.update_provider(ADA, "one", OFF)
        await store.update_provider(ADA, "one", OFF)
        await store.remove_provider(ADA, "one")
        await store.remove_provider(ADA, "off")
        assert not (await store.snapshot()).allow_empty
        await store.remove_provider(ADA, "two", allow_empty=True)
        assert (await store.snapshot()).allow_empty


async def test_no_list_that_is_applied_leaves_no_enabled_provider_by_accident(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        assert not (await store.apply_providers(ADA, [], prune=True)).changed
        await store.apply_providers(ADA, [draft("one"), draft("two", enabled=False)])
        for dry_run in (True, False):
            for drafts in ([], [draft("two", enabled=False)], [draft("one", enabled=False)]):
                with pytest.raises(InvalidChangeError, match="no enabled provider would be left"):
                    await store.apply_providers(ADA, drafts, prune=True, dry_run=dry_run)
        await store.apply_providers(ADA, [draft("three")], prune=True)
        emptied = await store.apply_providers(ADA, [], prune=True, allow_empty=True)
        assert [one.action for one in emptied.providers] == ["removed"]
        assert (await store.snapshot()).allow_empty


async def test_a_store_that_never_had_a_provider_does_not_say_that_this_is_intended(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        await store.add_client(ADA, "web")
        assert not (await store.snapshot()).allow_empty
