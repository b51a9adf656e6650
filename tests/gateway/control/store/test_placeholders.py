"""Placeholders are not written into a store; a row that has one from before loads still."""

from __future__ import annotations

import pytest

from bridgepool import Secret
from bridgepool.gateway._protocol import named, provider_table
from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._records import KeyValue, ProviderPatch
from bridgepool.gateway.control.store import _provider_rows as provider_rows
from bridgepool.gateway.control.store._provider_settings import Content, StoredKey
from tests.gateway.control.stores import ADA, draft, opened

KEY = "${OPENAI_API_KEY}"


async def test_a_placeholder_is_refused_by_every_write(database_url: str) -> None:
    async with opened(database_url) as store:
        await store.add_provider(ADA, draft("good", "sk-good"))
        for write in (
            store.add_provider(ADA, draft("ai", KEY)),
            store.add_provider(ADA, draft("ai", headers={"x-team": Secret("{env.TEAM}")})),
            store.update_provider(ADA, "good", ProviderPatch(keys=[KeyValue(Secret(KEY))])),
            store.apply_providers(ADA, [draft("ai", KEY)]),
        ):
            with pytest.raises(InvalidChangeError, match="has a placeholder") as caught:
                await write
            assert "OPENAI_API_KEY" not in str(caught.value)
        assert (await store.revisions()).revision == 1


async def test_a_stored_row_with_a_placeholder_loads_and_can_be_switched_and_mended(
    database_url: str,
) -> None:
    content = Content(
        name="old",
        type="openai",
        base_url="https://api.openai.example/v1",
        keys=(StoredKey("key_1", Secret(KEY)),),
    )
    async with opened(database_url) as store:
        await store.add_provider(ADA, draft("good", "sk-good"))
        await store._write(ADA, provider_rows.insert, content)
        snapshot = await store.snapshot()
        assert [row.name for row in snapshot.rows] == ["good", "old"]
        assert (await store.get_provider("old")).problem is None
        table = provider_table().updated(named(snapshot.rows))
        assert [one.name for one in table.providers if one.name == "good"], "others are served"
        [rejected] = table.rejected
        assert rejected.name == "old"
        assert rejected.reason.startswith("keys: has a placeholder")
        for enabled in (False, True):
            change = await store.update_provider(ADA, "old", ProviderPatch(enabled=enabled))
            assert change.provider.enabled is enabled
        with pytest.raises(InvalidChangeError, match="has a placeholder"):
            await store.update_provider(ADA, "old", ProviderPatch(base_url="https://b.example"))
        mended = ProviderPatch(keys=[KeyValue(Secret("sk-real"))])
        assert (await store.update_provider(ADA, "old", mended)).changed
        table = provider_table().updated(named((await store.snapshot()).rows))
        assert table.rejected == ()
