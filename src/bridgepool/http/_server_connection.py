"""The requests of one server connection, one after another, and what becomes of each.

The conversation takes a head from the wire, runs the handler on it, and only then looks at
the next, which keeps pipelined answers in order. It is the port of its exchanges. Whatever a
handler does, the connection ends in a state that the client can tell: answered, or cut.
"""

import logging

import attrs
import trio

from bridgepool._errors import BridgePoolError
from bridgepool.http._errors import LocalProtocolError, RemoteProtocolError, RequestTimeout
from bridgepool.http._exchange import Exchange, Handler, RequestBody
from bridgepool.http._limits import HttpLimits
from bridgepool.http._messages import EndOfMessage, Headers, Request, get_header
from bridgepool.http._server_stream import Link
from bridgepool.http._wire import ServerWire

_log = logging.getLogger("bridgepool.http")
_LAST_CHANCE = 0.5  # seconds for a request that is on its way as the server closes
_UNREAD_WAIT = 2.0  # seconds for the rest of a body that the handler did not want
_TEXT = (b"content-type", b"text/plain; charset=utf-8")


@attrs.define
class HttpCounters:
    """What servers have done so far; give one to `serve_http` and read it at any time."""

    connections: int = 0
    """Connections accepted."""
    connections_refused: int = 0
    """Those of them that were sent away, since `HttpLimits.max_connections` were served."""
    requests: int = 0
    """Requests handed to the handler."""
    refused: int = 0
    """Requests answered for the handler, since they are none that we take."""
    clients_left: int = 0
    """Exchanges whose client was gone before their end."""
    handler_errors: int = 0
    """Handlers that raised, or returned without a response."""
    responses_cut: int = 0
    """Responses that were begun and not ended, while the client was there."""


@attrs.define(eq=False)
class Service:
    """What all connections of a server have in common."""

    handler: Handler
    limits: HttpLimits
    counters: HttpCounters
    half_close: bool
    closing: bool = False  # connections end with the exchange that they are at
    date: bytes = b""  # for Date, kept by the clock


