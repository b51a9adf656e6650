"""A whole system on real sockets: control plane, gateways on it, and those who ask them.

`make_home` says where a control plane has its store, its keys and its ports. It runs in this
process (`open_plane`) or as one of its own (`run_plane`), again and again on the same ports.
Gateways (`Front`) run in this process on any `Source` (`open_front`), or as processes
(`run_front`).
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial
from pathlib import Path

import attrs
import trio

from bridgepool import MemoryReloader, ProviderSnapshot
from bridgepool._services import open_service_nursery
from bridgepool.gateway import Gateway, open_gateway
from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway._process import open_source
from bridgepool.gateway._protocol import named, provider_table
from bridgepool.gateway.control import open_gateway_service
from bridgepool.gateway.control._encryption import find_encryption_keys, generate_encryption_key
from bridgepool.gateway.control._first_keys import ensure_key
from bridgepool.gateway.control._hub import Hub, open_hub
from bridgepool.gateway.control.api import make_api
from bridgepool.gateway.control.store import Store, open_store
from bridgepool.gateway.providers import Clients, Provider
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.gateway.proxy._auth import ListedClients
from bridgepool.gateway.proxy._readiness import SourceReport
from bridgepool.gateway.serving._listening import Address, open_listeners
from bridgepool.gateway.sources._source import Source
from bridgepool.http import serve_http
from bridgepool.remote import RemoteService
from bridgepool.transports._handshake import WebSocketLimits
from bridgepool.transports.websocket import serve_websockets
from tests.e2e.process import GatewayProcess, run_command, run_gateway_of
from tests.ports import free_port
from tests.system.asking import Front, Home

_LINE = WebSocketLimits()


async def make_home(folder: Path, url: str | None = None) -> Home:
    """Choose the ports of a control plane, and make the encryption keys of its store.

    Args:
        folder: For its files, and for the store, if that is SQLite's.
        url: Of the store; an SQLite file in the folder if it is not given.
    """
    home = Home(folder, url or str(folder / "store.db"), free_port(), free_port())
    home.encryption_file.write_text(generate_encryption_key().reveal() + "\n")
    home.encryption_file.chmod(0o600)
    return home


# -- control planes ----------------------------------------------------------------------------


@attrs.frozen
class Plane:
    """A control plane in this process."""

    home: Home
    store: Store
    hub: Hub
    service: RemoteService[ProviderRow]


@asynccontextmanager
async def open_home_store(home: Home) -> AsyncIterator[Store]:
    """Open the store once more, beside whoever has it open."""
    find = partial(find_encryption_keys, home.store_url, key_file=home.encryption_file)
    async with open_store(home.store_url, await trio.to_thread.run_sync(find)) as store:
        yield store


@asynccontextmanager
async def open_plane(
    home: Home, *, line: WebSocketLimits = _LINE, poll_interval: float = 600.0
) -> AsyncIterator[Plane]:
    """Run a control plane in this process, its API and its service of gateways on real sockets.

    Args:
        home: Where it has everything.
        line: Limits of the gateways' connections.
        poll_interval: Of its hub; by default so long that a notice that is lost is not hidden.
    """
    async with open_home_store(home) as store:
        await ensure_key(store, "admin", home.admin_file)
        await ensure_key(store, "gateway", home.gateway_file)
        await ensure_key(store, "client", home.client_file)
        async with (
            open_hub(store, gather=0.01, poll_interval=poll_interval) as hub,
            open_gateway_service(hub, observer=hub, limits=hub.limits) as service,
            open_service_nursery() as nursery,
        ):
            rpc = await open_listeners([Address("127.0.0.1", home.rpc_port)], None)
            api = await open_listeners([Address("127.0.0.1", home.api_port)], None)
            gateways = partial(serve_websockets, service.serve, rpc, admit=service.admit)
            await nursery.start(partial(gateways, limits=line))
            await nursery.start(serve_http, make_api(store, hub).handle, api)
            try:
                yield Plane(home, store, hub, service)
            finally:
                hub.end_waits()
                nursery.cancel_scope.cancel()


@asynccontextmanager
async def run_plane(home: Home, *options: str) -> AsyncIterator[GatewayProcess]:
    """Run `bridgepool control-plane`, and wait until it serves; it is killed at the end."""
    arguments = ("control-plane", *home.plane_options(), "--log-format", "json", *options)
    async with run_command(*arguments, env=home.environ) as plane:
        await plane.stdout.wait_for(lambda line: line.startswith("serving gateways on"))
        yield plane


# -- gateways ----------------------------------------------------------------------------------


@asynccontextmanager
async def open_front(
    home: Home, source: AbstractAsyncContextManager[Source], options: GatewayOptions | None = None
) -> AsyncIterator[tuple[Front, Gateway]]:
    """Serve a gateway in this process; it need not have providers yet.

    Args:
        home: Whose client asks it.
        source: Such as `memory_source`, `store_source`, `control_source`.
        options: For its settings.
    """
    address = Address("127.0.0.1", 0)
    settings = (options or GatewayOptions(drain_timeout=5)).settings([address])
    listeners = await open_listeners([address], None)
    async with (
        source as opened,
        open_gateway(
            opened.reloader,
            opened.changes,
            clients=opened.clients,
            first=opened.first,
            first_age=opened.first_age,
            settings=settings,
            on_applied=opened.on_applied,
            report=opened.report,
        ) as gateway,
        open_service_nursery() as nursery,
    ):
        await nursery.start(serve_http, gateway.handle, listeners)
        port = listeners[0].socket.getsockname()[1]  # type: ignore[attr-defined]  # no TLS
        try:
            yield Front(f"http://127.0.0.1:{port}", home.client_key), gateway
        finally:
            nursery.cancel_scope.cancel()


@asynccontextmanager
async def run_front(home: Home, *source: str) -> AsyncIterator[tuple[Front, GatewayProcess]]:
    """Run `bridgepool gateway` with these options, and wait until it listens."""
    async with run_gateway_of(*source, env=home.environ) as gateway:
        yield Front(gateway.url, home.client_key), gateway


def control_source(home: Home, *, port: int | None = None) -> AbstractAsyncContextManager[Source]:
    """Follow a control plane over a websocket, such as through a proxy's port."""
    url = f"ws://127.0.0.1:{port or home.rpc_port}"
    options = GatewayOptions(control=url, key_file=home.gateway_file, name="front")
    return open_source(options, allow_anonymous=False)


