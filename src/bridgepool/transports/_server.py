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

from bridgepool._network import format_address, peer_address
from bridgepool._secret import Secret
from bridgepool._services import open_service_nursery
from bridgepool.transports._carrier import UNREAD_MESSAGES, GreetingFailedError, run_connection
from bridgepool.transports._connection import WebSocketChannel
from bridgepool.transports._handshake import Handshake, Refused, WebSocketLimits
from bridgepool.transports._link import Link
from bridgepool.transports._timekeeper import keep_time

T = TypeVar("T")
_log = logging.getLogger("bridgepool.transports")
_DEFAULT_LIMITS = WebSocketLimits()
# what a handler may leave uncaught when its channel has ended
_ENDINGS = (trio.EndOfChannel, trio.BrokenResourceError, trio.ClosedResourceError)
_BUSY = Refused(503, "admission_timeout", "the server took too long to look at you; try again")
_FAILED = Refused(500, "internal_error", "the server failed to look at you; its log tells more")


@attrs.define(eq=False)
class WebSocketCounters:
    """What happened on a server of websockets; may be shared by several."""

    connections: int = 0
    """Accepted so far, whatever came of them."""
    greetings_failed: int = 0
    """That were no websocket handshake, or none in time."""
    refused: int = 0
    """Turned away by `admit`, or because it failed."""
    admitted: int = 0
    """Given to the handler."""
    open: int = 0
    """Given to the handler and not yet closed."""
    handler_errors: int = 0
    """Ended by an exception of the handler."""


@attrs.define(eq=False)
class _Server(Generic[T]):
    """One run of `serve_websockets`."""

    handler: Callable[[trio.abc.Channel[bytes], T], Awaitable[None]]
    admit: Callable[[Handshake], Awaitable[T | Refused]]
    limits: WebSocketLimits
    counters: WebSocketCounters
    channels: set[WebSocketChannel] = attrs.field(factory=set)

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection; whatever happens on it, the server goes on."""
        self.counters.connections += 1
        try:
            async with open_service_nursery() as nursery:
                greeting = _Greeting(self, format_address(peer_address(stream)))
                deadline = trio.current_time() + self.limits.handshake_timeout
                carry = partial(run_connection, stream, self.limits, deadline, greeting.greet)
                channel: WebSocketChannel | None = await nursery.start(carry)
                if channel is not None:
                    await self.converse(channel, greeting.admitted[0])
        except GreetingFailedError as error:
            self.counters.greetings_failed += 1
            _log.info("a connection was no websocket handshake: %r", error.__cause__)
        except Exception:
            _log.exception("a websocket ended by an error of the server's own")

    async def converse(self, channel: WebSocketChannel, who: T) -> None:
        """Run the handler; close afterwards, for whatever reason it ended."""
        counters, goodbye = self.counters, (1001, "going away")
        counters.admitted += 1
        counters.open += 1
        self.channels.add(channel)
        try:
            await self.handler(channel, who)
            goodbye = (1000, "")
        except* Exception as group:
            if channel.has_ended() and group.split(_ENDINGS)[1] is None:
                _log.debug("a websocket's handler ended with its connection")
            else:
                goodbye = (1011, "internal error")
                counters.handler_errors += 1
                _log.exception("the handler of a websocket raised; its connection is closed")
        finally:
            channel.start_closing(*goodbye)
            with trio.move_on_after(self.limits.close_timeout, shield=True):
                await channel.aclose()
            self.channels.discard(channel)
            counters.open -= 1


@attrs.define(eq=False)
class _Greeting(Generic[T]):
    """The handshake of one connection."""

    server: _Server[T]
    peer: str
    # whom `admit` found, in a list of one
    admitted: list[T] = attrs.field(factory=list)

    async def greet(self, nursery: trio.Nursery, link: Link) -> WebSocketConnection | None:
        limits = self.server.limits
        request = await wrap_server_stream(
            nursery,
            link,
            message_queue_size=UNREAD_MESSAGES,
            max_message_size=limits.max_message_bytes,
            receive_buffer_size=None,
        )
        answer: T | Refused = _BUSY
        with trio.move_on_after(limits.handshake_timeout / 2):
            answer = await self.ask(describe(request, self.peer))
        if isinstance(answer, Refused):
            self.server.counters.refused += 1
            body = json.dumps({"code": answer.code, "reason": answer.reason}).encode()
            headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
            await request.reject(answer.status, extra_headers=headers, body=body)
            return None
        self.admitted.append(answer)
        return await request.accept()

    async def ask(self, handshake: Handshake) -> T | Refused:
        try:
            return await self.server.admit(handshake)
        except Exception:
            _log.exception("nobody can be admitted: the check of a handshake raised")
            return _FAILED


def describe(request: WebSocketRequest, peer: str) -> Handshake:
    """Take out of a request what is of interest."""
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
    )


async def serve_websockets(  # noqa: ASYNC114, ASYNC128 - serve_listeners calls started()
    handler: Callable[[trio.abc.Channel[bytes], T], Awaitable[None]],
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    *,
    admit: Callable[[Handshake], Awaitable[T | Refused]],
    limits: WebSocketLimits = _DEFAULT_LIMITS,
    counters: WebSocketCounters | None = None,
    task_status: trio.TaskStatus[
        Sequence[trio.abc.Listener[trio.abc.Stream]]
    ] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve websockets on listeners, which are closed at the end.

    Each connection is handled by `await handler(channel, who)` in a task of its own, and closed
    when that returns. A handler that raises ends its own connection only; it is logged and
    counted, and its client sees the channel broken. So it is with what is no handshake.

    Args:
        handler: Gets the channel, and what `admit` returned for it.
        listeners: Of TCP, of TLS (`trio.SSLListener`), or any others of streams.
        admit: Decides on each handshake: who it is, or `Refused`. It has half of
            `handshake_timeout`; the client is told if that is not enough, or if it raises.
        limits: How much and how long is taken from one client.
        counters: Where to count; may be shared with other servers.
        task_status: `started()` gets the listeners, once they accept.

    Cancellation: Handlers are cancelled, and clients told goodbye, within `close_timeout`.
    """
    server = _Server(handler, admit, limits, counters or WebSocketCounters())
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keep_time, server.channels, limits)
        await trio.serve_listeners(server.serve, list(listeners), task_status=task_status)
