"""The byte stream under a websocket, watched: when it was heard, and how much is unread.

trio-websocket reads in a task of its own and queues whole messages. That task must not read
without end when nobody receives, and must go on reading as long as possible, since it answers
pings. So it is held up here, by bytes: `unread` counts what came in, less what was received. It
is an estimate (headers of fragments and pings count too), put right whenever the owner of the
channel is seen to wait for a message.
"""

from collections.abc import Callable

import attrs
import trio

from bridgepool.transports._heartbeat import Heartbeat

# More than any sound request or answer of a handshake; h11 takes no larger head either.
_HANDSHAKE_BYTES = 64 << 10
# Large messages are written in pieces, so that a slow link is told from a dead one.
_PIECE = 64 << 10


@attrs.define(eq=False)
class Link(trio.abc.Stream):
    """Passes everything on to `stream`, and keeps watch."""

    stream: trio.abc.Stream
    # how many bytes may be unread before reading stops
    window: int
    # called when the stream ends; for the handshake, which would wait on
    on_end: Callable[[], None] | None = None
    # until then `_HANDSHAKE_BYTES` are all that is taken
    established: bool = False
    unread: int = 0
    heartbeat: Heartbeat = attrs.field(factory=lambda: Heartbeat(trio.current_time()))
    # when the last piece went out
    written: float = 0.0
    reading: bool = False
    sending: bool = False
    # what ended the stream, and whether that was while something was being sent
    error: Exception | None = None
    ended_sending: bool = False
    # set while reading is held up
    _opened: trio.Event | None = None

    def establish(self) -> None:
        """The handshake is done: from now on frames come."""
        self.established = True
        self.unread = 0
        self.on_end = None

    def received(self, count: int) -> None:
        """So many bytes were received by the owner of the channel."""
        self.unread = max(0, self.unread - count)
        if self._opened is not None and self.unread <= self.window:
            self._open()

    def caught_up(self) -> None:
        """Nothing is unread."""
        self.received(self.unread)

    def unlimit(self) -> None:
        """Never hold up reading again: nobody will receive, and what comes is thrown away."""
        self.window = 1 << 62
        self.caught_up()

    def _open(self) -> None:
        if self._opened is not None:
            self._opened.set()
            self._opened = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Read, once no more than `window` is unread."""
        while self.unread > self.window:
            self._opened = self._opened or trio.Event()
            await self._opened.wait()
        self.reading = True
        try:
            data = await self.stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(error)
            raise
        finally:
            self.reading = False
        self.heartbeat.hear(trio.current_time())
        self.unread += len(data)
        if not data:
            self._end(None)
        elif not self.established and self.unread > _HANDSHAKE_BYTES:
            self._end(None)
            raise trio.BrokenResourceError("a handshake of that size")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write, piece by piece if it is much."""
        is_after_question = self.heartbeat.asked
        self.sending = True
        self.written = trio.current_time()
        try:
            with memoryview(data) as view:
                for start in range(0, len(view), _PIECE):
                    await self.stream.send_all(view[start : start + _PIECE])
                    self.written = trio.current_time()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(error)
            raise
        finally:
            self.sending = False
        if is_after_question:
            self.heartbeat.note_question(self.written)

    async def wait_send_all_might_not_block(self) -> None:
        """Pass on."""
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream."""
        self._end(None)
        await self.stream.aclose()

    def _end(self, error: Exception | None) -> None:
        if self.error is None:
            self.error, self.ended_sending = error, self.sending
        if self.on_end is not None:
            self.on_end()
