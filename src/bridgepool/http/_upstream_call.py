"""One request to an upstream, and its response.

Theory of operation. A call takes a link, sends its request and reads until the head of the
final response. From then on the response is read by its user. The link goes back to the pool
in the very step in which the response's end is read, if by then the request has been sent
completely; otherwise it stays with the call, and leaving the call closes it.

Most bodies are short, and go out with the head in one write and no task. A long one, and one
whose length is unknown, is sent by a task in the client's nursery while the call reads, so
that an early answer is seen at once. That task never raises: what goes wrong with the body is
left in the link's `failure` for the reader, and a link that takes no more is only `spoiled`:
its upstream may have answered before it closed.
"""

import math
from contextlib import suppress
from types import TracebackType

import attrs
import trio

from bridgepool.http._errors import UpstreamCut, UpstreamError, UpstreamProtocolError
from bridgepool.http._messages import EndOfMessage, Headers, Request, ResponseHead, get_header
from bridgepool.http._upstream_link import UpstreamLink
from bridgepool.http._upstream_links import LinkKeeper, UpstreamLimits
from bridgepool.http._upstream_upload import Pieces, ReceivesBody, Upload, UpstreamBody

# RFC 9110 section 9.2.2: asking twice has the effect of asking once.
_IDEMPOTENT = frozenset((b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE"))
_SHORT = 65536  # bytes of a body that are sent with the head; a socket takes them unread
_MAX_INTERIMS = 16  # 1xx responses to one request


@attrs.define(eq=False)
class UpstreamResponse:
    """The response to a request: its head is here, its body is to be read."""

    _call: "UpstreamCall"
    _head: ResponseHead
    ended: bool = False
    """Whether the whole body has been given out; then `trailers` are there."""
    trailers: Headers = ()
    """The fields after a chunked body."""

    @property
    def status(self) -> int:
        """Three digits, 200 or above."""
        return self._head.status

    @property
    def reason(self) -> bytes:
        """The phrase beside the status, possibly empty."""
        return self._head.reason

    @property
    def headers(self) -> Headers:
        """All fields, also those about the connection: `forward_response_headers` sorts them."""
        return self._head.headers

    def take_buffered(self) -> bytes:
        """Return what has come in of the body by now, b"" for nothing; never waits.

        After the head this gives what came in one piece with it, so that a proxy can answer
        in a single write; `ended` then tells whether that was all.

        Raises:
            UpstreamCut: The connection has ended in the middle.
            UpstreamProtocolError: What came is not HTTP as we take it.
        """
        pieces: list[bytes] = []
        while not self.ended:
            try:
                event = self._call.link.next_event()
            except UpstreamError:
                if not pieces:
                    raise
                break  # first what was good; the wire says it again next time
            if isinstance(event, bytes):
                pieces.append(event)
            elif isinstance(event, EndOfMessage):
                self.ended, self.trailers = True, event.trailers
                self._call.response_ended()
            else:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    async def receive_some(self) -> bytes:
        """Return the next piece of the body as soon as there is one, b"" at its end.

        All that has come in since the last call is given at once. When `ended` is set there
        is no need to ask again.

        Raises:
            UpstreamCut: The connection ended before the body was complete.
            UpstreamProtocolError: What came is not HTTP as we take it.
            UpstreamTimeout: Nothing came for `read_timeout`.
            trio.ClosedResourceError: The client was closed.
        """
        data = self.take_buffered()
        if data or self.ended:
            await trio.lowlevel.checkpoint()
            return data
        link = self._call.link
        while not (data or self.ended):
            link.read_due = trio.current_time() + self._call.limits.read_timeout
            await link.fill()
            link.read_due = math.inf  # while our user is busy, nothing is late
            data = self.take_buffered()
        return data


@attrs.define(eq=False)
class UpstreamCall:
    """A request as an async context manager; made by `UpstreamClient.request`."""

    _keeper: LinkKeeper
    _nursery: trio.Nursery
    _request: Request
    _body: UpstreamBody
    _link: UpstreamLink | None = None  # while it is ours to give back or to close
    _upload: Upload | None = None
    _response: UpstreamResponse | None = None

    @property
    def link(self) -> UpstreamLink:
        """The link in use."""
        if self._link is None:
            raise trio.ClosedResourceError("this response has been left")
        return self._link

    @property
    def limits(self) -> UpstreamLimits:
        """The client's limits."""
        return self._keeper.limits

    async def __aenter__(self) -> UpstreamResponse:
        if self._body is not None:
            await self._prepare_body(self._body)
        link = self._link = await self._keeper.take()
        try:
            try:
                head = await self._exchange_heads(link)
            except UpstreamCut:
                if not self._may_repeat(link):
                    raise
                link = self._link = await self._keeper.reopen(link)
                head = await self._exchange_heads(link)
        except BaseException:
            await self._discard()  # noqa: ASYNC102 -- closes at once, also when cancelled
            raise
        link.read_due = math.inf
        if self._upload is not None and head.status >= 300:
            self._upload.stop()  # it does not want the rest (RFC 9112 section 9.5)
        self._response = UpstreamResponse(self, head)
        return self._response

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Give the link back or close it; a checkpoint only when it is closed."""
        if self._link is None:
            return
        if exc is None and self._response is not None and not self._response.ended:
            with suppress(UpstreamError):  # nobody reads this response any more
                self._response.take_buffered()  # perhaps all that is left has come already
        if self._link is not None:
            await self._discard()  # noqa: ASYNC102 -- closes at once, also when cancelled

    async def _prepare_body(self, body: ReceivesBody | bytes) -> None:
        """Turn a short body into bytes, so that it needs no task and can be sent again.

        A slow sender then does not keep a link busy either. Not with Expect: there the
        upstream is to be asked before the body is.
        """
        headers = self._request.headers
        told = get_header(headers, b"content-length")
        if isinstance(body, bytes):
            if told is None:
                length = b"%d" % len(body)
                self._request = attrs.evolve(
                    self._request, headers=(*headers, (b"content-length", length))
                )
            if len(body) > _SHORT or get_header(headers, b"expect") is not None:
                self._body = Pieces(body)
        elif told is not None and told.isdigit() and get_header(headers, b"expect") is None:
            length_told = int(told)
            if length_told <= _SHORT:
                self._body = await _read_whole(body, length_told)

    async def _exchange_heads(self, link: UpstreamLink) -> ResponseHead:
        """Send the request, or begin to; return the head of the final response."""
        body = self._body
        data = link.wire.send_head(self._request, body=bool(body))
        if body is None or isinstance(body, bytes):
            if body:
                data += link.wire.send_data(body)
            data += link.wire.send_end()
            body = None
        if not link.used and link.spoke_first:
            link.spoiled = True  # its answer may be to nothing that we ask
        link.read_due = trio.current_time() + self.limits.head_timeout
        try:
            await link.send_first(data)
        except UpstreamCut:
            await link.fill()  # it may have answered before it closed
        if body is not None:
            link.read_due = math.inf
            waits = get_header(self._request.headers, b"expect") is not None
            self._upload = Upload(link, body, self.limits, waits)
            self._nursery.start_soon(self._upload.run)
        return await self._receive_head(link)

    async def _receive_head(self, link: UpstreamLink) -> ResponseHead:
        interims = 0
        while True:
            event = link.next_event()
            if event is None:
                await link.fill()
                continue
            if not isinstance(event, ResponseHead):
                raise AssertionError(event)
            if event.status >= 200:
                return event
            if event.status == 100 and self._upload is not None:
                self._upload.go_ahead()
            interims += 1
            if interims > _MAX_INTERIMS:
                raise UpstreamProtocolError("the upstream sends interim responses without end")

    def _may_repeat(self, link: UpstreamLink) -> bool:
        return (
            link.used
            and not link.heard
            and link.failure is None
            and self._upload is None
            and self._request.method in _IDEMPOTENT
        )

    def response_ended(self) -> None:
        """Give the link back, if it can carry another request."""
        link = self.link
        if self._upload is not None:
            self._upload.stop()
        if self._keeper.keep(link):
            self._link = None

    async def _discard(self) -> None:
        link, self._link = self.link, None
        try:
            if self._upload is not None:
                await self._upload.wait_stopped()
        finally:
            await self._keeper.discard(link)  # noqa: ASYNC102 -- as above


async def _read_whole(body: ReceivesBody, length: int) -> bytes:
    """Read a body of known length; reading on past it is left to its owner."""
    data = b""
    while len(data) < length:
        piece = await body.receive_some()
        if not piece:
            break  # the wire will say that it is short
        data += piece
    return data
