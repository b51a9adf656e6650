"""From a gateway's keys to an operator: reports over a session, in the store, in the API."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from bridgepool._secret import Secret
from bridgepool.gateway import (
    ControlPlane,
    Gateway,
    GatewaySettings,
    open_control_plane,
    open_gateway,
)
from bridgepool.gateway.control import find_encryption_keys, open_gateway_service, open_store
from bridgepool.gateway.control._hub import Hub, open_hub
from bridgepool.gateway.control._key_usage import KeyUsage
from bridgepool.gateway.control._records import KeyValue, ProviderPatch
from bridgepool.gateway.control.operations._operation import Context
from bridgepool.gateway.control.operations._providers import get_provider
from bridgepool.gateway.control.operations._store_admin import StoreAdmin
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.providers._key_status import KeyReport, KeyStatus
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.gateway.sources._store_source import open_store_source
from bridgepool.gateway.upstreams._key_pool import MAX_RETIRED
from bridgepool.http import open_upstream_client, serve_http
from bridgepool.remote import Identity, RemoteService
from tests.gateway.control.planes import session, wait_for
from tests.gateway.control.stores import ADA, draft, opened
from tests.gateway.proxy.rig import open_rig, openai
from tests.gateway.proxy.test_key_failover import Keyed, start
from tests.waiting import wait_until

OLD, NEW = "sk-old-0123456789abcdefgh", "sk-new-0123456789-stuvwxyz"
CHAT = b"/ai/v1/chat/completions"
_SETTINGS = GatewaySettings(allow_anonymous=True, min_reload_interval=0.001)


@attrs.define(eq=False)
class Following:
    """A gateway that follows a hub on a store, and what an operator sees of its keys."""

    store: Store
    hub: Hub
    service: RemoteService[ProviderRow]
    plane: ControlPlane
    gateway: Gateway
    address: str

    async def usage(self) -> dict[str, KeyUsage]:
        """What the API says, by the key's hint."""
        context = Context(self.store, self.hub, ADA)
        found = await get_provider.carry_out(context, "ai")
        return {one.hint: one for one in found.key_usage}

    async def wait_usage(self, hint: str, holds: Callable[[KeyUsage], bool]) -> KeyUsage:
        with trio.fail_after(60):
            while (found := (await self.usage()).get(hint)) is None or not holds(found):  # noqa: ASYNC110 -- no event tells
                await trio.sleep(0.005)
        return found

    async def ask(self) -> int:
        async with (
            open_upstream_client(f"http://{self.address}") as client,
            client.request(b"POST", CHAT, (), b"{}") as response,
        ):
            while await response.receive_some():
                pass
            return response.status


@asynccontextmanager
async def following(url: str, upstream: Keyed, nursery: trio.Nursery) -> AsyncIterator[Following]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with opened(url) as store:
        row = draft("ai", OLD, base_url=upstream.url, allow_private=True)
        await store.add_provider(ADA, row)
        key = (await store.create_gateway_key(ADA, "north")).access_key
        async with (
            open_hub(store, gather=0.01) as hub,
            open_gateway_service(hub, observer=hub, on_key_report=hub.note_keys) as service,
            open_control_plane(
                lambda: service.connect(Identity("north", key.id)),
                name="north",
                key_report_interval=0.01,
            ) as plane,
            open_gateway(
                plane.providers,
                plane.providers.changes,
                on_applied=lambda receipt: plane.providers.acknowledge(
                    receipt.revision or 0, epoch=receipt.epoch
                ),
                settings=_SETTINGS,
            ) as gateway,
        ):
            plane.report_keys(gateway.key_report)
            await wait_until(lambda: not gateway.why_not_ready())
            await nursery.start(partial(serve_http, gateway.handle, listeners))
            yield Following(store, hub, service, plane, gateway, address)
            nursery.cancel_scope.cancel()


async def test_an_operator_sees_when_a_key_that_was_taken_out_is_safe_to_revoke(
    database_url: str, nursery: trio.Nursery
) -> None:
    upstream = await start(nursery)
    async with following(database_url, upstream, nursery) as all_of_it:
        see, store = all_of_it.wait_usage, all_of_it.store
        assert await all_of_it.ask() == 200
        used = await see("…efgh", lambda one: one.last_used is not None and not one.in_flight)
        assert (used.gateways, used.safe_to_revoke) == (("north",), "no")
        upstream.gate = trio.Event()
        async with trio.open_nursery() as asking:
            asking.start_soon(all_of_it.ask)
            await upstream.arrived.wait()
            await see("…efgh", lambda one: one.in_flight == 1)
            patch = ProviderPatch(keys=(KeyValue(Secret(NEW)),))
            await store.update_provider(ADA, "ai", patch)
            running = await see("…efgh", lambda one: one.id is None and one.in_flight == 1)
            assert (running.gateways, running.safe_to_revoke) == (("north",), "no")
            assert (await all_of_it.usage())["…wxyz"].id is not None
            upstream.gate.set()
        over = await see("…efgh", lambda one: one.safe_to_revoke == "yes")
        assert (over.in_flight, over.gateways, over.unknown) == (0, (), ())
        assert over.last_used is not None
        upstream.gate, upstream.answers[NEW] = None, (429, ((b"retry-after", b"600"),))
        assert await all_of_it.ask() == 429
        cooling = await see("…wxyz", lambda one: one.cooling == "rate_limited")
        assert cooling.cooling_until is not None

        async def is_stored() -> bool:
            admin = StoreAdmin(store, ADA)
            usage = (await admin.do(get_provider, "ai")).key_usage
            return {one.hint: one.cooling for one in usage} == {
                "…wxyz": "rate_limited",
                "…efgh": "",
            }

        await wait_for(is_stored)
        all_of_it.hub.session_opened(session("south"))  # of an earlier version: it never reports
        silent = await see("…efgh", lambda one: one.safe_to_revoke == "unknown")
        assert silent.unknown == ("south",)
        text = repr(await all_of_it.usage()) + repr(await all_of_it.hub.gateways())
        assert OLD not in text
        assert NEW not in text


