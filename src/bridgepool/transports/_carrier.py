"""The task that carries one websocket, from its handshake to its end; see `_connection`."""

from collections.abc import Awaitable, Callable
from typing import TypeAlias

import trio
from trio_websocket import WebSocketConnection

from bridgepool.transports._connection import WebSocketChannel
from bridgepool.transports._handshake import WebSocketLimits
from bridgepool.transports._keepalive import let_kernel_ask
from bridgepool.transports._link import Link

# What may be unread besides one message of the largest size.
_UNREAD_BYTES = 256 << 10
UNREAD_MESSAGES = 1024

Greet: TypeAlias = Callable[[trio.Nursery, Link], Awaitable[WebSocketConnection | None]]
"""Shakes hands over a link, with the reader in the nursery; None when it came to nothing."""


class GreetingFailedError(Exception):
    """There was no websocket handshake; the cause tells what trio-websocket said."""


async def run_connection(  # noqa: ASYNC114 - the linter cannot be told of every startable
    stream: trio.abc.Stream,
    limits: WebSocketLimits,
    deadline: float,
    greet: Greet,
    *,
    task_status: trio.TaskStatus[WebSocketChannel | None],
) -> None:
    """Carry one connection from its handshake to its end; closes the stream.

    `started()` gets the channel, or None when `greet` returned None.

    Raises:
        GreetingFailedError: Instead of `started()`. Afterwards nothing is raised.
    """
    let_kernel_ask(stream, limits.heartbeat_timeout)
    link = Link(stream, limits.max_message_bytes + _UNREAD_BYTES)
    channel: WebSocketChannel | None = None
    crash: Exception | None = None
    try:
        with trio.CancelScope() as scope:
            try:
                async with trio.open_nursery() as nursery:
                    ws = await _greet(nursery, link, deadline, greet)
                    if ws is not None:
                        channel = WebSocketChannel(link, ws, limits, nursery, scope)
                        link.establish()
                        link.heartbeat.begin(limits, is_server=ws.is_server)
                        scope.shield = True
                        task_status.started(channel)
                        await channel._write()
                    else:
                        nursery.cancel_scope.cancel()
            except* Exception as group:
                crash = _one_of(group)
    finally:
        if channel is not None:
            channel._finished(crash)
        await trio.aclose_forcefully(stream)  # noqa: ASYNC102 - does not wait
    if channel is None:
        if crash is not None:
            raise GreetingFailedError from crash
        task_status.started(None)


async def _greet(
    nursery: trio.Nursery, link: Link, deadline: float, greet: Greet
) -> WebSocketConnection | None:
    with trio.CancelScope(deadline=deadline) as scope:
        link.on_end = scope.cancel
        return await greet(nursery, link)
    if trio.current_time() >= deadline:
        raise trio.TooSlowError("the handshake took too long")
    raise link.error or trio.BrokenResourceError("the connection ended during the handshake")


def _one_of(error: BaseException) -> Exception:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Exception) else GreetingFailedError()
