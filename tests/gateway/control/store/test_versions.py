"""Rows and seeds that an older or a newer version wrote."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bridgepool import Secret
from bridgepool.gateway.control._records import ProviderPatch
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.control.store._provider_settings import (
    Content,
    StoredKey,
    from_sealed,
    to_sealed,
)
from bridgepool.gateway.control.store._transaction import StoreTransaction
from bridgepool.gateway.providers import parse_provider_file
from bridgepool.gateway.providers._fields import PLAIN_FIELDS
from tests.gateway.control.stores import ADA, draft, opened

COLUMNS = {"name": "one", "type": "openai", "enabled": True}
FULL = Content(
    **COLUMNS,  # type: ignore[arg-type]  # a test's short cut
    base_url="https://one.example/v1",
    keys=(StoredKey("key_1", Secret("sk-1")),),
    headers=(("x-team", Secret("team")),),
    client_keys=False,
)
SEED = """
[[providers]]
name = "one"
type = "openai"
base_url = "https://one.example/v1"
keys = ["key-one"]
"""


async def rewrite(store: Store, table: str, **fields: object) -> None:
    """Change the encrypted document of the one row of a table; None takes a field away."""

    def change(tx: StoreTransaction) -> None:
        [(row_id, sealed)] = tx.sql.fetch_all(f"SELECT id, sealed FROM {table}")
        document = json.loads(tx.unseal(sealed, None)) | fields
        document = {name: value for name, value in document.items() if value is not None}
        tx.sql.execute(
            f"UPDATE {table} SET sealed = ?, sealed_by = ? WHERE id = ?",
            *tx.seal(json.dumps(document)),
            row_id,
        )
        tx.move_revision(providers=True)

    await store._write(ADA, change)


async def document_of(store: Store) -> dict[str, Any]:
    """Return the encrypted document of the one provider."""

    def read(tx: StoreTransaction) -> dict[str, Any]:
        [(sealed,)] = tx.sql.fetch_all("SELECT sealed FROM providers")
        document: dict[str, Any] = json.loads(tx.unseal(sealed, None))
        return document

    return await store._read(read)


def test_a_document_is_read_as_it_was_written() -> None:
    assert from_sealed(to_sealed(FULL), COLUMNS) == FULL


@pytest.mark.parametrize("name", sorted(PLAIN_FIELDS.keys() - COLUMNS))
def test_a_document_from_before_a_field_is_read_with_its_default(name: str) -> None:
    document = json.loads(to_sealed(FULL))
    del document[name]
    read = from_sealed(json.dumps(document), COLUMNS)
    assert getattr(read, name) == PLAIN_FIELDS[name].default
    assert (read.base_url, read.keys, read.headers) == (FULL.base_url, FULL.keys, FULL.headers)


def test_the_document_of_the_first_version_is_read() -> None:
    text = (
        '{"base_url": "https://one.example/v1", "keys": [["key_1", "sk-1"]], "key_env": null, '
        '"client_keys": false, "headers": [["x-team", "team"]], "allow_private": false}'
    )
    assert from_sealed(text, COLUMNS) == FULL


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "{}", '{"base_url": 1}'),
        '{"base_url": "https://a", "keys": [["sk-secret"]]}',
        '{"base_url": "https://a", "keys": [["key_1", {"sk-secret": 1}]]}',
    ],
)
def test_a_document_that_no_version_wrote_is_refused_without_its_values(text: str) -> None:
    with pytest.raises(ValueError, match="it is not what this version wrote") as caught:
        from_sealed(text, COLUMNS)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


def test_a_migration_changes_documents_of_before_and_no_others() -> None:
    def rename(document: dict[str, Any]) -> dict[str, Any]:
        return {**document, "base_url": document.pop("url")}

    old = json.dumps({"url": "https://one.example/v1"})
    read = from_sealed(old, COLUMNS, (rename,))
    assert read.base_url == "https://one.example/v1"
    assert from_sealed(to_sealed(read, (rename,)), COLUMNS, (rename,)) == read


async def test_a_field_of_a_newer_version_is_kept_through_a_change(database_url: str) -> None:
    async with opened(database_url) as store:
        await store.add_provider(ADA, draft("one", "key-one"))
        await rewrite(store, "providers", of_the_future={"a": [1]})
        [view] = await store.list_providers()
        assert view.problem is None
        assert [key.id for key in view.keys]
        await store.update_provider(ADA, "one", ProviderPatch(base_url="https://two.example/v1"))
        document = await document_of(store)
        snapshot = await store.snapshot()
    assert snapshot.rows[0].unknown == {"of_the_future": {"a": [1]}}
    assert document["of_the_future"] == {"a": [1]}
    assert document["base_url"] == "https://two.example/v1"


async def test_a_row_whose_meaning_a_newer_version_changed_is_named_and_not_used(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        await store.add_provider(ADA, draft("one", "key-one"))
        await rewrite(store, "providers", version=1)
        [view] = await store.list_providers()
        snapshot = await store.snapshot()
    assert view.problem == "it was written by a newer version of bridgepool"
    assert [(one.name, one.reason) for one in snapshot.unreadable] == [("one", view.problem)]


async def test_a_seed_of_an_older_version_that_nobody_edited_is_no_drift(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        await store.seed(parse_provider_file(SEED))
        await rewrite(store, "seeds", key_env=None, allow_private=None, client_keys=None)
        before = await store.revisions()
        same = await store.seed(parse_provider_file(SEED))
        assert not same.drift
        assert await store.revisions() == before
        changed = SEED.replace("one.example", "two.example")
        report = await store.seed(parse_provider_file(changed))
    assert (report.applied, report.drift) == (("one",), ())
