"""A transport of your own: length-prefixed messages over any byte stream.

python own_transport.py        # checks it against the contract of transports
"""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio
import trio.testing

from bridgepool.testing import check_transport
from bridgepool.transports import BreakReason, ChannelBrokenError, MessageTooLargeError

MAX = 1 << 20  # bytes of a message
PIECE = 1 << 14  # bytes read at once: less than a message, so the check cancels between two pieces
GOODBYE = b"\xff\xff\xff\xff"  # in place of a length
CLOSE_TIMEOUT = 2.0


@attrs.define(eq=False)
class FramedChannel(trio.abc.Channel[bytes]):
    """A `Channel[bytes]` over a stream; open it by `open_framed_channel`."""

    _stream: trio.abc.Stream
    _queue: trio.MemorySendChannel[bytes]
    _unread: bytearray = attrs.field(factory=bytearray, init=False)
    _receiving: bool = False
    _closed: bool = False
    _ended: bool = False  # the other end closed
    _written: trio.Event = attrs.field(factory=trio.Event, init=False)

    async def send(self, value: bytes) -> None:
        """Queue a message; the writer's task sends it, so a cancelled send sends all or nothing."""
        if len(value) > MAX:
            raise MessageTooLargeError(len(value), MAX)
        if self._ended and not self._closed:
            await trio.lowlevel.checkpoint()
            raise self._broken()
        try:
            await self._queue.send(value)
        except trio.BrokenResourceError:
            raise self._broken() from None

    async def write(self, queued: trio.MemoryReceiveChannel[bytes]) -> None:
        """Send queued messages, then the goodbye; no other task writes to the stream."""
        try:
            with queued:
                async for message in queued:
                    await self._stream.send_all(len(message).to_bytes(4, "big") + message)
            await self._stream.send_all(GOODBYE)
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # `send` and `receive` raise
        self._written.set()

    async def receive(self) -> bytes:
        """Receive the next message. What was read stays in `_unread` if this is cancelled."""
        if self._receiving:
            raise trio.BusyResourceError("another task receives from this channel")
        self._receiving = True
        try:
            return await self._next()
        finally:
            self._receiving = False

    async def _next(self) -> bytes:
        await trio.lowlevel.checkpoint()
        while not self._closed:
            if self._unread.startswith(GOODBYE):
                self._ended = True
                raise trio.EndOfChannel
            size = int.from_bytes(self._unread[:4], "big")
            if len(self._unread) >= 4 and size > MAX:
                raise ChannelBrokenError(BreakReason.OVERSIZED, "a message is too large")
            if len(self._unread) >= 4 + size and len(self._unread) >= 4:
                message = bytes(self._unread[4 : 4 + size])
                del self._unread[: 4 + size]
                return message
            try:
                data = await self._stream.receive_some(PIECE)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data = b""
            if not data and not self._closed:
                raise self._broken()
            self._unread += data
        raise trio.ClosedResourceError

    async def aclose(self) -> None:
        """Let the writer finish, within a limit."""
        self._closed = True
        self._queue.close()
        try:
            with trio.move_on_after(CLOSE_TIMEOUT):
                await self._written.wait()
        finally:
            await trio.aclose_forcefully(self._stream)

    def _broken(self) -> ChannelBrokenError:
        return ChannelBrokenError(
            BreakReason.CUT, "the connection was cut, or closed by the other end"
        )


@asynccontextmanager
async def open_framed_channel(stream: trio.abc.Stream) -> AsyncGenerator[FramedChannel]:
    queue, queued = trio.open_memory_channel[bytes](8)
    channel = FramedChannel(stream, queue)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(channel.write, queued)
        yield channel
        await channel.aclose()
        nursery.cancel_scope.cancel()


@attrs.frozen
class Rig:
    """What `check_transport` needs: two connected ends, and a way to break the connection."""

    left: FramedChannel
    right: FramedChannel
    streams: tuple[trio.abc.Stream, ...]
    max_message_bytes: int | None = MAX

    async def break_link(self) -> None:
        """Cut the connection without a goodbye."""
        for stream in self.streams:
            await trio.aclose_forcefully(stream)


@asynccontextmanager
async def open_rig() -> AsyncGenerator[Rig]:
    one, other = trio.testing.lockstep_stream_pair()
    async with open_framed_channel(one) as left, open_framed_channel(other) as right:
        yield Rig(left, right, (one, other))


if __name__ == "__main__":
    check_transport(open_rig, max_examples=50)
    print("the transport fulfils its contract")
