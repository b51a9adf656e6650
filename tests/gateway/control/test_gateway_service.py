"""The control plane's end of a session with a gateway: keys, and whose key a client sent."""

import math
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest
import trio
import trio.testing

from bridgepool import ProviderSnapshot, Secret
from bridgepool.gateway import UsageRecord
from bridgepool.gateway._protocol import (
    MAX_USAGE_RECORDS,
    Authorization,
    Authorize,
    ClientsRevision,
    LeasedShares,
    LeaseShares,
    StoreUsage,
    UsageStored,
    WatchClients,
)
from bridgepool.gateway.control import (
    CommitUnknownError,
    MemoryBackend,
    StoreUnavailableError,
    open_gateway_service,
)
from bridgepool.gateway.limits._share_pool import ShareDemand
from bridgepool.gateway.providers import Caller, Client, Clients, hash_key, new_client_key
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote import Admitted, Handshake, Identity, Refused, RemoteError, RemoteService
from bridgepool.remote._messages import Hello, RowSet, Watch, Welcome
from bridgepool.remote._rpc import NoticeHandler, RpcPeer, open_rpc
from tests.gateway.test_protocol import row

HELLO = Hello(name="front", instance="i", software="test/1", services={"clients": "1.0"})

DEMAND = ShareDemand(scope="client", id="a", rule="tokens_per_minute", limit=10, held=0, demand=1)


def handshake(bearer: Secret | None) -> Handshake:
    return Handshake("/", {"version": "1.0"}, bearer, "192.0.2.1")


def ann() -> tuple[str, Clients]:
    key = new_client_key()
    return key.reveal(), Clients([Client(id="ann", key_hashes=(hash_key(key),))])


@asynccontextmanager
async def talk(
    service: RemoteService[ProviderRow], heard: list[object] | None = None
) -> AsyncIterator[RpcPeer]:
    """Begin a session, frame by frame."""
    heard = [] if heard is None else heard
    notices: dict[str, NoticeHandler[Any]] = {
        "changed": NoticeHandler(RowSet, heard.append),
        "clients.changed": NoticeHandler(ClientsRevision, heard.append),
    }
    async with (
        service.connect(Identity("front-1", "key")) as channel,
        open_rpc(channel, notices=notices) as rpc,
    ):
        await rpc.call("hello", HELLO, Welcome)
        yield rpc


async def test_usage_is_answered_once_it_is_kept_and_sent_again_when_it_cannot_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    kept: list[tuple[str, UsageRecord]] = []
    problems: list[Exception] = [StoreUnavailableError("away"), CommitUnknownError()]

    async def keep(gateway: str, records: Iterable[UsageRecord]) -> int:
        await trio.lowlevel.checkpoint()
        if problems:
            raise problems.pop(0)
        kept.extend((gateway, record) for record in records)
        return len(kept)

    hello = attrs.evolve(HELLO, services={"clients": "1.0", "usage": "1.0"})
    records = (UsageRecord(time="t", client="web", provider="ai", tools=("shell",)),)
    async with (
        open_gateway_service(Open(), keep_usage=keep) as service,
        service.connect(Identity("front-1", "key")) as channel,
        open_rpc(channel) as rpc,
    ):
        await rpc.call("hello", hello, Welcome)
        for _ in range(2):
            with pytest.raises(RemoteError, match="send them again later") as refused:
                await rpc.call("usage.store", StoreUsage(records), UsageStored)
            assert refused.value.code == "unavailable"
        assert caplog.text.count("usage records not stored") == 1
        assert await rpc.call("usage.store", StoreUsage(records), UsageStored) == UsageStored(1)
        too_many = StoreUsage(records * (MAX_USAGE_RECORDS + 1))
        with pytest.raises(RemoteError) as refused:
            await rpc.call("usage.store", too_many, UsageStored)
        assert refused.value.code == "invalid_params"
    assert kept == [("front-1", records[0])]
    async with (
        open_gateway_service(Open()) as service,
        service.connect(Identity("front-1", "key")) as channel,
        open_rpc(channel) as rpc,
    ):
        with pytest.raises(RemoteError) as refused:
            await rpc.call("hello", hello, Welcome)
        assert refused.value.code == "service_unknown"


