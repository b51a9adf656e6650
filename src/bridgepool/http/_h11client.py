"""The client's wire with h11 as the judge of heads; see `h11server` for who does what."""

import attrs
import h11

from bridgepool.http._errors import LocalProtocolError, NotSupported, RemoteProtocolError
from bridgepool.http._fields import AboutMessage, check_fields_to_send, read_about
from bridgepool.http._framing import (
    BodyReader,
    BodyWriter,
    ReadChunks,
    ReadLength,
    ReceiveBuffer,
    WriteChunks,
    WriteLength,
    read_nothing,
    read_until_close,
    writing,
)
from bridgepool.http._heads import join_fields, join_request_line, parse_response_head
from bridgepool.http._limits import MessageLimits
from bridgepool.http._messages import EndOfMessage, Headers, Request, ResponseHead


@attrs.define(eq=False)
class H11ClientWire:
    """A `ClientWire` with h11 as the judge of heads."""

    _limits: MessageLimits
    _buffer: ReceiveBuffer = attrs.field(factory=ReceiveBuffer)
    _request: Request | None = None  # the request in hand
    _reader: BodyReader | None = None  # of the final response's body, until its end
    _writer: BodyWriter | None = None  # of the request's body, until its end
    _answered: bool = False  # the final response's head has come
    _keep_alive: bool = True

    @property
    def buffered(self) -> int:
        """See `ClientWire`."""
        return len(self._buffer)

    @property
    def reusable(self) -> bool:
        """See `ClientWire`."""
        if self._buffer or self._buffer.ended or not self._keep_alive:
            return False
        done = self._answered and self._reader is None and self._writer is None
        return done or self._request is None

    @property
    def framed_by_close(self) -> bool:
        """See `ClientWire`."""
        return self._reader is read_until_close

    def send_head(self, request: Request, *, body: bool) -> bytes:
        """See `ClientWire`."""
        if self._request is not None:
            raise LocalProtocolError("a request is in hand already")
        length, close = check_fields_to_send(request.headers)
        headers = request.headers
        if length is not None:
            writer: BodyWriter = WriteLength(length)
            if length and not body:
                raise LocalProtocolError("a content-length, but no body")
        elif body:
            writer, headers = WriteChunks(), (*headers, (b"transfer-encoding", b"chunked"))
        else:
            writer = WriteLength(0)
        raw = join_request_line(request.method, request.target) + join_fields(headers)
        self._request, self._writer = request, writer
        self._keep_alive = not close
        return raw

    def send_data(self, data: bytes) -> bytes:
        """See `ClientWire`."""
        return writing(self._writer).data(data)

    def send_end(self, trailers: Headers = ()) -> bytes:
        """See `ClientWire`."""
        raw = writing(self._writer).end(trailers)
        self._writer = None
        return raw

    def receive_data(self, data: bytes) -> None:
        """See `ClientWire`."""
        self._buffer.feed(data)

    def next_event(self) -> ResponseHead | bytes | EndOfMessage | None:
        """See `ClientWire`."""
        if self._reader is not None:
            event = self._reader(self._buffer)
            if type(event) is EndOfMessage:
                self._reader = None
            return event
        return None if self._answered or self._request is None else self._next_head(self._request)

    def _next_head(self, request: Request) -> ResponseHead | None:
        buffer = self._buffer
        end = buffer.find_head(self._limits)
        if end < 0:
            if buffer.ended:
                raise RemoteProtocolError("the connection ended before the response")
            return None
        head = parse_response_head(buffer.data[buffer.start : end], self._limits)
        about = read_about(head.headers, head.http_version)
        _judge(head, about.telling)
        if head.status >= 200:
            self._reader = _reader_for(request.method, head.status, about, self._limits)
            stays = head.http_version == b"1.1" or about.keep_alive
            framed = self._reader is not read_until_close
            self._keep_alive = self._keep_alive and framed and stays and not about.close
            self._answered = True
        elif head.status == 101:
            raise NotSupported("the protocol was switched, which nobody had asked for")
        buffer.start = end
        return head

    def start_next(self) -> None:
        """See `ClientWire`."""
        if not self.reusable:
            raise LocalProtocolError("the connection cannot carry another request now")
        self._request, self._answered = None, False


def _judge(head: ResponseHead, telling: Headers) -> None:
    kind = h11.Response if head.status >= 200 else h11.InformationalResponse
    try:
        kind(
            status_code=head.status,
            reason=head.reason,
            headers=list(telling),
            http_version=head.http_version,
        )
    except h11.LocalProtocolError as error:
        raise RemoteProtocolError(str(error)) from error


def _reader_for(
    method: bytes, status: int, about: AboutMessage, limits: MessageLimits
) -> BodyReader:
    if method == b"HEAD" or status in (204, 304):
        return read_nothing
    if about.chunked:
        return ReadChunks(limits)
    if about.length is None:
        return read_until_close
    return ReadLength(about.length)
