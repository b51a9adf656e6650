"""The beginning of a request body, read before its upstream connection is taken.

A client that announces a body and does not send it would otherwise occupy a connection of the
provider meanwhile. Short bodies are read whole: they go out with the head, and can be sent again.
"""

from __future__ import annotations

import attrs
import trio

from bridgepool.gateway.proxy._access_log import AccessRecord
from bridgepool.http import Exchange, Headers, RequestBody

_BEGINNING_BYTES = 65536  # as much as the server reads ahead


@attrs.define(eq=False)
class BegunBody:
    """A request body whose beginning was received."""

    _rest: RequestBody
    _record: AccessRecord
    _beginning: bytes | None  # None: it was returned, or not received

    @property
    def trailers(self) -> Headers:
        """The trailer fields; complete when the body is."""
        return self._rest.trailers

    @property
    def beginning(self) -> bytes:
        """What was received and not returned yet."""
        return self._beginning or b""

    def put_back(self, data: bytes) -> None:
        """Have this returned once more, before what comes."""
        self._beginning = data

    async def receive_some(self) -> bytes:
        """Return the next piece; empty at the end."""
        beginning, self._beginning = self._beginning, None
        if beginning is not None:
            await trio.lowlevel.checkpoint()
            return beginning
        piece = await self._rest.receive_some()
        self._record.bytes_received += len(piece)
        return piece


def has_body(headers: Headers) -> bool:
    """Return whether a request with these fields has a body; an empty one of known length is none.

    Any other framing counts, also of a body that turns out to be empty: its last chunk is bytes.
    """
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
            return True
    return False


async def begin_body(exchange: Exchange, record: AccessRecord) -> bytes | BegunBody | None:
    """Return the body of a request for its upstream, and wait for the beginning of it.

    Of a body of known length, that is 64 kB, and of another its first piece. With Expect nothing is
    awaited, since the upstream is asked first. A checkpoint if something is awaited.

    Args:
        exchange: the client's.
        record: gets the number of bytes as they are received.

    Returns:
        None if the request has no body; bytes if that is all of it.

    Raises:
        RemoteProtocolError: The body is malformed, too large or too slow.
    """
    body, whole, chunked = exchange.body, None, False
    for name, value in exchange.request.headers:  # one pass: every request comes here
        if name == b"content-length":
            whole = int(value)
        elif name == b"transfer-encoding":
            chunked = True
        elif name == b"expect" and has_body(exchange.request.headers):
            return BegunBody(body, record, None)
    if not (whole or chunked):
        return None
    wanted = 1 if whole is None else min(whole, _BEGINNING_BYTES)
    data = body.take_buffered()
    if len(data) < wanted:
        data = await _receive_rest(body, data, wanted)
    record.bytes_received += len(data)
    short = whole is not None and whole <= _BEGINNING_BYTES
    return data if short else BegunBody(body, record, data)


async def _receive_rest(body: RequestBody, data: bytes, wanted: int) -> bytes:
    """Receive more, until there is as much as is wanted or the body ends."""
    pieces, size = [data], len(data)
    while size < wanted and (piece := await body.receive_some()):
        pieces.append(piece)
        size += len(piece)
    return b"".join(pieces)
