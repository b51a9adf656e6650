"""How websockets end that one side closes, or that it breaks."""

from __future__ import annotations

from contextlib import suppress

import attrs
import pytest
import trio
from wsproto.events import CloseConnection, Request, TextMessage

from bridgepool.gateway import Outcome, WebSocketLimits
from bridgepool.http import Opcode, encode_close, encode_frame
from tests.gateway.proxy.rig import open_rig, openai
from tests.gateway.proxy.websockets.peers import Socket, connect_socket, start_upstream
from tests.gateway.proxy.websockets.test_websockets import OPEN


async def test_a_message_too_long_and_a_frame_that_is_none_close_it(nursery: trio.Nursery) -> None:
    async def answer(socket: Socket, _request: Request) -> None:
        if isinstance(await socket.next_event(), TextMessage):
            await socket.stream.send_all(b"\xff\x00")

    north = await start_upstream(nursery, answer)
    settings = attrs.evolve(OPEN, websockets=WebSocketLimits(max_message_bytes=1000))
    async with open_rig(openai(north.url), nursery=nursery, settings=settings) as rig:
        async with connect_socket(rig.address) as (socket, _):
            await socket.send_text("x" * 1001)
            assert (await socket.receive_close())[0] == 1009
        async with connect_socket(rig.address) as (socket, _):
            await socket.stream.send_all(b"\x81\x05naked")
            assert (await socket.receive_close())[0] == 1002
        async with connect_socket(rig.address) as (socket, _):
            await socket.send_text("leave")
            assert (await socket.receive_close())[0] == 1002
        records = await rig.wait_records(3)
    assert {record.code for record in records} == {"bad_websocket_frame"}
    client, upstream = Outcome.CLIENT_GONE, Outcome.UPSTREAM_CUT
    assert [record.outcome for record in records] == [client, client, upstream]


async def test_a_close_passes_as_it_came_and_nothing_after_it(nursery: trio.Nursery) -> None:
    got: list[object] = []

    async def note(socket: Socket, _request: Request) -> None:
        while (event := await socket.next_event()) is not None:
            got.append(event)

    north = await start_upstream(nursery, note)
    late = encode_frame(Opcode.TEXT, b"late", mask=bytes(4))
    first = encode_frame(Opcode.CLOSE, encode_close(4321, "why"), mask=bytes(4))
    async with (
        open_rig(openai(north.url), nursery=nursery) as rig,
        connect_socket(rig.address) as (socket, _),
    ):
        await socket.stream.send_all(first + late)
        event = await socket.next_event()
        assert isinstance(event, CloseConnection)
        assert (event.code, event.reason) == (4321, "why")
        await rig.wait_records(1)
        with trio.fail_after(60):
            while not north.ended:  # noqa: ASYNC110 -- no event tells
                await trio.sleep(0.001)
    [close] = got
    assert isinstance(close, CloseConnection)
    assert (close.code, close.reason) == (4321, "why")


async def test_a_client_that_reads_nothing_does_not_keep_a_socket_without_room_for_usage(
    nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It never comes between two messages, so the one that is under way is cut."""
    monkeypatch.setattr("bridgepool.gateway.proxy.websockets._relay._LEAVE_TIMEOUT", 0.1)
    is_full = False

    async def flood(socket: Socket, _request: Request) -> None:
        nonlocal is_full
        is_full = True
        unasked = '{"type": "response.created", "response": {"id": "r"}}'
        with suppress(trio.BrokenResourceError):
            await socket.send(TextMessage(unasked), TextMessage("x" * 15_000_000))

    north = await start_upstream(nursery, flood)
    limits = WebSocketLimits(ping_interval=0.1, ping_timeout=60)  # it looks at the time often
    async with (
        open_rig(
            openai(north.url),
            nursery=nursery,
            settings=attrs.evolve(OPEN, websockets=limits),
            on_usage=lambda _: None,
            usage_full=lambda: is_full,
        ) as rig,
        connect_socket(rig.address, "/ai/v1/realtime?model=m"),
    ):
        [record] = await rig.wait_records(1)
    assert (record.outcome, record.code) == (Outcome.REFUSED, "usage_unavailable")
