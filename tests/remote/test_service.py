"""The control plane's end, spoken to frame by frame."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing

from bridgepool import Secret
from bridgepool.remote import Admitted, MemoryBackend, open_provider_service
from bridgepool.remote._codec import encode_request
from bridgepool.remote._errors import ConnectionLostError, RemoteError
from bridgepool.remote._messages import (
    Authorization,
    Authorize,
    Changed,
    GetProviders,
    Hello,
    ProviderSet,
    Revisions,
    WatchProviders,
    Welcome,
)
from bridgepool.remote._rpc import NoticeHandler, RpcPeer, open_rpc
from bridgepool.transports.memory import MemoryChannel, open_memory_channel_pair
from bridgepool.transports.websocket import Handshake

from .rig import GatedBackend, Plane, open_plane, row

HELLO = Hello(gateway="front", instance="i", software="test/1")


async def link(plane: Plane) -> MemoryChannel:
    """Connect, and say nothing yet."""
    admitted = await plane.service.admit(Handshake("/", {"version": "1.0"}, plane.key, ""))
    assert isinstance(admitted, Admitted)
    ours, theirs = open_memory_channel_pair()
    plane.nursery.start_soon(plane.service.serve, theirs, admitted)
    return ours


@asynccontextmanager
async def talk(plane: Plane, heard: list[Changed]) -> AsyncIterator[RpcPeer]:
    notices = {"changed": NoticeHandler(Changed, heard.append)}
    async with open_rpc(await link(plane), notices=notices) as rpc:
        yield rpc


@pytest.mark.parametrize("method", ["get_providers", "watch_providers", "authorize"])
async def test_nothing_is_answered_before_hello(method: str) -> None:
    params = Authorize(Secret("bp_x")) if method == "authorize" else GetProviders()
    async with open_plane() as plane, talk(plane, []) as rpc:
        with pytest.raises(RemoteError) as caught:
            await rpc.call(method, params, Welcome)
        assert caught.value.code == "hello_first"
        assert plane.backend.sessions == {}


async def test_hello_is_said_once_and_makes_the_session_known() -> None:
    async with open_plane() as plane, talk(plane, []) as rpc:
        welcome = await rpc.call("hello", HELLO, Welcome)
        (session,) = plane.backend.sessions.values()
        assert session.id == welcome.session
        assert (session.gateway, session.instance, session.software) == ("front", "i", "test/1")
        assert session.identity.name == "front-1"
        assert welcome.revisions == plane.backend.revisions
        with pytest.raises(RemoteError) as caught:
            await rpc.call("hello", HELLO, Welcome)
        assert caught.value.code == "hello_twice"


async def test_who_says_no_hello_is_told_and_disconnected(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with open_plane() as plane, talk(plane, []) as rpc:
        with trio.fail_after(11):
            why = await rpc.wait_lost()
        assert (why.code, why.told) == ("hello_timeout", True)


async def test_known_providers_are_not_sent_again() -> None:
    async with open_plane() as plane, talk(plane, []) as rpc:
        plane.backend.set_rows([row(1)])
        await rpc.call("hello", HELLO, Welcome)
        full = await rpc.call("get_providers", GetProviders(), ProviderSet)
        assert full.rows == (row(1),)
        known = GetProviders(full.revisions.providers)
        assert (await rpc.call("get_providers", known, ProviderSet)).rows is None
        other = GetProviders(full.revisions.providers + 1)
        assert (await rpc.call("get_providers", other, ProviderSet)).rows == (row(1),)


async def test_notices_bring_providers_only_to_those_who_want_them_and_when_they_are_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[Changed] = []
    async with open_plane() as plane, talk(plane, heard) as rpc:
        await rpc.call("hello", HELLO, Welcome)
        plane.backend.set_rows([row(1)])
        await trio.sleep(0.1)
        assert heard == [], "nobody asked"
        await rpc.call("watch_providers", WatchProviders(), Revisions)
        plane.backend.set_rows([row(2)])
        await trio.sleep(0.1)
        assert heard == [Changed(plane.backend.revisions, None)]
        await rpc.call("watch_providers", WatchProviders(send=True), Revisions)
        plane.backend.set_rows([row(3)])
        await trio.sleep(0.1)
        assert heard[1:] == [Changed(plane.backend.revisions, (row(3),))]
        plane.backend.revoke_gateway_key(
            plane.backend.add_gateway_key("other").reveal().split("_")[1]
        )
        await trio.sleep(0.1)
        assert heard[2:] == [Changed(plane.backend.revisions, None)]


async def test_of_a_change_made_with_a_revocation_the_revoked_hears_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[Changed] = []
    backend = GatedBackend()
    async with open_plane(backend) as plane, talk(plane, heard) as rpc:
        backend.gate.set()
        await rpc.call("hello", HELLO, Welcome)
        await rpc.call("watch_providers", WatchProviders(send=True), Revisions)
        (session,) = backend.sessions.values()
        backend.gate = trio.Event()
        asked: list[str] = []

        async def ask() -> None:
            try:
                await rpc.call("get_providers", GetProviders(), ProviderSet)
            except (RemoteError, ConnectionLostError) as error:
                asked.append(error.code)

        plane.nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        backend.set_rows([row(1)])
        backend.revoke_gateway_key(session.identity.key_id)
        backend.gate.set()
        why = await rpc.wait_lost()
        await trio.testing.wait_all_tasks_blocked()
        assert (why.code, asked, heard) == ("key_revoked", ["key_revoked"], [])


async def test_a_thousand_changes_in_a_row_are_a_few_notices(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[Changed] = []
    async with open_plane() as plane, talk(plane, heard) as rpc:
        await rpc.call("hello", HELLO, Welcome)
        await rpc.call("watch_providers", WatchProviders(send=True), Revisions)
        for number in range(1000):
            plane.backend.set_rows([row(number)])
        await trio.sleep(0.1)
        assert len(heard) <= 2
        assert heard[-1].revisions == plane.backend.revisions


async def test_a_gateway_that_does_not_read_holds_up_nobody_and_is_ended_when_revoked(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[Changed] = []
    async with open_plane() as plane:
        stuck = await link(plane)
        await stuck.send(encode_request(0, "hello", HELLO))
        await stuck.send(encode_request(1, "watch_providers", WatchProviders(send=True)))
        plane.key = plane.backend.add_gateway_key("front-2")
        async with talk(plane, heard) as rpc:
            await rpc.call("hello", HELLO, Welcome)
            await rpc.call("watch_providers", WatchProviders(send=True), Revisions)
            for number in range(100):
                plane.backend.set_rows([row(number)])
                await trio.sleep(0.001)
            assert heard[-1].revisions == plane.backend.revisions
            by_name = {
                session.identity.name: session for session in plane.backend.sessions.values()
            }
            began = trio.current_time()
            plane.backend.revoke_gateway_key(by_name["front-1"].identity.key_id)
            while len(plane.backend.sessions) > 1:  # noqa: ASYNC110 -- it is a plain dict
                await trio.sleep(0.1)
            assert trio.current_time() - began < 1
            assert heard[-1].revisions.revision >= plane.backend.revisions.revision - 1


async def test_many_who_ask_at_once_share_one_reading() -> None:
    backend = GatedBackend()
    async with open_plane(backend) as plane, trio.open_nursery() as nursery:

        async def ask() -> None:
            async with talk(plane, []) as rpc:
                await rpc.call("hello", HELLO, Welcome)
                await rpc.call("get_providers", GetProviders(), ProviderSet)

        for _ in range(20):
            nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        backend.gate.set()
    assert backend.readings == 1


async def test_a_backend_that_fails_costs_a_call_and_not_the_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(GatedBackend):
        broken = True

        async def authorize(self, token: Secret) -> None:
            raise OSError("secret place")

    async with open_plane(Failing()) as plane, talk(plane, []) as rpc:
        await rpc.call("hello", HELLO, Welcome)
        with pytest.raises(RemoteError) as caught:
            await rpc.call("authorize", Authorize(Secret("bp_x")), Authorization)
        assert caught.value.code == "unavailable"
        assert "secret place" not in str(caught.value)
        await rpc.call("watch_providers", WatchProviders(), Revisions)


async def test_leaving_the_service_tells_the_gateways(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery
) -> None:
    lost: list[ConnectionLostError] = []
    backend = MemoryBackend()
    key = backend.add_gateway_key("front-1")

    async def wait(plane: Plane, task_status: trio.TaskStatus[None]) -> None:
        async with talk(plane, []) as rpc:
            await rpc.call("hello", HELLO, Welcome)
            task_status.started()
            lost.append(await rpc.wait_lost())

    async with open_provider_service(backend) as service:
        await nursery.start(wait, Plane(nursery, backend, service, key))
    await trio.sleep(1)
    assert (lost[0].code, lost[0].told) == ("shutting_down", True)
    assert backend.sessions == {}
