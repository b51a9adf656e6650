"""Messages arrive whole and in order, however the bytes of the stream are cut."""

import random
from functools import partial

import pytest
import trio
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection

from bridgepool.transports.websocket import WebSocketLimits, open_websocket_channel
from tests.transports.support import Channel, running

LIMITS = WebSocketLimits()


@pytest.mark.parametrize("to_client", [True, False], ids=["to client", "to server"])
async def test_the_order_is_kept_with_pauses_cancellations_and_mixed_sizes(to_client: bool) -> None:
    chance = random.Random(5)
    sent = [b"%d" % number + b"x" * chance.choice((0, 0, 0, 300, 200_000)) for number in range(600)]
    received = list[bytes]()

    async def send(channel: Channel) -> None:
        for message in sent:
            await channel.send(message)
            for _ in range(chance.choice((0, 0, 1, 2, 3, 6))):
                await trio.lowlevel.checkpoint()

    async with (
        running(limits=LIMITS) as server,
        open_websocket_channel(server.url, limits=LIMITS) as client,
        trio.open_nursery() as nursery,
    ):
        one, other = await server.accepted(), client
        sender, receiver = (one, other) if to_client else (other, one)
        nursery.start_soon(send, sender)
        with trio.fail_after(60):
            while len(received) < len(sent):
                with trio.move_on_after(0.01):
                    received.append(await receiver.receive())
                for _ in range(chance.choice((0, 0, 0, 4))):
                    await trio.lowlevel.checkpoint()
    assert received == sent


async def test_a_message_that_begins_in_the_same_read_as_the_handshake_ends_is_received() -> None:
    inner = b"\x82\x05inner"
    whole = b"\x82" + bytes((4 + len(inner),)) + b"head" + inner
    waiting = trio.Event()

    async def answer(stream: trio.SocketStream) -> None:
        wsproto, data = WSConnection(ConnectionType.SERVER), b""
        while not data.endswith(b"\r\n\r\n"):
            data += await stream.receive_some()
        wsproto.receive_data(data)
        await stream.send_all(wsproto.send(AcceptConnection()) + whole[:6])
        await waiting.wait()
        await stream.send_all(inner)
        await stream.receive_some()

    async def set_when_quiet() -> None:
        await trio.testing.wait_all_tasks_blocked(0.005)
        waiting.set()

    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(60):
            async with open_websocket_channel(f"ws://127.0.0.1:{port}/", limits=LIMITS) as client:
                nursery.start_soon(set_when_quiet)
                assert await client.receive() == b"head" + inner
        nursery.cancel_scope.cancel()
