"""The serving side of websockets."""

import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Generic, TypeVar
from urllib.parse import parse_qsl

import attrs
import trio
from trio_websocket import WebSocketConnection, WebSocketRequest, wrap_server_stream

from bridgepool._accepting import serve_streams
from bridgepool._connection_limiter import ConnectionLimiter
from bridgepool._network import format_address, lacks_handshake, peer_address
from bridgepool._refusal_log import RefusalLog
from bridgepool._secret import Secret
from bridgepool._services import open_service_nursery
from bridgepool.transports._channel import (
    MAX_UNREAD_MESSAGES,
    HandshakeFailedError,
    WebSocketChannel,
    check_channels,
    run_connection,
)
from bridgepool.transports._handshake import Handshake, Refused, WebSocketLimits
from bridgepool.transports._watched_stream import WatchedStream

T = TypeVar("T")
_log = logging.getLogger("bridgepool.transports")
_DEFAULT_LIMITS = WebSocketLimits()
# Read at once. trio-websocket handles all frames of one read in one turn of the loop: 64 kB of
# empty fragments take a third of a second.
_READ_BYTES = 4096
# what a handler may raise when its channel has ended
_CHANNEL_ENDED = (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError)
_ADMISSION_TIMEOUT = Refused(
    503, "admission_timeout", "the server could not check the request in time; try again later"
)
_ADMISSION_FAILED = Refused(
    500, "internal_error", "the server failed to check the request; see its log"
)


@attrs.define(eq=False)
class WebSocketCounters:
    """What happened on a websocket server; several servers may share one."""

    connections: int = 0
    """Connections accepted."""
    connections_refused: int = 0
    """Connections closed at once, because they were over a limit of the `ConnectionLimiter`."""
    handshakes_failed: int = 0
    """Connections without a complete websocket handshake in time."""
    refused: int = 0
    """Handshakes refused by `admit`, or because it failed."""
    admitted: int = 0
    """Connections given to the handler."""
    open: int = 0
    """Connections given to the handler and not yet closed."""
    handler_errors: int = 0
    """Connections ended by an exception of the handler."""


