"""The seed: what a file declares is there, and what people decided since stands."""

import pytest

from bridgepool import Secret
from bridgepool.gateway.control._records import (
    Actor,
    Drift,
    KeyRef,
    KeyValue,
    ProviderPatch,
    SeedReport,
)
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.providers import hash_key, new_client_key, parse_provider_file
from bridgepool.gateway.providers._access_keys import parse_hash
from tests.gateway.control.stores import ADA, draft, encryption, opened

ONE = """
[[providers]]
name = "one"
type = "openai"
base_url = "https://one.example/v1"
keys = ["key-one"]
headers = { x-team = "team-one" }
"""
TWO = """
[[providers]]
name = "two"
type = "anthropic"
base_url = "https://two.example"
key_env = "TWO_KEY"
"""


async def seed(store: Store, text: str) -> SeedReport:
    return await store.seed(parse_provider_file(text or "providers = []"), source="file")


def client(name: str, *hashes: str) -> str:
    texts = ", ".join(f'"{text}"' for text in hashes)
    return f'[[clients]]\nid = "{name}"\nkey_hashes = [{texts}]\n'


async def test_what_is_declared_is_there_in_one_revision(database_url: str) -> None:
    key = new_client_key()
    async with opened(database_url) as store:
        report = await seed(store, ONE + TWO + client("web", hash_key(key)))
        assert report == SeedReport(1, True, ("one", "two", "web"), ())
        one, two = (await store.snapshot()).rows
        assert one.keys == (Secret("key-one"),)
        assert (two.key_env, two.keys) == ("TWO_KEY", ())
        assert await store.authenticate("client", key) is not None
        assert {entry.actor.kind for entry in await store.audit()} == {"seed"}


async def test_the_clients_that_a_seed_makes_and_changes_are_audited(database_url: str) -> None:
    first, second, third = (hash_key(new_client_key()) for _ in range(3))
    other = client("other", second)
    async with opened(database_url) as store:
        await seed(store, ONE + client("web", first) + other)
        await seed(store, ONE + client("web", third) + other)
        entries = [entry for entry in await store.audit() if entry.kind == "client"]
        keys = [parse_hash(text).key_id for text in (first, second, third)]
        assert [(one.action, one.actor, one.before, one.after) for one in reversed(entries)] == [
            ("client.add", Actor("seed", "file"), None, {"id": "web", "keys": [keys[0]]}),
            ("client.add", Actor("seed", "file"), None, {"id": "other", "keys": [keys[1]]}),
            (
                "client.update",
                Actor("seed", "file"),
                {"id": "web", "keys": [keys[0]]},
                {"id": "web", "keys": [keys[2]]},
            ),
        ]


async def test_the_same_seed_again_changes_nothing(database_url: str) -> None:
    text = ONE + TWO + client("web", hash_key(new_client_key()))
    async with opened(database_url) as store:
        await seed(store, text)
        before = await store.snapshot()
    async with opened(database_url) as store:
        assert await seed(store, text) == SeedReport(1, False, (), ())
        assert await store.snapshot() == before


async def test_what_the_file_changes_is_changed_if_nobody_touched_it(database_url: str) -> None:
    first, second = hash_key(new_client_key()), hash_key(new_client_key())
    async with opened(database_url) as store:
        await seed(store, ONE + client("web", first))
        [before] = await store.list_providers()
        moved = ONE.replace("one.example", "moved.example") + client("web", second, first)
        report = await seed(store, moved)
        assert report == SeedReport(2, True, ("one", "web"), ())
        [after] = await store.list_providers()
        assert after.base_url == "https://moved.example/v1"
        assert (after.id, after.keys) == (before.id, before.keys)
        assert len((await store.get_client("web")).keys) == 2


async def test_what_was_changed_by_hand_stands_and_is_told_at_each_seed(database_url: str) -> None:
    async with opened(database_url) as store:
        await seed(store, ONE + TWO)
        patch = ProviderPatch(enabled=False, base_url="https://mine.example")
        await store.update_provider(ADA, "one", patch)
        drift = (Drift("provider", "one", "was changed by hand: base_url, enabled"),)
        for text in (ONE, ONE.replace("one.example", "moved.example")):
            assert await seed(store, text + TWO) == SeedReport(2, False, (), drift)
        assert not (await store.get_provider("one")).enabled


@pytest.mark.parametrize(
    ("patch", "field"),
    [
        (ProviderPatch(name="renamed"), "name"),
        (ProviderPatch(keys=[KeyValue(Secret("other"))]), "keys"),
        (ProviderPatch(headers={"x-team": Secret("other")}), "headers"),
        (ProviderPatch(allow_private=True), "allow_private"),
    ],
)
async def test_the_drift_names_the_field_and_no_value(
    database_url: str, patch: ProviderPatch, field: str
) -> None:
    async with opened(database_url) as store:
        await seed(store, ONE)
        await store.update_provider(ADA, "one", patch)
        [drift] = (await seed(store, ONE)).drift
        assert drift == Drift("provider", "one", f"was changed by hand: {field}")