async def test_a_gateway_with_the_store_itself_tells_when_a_key_is_safe_to_revoke(
    tmp_path: Path, nursery: trio.Nursery
) -> None:
    upstream, url = await start(nursery), str(tmp_path / "store.db")
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    address = f"127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with open_store(url, await trio.to_thread.run_sync(find_encryption_keys, url)) as store:
        await store.add_provider(ADA, draft("ai", OLD, base_url=upstream.url, allow_private=True))

        async def is_seen(hint: str, safe: str, in_flight: int = 0) -> bool:
            usage = (await StoreAdmin(store, ADA).do(get_provider, "ai")).key_usage
            found = {one.hint: (one.safe_to_revoke, one.in_flight, one.unknown) for one in usage}
            return found.get(hint) == (safe, in_flight, ())

        async def ask() -> None:
            async with (
                open_upstream_client(f"http://{address}") as client,
                client.request(b"POST", CHAT, (), b"{}") as response,
            ):
                assert response.status == 200

        async with (
            open_store_source(url, None, "front", report_interval=0.01) as source,
            open_gateway(source.reloader, source.changes, settings=_SETTINGS) as gateway,
        ):
            [name] = [one.name for one in await store.programs.list_running()]
            assert name.startswith("front-")
            usage = (await StoreAdmin(store, ADA).do(get_provider, "ai")).key_usage
            assert [one.unknown for one in usage] == [(name,)]  # it is not open yet
            source.follow_keys(gateway.key_report)
            await wait_until(lambda: not gateway.why_not_ready())
            await nursery.start(partial(serve_http, gateway.handle, listeners))
            upstream.gate = trio.Event()
            async with trio.open_nursery() as asking:
                asking.start_soon(ask)
                await upstream.arrived.wait()
                await store.update_provider(ADA, "ai", ProviderPatch(keys=(KeyValue(Secret(NEW)),)))
                await wait_for(partial(is_seen, "…efgh", "no", 1))
                upstream.gate.set()
            await wait_for(partial(is_seen, "…efgh", "yes"))
        nursery.cancel_scope.cancel()


async def test_a_report_that_is_out_of_all_bounds_is_kept_in_bounds(database_url: str) -> None:
    async with opened(database_url) as store, open_hub(store, gather=0.01) as hub:
        await store.add_provider(ADA, draft("ai", OLD))
        north = session("north")
        hub.session_opened(north)
        wild = KeyStatus(
            provider="a\x00i" * 1000,
            fingerprint="f" * 1000,
            hint="\x1b[2J",
            usable=False,
            in_flight=-(1 << 70),
            unused_for=1 << 70,
            cooling_for=-(1 << 70),
        )
        hub.note_keys(north.id, KeyReport(revision=1 << 70, epoch="e" * 1000, keys=(wild,)))
        hub.note_keys("no such session", KeyReport())

        async def is_stored() -> bool:
            rows = await store.list_gateways()
            return bool(rows) and rows[0].provider_keys is not None

        await wait_for(is_stored)
        [row] = await store.list_gateways()
        assert row.provider_keys is not None
        [kept] = row.provider_keys.keys
        assert kept.in_flight == 0
        assert kept.hint.isprintable()
        assert len(kept.provider) <= 200
        shown = await get_provider.carry_out(Context(store, hub, ADA), "ai")
        assert shown.provider.name == "ai"


async def test_an_old_key_that_no_request_used_is_shown_until_it_is_safe_to_revoke(
    database_url: str, nursery: trio.Nursery
) -> None:
    upstream = await start(nursery)
    async with following(database_url, upstream, nursery) as all_of_it:
        for count in range(40):  # and of many only some are remembered
            patch = ProviderPatch(keys=(KeyValue(Secret(f"sk-never-used-0123456789-{count:04}")),))
            change = await all_of_it.store.update_provider(ADA, "ai", patch)
            with trio.fail_after(30):
                while all_of_it.gateway.key_report().revision != change.revision:  # noqa: ASYNC110 -- no event tells
                    await trio.sleep(0.001)
        old = await all_of_it.wait_usage("…0038", lambda one: one.safe_to_revoke == "yes")
        assert (old.id, old.in_flight, old.last_used) == (None, 0, None)
        assert len(await all_of_it.usage()) == 1 + MAX_RETIRED


async def test_a_gateway_that_has_ended_reports_no_key(nursery: trio.Nursery) -> None:
    """The connection to its control plane outlives it, to store its last usage records; a report
    that failed ended each session.
    """
    upstream = await start(nursery)
    async with open_rig(openai(upstream.url, keys=["a"]), nursery=nursery) as rig:
        assert (await rig.ask("/ai/v1/chat/completions", {})).status == 200
        [key] = rig.gateway.key_report().keys
        assert key.usable
    assert rig.gateway.key_report().keys == ()
