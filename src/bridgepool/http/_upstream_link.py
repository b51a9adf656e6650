"""One connection to an upstream: its stream, its wire, and until when it may be silent."""

import math
import select
from collections.abc import Callable

import attrs
import trio

from bridgepool.http._errors import RemoteProtocolError, UpstreamCut, UpstreamProtocolError
from bridgepool.http._messages import EndOfMessage, ResponseHead
from bridgepool.http._sockets import receive_some, send_all, send_now
from bridgepool.http._wire import ClientWire


@attrs.define(eq=False)
class UpstreamLink:
    """A connection, used by one request at a time.

    Timeouts cost no cancel scope: a link carries the time at which it is overdue, the client's
    timekeeper closes those that are, and whoever reads or writes then finds in `failure` what
    to raise. The same way the task that sends a body tells the one that reads the answer.
    """

    stream: trio.abc.Stream
    wire: ClientWire
    read_due: float = math.inf  # Trio's clock; while idle, when to close it
    write_due: float = math.inf
    used: bool = False  # has carried a request before the one in hand
    heard: bool = False  # a byte of the answer in hand has come
    ended: bool = False  # the upstream will send no more
    spoiled: bool = False  # cannot carry another request, whatever the wire says
    failure: Exception | None = None  # why our own side closed it
    _transport: trio.abc.Stream = attrs.field(init=False)  # below TLS
    _tcp: trio.SocketStream | None = None  # the stream, where it is plain TCP
    _poll: Callable[[float], object] | None = None  # true for bytes, or the end, to be read

    def __attrs_post_init__(self) -> None:
        transport = self.stream
        while isinstance(transport, trio.SSLStream):
            transport = transport.transport_stream
        self._transport = transport
        if isinstance(transport, trio.SocketStream):
            poller = select.poll()
            poller.register(transport.socket.fileno(), select.POLLIN)
            self._poll = poller.poll
            self._tcp = transport if transport is self.stream else None

    @property
    def is_dead(self) -> bool:
        """Whether an idle link has been closed by its upstream, or spoken to unasked.

        One system call, about a microsecond; never true for streams that are no sockets.
        """
        return self.failure is not None or (self._poll is not None and bool(self._poll(0)))

    @property
    def spoke_first(self) -> bool:
        """Whether a new link's upstream has said something before it was asked.

        Always false under TLS, where what comes may be TLS's own.
        """
        return self.stream is self._transport and self.is_dead

    @property
    def due(self) -> float:
        """When to close it unless it moves on."""
        return min(self.read_due, self.write_due)

    def next_event(self) -> ResponseHead | bytes | EndOfMessage | None:
        """Return the wire's next event, None for none yet.

        Raises:
            UpstreamCut: The connection has ended in the middle.
            UpstreamProtocolError: What came is not HTTP as we take it.
        """
        try:
            return self.wire.next_event()
        except RemoteProtocolError as error:
            if self.ended:
                raise UpstreamCut("the upstream closed before its answer was complete") from error
            raise UpstreamProtocolError(f"the upstream sent no valid answer: {error}") from error

    async def fill(self) -> None:
        """Give the wire what comes in next.

        Raises:
            UpstreamCut: The connection broke; or `failure`, if we closed it ourselves.
        """
        try:
            data = await receive_some(self.stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._why_gone() from error
        if self.failure is not None:  # closed under us; some streams then give b""
            raise self.failure
        if data:
            self.heard = True
        else:
            self.ended = True
        self.wire.receive_data(data)

    async def send(self, data: bytes) -> None:
        """Send all of it.

        Raises:
            UpstreamCut: The connection broke; or `failure`, if we closed it ourselves.
        """
        try:
            await send_all(self.stream, data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.spoiled = True
            raise self._why_gone() from error

    async def send_first(self, data: bytes) -> None:
        """Send what begins a request: no checkpoint unless it must wait, for `fill` follows.

        Raises:
            UpstreamCut: As `send`.
        """
        if self._tcp is None:
            await self.send(data)
            return
        try:
            sent = send_now(self._tcp, data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.spoiled = True
            raise self._why_gone() from error
        if sent < len(data):
            await self.send(data[sent:])

    def _why_gone(self) -> Exception:
        if self.failure is None:
            return UpstreamCut("the connection to the upstream broke")
        return self.failure

    def start_next(self) -> bool:
        """Get ready for the next request; false when there can be none."""
        if self.spoiled or self.failure is not None or self.ended:
            return False
        if not self.wire.reusable or self.wire.buffered:
            return False  # bytes after the answer belong to nothing that was asked
        self.wire.start_next()
        self.used = True
        self.heard = False
        return True

    async def aclose(self) -> None:
        """Close at once, without TLS's goodbye. The socket is closed also when cancelled."""
        self.read_due = self.write_due = math.inf
        await trio.aclose_forcefully(self._transport)

    async def abort(self, failure: Exception) -> None:
        """Close under whoever uses it, and let them raise `failure`."""
        if self.failure is None:
            self.failure = failure
        await self.aclose()
