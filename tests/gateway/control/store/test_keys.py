"""Keys of clients, gateways and admins: shown once, kept as hashes, good until revoked."""

from collections.abc import Awaitable, Callable
from typing import Literal

import pytest

from bridgepool import Secret
from bridgepool.gateway.control._errors import InvalidChangeError, NameTakenError, NotFoundError
from bridgepool.gateway.control._records import KeyKind, NewKey
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.providers import Caller, hash_key, new_client_key
from tests.gateway.control.stores import ADA, opened


async def make_gateway(store: Store, name: str) -> NewKey:
    return await store.create_gateway_key(ADA, name)


async def make_admin(store: Store, name: str) -> NewKey:
    return await store.create_admin_key(ADA, name, "read")


async def test_a_client_is_known_by_its_key_until_that_is_revoked(database_url: str) -> None:
    async with opened(database_url) as store:
        added = await store.add_client(ADA, "web")
        key = added.key
        assert key is not None
        [key_id] = [row.id for row in added.client.keys]
        assert key.reveal().startswith(f"bp_{key_id}_")
        assert await store.authenticate("client", key) == added.client.keys[0]
        clients = (await store.snapshot()).clients
        assert clients.authenticate(key.reveal().encode()) == Caller("web", key_id)

        second = await store.add_client_key(ADA, "web")
        revoked = await store.revoke_client_key(ADA, "web", key_id)
        assert (revoked.changed, revoked.access_key.revoked is not None) == (True, True)
        assert await store.authenticate("client", key) is None
        assert await store.authenticate("client", second.key) is not None
        again = await store.revoke_client_key(ADA, "web", key_id)
        assert (again.changed, again.revision) == (False, revoked.revision)
        assert [row.id for row in (await store.get_client("web")).keys] == [second.access_key.id]


async def test_a_client_without_a_good_key_is_nobody_to_gateways(database_url: str) -> None:
    async with opened(database_url) as store:
        added = await store.add_client(ADA, "web")
        await store.revoke_client_key(ADA, "web", added.client.keys[0].id)
        assert len((await store.snapshot()).clients) == 0
        assert (await store.get_client("web")).keys == ()


async def test_a_client_that_is_removed_takes_its_keys_along(database_url: str) -> None:
    async with opened(database_url) as store:
        key = (await store.add_client(ADA, "web")).key
        assert key is not None
        with pytest.raises(NameTakenError):
            await store.add_client(ADA, "web")
        await store.remove_client(ADA, "web")
        assert await store.authenticate("client", key) is None
        assert await store.list_clients() == ()
        for missing in (
            store.remove_client(ADA, "web"),
            store.get_client("web"),
            store.add_client_key(ADA, "web"),
            store.revoke_client_key(ADA, "web", "abc"),
        ):
            with pytest.raises(NotFoundError):
                await missing
        await store.add_client(ADA, "web")


async def test_a_client_can_bring_hashes_of_keys_that_it_has(database_url: str) -> None:
    key = new_client_key()
    hashed = hash_key(key)
    async with opened(database_url) as store:
        added = await store.add_client(ADA, "web", key_hashes=[hashed])
        assert added.key is None
        assert await store.authenticate("client", key) is not None
        with pytest.raises(InvalidChangeError, match="another client's"):
            await store.add_client(ADA, "other", key_hashes=[hashed])
        with pytest.raises(InvalidChangeError, match="twice"):
            await store.add_client(ADA, "other", key_hashes=[hash_key(key), hash_key(key)])
        with pytest.raises(InvalidChangeError) as caught:
            await store.add_client(ADA, "other", key_hashes=[key.reveal()])
        assert key.reveal() not in str(caught.value)
        await store.remove_client(ADA, "web")
        await store.add_client(ADA, "web", key_hashes=[hashed])
        assert await store.authenticate("client", key) is not None


@pytest.mark.parametrize("name", ["", "two words", "-x", "a" * 65, "line\nfeed"])
async def test_a_name_that_cannot_stand_in_a_log_is_refused(database_url: str, name: str) -> None:
    async with opened(database_url) as store:
        for attempt in (
            store.add_client(ADA, name),
            store.create_gateway_key(ADA, name),
            store.create_admin_key(ADA, name, "read"),
        ):
            with pytest.raises(InvalidChangeError):
                await attempt
        assert await store.audit() == ()