@attrs.define(eq=False)
class Open(MemoryBackend):
    """Takes any key of a gateway for a good one."""

    def is_live(self, key_id: str) -> bool:
        return True


async def test_a_gateway_with_a_good_key_is_let_in_under_the_name_of_its_key() -> None:
    backend = MemoryBackend()
    key = backend.add_gateway_key("front-1")
    async with open_gateway_service(backend) as service:
        outcome = await service.admit(handshake(key))
        assert isinstance(outcome, Admitted)
        assert outcome.identity.name == "front-1"
        assert backend.is_live(outcome.identity.key_id)


async def test_the_port_for_gateways_takes_one_path_and_no_web_page_of_another_host() -> None:
    backend = MemoryBackend()
    key = backend.add_gateway_key("front-1")
    token = f"Bearer {key.reveal()}"
    async with open_gateway_service(backend) as service, trio.open_nursery() as nursery:
        [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(service.serve_listeners, [listener])
        port = listener.socket.getsockname()[1]

        async def ask(path: str, *headers: str) -> bytes:
            lines = [f"GET {path}?version=1.0 HTTP/1.1", f"Host: 127.0.0.1:{port}", *headers]
            lines += ["Connection: Upgrade", "Upgrade: websocket", f"Authorization: {token}"]
            lines += ["Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
            async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
                await stream.send_all("\r\n".join([*lines, "", ""]).encode())
                with trio.fail_after(60):
                    data = await stream.receive_some()
                    while not data.startswith(b"HTTP/1.1 101") and b"}" not in data:
                        data += await stream.receive_some()
            return data

        assert (await ask("/")).startswith(b"HTTP/1.1 101 ")
        own = f"Origin: http://127.0.0.1:{port}"
        assert (await ask("/", own)).startswith(b"HTTP/1.1 101 ")
        for path in ("/other", "//", "/healthz"):
            assert b'"wrong_path"' in await ask(path)
        for origin in ("https://evil.example", "null", f"http://127.0.0.1:{port}.evil.example"):
            assert b'"foreign_origin"' in await ask("/", f"Origin: {origin}")
        assert b'"foreign_origin"' in await ask("/", own, "Origin: https://evil.example")
        nursery.cancel_scope.cancel()


async def test_an_unknown_key_a_revoked_one_and_none_are_refused_with_what_to_do() -> None:
    backend = MemoryBackend()
    key = backend.add_gateway_key("front-1")
    async with open_gateway_service(backend) as service:
        admitted = await service.admit(handshake(key))
        assert isinstance(admitted, Admitted)
        backend.revoke_gateway_key(admitted.identity.key_id)
        stranger = MemoryBackend().add_gateway_key("x")
        for bearer in (key, stranger, Secret("bpg_nonsense"), Secret("\udcff")):
            outcome = await service.admit(handshake(bearer))
            assert isinstance(outcome, Refused)
            assert (outcome.status, outcome.code) == (401, "unknown_key")
            assert bearer.reveal() not in outcome.reason
        outcome = await service.admit(handshake(None))
        assert isinstance(outcome, Refused)
        assert (outcome.status, outcome.code) == (401, "no_key")


async def test_a_client_is_authorized_at_the_clients_revision_of_the_answer(
    autojump_clock: trio.testing.MockClock,
) -> None:
    backend, (key, clients) = Open(), ann()
    async with open_gateway_service(backend) as service, talk(service) as rpc:
        revision = backend.set_clients(clients)
        found = await rpc.call("clients.authorize", Authorize(Secret(key)), Authorization)
        assert (found.client_id, found.clients) == ("ann", revision)
        nobody = await rpc.call("clients.authorize", Authorize(Secret("bp_x")), Authorization)
        assert nobody == Authorization(clients=revision, epoch=backend.epoch)


async def test_a_new_clients_revision_comes_before_the_revision_that_has_it(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[object] = []
    backend, (_, clients) = Open(), ann()
    async with open_gateway_service(backend) as service, talk(service, heard) as rpc:
        before = await rpc.call("clients.watch", WatchClients(), ClientsRevision)
        rows = await rpc.call("watch", Watch(send=True), RowSet)
        assert before.revision == backend.revisions.clients
        with_row = backend.set_rows([row(1)])
        revision = backend.set_clients(clients)
        await trio.sleep(1)
        assert heard[0] == ClientsRevision(revision, backend.epoch)
        assert isinstance(heard[1], RowSet)
        assert (heard[1].revision, heard[1].set) == (revision, rows.set + 1)
        again = backend.set_rows([])
        await trio.sleep(1)
        only = RowSet(again, rows.set + 2, (), epoch=backend.epoch)
        assert heard[2:] == [only], "no client has changed"
        assert with_row < revision < again


async def test_a_clients_revision_comes_first_also_to_a_gateway_that_is_slow_to_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[object] = []
    backend = Open(epoch="one")
    async with open_gateway_service(backend) as service, talk(service, heard) as rpc:
        await rpc.call("watch", Watch(send=True), RowSet)
        (session,) = service._open
        assert session.rpc is not None
        service.replace_providers(ProviderSnapshot((), 50, "one"))
        session.publish_changed()  # not sent yet when the next revision comes
        session.rpc.publish("clients.changed", ClientsRevision(51))
        service.replace_providers(ProviderSnapshot((), 51, "one"))
        await trio.sleep(1)
        assert heard.index(ClientsRevision(51)) < heard.index(RowSet(51, 1, epoch="one"))


async def test_a_gateway_that_did_not_ask_is_sent_no_clients_revision(
    autojump_clock: trio.testing.MockClock,
) -> None:
    heard: list[object] = []
    backend, (_, clients) = Open(), ann()
    async with open_gateway_service(backend) as service, talk(service, heard) as rpc:
        await rpc.call("watch", Watch(send=True), RowSet)
        revision = backend.set_clients(clients)
        await trio.sleep(1)
        assert [each.revision for each in heard if isinstance(each, RowSet)] == [revision]
        assert len(heard) == 1


async def test_a_backend_that_fails_costs_a_call_and_not_the_session(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(Open):
        async def authorize(self, token: Secret) -> Caller | None:
            raise OSError("secret place")

    async with open_gateway_service(Failing()) as service, talk(service) as rpc:
        with pytest.raises(RemoteError) as caught:
            await rpc.call("clients.authorize", Authorize(Secret("bp_x")), Authorization)
        assert caught.value.code == "unavailable"
        assert "secret place" not in str(caught.value)
        await rpc.call("watch", Watch(), RowSet)


@pytest.mark.parametrize(
    "demand",
    [
        attrs.evolve(DEMAND, limit=math.nan),
        attrs.evolve(DEMAND, held=math.inf),
        attrs.evolve(DEMAND, demand=-1.0),
        attrs.evolve(DEMAND, limit=1e308, demand=1e308),  # reports of others failed, too
        attrs.evolve(DEMAND, held=-1e303),  # nothing could be drawn of any budget
        attrs.evolve(DEMAND, id="a\0"),  # nor here, in PostgreSQL
        attrs.evolve(DEMAND, id="a" * 1000),
        attrs.evolve(DEMAND, scope="everybody"),
    ],
)
async def test_a_report_of_what_cannot_be_is_refused(demand: ShareDemand) -> None:
    async with open_gateway_service(Open()) as service, talk(service) as rpc:
        with pytest.raises(RemoteError) as refused:
            await rpc.call("clients.lease", LeaseShares((demand,)), LeasedShares)
        assert refused.value.code == "invalid_params"
