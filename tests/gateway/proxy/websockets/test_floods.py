"""Peers that send as many frames, or begin as many websockets, as they can."""

from __future__ import annotations

from typing import Any

import attrs
import trio
from wsproto.events import AcceptConnection, Ping, Pong, Request, TextMessage

from bridgepool.gateway.limits._limiter import Costs, Limiter, Scope
from bridgepool.gateway.providers import OPENAI, Caller, ClientRules
from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.gateway.proxy._client_use import ClientUses
from bridgepool.gateway.proxy._replay import ReplayBudget
from bridgepool.gateway.proxy.websockets._limits import WebSocketLimits
from bridgepool.gateway.proxy.websockets._log import SocketLog
from bridgepool.gateway.proxy.websockets._use import SocketUse
from bridgepool.gateway.usage._socket_reader import SocketEvent
from bridgepool.http import DataPiece, FrameScanner, Opcode, encode_frame
from tests.gateway.proxy.rig import open_rig, openai
from tests.gateway.proxy.websockets.peers import Socket, connect_socket, start_upstream
from tests.gateway.proxy.websockets.rig import (
    BEARER,
    RESPONSES,
    SERVED,
    SETTINGS,
    Opened,
    Upstream,
    connected,
    create,
    events,
    opened,
)
from tests.gateway.proxy.websockets.test_websockets import OPEN


async def test_of_many_pings_at_once_a_few_are_answered_and_the_last_one_is(
    nursery: trio.Nursery,
) -> None:
    """Each was answered by a write of its own: a byte of pings took 9 us of the gateway's CPU."""
    pongs: list[bytes] = []

    async def flood(socket: Socket, _request: Request) -> None:
        await socket.stream.send_all(encode_frame(Opcode.PING, b"") * 20_000)
        await socket.send(TextMessage("message"), Ping(b"last"))
        while b"last" not in pongs[-1:]:
            socket.connection.receive_data(bytes(await socket.stream.receive_some()))
            events = list(socket.connection.events())
            pongs.extend(bytes(event.payload) for event in events if isinstance(event, Pong))
        await socket.send_text("answered")

    north = await start_upstream(nursery, flood)
    async with (
        open_rig(openai(north.url), nursery=nursery, settings=OPEN) as rig,
        connect_socket(rig.address) as (socket, _),
    ):
        assert await socket.receive() == "message"
        assert await socket.receive() == "answered"
    assert len(pongs) < 5_000


async def test_responses_that_a_provider_begins_and_never_ends_take_no_memory_without_end() -> None:
    """1 MB of their first messages took 30 MB, for as long as the websocket was open."""
    [route] = [each for each in OPENAI.routes if each.path == b"/realtime"]
    messages = route.messages
    assert messages is not None
    record = AccessRecord("GET", "r-1", "")
    caller = Caller("ada", "k1", ClientRules(max_concurrent=1000, tokens_per_minute=10**9))
    uses = ClientUses()
    use = SocketUse(caller, uses, OPENAI, messages, record, is_first=True)
    log = SocketLog(record, messages)
    [last] = FrameScanner(False, 1000).feed(encode_frame(Opcode.TEXT, b"{}"))
    assert isinstance(last, DataPiece)
    for _ in range(2000):
        assert await use.note(SocketEvent("response.created", None)) is None
        log.note_provider(SocketEvent("response.created", None), last)
    assert len(use._running) == len(log._running) == 100
    use.end()
    log.end(None)
    again = SocketUse(caller, uses, OPENAI, messages, record, is_first=True)
    for _ in range(100):
        assert await again.note(SocketEvent("response.created", None)) is None


async def test_a_response_without_room_ends_a_websocket_though_the_next_one_has_room(
    nursery: trio.Nursery,
) -> None:
    """All of them have come at once, and the second had no place within the limits."""
    begun, ended = '{"type": "response.created"}', '{"type": "response.done", "response": {}}'

    async def speak(socket: Socket, _request: Request) -> None:
        messages = (begun, begun, ended, begun, ended)
        await socket.send(*[TextMessage(text) for text in messages])
        await socket.next_event()

    north = await start_upstream(nursery, speak)
    async with open_rig(
        openai(north.url), nursery=nursery, settings=SETTINGS, on_usage=lambda _: None
    ) as rig:
        both = Opened(rig, Upstream())
        both.rules(max_concurrent=1)
        async with connected(both, "/ai/v1/realtime?model=m") as socket:
            assert len(await events(socket, 5)) == 5
            assert await socket.receive_close() == (1008, "rate_limited")


