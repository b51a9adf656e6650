"""What a channel leaves to the garbage collector: nothing of ours, however it ends."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import pytest
import trio

from bridgepool.transports import ChannelBrokenError, ConnectError, HandshakeRefusedError
from bridgepool.transports.memory import open_memory_channel_pair
from bridgepool.transports.websocket import (
    Handshake,
    Refused,
    WebSocketChannel,
    open_websocket_channel,
)
from tests.garbage import cycles_left_by
from tests.transports.support import QUICK, Server, admit_all, running


@pytest.mark.parametrize("breaks", [True, False])
async def test_a_pair_in_memory_leaves_nothing_to_the_garbage_collector(breaks: bool) -> None:
    async def open_and_close() -> None:
        left, right = open_memory_channel_pair()
        await left.send(b"1")
        await right.receive()
        if breaks:
            left.break_link()
        await left.aclose()
        with suppress(ChannelBrokenError):
            await right.send(b"2")

    assert await cycles_left_by(open_and_close) == []


async def refuse(handshake: Handshake) -> Handshake | Refused:
    await trio.lowlevel.checkpoint()
    return Refused(403, "no", "of a test")


async def close(server: Server) -> None:
    async with open_websocket_channel(server.url, limits=QUICK) as client:
        accepted = await server.accepted()
        await client.send(b"1")
        await accepted.receive()


async def be_closed(server: Server) -> None:
    async with open_websocket_channel(server.url, limits=QUICK) as client:
        accepted = await server.accepted()
        await accepted.aclose()
        with suppress(trio.EndOfChannel):
            await client.receive()
        with suppress(ChannelBrokenError):
            await client.send(b"1")


async def be_cut(server: Server) -> None:
    async with open_websocket_channel(server.url, limits=QUICK) as client:
        accepted = await server.accepted()
        assert isinstance(accepted, WebSocketChannel)
        await trio.aclose_forcefully(accepted._stream.stream)
        with suppress(ChannelBrokenError):
            await client.receive()
        with suppress(ChannelBrokenError):
            await client.send(b"1")


async def be_refused(server: Server) -> None:
    with suppress(HandshakeRefusedError):
        async with open_websocket_channel(server.url, limits=QUICK):
            raise AssertionError


async def be_cut_off(server: Server) -> None:
    async def cut(stream: trio.SocketStream) -> None:
        await stream.receive_some()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, cut, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        with suppress(ConnectError):
            async with open_websocket_channel(f"ws://127.0.0.1:{port}/", limits=QUICK):
                raise AssertionError
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("use", [close, be_closed, be_cut, be_refused, be_cut_off])
async def test_a_websocket_leaves_nothing_to_the_garbage_collector(
    use: Callable[[Server], Awaitable[None]],
) -> None:
    async with running(admit=refuse if use is be_refused else admit_all) as server:

        async def use_once() -> None:
            await use(server)
            await trio.testing.wait_all_tasks_blocked()

        # The library's connection is a cycle by itself, which also holds the stream.
        cycles = await cycles_left_by(use_once)
        assert [each for each in cycles if "WebSocketConnection" not in each] == []
