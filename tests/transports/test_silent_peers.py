"""Silent peers: frozen ones are detected, working ones stay connected."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import attrs
import pytest
import trio
import trio_websocket
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, Request

from bridgepool.transports import BreakReason, ChannelBrokenError
from bridgepool.transports.websocket import WebSocketLimits, open_websocket_channel
from tests.http.test_accepting import counting_turns
from tests.transports.support import IMPATIENT, QUICK, STEADY, Channel, running

# Never asks unless in doubt.
SELDOM = attrs.evolve(IMPATIENT, heartbeat_interval=3600)
RARE = attrs.evolve(STEADY, heartbeat_interval=3600)
NO_PINGS = attrs.evolve(QUICK, heartbeat_interval=3600)
UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def masked(first: int, payload: bytes, key: bytes = b"\x11\x22\x33\x44") -> bytes:
    """Make a client's frame of up to 125 bytes, by the book (RFC 6455 section 5.2)."""
    body = bytes(byte ^ key[at % 4] for at, byte in enumerate(payload))
    return bytes((first, 0x80 | len(payload))) + key + body


async def read(stream: trio.abc.Stream, count: int) -> bytes:
    data = b""
    while len(data) < count:
        data += await stream.receive_some(count - len(data)) or b"(the end)"
    return data


@asynccontextmanager
async def raw_client(port: int) -> AsyncIterator[trio.SocketStream]:
    """Shake hands, and leave the rest to the test."""
    async with await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(UPGRADE)
        answer = b""
        while not answer.endswith(b"\r\n\r\n"):
            answer += await read(stream, 1)
        yield stream


async def frozen_server(stream: trio.SocketStream) -> None:
    """Shake hands, and do nothing more; the kernel goes on."""
    wsproto = WSConnection(ConnectionType.SERVER)
    wsproto.receive_data(bytes(await stream.receive_some()))
    assert isinstance(next(wsproto.events()), Request)
    await stream.send_all(wsproto.send(AcceptConnection()))
    await trio.sleep_forever()


@asynccontextmanager
async def client_of_frozen_server(limits: WebSocketLimits) -> AsyncIterator[Channel]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    url = f"ws://127.0.0.1:{listeners[0].socket.getsockname()[1]}/"
    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(trio.serve_listeners, frozen_server, listeners)
            async with open_websocket_channel(url, limits=limits) as client:
                yield client
            nursery.cancel_scope.cancel()


async def is_given_up(end: Channel) -> None:
    with pytest.raises(ChannelBrokenError) as broken:
        await end.receive()
    assert broken.value.reason is BreakReason.HEARTBEAT


async def test_a_frozen_client_is_detected() -> None:
    with trio.fail_after(60):
        async with running(limits=IMPATIENT) as serving, raw_client(serving.port):
            await is_given_up(await serving.accepted())


async def test_clients_that_are_silent_together_are_broken_off_a_few_at_a_time() -> None:
    """All connections behind a failed link ended in one turn, which held up all others."""
    limits = attrs.evolve(QUICK, heartbeat_interval=0.8, heartbeat_timeout=0.8)
    ended_in: list[int] = []  # the turn of each end
    all_ended = trio.Event()

    async def handle(channel: Channel, _: object) -> None:
        with pytest.raises(ChannelBrokenError):
            await channel.receive()
        ended_in.append(turns.count)
        if len(ended_in) == 100:
            all_ended.set()

    async def connect(port: int) -> None:
        async with raw_client(port):
            await trio.sleep_forever()

    with trio.fail_after(60):
        async with (
            counting_turns() as turns,
            running(handler=handle, limits=limits) as serving,
            trio.open_nursery() as clients,
        ):
            for _ in range(100):
                clients.start_soon(connect, serving.port)
            await all_ended.wait()
            clients.cancel_scope.cancel()
    assert max(map(ended_in.count, ended_in)) <= 16


