"""What the tests of the server share: a memory listener, raw clients, response parsers."""

import math
import types
from collections.abc import AsyncIterator, Callable, Coroutine, Generator
from contextlib import asynccontextmanager
from typing import Any

import attrs
import h11
import trio
import trio.testing

from bridgepool.http import (
    ConnectionLimiter,
    Exchange,
    GracefulClose,
    Handler,
    HttpCounters,
    HttpLimits,
    ServerWire,
    serve_http,
)
from bridgepool.http._h11_wires import H11ServerWire

GET = b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"


@attrs.frozen
class Answer:
    """One response as h11's client, which is not under test, reads it."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes = b""
    trailers: dict[bytes, bytes] = attrs.field(factory=dict)


@attrs.define(eq=False)
class RawClient:
    """Sends raw bytes, and reads answers with h11."""

    stream: trio.abc.Stream
    _left: bytes = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_until(self, end: bytes) -> bytes:
        """Return what comes, up to and including `end`."""
        while end not in self._left:
            data = await self.stream.receive_some()
            assert data, f"ended after {self._left!r}"
            self._left += data
        found, self._left = self._left.split(end, 1)
        return found + end

    async def read_to_end(self) -> bytes:
        """Return all that comes until the server closes."""
        data, self._left = self._left, b""
        while piece := await self.stream.receive_some():
            data += piece
        return data

    async def answer(self, method: str = "GET") -> Answer:
        """Read one final response; h11.RemoteProtocolError if it is cut."""
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("host", "h")]))
        connection.send(h11.EndOfMessage())
        if self._left:
            connection.receive_data(self._left)
            self._left = b""
        status, headers, body = 0, {}, b""
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(bytes(await self.stream.receive_some()))
            elif isinstance(event, h11.Response):
                status, headers = event.status_code, dict(event.headers)
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                self._left = connection.trailing_data[0]
                return Answer(status, headers, body, dict(event.headers))

    async def ask(self, raw: bytes = GET, method: str = "GET") -> Answer:
        """Send a request and read its answer."""
        await self.send(raw)
        return await self.answer(method)


@attrs.define(eq=False)
class MemoryListener(trio.abc.Listener[trio.abc.Stream]):
    """Accepts the far ends of in-memory connections."""

    _send: trio.MemorySendChannel[trio.abc.Stream] = attrs.field(init=False)
    _receive: trio.MemoryReceiveChannel[trio.abc.Stream] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._send, self._receive = trio.open_memory_channel[trio.abc.Stream](math.inf)

    async def accept(self) -> trio.abc.Stream:
        try:
            return await self._receive.receive()
        except trio.EndOfChannel:
            raise trio.ClosedResourceError from None

    async def aclose(self) -> None:
        self._receive.close()
        await trio.lowlevel.checkpoint()

    def connect(self) -> RawClient:
        """Return the near end of a new connection; trio.BrokenResourceError when closed."""
        near, far = trio.testing.memory_stream_pair()
        self.accept_stream(far)
        return RawClient(near)

    def accept_stream(self, far: trio.abc.Stream) -> None:
        """Have the server accept this stream."""
        self._send.send_nowait(far)


@attrs.define(eq=False)
class Served:
    """A running server and the ways to reach and watch it."""

    listener: MemoryListener
    graceful: GracefulClose
    counters: HttpCounters
    done: trio.Event = attrs.field(factory=trio.Event)

    def connect(self) -> RawClient:
        return self.listener.connect()


@asynccontextmanager
async def serving(
    handler: Handler,
    *,
    limits: HttpLimits | None = None,
    limiter: ConnectionLimiter | None = None,
    over_limit: Handler | None = None,
    half_close: bool = False,
    new_wire: Callable[[HttpLimits], ServerWire] = H11ServerWire,
) -> AsyncIterator[Served]:
    """Serve over memory streams; leaving the block closes gracefully and waits for the end."""
    served = Served(MemoryListener(), GracefulClose(), HttpCounters())

    async def run(
        task_status: trio.TaskStatus[object] = trio.TASK_STATUS_IGNORED,
    ) -> None:
        await serve_http(
            handler,
            [served.listener],
            limits=limits if limits is not None else HttpLimits(),
            graceful=served.graceful,
            counters=served.counters,
            limiter=limiter,
            over_limit=over_limit,
            half_close=half_close,
            new_wire=new_wire,
            task_status=task_status,
        )
        served.done.set()

    async with trio.open_nursery() as nursery:
        await nursery.start(run)
        yield served
        served.graceful.begin(0)


async def echo(exchange: Exchange) -> None:
    """Answer with the request's own body and trailers."""
    body = b"".join([piece async for piece in exchange.body])
    async with exchange.respond(200, ((b"x-method", exchange.request.method),)) as stream:
        await stream.send_all(body)
        stream.trailers = exchange.body.trailers


@types.coroutine
def cancelled_at(
    step: int, scope: trio.CancelScope, body: Coroutine[Any, Any, None]
) -> Generator[Any, Any, bool]:
    """Run `body`, cancelling `scope` when it is about to wait for the step-th time.

    Returns:
        Whether it got as far as that.
    """
    value, steps = None, 0
    while True:
        try:
            trap = body.send(value)
        except StopIteration:
            return steps >= step
        steps += 1
        if steps == step:
            scope.cancel()
        value = yield trap


class Waiting:
    """A handler that waits without sending until released, and records how it ended."""

    def __init__(self) -> None:
        self.started = trio.Event()
        self.release = trio.Event()
        self.ended = trio.Event()
        self.cancelled = False

    async def __call__(self, exchange: Exchange) -> None:
        self.started.set()
        try:
            await self.release.wait()
            await exchange.answer(200, body=exchange.request.target)
        except trio.Cancelled:
            self.cancelled = True
            raise
        finally:
            self.ended.set()
