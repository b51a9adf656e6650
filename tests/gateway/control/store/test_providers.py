"""Providers in the store: the rules, the revision, what is shown of them."""

import attrs
import pytest
import trio

from bridgepool import Secret
from bridgepool.gateway.control._embedded import open_store_providers
from bridgepool.gateway.control._errors import (
    ConflictError,
    InvalidChangeError,
    NameTakenError,
    NotFoundError,
)
from bridgepool.gateway.control._records import KeyRef, KeyValue, ProviderPatch
from bridgepool.gateway.control.store import Store
from tests.gateway.control.stores import ADA, Clock, draft, opened

LONG = "sk-a-long-key-of-the-provider-0123"


async def names(store: Store) -> list[str]:
    return [row.name for row in await store.list_providers()]


async def test_what_is_added_is_listed_in_that_order_and_found_by_name_and_id(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        assert await store.list_providers() == ()
        zulu = await store.add_provider(ADA, draft("zulu"))
        alpha = await store.add_provider(ADA, draft("alpha"))
        assert (zulu.revision, alpha.revision) == (1, 2)
        assert zulu.changed
        assert await names(store) == ["zulu", "alpha"]
        assert await store.get_provider("alpha") == alpha.provider
        assert await store.get_provider(alpha.provider.id) == alpha.provider
        with pytest.raises(NotFoundError):
            await store.get_provider("bravo")


async def test_all_is_there_again_after_the_store_was_closed(database_url: str) -> None:
    async with opened(database_url) as store:
        added = await store.add_provider(
            ADA, draft("openai", LONG, headers={"OpenAI-Organization": Secret("org-1")})
        )
        before = await store.snapshot()
    async with opened(database_url) as store:
        assert await store.get_provider("openai") == added.provider
        after = await store.snapshot()
    assert after == before
    assert after.rows[0].keys == (Secret(LONG),)
    assert after.rows[0].headers == (("openai-organization", Secret("org-1")),)


async def test_a_view_shows_the_end_of_a_long_key_and_nothing_of_other_secrets(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        change = await store.add_provider(
            ADA, draft("openai", LONG, "short-key", headers={"x-team": Secret("team-secret")})
        )
    view = change.provider
    assert [key.hint for key in view.keys] == ["…0123", "…"]
    assert view.headers == {"x-team": "***"}
    assert "short-key" not in repr(change)
    assert "team-secret" not in repr(change)


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"name": "Open AI"}, "name: "),
        ({"name": ""}, "name: "),
        ({"type": "gopher"}, "type: "),
        ({"base_url": "/v1"}, "base_url: "),
        ({"base_url": "ftp://example.com"}, "base_url: "),
        ({"base_url": "http://127.0.0.1"}, "allow_private"),
        ({"keys": tuple(KeyValue(Secret(f"key-{n}")) for n in range(4))}, "more than 3 keys"),
        ({"keys": (KeyValue(Secret("same")), KeyValue(Secret("same")))}, "twice"),
        ({"keys": (KeyRef("key_of_nobody"),)}, "has no key with that id"),
        ({"keys": (KeyValue(Secret("k")),), "key_env": "KEY"}, "key_env: "),
        ({"headers": {"authorization": Secret("k")}}, "headers: "),
        ({"headers": {"x-team": None}}, "headers: keeps"),
    ],
)
async def test_a_draft_that_breaks_a_rule_is_refused_and_leaves_no_trace(
    database_url: str, wrong: dict[str, object], problem: str
) -> None:
    async with opened(database_url, max_keys=3) as store:
        with pytest.raises(InvalidChangeError, match=problem):
            await store.add_provider(ADA, attrs.evolve(draft(), **wrong))  # type: ignore[arg-type]  # any
        assert await store.list_providers() == ()
        assert (await store.revisions()).revision == 0
        assert await store.audit() == ()


