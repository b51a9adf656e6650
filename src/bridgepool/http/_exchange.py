"""One request and its response, as a handler sees them.

An `Exchange` says what HTTP allows a handler to do and in which order; the bytes are the
business of an `ExchangePort` below it. `serve_http` is one such port, the ASGI adapter the
other, so a handler runs on both unchanged.
"""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

import attrs

from bridgepool.http._errors import LocalProtocolError
from bridgepool.http._messages import EndOfMessage, Headers, Request


class ExchangePort(Protocol):
    """Carries out one exchange; implemented by whatever serves handlers.

    Each method that sends returns when the bytes are on their way. `finish` says that no more
    of the response follows; `data` is a piece of the body and may be empty.
    """

    @property
    def responded(self) -> bool:
        """Whether the final response was begun."""
        ...

    async def receive_some(self) -> tuple[bytes, EndOfMessage | None]:
        """Return the next piece of the request's body, and its end if that has come as well.

        The piece is empty only at the end; not called after that.
        """
        ...

    async def send_interim(self, status: int, headers: Headers) -> None:
        """Send a 1xx response, if the client can take one."""
        ...

    async def send_head(
        self, status: int, headers: Headers, reason: bytes, data: bytes, *, finish: bool
    ) -> None:
        """Send the final response's head, with the first or all of its body."""
        ...

    async def send_data(self, data: bytes) -> None:
        """Send a piece of the body."""
        ...

    async def send_end(self, trailers: Headers) -> None:
        """Send what ends the message."""
        ...

    def cut(self) -> None:
        """Leave the response unfinished, so that the client can see that it is."""
        ...

    def cancel(self) -> None:
        """Cancel the handler; from another task."""
        ...


@attrs.define(eq=False)
class RequestBody:
    """The body of a request: read it in pieces, as they come.

    Nothing is buffered beyond a bounded read-ahead: a handler that does not read holds the
    client back. A body that was not read when the handler ends is discarded.
    """

    _port: ExchangePort
    _end: EndOfMessage | None = None

    @property
    def trailers(self) -> Headers:
        """The fields after the body; empty until its end was read."""
        return self._end.trailers if self._end is not None else ()

    async def receive_some(self) -> bytes:
        """Return the next bytes of the body, or b"" when there are no more.

        The first call tells a client that expects `100-continue` to go on. Each call is a
        checkpoint, but for those that return b"".

        Raises:
            RemoteProtocolError: The body is malformed, ends too early, or is too large
                (`BodyTooLarge`) or too slow (`RequestTimeout`). A handler that lets this out
                without having responded has the fitting status sent.
            trio.BusyResourceError: Another task is reading.
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

    _port: ExchangePort
    trailers: Headers = ()
    """Fields to be sent after the body; set them before the block ends. They need a chunked
    body: with a `content-length`, or to a client of HTTP/1.0, they are left out."""

    async def send_all(self, data: bytes) -> None:
        """Send a piece of the body; returns when there is room for more.

        Nothing is sent for a response that has no body (to HEAD, 204, 304).

        Raises:
            LocalProtocolError: It is more than the `content-length` promised.

        Cancellation: What part of the piece was sent is not known, so the response is cut.
        """
        await self._port.send_data(data)


@attrs.define(eq=False)
class _Responding:
    """The block of `Exchange.respond`; a class because it is entered for every request."""

    _port: ExchangePort
    _status: int
    _headers: Headers
    _reason: bytes
    _data: bytes
    _stream: ResponseStream = attrs.field(init=False)

    async def __aenter__(self) -> ResponseStream:
        self._stream = ResponseStream(self._port)
        await self._port.send_head(
            self._status, self._headers, self._reason, self._data, finish=False
        )
        return self._stream

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            self._port.cut()
            return
        try:
            await self._port.send_end(self._stream.trailers)  # noqa: ASYNC102 - not clean-up
        except BaseException:
            self._port.cut()
            raise


@attrs.define(eq=False)
class Exchange:
    """One request, and the means to answer it; made by the server, for one handler's call.

    When the client leaves, the handler is cancelled wherever it waits.

    Attributes:
        request: The head of the request.
        client: The client's address as `host:port`, or "" where it has none.
        scheme: `http` or `https`.
        body: The body of the request.
    """

    request: Request
    client: str
    scheme: str
    body: RequestBody
    _port: ExchangePort

    @property
    def response_started(self) -> bool:
        """Whether the final response was begun; another is not possible then."""
        return self._port.responded

    def respond(
        self, status: int, headers: Headers = (), *, reason: bytes = b"", data: bytes = b""
    ) -> AbstractAsyncContextManager[ResponseStream]:
        """Send a response whose body is written piece by piece, as an async context manager.

        The head goes out when the block is entered, together with `data`, the first piece of
        the body. The block yields a `ResponseStream`. Leaving it ends the message; an
        exception in it cuts the message off, which the client can see.

        Args:
            status: 200 or above.
            headers: Names in lower case. A `content-length` fixes the body's length; without
                one the body is chunked. `connection: close` ends the connection afterwards;
                nothing else about connection or framing may be among them.
            reason: The phrase; the usual one if empty.
            data: Bytes to be sent in one piece with the head.

        Raises:
            LocalProtocolError: A response was begun already, or a field cannot be sent.
        """
        self._check_first()
        return _Responding(self._port, status, headers, reason, data)

    async def answer(self, status: int, headers: Headers = (), body: bytes = b"") -> None:
        """Send a whole response at once; its `content-length` is added.

        Raises:
            LocalProtocolError: A response was begun already, or a field cannot be sent.
        """
        self._check_first()
        if status not in (204, 304):
            headers = (*headers, (b"content-length", b"%d" % len(body)))
        await self._port.send_head(status, headers, b"", body, finish=True)

    async def inform(self, status: int, headers: Headers = ()) -> None:
        """Send an interim (1xx) response; a client of HTTP/1.0 is sent nothing.

        Raises:
            LocalProtocolError: The response was begun already, or this is not 1xx.
        """
        self._check_first()
        await self._port.send_interim(status, headers)

    def cancel(self) -> None:
        """End the exchange from another task: its handler is cancelled wherever it waits.

        A response that was begun is cut visibly, and the connection ends. So a server-side
        deadline needs no cancel scope for each request.
        """
        self._port.cancel()

    def _check_first(self) -> None:
        if self._port.responded:
            raise LocalProtocolError("an exchange has one response, and it was begun already")


Handler = Callable[[Exchange], Awaitable[None]]
"""What serves requests: called once for each, in a task where it may wait as long as it likes."""
