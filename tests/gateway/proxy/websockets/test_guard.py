"""A websocket ends with the key of its client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import attrs
import pytest
import trio
from wsproto.events import Ping, Request, TextMessage

from bridgepool.gateway import Outcome
from bridgepool.gateway.limits._model_reader import ModelReader
from bridgepool.gateway.providers import (
    AuthorizationUnavailableError,
    Caller,
    Client,
    ClientRules,
    hash_key,
    new_client_key,
)
from bridgepool.gateway.proxy._model_bodies import feed_models
from bridgepool.http.asgi import asgi_app
from tests.gateway.proxy.rig import open_rig, openai
from tests.gateway.proxy.websockets.peers import Socket, start_upstream
from tests.gateway.proxy.websockets.rig import (
    SERVED,
    SETTINGS,
    Opened,
    Upstream,
    connected,
    create,
    events,
    opened,
)
from tests.http.test_asgi import hypercorn_serving
from tests.waiting import wait_until


async def test_a_key_that_is_revoked_or_expires_ends_its_websocket(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins no new response, and is closed between two messages."""
    monkeypatch.setattr("bridgepool.gateway.proxy.websockets._relay.CHECK_INTERVAL", 0.02)
    async with opened(nursery) as both:
        for rules, reason in (
            (None, "invalid_api_key"),
            ({"expires": "2020-01-01T00:00:00Z"}, "key_expired"),
            ({"providers": ("other",)}, "provider_not_allowed"),
            ({"routes": ("/chat/*",)}, "route_not_allowed"),
        ):
            both.rules()
            async with connected(both) as socket:
                await socket.send_text(create())
                assert await events(socket, 2) == SERVED
                if rules is None:
                    both.rig.set_clients(Client(id="eve", key_hashes=(hash_key(new_client_key()),)))
                else:
                    both.rules(**rules)
                assert await socket.receive_close() == (1008, reason)
        records = await both.rig.wait_records(4)
        assert {record.outcome for record in records} == {Outcome.REFUSED}


@attrs.define(eq=False)
class Authority:
    """Knows one client, or cannot be asked."""

    answer: Caller | Exception | None = attrs.field(factory=lambda: Caller("ada", "k1"))
    asked: int = 0
    has_clients = True

    async def authorize(self, _token: bytes) -> Caller | None:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def wait_asked(self) -> None:
        """Wait until it was asked twice more, so that what came of the first is in force."""
        until = self.asked + 2
        await wait_until(lambda: self.asked >= until)


@asynccontextmanager
async def asked_often(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Opened, Authority, Socket]]:
    """Open a websocket whose key is often looked up, at an authority that tests answer for."""
    monkeypatch.setattr("bridgepool.gateway.proxy.websockets._relay.CHECK_INTERVAL", 0.02)
    authority = Authority()
    async with opened(nursery) as both:
        both.rig.gateway._authorizer = authority
        async with connected(both) as socket:
            yield both, authority, socket


