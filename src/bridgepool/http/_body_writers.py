"""The framing of bodies that are sent. Pure."""

from typing import Protocol

import attrs

from bridgepool.http._errors import LocalProtocolError
from bridgepool.http._heads import join_fields
from bridgepool.http._messages import Headers


class BodyWriter(Protocol):
    """Frames one body that is being sent."""

    def data(self, data: bytes) -> bytes:
        """Return the bytes to send for this piece."""
        ...

    def end(self, trailers: Headers) -> bytes:
        """Return the bytes to send at the end of the body."""
        ...


class WriteNothing:
    """For a response that cannot have a body: the body is dropped.

    A handler can therefore answer HEAD in the same way as GET.
    """

    def data(self, data: bytes) -> bytes:
        """Return no bytes."""
        return b""

    def end(self, trailers: Headers) -> bytes:
        """Return no bytes."""
        return b""


class WriteUntilClose:
    """For a body that ends with the connection."""

    def data(self, data: bytes) -> bytes:
        """Return the piece unchanged."""
        return data

    def end(self, trailers: Headers) -> bytes:
        """Return no bytes."""
        return b""


@attrs.define(eq=False)
class WriteLength:
    """For a body with a content-length, which the sender must keep to."""

    remaining: int

    def data(self, data: bytes) -> bytes:
        """Return the piece unchanged."""
        if len(data) > self.remaining:
            raise LocalProtocolError("the body is longer than its content-length")
        self.remaining -= len(data)
        return data

    def end(self, trailers: Headers) -> bytes:
        """Return no bytes."""
        if self.remaining:
            raise LocalProtocolError(
                f"the body is {self.remaining} bytes shorter than its content-length"
            )
        return b""


class WriteChunks:
    """For a chunked body: one chunk for each piece."""

    def data(self, data: bytes) -> bytes:
        """Return the piece as a chunk; nothing for an empty piece, which would end the body."""
        return b"%x\r\n%b\r\n" % (len(data), data) if data else b""

    def end(self, trailers: Headers) -> bytes:
        """Return the last chunk and the trailers."""
        return b"0\r\n" + join_fields(trailers)


def require_writer(writer: BodyWriter | None) -> BodyWriter:
    """Return the writer of the message that is being sent.

    Raises:
        LocalProtocolError: No message is being sent.
    """
    if writer is None:
        raise LocalProtocolError("no message is being sent")
    return writer
