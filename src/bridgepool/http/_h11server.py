"""The server's wire with h11 as the judge of heads.

`heads` holds the raw bytes of a head to the grammar and cuts it, so what h11 is too lax about
never reaches it. The first line and the fields that decide where the message ends, whom it is
for and what becomes of the connection are then made into h11's own event: what h11 refuses of
these stays refused. Its connection object is left out on both ways. Receiving through it, it
reads what has been read once more, 57 µs for a usual request where this takes 20; and sending
through it costs as much again. The little state that it would keep is kept here: which message
is where, and whether the connection can go on afterwards.

Bodies are cut and framed by `framing`, heads to be sent are joined by `heads`. Properties in
the tests hold all of this against an h11 connection that does everything.
"""

import http
import re

import attrs
import h11

from bridgepool.http._errors import (
    BodyTooLarge,
    ExpectationFailed,
    HeadTooLarge,
    LocalProtocolError,
    NotSupported,
    RemoteProtocolError,
    TargetTooLong,
)
from bridgepool.http._fields import AboutMessage, check_fields_to_send, read_about, without_fields
from bridgepool.http._framing import (
    BodyReader,
    BodyWriter,
    ReadChunks,
    ReadLength,
    ReceiveBuffer,
    WriteChunks,
    WriteLength,
    WriteNothing,
    WriteUntilClose,
    read_nothing,
    writing,
)
from bridgepool.http._heads import join_fields, join_status_line, parse_request_head
from bridgepool.http._limits import MessageLimits
from bridgepool.http._messages import NO_TRAILERS, EndOfMessage, Headers, Request

# RFC 3986 section 3.2.2, as far as it protects: nothing that could begin another part.
_host = re.compile(rb"[A-Za-z0-9._~%!$&'()*+;=:\[\]-]++")
_absolute_target = re.compile(rb"(?i:https?)://([^/?#@]++)(/[^#]*+|\?[^#]*+|)")
_CLOSE = (b"connection", b"close")
_KEEP_ALIVE = (b"connection", b"keep-alive")
_REASONS = {int(status): status.phrase.encode() for status in http.HTTPStatus}


