"""The wires of a server and of a client, whose heads are checked by h11. Pure.

`_heads` checks the raw bytes of a head strictly and splits it, so input that h11 is too lax about
never reaches h11. (`_response_heads` first rewrites what is odd in a response.) The start line and
the fields that decide about framing, host and connection are then passed to h11's event classes:
whatever h11 rejects stays rejected. h11's `Connection` is not used. When receiving, it would parse
each head a second time (57 µs for a typical request; this takes 20 µs), and sending through it
costs as much again. The little state that it would keep is kept here: the progress of both
messages, and whether the connection can be used afterwards.

`_framing` splits bodies, `_body_writers` frames them, and `_heads` serializes heads. Property tests
compare all of this with an h11 `Connection` that does everything.
"""

import http

import attrs

from bridgepool.http._body_writers import (
    BodyWriter,
    WriteChunks,
    WriteLength,
    WriteNothing,
    WriteUntilClose,
    require_writer,
)
from bridgepool.http._errors import (
    BodyTooLarge,
    ExpectationFailed,
    HeadTooLarge,
    LocalProtocolError,
    NotSupported,
    RemoteProtocolError,
    TargetTooLong,
)
from bridgepool.http._framing import (
    BodyReader,
    ReadLength,
    ReceiveBuffer,
    check_fields_to_send,
    parse_framing,
    read_nothing,
    read_until_close,
    with_length,
    without_fields,
)
from bridgepool.http._h11_check import check_with_h11
from bridgepool.http._heads import (
    join_fields,
    join_request_line,
    join_status_line,
    parse_request_head,
)
from bridgepool.http._limits import MessageLimits
from bridgepool.http._messages import NO_TRAILERS, EndOfMessage, Headers, Request, ResponseHead
from bridgepool.http._origin_form import HOST, to_origin_form
from bridgepool.http._response_heads import find_response_head_end, read_response_head

_CLOSE = (b"connection", b"close")
_UPGRADE = (b"connection", b"upgrade")
_KEEP_ALIVE = (b"connection", b"keep-alive")
_REASONS = {int(status): status.phrase.encode() for status in http.HTTPStatus}
# RFC 9110 section 9.3: no other method gives a meaning to a body, and many servers read none.
_METHODS_WITH_BODY = frozenset((b"POST", b"PUT", b"PATCH"))


