"""The server on real sockets: TCP, TLS and Unix."""

import socket
import ssl
import struct
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing
import trustme

from bridgepool.http import Exchange, GracefulClose, Handler, HttpCounters, serve_http
from tests.http.support import GET, RawClient, echo
from tests.waiting import wait_until

Listeners = Sequence[trio.abc.Listener[trio.abc.Stream]]


@asynccontextmanager
async def serving_on(listeners: Listeners, handler: Handler) -> AsyncIterator[HttpCounters]:
    graceful, counters = GracefulClose(), HttpCounters()

    async def serve(task_status: trio.TaskStatus[object]) -> None:
        await serve_http(
            handler, listeners, graceful=graceful, counters=counters, task_status=task_status
        )

    async with trio.open_nursery() as nursery:
        assert await nursery.start(serve) == list(listeners)
        yield counters
        graceful.begin(5)


@asynccontextmanager
async def tcp(handler: Handler) -> AsyncIterator[tuple[int, HttpCounters]]:
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    async with serving_on(listeners, handler) as counters:
        yield listeners[0].socket.getsockname()[1], counters


async def test_requests_are_served_over_tcp_with_the_clients_address() -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200, body=f"{exchange.scheme} {exchange.client}".encode())

    async with (
        tcp(handler) as (port, _),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        own = stream.socket.getsockname()[1]
        client = RawClient(stream)
        for _ in range(3):
            assert (await client.ask()).body == b"http 127.0.0.1:%d" % own


async def test_requests_are_served_over_ipv6_and_over_unix_sockets(tmp_path: Path) -> None:
    async def handler(exchange: Exchange) -> None:
        await exchange.answer(200, body=exchange.client.encode())

    listeners = await trio.open_tcp_listeners(0, host="::1")
    with trio.socket.socket(socket.AF_UNIX) as unix:
        await unix.bind(str(tmp_path / "socket"))
        unix.listen()
        listeners.append(trio.SocketListener(unix))
        async with serving_on(listeners, handler):
            port = listeners[0].socket.getsockname()[1]
            async with await trio.open_tcp_stream("::1", port) as stream:
                own = stream.socket.getsockname()[1]
                assert (await RawClient(stream).ask()).body == b"[::1]:%d" % own
            async with await trio.open_unix_socket(tmp_path / "socket") as local:
                assert (await RawClient(local).ask()).body == b""


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


def tls_listener(
    authority: trustme.CA, listener: trio.SocketListener, *, https_compatible: bool
) -> trio.SSLListener[trio.SocketStream]:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    return trio.SSLListener(listener, context, https_compatible=https_compatible)


async def tls_stream(
    authority: trustme.CA, listener: trio.SSLListener[trio.SocketStream]
) -> trio.SSLStream[trio.SocketStream]:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    inner = listener.transport_listener
    assert isinstance(inner, trio.SocketListener)
    return await trio.open_ssl_over_tcp_stream(
        "127.0.0.1", inner.socket.getsockname()[1], ssl_context=context, https_compatible=True
    )


@pytest.mark.parametrize("https_compatible", [True, False])
async def test_requests_are_served_over_tls(authority: trustme.CA, https_compatible: bool) -> None:
    async def handler(exchange: Exchange) -> None:
        assert exchange.scheme == "https"
        assert exchange.client.startswith("127.0.0.1:")
        await echo(exchange)

    inner = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    listener = tls_listener(authority, inner, https_compatible=https_compatible)
    async with (
        serving_on([listener], handler),
        await tls_stream(authority, listener) as stream,
    ):
        client = RawClient(stream)
        body = b"x" * 300_000
        head = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 300000\r\n\r\n"
        for _ in range(2):
            assert (await client.ask(head + body)).body == body
        bad = await client.ask(b"GET / HTTP/1.1\r\nHost : h\r\n\r\n")
        assert bad.status == 400


async def test_a_client_that_disconnects_without_close_notify_cancels_the_handler(
    authority: trustme.CA,
) -> None:
    async def handler(exchange: Exchange) -> None:
        started.set()
        await trio.sleep_forever()

    started = trio.Event()
    inner = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    listener = tls_listener(authority, inner, https_compatible=False)
    async with serving_on([listener], handler) as counters:
        stream = await tls_stream(authority, listener)
        await stream.send_all(GET)
        await started.wait()
        await trio.aclose_forcefully(stream.transport_stream)
        await wait_until(lambda: counters.clients_left == 1)


async def test_plain_text_on_a_tls_port_ends_that_connection_only(
    authority: trustme.CA,
) -> None:
    inner = (await trio.open_tcp_listeners(0, host="127.0.0.1"))[0]
    listener = tls_listener(authority, inner, https_compatible=True)
    async with serving_on([listener], echo) as counters:
        port = inner.socket.getsockname()[1]
        async with await trio.open_tcp_stream("127.0.0.1", port) as plain:
            await plain.send_all(GET)
            while await plain.receive_some():
                pass
        async with await tls_stream(authority, listener) as stream:
            assert (await RawClient(stream).ask()).status == 200
    assert (counters.refused, counters.handler_errors) == (0, 0)


async def test_a_reset_is_noticed_while_the_handler_is_silent() -> None:
    async def handler(exchange: Exchange) -> None:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()

    started, ended = trio.Event(), trio.Event()
    async with tcp(handler) as (port, counters):
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(GET)
        await started.wait()
        stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        await stream.aclose()
        await ended.wait()
    assert (counters.clients_left, counters.handler_errors) == (1, 0)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_a_cut_is_visible_whatever_the_framing(version: bytes) -> None:
    """A body that the end of the connection ends can only be cut by a reset."""

    async def handler(exchange: Exchange) -> None:
        async with exchange.respond(200, data=b"part"):
            await read.wait()
            raise ConnectionError

    read = trio.Event()
    async with (
        tcp(handler) as (port, counters),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        await stream.send_all(GET.replace(b"1.1", version))
        data = b""
        while b"part" not in data:
            data += await stream.receive_some()
        read.set()
        if version == b"1.0":
            with pytest.raises(trio.BrokenResourceError):
                await stream.receive_some()
        else:
            assert b"0\r\n\r\n" not in await RawClient(stream).read_to_end()
    assert (counters.responses_cut, counters.handler_errors) == (1, 1)


async def test_the_answer_to_a_bad_request_survives_what_is_still_being_sent() -> None:
    """Closing with unread bytes would reset the connection and could take the answer away."""
    async with (
        tcp(echo) as (port, counters),
        await trio.open_tcp_stream("127.0.0.1", port) as stream,
    ):
        await stream.send_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: x\r\n\r\n")
        for _ in range(20):
            await stream.send_all(b"x" * 10_000)
        assert (await RawClient(stream).read_to_end()).startswith(b"HTTP/1.1 400 ")
    assert counters.refused == 1
