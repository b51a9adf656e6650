"""Message framing: the fields that say where a body ends, and the readers of bodies. Pure.

There are three framings (RFC 9112 section 6): a length, chunks, and the end of the connection.
Bodies are framed here and not by h11, for three reasons: a proxy must be stricter about chunks
(bare line feeds and folded fields in trailers, endless extensions), must reject a body that is too
large before receiving it, and can pass data to its reader without a copy. A property test checks
that h11 accepts whatever is accepted here, with the same result.
"""

import re
from collections.abc import Callable

import attrs

from bridgepool.http._errors import (
    BodyTooLarge,
    LocalProtocolError,
    NotSupported,
    RemoteProtocolError,
)
from bridgepool.http._heads import find_head_end, parse_trailers
from bridgepool.http._limits import MessageLimits
from bridgepool.http._messages import NO_TRAILERS, EndOfMessage, Headers

_length = re.compile(rb"[0-9]{1,18}")


@attrs.define
class FramingFields:
    """The fields of one head that are about framing and connection, parsed.

    Attributes:
        length: The value of content-length, if there is one.
        chunked: Whether the body is chunked.
        close: Whether the connection ends after this message.
        keep_alive: Whether keep-alive is requested, which HTTP/1.0 requires for a kept connection.
        expect: The expectation, in lower case.
        hosts: The values of all host fields.
        relevant: The fields that all this was read from, unchanged.
    """

    length: int | None = None
    chunked: bool = False
    close: bool = False
    keep_alive: bool = False
    expect: bytes | None = None
    hosts: tuple[bytes, ...] = ()
    relevant: Headers = ()

    def request_reader(self, limits: MessageLimits) -> "BodyReader":
        """Return the reader of this request's body."""
        if self.chunked:
            return ReadChunks(limits)
        return ReadLength(self.length) if self.length else read_nothing

    def response_reader(self, method: bytes, status: int, limits: MessageLimits) -> "BodyReader":
        """Return the reader of this response's body; `method` is that of its request."""
        if method == b"HEAD" or status in (204, 304):
            return read_nothing
        if self.chunked:
            return ReadChunks(limits, _padded_chunk_line)
        return read_until_close if self.length is None else ReadLength(self.length)


_RELEVANT_NAMES = frozenset(
    (b"content-length", b"transfer-encoding", b"connection", b"expect", b"host")
)


def parse_framing(headers: Headers, version: bytes) -> FramingFields:
    """Parse the fields of a received head that are about framing and connection.

    Raises:
        RemoteProtocolError: They are contradictory or ambiguous.
    """
    framing = FramingFields(
        relevant=tuple([field for field in headers if field[0] in _RELEVANT_NAMES])
    )
    for name, value in framing.relevant:
        if name == b"content-length":
            if framing.length is not None or _length.fullmatch(value) is None:
                raise RemoteProtocolError("content-length is not a number, or is repeated")
            framing.length = int(value)
        elif name == b"transfer-encoding":
            if framing.chunked or value.lower() != b"chunked":
                raise NotSupported("the only supported transfer coding is chunked")
            framing.chunked = True
        elif name == b"connection":
            options = [option.strip() for option in value.lower().split(b",")]
            framing.close |= b"close" in options
            framing.keep_alive |= b"keep-alive" in options
        elif name == b"expect":
            framing.expect = value.lower()
        else:
            framing.hosts += (value,)
    if framing.chunked and framing.length is not None:
        raise RemoteProtocolError("the message has both content-length and transfer-encoding")
    if framing.chunked and version != b"1.1":
        raise RemoteProtocolError("transfer-encoding requires HTTP/1.1")
    return framing


def check_fields_to_send(headers: Headers) -> tuple[int | None, bool]:
    """Return the content-length of a head to be sent, and whether it closes the connection.

    Raises:
        LocalProtocolError: Another field about framing or the connection is set.
    """
    length, close = None, False
    for name, value in headers:
        if name not in _RELEVANT_NAMES:
            continue
        if name == b"content-length":
            if length is not None or _length.fullmatch(value) is None:
                raise LocalProtocolError("content-length is not a number, or is repeated")
            length = int(value)
        elif name == b"transfer-encoding":
            raise LocalProtocolError("transfer-encoding must not be set: the wire adds it")
        elif name == b"connection":
            option = value.lower()
            if option not in (b"close", b"te"):
                raise LocalProtocolError("connection can only be set to close or te")
            close |= option == b"close"
    return length, close


def with_length(headers: Headers, length: int | None) -> Headers:
    """Return the fields with the content-length written anew, as the number that was understood.

    Another program may read the digits that a peer chose, such as leading zeros, differently.
    """
    if length is None or (b"content-length", b"%d" % length) in headers:
        return headers
    return (*without_fields(headers, b"content-length"), (b"content-length", b"%d" % length))


def without_fields(headers: Headers, *unwanted: bytes) -> Headers:
    """Return the fields whose names are not among `unwanted`."""
    return tuple(field for field in headers if field[0] not in unwanted)


_MAX_CHUNK_LINE = 256  # bytes; chunk extensions are ignored
_MAX_STEPS = 1000  # size lines and pieces of chunks that are read at once: some milliseconds
_EXTENSIONS = rb"(?:;[\t\x20-\x7e\x80-\xff]*)?"
_chunk_line = re.compile(rb"([0-9A-Fa-f]{1,16})" + _EXTENSIONS)
_padded_chunk_line = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*+" + _EXTENSIONS)  # by some servers
FindEnd = Callable[[bytes, int, int, MessageLimits], int]


