"""A control plane for tests: `MemoryBackend` behind real websockets, which can go and come."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from bridgepool import Secret
from bridgepool.gateway.control import MemoryBackend, open_gateway_service
from bridgepool.gateway.demo._upstream import SimulatedUpstream
from bridgepool.gateway.providers import (
    Client,
    Clients,
    hash_key,
    new_client_key,
)
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote import Acknowledge, RemoteService


def row(upstream: SimulatedUpstream, name: str = "ai", **fields: object) -> ProviderRow:
    """A row of type openai that is this upstream."""
    made = ProviderRow(
        id=f"id-{name}",
        name=name,
        type="openai",
        base_url=upstream.openai_url,
        keys=(Secret("sk-5ecre7-central"),),
        allow_private=True,
    )
    return attrs.evolve(made, **fields)  # type: ignore[arg-type]  # tests name the fields right


@attrs.define(eq=False)
class Plane:
    """A control plane that is served on one port whenever it is up."""

    port: int
    folder: Path
    backend: MemoryBackend = attrs.field(factory=MemoryBackend)
    client_key: Secret = attrs.field(factory=new_client_key)
    service: RemoteService[ProviderRow] | None = attrs.field(default=None, init=False)

    @property
    def key_file(self) -> Path:
        """Holds the key of the gateway."""
        return self.folder / "gateway.key"

    def __attrs_post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.key_file.write_text(self.backend.add_gateway_key("front").reveal() + "\n")
        self.key_file.chmod(0o600)
        self.know("ada")

    def know(self, *names: str) -> None:
        """Let these clients in, all by the one client key of this plane; nobody for no names."""
        rows = [Client(id=name, key_hashes=(hash_key(self.client_key),)) for name in names]
        self.backend.set_clients(Clients(rows))

    def options(self, *more: str, scheme: str = "ws") -> tuple[str, ...]:
        """Return the options of a gateway that follows it."""
        url = f"{scheme}://127.0.0.1:{self.port}"
        return ("--control", url, "--key-file", str(self.key_file), "--name", "front", *more)

    @asynccontextmanager
    async def up(self, context: ssl.SSLContext | None = None) -> AsyncIterator[None]:
        """Be served for as long as the block lasts."""
        listeners: list[trio.abc.Listener[trio.abc.Stream]] = []
        for listener in await trio.open_tcp_listeners(self.port, host="127.0.0.1"):
            listeners.append(trio.SSLListener(listener, context) if context else listener)
        async with open_gateway_service(self.backend) as service, trio.open_nursery() as nursery:
            self.service = service
            await nursery.start(service.serve_listeners, listeners)
            try:
                yield
            finally:
                nursery.cancel_scope.cancel()

    async def wait_receipt(self, revision: int) -> Acknowledge:
        """Wait until a gateway has acknowledged this revision."""
        assert self.service is not None
        with trio.fail_after(90), self.service.subscribe() as noted:
            while True:
                for receipt in self.service.receipts.values():
                    if receipt.revision == revision:
                        return receipt
                await noted.receive()


async def make_plane(folder: Path) -> Plane:
    """Make a control plane with a port of its own; it is not up yet."""
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port: int = listener.socket.getsockname()[1]
    await listener.aclose()
    return Plane(port, folder)
