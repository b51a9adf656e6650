"""One websocket connection: a channel for its owner, and the tasks that keep it.

Theory of operation. Three tasks work on an established connection:

* `run_connection` performs the handshake, writes what `send` queued, and closes. No other task
  sends messages, so a cancelled `send` never leaves half a frame;
* the **reader**, which is trio-websocket's, queues whole messages and answers pings. Too many
  unread bytes hold it up (see `_watched_stream`), and so does a full queue;
* `check_channels`, one task for all connections of a server, pings silent peers (see `_heartbeat`)
  and breaks connections that are dead, stalled or unread for too long.

The scope of `run_connection` is shielded once the connection is established: cancelling the owner
must leave time for the closing handshake. The scope ends in `aclose`, at most `close_timeout` after
its start, and by `break_off`. When `run_connection` ends, it closes the stream.

What ended the channel: `_is_closing` (the owner closed it: `ClosedResourceError`) goes before
`_verdict` (this end broke it off), and that before the close code of the peer.
"""

import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Collection
from typing import TypeAlias

import attrs
import trio
from trio_websocket import ConnectionClosed, WebSocketConnection
from wsproto.utilities import ProtocolError

from bridgepool.transports._errors import (
    NOT_A_WEBSOCKET,
    BreakReason,
    ChannelBrokenError,
    MessageTooLargeError,
    close_error,
)
from bridgepool.transports._handshake import WebSocketLimits
from bridgepool.transports._heartbeat import Due
from bridgepool.transports._watched_stream import (
    WatchedStream,
    enable_tcp_keepalive,
    is_tcp_timeout,
)

# Of messages that wait to be written; a larger one waits alone.
_MAX_QUEUED_BYTES = 256 << 10
_MAX_QUEUED_MESSAGES = 64
# What may be unread, besides one message of the largest size.
_MAX_UNREAD_BYTES = 256 << 10
MAX_UNREAD_MESSAGES = 1024
_MAX_BROKEN_AT_ONCE = 16  # connections broken off before other tasks run
_BREAK_PAUSE = 0.001  # seconds between so many and the next

PerformHandshake: TypeAlias = Callable[
    [trio.Nursery, WatchedStream], Awaitable[WebSocketConnection | None]
]
"""Performs one side's handshake on a stream, with the reader in the nursery; None if refused."""


class HandshakeFailedError(Exception):
    """There was no websocket handshake; the cause is what trio-websocket or the stream raised."""


