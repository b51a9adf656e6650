"""`serve_http`: serve a handler of exchanges on Trio's listeners."""

import email.utils
import logging
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import attrs
import trio

from bridgepool._accepting import serve_streams
from bridgepool._connection_limiter import ConnectionLimiter
from bridgepool._network import format_address, lacks_handshake, peer_address
from bridgepool._services import require_trio
from bridgepool.http._errors import RemoteProtocolError
from bridgepool.http._exchange import Exchange, Handler
from bridgepool.http._h11_wires import H11ServerWire
from bridgepool.http._invalid_request import AnswerInvalid
from bridgepool.http._limits import HttpLimits
from bridgepool.http._server_connection import (
    HttpCounters,
    ServerConnection,
    ServerState,
    answer_invalid_in_text,
)
from bridgepool.http._server_stream import ServerStream
from bridgepool.http._wire import ServerWire

FindAddress: TypeAlias = Callable[[trio.abc.Stream], Awaitable[tuple[str, int] | None]]
_log = logging.getLogger("bridgepool.http")
_DEFAULT_LIMITS = HttpLimits()
_MAX_TIMEOUTS_AT_ONCE = 16  # deadlines applied before other tasks run: some milliseconds of work
_TIMEOUTS_PAUSE = 0.001  # seconds between so many deadlines and the next


@attrs.define(eq=False)
class GracefulClose:
    """Closes running servers gracefully; pass one to any number of `serve_http` calls."""

    _servers: "set[_HttpServer]" = attrs.field(factory=set, init=False)
    _deadline: float = attrs.field(default=math.inf, init=False)
    _begun: bool = attrs.field(default=False, init=False)
    _announced: bool = attrs.field(default=False, init=False)

    @property
    def begun(self) -> bool:
        """Whether the servers are closing."""
        return self._begun

    def announce(self) -> None:
        """Ask clients to leave: each response says `connection: close`, and ends its connection.

        Connections are still accepted, and requests served, until `begin`.
        """
        self._announced = True
        for server in self._servers:
            server.state.announced = True

    def begin(self, within: float) -> None:
        """Stop accepting connections, and let the servers end once they are idle.

        Connections without a request are closed, running exchanges finish. A second call can only
        shorten the time: `begin(0)` cuts running exchanges at once.

        Args:
            within: Seconds from now after which running exchanges are cut; `math.inf` for never.

        Raises:
            ValueError: `within` is negative, or not a number.
        """
        if not within >= 0:
            raise ValueError(f"within must be 0 or more seconds, not {within!r}")
        self._begun = True
        self._deadline = min(self._deadline, trio.current_time() + within)
        for server in self._servers:
            server.stop(self._deadline)