@attrs.define(eq=False)
class Conversation:
    """One connection's requests; `run` is its life."""

    service: Service
    link: Link
    wire: ServerWire
    client: str
    scheme: str
    responded: bool = False  # the final response of this exchange was begun
    finished: bool = False  # and ended
    was_cut: bool = False  # the connection must end without an end of the response
    _fresh: bool = True  # no request has come yet
    _body_ended: bool = False  # the request of this exchange was read to its end

    async def run(self) -> None:
        """Serve requests until the connection can carry no more."""
        try:
            while (request := await self._next_request()) is not None:
                await self._exchange(request)
                if not await self._can_go_on():
                    break
                self.wire.start_next()
        except RemoteProtocolError as error:
            await self._refuse(error)
            await self.link.linger()

    async def _next_request(self) -> Request | None:
        """Wait for a request; None when none will come."""
        wire, link, limits = self.wire, self.link, self.service.limits
        begun, last_chance = self._fresh, True
        until = trio.current_time() + (limits.header_timeout if begun else limits.idle_timeout)
        while True:
            event = wire.next_event()
            if isinstance(event, Request):
                return event
            if link.ended:
                return None
            if wire.buffered:
                if not begun:
                    begun = True
                    until = trio.current_time() + limits.header_timeout
            elif self.service.closing:
                if not last_chance:
                    return None
                last_chance = False
                until = min(until, trio.current_time() + _LAST_CHANCE)
            if not await link.wait_read(until):
                if wire.buffered:
                    raise RequestTimeout("the head of the request did not come in time")
                return None

    async def _exchange(self, request: Request) -> None:
        """Run the handler on one request."""
        self._fresh = self.responded = self.finished = self._body_ended = False
        link = self.link
        link.watched = True
        if link.ended and not link.half_close:
            link.leave()
            await trio.lowlevel.checkpoint()
        self.service.counters.requests += 1
        try:
            body = RequestBody(self, self._take_end())
            await self.service.handler(Exchange(request, self.client, self.scheme, body, self))
            if not self.responded:
                raise LocalProtocolError("the handler returned without a response")
        except Exception as error:
            await self._failed(error)
        except BaseExceptionGroup as group:  # of a nursery that was cancelled
            cancelled, errors = group.split(trio.Cancelled)
            if cancelled is not None and isinstance(errors, ExceptionGroup):
                self._report(errors)
                raise cancelled from None
            raise
        self.was_cut = self.was_cut or link.torn or not self.finished
        link.watched = False

    async def _can_go_on(self) -> bool:
        """Get past what is left of the request; tell whether another can follow."""
        if self.was_cut:
            return False
        if not self.wire.keep_alive:
            if self.wire.buffered or not self._body_ended:
                await self.link.linger()
            return False
        if self._body_ended or await self._discard_body():
            return True
        await self.link.linger()
        return False

    async def _discard_body(self) -> bool:
        """Read what the handler did not; tell whether the end was near enough."""
        room = self.service.limits.read_ahead_bytes
        until = trio.current_time() + _UNREAD_WAIT
        while room > 0:
            try:
                event = self.wire.next_event()
            except RemoteProtocolError:
                return False
            if isinstance(event, EndOfMessage):
                return True
            if isinstance(event, bytes):
                room -= len(event)
                self.link.used()
            elif not await self.link.wait_read(until):
                return False
        return False

    async def _failed(self, error: Exception) -> None:
        """Log and count what a handler raised, and answer in its place if it has not."""
        cause = _protocol_error_in(error)
        if self.link.gone:  # it was shielded, and what it met is that its client has left
            _log.debug("handler ended by its client's leaving", exc_info=error)
            return
        if cause is not None:
            self.service.counters.refused += 1
            _log.info("request refused: %s", cause, extra={"client": self.client})
        else:
            self._report(error)
        if self.responded or self.link.torn:
            self.was_cut = True
        elif cause is not None:
            await self._answer_for_handler(cause.status_hint, str(cause), close=True)
        else:
            status = error.status_hint if isinstance(error, BridgePoolError) else 500
            await self._answer_for_handler(status, "the request could not be served", close=False)

    def _report(self, error: Exception) -> None:
        self.service.counters.handler_errors += 1
        # Not the target: there may be a key in its query, or by mistake in its path.
        _log.error("handler failed", exc_info=error, extra={"client": self.client})

    async def _refuse(self, error: RemoteProtocolError) -> None:
        """Answer what is no request."""
        self.responded = False
        self.service.counters.refused += 1
        _log.info("request refused: %s", error, extra={"client": self.client})
        await self._answer_for_handler(error.status_hint, str(error), close=True)

    async def _answer_for_handler(self, status: int, text: str, *, close: bool) -> None:
        body = text.encode() + b"\n"
        headers: Headers = (_TEXT, (b"content-length", b"%d" % len(body)))
        if close:
            headers = (*headers, (b"connection", b"close"))
        await self.send_head(status, headers, b"", body, finish=True)

    # What an `ExchangePort` has to do

    async def receive_some(self) -> tuple[bytes, EndOfMessage | None]:
        """See `ExchangePort`."""
        wire, link = self.wire, self.link
        await trio.lowlevel.checkpoint()  # in front: once taken, a piece must not get lost
        while (event := wire.next_event()) is None:
            if wire.expects_continue:
                await link.send_aside(wire.send_interim(100))
                continue
            until = trio.current_time() + self.service.limits.body_timeout
            if not await link.wait_read(until):
                raise RequestTimeout("the body of the request did not come in time")
        link.used()
        if isinstance(event, EndOfMessage):
            self._body_ended = True
            return b"", event
        if isinstance(event, Request):
            raise AssertionError("a request inside a body")
        return event, self._take_end()

    def _take_end(self) -> EndOfMessage | None:
        end = self.wire.take_end()
        self._body_ended = end is not None
        return end

    async def send_interim(self, status: int, headers: Headers) -> None:
        """See `ExchangePort`."""
        await self.link.send_aside(self.wire.send_interim(status, headers))

    async def send_head(
        self, status: int, headers: Headers, reason: bytes, data: bytes, *, finish: bool
    ) -> None:
        """See `ExchangePort`."""
        wire = self.wire
        if get_header(headers, b"date") is None:
            headers = (*headers, (b"date", self.service.date))
        raw = wire.send_head(status, headers, reason=reason, close=self.service.closing)
        self.responded = True
        if data:
            raw += wire.send_data(data)
        if finish:
            raw += wire.send_end()
        await self.link.send(raw)
        if finish:
            self._finish()

    async def send_data(self, data: bytes) -> None:
        """See `ExchangePort`."""
        await self.link.send(self.wire.send_data(data))

    async def send_end(self, trailers: Headers) -> None:
        """See `ExchangePort`."""
        raw = self.wire.send_end(trailers)
        if raw:
            await self.link.send(raw)
        else:
            await trio.lowlevel.checkpoint()
        self._finish()

    def _finish(self) -> None:
        self.finished = True
        self.link.watched = False  # what the handler does from here on is its own business

    def cut(self) -> None:
        """See `ExchangePort`."""
        self.was_cut = True

    def cancel(self) -> None:
        """See `ExchangePort`."""
        self.link.scope.cancel()


def _protocol_error_in(error: Exception) -> RemoteProtocolError | None:
    """Return the client's fault that a handler let out, also from a nursery of its own."""
    while isinstance(error, ExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    return error if isinstance(error, RemoteProtocolError) else None
