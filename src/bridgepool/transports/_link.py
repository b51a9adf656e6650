"""The byte stream under a websocket, watched: when it was heard, and how much is unread.

trio-websocket reads in a task of its own and queues whole messages. That task must not read
without end when nobody receives, and must go on reading as long as possible, since it answers
pings. So it is held up here, by bytes: `unread` counts what came in, less what was received. It
is an estimate (headers of fragments and pings count too), put right whenever the owner of the
channel is seen to wait for a message.

A frame that comes alone does not go to trio-websocket if it can be dealt with here: a ping, or a
message that the channel takes at once.
"""

import contextlib
import os
import struct
from collections.abc import Callable

import attrs
import trio

from bridgepool.transports._heartbeat import Heartbeat
from bridgepool.transports._lone_frames import BINARY, PING, LoneFrames, mask

# More than any sound request or answer of a handshake; h11 takes no larger head either.
_HANDSHAKE_BYTES = 64 << 10
_END_OF_HEAD = b"\r\n\r\n"
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
    # from the end of the handshake until this end closes
    frames: LoneFrames | None = None
    # whether this end is a client; until the handshake is done it does not matter
    masks: bool = False
    # given each message that came alone; tells whether it took it
    take: Callable[[bytes], bool] | None = None
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
    # of what `write_now` wrote, the part that the kernel did not take: goes before all else
    rest: bytes = b""
    _turn: trio.Lock = attrs.field(factory=trio.Lock)
    # what came in until the handshake was done; a first frame may be at its end
    _early: bytes = b""

    def establish(self, take: Callable[[bytes], bool], *, is_server: bool) -> None:
        """The handshake is done: from now on frames come."""
        self.established = True
        self.take, self.masks = take, not is_server
        _head, found, frames = self._early.partition(_END_OF_HEAD)
        if found:
            self.frames = LoneFrames(masked=is_server)
            self.frames.follow(frames)
        self._early = b""
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
        self.frames = None
        self.window = 1 << 62
        self.caught_up()

    def _open(self) -> None:
        if self._opened is not None:
            self._opened.set()
            self._opened = None

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Read, unless too much is unread; a frame that comes alone may be dealt with here."""
        while True:
            data = await self._receive(max_bytes)
            frames = self.frames
            if frames is None:
                return data
            payload = frames.payload(data)
            if payload is not None and data[0] == PING:
                self.received(len(data))
                await self.send_all(pong_frame(payload, masked=self.masks))
            elif payload is not None and self.take is not None and self.take(payload):
                self.received(len(data))
            else:
                frames.follow(data)
                return data

    async def _receive(self, max_bytes: int | None) -> bytes | bytearray:
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
        elif not self.established:
            self._early += data
            if self.unread > _HANDSHAKE_BYTES:
                self._end(None)
                raise trio.BrokenResourceError("a handshake of that size")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write, piece by piece if it is much."""
        try:
            self._turn.acquire_nowait()
        except trio.WouldBlock:
            await self._turn.acquire()
        if self.rest:
            data, self.rest = self.rest + data, b""
        self.sending = True
        self.written = trio.current_time()
        try:
            if len(data) <= _PIECE:
                rest = self._write_at_once(data)
                if rest:
                    await self.stream.send_all(rest)
            else:
                with memoryview(data) as view:
                    for start in range(0, len(view), _PIECE):
                        await self.stream.send_all(view[start : start + _PIECE])
                        self.written = trio.current_time()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(error)
            raise
        finally:
            self.sending = False
            self._turn.release()

    def write_now(self, message: bytes) -> bool:
        """Write a message, if nothing else is being written; tell whether it was.

        Not a checkpoint. What the kernel does not take is in `rest` then: call `flush`.
        """
        if self.sending or self.rest or not isinstance(self.stream, trio.SocketStream):
            return False
        if self.masks and len(message) > _PIECE:
            return False  # it takes a while
        parts = binary_frame(message, masked=self.masks)
        try:
            written = os.writev(self.stream.socket.fileno(), parts)
        except OSError:
            return False  # whoever writes in the usual way is told
        if written < sum(map(len, parts)):
            self.rest = b"".join(parts)[written:]
        return True

    async def flush(self) -> None:
        """Write what `write_now` left."""
        await self.send_all(b"")

    def _write_at_once(self, data: bytes | bytearray | memoryview) -> memoryview | None:
        """Write what the kernel takes now, and return the rest, if any.

        Saves a turn of the scheduler for each message; trio-websocket has just had one, for its
        lock. Whatever goes wrong shows again, and properly, when the rest is written.
        """
        written = 0
        if isinstance(self.stream, trio.SocketStream):
            with contextlib.suppress(OSError):
                written = os.write(self.stream.socket.fileno(), data)
        return memoryview(data)[written:] if written < len(data) else None

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


def binary_frame(message: bytes, *, masked: bool) -> tuple[bytes, bytes]:
    """Return head and payload of a frame that is a whole message (RFC 6455, 5.2)."""
    size, bit = len(message), 0x80 if masked else 0
    if size < 126:
        head = bytes((BINARY, bit | size))
    elif size < 65536:
        head = struct.pack("!BBH", BINARY, bit | 126, size)
    else:
        head = struct.pack("!BBQ", BINARY, bit | 127, size)
    if not masked:
        return head, message
    key = os.urandom(4)  # that nobody can foresee, see 10.3
    return head + key, mask(key, message)


def ping_frame(*, masked: bool) -> bytes:
    """Return a ping without a payload (RFC 6455, 5.5.2); a client's is masked."""
    return b"\x89\x80\0\0\0\0" if masked else b"\x89\0"


def pong_frame(payload: bytes, *, masked: bool) -> bytes:
    """Return the answer to a ping (RFC 6455, 5.5.3); a client's is masked."""
    size = len(payload)
    head = bytes((0x8A, 0x80 | size, 0, 0, 0, 0)) if masked else bytes((0x8A, size))
    return head + payload
