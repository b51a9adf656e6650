"""The byte stream under a websocket: limits what is unread, and records who is silent.

trio-websocket reads in a task of its own and queues whole messages. That task must not read
without end when the owner of the channel does not receive, and must go on reading as long as
possible, since it answers pings. So it is held up here, by bytes: `unread` counts what came in,
less what the owner received. It is an estimate (pings and the headers of fragments count, too),
which is corrected whenever the owner is seen to wait for a message.

The kernel checks whether the network and the other machine are there. That costs this process
nothing and finds the most frequent faults in about `heartbeat_timeout`: TCP keepalive while the
connection is idle (RFC 9293 section 3.8.4), otherwise the user timeout of unacknowledged data (RFC
5482, Linux only). It does not find a process that is frozen: see `_heartbeat`.
"""

import contextlib
import errno
import math
import socket
from collections.abc import Callable

import attrs
import trio

from bridgepool.transports._heartbeat import Heartbeat

# More than any valid request or response of a handshake; h11 accepts no larger head either.
_MAX_HANDSHAKE_BYTES = 64 << 10
# Large messages are written in pieces, so that a slow peer is not taken for a stalled one.
_PIECE_BYTES = 64 << 10
_KEEPALIVE_PROBES = 5
_MAX_KEEPALIVE_SECONDS = 32_000  # Linux accepts 32,767


@attrs.define(eq=False)
class WatchedStream(trio.abc.Stream):
    """Wraps `stream` for one websocket."""

    stream: trio.abc.Stream
    # how many bytes may be unread before reading stops
    window: int
    # called when the stream ends during the handshake, which would not notice
    on_end: Callable[[], None] | None = None
    is_established: bool = False
    unread: int = 0
    heartbeat: Heartbeat = attrs.field(factory=lambda: Heartbeat(trio.current_time()))
    # when the last piece was written
    written_at: float = 0.0
    is_reading: bool = False
    is_sending: bool = False
    # what ended the stream, and whether something was being sent then
    error: Exception | None = None
    ended_sending: bool = False
    # set while reading is held up
    _room: trio.Event | None = None

    def establish(self) -> None:
        """Note that the handshake is complete: frames follow."""
        self.is_established = True
        self.unread = 0
        self.on_end = None

    def note_received(self, count: int) -> None:
        """Note that the owner of the channel received so many bytes."""
        self.unread = max(0, self.unread - count)
        if self._room is not None and self.unread <= self.window:
            self._room.set()
            self._room = None

    def note_all_received(self) -> None:
        """Note that nothing is unread."""
        self.note_received(self.unread)

    def stop_holding_up(self) -> None:
        """Read without a limit from now on: what comes is dropped."""
        self.window = 1 << 62
        self.note_all_received()

    async def receive_some(self, max_bytes: int | None = None) -> bytes | bytearray:
        """Read, once no more than `window` is unread."""
        while self.unread > self.window:
            self._room = self._room or trio.Event()
            await self._room.wait()
        self.is_reading = True
        try:
            data = await self.stream.receive_some(max_bytes)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(error)
            raise
        finally:
            self.is_reading = False
        self.heartbeat.note_received(trio.current_time())
        self.unread += len(data)
        if not data:
            self._end(None)
        elif not self.is_established and self.unread > _MAX_HANDSHAKE_BYTES:
            self._end(None)
            raise trio.BrokenResourceError("the handshake is too large")
        return data

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Write in pieces."""
        is_after_ping = self.heartbeat.has_pinged
        self.is_sending = True
        self.written_at = trio.current_time()
        try:
            with memoryview(data) as view:
                for start in range(0, len(view), _PIECE_BYTES):
                    await self.stream.send_all(view[start : start + _PIECE_BYTES])
                    self.written_at = trio.current_time()
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self._end(error)
            raise
        finally:
            self.is_sending = False
        if is_after_ping:  # trio-websocket writes in turn, so this is the ping or after it
            self.heartbeat.note_ping_written(self.written_at)

    async def wait_send_all_might_not_block(self) -> None:
        """Wait as the stream does."""
        await self.stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close the stream."""
        self._end(None)
        await self.stream.aclose()

    def _end(self, error: Exception | None) -> None:
        if self.error is None:
            self.error, self.ended_sending = error, self.is_sending
        if self.on_end is not None:
            self.on_end()


def enable_tcp_keepalive(stream: trio.abc.Stream, timeout: float) -> None:
    """Have a TCP connection fail with ETIMEDOUT when the other machine is gone for `timeout`.

    In whole seconds, and one more, since the reasons that the ends find themselves say more.
    Streams other than TCP, with or without TLS, are left alone, and so is what the platform lacks.
    """
    if isinstance(stream, trio.SSLStream):
        stream = stream.transport_stream
    if not isinstance(stream, trio.SocketStream) or math.isinf(timeout):
        return
    sock = stream.socket
    if sock.family not in (socket.AF_INET, socket.AF_INET6):
        return
    seconds = min(math.ceil(timeout) + 1, _MAX_KEEPALIVE_SECONDS)
    interval = max(1, seconds // (2 * _KEEPALIVE_PROBES))
    idle = max(1, seconds - _KEEPALIVE_PROBES * interval)
    with contextlib.suppress(OSError):  # already disconnected: the next read or write raises
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in (
            ("TCP_KEEPIDLE", idle),
            ("TCP_KEEPALIVE", idle),  # its name on macOS
            ("TCP_KEEPINTVL", interval),
            ("TCP_KEEPCNT", _KEEPALIVE_PROBES),
            ("TCP_USER_TIMEOUT", seconds * 1000),
        ):
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def is_tcp_timeout(error: BaseException | None) -> bool:
    """Return whether a connection failed since its TCP probes or data got no answer."""
    while error is not None:
        if isinstance(error, OSError) and error.errno == errno.ETIMEDOUT:
            return True
        error = error.__cause__
    return False