@attrs.define(eq=False)
class ReceiveBuffer:
    """Bytes that were received and not yet consumed."""

    data: bytes = b""
    start: int = 0  # bytes before it are consumed
    searched: int = 0  # the head at `start` does not end before this position
    ended: bool = False  # the peer sends no more

    def __len__(self) -> int:
        return len(self.data) - self.start

    def feed(self, data: bytes) -> None:
        """Add received bytes; b"" is the end of the stream."""
        if not data:
            self.ended = True
        elif self.start == len(self.data):
            self.data = data  # the usual case: nothing is left, so no copy
            self.start = self.searched = 0
        else:
            self.data = self.data[self.start :] + data
            self.searched = max(0, self.searched - self.start)
            self.start = 0

    def find_head(self, limits: MessageLimits, find: FindEnd = find_head_end) -> int:
        """Return the end of the next head or trailer section; -1 while it is incomplete.

        Raises:
            RemoteProtocolError: It is already known to be malformed or too large.
        """
        end = find(self.data, self.start, max(self.start, self.searched), limits)
        if end < 0:
            self.searched = len(self.data)
        return end

    def take(self, most: int) -> bytes:
        """Consume up to `most` bytes; the buffer must not be empty."""
        begin, data = self.start, self.data
        if len(data) - begin <= most:
            self.data, self.start = b"", 0  # a connection that waits holds nothing
        else:
            self.start = begin + most
        return data[begin : begin + most]


BodyReader = Callable[[ReceiveBuffer], bytes | EndOfMessage | None]
"""Reads one body: returns its next piece, its end, or None while more bytes are needed."""


def read_nothing(buffer: ReceiveBuffer) -> EndOfMessage:
    """Read a message without a body."""
    return NO_TRAILERS


def read_until_close(buffer: ReceiveBuffer) -> bytes | EndOfMessage | None:
    """Read a body that ends with the connection."""
    if buffer:
        return buffer.take(len(buffer))
    return NO_TRAILERS if buffer.ended else None


@attrs.define(eq=False)
class ReadLength:
    """Reads a body of known length."""

    remaining: int

    def __call__(self, buffer: ReceiveBuffer) -> bytes | EndOfMessage | None:
        """Return the next piece, the end, or None."""
        if self.remaining == 0:
            return NO_TRAILERS
        if not buffer:
            return _incomplete(buffer)
        piece = buffer.take(self.remaining)
        self.remaining -= len(piece)
        return piece


@attrs.define(eq=False)
class ReadChunks:
    """Reads a chunked body; the data of all buffered chunks is returned as one piece.

    It has four states: at a size line (`in_chunk == 0`), in a chunk's data (`in_chunk > 0`), at
    the line break after it (`in_chunk == -1`), and in the trailers.
    """

    limits: MessageLimits
    line: re.Pattern[bytes] = _chunk_line
    total: int = 0  # data bytes announced by size lines so far
    in_chunk: int = 0  # data bytes left in this chunk; -1: only its line break
    in_trailers: bool = False

    def __call__(self, buffer: ReceiveBuffer) -> bytes | EndOfMessage | None:
        """Return the next piece, the end, or None."""
        pieces: list[bytes] = []
        try:
            while not self.in_trailers and len(pieces) < _MAX_STEPS:
                piece = self._step(buffer)
                if piece is None:
                    break
                pieces.append(piece)
        except RemoteProtocolError:
            if not any(pieces):
                raise  # otherwise the data comes first; the next call finds the same error
        if data := b"".join(pieces):
            return data
        return self._read_trailers(buffer) if self.in_trailers else _incomplete(buffer)

    def _step(self, buffer: ReceiveBuffer) -> bytes | None:
        if self.in_chunk > 0:
            if not buffer:
                return None
            piece = buffer.take(self.in_chunk)
            self.in_chunk = self.in_chunk - len(piece) or -1
            return piece
        if self.in_chunk < 0:
            found = buffer.data[buffer.start : buffer.start + 2]
            if not b"\r\n".startswith(found):
                raise RemoteProtocolError("a chunk does not end with a line break")
            if len(found) < 2:
                return None
            buffer.start += 2
            self.in_chunk = 0
        return self._read_size(buffer)

    def _read_size(self, buffer: ReceiveBuffer) -> bytes | None:
        begin = buffer.start
        end = buffer.data.find(b"\r\n", begin, begin + _MAX_CHUNK_LINE)
        if end < 0:
            if len(buffer) >= _MAX_CHUNK_LINE:
                raise RemoteProtocolError("the size line of a chunk is too long")
            if buffer.data.find(b"\n", begin) >= 0:
                raise RemoteProtocolError("the size line of a chunk ends with a bare line feed")
            return None
        line = self.line.fullmatch(buffer.data, begin, end)
        if line is None:
            raise RemoteProtocolError("the size line of a chunk is malformed")
        size = int(line.group(1), 16)
        if self.total + size > self.limits.max_body_bytes:
            raise BodyTooLarge(f"the body is larger than {self.limits.max_body_bytes} bytes")
        buffer.start = end + 2
        self.total += size
        self.in_chunk = size
        self.in_trailers = size == 0
        return b""

    def _read_trailers(self, buffer: ReceiveBuffer) -> bytes | EndOfMessage | None:
        data, begin = buffer.data, buffer.start
        if data.startswith(b"\r\n", begin):
            buffer.start += 2
            return NO_TRAILERS
        if len(buffer) < 2:
            return _incomplete(buffer)
        end = buffer.find_head(self.limits)
        if end < 0:
            return _incomplete(buffer)
        trailers = parse_trailers(data[begin:end], self.limits)
        buffer.start = end
        return EndOfMessage(trailers)


def _incomplete(buffer: ReceiveBuffer) -> bytes | None:
    if buffer.ended:
        raise RemoteProtocolError("the connection ended before the body was complete")
    return None
