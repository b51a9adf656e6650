"""The main paths over real websockets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from bridgepool import Secret
from bridgepool.gateway.providers import (
    Caller,
    Client,
    Clients,
    hash_key,
    new_client_key,
)
from bridgepool.remote import (
    MemoryBackend,
    RemoteLimits,
    RemoteProviders,
    open_remote_providers,
    serve_providers,
    websocket_connector,
)

from .rig import row

QUICK = RemoteLimits(first_delay=0.01, max_delay=0.05, refused_delay=0.1)


@asynccontextmanager
async def serve(backend: MemoryBackend, port: int = 0) -> AsyncIterator[str]:
    """Serve a backend; yield the URL."""
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_providers, backend, listeners)
        yield f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def follow(url: str, key: Secret) -> AsyncIterator[RemoteProviders]:
    connect = websocket_connector(url, key)
    with trio.fail_after(10):
        async with open_remote_providers(connect, gateway="front", limits=QUICK) as remote:
            yield remote


async def test_a_change_reaches_a_gateway_and_its_receipt_comes_back() -> None:
    backend = MemoryBackend()
    key = backend.add_gateway_key("front-1")
    async with serve(backend) as url, follow(url, key) as remote:
        await remote.changes.receive()
        assert (await remote.reload()).providers == ()
        revision = backend.set_rows([row(1)])
        await remote.changes.receive()
        snapshot = await remote.reload()
        assert snapshot.revision == revision
        assert snapshot.providers[0].keys == (Secret("sk-1"),)
        remote.acknowledge(revision)
        while not backend.receipts:
            await backend.wait_heard()
        assert [receipt.revision for receipt in backend.receipts.values()] == [revision]


async def test_clients_are_authorized() -> None:
    backend = MemoryBackend()
    client_key = new_client_key()
    backend.set_clients(Clients([Client(id="ann", key_hashes=(hash_key(client_key),))]))
    async with serve(backend) as url, follow(url, backend.add_gateway_key("front-1")) as remote:
        await remote.changes.receive()
        caller = await remote.authorize(client_key.reveal().encode())
        assert isinstance(caller, Caller)
        assert caller.client_id == "ann"
        assert await remote.authorize(new_client_key().reveal().encode()) is None


async def test_a_wrong_key_is_refused_with_the_reason() -> None:
    stranger = MemoryBackend().add_gateway_key("x")
    async with serve(MemoryBackend()) as url, follow(url, stranger) as remote:
        refusal = await remote.wait_refused()
        assert (refusal.status, refusal.code) == (401, "unknown_key")
        assert stranger.reveal() not in str(remote.status.last_error)


async def test_a_revoked_key_ends_the_session_with_the_reason_and_a_new_one_is_refused() -> None:
    backend = MemoryBackend()
    async with serve(backend) as url, follow(url, backend.add_gateway_key("front-1")) as remote:
        await remote.changes.receive()
        (session,) = backend.sessions.values()
        began = trio.current_time()
        backend.revoke_gateway_key(session.identity.key_id)
        while backend.sessions:
            await backend.wait_heard()
        assert trio.current_time() - began < 1
        while remote.status.refused is None:  # noqa: ASYNC110 -- the status has no event
            await trio.sleep(0.01)
        assert remote.status.refused.code == "unknown_key"


async def test_a_control_plane_that_restarts_is_found_again() -> None:
    backend = MemoryBackend()
    key = backend.add_gateway_key("front-1")
    async with serve(backend) as url:
        port = int(url.rpartition(":")[2])
    async with follow(url, key) as remote:
        while remote.status.last_error is None:  # noqa: ASYNC110 -- the status has no event
            await trio.sleep(0.01)
        assert not remote.status.connected
        for _ in range(2):
            async with serve(backend, port):
                await remote.changes.receive()
                assert (await remote.reload()).revision == backend.revisions.revision


@pytest.mark.parametrize(
    "url", ["http://x", "wss://", "wss://x?version=2", "wss://x#y", "x", "wss:x"]
)
def test_an_address_that_is_none_of_a_control_plane_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="such as wss://"):
        websocket_connector(url, Secret("bpg_x"))
