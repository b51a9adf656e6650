"""Whatever waits to be accepted is accepted before the next turn, on every server."""

from __future__ import annotations

import errno
import logging
import os
import resource
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from functools import partial

import attrs
import pytest
import trio
import trio.testing
import trustme

from bridgepool._accepting import MAX_ACCEPTED_PER_TURN, _Handed, serve_streams
from bridgepool.http import Exchange, HttpCounters, serve_http
from bridgepool.transports.websocket import (
    Handshake,
    Refused,
    WebSocketCounters,
    serve_websockets,
)

Listener = trio.abc.Listener[trio.abc.Stream]


@attrs.define(eq=False)
class Turns(trio.abc.Instrument):
    """Counts the turns of the scheduler."""

    count: int = 0

    def after_io_wait(self, timeout: float) -> None:
        self.count += 1


@asynccontextmanager
async def counting_turns() -> AsyncIterator[Turns]:
    turns = Turns()
    trio.lowlevel.add_instrument(turns)
    try:
        yield turns
    finally:
        trio.lowlevel.remove_instrument(turns)


@contextmanager
def waiting_connections(port: int, count: int) -> Iterator[list[socket.socket]]:
    """Connections that the kernel has set up, and nobody has accepted."""
    with ExitStack() as stack:
        yield [
            stack.enter_context(socket.create_connection(("127.0.0.1", port))) for _ in range(count)
        ]


async def open_listener() -> tuple[trio.SocketListener, int]:
    [listener] = await trio.open_tcp_listeners(0, host="127.0.0.1", backlog=1024)
    return listener, listener.socket.getsockname()[1]


async def keep_the_scheduler_turning() -> None:
    while True:
        await trio.lowlevel.checkpoint()


async def turns_until(
    serve: Callable[..., Awaitable[object]], listener: Listener, reached: Callable[[], bool]
) -> int:
    """Return how many turns `serve` needs on `listener` until `reached`."""
    async with counting_turns() as turns, trio.open_nursery() as nursery:
        nursery.start_soon(keep_the_scheduler_turning)
        nursery.start_soon(serve, [listener])
        while not reached():  # noqa: ASYNC110 -- counts turns
            assert turns.count < 2000
            await trio.lowlevel.checkpoint()
        count = turns.count
        nursery.cancel_scope.cancel()
    return count


async def refuse_exchange(exchange: Exchange) -> None:
    await exchange.answer(404)


async def refuse_handshake(_: Handshake) -> Refused:
    await trio.lowlevel.checkpoint()
    return Refused(403, "no", "no")


async def handle_channel(_: trio.abc.Channel[bytes], __: object) -> None:
    await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
async def test_an_http_server_accepts_all_that_wait_within_a_few_turns(tls: bool) -> None:
    plain, port = await open_listener()
    counters = HttpCounters()
    serve = partial(serve_http, refuse_exchange, counters=counters)
    with waiting_connections(port, 200):
        turns = await turns_until(serve, over(plain, tls), lambda: counters.connections == 200)
    assert turns <= 10


@pytest.mark.parametrize("tls", [False, True], ids=["tcp", "tls"])
async def test_a_websocket_server_accepts_all_that_wait_within_a_few_turns(tls: bool) -> None:
    plain, port = await open_listener()
    counters = WebSocketCounters()
    serve = partial(serve_websockets, handle_channel, admit=refuse_handshake, counters=counters)
    with waiting_connections(port, 200):
        turns = await turns_until(serve, over(plain, tls), lambda: counters.connections == 200)
    assert turns <= 10


def over(listener: trio.SocketListener, tls: bool) -> Listener:
    if not tls:
        return listener
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    return trio.SSLListener(listener, context)


async def test_a_turn_accepts_no_more_than_the_bound() -> None:
    listener, port = await open_listener()
    accepted: dict[int, int] = {}  # turn -> handlers that began in it

    async with counting_turns() as turns:

        async def handle(_: trio.abc.Stream) -> None:
            accepted[turns.count] = accepted.get(turns.count, 0) + 1
            await trio.lowlevel.checkpoint()

        async def serve(listeners: Sequence[Listener]) -> None:
            async with trio.open_nursery() as handlers:
                await serve_streams(handle, listeners, handler_nursery=handlers)

        with waiting_connections(port, MAX_ACCEPTED_PER_TURN + 10):
            everyone = MAX_ACCEPTED_PER_TURN + 10
            await turns_until(serve, listener, lambda: sum(accepted.values()) == everyone)
    assert sorted(accepted.values()) == [10, MAX_ACCEPTED_PER_TURN]


async def test_a_listener_that_is_closed_ends_the_server() -> None:
    listener, port = await open_listener()

    async def handle(_: trio.abc.Stream) -> None:
        raise AssertionError("nobody connects")

    with pytest.RaisesGroup(trio.ClosedResourceError, flatten_subgroups=True):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(serve_streams, handle, [listener], handler_nursery=nursery))
            await trio.testing.wait_all_tasks_blocked()
            await listener.aclose()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


async def test_a_process_without_free_files_accepts_again_when_it_has_some(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener, port = await open_listener()

    async def handle(stream: trio.abc.Stream) -> None:
        await stream.send_all(b"hello")

    caplog.set_level(logging.ERROR, "bridgepool.network")
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(serve_streams, handle, [listener], handler_nursery=nursery))
        await trio.testing.wait_all_tasks_blocked()
        async with await trio.open_tcp_stream("127.0.0.1", port) as client:
            assert await client.receive_some() == b"hello"
        late = socket.socket()
        late.setblocking(False)
        resource.setrlimit(resource.RLIMIT_NOFILE, (late.fileno(), before[1]))
        try:
            with pytest.raises(BlockingIOError):
                late.connect(("127.0.0.1", port))
            while not caplog.records:  # noqa: ASYNC110 -- the log has no event
                await trio.lowlevel.checkpoint()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        stream = trio.SocketStream(trio.socket.from_stdlib_socket(late))
        with trio.fail_after(60):
            assert await stream.receive_some() == b"hello"
        await stream.aclose()
        nursery.cancel_scope.cancel()
    [record] = caplog.records
    assert record.getMessage() == "connections cannot be accepted; retrying"
    assert record.__dict__["error"] == os.strerror(errno.EMFILE)


@attrs.define(eq=False)
class Failing(trio.abc.Listener[trio.abc.Stream]):
    """A listener whose `accept` raises the errors that it was given, and then waits."""

    numbers: list[int]
    tried: int = 0

    async def accept(self) -> trio.abc.Stream:
        self.tried += 1
        if self.numbers:
            number = self.numbers.pop(0)
            raise OSError(number, os.strerror(number))
        await trio.sleep_forever()
        raise AssertionError

    async def aclose(self) -> None:
        await trio.lowlevel.checkpoint()


async def test_a_full_system_is_logged_once_and_another_error_ends_the_server(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    listener = Failing([errno.EMFILE, errno.ENFILE, errno.EBADF])
    async with trio.open_nursery() as nursery:
        with pytest.raises(BaseExceptionGroup) as caught:
            await serve_streams(trio.aclose_forcefully, [listener], handler_nursery=nursery)
    assert caught.group_contains(OSError, match="Bad file descriptor")
    assert (listener.tried, len(caplog.records)) == (3, 1)


async def test_the_listener_under_tls_has_nothing_to_close() -> None:
    with pytest.raises(AssertionError, match="nothing to close"):
        await _Handed([]).aclose()
