"""Messages that an end sends, or is given, in one step."""

import random
import ssl
from collections.abc import Callable
from functools import partial

import attrs
import pytest
import trio
import trio.testing
import trustme
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection

from bridgepool.transports._link import binary_frame
from bridgepool.transports.websocket import (
    BreakReason,
    ChannelBrokenError,
    WebSocketChannel,
    WebSocketLimits,
    open_websocket_channel,
)
from tests.transports.support import Channel, running

LIMITS = WebSocketLimits()


def at_once(channel: Channel, message: bytes) -> bool:
    assert isinstance(channel, WebSocketChannel)
    return channel.send_at_once(message)


BOTH_WAYS = pytest.mark.parametrize("to_client", [True, False], ids=["to client", "to server"])


@BOTH_WAYS
@pytest.mark.parametrize("size", [0, 1, 2, 3, 5, 125, 126, 65_535, 65_536, 100_000])
async def test_what_is_sent_at_once_arrives_as_any_other_message(
    size: int, to_client: bool
) -> None:
    message = (bytes(range(256)) * 400)[:size]
    async with (
        running(limits=LIMITS) as server,
        open_websocket_channel(server.url, limits=LIMITS) as client,
    ):
        one, other = await server.accepted(), client
        sender, receiver = (one, other) if to_client else (other, one)
        # To mask much would hold up all others.
        assert at_once(sender, message) is (to_client or size <= 65_536)
        if not to_client and size > 65_536:
            return
        await sender.send(b"after it")
        with trio.fail_after(10):
            assert await receiver.receive() == message
            assert await receiver.receive() == b"after it"


async def test_a_client_masks_each_message_with_another_key() -> None:
    """RFC 6455 section 10.3: so that nobody can have it send bytes of their choice."""
    heads = [binary_frame(b"", masked=True)[0] for _ in range(100)]
    assert len(set(heads)) == 100
    assert {head[:2] for head in heads} == {b"\x82\x80"}


@BOTH_WAYS
async def test_a_connection_that_is_full_declines_and_loses_nothing(to_client: bool) -> None:
    async with (
        running(limits=LIMITS) as server,
        open_websocket_channel(server.url, limits=LIMITS) as client,
    ):
        one, other = await server.accepted(), client
        channel, receiver = (one, other) if to_client else (other, one)
        sent: list[bytes] = []
        with trio.fail_after(10):
            while at_once(channel, message := b"%06d" % len(sent) + b"x" * 20_000):
                sent.append(message)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.send, message)
                received = [await receiver.receive() for _ in [*sent, message]]
            assert received == [*sent, message]
            while not at_once(channel, b"again"):  # noqa: ASYNC110
                await trio.sleep(0.001)
            assert await receiver.receive() == b"again"


async def test_it_is_declined_where_it_cannot_be_done() -> None:
    async with (
        running(limits=LIMITS) as server,
        open_websocket_channel(server.url, limits=LIMITS) as client,
    ):
        channel = await server.accepted()
        assert not at_once(channel, b"x" * (LIMITS.max_message_bytes + 1))
        await channel.send(b"first")
        assert not at_once(channel, b"would overtake")
        with trio.fail_after(10):
            assert await client.receive() == b"first"
        await channel.aclose()
        assert not at_once(channel, b"closed")
        with trio.fail_after(10), pytest.raises(trio.EndOfChannel):
            await client.receive()


async def test_it_is_declined_over_tls() -> None:
    authority, context = trustme.CA(), ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        running(tls=context, limits=LIMITS) as server,
        open_websocket_channel(server.url, ssl_context=trusting, limits=LIMITS) as client,
    ):
        channel = await server.accepted()
        assert not at_once(channel, b"m")
        assert not at_once(client, b"m")
        await channel.send(b"m")
        with trio.fail_after(10):
            assert await client.receive() == b"m"


def taking(channel: Channel, taker: Callable[[bytes], None]) -> WebSocketChannel:
    assert isinstance(channel, WebSocketChannel)
    channel.receive_at_once(taker)
    return channel


