"""The main paths over real websockets."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from bridgepool import Secret
from bridgepool.remote import (
    RemoteLimits,
    RemoteProviders,
    RemoteService,
    open_remote_providers,
    websocket_connector,
)
from bridgepool.testing import check_reloader

from .rig import ROWS, Depot, Owner, open_service, row

QUICK = RemoteLimits(first_delay=0.01, max_delay=0.05, refused_delay=0.1)


@attrs.frozen(eq=False)
class Served:
    url: str
    service: RemoteService[Depot]

    async def wait_noted(self, condition: Callable[[RemoteService[Depot]], bool]) -> None:
        """Wait until that holds of the sessions and receipts."""
        with self.service.subscribe() as noted:
            while not condition(self.service):
                await noted.receive()


@asynccontextmanager
async def serve(owner: Owner, port: int = 0) -> AsyncIterator[Served]:
    """Serve an owner over websockets."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    async with open_service(owner) as service, trio.open_nursery() as nursery:
        await nursery.start(service.serve_listeners, listeners)
        yield Served(f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}", service)
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def follow(url: str, key: Secret) -> AsyncIterator[RemoteProviders[Depot]]:
    connect = websocket_connector(url, key)
    with trio.fail_after(60):
        async with open_remote_providers(connect, ROWS, name="front", limits=QUICK) as remote:
            yield remote


async def test_a_change_reaches_a_follower_and_its_receipt_comes_back() -> None:
    owner = Owner()
    key = owner.add_key("front-1")
    async with serve(owner) as served, follow(served.url, key) as remote:
        await remote.changes.receive()
        assert (await remote.reload()).providers == ()
        revision = owner.set_rows([row(1)])
        await remote.changes.receive()
        snapshot = await remote.reload()
        assert snapshot.revision == revision
        assert snapshot.providers[0].door == Secret("door-1")
        remote.acknowledge(revision)
        await served.wait_noted(lambda service: bool(service.receipts))
        assert [receipt.revision for receipt in served.service.receipts.values()] == [revision]


async def test_a_wrong_key_is_refused_with_the_reason() -> None:
    stranger = Owner().add_key("x")
    async with serve(Owner()) as served, follow(served.url, stranger) as remote:
        refused = await remote.wait_refused()
        assert (refused.status, refused.code) == (401, "unknown_key")
        assert stranger.reveal() not in str(remote.status.last_error)


async def test_a_revoked_key_ends_the_session_with_the_reason_and_a_new_one_is_refused() -> None:
    owner = Owner()
    async with serve(owner) as served, follow(served.url, owner.add_key("front-1")) as remote:
        await remote.changes.receive()
        (session,) = served.service.sessions.values()
        began = trio.current_time()
        owner.revoke(session.identity.key_id)
        await served.wait_noted(lambda service: not service.sessions)
        assert trio.current_time() - began < 10
        while remote.status.refused is None:  # noqa: ASYNC110 -- the status has no event
            await trio.sleep(0.01)
        assert remote.status.refused.code == "unknown_key"


async def test_an_owner_that_restarts_is_found_again() -> None:
    owner = Owner()
    key = owner.add_key("front-1")
    async with serve(owner) as served:
        port = int(served.url.rpartition(":")[2])
    async with follow(served.url, key) as remote:
        while remote.status.last_error is None:  # noqa: ASYNC110 -- the status has no event
            await trio.sleep(0.01)
        assert not remote.status.connected
        for _ in range(2):
            async with serve(owner, port):
                await remote.changes.receive()
                assert (await remote.reload()).revision == owner.revision


@attrs.define(eq=False)
class Rig:
    """For `check_reloader`."""

    owner: Owner
    nursery: trio.Nursery
    remote: RemoteProviders[Depot]
    port: int
    scope: trio.CancelScope | None = None

    @property
    def reloader(self) -> RemoteProviders[Depot]:
        return self.remote

    @property
    def changes(self) -> trio.abc.ReceiveChannel[None]:
        return self.remote.changes

    async def serve(self, task_status: trio.TaskStatus[trio.CancelScope]) -> None:
        with trio.CancelScope() as scope:
            async with serve(self.owner, self.port):
                task_status.started(scope)
                await trio.sleep_forever()

    async def change(self, number: int) -> None:
        revision = self.owner.set_rows([row(1, city=f"city-{number}")])
        if self.scope is None:
            self.scope = await self.nursery.start(self.serve)
        status = self.remote.status
        while not status.connected or (status.revision or 0) < revision:  # noqa: ASYNC110
            await trio.sleep(0.001)

    async def break_source(self) -> None:
        if self.scope is not None:
            self.scope.cancel()
            self.scope = None
        while self.remote.status.connected:  # noqa: ASYNC110 -- the status has no event
            await trio.sleep(0.001)


@asynccontextmanager
async def open_rig() -> AsyncIterator[Rig]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    await listener.aclose()
    owner = Owner()
    url, key = f"ws://127.0.0.1:{port}", owner.add_key("front-1")
    async with follow(url, key) as remote, trio.open_nursery() as nursery:
        yield Rig(owner, nursery, remote, port)
        nursery.cancel_scope.cancel()


def test_the_remote_reloader_keeps_the_contract_of_reloaders_over_websockets() -> None:
    check_reloader(open_rig, max_examples=3, make_clock=lambda: trio.testing.MockClock(rate=1))


@pytest.mark.parametrize(
    "url", ["http://x", "wss://", "wss://x?version=2", "wss://x#y", "x", "wss:x"]
)
def test_an_address_that_is_not_of_an_owner_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match=r"must begin with|must be ws:|must not have a query"):
        websocket_connector(url, Secret("bpg_x"))


def test_a_key_that_is_a_plain_text_is_refused_and_not_shown() -> None:
    """It would stand in the `repr` of what is returned, and in every log of that."""
    key: Any = "sk-hidden"
    with pytest.raises(TypeError, match=r"key is a str: write Secret\(") as caught:
        websocket_connector("wss://control.example", key)
    assert "hidden" not in str(caught.value)
    assert "hidden" not in repr(websocket_connector("wss://control.example", Secret(key)))
