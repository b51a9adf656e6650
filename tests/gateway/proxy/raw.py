"""Upstreams and clients that speak in raw bytes, to say what no HTTP library would."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

Script = Callable[[trio.SocketStream], Awaitable[None]]


async def read_head(stream: trio.abc.ReceiveStream) -> bytes:
    """Read as far as the end of a head; what came with it is returned too."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = await stream.receive_some()
        assert piece, data
        data += piece
    return data


async def raw_upstream(nursery: trio.Nursery, script: Script) -> str:
    """Run `script` on each connection to a free port; return the base URL."""

    async def serve(stream: trio.SocketStream) -> None:
        async with stream:
            await script(stream)

    listeners = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
    return f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}/v1"


def says(answer: bytes, *, then: Script | None = None) -> Script:
    """After the request's head: say this, then do that, then close."""

    async def script(stream: trio.SocketStream) -> None:
        await read_head(stream)
        await stream.send_all(answer)
        if then is not None:
            await then(stream)

    return script


async def silence(_: trio.SocketStream) -> None:
    """Say nothing more, and hold the connection."""
    await trio.sleep_forever()


async def silence_to_end(stream: trio.SocketStream) -> None:
    """Say nothing more until the gateway hangs up."""
    try:
        while await stream.receive_some():
            pass
    except trio.BrokenResourceError:
        pass


@attrs.define(eq=False)
class RawClient:
    """A client's connection to the gateway."""

    stream: trio.SocketStream
    data: bytes = b""

    async def send(self, data: bytes) -> None:
        await self.stream.send_all(data)

    async def read_until(self, mark: bytes) -> bytes:
        """Read until `mark` is in all that was said so far; return all of it."""
        with trio.fail_after(60):
            while mark not in self.data:
                piece = await self.stream.receive_some()
                assert piece, self.data
                self.data += piece
        return self.data

    async def read_to_end(self) -> bytes:
        """Read until the gateway closes; a reset is an end too."""
        with trio.fail_after(60):
            try:
                while piece := await self.stream.receive_some():
                    self.data += piece
            except trio.BrokenResourceError:
                pass
        return self.data


@asynccontextmanager
async def connect(address: str) -> AsyncIterator[RawClient]:
    """Connect to the gateway; leaving the block closes the connection."""
    host, _, port = address.partition(":")
    async with await trio.open_tcp_stream(host, int(port)) as stream:
        yield RawClient(stream)


def post(target: str, body: bytes = b"{}", extra: bytes = b"") -> bytes:
    """A POST as bytes."""
    return (
        b"POST %b HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n%b\r\n"
        % (target.encode(), len(body), extra)
    ) + body
