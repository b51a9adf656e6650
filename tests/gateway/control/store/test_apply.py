"""Declared providers: applying them, exporting them, and their form in files."""

import tomllib

import attrs
import pytest

from bridgepool import Secret
from bridgepool.gateway.control._documents import (
    fields_of,
    parse_draft,
    parse_patch,
)
from bridgepool.gateway.control._errors import InvalidChangeError
from bridgepool.gateway.control._records import (
    AppliedProvider,
    KeyRef,
    KeyValue,
    ProviderPatch,
)
from tests.gateway.control.stores import ADA, draft, opened


async def test_applying_adds_changes_and_leaves_in_one_revision(database_url: str) -> None:
    async with opened(database_url) as store:
        await store.add_provider(ADA, draft("same", "key-same"))
        await store.add_provider(ADA, draft("moved"))
        await store.add_provider(ADA, draft("extra"))
        drafts = [
            draft("new"),
            draft("same", "key-same"),
            draft("moved", base_url="https://other.example", enabled=False),
        ]
        dry = await store.apply_providers(ADA, drafts, dry_run=True)
        assert (dry.revision, dry.changed) == (3, True)
        assert len(await store.list_providers()) == 3
        done = await store.apply_providers(ADA, drafts)
        assert done.providers == dry.providers
        assert done.providers == (
            AppliedProvider("new", "created"),
            AppliedProvider("same", "unchanged"),
            AppliedProvider("moved", "updated", ("base_url", "enabled")),
            AppliedProvider("extra", "unchanged"),
        )
        assert done.revision == 4
        again = await store.apply_providers(ADA, drafts)
        assert (again.revision, again.changed) == (4, False)
        pruned = await store.apply_providers(ADA, drafts, prune=True)
        assert pruned.providers[-1] == AppliedProvider("extra", "removed")
        assert pruned.revision == 5
        assert {row.name for row in await store.list_providers()} == {"same", "moved", "new"}


async def test_of_drafts_of_which_one_is_bad_none_is_applied_and_all_problems_are_told(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        bad = [draft("good"), draft("one", base_url="nowhere"), draft("two", KeyRef("key_x"))]
        with pytest.raises(InvalidChangeError) as caught:
            await store.apply_providers(ADA, [*bad, draft("good")])
        one, two, twice = caught.value.problems
        assert one.startswith("one: base_url: ")
        assert two.startswith("two: keys: ")
        assert twice.startswith("good: name: ")
        assert await store.list_providers() == ()


async def test_an_export_holds_no_secret_and_applied_again_changes_nothing(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        await store.add_provider(ADA, draft("openai", "key-one", headers={"x-a": Secret("team")}))
        await store.add_provider(ADA, draft("plain", key_env="OPENAI_KEY", enabled=False))
        before = await store.snapshot()
        drafts = list(await store.export_providers())
        text = repr([fields_of(draft) for draft in drafts])
        assert "key-one" not in text
        assert "team" not in text
        result = await store.apply_providers(ADA, drafts, prune=True)
        assert not result.changed
        assert await store.snapshot() == before
        drafts[0] = attrs.evolve(drafts[0], base_url="https://moved.example/v1")
        await store.apply_providers(ADA, drafts, prune=True)
        moved = (await store.snapshot()).rows[0]
        assert (moved.keys, moved.headers) == (before.rows[0].keys, before.rows[0].headers)


def test_a_draft_can_be_written_in_toml() -> None:
    text = """
        name = "openai"
        type = "openai"
        base_url = "https://api.openai.example/v1"
        keys = ["sk-1", {id = "key_2"}, {value = "sk-3"}]
        headers = {x-a = "team", x-b = {keep = true}}
    """
    found = parse_draft(tomllib.loads(text))
    assert found == draft(
        "openai",
        "sk-1",
        KeyRef("key_2"),
        KeyValue(Secret("sk-3")),
        headers={"x-a": Secret("team"), "x-b": None},
    )


def test_a_patch_says_only_what_is_to_be_different() -> None:
    patch = parse_patch({"key_env": None, "keys": [{"value": "sk-1"}]})
    assert patch == ProviderPatch(key_env=None, keys=[KeyValue(Secret("sk-1"))])
    assert patch.fields.keys() == {"key_env", "keys"}


@pytest.mark.parametrize(
    "row",
    [
        {"nmae": "x"},
        {"name": 1},
        {"enabled": "yes"},
        {"keys": "sk-secret"},
        {"keys": [""]},
        {"keys": [{"id": 1}]},
        {"keys": [{"vlaue": "sk-secret"}]},
        {"keys": [{"id": "a", "value": "sk-secret"}]},
        {"headers": ["sk-secret"]},
        {"headers": {"x": {"keep": False}}},
        {"sk-secret": "sk-secret"},
        ["sk-secret"],
        None,
    ],
)
def test_a_field_that_is_unknown_or_of_a_wrong_type_is_refused_without_its_value(
    row: object,
) -> None:
    with pytest.raises(InvalidChangeError) as caught:
        parse_patch(row)
    assert "sk-secret" not in str(caught.value)


def test_a_draft_has_at_least_name_type_and_base_url() -> None:
    with pytest.raises(InvalidChangeError) as caught:
        parse_draft({"name": "x"}, "row 1: ")
    assert caught.value.problems == ("row 1: type: is missing", "row 1: base_url: is missing")
