"""A websocket client, and an upstream of scripts, both on wsproto."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio
from wsproto import ConnectionType, WSConnection
from wsproto.connection import ConnectionState
from wsproto.events import (
    AcceptConnection,
    BytesMessage,
    CloseConnection,
    Event,
    Ping,
    Pong,
    RejectConnection,
    Request,
    TextMessage,
)

Headers = list[tuple[bytes, bytes]]


@attrs.define(eq=False)
class Socket:
    """One end of a websocket."""

    stream: trio.SocketStream
    connection: WSConnection
    events: list[Event] = attrs.field(factory=list)
    pings: int = 0

    async def next_event(self) -> Event | None:
        """Return the next event but pings, which are answered, and pongs; None at the end."""
        with trio.fail_after(60):
            while True:
                while self.events:
                    event = self.events.pop(0)
                    if isinstance(event, Ping):
                        self.pings += 1
                        await self.send(event.response())
                    elif not isinstance(event, Pong):
                        return event
                try:
                    data = await self.stream.receive_some()
                except trio.BrokenResourceError:
                    return None
                if not data:
                    return None
                self.connection.receive_data(bytes(data))
                self.events += self.connection.events()

    async def receive(self) -> str | bytes:
        """Return the next message."""
        parts: list[str | bytes] = []
        while True:
            event = await self.next_event()
            assert isinstance(event, (TextMessage, BytesMessage)), event
            parts.append(event.data if isinstance(event, TextMessage) else bytes(event.data))
            if event.message_finished:
                break
        if isinstance(parts[0], str):
            return "".join(part for part in parts if isinstance(part, str))
        return b"".join(part for part in parts if isinstance(part, bytes))

    async def receive_close(self) -> tuple[int, str]:
        """Return code and reason of the close that comes next; it is answered."""
        event = await self.next_event()
        assert isinstance(event, CloseConnection), event
        if self.connection.state is ConnectionState.REMOTE_CLOSING:
            await self.send(event.response())
        return event.code, event.reason or ""

    async def send(self, *events: Event) -> None:
        await self.stream.send_all(b"".join(self.connection.send(event) for event in events))

    async def send_text(self, text: str) -> None:
        await self.send(TextMessage(text))


Script = Callable[[Socket, Request], Awaitable[None]]


@attrs.define(eq=False)
class SocketUpstream:
    """An upstream of one script for each websocket."""

    url: str
    refuse: int = 0
    """The status that handshakes are refused with; 0 to accept them."""
    requests: list[Request] = attrs.field(factory=list)
    ended: int = 0


async def start_upstream(
    nursery: trio.Nursery, script: Script, *, refuse: int = 0, protocol: str | None = None
) -> SocketUpstream:
    """Serve a script on each websocket; or refuse all with this status."""
    upstream = SocketUpstream("", refuse)

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            socket = Socket(stream, WSConnection(ConnectionType.SERVER))
            request = await socket.next_event()
            if not isinstance(request, Request):
                return
            upstream.requests.append(request)
            if upstream.refuse:
                await socket.send(RejectConnection(status_code=upstream.refuse, headers=[]))
                return
            await socket.send(AcceptConnection(subprotocol=protocol))
            try:
                await script(socket, request)
            finally:
                upstream.ended += 1

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    upstream.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"
    return upstream


@asynccontextmanager
async def connect_socket(
    address: str,
    target: str = "/ai/v1/responses",
    headers: Headers | None = None,
    protocols: list[str] | None = None,
) -> AsyncIterator[tuple[Socket, AcceptConnection | RejectConnection]]:
    """Open a websocket to the gateway; or not, if it is refused."""
    host, _, port = address.partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        socket = Socket(stream, WSConnection(ConnectionType.CLIENT))
        request = Request(
            host="127.0.0.1",
            target=target,
            extra_headers=headers or [],
            subprotocols=protocols or [],
        )
        await socket.send(request)
        answer = await socket.next_event()
        assert isinstance(answer, (AcceptConnection, RejectConnection)), answer
        yield socket, answer


async def echo(socket: Socket, _request: Request) -> None:
    """Send each message back, and a close too."""
    while (event := await socket.next_event()) is not None:
        if isinstance(event, CloseConnection):
            await socket.send(event.response())
            return
        await socket.send(event)
