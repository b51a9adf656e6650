"""One websocket connection: a channel for its owner, and the task that carries it.

Theory of operation. Three tasks work on an established connection:

* the **carrier** (see `_carrier`): greets, then writes what was queued by `send`, then says
  goodbye. Nobody else sends messages, so a cancelled `send` can never leave half a frame;
* the **reader**, which is trio-websocket's: it queues whole messages and answers pings. Too many
  unread bytes hold it up (see `_link`), and so does a full queue;
* one **timekeeper** for all connections of a server, `keep_time`: it asks silent peers whether
  they are there (see `_heartbeat`), and breaks what is dead, stalled or unread for too long.

The kernel watches the network (see `_keepalive`), and its verdict comes as the stream's error.

The carrier's scope is shielded once the connection is established: cancelling the owner must
leave time for the goodbye. It ends in `aclose`, at the latest `close_timeout` after its start,
and by `break_off`. When the carrier ends, the stream is closed, whatever happened.

Who sees what at the end: `_closing` (the owner closed: `ClosedResourceError`) goes before
`_verdict` (we broke it off), and that before what trio-websocket says of the peer's goodbye.
"""

import contextlib
from collections import deque

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.utilities import ProtocolError

from bridgepool.transports._errors import BreakReason, ChannelBrokenError, MessageTooLargeError
from bridgepool.transports._handshake import WebSocketLimits
from bridgepool.transports._heartbeat import Due
from bridgepool.transports._keepalive import kernel_gave_up
from bridgepool.transports._link import Link

# Of messages that wait for the writer; one larger than that waits alone.
_QUEUED_BYTES = 256 << 10
_QUEUED_MESSAGES = 64
_CLEAN = (1000, 1001, 1005)  # normal, going away, no code given (RFC 6455 section 7.4.1)
_PROTOCOL = (1002, 1003, 1007)


