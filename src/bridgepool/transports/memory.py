"""A pair of message channels in one process."""

import attrs
import trio

from bridgepool.transports._errors import BreakReason, ChannelBrokenError, MessageTooLargeError

__all__ = ["MemoryChannel", "open_memory_channel_pair"]

# A small buffer, as sockets have: code may send a little before the other end receives.
_UNREAD_MESSAGES = 16


@attrs.define(eq=False)
class _Link:
    """What the two channels of a pair have in common."""

    ends: tuple[trio.MemorySendChannel[bytes] | trio.MemoryReceiveChannel[bytes], ...]
    broken: bool = False


@attrs.define(eq=False)
class MemoryChannel(trio.abc.Channel[bytes]):
    """One end of a pair; see `open_memory_channel_pair`."""

    _outgoing: trio.MemorySendChannel[bytes]
    _incoming: trio.MemoryReceiveChannel[bytes]
    _max_message_bytes: int
    _link: _Link
    _closed: bool = attrs.field(default=False, init=False)
    _receiving: bool = attrs.field(default=False, init=False)

    async def send(self, value: bytes) -> None:
        """Send one message; waits while 16 are unread at the other end.

        Raises:
            MessageTooLargeError: Nothing was sent.
            trio.BrokenResourceError: The other end is closed, or the pair was broken.
            trio.ClosedResourceError: This end is closed.

        Cancellation: Nothing was sent.
        """
        if not isinstance(value, bytes):
            raise TypeError(f"a message must be bytes, not {type(value).__name__}")
        if len(value) > self._max_message_bytes:
            raise MessageTooLargeError(len(value), self._max_message_bytes)
        try:
            await self._outgoing.send(value)
        except trio.ClosedResourceError:
            if self._closed:
                raise
            raise self._broken_error() from None
        except trio.BrokenResourceError:
            raise self._broken_error() from None

    async def receive(self) -> bytes:
        """Receive the next message.

        Raises:
            trio.EndOfChannel: The other end was closed, and all that it sent is received.
            trio.BrokenResourceError: The pair was broken.
            trio.ClosedResourceError: This end is closed.
            trio.BusyResourceError: Another task receives.

        Cancellation: No message is lost.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task receives from this channel")
        self._receiving = True
        try:
            return await self._incoming.receive()
        except trio.EndOfChannel:
            if self._link.broken:
                raise self._broken_error() from None
            raise
        except trio.ClosedResourceError:
            if self._closed:
                raise
            raise self._broken_error() from None
        finally:
            self._receiving = False

    async def aclose(self) -> None:
        """Close this end. The other receives what was sent, then `trio.EndOfChannel`.

        A checkpoint, but this end is closed also if it is cancelled.
        """
        self._closed = True
        self._outgoing.close()
        self._incoming.close()
        await trio.lowlevel.checkpoint()

    def break_link(self) -> None:
        """Break the pair, as a lost connection would. Messages not yet received are lost."""
        self._link.broken = True
        for end in self._link.ends:
            end.close()

    def _broken_error(self) -> ChannelBrokenError:
        if self._link.broken:
            return ChannelBrokenError(BreakReason.CUT, "the pair was broken")
        return ChannelBrokenError(BreakReason.CUT, "the other end is closed")


def open_memory_channel_pair(
    *, max_message_bytes: int = 16 << 20
) -> tuple[MemoryChannel, MemoryChannel]:
    """Open a pair of channels. What is sent to one is received from the other.

    Args:
        max_message_bytes: The largest message that can be sent.
    """
    to_right, at_right = trio.open_memory_channel[bytes](_UNREAD_MESSAGES)
    to_left, at_left = trio.open_memory_channel[bytes](_UNREAD_MESSAGES)
    link = _Link((to_right, at_right, to_left, at_left))
    left = MemoryChannel(to_right, at_left, max_message_bytes, link)
    right = MemoryChannel(to_left, at_right, max_message_bytes, link)
    return left, right
