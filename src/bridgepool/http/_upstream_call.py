"""One request to an upstream, and its response.

Theory of operation. A call takes a connection, sends its request and reads until the head of the
final response. The user reads the body. The connection goes back to the pool in the same step in
which the end of the response is read, if the request was sent completely by then. Otherwise the
call keeps it, and closes it when the user leaves.

Most bodies are short and are sent with the head, in one write and without a task. A body that is
long or of unknown length is sent by an `Upload` while the call reads, so that an early response is
noticed at once. A connection whose response begins before the request was sent completely is not
reusable: the upstream may not have read the rest.
"""

import math
from collections.abc import Callable, Hashable
from contextlib import suppress
from types import TracebackType

import attrs
import trio

from bridgepool.http._errors import (
    LocalProtocolError,
    UpstreamCut,
    UpstreamError,
    UpstreamProtocolError,
)
from bridgepool.http._limits import UpstreamLimits
from bridgepool.http._messages import EndOfMessage, Headers, Request, ResponseHead, get_header
from bridgepool.http._upgraded_streams import UpgradedUpstreamStream
from bridgepool.http._upload import BytesBody, ReceivesBody, Upload, UpstreamBody, read_whole
from bridgepool.http._upstream_connection import UpstreamConnection
from bridgepool.http._upstream_pool import UpstreamPool

# RFC 9110 section 9.2.2: repeating such a request has no further effect.
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
_MAX_SHORT_BODY = 65536  # bytes of a body that is sent with its head; it fits into socket buffers
_MAX_INTERIM_RESPONSES = 16  # to one request
_MAX_PIECES = 4  # of a body that are returned at once, each made of many chunks at most


@attrs.define(eq=False)
class UpstreamResponse:
    """The response to a request: its head was received, its body can be read."""

    _call: "UpstreamCall"
    _head: ResponseHead
    ended: bool = False
    """Whether the whole body has been returned; `trailers` are complete then."""
    trailers: Headers = ()
    """The fields after a chunked body."""

    @property
    def status(self) -> int:
        """Three digits, 200 or above; 101 only if another protocol was asked for."""
        return self._head.status

    @property
    def reason(self) -> bytes:
        """The reason phrase, possibly empty."""
        return self._head.reason

    @property
    def headers(self) -> Headers:
        """All fields, also hop-by-hop fields, which `forward_response_headers` removes."""
        return self._head.headers

    @property
    def stream(self) -> trio.abc.Stream:
        """The stream that goes on after a response 101, in the protocol that it switched to.

        Raises:
            LocalProtocolError: The response has another status.
        """
        if self.status != 101:
            raise LocalProtocolError("the upstream did not switch to another protocol")
        return UpgradedUpstreamStream(self._call.connection, self._call.limits)

    def take_buffered(self) -> bytes:
        """Return the part of the body that was received but not yet returned; never waits.

        Directly after the head this is what was received together with it, so that a proxy can
        respond in a single write; `ended` then says whether the body is complete.

        Returns:
            b"" if nothing is buffered.

        Raises:
            UpstreamCut: The connection ended before the body was complete.
            UpstreamProtocolError: The upstream did not send valid HTTP/1.
        """
        pieces: list[bytes] = []
        while not self.ended and len(pieces) < _MAX_PIECES:
            try:
                event = self._call.connection.next_event()
            except UpstreamError:
                if not pieces:
                    raise
                break  # return the good part first; the next call raises this error again
            if isinstance(event, bytes):
                pieces.append(event)
            elif isinstance(event, EndOfMessage):
                self.ended, self.trailers = True, event.trailers
                self._call.response_ended()
            else:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def receive_some(self) -> bytes:
        """Return the next piece of the body as soon as it is received; b"" at the end.

        A piece is all that was received since the last call, or a part of it if it came in
        thousands of chunks. No further call is needed once
        `ended` is set. A checkpoint.

        Raises:
            UpstreamCut: The connection ended before the body was complete.
            UpstreamProtocolError: The upstream did not send valid HTTP/1.
            UpstreamTimeout: Nothing was received for `read_timeout`.
            trio.ClosedResourceError: The client was closed, or the block of the request was left.
        """
        data = self.take_buffered()
        if data or self.ended:
            await trio.lowlevel.checkpoint()
            return data
        connection = self._call.connection
        while not (data or self.ended):
            connection.read_due = trio.current_time() + self._call.limits.read_timeout
            await connection.receive()
            connection.read_due = math.inf  # no deadline runs while the user does not read
            data = self.take_buffered()
        return data


