"""Connections that switch to another protocol, at both ends and under ASGI."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, cast

import pytest
import trio
import trio.testing
from wsproto import ConnectionType, WSConnection
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    Request,
    TextMessage,
)

from bridgepool.http import (
    Exchange,
    Handler,
    LocalProtocolError,
    Opcode,
    UpstreamCut,
    UpstreamLimits,
    encode_close,
    encode_frame,
    get_header,
    open_upstream_client,
    serve_http,
    websocket_accept,
)
from bridgepool.http.asgi import asgi_app
from tests.http.test_asgi import hypercorn_serving

SWITCH = ((b"upgrade", b"echo"), (b"x-mine", b"1"))


@asynccontextmanager
async def serving(handler: Handler) -> AsyncIterator[int]:
    async with trio.open_nursery() as nursery:
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        await nursery.start(partial(serve_http, handler, listeners))
        yield listeners[0].socket.getsockname()[1]
        nursery.cancel_scope.cancel()


async def echo(exchange: Exchange) -> None:
    if exchange.request.target == b"/refused":
        await exchange.answer(426, ((b"upgrade", b"echo"),), b"no")
        return
    stream = await exchange.upgrade(SWITCH)
    while data := await stream.receive_some():
        await stream.send_all(data.upper())
    await stream.send_all(b"END")


async def test_both_ends_switch_and_go_on_with_bytes_of_any_number() -> None:
    async with (
        serving(echo) as port,
        open_upstream_client(
            f"http://127.0.0.1:{port}", limits=UpstreamLimits(max_connections=1)
        ) as client,
    ):
        for _ in range(2):  # the one slot is given back
            async with client.request(b"GET", b"/", upgrade=b"echo") as response:
                assert response.status == 101
                assert get_header(response.headers, b"x-mine") == b"1"
                stream = response.stream
                with trio.fail_after(60):
                    for number in range(300):  # small ones come at once, however many
                        await stream.send_all(b"a%d" % number)
                        assert await stream.receive_some() == b"A%d" % number
                    await stream.send_all(b"x" * 300_000)
                    received = b""
                    while len(received) < 300_000:
                        received += await stream.receive_some(1000)
                    assert received == b"X" * 300_000
        async with client.request(b"GET", b"/refused", upgrade=b"echo") as response:
            assert response.status == 426
            assert await response.receive_some() == b"no"
            with pytest.raises(LocalProtocolError):
                _ = response.stream
        assert client.statistics().in_use == 0


async def test_what_came_glued_to_the_heads_is_part_of_the_stream() -> None:
    async with serving(echo) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: echo\r\n\r\nglued")
        data = b""
        while not data.endswith(b"GLUED"):
            data += await stream.receive_some()
        await stream.send_eof()
        while piece := await stream.receive_some():
            data += piece
        head, _, rest = data.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n")
        assert rest == b"GLUEDEND", "the end of the client's stream is the end of the handler's"
        await stream.aclose()

    async def glue(connection: trio.SocketStream) -> None:
        async with connection:
            assert b"connection: upgrade\r\nupgrade: echo" in await connection.receive_some()
            await connection.send_all(b"HTTP/1.1 101 X\r\nupgrade: echo\r\n\r\nglued")
            await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, glue, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with (
            open_upstream_client(f"http://127.0.0.1:{port}") as client,
            client.request(b"GET", b"/", upgrade=b"echo") as response,
        ):
            assert await response.stream.receive_some() == b"glued"
        nursery.cancel_scope.cancel()


async def test_a_client_that_does_not_read_holds_the_handler_back() -> None:
    sent = 0

    async def flood(exchange: Exchange) -> None:
        nonlocal sent
        stream = await exchange.upgrade(SWITCH)
        while True:
            await stream.send_all(b"x" * 65536)
            sent += 65536

    async with serving(flood) as port:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: echo\r\n\r\n")
        before = -1
        while sent != before:
            before = sent
            await trio.testing.wait_all_tasks_blocked(0.01)
        assert sent < 20_000_000
        await stream.aclose()


async def test_more_can_be_sent_after_a_send_that_was_cancelled_before_it_began() -> None:
    """Nothing could, as if half of it had been sent."""

    async def speak(exchange: Exchange) -> None:
        stream = await exchange.upgrade(SWITCH)
        with trio.CancelScope() as scope:
            scope.cancel()
            await stream.send_all(b"LOST")
        await stream.send_all(b"END")

    async with serving(speak) as port, await trio.open_tcp_stream("127.0.0.1", port) as stream:
        await stream.send_all(b"GET / HTTP/1.1\r\nHost: h\r\nUpgrade: echo\r\n\r\n")
        received = b""
        with trio.fail_after(60):
            while data := await stream.receive_some():
                received += data
    assert received.endswith(b"\r\n\r\nEND")


async def test_nothing_follows_a_send_to_an_upstream_that_was_interrupted() -> None:
    """What followed was taken for the rest of what had been sent in part."""
    listen, heard = trio.Event(), trio.Event()
    received = b""

    async def slow(connection: trio.SocketStream) -> None:
        nonlocal received
        async with connection:
            await connection.receive_some()
            await connection.send_all(b"HTTP/1.1 101 X\r\nupgrade: echo\r\n\r\n")
            await listen.wait()
            async for piece in connection:
                received += piece
            heard.set()

    async with trio.open_nursery() as nursery:
        [listener] = await nursery.start(partial(trio.serve_tcp, slow, 0, host="127.0.0.1"))
        port = listener.socket.getsockname()[1]
        async with open_upstream_client(f"http://127.0.0.1:{port}") as client:
            async with client.request(b"GET", b"/", upgrade=b"echo") as response:
                stream = response.stream
                with trio.CancelScope() as scope:
                    scope.cancel()
                    await stream.send_all(b"it does not begin")
                async with trio.open_nursery() as sending:
                    sending.start_soon(stream.send_all, b"x" * 30_000_000)
                    await trio.testing.wait_all_tasks_blocked(0.01)
                    sending.cancel_scope.cancel()
                listen.set()
                with pytest.raises(UpstreamCut):
                    await stream.send_all(b"more")
            with trio.fail_after(60):
                await heard.wait()
        nursery.cancel_scope.cancel()
    assert received
    assert not received.strip(b"x")


async def websocket_echo(exchange: Exchange) -> None:
    """Send a message back, then a ping, then close when its pong has come."""
    key = get_header(exchange.request.headers, b"sec-websocket-key")
    assert key is not None
    protocol = (b"sec-websocket-protocol", b"realtime")
    accept = (b"sec-websocket-accept", websocket_accept(key))
    stream = await exchange.upgrade(((b"upgrade", b"websocket"), accept, protocol))
    connection = WSConnection(ConnectionType.SERVER)
    connection.receive_data(bytes(await stream.receive_some()))
    await stream.send_all(encode_frame(Opcode.TEXT, b"first"))
    await stream.send_all(encode_frame(Opcode.BINARY, b"second"))
    await stream.send_all(encode_frame(Opcode.PING, b""))
    await stream.receive_some()
    await stream.send_all(encode_frame(Opcode.CLOSE, encode_close(1012, "later")))
    while await stream.receive_some():
        pass


@pytest.mark.parametrize("under_asgi", [False, True])
async def test_a_websocket_is_the_same_under_asgi(under_asgi: bool) -> None:
    app = cast("Any", asgi_app(websocket_echo))
    async with hypercorn_serving(app) if under_asgi else serving(websocket_echo) as port:
        events: list[Event] = []
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        connection = WSConnection(ConnectionType.CLIENT)
        request = Request(host="h", target="/", subprotocols=["realtime"])
        await stream.send_all(connection.send(request))
        with trio.fail_after(60):
            while data := await stream.receive_some():
                connection.receive_data(data)
                for event in connection.events():
                    events.append(event)
                    if isinstance(event, AcceptConnection):
                        await stream.send_all(connection.send(TextMessage("hello")))
                    elif isinstance(event, (Ping, CloseConnection)):
                        await stream.send_all(connection.send(event.response()))
                        if isinstance(event, CloseConnection):
                            await stream.send_eof()
        await stream.aclose()
    accepted, text, binary, *pings, closed = (each for each in events if not isinstance(each, Pong))
    assert isinstance(accepted, AcceptConnection)
    assert accepted.subprotocol == "realtime"
    assert isinstance(text, TextMessage)
    assert text.data == "first"
    assert isinstance(binary, BytesMessage)
    assert bytes(binary.data) == b"second"
    assert len(pings) == (0 if under_asgi else 1), "the ASGI server sends its own"
    assert isinstance(closed, CloseConnection)
    assert (closed.code, closed.reason) == (1012, "later")