@attrs.define(eq=False, repr=False)
class WebSocketChannel(trio.abc.Channel[bytes]):
    """A channel of messages over an established websocket; made by the two sides' openers."""

    _link: Link
    _ws: WebSocketConnection
    _limits: WebSocketLimits
    # the carrier's, for pings
    _nursery: trio.Nursery
    _scope: trio.CancelScope
    _queue: deque[bytes] = attrs.field(factory=deque, init=False)
    _queued_bytes: int = attrs.field(default=0, init=False)
    # where the writer waits for messages, and the first sender in turn for room
    _work: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _room: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _receiving: bool = attrs.field(default=False, init=False)
    _pinging: bool = attrs.field(default=False, init=False)
    # messages that `receive` returned; and this number at the last look, or -1 if nobody waited
    _received: int = attrs.field(default=0, init=False)
    _waited_at: int = attrs.field(default=-1, init=False)
    _closing: bool = attrs.field(default=False, init=False)
    _goodbye: tuple[int, str | None] = attrs.field(default=(1000, None), init=False)
    _verdict: tuple[BreakReason, str] | None = attrs.field(default=None, init=False)
    _cause: Exception | None = attrs.field(default=None, init=False)
    _done: trio.Event = attrs.field(factory=trio.Event, init=False)

    # -- for the owner --------------------------------------------------------------------

    async def send(self, value: bytes) -> None:
        """Queue one message to be written; waits while the queue is full.

        What is queued is written in order, also when this channel is closed then, as far as
        the other side takes it within `close_timeout`.

        Raises:
            MessageTooLargeError: Nothing was sent.
            trio.BrokenResourceError: The channel is broken, or was closed by the other side.
            trio.ClosedResourceError: This channel was closed here.

        Cancellation: Nothing was sent.
        """
        if not isinstance(value, bytes):
            raise TypeError(f"a message is bytes, not {type(value).__name__}")
        if len(value) > self._limits.max_message_bytes:
            raise MessageTooLargeError(len(value), self._limits.max_message_bytes)
        await trio.lowlevel.checkpoint()
        if self._turn.locked() or self._is_full(value):
            async with self._turn:
                while self._is_full(value) and not self._is_over():
                    await self._room.park()
                self._put(value)
        else:
            self._put(value)

    def _is_full(self, value: bytes) -> bool:
        queued = self._queued_bytes + len(value)
        return bool(self._queue) and (
            queued > _QUEUED_BYTES or len(self._queue) >= _QUEUED_MESSAGES
        )

    def _put(self, value: bytes) -> None:
        if self._is_over():
            error = self._how_it_ended()
            if isinstance(error, trio.EndOfChannel):
                raise ChannelBrokenError(BreakReason.REFUSED, "the other side closed the channel")
            raise error
        self._queue.append(value)
        self._queued_bytes += len(value)
        self._work.unpark()

    async def receive(self) -> bytes:
        """Receive the next message.

        Raises:
            trio.EndOfChannel: The other side closed the channel; all it sent is received.
            trio.BrokenResourceError: The channel is broken: a `ChannelBrokenError`.
            trio.ClosedResourceError: This channel was closed here.
            trio.BusyResourceError: Another task receives.

        Cancellation: No message is lost.
        """
        if self._receiving:
            raise trio.BusyResourceError("another task receives from this channel")
        if self._closing:
            await trio.lowlevel.checkpoint()
            raise self._how_it_ended()
        self._receiving = True
        try:
            message = await self._ws.get_message()
        except ConnectionClosed:
            raise self._how_it_ended() from self._cause or self._link.error
        finally:
            self._receiving = False
        if not isinstance(message, bytes):
            self.break_off(BreakReason.PROTOCOL, "a text message came; these are of bytes")
            raise self._how_it_ended()
        self._received += 1
        self._link.received(len(message) + self._overhead(len(message)))
        return message

    def _overhead(self, size: int) -> int:
        """Return the size of a frame's head (RFC 6455 section 5.2)."""
        mask = 4 if self._ws.is_server else 0
        return mask + (2 if size < 126 else 4 if size < 65536 else 10)

    async def aclose(self) -> None:
        """Close the channel: write what is queued, say goodbye, wait for the other's.

        Takes at most `close_timeout`; then the connection is cut. The other side receives what
        was sent before, then `trio.EndOfChannel`.

        Cancellation: The connection is cut at once.
        """
        self.start_closing()
        try:
            with trio.move_on_after(self._limits.close_timeout):
                await self._done.wait()
        finally:
            self._scope.cancel()

    # -- for the sides that made it -------------------------------------------------------

    def start_closing(self, code: int = 1000, reason: str | None = None) -> None:
        """Begin to close, with these words of goodbye; `aclose` waits for the end."""
        if not self._closing:
            self._closing = True
            self._goodbye = (code, reason)
            self._link.unlimit()
            self._work.unpark()
            self._room.unpark_all()

    def break_off(self, reason: BreakReason, detail: str) -> None:
        """Cut the connection; the owner is told this reason."""
        if self._verdict is None:
            self._verdict = (reason, detail)
        self._scope.cancel()

    def has_ended(self) -> bool:
        """Whether the channel is of no more use."""
        return self._is_over()

    def check(self, now: float) -> None:
        """Look whether the other side is there and takes what is sent."""
        link, patience = self._link, self._limits.heartbeat_timeout
        silent = now - link.heartbeat.heard
        if self._closing:
            return
        if self._ws.closed is not None:
            if silent >= patience:
                self._scope.cancel()  # it said goodbye but does not hang up
            return
        if self._receiving and self._waited_at == self._received:
            link.caught_up()
        self._waited_at = self._received if self._receiving else -1
        due = link.heartbeat.look(now)
        if silent >= patience and not link.reading:
            self._break_held_up(silent)
        elif due is Due.GIVE_UP:
            detail = f"nothing was heard from the other side for {silent:.1f} s"
            self.break_off(BreakReason.HEARTBEAT, detail)
        elif link.sending and now - link.written >= patience:
            self.break_off(*_stalled(now - link.written))
        elif due is Due.ASK:
            self._nursery.start_soon(self._ping)

    def _break_held_up(self, seconds: float) -> None:
        if self._link.sending:
            self.break_off(*_stalled(seconds))
        else:
            detail = f"too much that came in was not received here for {seconds:.1f} s"
            self.break_off(BreakReason.UNREAD, detail)

    async def _ping(self) -> None:
        if self._pinging:  # an earlier pong is overdue, though the peer has sent something since
            self._link.heartbeat.note_question(trio.current_time())
            return
        self._pinging = True
        with contextlib.suppress(ConnectionClosed, ProtocolError):
            await self._ws.ping()
        self._pinging = False

    # -- for the carrier ------------------------------------------------------------------

    async def _write(self) -> None:
        """Write what is queued, until the channel is closed here or ended by the other side."""
        queue = self._queue
        try:
            while True:
                while queue:
                    message = queue[0]
                    await self._ws.send_message(message)
                    self._link.heartbeat.note_message(trio.current_time())
                    queue.popleft()
                    self._queued_bytes -= len(message)
                    self._room.unpark()
                if self._closing:
                    break
                await self._work.park()
            await self._ws.aclose(*self._goodbye)
        except (ConnectionClosed, ProtocolError) as error:
            self._cause = self._link.error or error
            if self._ws.closed is None and self._verdict is None:
                self._verdict = (BreakReason.PROTOCOL, _GARBAGE)
        self._room.unpark_all()
        if self._closing:
            self._scope.cancel()

    def _finished(self, crash: Exception | None) -> None:
        if crash is not None:
            self._cause = crash
        if self._verdict is None and self._ws.closed is None:
            self._verdict = (BreakReason.PROTOCOL, _GARBAGE)
        self._room.unpark_all()
        self._done.set()

    def _is_over(self) -> bool:
        return self._closing or self._verdict is not None or self._ws.closed is not None

    def _how_it_ended(self) -> Exception:
        if self._closing:
            return trio.ClosedResourceError("this channel was closed here")
        if self._verdict is not None:
            return ChannelBrokenError(*self._verdict)
        said = self._ws.closed
        code = 1002 if said is None else said.code
        if code in _CLEAN:
            return trio.EndOfChannel("the other side closed the channel")
        if code == 1006:
            return self._how_it_was_cut()
        if code == 1009:
            return ChannelBrokenError(
                BreakReason.OVERSIZED, "a message was larger than its receiver takes"
            )
        if code in _PROTOCOL:
            return ChannelBrokenError(BreakReason.PROTOCOL, _GARBAGE)
        words = printable(said.reason or "") if said is not None else ""
        detail = f"the other side ended the connection: {code} {words}".rstrip()
        return ChannelBrokenError(BreakReason.REFUSED, detail)

    def _how_it_was_cut(self) -> ChannelBrokenError:
        if not kernel_gave_up(self._link.error):
            return ChannelBrokenError(BreakReason.CUT, "the connection was cut")
        if self._link.ended_sending:
            return ChannelBrokenError(*_stalled(self._limits.heartbeat_timeout))
        detail = "the network does not lead to the other side any more, or its machine is gone"
        return ChannelBrokenError(BreakReason.HEARTBEAT, detail)


_GARBAGE = "the other side does not speak this protocol, or what it said was damaged"


def _stalled(seconds: float) -> tuple[BreakReason, str]:
    detail = f"the other side has taken nothing of what was sent for {seconds:.1f} s"
    return BreakReason.STALLED, detail


def printable(text: str, limit: int = 300) -> str:
    """Make what a stranger wrote fit for one line of a log."""
    return "".join(char if char.isprintable() else "?" for char in text[:limit])
