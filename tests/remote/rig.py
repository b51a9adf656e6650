"""A control plane in this process, whose connections a test cuts, refuses and takes away."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import trio

from bridgepool import Secret
from bridgepool.remote import (
    MemoryBackend,
    ProviderRow,
    ProviderService,
    RemoteLimits,
    RemoteProviders,
    Revisions,
    open_provider_service,
    open_remote_providers,
)
from bridgepool.transports import ConnectError, HandshakeRefusedError
from bridgepool.transports.memory import MemoryChannel, open_memory_channel_pair
from bridgepool.transports.websocket import Handshake, Refused


def row(number: int = 1, **changes: Any) -> ProviderRow:
    plain = ProviderRow(
        id=str(number),
        name=f"openai-{number}",
        type="openai",
        base_url=f"https://api{number}.example.com/v1",
        keys=(Secret(f"sk-{number}"),),
    )
    return attrs.evolve(plain, **changes)


@attrs.define(eq=False)
class GatedBackend(MemoryBackend):
    """Reads its providers when the test says so."""

    gate: trio.Event = attrs.field(factory=trio.Event)
    readings: int = 0
    cancelled: int = 0

    async def provider_rows(self) -> tuple[Revisions, tuple[ProviderRow, ...]]:
        self.readings += 1
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.cancelled += 1
            raise
        return await super().provider_rows()


@attrs.define(eq=False)
class Plane:
    """A control plane, and the network to it."""

    nursery: trio.Nursery
    backend: MemoryBackend
    service: ProviderService
    key: Secret
    version: str = "1.0"
    down: bool = False
    cut_at_once: bool = False
    """Connections are made and end before a word is said."""
    silent: bool = False
    """Connections are made and nothing is ever said."""
    links: list[MemoryChannel] = attrs.field(factory=list)
    tries: list[float] = attrs.field(factory=list)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[trio.abc.Channel[bytes]]:
        self.tries.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.down:
            raise ConnectError("nobody is there")
        outcome = await self.service.admit(
            Handshake("/", {"version": self.version}, self.key, "memory")
        )
        if isinstance(outcome, Refused):
            raise HandshakeRefusedError(outcome.status, outcome.code, outcome.reason)
        ours, theirs = open_memory_channel_pair()
        if self.cut_at_once:
            ours.break_link()
        elif not self.silent:
            self.nursery.start_soon(self.service.serve, theirs, outcome)
        self.links.append(ours)
        try:
            yield ours
        finally:
            self.links.remove(ours)
            await ours.aclose()

    def cut(self) -> None:
        """Break all connections."""
        for link in self.links:
            link.break_link()


@asynccontextmanager
async def open_plane(backend: MemoryBackend | None = None) -> AsyncIterator[Plane]:
    backend = MemoryBackend() if backend is None else backend
    async with open_provider_service(backend) as service, trio.open_nursery() as nursery:
        yield Plane(nursery, backend, service, backend.add_gateway_key("front-1"))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def follow(
    plane: Plane, limits: RemoteLimits | None = None
) -> AsyncIterator[RemoteProviders]:
    """Follow a control plane; the first session has begun, if one can."""
    async with open_remote_providers(
        plane.connect, gateway="front", instance="i-1", limits=limits or RemoteLimits()
    ) as remote:
        if not plane.down:
            with trio.fail_after(5):
                await remote.changes.receive()
        yield remote