async def test_a_gateway_key_is_good_until_revoked_and_both_move_the_revision(
    database_url: str,
) -> None:
    async with opened(database_url) as store:
        made = await store.create_gateway_key(ADA, "edge")
        key = made.key
        assert key.reveal().startswith(f"bpg_{made.access_key.id}_")
        assert await store.authenticate("gateway", key) == made.access_key
        assert await store.list_keys("gateway") == (made.access_key,)
        revoked = await store.revoke_key(ADA, "gateway", made.access_key.id)
        assert (made.revision, revoked.revision) == (1, 2)
        assert await store.authenticate("gateway", key) is None
        assert await store.list_keys("gateway") == ()
        assert await store.list_keys("gateway", revoked=True) == (revoked.access_key,)
        revisions = await store.revisions()
        assert (revisions.providers, revisions.clients) == (0, 0)


async def test_an_admin_key_has_a_role_and_is_nothing_that_gateways_see(database_url: str) -> None:
    async with opened(database_url) as store:
        made = await store.create_admin_key(ADA, "ops", "write")
        assert made.key.reveal().startswith("bpa_")
        found = await store.authenticate("admin", made.key)
        assert found is not None
        assert (found.name, found.role) == ("ops", "write")
        await store.revoke_key(ADA, "admin", "ops")
        assert await store.authenticate("admin", made.key) is None
        assert (await store.revisions()).revision == 0
        assert [entry.action for entry in await store.audit()] == [
            "admin_key.revoke",
            "admin_key.add",
        ]


@pytest.mark.parametrize(
    ("make", "kind"),
    [(make_gateway, "gateway"), (make_admin, "admin")],
)
async def test_a_key_is_revoked_by_its_name_if_one_good_key_has_it(
    database_url: str,
    make: Callable[[Store, str], Awaitable[NewKey]],
    kind: Literal["gateway", "admin"],
) -> None:
    async with opened(database_url) as store:
        first, second = await make(store, "edge"), await make(store, "edge")
        with pytest.raises(InvalidChangeError, match=first.access_key.id):
            await store.revoke_key(ADA, kind, "edge")
        assert (await store.revoke_key(ADA, kind, first.access_key.id)).changed
        revoked = await store.revoke_key(ADA, kind, "edge")
        assert revoked.access_key.id == second.access_key.id
        assert not (await store.revoke_key(ADA, kind, "edge")).changed
        with pytest.raises(NotFoundError):
            await store.revoke_key(ADA, kind, "nobody")


async def test_no_key_opens_what_is_for_another_kind_of_key(database_url: str) -> None:
    async with opened(database_url) as store:
        client = (await store.add_client(ADA, "web")).key
        gateway = (await store.create_gateway_key(ADA, "edge")).key
        admin = (await store.create_admin_key(ADA, "ops", "write")).key
        assert client is not None
        pairs: list[tuple[Secret, KeyKind]] = [
            (gateway, "client"),
            (admin, "client"),
            (client, "gateway"),
            (admin, "gateway"),
            (client, "admin"),
            (gateway, "admin"),
        ]
        for key, kind in pairs:
            assert await store.authenticate(kind, key) is None
            other = key.reveal().partition("_")[2]
            for prefix in ("bp", "bpg", "bpa"):
                forged = Secret(f"{prefix}_{other}")
                if forged != key:
                    assert await store.authenticate(kind, forged) is None


@pytest.mark.parametrize("token", ["x", "bp_", "bpa_é", "\udcff", "bpg_" + "a" * 56])
async def test_what_is_no_key_is_nobodys(database_url: str, token: str) -> None:
    async with opened(database_url) as store:
        assert await store.authenticate("client", Secret(token)) is None
        assert await store.authenticate("gateway", Secret(token)) is None
        assert await store.authenticate("admin", Secret(token)) is None


async def test_a_key_with_a_wrong_end_is_nobodys(database_url: str) -> None:
    async with opened(database_url) as store:
        key = (await store.create_admin_key(ADA, "ops", "read")).key.reveal()
        wrong = Secret(key[:-1] + ("a" if key[-1] != "a" else "b"))
        assert await store.authenticate("admin", wrong) is None
