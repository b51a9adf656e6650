"""An owner in this process, whose connections a test cuts, refuses and takes away."""

import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager

import attrs
import trio
import trio.testing

from bridgepool import MemoryReloader, ProviderSnapshot, Secret
from bridgepool.remote import (
    Handshake,
    Identity,
    Refused,
    RemoteLimits,
    RemoteProviders,
    RemoteService,
    RowFormat,
    UnusableRowError,
    open_remote_providers,
    open_remote_service,
)
from bridgepool.transports._errors import ConnectError, HandshakeRefusedError
from bridgepool.transports.memory import MemoryChannel, open_memory_channel_pair


@attrs.frozen
class Depot:
    """A provider type that has nothing to do with AI."""

    id: str
    name: str
    city: str
    door: Secret = attrs.field(factory=lambda: Secret("door"))


def usable(depot: Depot) -> Depot:
    if depot.city == "?":
        raise UnusableRowError("city: is not known here")
    return depot


def itself(depot: Depot) -> Depot:
    return depot


ROWS = RowFormat[Depot](
    Depot, itself, usable, id=lambda depot: depot.id, name=lambda depot: depot.name
)


def row(number: int = 1, **changes: object) -> Depot:
    plain = Depot(str(number), f"depot-{number}", f"city-{number}", Secret(f"door-{number}"))
    return attrs.evolve(plain, **changes)  # type: ignore[arg-type]  # tests name the fields right


UNKNOWN_KEY = Refused(401, "unknown_key", "this key is not known")


@attrs.define(eq=False)
class Owner:
    """What is served: depots, and the keys of followers."""

    first_revision: int = 1
    broken: bool = False
    """Keys cannot be looked up."""
    source: MemoryReloader[Depot] = attrs.field(init=False)
    keys: dict[str, Identity] = attrs.field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.source = MemoryReloader(ProviderSnapshot((), self.first_revision))

    @property
    def revision(self) -> int:
        assert self.source.snapshot.revision is not None
        return self.source.snapshot.revision

    def set_rows(self, rows: Iterable[Depot]) -> int:
        """Set the depots; return the revision at which they are in force."""
        self.source.replace(ProviderSnapshot(rows, self.revision + 1))
        return self.revision

    def move(self) -> int:
        """Move the revision alone: something else changed."""
        return self.set_rows(self.source.snapshot.providers)

    def add_key(self, name: str) -> Secret:
        key = secrets.token_hex(8)
        self.keys[key] = Identity(name, key_id=f"id-{key[:4]}")
        return Secret(key)

    def revoke(self, key_id: str) -> int:
        """Revoke a key, which ends its sessions; return the revision after it."""
        self.keys = {key: each for key, each in self.keys.items() if each.key_id != key_id}
        return self.move()

    async def admit(self, handshake: Handshake) -> Identity | Refused:
        await trio.lowlevel.checkpoint()
        if self.broken:
            raise OSError("no database")
        if handshake.bearer is None:
            return Refused(401, "no_key", "send a key")
        return self.keys.get(handshake.bearer.reveal(), UNKNOWN_KEY)

    def is_live(self, identity: Identity) -> bool:
        return identity in self.keys.values()


@asynccontextmanager
async def open_service(owner: Owner) -> AsyncIterator[RemoteService[Depot]]:
    with owner.source.subscribe() as changes:
        async with open_remote_service(
            ROWS, owner.source, changes, admit=owner.admit, is_live=owner.is_live
        ) as service:
            yield service


@attrs.define(eq=False)
class Plane:
    """An owner, and the network to it."""

    nursery: trio.Nursery
    owner: Owner
    service: RemoteService[Depot]
    key: Secret
    version: str = "1.0"
    down: bool = False
    cut_at_once: bool = False
    """Connections are made and end before a message is sent."""
    silent: bool = False
    """Connections are made and nothing is ever sent."""
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
async def open_plane(owner: Owner | None = None) -> AsyncIterator[Plane]:
    owner = Owner() if owner is None else owner
    async with open_service(owner) as service, trio.open_nursery() as nursery:
        await trio.testing.wait_all_tasks_blocked()
        yield Plane(nursery, owner, service, owner.add_key("front-1"))
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def follow(
    plane: Plane, limits: RemoteLimits | None = None
) -> AsyncIterator[RemoteProviders[Depot]]:
    """Follow an owner; the first session has begun, if one can, and is at its revision."""
    async with open_remote_providers(
        plane.connect, ROWS, name="front", instance="i-1", limits=limits or RemoteLimits()
    ) as remote:
        if not plane.down:
            with trio.fail_after(5):
                await remote.changes.receive()
                while remote.status.revision != plane.owner.revision:
                    await remote.changes.receive()
        yield remote
