"""Handshakes of websockets, of a client and of an upstream, that are not sound."""

from __future__ import annotations

import attrs
import pytest
import trio
from wsproto.events import AcceptConnection, RejectConnection

from bridgepool.gateway import WebSocketLimits
from bridgepool.http import websocket_accept
from tests.gateway.proxy.raw import raw_upstream, read_head, silence_to_end
from tests.gateway.proxy.rig import open_rig, openai
from tests.gateway.proxy.websockets.peers import connect_socket, echo, start_upstream
from tests.gateway.proxy.websockets.test_websockets import OPEN


async def test_a_handshake_that_is_not_sound_is_refused_as_http(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery, echo)
    base = ((b"upgrade", b"websocket"), (b"sec-websocket-version", b"13"))
    key = (b"sec-websocket-key", b"dGhlIHNhbXBsZSBub25jZQ==")
    async with open_rig(openai(north.url), nursery=nursery) as rig:
        for headers, status in (
            ((*base, (b"sec-websocket-key", b"short")), 400),
            ((base[0], key, (b"sec-websocket-version", b"8")), 426),
            ((base[0], key), 426),
        ):
            answer = await rig.ask("/ai/v1/responses", headers=headers)
            assert answer.status == status
        assert answer.headers[b"sec-websocket-version"] == b"13"
    assert not north.requests


@pytest.mark.parametrize(
    ("accept", "fields"),
    [
        (b"wrong", b""),
        (b"", b"sec-websocket-protocol: not-offered\r\n"),
        (b"", b"sec-websocket-extensions: permessage-deflate\r\n"),
    ],
    ids=["accept", "protocol", "extension"],
)
async def test_an_upstream_whose_101_is_not_sound_is_a_bad_answer(
    nursery: trio.Nursery, accept: bytes, fields: bytes
) -> None:
    """Else a client would get frames that it cannot read."""

    async def switch(stream: trio.SocketStream) -> None:
        head = await read_head(stream)
        key = head.lower().partition(b"sec-websocket-key: ")
        at = len(key[0]) + len(key[1])
        accepts = accept or websocket_accept(head[at:].partition(b"\r\n")[0])
        await stream.send_all(
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: upgrade\r\n"
            b"sec-websocket-accept: %b\r\n%b\r\n" % (accepts, fields)
        )
        await silence_to_end(stream)

    north = openai(await raw_upstream(nursery, switch))
    async with open_rig(north, nursery=nursery) as rig:
        async with connect_socket(rig.address, protocols=["v1"]) as (_, answer):
            assert isinstance(answer, RejectConnection)
            assert answer.status_code == 502
        [record] = await rig.wait_records(1)
    assert record.code == "upstream_bad_answer"


async def test_the_page_that_a_websocket_comes_from_is_not_told_to_the_upstream(
    nursery: trio.Nursery,
) -> None:
    north = await start_upstream(nursery, echo)
    origin = [(b"origin", b"http://localhost")]
    async with (
        open_rig(openai(north.url), nursery=nursery) as rig,
        connect_socket(rig.address, headers=origin) as (_, answer),
    ):
        assert isinstance(answer, AcceptConnection)
    [request] = north.requests
    assert b"origin" not in dict(request.extra_headers)


async def test_a_gateway_that_relays_none_says_so(nursery: trio.Nursery) -> None:
    north = await start_upstream(nursery, echo)
    settings = attrs.evolve(OPEN, websockets=WebSocketLimits(max_websockets=0))
    async with open_rig(openai(north.url), nursery=nursery, settings=settings) as rig:
        async with connect_socket(rig.address) as (_, answer):
            assert isinstance(answer, RejectConnection)
        [record] = await rig.wait_records(1)
    assert (record.status, record.code) == (426, "websocket_not_supported")