@attrs.define(eq=False)
class H11ServerWire:
    """A `ServerWire` whose heads are checked by h11."""

    _limits: MessageLimits
    _buffer: ReceiveBuffer = attrs.field(factory=ReceiveBuffer)
    _request: Request | None = None  # the current request
    _reader: BodyReader | None = None  # of its body, until its end is returned
    _writer: BodyWriter | None = None  # of the final response's body, until its end
    _responded: bool = False  # the final response's head was sent
    _keep_alive: bool = True
    _expects_continue: bool = False
    _too_large: str = ""  # why the current request's body is refused, known from its head

    @property
    def body_error(self) -> RemoteProtocolError | None:
        """See `ServerWire`."""
        return BodyTooLarge(self._too_large) if self._too_large else None

    @property
    def buffered(self) -> int:
        """See `ServerWire`."""
        return len(self._buffer)

    @property
    def keep_alive(self) -> bool:
        """See `ServerWire`."""
        return self._keep_alive

    @property
    def expects_continue(self) -> bool:
        """See `ServerWire`."""
        return self._expects_continue and not self._buffer

    @property
    def received_head(self) -> bytes:
        """See `ServerWire`."""
        return self._buffer.data[self._buffer.start :]

    @property
    def framed_by_close(self) -> bool:
        """See `ServerWire`."""
        return isinstance(self._writer, WriteUntilClose)

    @property
    def body_sent(self) -> bool:
        """See `ServerWire`."""
        writer = self._writer
        return isinstance(writer, WriteNothing) or (
            isinstance(writer, WriteLength) and not writer.remaining
        )

    def receive_data(self, data: bytes) -> None:
        """See `ServerWire`."""
        self._buffer.feed(data)

    def next_event(self) -> Request | bytes | EndOfMessage | None:
        """See `ServerWire`."""
        if self._request is None:
            return self._next_head()
        if self._too_large:
            raise BodyTooLarge(self._too_large)
        if self._reader is None:
            return None
        event = self._reader(self._buffer)
        if type(event) is EndOfMessage:
            self._reader = None
        return event

    def take_end(self) -> EndOfMessage | None:
        """See `ServerWire`."""
        reader = self._reader
        if reader is read_nothing or (isinstance(reader, ReadLength) and not reader.remaining):
            self._reader = None
            return NO_TRAILERS
        return None

    def _next_head(self) -> Request | None:
        buffer = self._buffer
        while buffer.data.startswith(b"\r\n", buffer.start):  # RFC 9112 section 2.2
            buffer.start += 2
        if not buffer or (len(buffer) == 1 and buffer.data.endswith(b"\r")):
            return None
        try:
            end = buffer.find_head(self._limits)
        except HeadTooLarge:
            if b"\r\n" not in buffer.data[buffer.start :]:
                raise TargetTooLong("the request line is too long") from None
            raise
        if end < 0:
            if buffer.ended:
                raise RemoteProtocolError("the connection ended before the head was complete")
            return None
        request = self._accept(buffer.data[buffer.start : end])
        buffer.start = end
        self._request = request
        return request

    def _accept(self, head: bytes) -> Request:
        request = parse_request_head(head, self._limits)
        version = request.http_version
        framing = parse_framing(request.headers, version)
        if len(framing.hosts) != 1 and (framing.hosts or version == b"1.1"):
            raise RemoteProtocolError("the request must have exactly one host field")
        if framing.hosts and HOST.fullmatch(framing.hosts[0]) is None:
            raise RemoteProtocolError("the host field is malformed")
        check_with_h11(request, framing.relevant)
        if not request.target.startswith(b"/") or b"#" in request.target:
            request = to_origin_form(request)
        if framing.expect not in (None, b"100-continue"):
            raise ExpectationFailed("the only supported expectation is 100-continue")
        self._keep_alive = not framing.close and (version == b"1.1" or framing.keep_alive)
        self._reader = framing.request_reader(self._limits)
        if framing.length is not None and framing.length > self._limits.max_body_bytes:
            self._too_large = f"the body is larger than {self._limits.max_body_bytes} bytes"
            self._keep_alive = False
        self._expects_continue = (
            framing.expect is not None and version == b"1.1" and self._reader is not read_nothing
        )
        return request

    def send_interim(self, status: int, headers: Headers = ()) -> bytes:
        """See `ServerWire`."""
        if not 100 <= status < 200 or status == 101:
            raise LocalProtocolError(f"{status} is not the status of an interim response")
        if self._responded or self._request is None:
            raise LocalProtocolError("there is no request to respond to")
        if self._request.http_version != b"1.1":
            return b""
        if status == 100:
            self._expects_continue = False
        return join_status_line(status, _reason(status)) + join_fields(headers)

    def send_head(
        self, status: int, headers: Headers, *, reason: bytes = b"", close: bool = False
    ) -> bytes:
        """See `ServerWire`."""
        if status < 200 or self._responded:
            raise LocalProtocolError("not a final response, or a second response")
        request = self._request
        length, says_close = check_fields_to_send(headers)
        bodiless = status in (204, 304) or (request is not None and request.method == b"HEAD")
        old = request is not None and request.http_version == b"1.0"
        extra: Headers = ()
        if status == 204 and length is not None:
            headers = without_fields(headers, b"content-length")
        else:
            headers = with_length(headers, length)
        if bodiless:
            writer: BodyWriter = WriteNothing()
        elif length is not None:
            writer = WriteLength(length)
        elif old:
            writer, close = WriteUntilClose(), True
        else:
            writer, extra = WriteChunks(), ((b"transfer-encoding", b"chunked"),)
        # No request can follow when none was parsed, or if its body may or may not follow.
        close = close or says_close or request is None or self._expects_continue
        self._keep_alive = self._keep_alive and not close
        if not self._keep_alive:
            headers, extra = without_fields(headers, b"connection"), (*extra, _CLOSE)
        elif old:
            extra = (_KEEP_ALIVE,)
        if status == 426:
            extra = (*extra, _UPGRADE)  # RFC 9110 section 7.8: it goes with the Upgrade field
        raw = join_status_line(status, reason or _reason(status)) + join_fields(headers + extra)
        self._writer, self._responded, self._expects_continue = writer, True, False
        return raw

    def send_data(self, data: bytes) -> bytes:
        """See `ServerWire`."""
        return require_writer(self._writer).data(data)

    def send_end(self, trailers: Headers = ()) -> bytes:
        """See `ServerWire`."""
        raw = require_writer(self._writer).end(trailers)
        self._writer = None
        return raw

    def send_upgrade(self, headers: Headers) -> bytes:
        """See `ServerWire`."""
        if self._request is None or self._request.http_version != b"1.1" or self._responded:
            raise LocalProtocolError("there is no request whose connection can be upgraded")
        check_fields_to_send(headers)
        self._responded, self._keep_alive, self._reader = True, False, None
        return join_status_line(101, _reason(101)) + join_fields((_UPGRADE, *headers))

    def take_rest(self, most: int) -> bytes:
        """See `ServerWire`."""
        return self._buffer.take(most) if self._buffer else b""

    def start_next(self) -> None:
        """See `ServerWire`."""
        unread = self._request is None or self._reader is not None
        if unread or self._writer is not None or not self._responded or not self._keep_alive:
            raise LocalProtocolError("the connection cannot carry another request now")
        self._request, self._responded = None, False


