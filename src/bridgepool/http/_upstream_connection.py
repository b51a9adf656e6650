"""One connection to an upstream: its stream, its wire and its deadlines."""

import math
import select
import ssl
from collections.abc import Callable, Hashable

import attrs
import trio

from bridgepool.http._errors import RemoteProtocolError, UpstreamCut, UpstreamProtocolError
from bridgepool.http._messages import EndOfMessage, ResponseHead
from bridgepool.http._sockets import receive_some, send_all, send_now
from bridgepool.http._wire import ClientWire


@attrs.define(eq=False)
class UpstreamConnection:
    """A connection, used by one request at a time.

    Timeouts need no cancel scope: a connection stores its deadlines, the client's timekeeper
    closes overdue connections, and the task that reads or writes then raises `failure`. The task
    that sends a body reports its errors to the reader of the response in the same way.
    """

    stream: trio.abc.Stream
    wire: ClientWire
    tenant: Hashable = None  # for whom its slot was taken
    read_due: float = math.inf  # on Trio's clock; while idle, when to close it
    write_due: float = math.inf
    reused: bool = False  # carried a request before the current one
    response_begun: bool = False  # a byte of the current response was received
    ended: bool = False  # the upstream sends no more
    not_reusable: bool = False  # whatever the wire says
    failure: Exception | None = None  # the error to raise after the client has closed it
    _transport: trio.abc.Stream = attrs.field(init=False)  # below TLS
    _tls: tuple["trio.SSLStream[trio.abc.Stream]", ...] = ()  # the layers of TLS
    _tcp: trio.SocketStream | None = None  # the stream if it is plain TCP
    _poll: Callable[[float], object] | None = (
        None  # truthy when bytes or the end of the stream can be read
    )

    def __attrs_post_init__(self) -> None:
        transport = self.stream
        while isinstance(transport, trio.SSLStream):
            self._tls += (transport,)
            transport = transport.transport_stream
        self._transport = transport
        if isinstance(transport, trio.SocketStream):
            poller = select.poll()
            poller.register(transport.socket.fileno(), select.POLLIN)
            self._poll = poller.poll
            self._tcp = transport if transport is self.stream else None

    @property
    def is_dead(self) -> bool:
        """Whether the upstream has closed an idle connection, or sent data that nobody requested.

        One system call, about a microsecond. Always false for streams without a socket, except
        for what TLS has received already.
        """
        if self.failure is not None or any(map(_holds_data, self._tls)):
            return True
        return self._poll is not None and bool(self._poll(0))

    @property
    def has_unsolicited_data(self) -> bool:
        """Whether the upstream of a new connection has sent data before any request.

        Always false with TLS, which sends messages of its own.
        """
        return self.stream is self._transport and self.is_dead

    @property
    def due(self) -> float:
        """When to close it unless there is progress."""
        return min(self.read_due, self.write_due)

    def next_event(self) -> ResponseHead | bytes | EndOfMessage | None:
        """Return the wire's next event, or None until more bytes are received.

        Raises:
            UpstreamCut: The connection ended before the response was complete.
            UpstreamProtocolError: The upstream did not send valid HTTP/1.
        """
        try:
            return self.wire.next_event()
        except RemoteProtocolError as error:
            if self.ended:
                raise UpstreamCut(
                    "the upstream closed the connection before its response was complete"
                ) from error
            raise UpstreamProtocolError(
                f"the upstream sent an invalid response: {error}"
            ) from error

    async def receive(self) -> None:
        """Receive bytes and feed them to the wire.

        Raises:
            UpstreamCut: The connection broke. If the client closed it, `failure` is raised.
        """
        try:
            data = await receive_some(self.stream)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            raise self._connection_error() from error
        if self.failure is not None:  # closed while receiving; some streams then return b""
            raise self.failure
        if data:
            self.response_begun = True
        else:
            self.ended = True
        self.wire.receive_data(data)

    async def send(self, data: bytes) -> None:
        """Send all of `data`.

        Raises:
            UpstreamCut: The connection broke. If the client closed it, `failure` is raised.
        """
        try:
            await send_all(self.stream, data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.not_reusable = True
            raise self._connection_error() from error

    async def send_head(self, data: bytes) -> None:
        """Send the beginning of a request. Only a checkpoint if it must wait: `receive` follows.

        Raises:
            UpstreamCut: As for `send`.
        """
        if self._tcp is None:
            await self.send(data)
            return
        try:
            sent = send_now(self._tcp, data)
        except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
            self.not_reusable = True
            raise self._connection_error() from error
        if sent < len(data):
            await self.send(data[sent:])

    def _connection_error(self) -> Exception:
        if self.failure is None:
            return UpstreamCut("the connection to the upstream broke")
        return self.failure

    def start_next(self) -> bool:
        """Prepare for the next request; return False if the connection cannot carry another."""
        if self.not_reusable or self.failure is not None or self.ended:
            return False
        if not self.wire.reusable or self.wire.buffered:
            return False  # bytes after the response belong to no request
        self.wire.start_next()
        self.reused = True
        self.response_begun = False
        return True

    async def aclose(self) -> None:
        """Close at once, without TLS's close_notify. Closes the socket also when cancelled."""
        self.read_due = self.write_due = math.inf
        await trio.aclose_forcefully(self._transport)

    async def abort(self, failure: Exception) -> None:
        """Close the connection while it is used; its user raises `failure`."""
        if self.failure is None:
            self.failure = failure
        await self.aclose()


def _holds_data(layer: "trio.SSLStream[trio.abc.Stream]") -> bool:
    """Return whether a layer of TLS holds bytes that were received and not yet read.

    Records that arrive together are received together but read one by one, and the socket under
    them shows nothing. Trio has no public name for that buffer: without it nothing is known.
    """
    incoming: object = getattr(layer, "_incoming", None)
    pending = incoming.pending if isinstance(incoming, ssl.MemoryBIO) else 1
    return bool(pending or layer.pending())
