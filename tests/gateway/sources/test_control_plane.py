"""A gateway follows its control plane: whose key a client sent, whatever the connection does."""

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
import trio.testing

from bridgepool import Secret
from bridgepool.gateway import ControlPlane, UsageRecord, open_control_plane, open_usage_spool
from bridgepool.gateway._usage_sinks import send_the_rest
from bridgepool.gateway.control import MemoryBackend, open_gateway_service
from bridgepool.gateway.providers import (
    AuthorizationUnavailableError,
    Caller,
    Client,
    Clients,
    hash_key,
    new_client_key,
)
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.gateway.proxy._readiness import SourceReport
from bridgepool.gateway.sources._source import Source
from bridgepool.remote import Identity, RemoteLimits, RemoteService, websocket_connector
from bridgepool.transports import ConnectError
from bridgepool.transports.memory import MemoryChannel
from tests.gateway.test_protocol import row


@attrs.define(eq=False)
class Link:
    """The way to one of several control planes, which can be cut."""

    service: RemoteService[ProviderRow] | None
    lines: list[MemoryChannel] = attrs.field(factory=list)

    @asynccontextmanager
    async def connect(self) -> AsyncIterator[trio.abc.Channel[bytes]]:
        await trio.lowlevel.checkpoint()
        if self.service is None:
            raise ConnectError("nobody is there")
        async with self.service.connect(Identity("front", "any")) as channel:
            assert isinstance(channel, MemoryChannel)
            self.lines.append(channel)
            try:
                yield channel
            finally:
                self.lines.remove(channel)

    def move(self, service: RemoteService[ProviderRow] | None) -> None:
        """Cut the connection; the next one goes there."""
        self.service = service
        for channel in self.lines:
            channel.break_link()


class Backend(MemoryBackend):
    def is_live(self, key_id: str) -> bool:
        return True


def new_client(name: str) -> tuple[bytes, Client]:
    key = new_client_key()
    return key.reveal().encode(), Client(id=name, key_hashes=(hash_key(key),))


@asynccontextmanager
async def follow(link: Link) -> AsyncIterator[ControlPlane]:
    async with open_control_plane(link.connect, name="front") as plane:
        await plane.providers.changes.receive()
        yield plane


async def test_clients_are_authorized_by_the_control_plane_and_while_it_is_away(
    autojump_clock: trio.testing.MockClock,
) -> None:
    backend, (ann, bob) = Backend(), (new_client("ann"), new_client("bob"))
    backend.set_clients(Clients([ann[1], bob[1]]))
    async with open_gateway_service(backend) as service, follow(link := Link(service)) as plane:
        assert isinstance(await plane.clients.authorize(ann[0]), Caller)
        assert await plane.clients.authorize(b"bp_nobody") is None
        backend.set_clients(Clients([bob[1]]))
        await plane.providers.changes.receive()
        assert await plane.clients.authorize(ann[0]) is None
        known = await plane.clients.authorize(bob[0])
        link.move(None)
        await trio.sleep(600)
        assert await plane.clients.authorize(bob[0]) == known
        with pytest.raises(AuthorizationUnavailableError):
            await plane.clients.authorize(ann[0])
        link.move(service)
        await plane.providers.changes.receive()
        assert await plane.clients.authorize(ann[0]) is None


async def test_what_changed_while_it_was_away_is_known_from_the_first_notice_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    backend, (token, client) = Backend(), new_client("ann")
    backend.set_clients(Clients([client]))
    async with open_gateway_service(backend) as service, follow(link := Link(service)) as plane:
        assert await plane.clients.authorize(token) is not None
        link.move(None)
        await trio.sleep(1)
        backend.set_clients(Clients())
        link.move(service)
        await plane.providers.changes.receive()
        assert await plane.clients.authorize(token) is None


async def test_a_removed_client_is_not_let_in_again_by_a_control_plane_that_is_behind(
    autojump_clock: trio.testing.MockClock,
) -> None:
    token, client = new_client("ann")
    ahead, behind = (Backend(first_revision=first, epoch="one") for first in (100, 5))
    for backend in (ahead, behind):
        backend.set_clients(Clients([client]))
    async with (
        open_gateway_service(ahead) as first,
        open_gateway_service(behind) as second,
        follow(link := Link(first)) as plane,
    ):
        assert await plane.clients.authorize(token) is not None
        ahead.set_clients(Clients())
        await plane.providers.changes.receive()
        assert await plane.clients.authorize(token) is None
        link.move(second)
        await plane.providers.changes.receive()
        await trio.sleep(10)
        with pytest.raises(AuthorizationUnavailableError):
            await plane.clients.authorize(token)


async def test_providers_and_clients_come_over_one_websocket() -> None:
    backend, (token, client) = MemoryBackend(), new_client("ann")
    backend.set_clients(Clients([client]))
    revision = backend.set_rows([row(1)])
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    connect = websocket_connector(url, backend.add_gateway_key("front-1"))
    with trio.fail_after(60):
        async with (
            open_gateway_service(backend) as service,
            trio.open_nursery() as nursery,
            open_control_plane(connect, name="front") as plane,
        ):
            await nursery.start(partial(service.serve_listeners, listeners))
            await plane.providers.changes.receive()
            snapshot = await plane.providers.reload()
            assert snapshot.providers[0].keys == (Secret("sk-1"),)
            caller = await plane.clients.authorize(token)
            assert isinstance(caller, Caller)
            assert caller.client_id == "ann"
            assert await plane.clients.authorize(new_client("x")[0]) is None
            plane.providers.acknowledge(revision)
            with service.subscribe() as noted:
                while not service.receipts:
                    await noted.receive()
            nursery.cancel_scope.cancel()


async def test_the_last_records_are_sent_although_the_connection_waits_for_its_next_try(
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Else they are lost: a gateway has five seconds for them, and the wait may be ten."""
    kept: list[str] = []

    async def keep(_gateway: str, records: Iterable[UsageRecord]) -> int:
        await trio.lowlevel.checkpoint()
        kept.extend(record.id for record in records)
        return len(kept)

    limits = RemoteLimits(first_delay=1e9, max_delay=1e9)
    async with open_gateway_service(Backend(), keep_usage=keep) as service:
        link = Link(None)
        async with (
            open_usage_spool() as spool,
            open_control_plane(link.connect, name="front", usage=spool, limits=limits) as plane,
        ):
            await trio.sleep(1)
            link.service = service
            spool.add(UsageRecord(id="last", time="t", client="web", provider="ai"))
            await trio.sleep(1)
            assert kept == []
            remote = plane.providers
            source = Source(
                reloader=remote,
                changes=remote.changes,
                clients=plane.clients,
                report=lambda: SourceReport(source="control plane"),
                reconnect=remote.reconnect,
            )
            await send_the_rest(spool, source)
            assert kept == ["last"]
