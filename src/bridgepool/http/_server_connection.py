"""The requests of one server connection, one after another, and the outcome of each.

A connection takes a head from the wire, runs the handler on it, and only then looks at the next
one, which keeps pipelined responses in order. It is the port of its exchanges. Whatever a handler
does, the client can see the outcome: a complete response, or one that was cut.
"""

import logging
import math

import attrs
import trio

from bridgepool._errors import BridgePoolError, innermost
from bridgepool._refusal_log import RefusalLog
from bridgepool.http._errors import LocalProtocolError, RemoteProtocolError, RequestTimeout
from bridgepool.http._exchange import Exchange, Handler, RequestBody
from bridgepool.http._invalid_request import (
    AnswerInvalid,
    InvalidRequest,
    read_invalid_request,
)
from bridgepool.http._limits import HttpLimits
from bridgepool.http._messages import EndOfMessage, Headers, Request, get_header
from bridgepool.http._server_stream import ServerStream
from bridgepool.http._upgraded_streams import UpgradedServerStream
from bridgepool.http._wire import ServerWire

_log = logging.getLogger("bridgepool.http")
_FINAL_REQUEST_GRACE = 0.5  # seconds for a request that was sent before the server began to close
_RESERVED_TIMEOUT = 2.0  # seconds for the request of a connection over a limit
_DISCARD_TIMEOUT = 2.0  # seconds for the rest of a body that the handler did not read
_PLAIN_TEXT = (b"content-type", b"text/plain; charset=utf-8")


def plain_text(text: str) -> tuple[Headers, bytes]:
    """Return headers and body of a response in plain text."""
    return (_PLAIN_TEXT,), text.encode() + b"\n"


def answer_invalid_in_text(invalid: InvalidRequest) -> tuple[Headers, bytes]:
    """Say what is wrong in plain text; the default of `serve_http`."""
    return plain_text(str(invalid.error))


@attrs.define
class HttpCounters:
    """Counters of servers: pass one to `serve_http`, and read it at any time."""

    connections: int = 0
    """Connections accepted."""
    connections_refused: int = 0
    """Connections over a limit of the `ConnectionLimiter`."""
    requests: int = 0
    """Requests passed to the handler."""
    refused: int = 0
    """Requests refused with an error status because they are not acceptable HTTP."""
    clients_left: int = 0
    """Exchanges whose client disconnected before their end."""
    handler_errors: int = 0
    """Handlers that raised, or returned without responding."""
    responses_cut: int = 0
    """Responses that were begun but not completed although the client was connected."""


@attrs.define(eq=False)
class ServerState:
    """What the connections of a server share."""

    handler: Handler
    over_limit: Handler
    answer_invalid: AnswerInvalid
    limits: HttpLimits
    counters: HttpCounters
    half_close: bool
    announced: bool = False  # each response is the last of its connection
    closing: bool = False  # connections end after their current exchange
    date: bytes = b""  # the value of Date, updated by the timekeeper
    refusals: dict[int, RefusalLog] = attrs.field(factory=dict)  # by status

    def note_refusal(self, error: RemoteProtocolError, client: str) -> None:
        """Count a request that is not acceptable, and log it at most once a minute a status."""
        self.counters.refused += 1
        log = self.refusals.setdefault(error.status_hint, RefusalLog(_log))
        log.info(trio.current_time(), "request refused: %s", error, client=client)