def store_source(home: Home) -> AbstractAsyncContextManager[Source]:
    """Open the store as an embedded gateway does."""
    options = GatewayOptions(store=home.store_url, encryption_key_file=home.encryption_file)
    return open_source(options, allow_anonymous=False)


@asynccontextmanager
async def memory_source(plane: Plane) -> AsyncIterator[Source]:
    """Have a `MemoryReloader` that is fed from the store that this process has open anyway."""
    reloader = MemoryReloader[Provider](ProviderSnapshot(()))
    clients = Clients()
    table = provider_table()

    async def feed() -> None:
        nonlocal clients, table
        snapshot = await plane.store.snapshot()
        table, clients = table.updated(named(snapshot.rows)), snapshot.clients
        reloader.replace(ProviderSnapshot(table.providers, snapshot.revisions.revision))

    async def follow() -> None:
        while True:
            await changes.receive()
            await feed()

    with plane.store.subscribe() as changes, reloader.subscribe() as notices:
        await feed()
        async with open_service_nursery() as nursery:
            nursery.start_soon(follow)
            try:
                yield Source(
                    reloader=reloader,
                    changes=notices,
                    clients=ListedClients(lambda: clients),
                    report=lambda: SourceReport(source="memory"),
                    first=reloader.snapshot,
                )
            finally:
                nursery.cancel_scope.cancel()
