"""A control plane and a gateway on real sockets, in this process, and a bad network in between.

The limits of both are short, and answers about clients age at once: so the control plane is
asked all the time, and whatever a fault does to that is seen by the requests that are served
meanwhile.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import cast

import attrs
import trio

from bridgepool import Secret
from bridgepool._changes import ChangeBus, ChangeSubscription
from bridgepool.gateway import Gateway, open_gateway
from bridgepool.gateway._options import GatewayOptions
from bridgepool.gateway.control import open_gateway_service
from bridgepool.gateway.control._hub import Hub, open_hub
from bridgepool.gateway.control._records import KeyValue, ProviderDraft, ProviderPatch
from bridgepool.gateway.control.store import Store
from bridgepool.gateway.demo._upstream import SimulatedUpstream, serve_simulated_upstream
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.gateway.serving._listening import Address
from bridgepool.gateway.sources._authorization import AuthorizationLimits
from bridgepool.gateway.sources._control_source import open_control_source
from bridgepool.http import serve_http
from bridgepool.remote import PROTOCOL, Admitted, ProtocolVersion, RemoteLimits, RemoteService
from bridgepool.remote._versions import check_version
from bridgepool.testing import FaultProxy, open_fault_proxy
from bridgepool.transports.websocket import Handshake, Refused, WebSocketLimits, serve_websockets
from tests.e2e.asking import Asked, ask, ready, wait_ready
from tests.gateway.control.stores import ADA, opened
from tests.system.load import Load, open_load
from tests.waiting import wait_until

LINE = WebSocketLimits(
    handshake_timeout=2, heartbeat_interval=0.4, heartbeat_timeout=0.9, close_timeout=0.3
)
PATIENCE = RemoteLimits(
    first_delay=0.05,
    max_delay=0.3,
    steady_after=0.2,
    refused_delay=0.3,
    connect_timeout=2,
)
AUTHORIZATION = AuthorizationLimits(
    fresh_for=0.02,
    unknown_for=0.02,
    patience=1,
    known_patience=0.2,
    retry_after=0.2,
    answer_timeout=1,
)
GENEROUS = 60.0  # seconds: many tests share two cores


@attrs.define(eq=False)
class Front:
    """A served gateway that follows the control plane."""

    gateway: Gateway
    url: str
    key: str
    """Of a known client."""

    async def ask(self, key: str | None = None) -> Asked:
        return await ask(self.url, self.key if key is None else key)

    async def ready(self) -> Asked:
        return await ready(self.url)

    async def wait_ready(self, **fields: object) -> Asked:
        return await wait_ready(self.url, **fields)

    async def converge(self, upstream: SimulatedUpstream, what: str) -> float:
        """Wait until this upstream serves; say and return how long that took from now on."""
        began = trio.current_time()
        with trio.fail_after(GENEROUS):
            while (await self.ask()).model != f"m@{upstream.identity}":  # noqa: ASYNC110
                await trio.sleep(0.01)
        took = trio.current_time() - began
        print(f"converged: {took:.3f} s after {what}")
        return took


@attrs.define(eq=False)
class World:
    """A control plane on a real store, two upstreams, and the network to the control plane."""

    folder: Path
    store: Store
    hub: Hub
    service: RemoteService[ProviderRow]
    proxy: FaultProxy
    north: SimulatedUpstream
    south: SimulatedUpstream
    key: str
    """Of a client."""
    gateway_key_id: str = ""
    speaks: ProtocolVersion = PROTOCOL
    """The protocol version of the control plane, as far as gateways are told."""
    ca_file: Path | None = None

    @property
    def key_file(self) -> Path:
        """Holds the key of the gateway."""
        return self.folder / "gateway.key"

    async def new_gateway_key(self) -> None:
        """Have another key in the key file."""
        made = await self.store.create_gateway_key(ADA, "front")
        self.key_file.write_text(made.key.reveal())
        self.key_file.chmod(0o600)
        self.gateway_key_id = made.access_key.id

    async def admit(self, handshake: Handshake) -> Admitted | Refused:
        """Decide on a handshake as a control plane of that version does."""
        version = check_version(handshake.query.get("version"), self.speaks)
        if self.speaks != PROTOCOL and isinstance(version, Refused):
            return version
        return await self.service.admit(handshake)

    async def point_at(self, upstream: SimulatedUpstream) -> None:
        """Change the provider."""
        await self.store.update_provider(ADA, "ai", ProviderPatch(base_url=upstream.openai_url))

    async def wait_heard(self) -> None:
        """Wait until the control plane serves by the store's revision."""
        revision = (await self.store.revisions()).revision
        await wait_until(lambda: self.hub.revisions.revision >= revision)

    def options(self, **more: object) -> GatewayOptions:
        """Return the options of a gateway."""
        scheme = "ws" if self.ca_file is None else "wss"
        made = GatewayOptions(
            control=f"{scheme}://127.0.0.1:{self.proxy.port}",
            key_file=self.key_file,
            ca_file=self.ca_file,
            name="front",
            drain_timeout=1,
        )
        return attrs.evolve(made, **more)  # type: ignore[arg-type]  # any option

    @asynccontextmanager
    async def front(
        self, line: WebSocketLimits = LINE, patience: RemoteLimits = PATIENCE, **more: object
    ) -> AsyncIterator[Front]:
        """Serve a gateway that may not have anything yet."""
        options = self.options(**more)
        options.check()
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
        async with (
            open_control_source(
                options, limits=patience, authorization=AUTHORIZATION, websocket_limits=line
            ) as source,
            open_gateway(
                source.reloader,
                source.changes,
                clients=source.clients,
                first=source.first,
                first_age=source.first_age,
                settings=options.settings([Address("127.0.0.1", 0)]),
                on_applied=source.on_applied,
                report=source.report,
            ) as gateway,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(serve_http, gateway.handle, listeners)
            yield Front(gateway, url, self.key)
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def loaded(
        self, line: WebSocketLimits = LINE, patience: RemoteLimits = PATIENCE, **more: object
    ) -> AsyncIterator[tuple[Front, Load]]:
        """Serve a gateway, with requests all the time, none of which may fail."""
        async with self.front(line, patience, **more) as front:
            await front.wait_ready(ready=True, connected=True)
            async with open_load(front.url, front.key) as load:
                yield front, load


@asynccontextmanager
async def open_world(
    folder: Path,
    *,
    url: str | None = None,
    line: WebSocketLimits = LINE,
    context: ssl.SSLContext | None = None,
    ca_file: Path | None = None,
    notices: bool = True,
) -> AsyncIterator[World]:
    """Open a control plane with one provider, which is `north`, and one client.

    Without `notices` its store tells nobody of changes.
    """
    listeners: list[trio.abc.Listener[trio.abc.Stream]] = []
    for listener in await trio.open_tcp_listeners(0, host="127.0.0.1"):
        port = listener.socket.getsockname()[1]
        listeners.append(trio.SSLListener(listener, context) if context else listener)
    async with (
        opened(url or f"sqlite:{folder / 'store.db'}") as store,
        open_hub(store if notices else cast("Store", _Mute(store)), gather=0.05) as hub,
        open_gateway_service(
            hub, observer=hub, max_message_bytes=line.max_message_bytes
        ) as service,
        open_fault_proxy("127.0.0.1", port) as proxy,
        trio.open_nursery() as nursery,
    ):
        north = await nursery.start(partial(serve_simulated_upstream, "north"))
        south = await nursery.start(partial(serve_simulated_upstream, "south"))
        for upstream in (north, south):
            upstream.before_word = _slowly
        draft = ProviderDraft(
            name="ai",
            type="openai",
            base_url=north.openai_url,
            keys=(KeyValue(Secret("sk-5ecre7-central")),),
            allow_private=True,
        )
        await store.add_provider(ADA, draft)
        client = (await store.add_client(ADA, "ann")).key
        assert client is not None
        world = World(folder, store, hub, service, proxy, north, south, client.reveal())
        world.ca_file = ca_file
        await world.new_gateway_key()
        serve = partial(serve_websockets, world.service.serve, admit=world.admit, limits=line)
        await nursery.start(serve, listeners)
        yield world
        nursery.cancel_scope.cancel()


class _Mute:
    """A store that tells of no change; else the same."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._bus = ChangeBus()

    def subscribe(self) -> ChangeSubscription:
        return self._bus.subscribe()

    def __getattr__(self, name: str) -> object:
        return getattr(self._store, name)


async def _slowly(_: int) -> None:
    await trio.sleep(0.02)
