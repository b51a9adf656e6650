"""The stream of one server connection: reading ahead, waiting, sending, ending. No HTTP.

Theory of operation. One task, the *reader*, alone receives, for as long as the connection
lives: it feeds the wire and goes on reading until `read_ahead_bytes` lie there unused.
Whoever wants more waits for the reader by an event and never touches the receiving side. So
nothing is lost between a body, a pipelined request and watching: that the client has left is
noticed by the read that is going on anyway, without a task or a cancel scope for each request.

A client that leaves takes its connection with it: the scope of the whole connection is
cancelled, and with it the handler wherever it waits. Deadlines are kept by the server's one
clock task, which comes by about eight times within the shortest: to an exchange a deadline is
then one assignment, where a cancel scope would cost it ten microseconds.

A connection ends in one of three ways. *Closed*: both sides know that it is the end.
*Lingering*: we close our direction and read on for a while, since closing with unread bytes
would reset the connection and could take our last answer away from the client. *Cut*: at
once, because a response is unfinished and the client has to see it.
"""

import math
import socket
import struct

import attrs
import trio

from bridgepool.http._limits import HttpLimits
from bridgepool.http._sockets import receive_some, send_all
from bridgepool.http._wire import ServerWire

_LINGER = 2.0  # seconds for the client to take the last answer and close
_GOODBYE = 2.0  # seconds for the closing messages of TLS
_NEVER = 1e9  # seconds; `send_due` is infinite only while nothing is being sent
_PIECE = 262144  # bytes sent under one deadline
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: on, for no time


@attrs.define(eq=False)
class Link:
    """The stream under a conversation."""

    stream: trio.abc.Stream
    wire: ServerWire
    limits: HttpLimits
    half_close: bool  # the end of the client's stream is not its leaving
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)  # all that happens here
    read_due: float = math.inf  # until when somebody waits for the reader
    send_due: float = math.inf  # until when the client has to take what is being sent
    watched: bool = False  # a response is owed: to leave now is to give it up
    ended: bool = False  # the client sends no more
    gone: bool = False  # the client takes no more
    torn: bool = False  # a send has begun and not ended: nothing can follow
    _woken: trio.Event | None = None  # somebody waits for the reader
    _room: trio.Event | None = None  # the reader waits until what is there gets used
    _aside: trio.Lock = attrs.field(factory=trio.Lock)  # held while an interim response is sent
    _expired: bool = False
    _discarding: bool = False

    async def read(self) -> None:
        """Be the reader."""
        reset = False
        while not self.ended:
            try:
                data = await receive_some(self.stream)
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                data, reset = b"", True
            if not data:
                self.ended = True
                if self.watched and (reset or not self.half_close):
                    self.leave()
            if not self._discarding:
                self.wire.receive_data(data)
                if self.wire.buffered >= self.limits.read_ahead_bytes and self._woken is None:
                    self._room = trio.Event()
            self.wake()
            if self._room is not None:
                await self._room.wait()

    def leave(self) -> None:
        """Note that the client is gone, and end all that is done for it."""
        self.gone = True
        self.scope.cancel()

    def wake(self) -> None:
        """Have whoever waits for the reader look again."""
        if self._woken is not None:
            self._woken.set()

    def used(self) -> None:
        """Have the reader look whether there is room again."""
        if self._room is not None and self.wire.buffered < self.limits.read_ahead_bytes:
            self._room.set()
            self._room = None

    async def wait_read(self, until: float) -> bool:
        """Wait until the reader has something new, the client's end included.

        Returns:
            Whether it came before the time `until`.

        Raises:
            trio.BusyResourceError: Another task waits already.
        """
        if self._woken is not None:
            raise trio.BusyResourceError("another task is reading from this connection")
        self._woken = trio.Event()
        self._expired = False
        self.read_due = until
        if self._room is not None:  # less than it takes: whoever waits gets all it needs
            self._room.set()
            self._room = None
        try:
            await self._woken.wait()
        finally:
            self.read_due = math.inf
            self._woken = None
        return not self._expired

    def check_time(self, now: float) -> None:
        """Be told the time by the server's clock."""
        if now >= self.send_due:
            self.leave()
        elif now >= self.read_due and self._woken is not None:
            self._expired = True
            self._woken.set()

    async def send(self, data: bytes) -> None:
        """Send bytes of a final response.

        Cancellation: How much was sent is not known, so nothing can be sent afterwards.
        """
        if self._aside.locked():
            async with self._aside:
                pass
        await self._send(data)

    async def send_aside(self, data: bytes) -> None:
        """Send an interim response: the one thing that two tasks may come to send at once."""
        async with self._aside:
            await self._send(data)

    async def _send(self, data: bytes) -> None:
        if self.send_due < math.inf:
            raise trio.BusyResourceError("another task is sending to this client")
        if self.torn:
            raise trio.BrokenResourceError("an earlier send to this client was cut off")
        self.torn = True
        seconds = min(self.limits.send_timeout, _NEVER)
        try:
            if len(data) <= _PIECE:
                self.send_due = trio.current_time() + seconds
                await send_all(self.stream, data)
            else:
                await self._send_in_pieces(data, seconds)
        except trio.BrokenResourceError:
            self.leave()
            await trio.lowlevel.checkpoint()  # noqa: ASYNC120 - being cancelled comes first
            raise  # only where cancellation is shielded off
        finally:
            self.send_due = math.inf
        self.torn = False

    async def _send_in_pieces(self, data: bytes, seconds: float) -> None:
        """Send so that each piece has so many seconds to itself."""
        view = memoryview(data)
        for begin in range(0, len(data), _PIECE):
            self.send_due = trio.current_time() + seconds
            await self.stream.send_all(view[begin : begin + _PIECE])

    async def linger(self) -> None:
        """Close our direction, and read on until the client closes its own, or for a while."""
        self._discarding = True
        with trio.move_on_after(_LINGER):
            if isinstance(self.stream, trio.abc.HalfCloseableStream):
                try:
                    await self.stream.send_eof()
                except trio.BrokenResourceError:
                    return
            while not self.ended:
                await self.wait_read(math.inf)

    async def close(self) -> None:
        """Close the stream, in as much time as the closing messages of TLS may take."""
        with trio.move_on_after(_GOODBYE, shield=True):
            await self.stream.aclose()

    async def cut(self, *, reset: bool) -> None:
        """Close the stream without a goodbye; with `reset` the client gets an error from TCP.

        A reset takes what the client has not read yet, so it is for bodies whose end is the
        end of the connection: there a plain close would say that all is well.
        """
        if reset and isinstance(self.stream, trio.SocketStream):
            self.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        await trio.aclose_forcefully(self.stream)
