"""Peers that send as many frames as they can."""

from __future__ import annotations

import trio
from wsproto.events import Ping, Pong, Request, TextMessage

from bridgepool.http import Opcode, encode_frame
from tests.gateway.proxy.rig import open_rig, openai
from tests.gateway.proxy.websockets.peers import Socket, connect_socket, start_upstream
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
