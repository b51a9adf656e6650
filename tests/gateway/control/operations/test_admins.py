"""One contract for both ways to change what a control plane owns: on the store, and by HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import attrs
import pytest
import trio

from bridgepool import BridgePoolError, Secret
from bridgepool.gateway.control._gateway_session import GatewaySession
from bridgepool.gateway.control._records import KeyRef, KeyValue, ProviderDraft, ProviderPatch
from bridgepool.gateway.control.operations import Admin
from bridgepool.gateway.control.operations._audit import list_audit
from bridgepool.gateway.control.operations._clients import (
    add_client,
    add_client_key,
    list_clients,
    remove_client,
    revoke_client_key,
)
from bridgepool.gateway.control.operations._gateways import (
    forget_gateway,
    get_revision,
    list_gateways,
    wait_applied,
    wait_long,
)
from bridgepool.gateway.control.operations._http_admin import AdminError, open_http_admin
from bridgepool.gateway.control.operations._keys import (
    create_admin_key,
    create_gateway_key,
    list_admin_keys,
    list_gateway_keys,
    revoke_gateway_key,
)
from bridgepool.gateway.control.operations._providers import (
    add_provider,
    apply_providers,
    draft_from_json,
    export_providers,
    get_provider,
    list_providers,
    remove_provider,
    update_provider,
)
from bridgepool.gateway.control.operations._store_admin import StoreAdmin
from bridgepool.gateway.control.operations._usage import list_usage, sum_usage
from bridgepool.gateway.serving._listening import Address, listener_url, open_listeners
from bridgepool.gateway.usage._records import UsageRecord
from bridgepool.http import Exchange, serve_http
from tests.gateway.control.planes import Plane, open_plane, receipt, session
from tests.gateway.control.stores import ADA, opened

KEY = Secret("sk-the-first-key-0123456789abcdef")
DRAFT = ProviderDraft(
    name="openai",
    type="openai",
    base_url="https://api.openai.example/v1",
    keys=(KeyValue(KEY),),
    headers={"x-team": Secret("team-7")},
)


@attrs.frozen
class Rig:
    plane: Plane
    admin: Admin


@asynccontextmanager
async def open_rig(way: str) -> AsyncIterator[Rig]:
    async with open_plane("sqlite:admin.db") as plane:
        if way == "store":
            yield Rig(plane, StoreAdmin(plane.store, ADA))
            return
        async with open_http_admin(plane.url, Secret(await plane.key())) as admin:
            yield Rig(plane, admin)


@pytest.fixture(autouse=True)
def _own_directory(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(str(tmp_path))


both_ways = pytest.mark.parametrize("way", ["store", "http"])


@both_ways
async def test_providers_are_added_read_changed_and_removed(way: str) -> None:
    async with open_rig(way) as rig:
        admin = rig.admin
        added = await admin.do(add_provider, DRAFT)
        assert (added.revision, added.changed) == (1, True)
        assert (await admin.do(get_provider, "openai")).provider == added.provider
        assert (await admin.do(list_providers)).providers == (added.provider,)
        assert added.provider.keys[0].hint == "…cdef"
        assert dict(added.provider.headers) == {"x-team": "***"}
        kept = KeyRef(added.provider.keys[0].id)
        patch = ProviderPatch(
            name="main",
            keys=(KeyValue(Secret("sk-second")), kept),
            headers={"x-team": None, "x-more": Secret("more")},
            enabled=False,
        )
        changed = await admin.do(update_provider, "openai", patch, allow_empty=True)
        assert (changed.provider.name, changed.provider.enabled) == ("main", False)
        assert [key.id for key in changed.provider.keys][1:] == [kept.id]
        assert set(changed.provider.headers) == {"x-team", "x-more"}
        same = await admin.do(
            update_provider, "main", ProviderPatch(enabled=False), allow_empty=True
        )
        assert (same.changed, same.revision) == (False, 2)
        removed = await admin.do(remove_provider, changed.provider.id, allow_empty=True)
        assert removed.provider.name == "main"
        assert (await admin.do(list_providers)).providers == ()


@both_ways
async def test_a_null_takes_the_variable_away(way: str) -> None:
    async with open_rig(way) as rig:
        draft = ProviderDraft(name="a", type="openai", base_url="https://a.example/v1", key_env="K")
        await rig.admin.do(add_provider, draft)
        change = await rig.admin.do(update_provider, "a", ProviderPatch(key_env=None))
        assert change.provider.key_env is None


@both_ways
async def test_an_export_applied_changes_nothing_and_a_dry_run_neither(way: str) -> None:
    async with open_rig(way) as rig:
        admin = rig.admin
        await admin.do(add_provider, DRAFT)
        documents = (await admin.do(export_providers)).providers
        exported = [draft_from_json(document) for document in documents]
        same = await admin.do(apply_providers, exported, prune=True, dry_run=False)
        assert (same.changed, same.revision) == (False, 1)
        tried = await admin.do(apply_providers, [], prune=True, dry_run=True, allow_empty=True)
        assert [(one.name, one.action) for one in tried.providers] == [("openai", "removed")]
        moved = [attrs.evolve(exported[0], base_url="https://b.example/v1")]
        done = await admin.do(apply_providers, moved, prune=False, dry_run=False)
        assert (done.revision, done.providers[0].fields) == (2, ("base_url",))
        [row] = (await rig.plane.store.snapshot()).rows
        assert row.keys == (KEY,)
        assert dict(row.headers) == {"x-team": Secret("team-7")}


@both_ways
async def test_clients_and_keys_are_made_listed_and_revoked(way: str) -> None:
    async with open_rig(way) as rig:
        admin, store = rig.admin, rig.plane.store
        client = await admin.do(add_client, "ada")
        assert client.key is not None
        assert await store.authenticate("client", client.key) is not None
        second = await admin.do(add_client_key, "ada")
        assert len((await admin.do(list_clients)).clients[0].keys) == 2
        revoked = await admin.do(revoke_client_key, "ada", second.access_key.id)
        assert revoked.access_key.revoked is not None
        assert await store.authenticate("client", second.key) is None
        assert (await admin.do(remove_client, "ada")).client.id == "ada"
        front = await admin.do(create_gateway_key, "front")
        assert await store.authenticate("gateway", front.key) is not None
        boss = await admin.do(create_admin_key, "boss", "write")
        assert boss.access_key.role == "write"
        await admin.do(revoke_gateway_key, "front")
        assert (await admin.do(list_gateway_keys)).keys == ()
        [gone] = (await admin.do(list_gateway_keys, revoked=True)).keys
        assert gone.id == front.access_key.id
        assert boss.access_key in (await admin.do(list_admin_keys)).keys


@both_ways
async def test_gateways_and_receipts_are_told(way: str) -> None:
    async with open_rig(way) as rig:
        admin, hub = rig.admin, rig.plane.hub
        change = await admin.do(add_provider, DRAFT)
        one, two = session("one"), session("two")
        hub.session_opened(one)
        hub.session_opened(two)
        hub.acknowledged(one.id, receipt(change.revision))
        with trio.fail_after(60):
            while len((await admin.do(list_gateways)).gateways) < 2:  # noqa: ASYNC110 -- nobody tells
                await trio.sleep(0.01)
        listed = await admin.do(list_gateways)
        assert listed.revision == change.revision
        assert [row.gateway for row in listed.gateways] == ["one", "two"]
        early = await admin.do(wait_applied, change.revision)
        assert not early.complete
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(admin.do, wait_applied, change.revision, 20.0))
            hub.acknowledged(two.id, receipt(change.revision, openai="no such key"))
        report = await wait_long(admin, change.revision, 100.0)
        assert [row.state for row in report.gateways] == ["applied", "rejected"]
        assert (report.complete, report.applied) == (True, False)
        assert (await admin.do(get_revision)).revision == change.revision
        assert report.gateways[1].rejected[0].reason == "no such key"


@both_ways
async def test_the_audit_is_read_page_by_page(way: str) -> None:
    async with open_rig(way) as rig:
        await rig.admin.do(add_provider, DRAFT)
        await rig.admin.do(
            update_provider, "openai", ProviderPatch(enabled=False), allow_empty=True
        )
        [newest] = (await rig.admin.do(list_audit, 1, name="openai")).entries
        assert (newest.action, newest.fields) == ("provider.update", ("enabled",))
        older = await rig.admin.do(list_audit, 10, newest.id, "openai")
        assert [entry.action for entry in older.entries] == ["provider.add"]


@both_ways
async def test_usage_is_summed_and_listed(way: str) -> None:
    async with open_rig(way) as rig:
        records = [
            UsageRecord(
                id=str(number),
                time=f"2026-01-0{number}T00:00:00.000Z",
                client="web",
                provider="ai",
                answered_model="m",
                input_tokens=number,
                tools=("shell",),
                first_byte_ms=0.25,
            )
            for number in (1, 2, 3)
        ]
        await rig.plane.store.usage.add("front-1", records)
        report = await rig.admin.do(sum_usage, "model,day", since="2026-01-02", client="web")
        assert [(one.day, one.model, one.input_tokens) for one in report.sums] == [
            ("2026-01-02", "m", 2),
            ("2026-01-03", "m", 3),
        ]
        page = await rig.admin.do(list_usage, 2, gateway="front-1")
        assert page.records == tuple(attrs.evolve(one, gateway="front-1") for one in records[:0:-1])
        page = await rig.admin.do(list_usage, 2, page.next)
        assert ([one.id for one in page.records], page.next) == (["1"], None)
        for day in ("2026-2-1", "yesterday"):
            with pytest.raises(BridgePoolError, match="since: is not a day such as 2026-01-31"):
                await rig.admin.do(sum_usage, "", since=day)
        with pytest.raises(BridgePoolError, match="by: is not made of day, client"):
            await rig.admin.do(sum_usage, "day,secret")


@both_ways
async def test_what_is_refused_is_told_with_its_reason(way: str) -> None:
    async with open_rig(way) as rig:
        admin = rig.admin
        await admin.do(add_provider, DRAFT)
        with pytest.raises(BridgePoolError, match="taken"):
            await admin.do(add_provider, DRAFT)
        with pytest.raises(BridgePoolError, match="base_url"):
            await admin.do(update_provider, "openai", ProviderPatch(base_url="nowhere"))
        with pytest.raises(BridgePoolError, match="there is no"):
            await admin.do(get_provider, "nobody/../else?x#y")
        with pytest.raises(BridgePoolError, match="there is no"):
            await admin.do(wait_applied, 99)


async def test_a_wrong_key_is_told() -> None:
    async with (
        open_plane("sqlite:admin.db") as plane,
        open_http_admin(plane.url, Secret("bpa_nobody_nothing")) as admin,
    ):
        with pytest.raises(AdminError) as caught:
            await admin.do(list_providers)
        assert caught.value.code == "unauthorized"


async def test_a_url_with_a_path_that_the_api_does_not_have_is_told() -> None:
    async with (
        open_plane("sqlite:admin.db") as plane,
        open_http_admin(f"{plane.url}/other", Secret(await plane.key())) as admin,
    ):
        with pytest.raises(AdminError, match="is that its --listen address"):
            await admin.do(list_providers)


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"<html>"),
        (200, b"[]"),
        (200, b"{}"),
        (500, b"oops"),
        (404, b'{"detail": "Not Found"}'),
        (400, b'{"error": "text"}'),
        (401, b'{"error": {"code": "invalid_api_key", "message": "of a gateway"}}'),
        (404, b'{"error": {"code": "unknown_provider", "message": "of a gateway"}}'),
        (404, b'{"error": {"code": "not_found", "message": "the pages are /healthz"}}'),
        (400, b'{"error": {"code": 1, "message": null}}'),
        # Programs that answer as the API does.
        (404, b'{"error": {"code": "not_found", "message": "there is no such client"}}'),
        (401, b'{"error": {"code": "unauthorized", "message": "of a proxy"}}'),
        (409, b'{"error": {"code": "conflict", "message": "of a proxy"}}'),
        (200, b'{"providers": [], "revision": 1}'),
    ],
)
async def test_what_is_no_control_plane_is_told_apart(
    status: int, body: bytes, nursery: trio.Nursery
) -> None:
    """It was told by the text of the API's 404."""

    async def answer(exchange: Exchange) -> None:
        fields = ((b"content-type", b"application/json"), (b"x-request-id", b"its-own"))
        await exchange.answer(status, fields, body)

    listeners = await open_listeners([Address("127.0.0.1", 0)], None)
    await nursery.start(serve_http, answer, listeners)
    async with open_http_admin(listener_url(listeners[0]), Secret("bpa_x_y")) as admin:
        with pytest.raises(AdminError, match="is that its --listen address") as caught:
            await admin.do(list_providers)
        assert caught.value.code == "not_understood"
    nursery.cancel_scope.cancel()