@BOTH_WAYS
@pytest.mark.parametrize("size", [0, 1, 125, 126, 30_000])
async def test_a_message_that_comes_alone_is_taken_while_one_waits_in_receive(
    size: int, to_client: bool
) -> None:
    async with (
        running(limits=LIMITS) as server,
        open_websocket_channel(server.url, limits=LIMITS) as client,
    ):
        one, other = await server.accepted(), client
        sender, receiver = (one, other) if to_client else (other, one)
        taken = list[bytes]()
        came = trio.Event()

        def taker(message: bytes) -> None:
            taken.append(message)
            came.set()

        taking(receiver, taker)
        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receiver.receive)
                for _ in range(3):
                    await trio.testing.wait_all_tasks_blocked(0.005)
                    await sender.send(b"x" * size)
                    await came.wait()
                    came = trio.Event()
                assert taken == [b"x" * size] * 3
                nursery.cancel_scope.cancel()
            await sender.send(b"nobody waits")
            await trio.testing.wait_all_tasks_blocked(0.005)
            assert await receiver.receive() == b"nobody waits"
        assert len(taken) == 3


@BOTH_WAYS
async def test_whichever_way_messages_come_their_order_is_kept(to_client: bool) -> None:
    """Some come alone, some together, some in parts; and who receives is slow at times."""
    chance = random.Random(5)
    sent = [b"%d" % number + b"x" * chance.choice((0, 0, 0, 300, 200_000)) for number in range(600)]
    received, taken = list[bytes](), 0

    def taker(message: bytes) -> None:
        nonlocal taken
        taken += 1
        received.append(message)

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
        taking(receiver, taker)
        nursery.start_soon(send, sender)
        with trio.fail_after(30):
            while len(received) < len(sent):
                with trio.move_on_after(0.01):
                    received.append(await receiver.receive())
                for _ in range(chance.choice((0, 0, 0, 4))):
                    await trio.lowlevel.checkpoint()
    assert received == sent
    assert taken > 20


async def test_a_message_above_the_limit_is_not_taken_but_breaks_the_channel() -> None:
    small = attrs.evolve(LIMITS, max_message_bytes=1000)
    taken = list[bytes]()
    async with (
        running(limits=LIMITS) as server,
        open_websocket_channel(server.url, limits=small) as client,
    ):
        taking(client, taken.append)
        await (await server.accepted()).send(b"x" * 1001)
        with trio.fail_after(10), pytest.raises(ChannelBrokenError) as caught:
            await client.receive()
    assert caught.value.reason is BreakReason.OVERSIZED
    assert not taken


async def test_what_a_server_sends_right_behind_its_answer_is_followed() -> None:
    """The first half of a message comes in one read with the handshake's end.

    The second looks like a message that comes alone, and is none.
    """
    inner = b"\x82\x05inner"
    whole = b"\x82" + bytes((4 + len(inner),)) + b"head" + inner

    async def answer(stream: trio.SocketStream) -> None:
        wsproto, data = WSConnection(ConnectionType.SERVER), b""
        while not data.endswith(b"\r\n\r\n"):
            data += await stream.receive_some()
        wsproto.receive_data(data)
        await stream.send_all(wsproto.send(AcceptConnection()) + whole[:6])
        await waiting.wait()
        await stream.send_all(inner)
        await stream.receive_some()

    taken, waiting = list[bytes](), trio.Event()
    async with trio.open_nursery() as nursery:
        listeners = await nursery.start(partial(trio.serve_tcp, answer, 0, host="127.0.0.1"))
        port = listeners[0].socket.getsockname()[1]
        with trio.fail_after(10):
            async with open_websocket_channel(f"ws://127.0.0.1:{port}/", limits=LIMITS) as client:
                taking(client, taken.append)
                nursery.start_soon(set_when_quiet, waiting)
                assert await client.receive() == b"head" + inner
        nursery.cancel_scope.cancel()
    assert not taken


async def set_when_quiet(event: trio.Event) -> None:
    await trio.testing.wait_all_tasks_blocked(0.005)
    event.set()