@attrs.define(eq=False)
class _WebSocketServer(Generic[T]):
    """One run of `serve_websockets`."""

    handler: Callable[[trio.abc.Channel[bytes], T], Awaitable[None]]
    admit: Callable[[Handshake], Awaitable[T | Refused]]
    limits: WebSocketLimits
    counters: WebSocketCounters
    limiter: ConnectionLimiter
    channels: set[WebSocketChannel] = attrs.field(factory=set)
    failures: RefusalLog = attrs.field(factory=lambda: RefusalLog(_log))

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection; no failure of it ends the server."""
        self.counters.connections += 1
        address = peer_address(stream)
        place = self.limiter.enter(address[0] if address else None, trio.current_time())
        try:
            if place is None or place.reserved:  # one request is of no use to a websocket
                self.counters.connections_refused += 1
            else:
                await self.serve_connection(stream, format_address(address))
        finally:
            if place is not None:
                self.limiter.leave(place, handshake_failed=lacks_handshake(stream))

    async def serve_connection(self, stream: trio.abc.Stream, peer: str) -> None:
        """Perform the handshake, and run the handler; only cancellation raises."""
        admitted: list[T] = []  # what `admit` returned, if it was not `Refused`
        try:
            async with open_service_nursery() as nursery:
                deadline = trio.current_time() + self.limits.handshake_timeout
                perform = partial(self.perform_handshake, peer, admitted)
                run = partial(run_connection, stream, self.limits, deadline, perform)
                channel: WebSocketChannel | None = await nursery.start(run)
                if channel is not None:
                    await self.handle(channel, admitted[0])
        except HandshakeFailedError as error:
            self.counters.handshakes_failed += 1
            now = trio.current_time()
            cause = error.__cause__
            self.failures.info(now, "websocket handshake failed: %r", cause, peer=peer)
        except Exception:
            _log.exception("websocket connection failed by an internal error")

    async def perform_handshake(
        self, peer: str, admitted: list[T], nursery: trio.Nursery, stream: WatchedStream
    ) -> WebSocketConnection | None:
        request = await wrap_server_stream(
            nursery,
            stream,
            message_queue_size=MAX_UNREAD_MESSAGES,
            max_message_size=self.limits.max_message_bytes,
            receive_buffer_size=_READ_BYTES,
        )
        answer: T | Refused | None = _ADMISSION_TIMEOUT
        with trio.move_on_after(self.limits.handshake_timeout / 2):
            try:
                answer = await self.admit(_parse_request(request, peer))
            except Exception:
                _log.exception("websocket admission check raised")
                answer = _ADMISSION_FAILED
        if answer is None:  # a forgotten `return` must not let anybody in
            _log.error("websocket admission check returned None, not an identity or Refused")
            answer = _ADMISSION_FAILED
        if isinstance(answer, Refused):
            self.counters.refused += 1
            body = json.dumps({"code": answer.code, "reason": answer.reason}).encode()
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            await request.reject(answer.status, extra_headers=headers, body=body)
            return None
        admitted.append(answer)
        return await request.accept()

    async def handle(self, channel: WebSocketChannel, identity: T) -> None:
        """Run the handler, and close the channel whatever ended it."""
        counters, close_code = self.counters, (1001, "going away")
        counters.admitted += 1
        counters.open += 1
        self.channels.add(channel)
        try:
            await self.handler(channel, identity)
            close_code = (1000, "")
        except* Exception as group:
            if channel.has_ended() and group.split(_CHANNEL_ENDED)[1] is None:
                _log.debug("websocket handler ended with its connection")
            else:
                close_code = (1011, "internal error")
                counters.handler_errors += 1
                _log.exception("websocket handler raised; connection closed")
        finally:
            channel.start_closing(*close_code)
            with trio.move_on_after(self.limits.close_timeout, shield=True):
                await channel.aclose()
            self.channels.discard(channel)
            counters.open -= 1


def _parse_request(request: WebSocketRequest, peer: str) -> Handshake:
    path, _, query = request.path.partition("?")
    tokens = [value for name, value in request.headers if name.lower() == b"authorization"]
    scheme, _, token = tokens[0].partition(b" ") if len(tokens) == 1 else (b"", b"", b"")
    token = token.strip()
    is_bearer = scheme.lower() == b"bearer" and token and token.isascii()
    return Handshake(
        path,
        dict(parse_qsl(query, keep_blank_values=True)),
        Secret(token.decode("ascii")) if is_bearer else None,
        peer,
        _has_foreign_origin(request),
    )


def _has_foreign_origin(request: WebSocketRequest) -> bool:
    # The library keeps Host apart from the other headers, and offers no other way to it.
    host = request._event.host.lower().encode("latin-1")
    origins = [value for name, value in request.headers if name.lower() == b"origin"]
    return any(origin.strip().lower().partition(b"://")[2] != host for origin in origins)


async def serve_websockets(  # noqa: ASYNC114, ASYNC128 -- serve_streams calls started()
    handler: Callable[[trio.abc.Channel[bytes], T], Awaitable[None]],
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    *,
    admit: Callable[[Handshake], Awaitable[T | Refused]],
    limits: WebSocketLimits = _DEFAULT_LIMITS,
    counters: WebSocketCounters | None = None,
    limiter: ConnectionLimiter | None = None,
    task_status: trio.TaskStatus[
        Sequence[trio.abc.Listener[trio.abc.Stream]]
    ] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve websockets on listeners, which are closed at the end.

    `await handler(channel, identity)` handles each connection in a task of its own; the channel is
    closed when it returns. When it raises, the exception is logged and counted, and the client
    sees a broken channel; other connections go on. A connection without a websocket handshake is
    closed, logged and counted.

    Args:
        handler: Receives the channel, and what `admit` returned for it.
        listeners: TCP, TLS (`trio.SSLListener`) or other stream listeners.
        admit: Decides on each handshake: returns an identity of any type, or `Refused`. It may
            take half of `handshake_timeout`. When it takes longer, the client is refused with
            status 503; when it raises or returns None, with 500.
        limits: Sizes and timeouts.
        counters: Where to count; servers may share one.
        limiter: Limits the number of connections; servers may share one, also with
            `bridgepool.http.serve_http`. Connections over a limit are closed at once. None for no
            limit.
        task_status: `started()` receives the listeners, once they accept.

    Cancellation: Handlers are cancelled, and channels closed within `close_timeout`.
    """
    server = _WebSocketServer(
        handler, admit, limits, counters or WebSocketCounters(), limiter or ConnectionLimiter()
    )
    async with trio.open_nursery() as nursery:
        nursery.start_soon(check_channels, server.channels, limits)
        await serve_streams(
            server.serve, listeners, handler_nursery=nursery, task_status=task_status
        )
