"""A websocket server on loopback, and helpers to talk to it."""

import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio

from bridgepool.transports.websocket import (
    Handshake,
    Refused,
    WebSocketCounters,
    WebSocketLimits,
    serve_websockets,
)

Channel = trio.abc.Channel[bytes]
QUICK = WebSocketLimits(
    max_message_bytes=1 << 20,
    handshake_timeout=20,
    heartbeat_interval=0.05,
    heartbeat_timeout=20,
    close_timeout=0.5,
)
IMPATIENT = attrs.evolve(QUICK, heartbeat_timeout=0.4)
"""Silent peers are detected soon. A busy machine can make any peer silent for so long."""
STEADY = attrs.evolve(QUICK, heartbeat_timeout=1.0)
"""Peers that answer stay connected, also on a busy machine."""


async def admit_all(handshake: Handshake) -> Handshake | Refused:
    await trio.lowlevel.checkpoint()
    return handshake


@attrs.define(eq=False)
class Server:
    """Runs `handler` for each connection; by default hands the channel to the test."""

    port: int
    scheme: str
    counters: WebSocketCounters
    given: trio.MemoryReceiveChannel[tuple[Channel, Handshake]]
    release: trio.Event
    stop: Callable[[], None]

    @property
    def url(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}/"

    async def accepted(self) -> Channel:
        """Return the server's end of the next connection."""
        with trio.fail_after(60):
            return (await self.given.receive())[0]


@asynccontextmanager
async def running(
    *,
    handler: Callable[[Channel, Handshake], Awaitable[None]] | None = None,
    admit: Callable[[Handshake], Awaitable[Handshake | Refused]] = admit_all,
    limits: WebSocketLimits = QUICK,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Server]:
    give, given = trio.open_memory_channel[tuple[Channel, Handshake]](1000)
    release = trio.Event()

    async def hand_over(channel: Channel, handshake: Handshake) -> None:
        await give.send((channel, handshake))
        await release.wait()

    opened = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = opened[0].socket.getsockname()[1]
    listeners: list[trio.abc.Listener[trio.abc.Stream]] = [
        trio.SSLListener(listener, tls) if tls else listener for listener in opened
    ]
    counters = WebSocketCounters()
    serve = partial(
        serve_websockets,
        handler or hand_over,
        listeners,
        admit=admit,
        limits=limits,
        counters=counters,
    )
    async with trio.open_nursery() as nursery:
        serving: trio.Nursery = await nursery.start(_serve_apart, serve)
        stop = serving.cancel_scope.cancel
        yield Server(port, "wss" if tls else "ws", counters, given, release, stop)
        nursery.cancel_scope.cancel()


async def _serve_apart(  # noqa: ASYNC114 -- the linter cannot be told of every startable
    serve: Callable[..., Awaitable[None]], *, task_status: trio.TaskStatus[trio.Nursery]
) -> None:
    """Serve in a nursery that can be cancelled by itself."""
    async with trio.open_nursery() as nursery:
        await nursery.start(serve)
        task_status.started(nursery)


def messages_logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    records = [r for r in caplog.records if r.name == "bridgepool.transports"]
    return [r.getMessage() for r in records if r.levelno >= logging.INFO]
