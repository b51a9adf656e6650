"""Upstreams that a test scripts, and a way to cancel a task at each of its checkpoints."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import TypeAlias

import attrs
import trio
import trio.testing

from bridgepool.http import UpstreamClient, UpstreamLimits, open_upstream_client

Script: TypeAlias = Callable[["Peer"], Awaitable[None]]

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
LIMITS = UpstreamLimits()


@attrs.define(eq=False)
class Peer:
    """The upstream's end of one connection."""

    stream: trio.abc.Stream
    buffer: bytes = b""

    async def read_until(self, mark: bytes) -> bytes:
        """Read up to a mark and past it; b"" when the client leaves before."""
        while mark not in self.buffer:
            data = await self.stream.receive_some()
            if not data:
                return b""
            self.buffer += data
        found, _, self.buffer = self.buffer.partition(mark)
        return found + mark

    async def read_head(self) -> bytes:
        return await self.read_until(b"\r\n\r\n")

    async def read_exactly(self, count: int) -> bytes:
        while len(self.buffer) < count:
            data = await self.stream.receive_some()
            assert data, f"ended after {self.buffer!r}"
            self.buffer += data
        found, self.buffer = self.buffer[:count], self.buffer[count:]
        return found

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def wait_closed(self) -> None:
        """Return when the client has closed its end, however."""
        try:
            while await self.stream.receive_some():
                pass
        except trio.BrokenResourceError:
            pass


async def answer_all(peer: Peer) -> None:
    """Act as a plain upstream: respond to every request with `OK`."""
    while await peer.read_head():
        await peer.send(OK)


@attrs.define(eq=False)
class Upstream:
    """Runs one script for each connection that is dialled; the last one again and again."""

    scripts: list[Script]
    nursery: trio.Nursery
    pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]
    dialled: int = 0
    open: int = 0

    async def dial(self) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        ours, theirs = self.pair()
        script = self.scripts[min(self.dialled, len(self.scripts) - 1)]
        self.dialled += 1
        self.nursery.start_soon(self._run, script, theirs)
        return ours

    async def _run(self, script: Script, stream: trio.abc.Stream) -> None:
        self.open += 1
        async with stream:
            with suppress(trio.BrokenResourceError):  # the client closed while the script sent
                await script(Peer(stream))
        self.open -= 1


@asynccontextmanager
async def client_of(
    *scripts: Script,
    limits: UpstreamLimits = LIMITS,
    pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]] = trio.testing.memory_stream_pair,
) -> AsyncIterator[tuple[UpstreamClient, Upstream]]:
    """Open a client whose connections lead to these scripts."""
    async with trio.open_nursery() as nursery:
        upstream = Upstream(list(scripts), nursery, pair)
        async with open_upstream_client(
            "http://upstream", limits=limits, dial=upstream.dial
        ) as client:
            yield client, upstream
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def client_of_sockets(
    *scripts: Script, limits: UpstreamLimits = LIMITS
) -> AsyncIterator[UpstreamClient]:
    """Open a client whose connections lead to these scripts over loopback TCP."""
    async with trio.open_nursery() as nursery:
        upstream = Upstream(list(scripts), nursery, trio.testing.memory_stream_pair)

        async def serve(stream: trio.SocketStream) -> None:
            script = upstream.scripts[min(upstream.dialled, len(upstream.scripts) - 1)]
            upstream.dialled += 1
            await upstream._run(script, stream)

        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        # They listen already, so nothing is missed before the task begins to accept.
        nursery.start_soon(trio.serve_listeners, serve, listeners)  # noqa: ASYNC113 -- see above
        port = listeners[0].socket.getsockname()[1]
        async with open_upstream_client(f"http://127.0.0.1:{port}", limits=limits) as client:
            yield client
        nursery.cancel_scope.cancel()


async def read_all(client: UpstreamClient, method: bytes = b"GET", target: bytes = b"/") -> bytes:
    """Send a request without a body and return the body of its answer."""
    body = b""
    async with client.request(method, target) as response:
        while not response.ended:
            body += await response.receive_some()
    return body


@attrs.define(eq=False)
class _CancelAtStep(trio.abc.Instrument):
    task: trio.lowlevel.Task
    scope: trio.CancelScope
    left: int

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.left -= 1
            if self.left == 0:
                self.scope.cancel()


async def cancelled_at_step(step: int, function: Callable[[], Awaitable[object]]) -> bool:
    """Run a function, cancel it where it waits for the n-th time; true if that hit it."""
    with trio.CancelScope() as scope:
        instrument = _CancelAtStep(trio.lowlevel.current_task(), scope, step)
        trio.lowlevel.add_instrument(instrument)
        try:
            await function()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


async def cancel_at_every_step(
    world: Callable[[], AbstractAsyncContextManager[Callable[[], Awaitable[object]]]],
) -> int:
    """Run a function in a new world each time, cancelled one step later, until it gets through.

    Returns:
        How often it was cancelled.
    """
    step = 0
    while True:
        step += 1
        async with world() as function:
            if not await cancelled_at_step(step, function):
                return step - 1
        assert step < 500


class Pieces:
    """A request body that gives these pieces, one by one."""

    def __init__(self, *pieces: bytes) -> None:
        self.pieces = list(pieces)
        self.trailers: tuple[tuple[bytes, bytes], ...] = ()

    async def receive_some(self) -> bytes:
        await trio.lowlevel.checkpoint()
        return self.pieces.pop(0) if self.pieces else b""
