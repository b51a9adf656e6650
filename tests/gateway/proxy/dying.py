"""An upstream that fails as it is told to."""

from __future__ import annotations

from collections import deque
from contextlib import suppress

import attrs
import trio

from tests.gateway.proxy.raw import raw_upstream, read_head
from tests.ports import free_port
from tests.waiting import wait_until

HANG = b"hang"
CUT = b""


def answer(status: int, *fields: str, body: str = "{}") -> bytes:
    """An answer as bytes."""
    lines = [f"HTTP/1.1 {status} X", f"content-length: {len(body)}", *fields]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


@attrs.define(eq=False)
class Dying:
    """An upstream that gives one answer after the other, and then always the same."""

    then: bytes = answer(200)
    answers: deque[bytes] = attrs.field(factory=deque)
    url: str = ""
    heads: list[bytes] = attrs.field(factory=list)
    bodies: list[bytes] = attrs.field(factory=list)

    @property
    def count(self) -> int:
        """The number of requests that came."""
        return len(self.heads)

    async def serve(self, stream: trio.SocketStream) -> None:
        with suppress(trio.BrokenResourceError, AssertionError):
            while True:
                head, _, body = (await read_head(stream)).partition(b"\r\n\r\n")
                self.heads.append(head.lower())
                length = self.heads[-1].partition(b"content-length: ")[2].partition(b"\r\n")[0]
                while len(body) < int(length or 0):
                    piece = await stream.receive_some()
                    assert piece, "the gateway left"
                    body += piece
                self.bodies.append(body)
                said = self.answers.popleft() if self.answers else self.then
                if said == CUT:
                    return
                if said == HANG:
                    await trio.sleep_forever()
                await stream.send_all(said)
                if b"\r\nconnection: close" in said:
                    return

    async def wait_count(self, count: int) -> None:
        """Wait until so many requests came."""
        await wait_until(lambda: self.count >= count)


async def start_dying(nursery: trio.Nursery, *answers: bytes, then: bytes = answer(200)) -> Dying:
    """Start one."""
    upstream = Dying(then, deque(answers))
    upstream.url = await raw_upstream(nursery, upstream.serve)
    return upstream


def closed_port() -> str:
    """Return the base URL of an upstream that refuses connections."""
    return f"http://127.0.0.1:{free_port()}/v1"
