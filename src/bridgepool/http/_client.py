"""`open_upstream_client`: a client for one upstream that streams both ways."""

import ssl
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import attrs
import trio

from bridgepool._network import Dial, Origin, dial_origin, parse_origin
from bridgepool._services import open_service_nursery
from bridgepool.http._connection_slots import ConnectionSlots
from bridgepool.http._errors import LocalProtocolError
from bridgepool.http._h11_wires import H11ClientWire
from bridgepool.http._limits import MessageLimits, UpstreamLimits
from bridgepool.http._messages import Headers, Request, get_header
from bridgepool.http._upload import UpstreamBody
from bridgepool.http._upstream_call import UpstreamCall, UpstreamResponse
from bridgepool.http._upstream_connection import UpstreamConnection
from bridgepool.http._upstream_pool import UpstreamPool, UpstreamStatistics
from bridgepool.http._wire import ClientWire

_DEFAULT_LIMITS = UpstreamLimits()


@attrs.define(eq=False)
class UpstreamClient:
    """Sends requests to one upstream; from `open_upstream_client`."""

    _origin: Origin
    _pool: UpstreamPool
    _nursery: trio.Nursery
    authority: bytes
    """The value of Host for requests that have none."""

    def request(
        self,
        method: bytes,
        target: bytes,
        headers: Headers = (),
        body: UpstreamBody = None,
        *,
        tenant: Hashable = None,
        upgrade: bytes = b"",
        on_sent: Callable[[], None] | None = None,
    ) -> AbstractAsyncContextManager[UpstreamResponse]:
        """Send a request: ``async with client.request(...) as response``.

        The block is entered when the head of the final response is received; the body is read with
        `UpstreamResponse.receive_some`. Interim responses are skipped. If the request has Expect,
        100 (Continue) is awaited before the body is sent. Leaving the block early ends the request:
        the rest of the response is skipped if it is already buffered, otherwise the connection is
        closed.

        A body with Content-Length is sent with that length, any other in chunks with its trailers.
        An upstream may respond before it has received the whole body. The response is returned at
        once; the rest of the body is not sent if the status is not 2xx, or once the response ends.

        A connection is kept only if both messages certainly ended, so that what one end left unread
        cannot become part of another exchange. It is closed after a chunked request, a body of
        another method than POST, PUT and PATCH, a response that is not 2xx to a request with a
        body, a response that began before the request was sent, and a response to HEAD, 204 or 304.
        In the first two cases the upstream gets ``Connection: close``.

        A kept connection that the upstream has closed is detected before anything is written to it,
        and another is used. If it closes at that moment, without sending a byte of a response, the
        request is repeated once on a new connection if that is safe: the method is idempotent (RFC
        9110 section 9.2.2) and the body is short enough to be held in memory. A POST is never sent
        twice, nor is a body that was partly sent.

        Args:
            method: As it is to be sent; usually upper case.
            target: Path and query, with a slash first; the path of the base URL is put in front. Or
                ``*``, which is sent as it is.
            headers: Names in lower case, without Transfer-Encoding. Host is added when missing, as
                is Content-Length for a body of type `bytes`.
            body: None, bytes, or an object whose `receive_some()` returns the pieces.
            tenant: For whom the request is. Tenants share the connections as
                `UpstreamLimits.tenant_share` says, and take turns where they have to wait.
            upgrade: Another protocol to switch to, such as ``websocket``: `upgrade` and
                `connection` are added. If the upstream does, the response has the status 101, and
                its `stream` goes on after it until the block is left; any other response is an
                ordinary one.
            on_sent: Called when the whole request was written to a connection; once more if it is
                repeated.

        Raises:
            ConnectFailed: No connection could be made.
            PoolFull: No connection became free in time, or too many requests wait already.
            ShareExceeded: The same, because the tenant has its share of both.
            UpstreamTimeout: The upstream exceeded a timeout.
            UpstreamCut: The upstream closed the connection before its response was complete.
            UpstreamProtocolError: The upstream did not send valid HTTP/1.
            LocalProtocolError: The request is not one that can be sent.
            RuntimeError: What this returned was entered before.
            trio.ClosedResourceError: The client is closed.
            Exception: Any exception of the body's `receive_some`.

        Cancellation: Ends the request and closes its connection.
        """
        if get_header(headers, b"host") is None:
            headers = ((b"host", self.authority), *headers)
        if target != b"*":
            # It would become another path, or another host, together with what is put in front.
            if target[:1] != b"/":
                raise LocalProtocolError("the target must begin with a slash")
            target = self._origin.base_path + target
        request = Request(method, target, headers)
        return UpstreamCall(self._pool, self._nursery, request, body, tenant, upgrade, on_sent)

    def statistics(self) -> UpstreamStatistics:
        """Return the current state of the client and its counters."""
        return self._pool.statistics()


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

    Nothing is connected before the first request. Leaving the block closes all connections; a
    request that still runs in another task gets `trio.ClosedResourceError`.

    Args:
        base_url: ``http://`` or ``https://``, host, port, and a path that is put in front of every
            target.
        ssl_context: Settings for TLS; by default the operating system's certificates are trusted,
            and only HTTP/1.1 is offered. Yours should not offer another protocol either. Its
            `OP_IGNORE_UNEXPECTED_EOF` is cleared.
        limits: Limits on connections, messages and times.
        dial: Opens connections in another way, such as over a Unix socket; `base_url` still gives
            the name for Host.
        new_wire: Creates the parser of a connection.

    Raises:
        ValueError: `base_url` is invalid.
        TypeError: `base_url` is not a str.
    """
    origin = parse_origin(base_url)
    name = origin.authority.decode("ascii")
    slots: ConnectionSlots[UpstreamConnection] = ConnectionSlots(
        limits.max_connections, limits.max_waiting, limits.tenant_share
    )
    pool = UpstreamPool(name, dial or dial_origin(origin, ssl_context), new_wire, limits, slots)
    async with open_service_nursery() as nursery:
        nursery.start_soon(pool.keep_time)
        try:
            yield UpstreamClient(origin, pool, nursery, origin.authority)
        finally:
            await pool.aclose()
            nursery.cancel_scope.cancel()