async def test_of_responses_that_a_provider_never_begins_few_are_waited_for(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        both.rules(models=("gpt-*",))
        both.upstream.mute = True
        async with connected(both) as socket:
            for _ in range(101):
                await socket.send_text(create())
            assert await events(socket, 1) == ["rate_limited"]
            await both.upstream.wait_messages(100)


async def test_a_response_that_has_not_begun_gives_its_place_back_with_its_websocket(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        both.rules(max_concurrent=1)
        both.upstream.mute = True
        async with connected(both) as socket:
            await socket.send_text(create())
            await both.upstream.wait_messages(1)
        await both.rig.wait_records(1)
        both.upstream.mute = False
        async with connected(both) as socket:
            await socket.send_text(create())
            assert await events(socket, 2) == SERVED


def test_of_responses_that_a_client_asks_for_few_are_waited_for_in_the_log() -> None:
    [messages] = [each.messages for each in OPENAI.routes if each.path == b"/responses"]
    log = SocketLog(AccessRecord("GET", "r-1", ""), messages)
    pieces = FrameScanner(False, 1000).feed(encode_frame(Opcode.TEXT, create().encode()))
    for _ in range(2000):
        log.note_client([each for each in pieces if isinstance(each, DataPiece)])
    assert len(log._asked) == 100


async def test_a_message_that_is_refused_before_its_end_holds_no_memory(
    nursery: trio.Nursery,
) -> None:
    async with opened(nursery) as both:
        both.rules(models=("gpt-*",))
        bodies = both.rig.gateway._uses.bodies = ReplayBudget(200_000)

        async def wait_held(low: int, high: int) -> None:
            with trio.fail_after(20):  # after 40 seconds without a pong it is closed
                while not low <= bodies.used <= high:  # noqa: ASYNC110 -- no event tells
                    await trio.sleep(0.001)

        async with connected(both) as socket:
            for low, high in ((70_000, 80_000), (0, 0)):
                await socket.send(TextMessage("x" * 70_000, message_finished=False))
                await wait_held(low, high)


@attrs.define(eq=False)
class LateShares:
    """Shared limits of which there is no share before `given`."""

    limiter: Limiter[Scope]
    given: trio.Event = attrs.field(factory=trio.Event)
    waiting: int = 0
    in_memory: bool = False

    async def prepare(self, caller: Caller, costs: Costs) -> None:
        self.waiting += 1
        await self.given.wait()

    async def refresh(self, caller: Caller) -> bool:
        await trio.lowlevel.checkpoint()
        return False


async def test_handshakes_that_wait_for_a_share_together_get_no_more_places_than_there_are(
    nursery: trio.Nursery,
) -> None:
    """Each was counted only after its wait, and so all of them were opened."""
    settings = attrs.evolve(SETTINGS, websockets=WebSocketLimits(max_per_client=1))
    accepted: list[bool] = []
    async with opened(nursery, settings) as both, trio.open_nursery() as clients:
        both.rules(requests_per_minute=100, max_concurrent=100)
        uses = both.rig.gateway._uses
        uses.shared = shares = LateShares(uses.limiter)

        async def connect() -> None:
            address = both.rig.address
            async with connect_socket(address, RESPONSES, BEARER) as (_, answer):
                accepted.append(isinstance(answer, AcceptConnection))
                await trio.sleep_forever()

        for _ in range(3):
            clients.start_soon(connect)
        with trio.fail_after(60):
            while shares.waiting < 3:  # noqa: ASYNC110 -- no event tells
                await trio.sleep(0.001)
            shares.given.set()
            while len(accepted) < 3:  # noqa: ASYNC110 -- no event tells
                await trio.sleep(0.001)
        assert sorted(accepted) == [False, False, True]
        scopes: list[Any] = list(uses.limiter.scopes.values())
        assert [scope.running for scope in scopes] == [0]
        clients.cancel_scope.cancel()
    assert both.rig.gateway._sockets.total == 0
    codes = [record.code for record in both.rig.records]
    assert codes[:2] == ["too_many_websockets"] * 2
