"""Rules of clients and keys in a store: made, changed, removed, audited, seeded, sent."""

from pathlib import Path

import pytest

from bridgepool import BridgePoolError, Secret
from bridgepool.gateway._protocol import Authorize
from bridgepool.gateway.control._gateway_service import _Clients
from bridgepool.gateway.control._memory import MemoryBackend
from bridgepool.gateway.control.operations._audit import list_audit
from bridgepool.gateway.control.operations._clients import (
    add_client,
    add_client_key,
    get_client,
    update_client,
    update_client_key,
)
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.providers import (
    Caller,
    ClientRules,
    hash_key,
    new_client_key,
    parse_provider_file,
)
from bridgepool.gateway.providers._access_keys import parse_hash
from bridgepool.gateway.providers._client_rules import NO_RULES
from tests.gateway.control.operations.test_admins import both_ways, open_rig
from tests.gateway.control.stores import ADA, opened


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def caller(store: Store, key: Secret | None) -> Caller | None:
    assert key is not None
    return (await store.snapshot()).clients.authenticate(key.reveal().encode())


@both_ways
async def test_rules_are_made_changed_and_removed_and_gateways_get_them(way: str) -> None:
    async with open_rig(way) as rig:
        admin, store = rig.admin, rig.plane.store
        made = await admin.do(
            add_client,
            "ada",
            rules={"models": ("a*",), "max_concurrent": 3},
            key_rules={"routes": ("/x",)},
        )
        [first] = made.client.keys
        rules, routes = ClientRules(models=("a*",), max_concurrent=3), ClientRules(routes=("/x",))
        assert (made.client.rules, first.rules) == (rules, routes)
        assert await caller(store, made.key) == Caller("ada", first.id, rules, routes)

        changes = {"models": None, "expires": "2030-01-31T00:00:00Z"}
        changed = await admin.do(update_client, "ada", changes)
        rules = ClientRules(max_concurrent=3, expires="2030-01-31T00:00:00Z")
        assert (changed.changed, changed.client.rules) == (True, rules)
        assert (await caller(store, made.key)) == Caller("ada", first.id, rules, routes)
        again = await admin.do(update_client, "ada", changes)
        assert (again.changed, again.revision) == (False, changed.revision)

        key = await admin.do(update_client_key, "ada", first.id, {"tokens_per_day": 7})
        routes = ClientRules(routes=("/x",), tokens_per_day=7)
        assert key.access_key.rules == routes
        assert await caller(store, made.key) == Caller("ada", first.id, rules, routes)
        same = await admin.do(update_client_key, "ada", first.id, {"tokens_per_day": 7})
        assert (same.changed, same.revision) == (False, key.revision)
        second = await admin.do(add_client_key, "ada", {"money_per_month": 5})
        assert second.access_key.rules == ClientRules(money_per_month=5)
        shown = (await admin.do(get_client, "ada")).client
        assert [one.rules for one in shown.keys] == [routes, ClientRules(money_per_month=5)]

        every = (await admin.do(list_audit)).entries
        entries = [entry for entry in every if entry.kind.startswith("client")]
        assert [(entry.action, entry.fields) for entry in entries] == [
            ("client_key.add", ()),
            ("client_key.update", ("rules",)),
            ("client.update", ("rules",)),
            ("client.add", ()),
        ]
        update = entries[2]
        assert update.before is not None
        assert update.after is not None
        assert update.before["rules"] == {"models": ["a*"], "max_concurrent": 3}
        assert update.after["rules"] == {"expires": "2030-01-31T00:00:00Z", "max_concurrent": 3}


@both_ways
async def test_rules_that_cannot_be_meant_are_refused_with_their_names(way: str) -> None:
    async with open_rig(way) as rig:
        [key] = (await rig.admin.do(add_client, "ada")).client.keys
        revision = (await rig.admin.do(get_client, "ada")).client.revision
        for refused in (
            rig.admin.do(update_client, "ada", {"max_concurrent": 0}),
            rig.admin.do(update_client_key, "ada", key.id, {"models": ()}),
            rig.admin.do(update_client_key, "ada", "nobodyskey00", {"models": ("a",)}),
            rig.admin.do(update_client, "eve", {"models": ("a",)}),
            rig.admin.do(update_client, "ada", {"models": ("a",)}, revision + 1),
            rig.admin.do(add_client, "eve", rules={"expires": "never"}),
        ):
            with pytest.raises(BridgePoolError):
                await refused
        with pytest.raises(BridgePoolError) as all_at_once:
            await rig.admin.do(
                add_client,
                "eve",
                rules={"tokens_per_day": 0, "models": ()},
            )
        for where in ("rules.tokens_per_day: is not from 1", "rules.models: has not from 1"):
            assert where in str(all_at_once.value)
        assert (await rig.admin.do(get_client, "ada")).client.rules == NO_RULES


async def test_rules_of_a_seed_are_applied_and_changes_by_hand_win(database_url: str) -> None:
    hashed = hash_key(new_client_key())
    key_id = parse_hash(hashed).key_id

    def file(models: str, routes: str) -> str:
        keys = f'keys = [{{ hash = "{hashed}", routes = ["{routes}"] }}]'
        return f'providers = []\n[[clients]]\nid = "web"\nmodels = ["{models}"]\n{keys}'

    async with opened(database_url) as store:
        assert (await store.seed(parse_provider_file(file("a", "/x")))).applied == ("web",)
        [client] = (await store.snapshot()).clients.rows
        assert client.rules == ClientRules(models=("a",))
        assert client.key_rules == {key_id: ClientRules(routes=("/x",))}
        assert not (await store.seed(parse_provider_file(file("a", "/x")))).changed
        assert (await store.seed(parse_provider_file(file("b", "/y")))).applied == ("web",)
        [client] = (await store.snapshot()).clients.rows
        assert client.rules == ClientRules(models=("b",))
        assert client.key_rules == {key_id: ClientRules(routes=("/y",))}
        await store.update_client(ADA, "web", {"models": ("c",)})
        report = await store.seed(parse_provider_file(file("d", "/y")))
        assert [drift.reason for drift in report.drift] == ["was changed by hand: rules"]
        assert (await store.get_client("web")).rules == ClientRules(models=("c",))


async def test_a_gateway_gets_the_rules_with_the_answer_whose_key_it_is() -> None:
    key = new_client_key()
    text = f'providers = []\n[[clients]]\nid = "web"\nkey_hash = "{hash_key(key)}"\n'
    backend = MemoryBackend()
    backend.set_clients(parse_provider_file(text).clients)
    plain = await _Clients(backend).authorize(Authorize(key))
    assert (plain.client_id, plain.rules, plain.key_rules) == ("web", None, None)
    backend.set_clients(parse_provider_file(text + 'models = ["a"]').clients)
    ruled = await _Clients(backend).authorize(Authorize(key))
    assert (ruled.rules, ruled.key_rules) == (ClientRules(models=("a",)), None)
    found = ruled.caller()
    assert found is not None
    assert (found.rules, found.key_rules) == (ClientRules(models=("a",)), NO_RULES)
