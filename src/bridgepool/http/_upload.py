"""The body of a request to an upstream, and the task that sends one that is long.

The task runs in the client's nursery and never raises. Errors of the body are stored in the
connection's `failure` for the reader. A connection that accepts no more data is only marked as
`not_reusable`: its upstream may have sent a response before it closed.
"""

import math
from collections.abc import Callable
from typing import Protocol, TypeAlias

import attrs
import trio

from bridgepool.http._errors import UpstreamCut
from bridgepool.http._forwarding import forward_trailers
from bridgepool.http._limits import UpstreamLimits
from bridgepool.http._messages import Headers
from bridgepool.http._upstream_connection import UpstreamConnection

_PIECE_BYTES = 65536  # bytes of a long `bytes` body that are sent in one write
_STOP_TIMEOUT = 1.0  # seconds for a body's `receive_some` to end after its cancellation


class ReceivesBody(Protocol):
    """A request body that is read in pieces.

    If it has an attribute `trailers`, those fields are sent after its end.
    """

    async def receive_some(self) -> bytes | bytearray:
        """Return the next piece; empty at the end."""
        ...


UpstreamBody: TypeAlias = ReceivesBody | bytes | None
"""The body of a request: none, bytes, or an object whose `receive_some` returns the pieces."""


@attrs.define(eq=False)
class BytesBody:
    """A long `bytes` body, read in pieces."""

    _data: bytes
    _start: int = 0

    async def receive_some(self) -> bytes:
        """Return the next piece."""
        await trio.lowlevel.checkpoint()
        piece = self._data[self._start : self._start + _PIECE_BYTES]
        self._start += len(piece)
        return piece


@attrs.define(eq=False)
class Upload:
    """Sends a body in a task of its own."""

    _connection: UpstreamConnection
    _body: ReceivesBody
    _limits: UpstreamLimits
    _awaits_continue: bool  # wait for 100 (Continue) first
    _on_sent: Callable[[], None] | None
    complete: bool = False  # all of the body was sent
    answered: bool = False  # the head of the response came before
    _continued: trio.Event = attrs.field(factory=trio.Event)
    _scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    _done: trio.Event = attrs.field(factory=trio.Event)

    async def run(self) -> None:
        """Send the body (runs as a task)."""
        try:
            with self._scope:
                if self._awaits_continue:
                    with trio.move_on_after(self._limits.expect_timeout):
                        await self._continued.wait()
                await self._send()
        except UpstreamCut as error:
            if not self._connection.not_reusable:  # else the reader finds the error, or a response
                await self._connection.abort(error)  # raised by the user's body
        except Exception as error:  # raised by the user's body: report it to the reader
            await self._connection.abort(error)
        finally:
            self._done.set()

    async def _send(self) -> None:
        connection, wire = self._connection, self._connection.wire
        while piece := await self._body.receive_some():
            await self._write(wire.send_data(bytes(piece)))
        trailers: Headers = getattr(self._body, "trailers", ())
        await self._write(wire.send_end(forward_trailers(trailers)))
        self.complete = True
        if self._on_sent is not None:
            self._on_sent()
        if not self.answered:
            connection.read_due = trio.current_time() + self._limits.head_timeout

    async def _write(self, data: bytes) -> None:
        if data:
            self._connection.write_due = trio.current_time() + self._limits.write_timeout
            await self._connection.send(data)
            self._connection.write_due = math.inf

    def send_now(self) -> None:
        """Start sending: the upstream has sent 100 (Continue)."""
        self._continued.set()

    def stop(self) -> None:
        """Stop sending."""
        self._scope.cancel()

    async def wait_stopped(self) -> None:
        """Stop sending, and wait until the body is no longer read."""
        self.stop()
        with trio.move_on_after(_STOP_TIMEOUT, shield=True):
            await self._done.wait()


async def read_whole(body: ReceivesBody, length: int) -> bytes:
    """Read a body of known length, and not past its end."""
    data = b""
    while len(data) < length:
        piece = await body.receive_some()
        if not piece:
            break  # the wire reports that it is too short
        data += piece
    return data