@attrs.define(eq=False)
class ServerConnection:
    """One connection of a server."""

    server: ServerState
    stream: ServerStream
    wire: ServerWire
    client: str
    scheme: str
    reserved: bool  # it is over a limit: one request, soon
    responded: bool = False  # the final response of the current exchange was begun
    finished: bool = False  # and completed
    was_cut: bool = False  # the connection must end with an incomplete response
    _is_new: bool = True  # no request was received yet
    # when it ends, unless its client is authenticated by then
    _authenticate_until: float = attrs.field(init=False)
    _body_ended: bool = False  # the current request was read to its end
    _body_bytes: int = 0  # of its body, received
    _body_time: float = 0.0  # seconds waited for them

    def __attrs_post_init__(self) -> None:
        seconds = self.server.limits.unauthenticated_timeout
        self._authenticate_until = trio.current_time() + seconds

    async def serve_requests(self) -> None:
        """Serve requests until the connection cannot carry another."""
        try:
            while (request := await self._next_request()) is not None:
                await self._exchange(request)
                if not await self._prepare_for_next():
                    break
                self.wire.start_next()
            return
        except RemoteProtocolError as error:
            await self._reject(error)
        await self.stream.linger()  # without the error, whose frames hold the head

    async def _next_request(self) -> Request | None:
        """Wait for the next request; None if there will be none."""
        wire, stream, limits = self.wire, self.stream, self.server.limits
        begun = math.inf  # when the first byte of its head was received
        grace_left = True
        seconds = limits.header_timeout if self._is_new else limits.idle_timeout
        if self.reserved:
            seconds = min(seconds, _RESERVED_TIMEOUT)
        deadline = min(trio.current_time() + seconds, self._authenticate_until)
        while True:
            event = wire.next_event()
            if isinstance(event, Request):
                return event
            if stream.ended:
                return None
            rate_deadline = math.inf
            if wire.buffered:
                if begun == math.inf:
                    begun = trio.current_time()
                    if not self._is_new:
                        deadline = min(begun + limits.header_timeout, self._authenticate_until)
                rate_deadline = begun + limits.slowest(wire.buffered)
            elif self.server.closing:
                if not grace_left:
                    return None
                grace_left = False
                deadline = min(deadline, trio.current_time() + _FINAL_REQUEST_GRACE)
            if not await stream.wait_received(min(deadline, rate_deadline)):
                if wire.buffered:
                    raise RequestTimeout("the head of the request was not received in time")
                return None

    async def _exchange(self, request: Request) -> None:
        """Run the handler on one request."""
        self._is_new = self.responded = self.finished = self._body_ended = False
        self._body_bytes, self._body_time = 0, 0.0
        stream = self.stream
        stream.response_pending, stream.head_pieces = True, 0
        if stream.ended and not stream.half_close:
            stream.disconnect()
            await trio.lowlevel.checkpoint()
        self.server.counters.requests += 1
        body = RequestBody(self, self._take_end(), self.wire.body_error)
        exchange = Exchange(request, self.client, self.scheme, body, self)
        try:
            handler = self.server.over_limit if self.reserved else self.server.handler
            await handler(exchange)
            if not self.responded:
                raise LocalProtocolError("the handler returned without a response")
        except Exception as error:
            await self._handle_failure(error, exchange)
        except BaseExceptionGroup as group:  # from a nursery that was cancelled
            cancelled, errors = group.split(trio.Cancelled)
            try:
                if cancelled is not None and isinstance(errors, ExceptionGroup):
                    self._report_failure(errors, exchange)
                    raise cancelled from None
                raise
            finally:
                del cancelled, errors  # their tracebacks refer to this frame
        finally:
            exchange._end()
        self.was_cut = self.was_cut or stream.send_incomplete or not self.finished
        stream.response_pending = False

    async def _prepare_for_next(self) -> bool:
        """Discard the rest of the request; return whether another can follow."""
        if self.was_cut:
            return False
        if not self.wire.keep_alive:
            if self.wire.buffered or not self._body_ended:
                await self.stream.linger()
            return False
        if self._body_ended or await self._discard_body():
            return True
        await self.stream.linger()
        return False

    async def _discard_body(self) -> bool:
        """Read the rest of the body; return False if it is too long or too slow."""
        room = self.server.limits.read_ahead_bytes
        deadline = trio.current_time() + _DISCARD_TIMEOUT
        while room > 0:
            try:
                event = self.wire.next_event()
            except RemoteProtocolError:
                return False
            if isinstance(event, EndOfMessage):
                return True
            if isinstance(event, bytes):
                room -= len(event)
                self.stream.resume_reading()
            elif not await self.stream.wait_received(deadline):
                return False
        return False

    async def _handle_failure(self, error: Exception, exchange: Exchange) -> None:
        """Log and count an exception of the handler, and respond if the handler has not."""
        cause = _protocol_error_in(error)
        if self.stream.disconnected:  # a shielded handler met the disconnect
            _log.debug("handler ended by the client's disconnect", exc_info=error)
            return
        if cause is not None:
            self.server.note_refusal(cause, self.client)
        else:
            self._report_failure(error, exchange)
        if self.responded or self.stream.send_incomplete:
            self.was_cut = True
        elif cause is not None:
            await self._send_text(cause.status_hint, str(cause), close=True)
        else:
            status = error.status_hint if isinstance(error, BridgePoolError) else 500
            await self._send_text(status, "the request could not be served", close=False)

    def _report_failure(self, error: Exception, exchange: Exchange) -> None:
        self.server.counters.handler_errors += 1
        # Not the target: its query, or by mistake its path, may contain a key.
        fields = {"client": self.client, **exchange.log_fields}
        _log.error("handler failed", exc_info=error, extra=fields)

    async def _reject(self, error: RemoteProtocolError) -> None:
        """Respond to input that is not an acceptable request."""
        self.responded = False
        self.server.note_refusal(error, self.client)
        invalid = read_invalid_request(error, self.client, self.wire.received_head)
        headers, body = self.server.answer_invalid(invalid)
        await self._send_whole(error.status_hint, headers, body, close=True)

    async def _send_text(self, status: int, text: str, *, close: bool) -> None:
        await self._send_whole(status, *plain_text(text), close=close)

    async def _send_whole(self, status: int, headers: Headers, body: bytes, *, close: bool) -> None:
        headers = (*headers, (b"content-length", b"%d" % len(body)))
        if close:
            headers = (*headers, (b"connection", b"close"))
        await self.send_head(status, headers, b"", body, finish=True)

    # The methods of `ExchangePort`

    def take_buffered(self) -> tuple[bytes, EndOfMessage | None]:
        """See `ExchangePort`."""
        event = self.wire.next_event()
        if event is None:
            return b"", None
        self.stream.resume_reading()
        if isinstance(event, EndOfMessage):
            self._body_ended = True
            return b"", event
        if isinstance(event, Request):
            raise AssertionError("a request inside a body")
        self._body_bytes += len(event)
        return event, self._take_end()

    async def receive_some(self) -> tuple[bytes, EndOfMessage | None]:
        """See `ExchangePort`."""
        wire = self.wire
        await trio.lowlevel.checkpoint()  # before the read: a piece that was taken must not be lost
        while True:
            piece, end = self.take_buffered()
            if piece or end is not None:
                return piece, end
            if wire.expects_continue:
                await self.stream.send_interim(wire.send_interim(100))
            else:
                await self._wait_body()

    async def _wait_body(self) -> None:
        """Wait for more of the body, for as long as the limits leave."""
        limits, begun = self.server.limits, trio.current_time()
        left = min(limits.max_body_time, limits.slowest(self._body_bytes)) - self._body_time
        if not await self.stream.wait_received(begun + min(limits.body_timeout, left)):
            raise RequestTimeout("the body of the request was not received in time")
        self._body_time += trio.current_time() - begun

    def _take_end(self) -> EndOfMessage | None:
        end = self.wire.take_end()
        self._body_ended = end is not None
        return end

    async def send_interim(self, status: int, headers: Headers) -> None:
        """See `ExchangePort`."""
        await self.stream.send_interim(self.wire.send_interim(status, headers))

    async def send_head(
        self, status: int, headers: Headers, reason: bytes, data: bytes, *, finish: bool
    ) -> None:
        """See `ExchangePort`."""
        wire = self.wire
        if get_header(headers, b"date") is None:
            headers = (*headers, (b"date", self.server.date))
        close = self.server.announced or self.server.closing or self.reserved
        raw = wire.send_head(status, headers, reason=reason, close=close)
        self.responded = True
        if data:
            raw += wire.send_data(data)
        if finish:
            raw += wire.send_end()
        await (self._send_last if finish or wire.body_sent else self.stream.send)(raw)
        self.finished = finish

    async def upgrade(self, headers: Headers) -> trio.abc.Stream:
        """See `ExchangePort`."""
        raw = self.wire.send_upgrade(headers)
        self.responded = self._body_ended = True
        await self._send_last(raw)
        self.finished = self.stream.upgraded = True
        return UpgradedServerStream(self.stream)

    async def send_data(self, data: bytes) -> None:
        """See `ExchangePort`."""
        raw = self.wire.send_data(data)
        await (self._send_last if self.wire.body_sent else self.stream.send)(raw)

    async def send_end(self, trailers: Headers) -> None:
        """See `ExchangePort`."""
        raw = self.wire.send_end(trailers)
        if raw:
            await self._send_last(raw)
        else:
            self.stream.response_pending = False  # the client may leave; it has all bytes
            await trio.lowlevel.checkpoint()
        self.finished = True

    async def _send_last(self, raw: bytes) -> None:
        """Send the last bytes of a response.

        Once the client has them, it may leave, also before this side sees that they were sent. So
        its disconnect matters to the handler no more, unless the send fails.
        """
        pending = self.stream.response_pending
        self.stream.response_pending = False
        try:
            await self.stream.send(raw)
        except BaseException:
            self.stream.response_pending = pending
            raise

    @property
    def disconnected(self) -> bool:
        """See `ExchangePort`."""
        return self.stream.disconnected

    def authenticated(self) -> None:
        """See `ExchangePort`."""
        self._authenticate_until = math.inf

    def cut(self) -> None:
        """See `ExchangePort`."""
        self.was_cut = True

    def cancel(self) -> None:
        """See `ExchangePort`."""
        self.stream.scope.cancel()


def _protocol_error_in(error: Exception) -> RemoteProtocolError | None:
    """Return the client's protocol error that a handler raised, also from within a nursery."""
    only = innermost(error)
    return only if isinstance(only, RemoteProtocolError) else None