def _reason(status: int) -> bytes:
    return _REASONS.get(status, b"")


@attrs.define(eq=False)
class H11ClientWire:
    """A `ClientWire` whose heads are checked by h11.

    A connection is reused only where both ends certainly agree about where each message ended.
    What one end left unread, it would take for the next message, which is another client's: a body
    that the server did not read is a request, and a body that this end did not expect is a
    response. So there is no reuse after a chunked request (simple servers read Content-Length
    only), after a body of a method that has none, after a response other than 2xx to a request
    with a body (errors are often sent without reading it), after a response whose end is known by a
    rule and not by its own fields (to HEAD, 204, 304), and after a malformed head.
    """

    _limits: MessageLimits
    _buffer: ReceiveBuffer = attrs.field(factory=ReceiveBuffer)
    _request: Request | None = None  # the current request
    _reader: BodyReader | None = None  # of the final response's body, until its end
    _writer: BodyWriter | None = None  # of the request's body, until its end
    _responded: bool = False  # the head of the final response was received
    _has_body: bool = False  # the current request
    _asks_upgrade: bool = False  # the current request, for another protocol
    fault: str = ""
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
        done = self._responded and self._reader is None and self._writer is None
        return done or self._request is None

    def send_head(self, request: Request, *, body: bool, upgrade: bytes = b"") -> bytes:
        """See `ClientWire`."""
        if self._request is not None:
            raise LocalProtocolError("another request is in progress")
        length, close = check_fields_to_send(request.headers)
        headers = with_length(request.headers, length)
        if length is not None:
            writer: BodyWriter = WriteLength(length)
            if length and not body:
                raise LocalProtocolError("the request has a content-length but no body")
        elif body:
            writer, headers = WriteChunks(), (*headers, (b"transfer-encoding", b"chunked"))
        else:
            writer = WriteLength(0)
        self._has_body = bool(length or body)
        expected = request.method in _METHODS_WITH_BODY and length is not None
        self._keep_alive = not close and (expected or not self._has_body)
        if not self._keep_alive and not close:
            headers = (*headers, _CLOSE)  # so that no server reads on in what it left unread
        if upgrade:
            headers = (*headers, _UPGRADE, (b"upgrade", upgrade))
        self._asks_upgrade = bool(upgrade)
        raw = join_request_line(request.method, request.target) + join_fields(headers)
        self._request, self._writer = request, writer
        return raw

    def send_data(self, data: bytes) -> bytes:
        """See `ClientWire`."""
        return require_writer(self._writer).data(data)

    def send_end(self, trailers: Headers = ()) -> bytes:
        """See `ClientWire`."""
        raw = require_writer(self._writer).end(trailers)
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
        return None if self._responded or self._request is None else self._next_head(self._request)

    def _next_head(self, request: Request) -> ResponseHead | None:
        buffer = self._buffer
        end = buffer.find_head(self._limits, find_response_head_end)
        if end < 0:
            if buffer.ended:
                raise RemoteProtocolError("the connection ended before the response")
            return None
        raw = buffer.data[buffer.start : end]
        head, framing, fault = read_response_head(raw, self._limits)
        check_with_h11(head, framing.relevant)
        if fault:
            self.fault, self._keep_alive = fault, False
        if head.status >= 200:
            self._reader = framing.response_reader(request.method, head.status, self._limits)
            stays = head.http_version == b"1.1" or framing.keep_alive
            delimited = self._reader is not read_until_close and self._reader is not read_nothing
            body_was_read = head.status < 300 or not self._has_body
            stays = stays and delimited and body_was_read and not framing.close
            self._keep_alive = self._keep_alive and stays
            self._responded = True
        elif head.status == 101:
            if not self._asks_upgrade:
                raise NotSupported("the upstream switched protocols, which was not requested")
            self._responded, self._keep_alive = True, False
        buffer.start = end
        return head

    def take_rest(self, most: int) -> bytes:
        """See `ClientWire`."""
        return self._buffer.take(most) if self._buffer else b""

    def start_next(self) -> None:
        """See `ClientWire`."""
        if not self.reusable:
            raise LocalProtocolError("the connection cannot carry another request now")
        self._request, self._responded = None, False