async def test_by_the_store_a_gateway_of_a_control_plane_that_was_killed_is_not_connected(
    tmp_path: Path,
) -> None:
    """It was shown as connected for ever."""
    async with opened(str(tmp_path / "store.db")) as store:
        admin = StoreAdmin(store, ADA)
        now = datetime.now(UTC)
        for age, state in ((1, "pending"), (40, "reconnecting")):
            then = now - timedelta(seconds=age)
            row = GatewaySession(
                instance="i1", gateway="front", key_id="k", session=f"s{age}", control_plane="c",
                connected=True, since=now, last_contact=then,
            )  # fmt: skip
            await store.record_gateways([row])
            [listed] = (await admin.do(list_gateways)).gateways
            assert (listed.connected, listed.reconnecting) == (age == 1, age == 40)
            report = await admin.do(wait_applied, 0)
            assert [one.state for one in report.gateways] == [state]
            assert not report.complete


@both_ways
async def test_a_gateway_that_is_offline_can_be_forgotten(way: str) -> None:
    async with open_rig(way) as rig:
        row = GatewaySession(
            instance="i1", gateway="north", key_id="k1", session="s1", control_plane="c1",
            connected=False, since=datetime.now(UTC), last_contact=datetime.now(UTC),
        )  # fmt: skip
        rows = [
            row,
            attrs.evolve(row, instance="i2", session="s2"),
            attrs.evolve(row, instance="i3", session="s3", reconnecting=True),
            attrs.evolve(row, instance="i4", session="s4", gateway="south"),
        ]
        await rig.plane.store.record_gateways(rows)
        assert (await rig.admin.do(forget_gateway, "i2")).forgotten == 1
        assert (await rig.admin.do(forget_gateway, "north")).forgotten == 1
        with pytest.raises(BridgePoolError, match="gateway north: is not offline; stop it first"):
            await rig.admin.do(forget_gateway, "north")
        with pytest.raises(
            BridgePoolError, match="no such gateway" if way == "http" else "gateway 'east'"
        ):
            await rig.admin.do(forget_gateway, "east")
        left = (await rig.admin.do(list_gateways)).gateways
        assert [one.instance for one in left] == ["i3", "i4"]
        [last, _first] = (await rig.admin.do(list_audit, name="north")).entries
        assert (last.action, last.row_id, last.name) == ("gateway.forget", "i1", "north")
        assert (await rig.admin.do(get_revision)).revision == 0
