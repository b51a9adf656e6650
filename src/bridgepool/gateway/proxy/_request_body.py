"""The beginning of a long request body, read before its upstream connection is taken.

A client that announces a body and does not send it would otherwise occupy a connection of the
provider meanwhile. Shorter bodies are read completely by the upstream client.
"""

from __future__ import annotations

import attrs
import trio

from bridgepool.http import Exchange, Headers, RequestBody, get_header

_BEGINNING_BYTES = 65536  # as much as the server reads ahead


@attrs.define(eq=False)
class BegunBody:
    """A request body whose beginning was received."""

    _beginning: bytes  # empty if the body is
    _rest: RequestBody
    _begun: bool = False

    @property
    def trailers(self) -> Headers:
        """The trailer fields; complete when the body is."""
        return self._rest.trailers

    async def receive_some(self) -> bytes:
        """Return the next piece; empty at the end."""
        if self._begun:
            return await self._rest.receive_some()
        self._begun = True
        await trio.lowlevel.checkpoint()
        return self._beginning


def has_body(headers: Headers) -> bool:
    """Return whether a request with these fields has a body; an empty one of known length is none.

    Any other framing counts, also of a body that turns out to be empty: its last chunk is bytes.
    """
    for name, value in headers:
        if name == b"transfer-encoding" or (name == b"content-length" and value.strip(b"0")):
            return True
    return False


async def begin_body(exchange: Exchange) -> RequestBody | BegunBody | None:
    """Return the body of a request for its upstream, and wait for the beginning of a long one.

    Of a body of known length, that is 64 kB, and of another its first piece. With Expect nothing is
    awaited, since the upstream is asked first. A checkpoint if something is awaited.

    Returns:
        None if the request has no body.

    Raises:
        RemoteProtocolError: The body is malformed, too large or too slow.
    """
    headers, body = exchange.request.headers, exchange.body
    if not has_body(headers):
        return None
    if get_header(headers, b"expect") is not None:
        return body
    length = get_header(headers, b"content-length")
    if length is None:
        return BegunBody(await body.receive_some(), body)
    if int(length) <= _BEGINNING_BYTES:
        return body
    pieces = [await body.receive_some()]
    while pieces[-1] and sum(map(len, pieces)) < _BEGINNING_BYTES:
        pieces.append(await body.receive_some())
    return BegunBody(b"".join(pieces), body)