async def test_rules_that_come_while_a_websocket_is_open_hold_from_then_on(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asked_often(nursery, monkeypatch) as (_, authority, socket):
        await socket.send_text(create())
        assert await events(socket, 2) == SERVED
        for rules, found in (
            (ClientRules(models=("o3",)), ["model_not_allowed"]),
            (ClientRules(requests_per_minute=1), SERVED),
            (ClientRules(requests_per_minute=1), ["rate_limited"]),
            (ClientRules(), SERVED),
        ):
            authority.answer = Caller("ada", "k1", rules)
            await authority.wait_asked()
            await socket.send_text(create())
            assert await events(socket, len(found)) == found


async def test_a_message_that_is_held_as_the_rules_go_is_passed_on_whole(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its beginning was dropped, and the provider closed the websocket."""
    async with asked_often(nursery, monkeypatch) as (both, authority, socket):
        authority.answer = Caller("ada", "k1", ClientRules(models=("gpt-5",)))
        await authority.wait_asked()
        message = create()
        await socket.send(TextMessage(message[:20], message_finished=False))
        authority.answer = Caller("ada", "k1")
        for _ in range(2):
            await authority.wait_asked()
        await socket.send(TextMessage(message[20:]))
        assert await events(socket, 2) == SERVED
        assert both.upstream.got == [message]
        for _ in range(2):
            await authority.wait_asked()
        assert both.rig.gateway._uses.bodies.used == 0


async def test_a_response_that_is_running_as_the_rules_go_gives_its_place_back(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asked_often(nursery, monkeypatch) as (both, authority, socket):
        limited = Caller("ada", "k1", ClientRules(max_concurrent=1))
        both.upstream.hold = trio.Event()
        authority.answer = limited
        await authority.wait_asked()
        await socket.send_text(create())
        assert await events(socket, 1) == SERVED[:1]
        authority.answer = Caller("ada", "k1")
        for _ in range(2):
            await authority.wait_asked()
        both.upstream.hold.set()
        assert await events(socket, 1) == SERVED[1:]
        authority.answer = limited
        for _ in range(2):
            await authority.wait_asked()
        await socket.send_text(create())
        assert await events(socket, 2) == SERVED


async def test_a_message_that_is_being_read_as_the_rules_go_holds_no_place_after_its_response(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its response was counted after the use of the client had ended, so it ran for ever."""
    reading, read = trio.Event(), trio.Event()

    async def feed(reader: ModelReader, data: bytes) -> None:
        reading.set()
        await read.wait()
        await feed_models(reader, data)

    monkeypatch.setattr("bridgepool.gateway.proxy.websockets._use.feed_models", feed)
    async with asked_often(nursery, monkeypatch) as (both, authority, socket):
        limited = authority.answer = Caller("ada", "k1", ClientRules(max_concurrent=1))
        await authority.wait_asked()
        message = create()
        await socket.send(TextMessage(message[:20], message_finished=False))
        await reading.wait()
        authority.answer = Caller("ada", "k1")
        await authority.wait_asked()
        read.set()
        await socket.send(TextMessage(message[20:]))
        assert await events(socket, 2) == SERVED
        authority.answer = limited
        await authority.wait_asked()
        await socket.send_text(message)
        assert await events(socket, 2) == SERVED
        assert both.upstream.got == [message, message]


async def test_while_nobody_can_say_whose_a_key_is_nothing_begins_and_nothing_ends(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with asked_often(nursery, monkeypatch) as (both, authority, socket):
        both.upstream.hold = trio.Event()
        await socket.send_text(create())
        assert await events(socket, 1) == SERVED[:1]
        authority.answer = AuthorizationUnavailableError(1.0)
        await authority.wait_asked()
        await socket.send_text(create())
        assert await events(socket, 1) == ["authorization_unavailable"]
        both.upstream.hold.set()
        assert await events(socket, 1) == SERVED[1:], "what runs goes on"
        authority.answer = Caller("ada", "k1")
        await authority.wait_asked()
        await socket.send_text(create())
        assert await events(socket, 2) == SERVED
        authority.answer = Caller("eve", "k2")
        assert await socket.receive_close() == (1008, "invalid_api_key")
        assert len(both.upstream.got) == 2


async def test_a_client_that_reads_nothing_does_not_keep_its_websocket(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never comes between two messages, so the one that is under way is cut."""
    monkeypatch.setattr("bridgepool.gateway.proxy.websockets._relay.CHECK_INTERVAL", 0.02)
    monkeypatch.setattr("bridgepool.gateway.proxy.websockets._relay._LEAVE_TIMEOUT", 0.1)

    async def flood(socket: Socket, _request: Request) -> None:
        with suppress(trio.BrokenResourceError):
            await socket.send_text("x" * 15_000_000)

    north = await start_upstream(nursery, flood)
    async with open_rig(openai(north.url), nursery=nursery, settings=SETTINGS) as rig:
        both = Opened(rig, Upstream())
        both.rules()
        async with connected(both) as socket:
            await rig.wait_requests(1)
            both.rules(expires="2020-01-01T00:00:00Z")
            with trio.fail_after(60):
                while not rig.records:
                    await socket.send(Ping(b"alive"))
                    await trio.sleep(0.01)
    assert rig.records[0].code == "key_expired"


async def test_rules_and_revocations_hold_under_an_asgi_server_as_well(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bridgepool.gateway.proxy.websockets._relay.CHECK_INTERVAL", 0.02)
    async with (
        opened(nursery) as both,
        hypercorn_serving(asgi_app(both.rig.gateway.handle)) as port,
    ):
        both.rig.address = f"127.0.0.1:{port}"
        both.rules(providers=("other",))
        assert await both.refusal() == (403, "provider_not_allowed")
        both.rules(models=("gpt-*",), requests_per_minute=1)
        async with connected(both) as socket:
            await socket.send_text(create("o3"))
            assert await events(socket, 1) == ["model_not_allowed"]
            await socket.send_text(create())
            assert await events(socket, 2) == SERVED
            await socket.send_text(create())
            assert await events(socket, 1) == ["rate_limited"]
            assert await both.refusal() == (429, "rate_limited")
            both.rules(expires="2020-01-01T00:00:00Z")
            assert await socket.receive_close() == (1008, "key_expired")
