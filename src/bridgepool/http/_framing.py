"""Where a message's body ends, in both directions. Pure.

Only three framings exist (RFC 9112 section 6): a length told in front, chunks, and the end
of the connection. They are cut here rather than by the parser of the heads, because a proxy
has to be stricter than h11 is with chunks (bare line feeds and folded fields in trailers,
endless extensions), has to notice a body that is too large before it is taken in, and
because data then reaches its reader without a copy in between. A property test holds that
whatever is taken here, h11 takes too, and reads alike.
"""

import re
from collections.abc import Callable
from typing import Protocol

import attrs

from bridgepool.http._errors import (
    BodyTooLarge,
    LocalProtocolError,
    RemoteProtocolError,
)
from bridgepool.http._heads import find_head_end, join_fields, parse_trailers
from bridgepool.http._limits import MessageLimits
from bridgepool.http._messages import NO_TRAILERS, EndOfMessage, Headers

_MAX_CHUNK_LINE = 256  # bytes: extensions are ignored, so nobody needs long ones
_chunk_line = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[\t\x20-\x7e\x80-\xff]*)?")


@attrs.define(eq=False)
class ReceiveBuffer:
    """Bytes received and not yet used."""

    data: bytes = b""
    start: int = 0  # what lies before it has been used
    searched: int = 0  # how far the end of the head at `start` was looked for, in vain
    ended: bool = False  # the peer will send no more

    def __len__(self) -> int:
        return len(self.data) - self.start

    def feed(self, data: bytes) -> None:
        """Add what was read; b"" is the end."""
        if not data:
            self.ended = True
        elif self.start == len(self.data):
            self.data = data  # the usual case: nothing left over, no copy
            self.start = self.searched = 0
        else:
            self.data = self.data[self.start :] + data
            self.searched = max(0, self.searched - self.start)
            self.start = 0

    def find_head(self, limits: MessageLimits) -> int:
        """Find where the head or trailer section that comes next ends; -1 if not yet here.

        Raises:
            RemoteProtocolError: It is malformed or too large already.
        """
        end = find_head_end(self.data, self.start, max(self.start, self.searched), limits)
        if end < 0:
            self.searched = len(self.data)
        return end

    def take(self, most: int) -> bytes:
        """Use up to so many bytes, at least one of which is there."""
        begin = self.start
        if begin == 0 and len(self.data) <= most:
            self.start = len(self.data)
            return self.data
        piece = self.data[begin : begin + most]
        self.start = begin + len(piece)
        return piece


BodyReader = Callable[[ReceiveBuffer], bytes | EndOfMessage | None]
"""Cuts one body: gives its next piece, its end, or None when it needs more bytes."""


def read_nothing(buffer: ReceiveBuffer) -> EndOfMessage:
    """Be the reader of a message that has no body."""
    return NO_TRAILERS


def read_until_close(buffer: ReceiveBuffer) -> bytes | EndOfMessage | None:
    """Be the reader of a body that ends with the connection."""
    if buffer:
        return buffer.take(len(buffer))
    return NO_TRAILERS if buffer.ended else None


@attrs.define(eq=False)
class ReadLength:
    """The reader of a body whose length is known."""

    remaining: int

    def __call__(self, buffer: ReceiveBuffer) -> bytes | EndOfMessage | None:
        """Give the next piece."""
        if self.remaining == 0:
            return NO_TRAILERS
        if not buffer:
            return _nothing_yet(buffer)
        piece = buffer.take(self.remaining)
        self.remaining -= len(piece)
        return piece


@attrs.define(eq=False)
class ReadChunks:
    """The reader of a chunked body; all that came in together is given as one piece.

    Between two bytes it is in one of four places: at a size line (`in_chunk == 0`), in a
    chunk's data (`in_chunk > 0`), at the line break behind it (`in_chunk == -1`), or in the
    trailers.
    """

    limits: MessageLimits
    total: int = 0  # data bytes announced by the size lines so far
    in_chunk: int = 0  # data bytes of this chunk still to come; -1: only its line break
    in_trailers: bool = False

    def __call__(self, buffer: ReceiveBuffer) -> bytes | EndOfMessage | None:
        """Give the next piece."""
        pieces = []
        try:
            while not self.in_trailers:
                piece = self._step(buffer)
                if piece is None:
                    break
                pieces.append(piece)
        except RemoteProtocolError:
            if not any(pieces):
                raise  # else the next call finds the same fault, with nothing in front of it
        data = b"".join(pieces)
        if data:
            return data
        return self._read_trailers(buffer) if self.in_trailers else _nothing_yet(buffer)

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
                raise RemoteProtocolError("a chunk is not ended by a line break")
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
                raise RemoteProtocolError("a size line ends with a bare line feed")
            return None
        line = _chunk_line.fullmatch(buffer.data, begin, end)
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
            return _nothing_yet(buffer)
        end = buffer.find_head(self.limits)
        if end < 0:
            return _nothing_yet(buffer)
        trailers = parse_trailers(data[begin:end], self.limits)
        buffer.start = end
        return EndOfMessage(trailers)


def _nothing_yet(buffer: ReceiveBuffer) -> bytes | None:
    if buffer.ended:
        raise RemoteProtocolError("the connection ended in the middle of the body")
    return None


class BodyWriter(Protocol):
    """Puts the framing around one body that is being sent."""

    def data(self, data: bytes) -> bytes:
        """Return the bytes that carry this piece."""
        ...

    def end(self, trailers: Headers) -> bytes:
        """Return the bytes that end the body."""
        ...


class WriteNothing:
    """For a response that can have no body: what is sent as its body goes nowhere.

    So a response to HEAD is written like the one to GET, and the handler need not know.
    """

    def data(self, data: bytes) -> bytes:
        """Return no bytes."""
        return b""

    def end(self, trailers: Headers) -> bytes:
        """Return no bytes."""
        return b""


class WriteUntilClose:
    """For a body that the end of the connection ends."""

    def data(self, data: bytes) -> bytes:
        """Return the piece as it is."""
        return data

    def end(self, trailers: Headers) -> bytes:
        """Return no bytes."""
        return b""


@attrs.define(eq=False)
class WriteLength:
    """For a body whose length was told in front; holds the sender to it."""

    remaining: int

    def data(self, data: bytes) -> bytes:
        """Return the piece as it is."""
        if len(data) > self.remaining:
            raise LocalProtocolError("the body is longer than its content-length")
        self.remaining -= len(data)
        return data

    def end(self, trailers: Headers) -> bytes:
        """Return no bytes."""
        if self.remaining:
            raise LocalProtocolError(f"the body is {self.remaining} bytes short of its length")
        return b""


class WriteChunks:
    """For a body in chunks, one for each piece."""

    def data(self, data: bytes) -> bytes:
        """Return the piece as a chunk; an empty one would end the body, and is left out."""
        return b"%x\r\n%b\r\n" % (len(data), data) if data else b""

    def end(self, trailers: Headers) -> bytes:
        """Return the last chunk and the trailers."""
        return b"0\r\n" + join_fields(trailers)


def writing(writer: BodyWriter | None) -> BodyWriter:
    """Return the writer of the message that is being sent.

    Raises:
        LocalProtocolError: There is none.
    """
    if writer is None:
        raise LocalProtocolError("no message is being sent")
    return writer
