"""The audit: who, when, what, masked before and after; and nothing secret anywhere at rest."""

import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bridgepool import Secret
from bridgepool.gateway.control._records import Actor, KeyRef, KeyValue, ProviderPatch
from tests.gateway.control.stores import ADA, NEW_YEAR, Clock, draft, encryption, opened


async def test_each_change_is_noted_with_who_when_what_before_and_after(
    database_url: str,
) -> None:
    clock = Clock()
    async with opened(database_url, clock=clock) as store:
        added = await store.add_provider(ADA, draft("openai", "key-one"))
        clock.now += 60
        bob = Actor("admin", "bob")
        await store.update_provider(
            bob, "openai", ProviderPatch(name="main", enabled=False), allow_empty=True
        )
        await store.remove_provider(bob, "main", allow_empty=True)
        removed, updated, first = await store.audit()
    assert (first.id, updated.id, removed.id) == (1, 2, 3)
    assert (first.actor, updated.actor) == (ADA, bob)
    assert first.at == datetime.fromtimestamp(NEW_YEAR, UTC)
    assert [entry.action for entry in (first, updated, removed)] == [
        "provider.add",
        "provider.update",
        "provider.remove",
    ]
    assert {entry.row_id for entry in (first, updated, removed)} == {added.provider.id}
    assert (first.before, removed.after) == (None, None)
    assert first.after is not None
    [key] = added.provider.keys
    shown = {"id": key.id, "hint": "…", "fingerprint": key.fingerprint}
    assert first.after["keys"] == [shown]
    assert updated.before == first.after
    assert updated.after == {**first.after, "name": "main", "enabled": False}
    assert updated.fields == ("name", "enabled")
    assert (updated.name, updated.kind, updated.revision) == ("main", "provider", 2)
    assert removed.before == updated.after


async def test_a_changed_header_is_told_though_its_values_look_alike(database_url: str) -> None:
    async with opened(database_url) as store:
        await store.add_provider(ADA, draft(headers={"x-a": Secret("1")}))
        await store.update_provider(ADA, "openai", ProviderPatch(headers={"x-a": Secret("2")}))
        [updated, _added] = await store.audit()
    assert updated.before == updated.after
    assert updated.fields == ("headers",)


async def test_the_audit_is_read_page_by_page_and_by_name(database_url: str) -> None:
    async with opened(database_url) as store:
        for number in range(5):
            await store.add_provider(ADA, draft(f"p{number}"))
        first = await store.audit(limit=2)
        assert [entry.name for entry in first] == ["p4", "p3"]
        await store.add_provider(ADA, draft("later"))
        second = await store.audit(limit=2, before=first[-1].id)
        assert [entry.name for entry in second] == ["p2", "p1"]
        assert [entry.name for entry in await store.audit(before=second[-1].id)] == ["p0"]
        added = await store.get_provider("p3")
        await store.update_provider(ADA, "p3", ProviderPatch(name="renamed"))
        assert [entry.name for entry in await store.audit(name=added.id)] == ["renamed", "p3"]
        assert [entry.name for entry in await store.audit(name="p3")] == ["p3"]
        assert await store.audit(limit=-1) == ()


async def test_what_was_refused_leaves_no_row(database_url: str) -> None:
    async with opened(database_url) as store:
        await store.add_client(ADA, "web")
        with pytest.raises(Exception, match="taken"):
            await store.add_client(ADA, "web")
        assert len(await store.audit()) == 1


async def test_nothing_secret_is_in_the_audit_the_logs_or_the_bytes_of_the_database(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(0)
    path = tmp_path / "store.db"
    secrets = ["sk-first-key-of-the-provider", "sk-second", "header-secret", "hidden-host.example"]
    async with opened(str(path)) as store:
        added = await store.add_provider(
            ADA, draft("openai", secrets[0], headers={"x-a": Secret(secrets[2])})
        )
        patch = ProviderPatch(
            keys=[KeyValue(Secret(secrets[1])), KeyRef(added.provider.keys[0].id)],
            base_url=f"https://{secrets[3]}/v1",
        )
        await store.update_provider(ADA, "openai", patch)
        made = [
            (await store.add_client(ADA, "web")).key,
            (await store.add_client_key(ADA, "web")).key,
            (await store.create_gateway_key(ADA, "edge")).key,
            (await store.create_admin_key(ADA, "ops", "write")).key,
        ]
        # The hidden part: the id before it is public.
        secrets += [key.reveal().split("_", 2)[2] for key in made if key is not None]
        shown = repr((await store.audit(), await store.list_providers(), added, caplog.text))
        await store.remove_provider(ADA, "openai", allow_empty=True)
        found = [
            text
            for text in secrets
            if any(text.encode() in file.read_bytes() for file in path.parent.iterdir())
        ]
        assert found == []
        # A base URL is no secret to those who may ask.
        assert [text for text in secrets if text in shown] == ["hidden-host.example"]
    assert os.listdir(tmp_path)


async def test_an_audit_that_cannot_be_decrypted_still_tells_who_and_what(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        await store.add_provider(ADA, draft())
        [entry] = await store.audit()
        assert entry.problem is None
    async with opened(database_url, encryption("another")) as store:
        [entry] = await store.audit()
    assert (entry.actor, entry.action, entry.name) == (ADA, "provider.add", "openai")
    assert (entry.before, entry.after) == (None, None)
    assert entry.problem is not None
    assert "encrypted with the key" in entry.problem