@attrs.define(eq=False, repr=False)
class WebSocketChannel(trio.abc.Channel[bytes]):
    """A channel of messages over an established websocket; made by the two sides' openers."""

    _stream: WatchedStream
    _ws: WebSocketConnection
    _limits: WebSocketLimits
    # of `run_connection`, for pings
    _nursery: trio.Nursery
    _scope: trio.CancelScope
    _queue: deque[bytes] = attrs.field(factory=deque, init=False)
    _queued_bytes: int = attrs.field(default=0, init=False)
    # where the writer waits for messages, and the first sender in turn for room
    _work: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _room: trio.lowlevel.ParkingLot = attrs.field(factory=trio.lowlevel.ParkingLot, init=False)
    _turn: trio.Lock = attrs.field(factory=trio.Lock, init=False)
    _is_receiving: bool = attrs.field(default=False, init=False)
    _is_pinging: bool = attrs.field(default=False, init=False)
    # messages that `receive` returned; and that number at the last check, or -1 if nobody waited
    _received: int = attrs.field(default=0, init=False)
    _waited_at: int = attrs.field(default=-1, init=False)
    _is_closing: bool = attrs.field(default=False, init=False)
    _close_code: tuple[int, str | None] = attrs.field(default=(1000, None), init=False)
    _verdict: tuple[BreakReason, str] | None = attrs.field(default=None, init=False)
    _cause: Exception | None = attrs.field(default=None, init=False)
    _ended: trio.Event = attrs.field(factory=trio.Event, init=False)

    # -- for the owner --------------------------------------------------------------------

    async def send(self, value: bytes) -> None:
        """Queue one message to be written; waits while the queue is full.

        Queued messages are written in order. They are also written when this channel is closed
        then, as far as the other side accepts them within `close_timeout`.

        Raises:
            MessageTooLargeError: Nothing was sent.
            trio.BrokenResourceError: The channel is broken, or was closed by the other side.
            trio.ClosedResourceError: This channel was closed here.

        Cancellation: Nothing was sent.
        """
        if not isinstance(value, bytes):
            raise TypeError(f"a message must be bytes, not {type(value).__name__}")
        if len(value) > self._limits.max_message_bytes:
            raise MessageTooLargeError(len(value), self._limits.max_message_bytes)
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._turn.locked() or self._is_full(value):
            async with self._turn:
                while self._is_full(value) and not self.has_ended():
                    await self._room.park()
                self._put(value)
        else:
            try:
                self._put(value)
            finally:
                await trio.lowlevel.cancel_shielded_checkpoint()

    def _is_full(self, value: bytes) -> bool:
        queued = self._queued_bytes + len(value)
        return bool(self._queue) and (
            queued > _MAX_QUEUED_BYTES or len(self._queue) >= _MAX_QUEUED_MESSAGES
        )

    def _put(self, value: bytes) -> None:
        if self.has_ended():
            raise self._send_error()
        self._queue.append(value)
        self._queued_bytes += len(value)
        self._work.unpark()

    async def receive(self) -> bytes:
        """Receive the next message.

        Raises:
            trio.EndOfChannel: The other side closed the channel; all it sent was received.
            trio.BrokenResourceError: The channel is broken: a `ChannelBrokenError`.
            trio.ClosedResourceError: This channel was closed here.
            trio.BusyResourceError: Another task receives.

        Cancellation: No message is lost.
        """
        if self._is_receiving:
            raise trio.BusyResourceError("another task receives from this channel")
        if self._is_closing:
            await trio.lowlevel.checkpoint()
            raise self._end_error()
        self._is_receiving = True
        try:
            message = await self._ws.get_message()
        except ConnectionClosed:
            raise self._end_error() from self._cause or self._stream.error
        finally:
            self._is_receiving = False
        if not isinstance(message, bytes):
            self.break_off(BreakReason.PROTOCOL, "the other side sent a text message, not bytes")
            raise self._end_error()
        self._received += 1
        self._stream.note_received(len(message) + self._header_bytes(len(message)))
        return message

    def _header_bytes(self, size: int) -> int:
        """Return the size of a frame's header (RFC 6455 section 5.2)."""
        mask = 4 if self._ws.is_server else 0
        return mask + (2 if size < 126 else 4 if size < 65536 else 10)

    async def aclose(self) -> None:
        """Close the channel: write what is queued, and perform the closing handshake.

        Takes at most `close_timeout`; then the connection is cut. The other side receives what
        was sent before, then `trio.EndOfChannel`.

        Cancellation: The connection is cut immediately.
        """
        self.start_closing()
        try:
            with trio.move_on_after(self._limits.close_timeout):
                await self._ended.wait()
        finally:
            self._scope.cancel()

    # -- for the side that opened it ------------------------------------------------------

    def start_closing(self, code: int = 1000, reason: str | None = None) -> None:
        """Begin to close with this close code; `aclose` waits for the end."""
        if not self._is_closing:
            self._is_closing = True
            self._close_code = (code, reason)
            self._stream.stop_holding_up()
            self._work.unpark()
            self._room.unpark_all()

    def break_off(self, reason: BreakReason, detail: str) -> None:
        """Cut the connection for this reason, which the owner's operations raise."""
        if self._verdict is None:
            self._verdict = (reason, detail)
        self._scope.cancel()

    def has_ended(self) -> bool:
        """Return whether nothing can be sent any more."""
        return self._is_closing or self._verdict is not None or self._ws.closed is not None

    def check(self, now: float) -> None:
        """Ping the peer if that is due; break the connection if it is dead, stalled or unread."""
        stream, timeout = self._stream, self._limits.heartbeat_timeout
        silence = now - stream.heartbeat.received_at
        if self._is_closing:
            return
        if self._ws.closed is not None:
            if silence >= timeout:
                self._scope.cancel()  # it closed the websocket, but not the connection
            return
        if self._is_receiving and self._waited_at == self._received:
            stream.note_all_received()
        self._waited_at = self._received if self._is_receiving else -1
        due = stream.heartbeat.next_step(now)
        if silence >= timeout and not stream.is_reading:
            if stream.is_sending:
                self.break_off(*_stalled(silence))
            else:
                detail = f"received messages were left unread here for {silence:.1f} s"
                self.break_off(BreakReason.UNREAD, detail)
        elif due is Due.BREAK:
            detail = f"the other side sent nothing for {silence:.1f} s"
            self.break_off(BreakReason.HEARTBEAT, detail)
        elif stream.is_sending and now - stream.written_at >= timeout:
            self.break_off(*_stalled(now - stream.written_at))
        elif due is Due.PING:
            self._nursery.start_soon(self._ping)

    async def _ping(self) -> None:
        if self._is_pinging:  # its pong is overdue, although the peer has sent something since
            self._stream.heartbeat.note_ping_written(trio.current_time())
            return
        self._is_pinging = True
        with contextlib.suppress(ConnectionClosed, ProtocolError):
            await self._ws.ping()
        self._is_pinging = False

    # -- for `run_connection` -------------------------------------------------------------

    async def _write(self) -> None:
        """Write what is queued, until the channel is closed here or ended by the other side."""
        queue = self._queue
        try:
            while queue or not self._is_closing:
                if not queue:
                    await self._work.park()
                    continue
                message = queue[0]
                await self._ws.send_message(message)
                self._stream.heartbeat.note_message_written(trio.current_time())
                queue.popleft()
                self._queued_bytes -= len(message)
                self._room.unpark()
            await self._ws.aclose(*self._close_code)
        except (ConnectionClosed, ProtocolError) as error:
            self._cause = self._stream.error or error.with_traceback(None)
            if self._ws.closed is None and self._verdict is None:
                self._verdict = (BreakReason.PROTOCOL, NOT_A_WEBSOCKET)
        self._room.unpark_all()
        if self._is_closing:
            self._scope.cancel()

    def _finish(self, error: Exception | None) -> None:
        if error is not None:
            self._cause = error
        if self._verdict is None and self._ws.closed is None:
            self._verdict = (BreakReason.PROTOCOL, NOT_A_WEBSOCKET)
        self._room.unpark_all()
        self._ended.set()

    def _send_error(self) -> Exception:
        error = self._end_error()
        if isinstance(error, trio.EndOfChannel):
            return ChannelBrokenError(BreakReason.REFUSED, "the other side closed the channel")
        return error

    def _end_error(self) -> Exception:
        if self._is_closing:
            return trio.ClosedResourceError("this channel was closed here")
        if self._verdict is not None:
            return ChannelBrokenError(*self._verdict)
        closed = self._ws.closed
        if closed is None:
            return ChannelBrokenError(BreakReason.PROTOCOL, NOT_A_WEBSOCKET)
        return self._cut_error() if closed.code == 1006 else close_error(closed.code, closed.reason)

    def _cut_error(self) -> ChannelBrokenError:
        if not is_tcp_timeout(self._stream.error):
            return ChannelBrokenError(BreakReason.CUT, "the connection was cut")
        if self._stream.ended_sending:
            return ChannelBrokenError(*_stalled(self._limits.heartbeat_timeout))
        detail = "the other machine cannot be reached any more"
        return ChannelBrokenError(BreakReason.HEARTBEAT, detail)


