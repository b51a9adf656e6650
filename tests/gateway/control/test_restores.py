"""Restores, revocations and reconnects: afterwards exactly the good keys are accepted.

A store is put back to backups of itself under a control plane and a gateway, with and without
`bridgepool store restored`, while clients come and go, the control plane is started anew, and the
gateway loses its connection. In the end the gateway has to accept each key that is good in the
store, and no other.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import attrs
import hypothesis
import trio
from hypothesis import strategies as st

from bridgepool import Secret
from bridgepool.gateway.control import Hub, Store, open_gateway_service, open_hub
from bridgepool.gateway.providers import AuthorizationUnavailableError
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.gateway.sources._control_plane import ControlPlane, open_control_plane
from bridgepool.remote import Identity, RemoteLimits, RemoteService
from bridgepool.transports._errors import ConnectError
from bridgepool.transports.memory import MemoryChannel
from tests.gateway.control.backups import Backup, back_up, restore
from tests.gateway.control.stores import ADA, draft, opened

_IS_LONG = os.environ.get("BRIDGEPOOL_LONG") == "1"
# Without shrinking: what fails waits for long.
PHASES = (hypothesis.Phase.explicit, hypothesis.Phase.reuse, hypothesis.Phase.generate)
LIMITS = RemoteLimits(first_delay=0.001, max_delay=0.002, steady_after=0.0)
MOMENT = 0.01
"""Seconds in which something may become known, or may not."""


@attrs.define(eq=False)
class System:
    """A store, the control plane on it, and a gateway that follows that."""

    store: Store
    identity: Identity
    nursery: trio.Nursery
    hub: Hub | None = None
    service: RemoteService[ProviderRow] | None = None
    gateway: ControlPlane = attrs.field(init=False)
    is_cut: bool = False
    lines: list[MemoryChannel] = attrs.field(factory=list)
    clients: dict[str, tuple[str, Secret]] = attrs.field(factory=dict)  # good ones: id -> key
    keys: list[Secret] = attrs.field(factory=list)  # all that there ever were
    backups: list[tuple[Backup, dict[str, tuple[str, Secret]]]] = attrs.field(factory=list)
    running: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    stopped: trio.Event = attrs.field(factory=trio.Event)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[trio.abc.Channel[bytes]]:
        await trio.lowlevel.checkpoint()
        if self.service is None or self.is_cut:
            raise ConnectError("nobody is there")
        async with self.service.connect(self.identity) as channel:
            assert isinstance(channel, MemoryChannel)
            self.lines.append(channel)
            try:
                yield channel
            finally:
                self.lines.remove(channel)

    def cut(self) -> None:
        for line in self.lines:
            line.break_link()

    async def stop(self) -> None:
        if self.service is not None:
            self.service = None
            self.cut()
            self.running.cancel()
            await self.stopped.wait()

    async def start(self) -> None:
        await self.nursery.start(self.serve)

    async def serve(self, *, task_status: trio.TaskStatus[None]) -> None:
        self.stopped = trio.Event()
        with trio.CancelScope() as self.running:
            async with (
                open_hub(self.store, poll_interval=0.02, gather=0.01) as self.hub,
                open_gateway_service(self.hub, observer=self.hub) as self.service,
            ):
                task_status.started()
                await trio.sleep_forever()
        self.stopped.set()

    async def accepts(self, key: Secret) -> bool | None:
        """Return whether the gateway accepts a key; None while it cannot tell."""
        try:
            return await self.gateway.clients.authorize(key.reveal().encode()) is not None
        except AuthorizationUnavailableError:
            return None


Step: TypeAlias = Callable[[System, int], Awaitable[None]]


async def add_client(system: System, number: int) -> None:
    made = await system.store.add_client(ADA, f"client-{len(system.keys)}")
    assert made.key is not None
    system.keys.append(made.key)
    system.clients[made.client.id] = (made.client.keys[0].id, made.key)


async def revoke_client(system: System, number: int) -> None:
    if system.clients:
        name = sorted(system.clients)[number % len(system.clients)]
        await system.store.revoke_client_key(ADA, name, system.clients.pop(name)[0])


async def change_provider(system: System, number: int) -> None:
    row = draft("openai", base_url=f"https://p{number}.example")
    await system.store.apply_providers(ADA, [row])


async def take_backup(system: System, number: int) -> None:
    system.backups.append((await back_up(system.store), dict(system.clients)))


async def put_back(system: System, number: int) -> None:
    if system.backups:
        await ask(system, number)  # so the gateway knows all keys of what is lost
        backup, clients = system.backups[number % len(system.backups)]
        await restore(system.store, backup)
        system.clients = dict(clients)


async def put_back_and_report(system: System, number: int) -> None:
    if system.backups:
        await put_back(system, number)
        await system.store.renew_epoch(ADA)


async def cut_the_connection(system: System, number: int) -> None:
    system.is_cut = False
    system.cut()


async def cut_for_long(system: System, number: int) -> None:
    system.is_cut = True
    system.cut()


async def start_anew(system: System, number: int) -> None:
    await system.stop()
    await system.start()


async def be_down(system: System, number: int) -> None:
    await system.stop()


async def be_up(system: System, number: int) -> None:
    if system.service is None:
        await system.start()


async def ask(system: System, number: int) -> None:
    for key in system.keys:
        await system.accepts(key)


async def wait(system: System, number: int) -> None:
    await trio.sleep(MOMENT)


STEPS: tuple[Step, ...] = (
    add_client, revoke_client, change_provider, take_backup, put_back, put_back_and_report,
    cut_the_connection, cut_for_long, start_anew, be_down, be_up, ask, wait,
)  # fmt: skip


async def run(url: str, script: list[tuple[Step, int]]) -> None:
    async with opened(url) as store:
        for client in await store.list_clients():
            await store.remove_client(ADA, client.id)
        made = await store.create_gateway_key(ADA, "front")
        async with trio.open_nursery() as nursery:
            system = System(store, Identity("front", made.access_key.id), nursery)
            await system.start()
            async with open_control_plane(
                system.connect, name="front", limits=LIMITS
            ) as system.gateway:
                for step, number in [(add_client, 0), (take_backup, 0), *script]:
                    await step(system, number)
                await be_up(system, 0)
                system.is_cut = False
                await check(system)
            nursery.cancel_scope.cancel()


async def check(system: System) -> None:
    """Wait until the gateway is at the store's revision, and ask it about all keys."""
    good = {key.reveal() for _, key in system.clients.values()}
    present, remote = await system.store.revisions(), system.gateway.providers
    with trio.fail_after(60):
        while True:
            present = await system.store.revisions()
            assert system.hub is not None
            if system.hub.revisions == present and remote.status.connected:
                snapshot = await remote.reload()
                if (snapshot.revision, snapshot.epoch) == (present.revision, present.epoch):
                    break
            await trio.sleep(0.005)
    for key in system.keys:
        with trio.fail_after(60):
            while (answer := await system.accepts(key)) is None:  # noqa: ASYNC110 -- asked later
                await trio.sleep(0.05)
        assert answer == (key.reveal() in good), present


def test_after_restores_revocations_and_reconnects_exactly_the_good_keys_are_accepted(
    database_url: str,
) -> None:
    scripts = st.lists(st.tuples(st.sampled_from(STEPS), st.integers(0, 5)), max_size=14)

    @hypothesis.settings(max_examples=150 if _IS_LONG else 30, deadline=None, phases=PHASES)
    @hypothesis.given(scripts)
    @hypothesis.example([(add_client, 0), (put_back, 0)])
    @hypothesis.example([(revoke_client, 0), (put_back_and_report, 0)])
    def holds(script: list[tuple[Step, int]]) -> None:
        trio.run(run, database_url, script)

    holds()