@attrs.define(eq=False)
class H11ServerWire:
    """A `ServerWire` with h11 as the judge of heads."""

    _limits: MessageLimits
    _buffer: ReceiveBuffer = attrs.field(factory=ReceiveBuffer)
    _request: Request | None = None  # the request in hand
    _reader: BodyReader | None = None  # of its body, until its end was returned
    _writer: BodyWriter | None = None  # of the final response's body, until its end
    _responded: bool = False  # the final response's head was sent
    _keep_alive: bool = True
    _expects_continue: bool = False

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
    def framed_by_close(self) -> bool:
        """See `ServerWire`."""
        return isinstance(self._writer, WriteUntilClose)

    def receive_data(self, data: bytes) -> None:
        """See `ServerWire`."""
        self._buffer.feed(data)

    def next_event(self) -> Request | bytes | EndOfMessage | None:
        """See `ServerWire`."""
        if self._request is None:
            return self._next_head()
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
        if not buffer or buffer.data[buffer.start :] == b"\r":
            return None
        try:
            end = buffer.find_head(self._limits)
        except HeadTooLarge:
            if b"\r\n" not in buffer.data[buffer.start :]:
                raise TargetTooLong("the first line does not end") from None
            raise
        if end < 0:
            if buffer.ended:
                raise RemoteProtocolError("the connection ended in the middle of a head")
            return None
        request = self._accept(buffer.data[buffer.start : end])
        buffer.start = end
        self._request = request
        return request

    def _accept(self, head: bytes) -> Request:
        request = parse_request_head(head, self._limits)
        version = request.http_version
        about = read_about(request.headers, version)
        if len(about.hosts) != 1 and (about.hosts or version == b"1.1"):
            raise RemoteProtocolError("there must be exactly one host")
        if about.hosts and _host.fullmatch(about.hosts[0]) is None:
            raise RemoteProtocolError("the host is malformed")
        _judge(request, about.telling)
        if not request.target.startswith(b"/") or b"#" in request.target:
            request = _to_origin_form(request)
        if about.expect not in (None, b"100-continue"):
            raise ExpectationFailed("nothing but 100-continue can be expected")
        if about.length is not None and about.length > self._limits.max_body_bytes:
            raise BodyTooLarge(f"the body is larger than {self._limits.max_body_bytes} bytes")
        self._keep_alive = not about.close and (version == b"1.1" or about.keep_alive)
        self._reader = _reader_for(about, self._limits)
        self._expects_continue = (
            about.expect is not None and version == b"1.1" and self._reader is not read_nothing
        )
        return request

    def send_interim(self, status: int, headers: Headers = ()) -> bytes:
        """See `ServerWire`."""
        if not 100 <= status < 200 or status == 101:
            raise LocalProtocolError(f"{status} is not the status of an interim response")
        if self._responded or self._request is None:
            raise LocalProtocolError("there is no request to answer")
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
            raise LocalProtocolError("not a final response, or the second one")
        request = self._request
        length, says_close = check_fields_to_send(headers)
        bodiless = status in (204, 304) or (request is not None and request.method == b"HEAD")
        old = request is not None and request.http_version == b"1.0"
        extra: Headers = ()
        if status == 204 and length is not None:
            headers = without_fields(headers, b"content-length")
        if bodiless:
            writer: BodyWriter = WriteNothing()
        elif length is not None:
            writer = WriteLength(length)
        elif old:
            writer, close = WriteUntilClose(), True
        else:
            writer, extra = WriteChunks(), ((b"transfer-encoding", b"chunked"),)
        # Without a request, or while its body may or may not come, nothing can follow.
        close = close or says_close or request is None or self._expects_continue
        self._keep_alive = self._keep_alive and not close
        if not self._keep_alive:
            headers, extra = without_fields(headers, b"connection"), (*extra, _CLOSE)
        elif old:
            extra = (_KEEP_ALIVE,)
        raw = join_status_line(status, reason or _reason(status)) + join_fields(headers + extra)
        self._writer, self._responded, self._expects_continue = writer, True, False
        return raw

    def send_data(self, data: bytes) -> bytes:
        """See `ServerWire`."""
        return writing(self._writer).data(data)

    def send_end(self, trailers: Headers = ()) -> bytes:
        """See `ServerWire`."""
        raw = writing(self._writer).end(trailers)
        self._writer = None
        return raw

    def start_next(self) -> None:
        """See `ServerWire`."""
        unread = self._request is None or self._reader is not None
        if unread or self._writer is not None or not self._responded or not self._keep_alive:
            raise LocalProtocolError("the connection cannot carry another request now")
        self._request, self._responded = None, False


def _reason(status: int) -> bytes:
    return _REASONS.get(status, b"")


def _judge(request: Request, telling: Headers) -> None:
    try:
        h11.Request(
            method=request.method,
            target=request.target,
            headers=list(telling),
            http_version=request.http_version,
        )
    except h11.LocalProtocolError as error:
        raise RemoteProtocolError(str(error)) from error


def _to_origin_form(request: Request) -> Request:
    """Turn an absolute target into a path and its Host (RFC 9112 section 3.2.2)."""
    method, target = request.method, request.target
    if target == b"*" and method == b"OPTIONS":
        return request
    if method == b"CONNECT":
        raise NotSupported("this is no tunnel")
    parts = _absolute_target.fullmatch(target)
    if parts is None or _host.fullmatch(parts.group(1)) is None:
        raise RemoteProtocolError("the target is malformed")
    path = parts.group(2)
    path = path if path.startswith(b"/") else b"/" + path
    headers = ((b"host", parts.group(1)), *without_fields(request.headers, b"host"))
    return Request(method, path, headers, request.http_version)


def _reader_for(about: AboutMessage, limits: MessageLimits) -> BodyReader:
    if about.chunked:
        return ReadChunks(limits)
    return ReadLength(about.length) if about.length else read_nothing
