"""Who knows only the page of the protocol can talk to a control plane."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio

from bridgepool.gateway.control import MemoryBackend, open_gateway_service
from bridgepool.gateway.providers import Client, Clients, hash_key, new_client_key
from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote import RemoteService
from tests.gateway.test_protocol import row

from .foreign import ForeignClient, open_foreign_client

_HELLO = {
    "name": "foreign",
    "instance": "1",
    "software": "other/1",
    "services": {"clients": "1.0"},
    "unknown": [{"x": None}],
}


@asynccontextmanager
async def _connect(
    backend: MemoryBackend, most: int = 16 << 20
) -> AsyncIterator[tuple[ForeignClient, RemoteService[ProviderRow]]]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listeners[0].socket.getsockname()[1]
    with trio.fail_after(60):
        async with (
            open_gateway_service(backend, max_message_bytes=most) as service,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(service.serve_listeners, listeners)
            async with open_foreign_client(port) as client:
                yield client, service
            nursery.cancel_scope.cancel()


async def test_a_client_written_from_the_page_goes_through_all_of_a_session() -> None:
    backend = MemoryBackend()
    key, token = backend.add_gateway_key("front-1"), new_client_key()
    backend.set_clients(Clients([Client(id="ann", key_hashes=(hash_key(token),))]))
    revision = backend.set_rows([row(1)])
    async with _connect(backend) as (client, service):
        assert await client.shake_hands("/?version=1.0", key.reveal()) == (101, b"")
        early = await client.call(1, "get_rows", {})
        assert early["code"] == "hello_first"
        welcome = await client.call(1, "hello", _HELLO)
        assert welcome["protocol"] == "1.0"
        assert welcome["services"] == {"clients": "1.0"}
        assert (await client.call(2, "hello", _HELLO))["code"] == "hello_twice"
        clients = await client.call(3, "clients.watch", {})
        assert clients == {"revision": revision - 1, "epoch": backend.epoch}
        now = await client.call(3, "watch", {"send": True})
        assert (now["revision"], now["rows"]) == (revision, None)
        rows = (await client.call(4, "get_rows", {"known": None}))["rows"]
        assert [(r["id"], r["name"], r["body"]["keys"], r["body"]["enabled"]) for r in rows] == [
            ("1", row(1).name, ["sk-1"], True)
        ]
        assert (await client.call(5, "get_rows", {"known": now["set"]}))["rows"] is None

        backend.set_rows([row(1), row(2)])
        kind, method, (changed,) = await client.receive()
        assert (kind, method, len(changed["rows"])) == (2, "changed", 2)
        receipt = {"revision": revision + 1, "rejected": [{"name": "a", "reason": "b"}]}
        await client.send([2, "acknowledge", [receipt]])
        assert (await client.call(6, "get_rows", {}))["revision"] == revision + 1
        assert [r.revision for r in service.receipts.values()] == [revision + 1]

        found = await client.call(7, "clients.authorize", {"token": token.reveal()})
        assert found["client_id"] == "ann"
        nobody = await client.call(8, "clients.authorize", {"token": "bp_nobody"})
        assert (nobody["client_id"], nobody["key_id"]) == (None, None)
        assert (await client.call(9, "later", {}))["code"] == "unknown_method"
        assert (await client.call(9, "clients.authorize", {"token": ""}))[
            "code"
        ] == "invalid_params"
        await client.send([2, "cancel", [{"id": 77}]])
        await client.send([2, "later", [{}]])

        (session,) = service.sessions.values()
        assert session.name == "foreign"
        backend.revoke_gateway_key(session.identity.key_id)
        kind, method, (goodbye,) = await client.receive()
        if method == "changed":  # a notice of the move may come first, without providers
            assert goodbye["rows"] is None
            kind, method, (goodbye,) = await client.receive()
        assert (kind, method, goodbye["code"]) == (2, "goodbye", "key_revoked")


async def test_a_goodbye_of_the_client_ends_the_session() -> None:
    backend = MemoryBackend()
    async with _connect(backend) as (client, service):
        await client.shake_hands("/?version=1.0", backend.add_gateway_key("a").reveal())
        await client.call(0, "hello", _HELLO)
        await client.send([2, "goodbye", [{"code": "shutting_down", "reason": "over"}]])
        assert await client.receive() is None
        assert client.closed == 1000
        with service.subscribe() as noted:
            while service.sessions:
                await noted.receive()


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"", "malformed_frame"),
        ([3, "x", [{}]], "malformed_frame"),
        ([0, -1, "x", [{}]], "malformed_frame"),
        ([0, 1, "x" * 65, [{}]], "malformed_frame"),
    ],
)
async def test_who_breaks_the_protocol_is_told_and_disconnected(frame: object, code: str) -> None:
    backend = MemoryBackend()
    async with _connect(backend) as (client, _):
        await client.shake_hands("/?version=1.0", backend.add_gateway_key("a").reveal())
        await client.send(frame)
        kind, method, (goodbye,) = await client.receive()
        assert (kind, method, goodbye["code"]) == (2, "goodbye", code)
        assert await client.receive() is None
        assert client.closed == 1000


async def test_a_frame_over_the_limit_is_told_by_the_close_code_alone() -> None:
    backend = MemoryBackend()
    async with _connect(backend, 1000) as (client, _):
        await client.shake_hands("/?version=1.0", backend.add_gateway_key("a").reveal())
        await client.send(bytes(1001))
        assert await client.receive() is None
        assert client.closed == 1009


@pytest.mark.parametrize(
    ("path", "has_key", "status", "code"),
    [
        ("/?version=1.1", True, 426, "version_refused"),
        ("/?version=2.0", True, 426, "version_refused"),
        ("/?version=0.9", True, 426, "version_refused"),
        ("/?version=1", True, 400, "version_malformed"),
        ("/", True, 400, "version_malformed"),
        ("/?version=1.0", False, 401, "no_key"),
    ],
)
async def test_refusals_are_a_status_a_code_and_a_reason(
    path: str, has_key: bool, status: int, code: str
) -> None:
    backend = MemoryBackend()
    key = backend.add_gateway_key("a").reveal() if has_key else None
    async with _connect(backend) as (client, _):
        answered, body = await client.shake_hands(path, key)
        assert answered == status
        told = json.loads(body)
        assert told["code"] == code
        assert told["reason"]
