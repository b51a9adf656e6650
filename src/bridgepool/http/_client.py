"""A client for one upstream: kept connections, bounded, streamed both ways."""

import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from bridgepool._network import Dial, Origin, dial_origin, parse_origin
from bridgepool._services import open_service_nursery
from bridgepool.http._connections import ConnectionPool
from bridgepool.http._h11client import H11ClientWire
from bridgepool.http._limits import MessageLimits
from bridgepool.http._messages import Headers, Request, get_header
from bridgepool.http._upstream_call import UpstreamCall, UpstreamResponse
from bridgepool.http._upstream_link import UpstreamLink
from bridgepool.http._upstream_links import LinkKeeper, UpstreamLimits, UpstreamStatistics
from bridgepool.http._upstream_upload import UpstreamBody
from bridgepool.http._wire import ClientWire

_DEFAULT_LIMITS = UpstreamLimits()


@attrs.define(eq=False)
class UpstreamClient:
    """Sends requests to one upstream; made by `open_upstream_client`."""

    _origin: Origin
    _keeper: LinkKeeper
    _nursery: trio.Nursery
    authority: bytes
    """What Host says when a request brings none."""

    def request(
        self, method: bytes, target: bytes, headers: Headers = (), body: UpstreamBody = None
    ) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Send a request; use as ``async with client.request(...) as response``.

        The block begins when the head of the final response is here; the body is read with
        `UpstreamResponse.receive_some`. Interim responses are skipped; 100 (Continue) is
        waited for when the request has Expect. Leaving the block early ends the request: what
        has already come in is skipped, otherwise the connection is closed.

        A body with Content-Length is sent with that length, another in chunks with its
        trailers. An upstream may answer before it has taken the body: the answer is given at
        once, and if it is none of 2xx, or ends, the rest of the body is not sent.

        A connection that the upstream has closed while it was idle is noticed before anything
        is written to it, and another is used. If it closes just then, without a byte of an
        answer, the request is repeated once on a new connection if that is safe: its method
        is idempotent (RFC 9110 section 9.2.2) and its body short enough to be at hand. A POST
        is never sent twice, and no body of which a part was given away.

        Args:
            method: As it is to be sent, upper case as a rule.
            target: Path and query; the path of the base URL goes before it.
            headers: In lower case, without Transfer-Encoding. Host is added when missing, and
                Content-Length where the body is `bytes`.
            body: Nothing, bytes, or an object whose `receive_some()` gives the pieces.

        Raises:
            ConnectFailed: No connection could be made.
            PoolFull: None came free in time, or too many requests wait already.
            UpstreamTimeout: It could not be reached, or was silent, for too long.
            UpstreamCut: It closed before its answer was complete.
            UpstreamProtocolError: It sent what is not HTTP/1.1.
            LocalProtocolError: The request is none that could be sent.
            trio.ClosedResourceError: The client is closed.
            Exception: Whatever the body's `receive_some` raised.

        Cancellation: Ends the request and closes its connection.
        """
        if get_header(headers, b"host") is None:
            headers = ((b"host", self.authority), *headers)
        request = Request(method, self._origin.base_path + target, headers)
        return UpstreamCall(self._keeper, self._nursery, request, body)

    def statistics(self) -> UpstreamStatistics:
        """Return what the client holds now and has done since it was opened."""
        return self._keeper.statistics()


@asynccontextmanager
async def open_upstream_client(
    base_url: str,
    *,
    ssl_context: ssl.SSLContext | None = None,
    limits: UpstreamLimits = _DEFAULT_LIMITS,
    dial: Dial | None = None,
    new_wire: Callable[[MessageLimits], ClientWire] = H11ClientWire,
) -> AsyncIterator[UpstreamClient]:
    """Open a client for one upstream, with a pool of kept connections.

    Nothing is connected before the first request. Leaving the block closes all connections;
    a request that still runs then, in another task, gets `trio.ClosedResourceError`.

    Args:
        base_url: ``http://`` or ``https://``, host, port and a path that every target gets in
            front.
        ssl_context: How to do TLS; without, the operating system's certificates are trusted,
            and nothing but HTTP/1.1 is offered. Yours should offer no other protocol either.
        limits: How many, how large, how long.
        dial: How to connect instead, such as by a Unix socket; `base_url` still gives names.
        new_wire: Makes the parser of a connection.

    Raises:
        ValueError: `base_url` is not of that form.
    """
    origin = parse_origin(base_url)
    name = origin.authority.decode("ascii")
    pool: ConnectionPool[UpstreamLink] = ConnectionPool(limits.max_connections, limits.max_waiting)
    keeper = LinkKeeper(name, dial or dial_origin(origin, ssl_context), new_wire, limits, pool)
    async with open_service_nursery() as nursery:
        nursery.start_soon(keeper.keep_time)
        try:
            yield UpstreamClient(origin, keeper, nursery, origin.authority)
        finally:
            await keeper.aclose()
            nursery.cancel_scope.cancel()
