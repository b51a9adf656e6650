"""Message channels over websockets (RFC 6455), by trio-websocket.

Needs `pip install 'bridgepool[remote]'`. A message is one binary websocket message.
"""

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar

import trio

from bridgepool.providers import Secret
from bridgepool.transports.errors import ConnectError, HandshakeRefusedError
from bridgepool.transports.handshake import Handshake, Refused, WebSocketLimits

T = TypeVar("T")
_DEFAULT_LIMITS = WebSocketLimits()

__all__ = [
    "ConnectError",
    "Handshake",
    "HandshakeRefusedError",
    "Refused",
    "WebSocketLimits",
    "open_websocket_channel",
    "serve_websockets",
]


@asynccontextmanager
async def open_websocket_channel(
    url: str,
    *,
    bearer: Secret | None = None,
    ssl_context: ssl.SSLContext | None = None,
    limits: WebSocketLimits = _DEFAULT_LIMITS,
) -> AsyncIterator[trio.abc.Channel[bytes]]:
    """Connect to a server of websockets; to be filled in."""
    raise NotImplementedError
    yield


async def serve_websockets(
    handler: Callable[[trio.abc.Channel[bytes], T], Awaitable[None]],
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    *,
    admit: Callable[[Handshake], Awaitable[T | Refused]],
    limits: WebSocketLimits = _DEFAULT_LIMITS,
    task_status: trio.TaskStatus[
        Sequence[trio.abc.Listener[trio.abc.Stream]]
    ] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve websockets on listeners; to be filled in."""
    raise NotImplementedError