@attrs.define(eq=False)
class UpstreamCall:
    """The context manager that `UpstreamClient.request` returns."""

    _pool: UpstreamPool
    _nursery: trio.Nursery
    _request: Request
    _body: UpstreamBody
    _tenant: Hashable
    _upgrade: bytes  # the protocol to switch to; empty for none
    _on_sent: Callable[[], None] | None
    _connection: UpstreamConnection | None = None  # until it is given back or closed
    _upload: Upload | None = None
    _entered: bool = False
    _response: UpstreamResponse | None = None  # inside the block

    @property
    def connection(self) -> UpstreamConnection:
        """The connection in use."""
        if self._connection is None:
            raise trio.ClosedResourceError("the block of this request has ended")
        return self._connection

    @property
    def limits(self) -> UpstreamLimits:
        """The client's limits."""
        return self._pool.limits

    async def __aenter__(self) -> UpstreamResponse:
        if self._entered:
            raise RuntimeError("the request was sent: call `request` for each `async with`")
        self._entered = True
        if self._body is not None:
            await self._prepare_body(self._body)
        connection = self._connection = await self._pool.take(self._tenant)
        try:
            try:
                head = await self._exchange_heads(connection)
            except UpstreamCut:
                if not self._may_repeat(connection):
                    raise
                connection = self._connection = await self._pool.reopen(connection)
                head = await self._exchange_heads(connection)
        except BaseException:
            await self._discard()  # noqa: ASYNC102 -- closes at once, also when cancelled
            raise
        connection.read_due = math.inf
        if self._upload is not None and not self._upload.complete:
            connection.not_reusable = True  # the upstream may take the rest for a request
            self._upload.answered = True
            if head.status >= 300:
                self._upload.stop()  # the rest is not wanted (RFC 9112 section 9.5)
        self._response = UpstreamResponse(self, head)
        return self._response

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the connection back or close it; only closing is a checkpoint."""
        # The response knows its call: without this every request would wait for the collector.
        response, self._response = self._response, None
        if self._connection is None:
            return
        if exc is None and response is not None and not response.ended:
            with suppress(UpstreamError):  # the response is no longer read
                response.take_buffered()  # the rest may be buffered
            response.ended = False  # that rest was not returned
        if self._connection is not None:
            await self._discard()  # noqa: ASYNC102 -- closes at once, also when cancelled

    async def _prepare_body(self, body: ReceivesBody | bytes) -> None:
        """Read a short body into bytes, so that it needs no task and can be sent again.

        A slow sender then does not occupy a connection either. Not with Expect, where the upstream
        is asked before the body is read.
        """
        headers = self._request.headers
        content_length = get_header(headers, b"content-length")
        expects = get_header(headers, b"expect") is not None
        if isinstance(body, bytes):
            if content_length is None:
                headers = (*headers, (b"content-length", b"%d" % len(body)))
                self._request = attrs.evolve(self._request, headers=headers)
            if len(body) > _MAX_SHORT_BODY or expects:
                self._body = BytesBody(body)
        elif content_length is not None and content_length.isdigit() and not expects:
            expected = int(content_length)
            if expected <= _MAX_SHORT_BODY:
                self._body = await read_whole(body, expected)

    async def _exchange_heads(self, connection: UpstreamConnection) -> ResponseHead:
        """Send the request or its first part; return the head of the final response."""
        body = self._body
        data = connection.wire.send_head(self._request, body=bool(body), upgrade=self._upgrade)
        if body is None or isinstance(body, bytes):
            if body:
                data += connection.wire.send_data(body)
            data += connection.wire.send_end()
            body = None
        if not connection.reused and connection.has_unsolicited_data:
            connection.not_reusable = True  # the response may not belong to this request
        connection.read_due = trio.current_time() + self.limits.head_timeout
        try:
            await connection.send_head(data)
        except UpstreamCut:
            await connection.receive()  # it may have responded before it closed
        if body is not None:
            connection.read_due = math.inf
            waits = get_header(self._request.headers, b"expect") is not None
            self._upload = Upload(connection, body, self.limits, waits, self._on_sent)
            self._nursery.start_soon(self._upload.run)
        elif self._on_sent is not None:
            self._on_sent()
        return await self._receive_head(connection)

    async def _receive_head(self, connection: UpstreamConnection) -> ResponseHead:
        interims = 0
        while True:
            event = connection.next_event()
            if event is None:
                await connection.receive()
                continue
            if not isinstance(event, ResponseHead):
                raise AssertionError(event)
            if event.status >= 200 or event.status == 101:
                return event
            if event.status == 100 and self._upload is not None:
                self._upload.send_now()
            interims += 1
            if interims > _MAX_INTERIM_RESPONSES:
                raise UpstreamProtocolError(
                    f"the upstream sent more than {_MAX_INTERIM_RESPONSES} interim responses"
                )

    def _may_repeat(self, connection: UpstreamConnection) -> bool:
        return (
            connection.reused
            and not connection.response_begun
            and connection.failure is None
            and self._upload is None
            and self._request.method in _IDEMPOTENT
        )

    def response_ended(self) -> None:
        """Give the connection back if it can carry another request."""
        connection = self.connection
        if self._upload is not None:
            self._upload.stop()
        if self._pool.keep(connection):
            self._connection = None

    async def _discard(self) -> None:
        connection, self._connection = self.connection, None
        try:
            if self._upload is not None:
                await self._upload.wait_stopped()
        finally:
            await self._pool.discard(connection)  # noqa: ASYNC102 -- as above
