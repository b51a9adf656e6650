"""One request and its response, as a handler sees them.

An `Exchange` defines what HTTP allows a handler to do, and in which order. An `ExchangePort` below
it does the I/O: one is in `serve_http`, the other in the ASGI adapter, so a handler runs unchanged
on both.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from types import MappingProxyType, TracebackType
from typing import Final, Protocol

import attrs
import trio

from bridgepool.http._errors import LocalProtocolError, RemoteProtocolError
from bridgepool.http._messages import EndOfMessage, Headers, Request

_NO_FIELDS: Final[Mapping[str, object]] = MappingProxyType({})


class ExchangePort(Protocol):
    """Performs the I/O of one exchange; implemented by each kind of server.

    Each method that sends returns when the bytes are handed to the stream. `finish` says that the
    response ends with this call; `data` is a piece of the body and may be empty.
    """

    @property
    def responded(self) -> bool:
        """Whether the final response was begun."""
        ...

    @property
    def disconnected(self) -> bool:
        """Whether the client disconnected."""
        ...

    def take_buffered(self) -> tuple[bytes, EndOfMessage | None]:
        """Return what was received of the request's body; an empty piece, and no end, if nothing.

        There are no calls after the end.
        """
        ...

    async def receive_some(self) -> tuple[bytes, EndOfMessage | None]:
        """Return the next piece of the request's body, and its end if that was received too.

        The piece is empty only at the end. There are no calls after the end.
        """
        ...

    async def send_interim(self, status: int, headers: Headers) -> None:
        """Send a 1xx response, if the client understands it."""
        ...

    async def send_head(
        self, status: int, headers: Headers, reason: bytes, data: bytes, *, finish: bool
    ) -> None:
        """Send the head of the final response, with the first piece or all of its body."""
        ...

    async def upgrade(self, headers: Headers) -> trio.abc.Stream:
        """Switch to another protocol."""
        ...

    async def send_data(self, data: bytes) -> None:
        """Send a piece of the body."""
        ...

    async def send_end(self, trailers: Headers) -> None:
        """End the message."""
        ...

    def cut(self) -> None:
        """Leave the response incomplete, in a way that the client notices."""
        ...

    def cancel(self) -> None:
        """Cancel the handler from another task."""
        ...

    def authenticated(self) -> None:
        """Keep the connection for as long as those of authenticated clients."""
        ...


class _EndedPort:
    """Stands in for the server when a handler has ended.

    The next request may be on the same connection by then: a task that still has the exchange must
    not read that one's body, nor respond to it.
    """

    responded = True
    disconnected = False

    def take_buffered(self) -> tuple[bytes, EndOfMessage | None]:
        raise self._error()

    async def receive_some(self) -> tuple[bytes, EndOfMessage | None]:
        await trio.lowlevel.checkpoint()
        raise self._error()

    async def send_interim(self, status: int, headers: Headers) -> None:
        await trio.lowlevel.checkpoint()
        raise self._error()

    async def send_head(
        self, status: int, headers: Headers, reason: bytes, data: bytes, *, finish: bool
    ) -> None:
        await trio.lowlevel.checkpoint()
        raise self._error()

    async def upgrade(self, headers: Headers) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise self._error()

    async def send_data(self, data: bytes) -> None:
        await trio.lowlevel.checkpoint()
        raise self._error()

    async def send_end(self, trailers: Headers) -> None:
        await trio.lowlevel.checkpoint()
        raise self._error()

    def cut(self) -> None:
        """Do nothing: there is no response any more."""

    cancel = authenticated = cut

    def _error(self) -> trio.ClosedResourceError:
        return trio.ClosedResourceError("the exchange is over: its handler has ended")


_ENDED: Final = _EndedPort()


@attrs.define(eq=False)
class RequestBody:
    """The body of a request, read in pieces as they are received.

    Nothing is buffered beyond a bounded read-ahead: if a handler does not read, its client must
    wait. What was not read when the handler ends is discarded.
    """

    _port: ExchangePort
    _end: EndOfMessage | None = None
    error: RemoteProtocolError | None = None
    """The error that reading raises, if the head of the request says so already: the body is too
    large. The request can be answered all the same."""

    @property
    def trailers(self) -> Headers:
        """The trailer fields; empty until the end of the body was read."""
        return self._end.trailers if self._end is not None else ()

    def take_buffered(self) -> bytes:
        """Return the part of the body that was received but not yet returned; never waits.

        A short body usually comes together with its head. Does not send `100 Continue`.

        Returns:
            b"" if nothing is buffered, and at the end.

        Raises:
            RemoteProtocolError: As for `receive_some`.
        """
        if self._end is not None:
            return b""
        piece, self._end = self._port.take_buffered()
        return piece

    async def receive_some(self) -> bytes:
        """Return the next bytes of the body; b"" at the end.

        If the client expects `100-continue`, the first call sends that. A checkpoint, except for
        calls after the end.

        Raises:
            RemoteProtocolError: The body is malformed or incomplete, too large (`BodyTooLarge`)
                or too slow (`RequestTimeout`). If the handler does not catch this and has not
                responded, the server responds with the error's status.
            trio.BusyResourceError: Another task is reading.
            trio.ClosedResourceError: The handler of this exchange has ended.
        """
        if self._end is not None:
            return b""
        piece, self._end = await self._port.receive_some()
        return piece

    def __aiter__(self) -> "RequestBody":
        return self

    async def __anext__(self) -> bytes:
        piece = await self.receive_some()
        if not piece:
            raise StopAsyncIteration
        return piece


@attrs.define(eq=False)
class ResponseStream:
    """The body of a response that is being sent."""

    _exchange: "Exchange"
    trailers: Headers = ()
    """Fields to be sent after the body; set them before the block ends. They require a chunked
    body: with a `content-length`, or to an HTTP/1.0 client, they are omitted."""

    async def send_all(self, data: bytes) -> None:
        """Send a piece of the body; returns when there is room for more. A checkpoint.

        Nothing is sent for a response without a body (to HEAD, 204, 304).

        Raises:
            LocalProtocolError: The body is longer than its `content-length`.
            trio.ClosedResourceError: The handler of this exchange has ended.

        Cancellation: It is unknown how much of the piece was sent, so the response is cut.
        """
        await self._exchange._port.send_data(data)


@attrs.define(eq=False)
class _Responding:
    """The context manager of `Exchange.respond`; a class because every request enters one."""

    _exchange: "Exchange"
    _status: int
    _headers: Headers
    _reason: bytes
    _data: bytes
    _stream: ResponseStream = attrs.field(init=False)

    async def __aenter__(self) -> ResponseStream:
        self._stream = ResponseStream(self._exchange)
        await self._exchange._port.send_head(
            self._status, self._headers, self._reason, self._data, finish=False
        )
        return self._stream

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        port = self._exchange._port
        if error is not None:
            port.cut()
            return
        try:
            await port.send_end(self._stream.trailers)  # noqa: ASYNC102 -- not cleanup
        except BaseException:
            port.cut()
            raise


@attrs.define(eq=False)
class Exchange:
    """One request and the methods to respond to it; created by the server for each request.

    When the client disconnects, the handler is cancelled wherever it waits. When the handler ends,
    the exchange is over: other tasks can no longer read from it, nor respond.

    Attributes:
        request: The head of the request.
        client: The client's address as `host:port`, or "" if it has none.
        scheme: `http` or `https`.
        body: The body of the request.
        mounted_at: The path in front of the target's, where an ASGI application is mounted.
        response_headers: Fields that are added to the final response, whoever sends it.
        log_fields: Fields of the line that the server logs if the handler fails.
    """

    request: Request
    client: str
    scheme: str
    body: RequestBody
    _port: ExchangePort
    mounted_at: bytes = b""
    response_headers: Headers = ()
    log_fields: Mapping[str, object] = _NO_FIELDS

    @property
    def response_started(self) -> bool:
        """Whether the final response was begun; there can be only one."""
        return self._port.responded

    @property
    def disconnected(self) -> bool:
        """Whether the client disconnected, which may be why a handler is cancelled."""
        return self._port.disconnected

    def respond(
        self, status: int, headers: Headers = (), *, reason: bytes = b"", data: bytes = b""
    ) -> AbstractAsyncContextManager[ResponseStream]:
        """Send a response in pieces: ``async with exchange.respond(...) as stream``.

        Entering the block sends the head together with `data`, the first piece of the body. Leaving
        it ends the message. After an exception in the block the response is cut, which the client
        notices.

        Args:
            status: 200 or above.
            headers: Names in lower case. With `content-length` the body has that length, otherwise
                it is chunked. `connection: close` ends the connection afterwards; no other field
                about connection or framing is allowed.
            reason: The reason phrase; by default the standard one.
            data: Bytes to be sent together with the head.

        Raises:
            LocalProtocolError: A response was begun already, or a field is invalid.
        """
        self._check_not_responded()
        headers += self.response_headers
        return _Responding(self, status, headers, reason, data)

    async def answer(self, status: int, headers: Headers = (), body: bytes = b"") -> None:
        """Send a complete response; `content-length` is added. A checkpoint.

        Raises:
            LocalProtocolError: A response was begun already, or a field is invalid.
        """
        self._check_not_responded()
        headers += self.response_headers
        if status not in (204, 304):
            headers = (*headers, (b"content-length", b"%d" % len(body)))
        await self._port.send_head(status, headers, b"", body, finish=True)

    async def inform(self, status: int, headers: Headers = ()) -> None:
        """Send an interim (1xx) response; does nothing for an HTTP/1.0 client. A checkpoint.

        Raises:
            LocalProtocolError: The response was begun already, or `status` is not 1xx.
        """
        self._check_not_responded()
        await self._port.send_interim(status, headers)

    async def upgrade(self, headers: Headers) -> trio.abc.Stream:
        """Switch to another protocol: send 101, and return the stream that goes on after it.

        The request must ask for that protocol by its Upgrade field, without a body. The stream has
        all that the client sent after its head. When the client closes or resets the connection it
        ends; the handler is cancelled only if it sends to a client that receives no more. The
        connection is closed when the handler ends.

        An ASGI server can only switch to websockets, and does it itself: the stream then carries
        the frames of its messages, and its own limits hold for them.

        Args:
            headers: Names in lower case; `upgrade` with the protocol is one of them, and
                `connection` is added.

        Raises:
            LocalProtocolError: A response was begun already, a field is invalid, or the client uses
                HTTP/1.0.

        Cancellation: The connection is cut.
        """
        self._check_not_responded()
        return await self._port.upgrade(headers + self.response_headers)

    def authenticated(self) -> None:
        """Report that the client is authenticated.

        Its connection is then not subject to `HttpLimits.unauthenticated_timeout`, also during
        later exchanges.
        """
        self._port.authenticated()

    def cancel(self) -> None:
        """End the exchange from another task: its handler is cancelled wherever it waits.

        A response that was begun is cut, and the connection ends. With this, deadlines of a server
        need no cancel scope for each request.
        """
        self._port.cancel()

    def _end(self) -> None:
        """Take the exchange from all who still have it."""
        self._port = self.body._port = _ENDED
        self.body.error = None  # its traceback, once raised, leads back to the exchange

    def _check_not_responded(self) -> None:
        if self._port.responded:
            raise LocalProtocolError("the response of this exchange was begun already")


Handler = Callable[[Exchange], Awaitable[None]]
"""Serves requests: called once for each, in a task in which it may wait without limit."""