def _stalled(seconds: float) -> tuple[BreakReason, str]:
    return BreakReason.STALLED, f"the other side accepted no data for {seconds:.1f} s"


async def check_channels(channels: Collection[WebSocketChannel], limits: WebSocketLimits) -> None:
    """Check all `channels` regularly, until cancelled."""
    # At least each second: a reader that is held up by an estimate waits for two checks.
    period = min(1.0, limits.heartbeat_interval / 8, limits.heartbeat_timeout / 8)
    while True:
        await trio.sleep(period)
        now = trio.current_time()
        broken = 0
        for channel in tuple(channels):
            had_ended = channel.has_ended()
            channel.check(now)
            if channel.has_ended() and not had_ended:
                broken += 1
                # Thousands may be silent together, after a failure of the network. To close them
                # all in one turn would hold up every other one.
                if broken % _MAX_BROKEN_AT_ONCE == 0:
                    await trio.sleep(_BREAK_PAUSE)


async def run_connection(  # noqa: ASYNC114 -- the linter cannot be told of every startable
    stream: trio.abc.Stream,
    limits: WebSocketLimits,
    deadline: float,
    perform_handshake: PerformHandshake,
    *,
    task_status: trio.TaskStatus[WebSocketChannel | None],
) -> None:
    """Run one connection from its handshake to its end; closes the stream.

    `started()` gets the channel, or None when the handshake was refused.

    Raises:
        HandshakeFailedError: Instead of `started()`. Nothing is raised after it.
    """
    enable_tcp_keepalive(stream, limits.heartbeat_timeout)
    watched = WatchedStream(stream, limits.max_message_bytes + _MAX_UNREAD_BYTES)
    channel: WebSocketChannel | None = None
    failure: Exception | None = None
    try:
        with trio.CancelScope() as scope:
            try:
                async with trio.open_nursery() as nursery:
                    ws = await _handshake(nursery, watched, deadline, perform_handshake)
                    if ws is not None:
                        channel = WebSocketChannel(watched, ws, limits, nursery, scope)
                        watched.establish()
                        watched.heartbeat.begin(limits, is_server=ws.is_server)
                        scope.shield = True
                        task_status.started(channel)
                        await channel._write()
                    else:
                        nursery.cancel_scope.cancel()
            except* Exception as group:
                failure = _first_of(group).with_traceback(None)  # it leads back to the channel
    finally:
        if channel is not None:
            channel._finish(failure)
        await trio.aclose_forcefully(stream)  # noqa: ASYNC102 -- does not wait
    if channel is None:
        if failure is not None:
            raise HandshakeFailedError from failure
        task_status.started(None)


async def _handshake(
    nursery: trio.Nursery,
    stream: WatchedStream,
    deadline: float,
    perform_handshake: PerformHandshake,
) -> WebSocketConnection | None:
    with trio.CancelScope(deadline=deadline) as scope:
        stream.on_end = scope.cancel
        return await perform_handshake(nursery, stream)
    if trio.current_time() >= deadline:
        raise trio.TooSlowError("the handshake took too long")
    raise stream.error or trio.BrokenResourceError("the connection ended during the handshake")


def _first_of(error: BaseException) -> Exception:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error if isinstance(error, Exception) else HandshakeFailedError()
