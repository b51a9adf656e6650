"""The streams of connections that have switched to another protocol (RFC 9110 section 7.8).

Both go on where HTTP ended: bytes that came together with the head of the switch come first. A
server's is read by the reader of its connection, which holds the client back in the same way as
before; an upstream's keeps the deadline for what is being sent.
"""

import math

import attrs
import trio

from bridgepool.http._errors import UpstreamCut
from bridgepool.http._limits import UpstreamLimits
from bridgepool.http._server_stream import ServerStream
from bridgepool.http._upstream_connection import UpstreamConnection

_MAX_READ_BYTES = 65536


@attrs.define(eq=False)
class UpgradedServerStream(trio.abc.Stream):
    """What a client sends and receives after the switch."""

    _stream: ServerStream

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return received bytes; b"" at the end, also after a reset."""
        stream, size = self._stream, max_bytes or _MAX_READ_BYTES
        if stream.wire.buffered or stream.ended:
            await trio.lowlevel.checkpoint()  # before bytes are taken, so that none are lost
        while not (stream.wire.buffered or stream.ended):
            await stream.wait_received(math.inf)
        data = stream.wire.take_rest(size)
        if data:
            stream.resume_reading()
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`; cancels the handler if the client receives no more.

        Cancellation: If the caller was cancelled before, nothing was sent, and more can be sent.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        await self._stream.send(bytes(data))

    async def wait_send_all_might_not_block(self) -> None:
        """A checkpoint."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the connection, which the server does anyway when the handler has ended."""
        await self._stream.close()


@attrs.define(eq=False)
class UpgradedUpstreamStream(trio.abc.Stream):
    """What an upstream sends and receives after the switch."""

    _connection: UpstreamConnection
    _limits: UpstreamLimits

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Return received bytes; b"" at the end.

        Raises:
            UpstreamCut: The connection broke.
        """
        connection, size = self._connection, max_bytes or _MAX_READ_BYTES
        if connection.wire.buffered or connection.ended:
            await trio.lowlevel.checkpoint()  # before bytes are taken, so that none are lost
        while not (connection.wire.buffered or connection.ended):
            await connection.receive()
        return connection.wire.take_rest(size)

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send all of `data`.

        Cancellation: If the caller was cancelled before, nothing was sent, and more can be sent.

        Raises:
            UpstreamCut: The connection broke, or an earlier send was interrupted.
            UpstreamTimeout: The upstream accepted nothing for `write_timeout`.
        """
        connection = self._connection
        await trio.lowlevel.checkpoint_if_cancelled()
        if connection.write_due < math.inf:
            raise UpstreamCut("an earlier send to this upstream was interrupted")
        connection.write_due = trio.current_time() + self._limits.write_timeout
        await connection.send(bytes(data))
        connection.write_due = math.inf

    async def wait_send_all_might_not_block(self) -> None:
        """A checkpoint."""
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Close the connection; the block of the request does that anyway."""
        await self._connection.aclose()