async def test_a_name_is_unique_among_the_living_and_free_again_afterwards(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        first = await store.add_provider(ADA, draft("openai"))
        with pytest.raises(NameTakenError):
            await store.add_provider(ADA, draft("openai"))
        removed = await store.remove_provider(ADA, "openai", allow_empty=True)
        assert removed.provider == first.provider
        assert await names(store) == []
        with pytest.raises(NotFoundError):
            await store.remove_provider(ADA, "openai", allow_empty=True)
        second = await store.add_provider(ADA, draft("openai"))
        assert second.provider.id != first.provider.id
        assert second.revision == 3


async def test_of_what_was_removed_no_secret_is_kept(database_url: str) -> None:
    async with opened(database_url) as store:
        await store.add_provider(ADA, draft("openai", LONG))
        await store.remove_provider(ADA, "openai", allow_empty=True)
        rows = await store._database.read(lambda tx: tx.fetch_all("SELECT sealed FROM providers"))
        assert rows == [(None,)]


async def test_keys_are_kept_added_dropped_and_put_in_order_by_id(database_url: str) -> None:
    async with opened(database_url) as store:
        added = await store.add_provider(ADA, draft("openai", "key-a", "key-b", "key-c"))
        a, b, _c = added.provider.keys
        patch = ProviderPatch(keys=(KeyRef(b.id), KeyValue(Secret("key-d")), KeyRef(a.id)))
        changed = await store.update_provider(ADA, "openai", patch)
        assert changed.changed
        assert [key.id for key in changed.provider.keys][::2] == [b.id, a.id]
        row = (await store.snapshot()).rows[0]
        assert [key.reveal() for key in row.keys] == ["key-b", "key-d", "key-a"]


async def test_a_key_given_by_a_value_that_is_stored_keeps_its_id(database_url: str) -> None:
    async with opened(database_url) as store:
        added = await store.add_provider(ADA, draft("openai", "key-a"))
        patch = ProviderPatch(keys=(KeyValue(Secret("key-a")),))
        same = await store.update_provider(ADA, "openai", patch)
        assert not same.changed
        assert same.provider == added.provider


@pytest.mark.parametrize(
    "patch",
    [
        ProviderPatch(),
        ProviderPatch(enabled=True),
        ProviderPatch(base_url="HTTPS://api.openai.example:443/v1/"),
        ProviderPatch(headers={"B": Secret("2"), "a": None}),
    ],
)
async def test_an_update_that_changes_nothing_says_so_and_leaves_no_trace(
    database_url: str, patch: ProviderPatch
) -> None:
    async with opened(database_url) as store:
        headers = {"a": Secret("1"), "b": Secret("2")}
        added = await store.add_provider(ADA, draft("openai", headers=headers))
        same = await store.update_provider(ADA, "openai", patch)
        assert (same.changed, same.revision, same.provider) == (False, 1, added.provider)
        assert (await store.revisions()).revision == 1
        assert len(await store.audit()) == 1


async def test_a_rename_keeps_the_id_and_frees_the_old_name(database_url: str) -> None:
    async with opened(database_url) as store:
        added = await store.add_provider(ADA, draft("openai"))
        await store.add_provider(ADA, draft("other"))
        with pytest.raises(NameTakenError):
            await store.update_provider(ADA, "openai", ProviderPatch(name="other"))
        renamed = await store.update_provider(ADA, "openai", ProviderPatch(name="primary"))
        assert renamed.provider.id == added.provider.id
        assert await names(store) == ["primary", "other"]
        await store.add_provider(ADA, draft("openai"))


async def test_a_change_meant_for_an_older_row_is_refused(database_url: str) -> None:
    async with opened(database_url) as store:
        added = await store.add_provider(ADA, draft("openai"))
        seen = added.provider.revision
        off = ProviderPatch(enabled=False)
        changed = await store.update_provider(
            ADA, "openai", off, if_revision=seen, allow_empty=True
        )
        with pytest.raises(ConflictError, match=f"the revision {seen} ") as caught:
            await store.update_provider(
                ADA, "openai", ProviderPatch(enabled=True), if_revision=seen
            )
        assert caught.value.actual == changed.revision
        with pytest.raises(ConflictError):
            await store.remove_provider(ADA, "openai", if_revision=seen, allow_empty=True)
        await store.remove_provider(ADA, "openai", if_revision=changed.revision, allow_empty=True)


async def test_every_change_moves_the_revision_by_one_and_gives_notice(database_url: str) -> None:
    async with opened(database_url) as store:
        with store.subscribe() as changes:
            await store.add_provider(ADA, draft("openai"))
            with trio.fail_after(60):
                await changes.receive()
            await store.add_client(ADA, "web")
            with trio.fail_after(60):
                await changes.receive()
            await store.update_provider(
                ADA, "openai", ProviderPatch(enabled=False), allow_empty=True
            )
            with trio.fail_after(60):
                await changes.receive()
        revisions = await store.revisions()
        assert (revisions.revision, revisions.providers, revisions.clients) == (3, 3, 2)


async def test_a_clock_that_is_set_back_changes_no_order(database_url: str) -> None:
    clock = Clock()
    async with opened(database_url, clock=clock) as store:
        for name in ("one", "two", "three"):
            await store.add_provider(ADA, draft(name))
            clock.now -= 86_400
        changed = await store.update_provider(
            ADA, "one", ProviderPatch(enabled=False), allow_empty=True
        )
        assert changed.provider.updated < changed.provider.created
        assert await names(store) == ["one", "two", "three"]
        assert [entry.revision for entry in await store.audit()] == [4, 3, 2, 1]


async def test_writers_of_several_processes_get_one_revision_each_and_a_name_once(
    database_url: str,
) -> None:
    revisions: list[int] = []
    refused: list[str] = []

    async def add(store: Store, name: str) -> None:
        try:
            revisions.append((await store.add_provider(ADA, draft(name))).revision)
        except NameTakenError as error:
            refused.append(error.name)

    async with opened(database_url) as one, opened(database_url) as other:
        async with trio.open_nursery() as nursery:
            for store in (one, other):
                for number in range(10):
                    nursery.start_soon(add, store, f"p{number}")
        assert sorted(revisions) == list(range(1, 11))
        assert sorted(refused) == sorted(f"p{number}" for number in range(10))
        assert sorted(await names(one)) == sorted(refused)
        assert [entry.id for entry in await other.audit()] == list(range(10, 0, -1))


async def test_a_provider_has_as_many_keys_as_the_store_was_told(database_url: str) -> None:
    many = [f"sk-{number}" for number in range(64)]
    async with opened(database_url) as store:
        with pytest.raises(InvalidChangeError, match="more than 5 keys"):
            await store.add_provider(ADA, draft("many", *many[:6]))
    async with opened(database_url, max_keys=64) as store:
        await store.add_provider(ADA, draft("many", *many))
        [row] = (await store.snapshot()).rows
        with open_store_providers(store) as providers:
            [provider] = (await providers.reload()).providers
        assert provider.keys == row.keys == tuple(Secret(key) for key in many)
    # One that was told less leaves what is there, and takes no more.
    async with opened(database_url) as store:
        assert (await store.snapshot()).rows == (row,)
    with pytest.raises(ValueError, match="1 to 64"):
        async with opened(database_url, max_keys=65):
            pass