async def test_a_change_by_hand_that_the_file_follows_is_no_drift_any_more(
    database_url: str,
) -> None:
    moved = ONE.replace("one.example", "moved.example")
    async with opened(database_url) as store:
        await seed(store, ONE)
        patch = ProviderPatch(base_url="https://moved.example/v1")
        await store.update_provider(ADA, "one", patch)
        assert await seed(store, moved) == SeedReport(2, False, (), ())
        assert (await seed(store, ONE)).applied == ("one",)


async def test_what_was_removed_by_hand_is_not_made_again(database_url: str) -> None:
    text = ONE + client("web", hash_key(new_client_key()))
    async with opened(database_url) as store:
        await seed(store, text)
        await store.remove_provider(ADA, "one", allow_empty=True)
        await store.remove_client(ADA, "web")
        report = await seed(store, text)
        assert [(drift.name, drift.reason) for drift in report.drift] == [
            ("one", "was removed by hand"),
            ("web", "was removed by hand"),
        ]
        assert not report.changed
        await store.add_provider(ADA, draft("one"))
        [again, _web] = (await seed(store, text)).drift
        assert again.reason.startswith("was removed and recreated by hand, and differs")


async def test_what_was_made_by_hand_before_stands_unless_it_is_what_is_declared(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        await store.add_provider(ADA, draft("one"))
        two = draft("two", base_url="https://two.example", type="anthropic", key_env="TWO_KEY")
        await store.add_provider(ADA, two)
        [drift] = (await seed(store, ONE + TWO)).drift
        assert drift.name == "one"
        assert drift.reason.startswith("was made by hand, and differs from the seed in ")
        disabled = TWO + "enabled = false\n"
        assert (await seed(store, ONE + disabled)).applied == ("two",)


async def test_what_left_the_file_stays_and_is_told(database_url: str) -> None:
    async with opened(database_url) as store:
        await seed(store, ONE + TWO)
        [drift] = (await seed(store, TWO)).drift
        assert (drift.name, drift.reason) == (
            "one",
            "is not in the seed any more; it stays until it is removed",
        )
        assert len(await store.list_providers()) == 2
        await store.remove_provider(ADA, "one", allow_empty=True)
        assert (await seed(store, TWO)).drift == ()
        assert (await seed(store, ONE + TWO)).applied == ("one",)


async def test_a_key_revoked_by_hand_stays_revoked(database_url: str) -> None:
    key = new_client_key()
    text = "providers = []\n" + client("web", hash_key(key), hash_key(new_client_key()))
    async with opened(database_url) as store:
        await seed(store, text)
        key_id = key.reveal().split("_")[1]
        await store.revoke_client_key(ADA, "web", key_id)
        [drift] = (await seed(store, text)).drift
        assert drift == Drift("client", "web", "was changed by hand: keys")
        assert await store.authenticate("client", key) is None


async def test_a_row_that_breaks_a_rule_of_the_store_is_drift_and_the_others_are_applied(
    database_url: str,
) -> None:
    hashed = hash_key(new_client_key())
    many = ONE.replace('["key-one"]', '["a", "b", "c"]')
    async with opened(database_url, max_keys=2) as store:
        await store.add_client(ADA, "app", key_hashes=[hashed])
        report = await seed(store, many + TWO + client("web", hashed))
        assert report.applied == ("two",)
        assert [(drift.name, drift.kind) for drift in report.drift] == [
            ("one", "provider"),
            ("web", "client"),
        ]


async def test_keys_changed_in_the_file_keep_the_ids_of_those_that_stay(database_url: str) -> None:
    async with opened(database_url) as store:
        await seed(store, ONE)
        [before] = (await store.get_provider("one")).keys
        await seed(store, ONE.replace('["key-one"]', '["key-new", "key-one"]'))
        new, kept = (await store.get_provider("one")).keys
        assert kept == before
        patch = ProviderPatch(keys=[KeyRef(kept.id), KeyRef(new.id)])
        assert (await store.update_provider(ADA, "one", patch)).changed


async def test_a_seed_goes_on_where_the_encryption_key_was_lost(database_url: str) -> None:
    async with opened(database_url) as store:
        await seed(store, ONE)
    async with opened(database_url, encryption("another", "one")) as store:
        await store.add_provider(ADA, draft("readable"))
    async with opened(database_url, encryption("another")) as store:
        report = await seed(store, ONE + TWO)
        assert report.applied == ("two",)
        assert report.drift[0].name == "one"
