"""The stream of one server connection: reading ahead, waiting, sending, closing. No HTTP.

Theory of operation. One task, the *reader*, is the only one that receives. It runs for as long as
the connection: it feeds the wire until `read_ahead_bytes` are buffered unread. A task that needs
more data waits for the reader by an event and never touches the receiving side. So nothing is lost
between a body, a pipelined request and the detection of disconnects: the read that is going on
anyway notices that the client has disconnected, without a task or cancel scope for each request.

When a client disconnects, the scope of its whole connection is cancelled, and the handler with it
wherever it waits. Deadlines are kept by one timekeeper task of the server, which looks at them
about eight times within the shortest. Setting a deadline is then one assignment; a cancel scope
would cost ten microseconds.

A connection ends in one of three ways. *Closed*: both sides know that it is the end. *Lingering*:
the server closes its direction and keeps reading for a while, since closing with unread bytes would
reset the connection and could discard the last response. *Cut*: at once, because a response is
incomplete and the client has to notice it.
"""

import math
import socket
import struct

import attrs
import trio

from bridgepool.http._limits import HttpLimits
from bridgepool.http._sockets import receive_some, send_all
from bridgepool.http._wire import ServerWire

_LINGER_TIMEOUT = 2.0  # seconds for the client to read the last response and close
_CLOSE_TIMEOUT = 2.0  # seconds for TLS's close_notify
_MAX_SEND_TIMEOUT = 1e9  # seconds; an infinite `send_due` means that nothing is being sent
_PIECE_BYTES = 262144  # bytes sent within one deadline
_SMALL_BYTES = 256
_MANY_PIECES = 64  # small pieces of one head; after them, bytes are gathered before a read
_GATHER_TIME = 0.005
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, zero seconds