@attrs.define(eq=False)
class _HttpServer:
    """One run of `serve_http`."""

    state: ServerState
    new_wire: Callable[[HttpLimits], ServerWire]
    limiter: ConnectionLimiter
    find_address: FindAddress | None
    accepting: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    serving: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    connections: set[ServerConnection] = attrs.field(factory=set)

    async def run(  # noqa: ASYNC114, ASYNC128 -- serve_streams calls started()
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        task_status: trio.TaskStatus[Sequence[trio.abc.Listener[trio.abc.Stream]]],
    ) -> None:
        async with trio.open_nursery() as timekeeper:
            timekeeper.start_soon(self.keep_time)
            with self.serving:
                async with trio.open_nursery() as connections:
                    with self.accepting:
                        await serve_streams(
                            self.serve,
                            listeners,
                            handler_nursery=connections,
                            task_status=task_status,
                        )
            timekeeper.cancel_scope.cancel()

    def stop(self, deadline: float) -> None:
        self.state.closing = True
        self.accepting.cancel()
        self.serving.deadline = deadline
        for connection in self.connections:
            connection.stream.wake()

    async def keep_time(self) -> None:
        """Apply the deadlines of all connections; see `_server_stream`."""
        limits = self.state.limits
        shortest = min(
            limits.header_timeout, limits.idle_timeout, limits.body_timeout, limits.send_timeout
        )
        while True:
            self.state.date = email.utils.formatdate(usegmt=True).encode()
            now = trio.current_time()
            expired = 0
            for connection in tuple(self.connections):
                if connection.stream.check_time(now):
                    expired += 1
                    # Thousands of connections may time out together. To close them all in one turn
                    # would hold up every other one.
                    if expired % _MAX_TIMEOUTS_AT_ONCE == 0:
                        await trio.sleep(_TIMEOUTS_PAUSE)
            await trio.sleep(min(1.0, shortest / 8))

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection; no error of it ends the server."""
        counters = self.state.counters
        counters.connections += 1
        if self.find_address is None:
            address = peer_address(stream)
        else:
            try:
                address = await self.find_address(stream)
            except RemoteProtocolError:
                counters.connections_refused += 1
                return
        place = self.limiter.enter(address[0] if address else None, trio.current_time())
        if place is None or place.reserved:
            counters.connections_refused += 1
        if place is None:
            await trio.aclose_forcefully(stream)
            return
        try:
            await self._serve_connection(stream, format_address(address), place.reserved)
        except Exception:
            _log.exception("HTTP connection failed by an internal error")
        finally:
            self.limiter.leave(place, handshake_failed=lacks_handshake(stream))

    async def _serve_connection(
        self, transport: trio.abc.Stream, client: str, reserved: bool
    ) -> None:
        state = self.state
        wire = self.new_wire(state.limits)
        scheme = "https" if isinstance(transport, trio.SSLStream) else "http"
        stream = ServerStream(transport, wire, state.limits, state.half_close)
        connection = ServerConnection(state, stream, wire, client, scheme, reserved)
        self.connections.add(connection)
        try:
            with stream.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(stream.read_until_end)
                    await connection.serve_requests()
                    nursery.cancel_scope.cancel()
        finally:
            self.connections.discard(connection)
            await self._end(connection)  # noqa: ASYNC102 -- shields itself, with a deadline

    async def _end(self, connection: ServerConnection) -> None:
        counters, stream = self.state.counters, connection.stream
        if connection.was_cut or stream.response_pending:
            if stream.disconnected:
                counters.clients_left += 1
            elif not connection.finished:
                counters.responses_cut += 1
            await stream.cut(reset=connection.wire.framed_by_close)
        else:
            await stream.close()


async def _answer_too_many(exchange: Exchange) -> None:
    """Handle a request of a connection over a limit."""
    headers = ((b"content-type", b"text/plain"), (b"retry-after", b"1"))
    await exchange.answer(503, headers, b"too many connections\n")


async def serve_http(  # noqa: ASYNC114, ASYNC128 -- serve_streams calls started()
    handler: Handler,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    *,
    limits: HttpLimits = _DEFAULT_LIMITS,
    graceful: GracefulClose | None = None,
    counters: HttpCounters | None = None,
    limiter: ConnectionLimiter | None = None,
    over_limit: Handler | None = None,
    answer_invalid: AnswerInvalid = answer_invalid_in_text,
    half_close: bool = False,
    find_address: FindAddress | None = None,
    new_wire: Callable[[HttpLimits], ServerWire] = H11ServerWire,
    task_status: trio.TaskStatus[
        Sequence[trio.abc.Listener[trio.abc.Stream]]
    ] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1 on listeners, which are closed at the end.

    Each request is handled by `await handler(exchange)`. If a handler raises, that is logged and
    counted, and its client gets the exception's `status_hint`, or 500 if it has none; a response
    that was begun is cut. If a client disconnects, its handler is cancelled.

    Args:
        handler: Called for each request; the requests of one connection follow one another.
        listeners: Listeners of TCP, of TLS (`trio.SSLListener`), or of any other stream.
        limits: Limits for each client.
        graceful: Closes the server gracefully. Without it the server ends when it is cancelled.
        counters: Where to count; can be shared by servers.
        limiter: Limits the number of connections; can be shared by servers. None for no limit.
        over_limit: Handles the one request of a connection over a limit, and nothing else. It
            should answer a health check, or with an error. The default answers 503.
        answer_invalid: Makes the response to input that is not an acceptable request, which no
            handler gets. The default says what is wrong in plain text.
        half_close: Also serve clients that have closed their sending direction. A disconnect is
            then only noticed when sending fails.
        find_address: Returns the client's address for a new connection, before anything is received
            from it. A `RemoteProtocolError` closes the connection. None for the address of the
            socket.
        new_wire: Creates the parser of a connection.
        task_status: `started()` gets the listeners once they accept connections.

    Returns:
        After `graceful` was begun, when the last connection has ended.

    Cancellation: Every exchange is cut.
    """
    require_trio()
    graceful = graceful if graceful is not None else GracefulClose()
    counters = counters if counters is not None else HttpCounters()
    limiter = limiter if limiter is not None else ConnectionLimiter()
    state = ServerState(
        handler, over_limit or _answer_too_many, answer_invalid, limits, counters, half_close
    )
    server = _HttpServer(state, new_wire, limiter, find_address)
    graceful._servers.add(server)
    try:
        server.state.announced = graceful._announced
        if graceful.begun:
            server.stop(graceful._deadline)
        await server.run(listeners, task_status)
    finally:
        graceful._servers.discard(server)