async def test_a_client_that_sends_data_but_no_pong_is_dead_once_it_is_silent() -> None:
    with trio.fail_after(60):
        async with running(limits=IMPATIENT) as serving, raw_client(serving.port) as stream:
            server = await serving.accepted()
            assert (await read(stream, 2))[:1] == b"\x89"
            await stream.send_all(masked(0x82, b"no pong"))
            assert await server.receive() == b"no pong"
            await is_given_up(server)


async def test_a_frozen_server_is_detected() -> None:
    async with client_of_frozen_server(IMPATIENT) as client:
        await is_given_up(client)


async def test_a_server_that_is_silent_after_a_message_is_detected_early() -> None:
    async with client_of_frozen_server(SELDOM) as client:
        await client.send(b"call")
        await is_given_up(client)


async def test_a_client_that_only_answers_pings_stays_connected() -> None:
    with trio.fail_after(60):
        async with (
            running(limits=STEADY) as serving,
            trio_websocket.open_websocket_url(serving.url) as ws,
        ):
            server = await serving.accepted()
            await trio.sleep(1.5 * STEADY.heartbeat_timeout)
            await ws.send_message(b"1")
            assert await server.receive() == b"1"


@pytest.mark.parametrize(("of_server", "of_client"), [(STEADY, RARE), (RARE, STEADY)])
async def test_ends_that_ping_at_different_intervals_stay_connected(
    of_server: WebSocketLimits, of_client: WebSocketLimits
) -> None:
    with trio.fail_after(60):
        async with (
            running(limits=of_server) as serving,
            open_websocket_channel(serving.url, limits=of_client) as client,
        ):
            server = await serving.accepted()
            await client.send(b"1")  # to which nothing is said
            await trio.sleep(1.5 * STEADY.heartbeat_timeout)
            await server.send(b"2")
            assert (await server.receive(), await client.receive()) == (b"1", b"2")


async def test_a_reader_held_up_by_an_estimate_goes_on_whatever_the_heartbeat_interval() -> None:
    """Heads of fragments count as unread; who waits for a message has none.

    The bug: the timekeeper, which sees that, looked once in an eighth of the heartbeats' times:
    after minutes, or never. The gate: 360 kB of heads over a window of 257 kB. The proof: the
    next message comes.
    """
    limits = WebSocketLimits(max_message_bytes=1000, heartbeat_interval=inf, heartbeat_timeout=inf)
    with trio.fail_after(60):
        async with running(limits=limits) as serving, raw_client(serving.port) as stream:
            server = await serving.accepted()
            heads = masked(0x02, b"") + masked(0x00, b"") * 60_000 + masked(0x80, b"")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.send_all, heads + masked(0x82, b"next"))
                assert await server.receive() == b""
                assert await server.receive() == b"next"


async def test_a_server_answers_pings_before_between_and_in_messages() -> None:
    with trio.fail_after(60):
        async with running(limits=NO_PINGS) as serving, raw_client(serving.port) as stream:
            server = await serving.accepted()
            for turn in range(3):
                await stream.send_all(masked(0x89, b"a"))
                assert await read(stream, 3) == b"\x8a\x01a"
                await stream.send_all(masked(0x02, b"mess"))
                await stream.send_all(masked(0x89, b"bc"))
                assert await read(stream, 4) == b"\x8a\x02bc"
                await stream.send_all(masked(0x89, b"") * 2 + masked(0x80, b"age")[:6])
                assert await read(stream, 4) == b"\x8a\0\x8a\0"
                await stream.send_all(masked(0x80, b"age")[6:])
                assert await server.receive() == b"message"
                await server.send(b"%d" % turn)
                assert await read(stream, 3) == b"\x82\x01%d" % turn


async def test_a_server_answers_no_ping_after_its_close_frame() -> None:
    with trio.fail_after(60):
        async with (
            running(limits=NO_PINGS) as serving,
            raw_client(serving.port) as stream,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon((await serving.accepted()).aclose)
            assert (await read(stream, 4))[:1] == b"\x88"
            await stream.send_all(masked(0x89, b""))
            assert await read(stream, 1) == b"(the end)"
