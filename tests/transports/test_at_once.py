"""Messages that a server's end sends in one step."""

import ssl

import pytest
import trio
import trustme

from bridgepool.transports.websocket import (
    WebSocketChannel,
    WebSocketLimits,
    open_websocket_channel,
)
from tests.transports.support import Channel, running

LIMITS = WebSocketLimits()


def at_once(channel: Channel, message: bytes) -> bool:
    assert isinstance(channel, WebSocketChannel)
    return channel.send_at_once(message)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65_535, 65_536, 100_000])
async def test_what_is_sent_at_once_arrives_as_any_other_message(size: int) -> None:
    message = b"x" * size
    async with (
        running(limits=LIMITS) as server,
        open_websocket_channel(server.url, limits=LIMITS) as client,
    ):
        channel = await server.accepted()
        assert at_once(channel, message)
        await channel.send(b"after it")
        with trio.fail_after(10):
            assert await client.receive() == message
            assert await client.receive() == b"after it"


async def test_a_connection_that_is_full_declines_and_loses_nothing() -> None:
    async with (
        running(limits=LIMITS) as server,
        open_websocket_channel(server.url, limits=LIMITS) as client,
    ):
        channel = await server.accepted()
        sent: list[bytes] = []
        with trio.fail_after(10):
            while at_once(channel, message := b"%06d" % len(sent) + b"x" * 20_000):
                sent.append(message)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(channel.send, message)
                received = [await client.receive() for _ in [*sent, message]]
            assert received == [*sent, message]
            while not at_once(channel, b"again"):  # noqa: ASYNC110
                await trio.sleep(0.001)
            assert await client.receive() == b"again"


async def test_it_is_declined_where_it_cannot_be_done() -> None:
    async with (
        running(limits=LIMITS) as server,
        open_websocket_channel(server.url, limits=LIMITS) as client,
    ):
        channel = await server.accepted()
        assert not at_once(client, b"a client's frames are masked")
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
        await channel.send(b"m")
        with trio.fail_after(10):
            assert await client.receive() == b"m"