@attrs.define(eq=False)
class ServerStream:
    """The stream of one server connection; see the module's theory of operation."""

    transport: trio.abc.Stream
    wire: ServerWire
    limits: HttpLimits
    half_close: bool  # the end of the client's stream does not mean that it has disconnected
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)  # all of the connection
    read_due: float = math.inf  # deadline of the task that waits for the reader
    send_due: float = math.inf  # deadline for the client to accept what is being sent
    response_pending: bool = False  # a disconnect now abandons the response
    ended: bool = False  # the client sends no more
    disconnected: bool = False  # the client receives no more
    upgraded: bool = False  # no HTTP follows
    send_incomplete: bool = False  # a send was interrupted: nothing can be sent after it
    _received: trio.Event | None = None  # a task waits for the reader
    _has_room: trio.Event | None = None  # the reader waits until the buffer is read
    _sending_interim: trio.Lock = attrs.field(factory=trio.Lock)
    _expired: bool = False
    _discarding: bool = False
    head_pieces: int = 0  # small ones, in which the head of the next request has come so far

    async def read_until_end(self) -> None:
        """Receive until the client's stream ends (runs as a task)."""
        reset = False
        while not self.ended:
            if self.head_pieces > _MANY_PIECES and not self.response_pending:
                # A turn of everything for each byte would cost far more than the byte.
                await trio.sleep(_GATHER_TIME)
            try:
                data = await receive_some(self.transport)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data, reset = b"", True
            if len(data) < _SMALL_BYTES and not (self.response_pending or self.upgraded):
                self.head_pieces += 1
            if not data:
                self.ended = True
                if self.response_pending and (reset or not self.half_close):
                    self.disconnect()
            if not self._discarding:
                self.wire.receive_data(data)
                if self.wire.buffered >= self.limits.read_ahead_bytes and self._received is None:
                    self._has_room = trio.Event()
            del data  # it would be kept until more comes
            self.wake()
            if self._has_room is not None:
                await self._has_room.wait()

    def disconnect(self) -> None:
        """Record that the client has disconnected, and cancel everything that runs for it."""
        self.disconnected = True
        self.scope.cancel()

    def wake(self) -> None:
        """Wake the task that waits for the reader."""
        if self._received is not None:
            self._received.set()

    def resume_reading(self) -> None:
        """Wake the reader if the buffer has room again."""
        if self._has_room is not None and self.wire.buffered < self.limits.read_ahead_bytes:
            self._has_room.set()
            self._has_room = None

    async def wait_received(self, deadline: float) -> bool:
        """Wait until the reader has received bytes or the end of the client's stream.

        Returns:
            False if `deadline` passed before.

        Raises:
            trio.BusyResourceError: Another task is waiting already.
        """
        if self._received is not None:
            raise trio.BusyResourceError("another task is reading from this connection")
        self._received = trio.Event()
        self._expired = False
        self.read_due = deadline
        if self._has_room is not None:  # the task needs more than is buffered
            self._has_room.set()
            self._has_room = None
        try:
            await self._received.wait()
        finally:
            self.read_due = math.inf
            self._received = None
        return not self._expired

    def check_time(self, now: float) -> bool:
        """Apply the deadlines; return whether one has passed."""
        if now >= self.send_due:
            self.disconnect()
        elif now >= self.read_due and self._received is not None:
            self._expired = True
            self._received.set()
        else:
            return False
        return True

    async def send(self, data: bytes) -> None:
        """Send bytes of a final response.

        Cancellation: It is unknown how much was sent, so nothing can be sent afterwards.
        """
        if self._sending_interim.locked():
            async with self._sending_interim:
                pass
        await self._send(data)

    async def send_interim(self, data: bytes) -> None:
        """Send an interim response, which another task may do at the same time."""
        async with self._sending_interim:
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        if self.send_due < math.inf:
            raise trio.BusyResourceError("another task is sending to this client")
        if self.send_incomplete:
            raise trio.BrokenResourceError("an earlier send to this client was interrupted")
        self.send_incomplete = True
        seconds = min(self.limits.send_timeout, _MAX_SEND_TIMEOUT)
        try:
            if len(data) <= _PIECE_BYTES:
                self.send_due = trio.current_time() + seconds
                await send_all(self.transport, data)
            else:
                await self._send_in_pieces(data, seconds)
        except trio.BrokenResourceError:
            self.disconnect()
            await trio.lowlevel.checkpoint()  # noqa: ASYNC120 -- the cancellation comes first
            raise  # only reached inside a shield
        finally:
            self.send_due = math.inf
        self.send_incomplete = False

    async def _send_in_pieces(self, data: bytes, seconds: float) -> None:
        """Send in pieces, each with a deadline of its own."""
        view = memoryview(data)
        for begin in range(0, len(data), _PIECE_BYTES):
            self.send_due = trio.current_time() + seconds
            await self.transport.send_all(view[begin : begin + _PIECE_BYTES])

    async def linger(self) -> None:
        """Close the sending direction, and read until the client closes its own, or for a while."""
        self._discarding = True
        self.wire.take_rest(self.wire.buffered)  # it is not needed; many connections would hold it
        with trio.move_on_after(_LINGER_TIMEOUT):
            if isinstance(self.transport, trio.abc.HalfCloseableStream):
                try:
                    await self.transport.send_eof()
                except trio.BrokenResourceError:
                    return
            while not self.ended:
                await self.wait_received(math.inf)

    async def close(self) -> None:
        """Close the stream, with a deadline for TLS's close_notify."""
        with trio.move_on_after(_CLOSE_TIMEOUT, shield=True):
            await self.transport.aclose()

    async def cut(self, *, reset: bool) -> None:
        """Close the stream at once; with `reset` the client gets an error from TCP.

        A reset discards what the client has not read yet. It is for bodies that end with the
        connection, where a plain close would look like a complete body.
        """
        if reset and isinstance(self.transport, trio.SocketStream):
            self.transport.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        await trio.aclose_forcefully(self.transport)
