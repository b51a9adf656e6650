"""`serve_http`: a handler of exchanges on any of Trio's listeners."""

import email.utils
import logging
import math
from collections.abc import Callable, Sequence

import attrs
import trio

from bridgepool._network import format_address, peer_address
from bridgepool.http._exchange import Handler
from bridgepool.http._h11_wires import H11ServerWire
from bridgepool.http._limits import HttpLimits
from bridgepool.http._server_connection import Conversation, HttpCounters, Service
from bridgepool.http._server_stream import Link
from bridgepool.http._wire import ServerWire

_log = logging.getLogger("bridgepool.http")
_DEFAULT_LIMITS = HttpLimits()
_MOST_REFUSING = 100  # connections that are told why they are sent away, at the same time
_REFUSING = 1.0  # seconds for each of them
_ONE_TOO_MANY = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: text/plain\r\ncontent-length: 21\r\n"
    b"retry-after: 1\r\nconnection: close\r\n\r\ntoo many connections\n"
)


@attrs.define(eq=False)
class GracefulClose:
    """The handle by which running servers are closed; give it to any number of `serve_http`."""

    _servers: "set[_Server]" = attrs.field(factory=set, init=False)
    _deadline: float = attrs.field(default=math.inf, init=False)
    _begun: bool = attrs.field(default=False, init=False)

    @property
    def begun(self) -> bool:
        """Whether the servers are closing."""
        return self._begun

    def begin(self, within: float) -> None:
        """Have the servers accept no more, end when they are idle, and cut what is left then.

        Connections without a request are closed, running exchanges finish. A second call can
        only shorten the time: `begin(0)` cuts at once.

        Args:
            within: Seconds from now after which exchanges are cut; `math.inf` for never.
        """
        self._begun = True
        self._deadline = min(self._deadline, trio.current_time() + within)
        for server in self._servers:
            server.stop(self._deadline)


@attrs.define(eq=False)
class _Server:
    """One run of `serve_http`."""

    service: Service
    new_wire: Callable[[HttpLimits], ServerWire]
    accepting: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    serving: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    conversations: set[Conversation] = attrs.field(factory=set)
    refusing: int = 0  # connections that are being told that they are too many

    async def run(  # noqa: ASYNC114, ASYNC128 - serve_listeners calls started()
        self,
        listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
        task_status: trio.TaskStatus[Sequence[trio.abc.Listener[trio.abc.Stream]]],
    ) -> None:
        async with trio.open_nursery() as clock:
            clock.start_soon(self.keep_time)
            with self.serving:
                async with trio.open_nursery() as connections:
                    with self.accepting:
                        await trio.serve_listeners(
                            self.serve,
                            list(listeners),
                            handler_nursery=connections,
                            task_status=task_status,
                        )
            clock.cancel_scope.cancel()

    def stop(self, deadline: float) -> None:
        self.service.closing = True
        self.accepting.cancel()
        self.serving.deadline = deadline
        for conversation in self.conversations:
            conversation.link.wake()

    async def keep_time(self) -> None:
        """Look after every connection's deadlines; see `link`."""
        limits = self.service.limits
        shortest = min(
            limits.header_timeout, limits.idle_timeout, limits.body_timeout, limits.send_timeout
        )
        while True:
            self.service.date = email.utils.formatdate(usegmt=True).encode()
            now = trio.current_time()
            for conversation in self.conversations:
                conversation.link.check_time(now)
            await trio.sleep(min(1.0, shortest / 8))

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection; whatever happens on it, the server goes on."""
        self.service.counters.connections += 1
        try:
            if len(self.conversations) < self.service.limits.max_connections:
                await self._converse(stream)
            else:
                await self._refuse(stream)
        except Exception:
            _log.exception("a connection ended by an error of the server's own")

    async def _refuse(self, stream: trio.abc.Stream) -> None:
        """Send a connection away that is one too many, and say why if that costs little."""
        self.service.counters.connections_refused += 1
        self.refusing += 1
        try:
            if self.refusing <= _MOST_REFUSING:
                with trio.move_on_after(_REFUSING):
                    # Its request first: closing with that unread would reset the answer away.
                    await stream.receive_some(65536)
                    await stream.send_all(_ONE_TOO_MANY)
        except trio.BrokenResourceError:
            pass  # it has left already
        finally:
            self.refusing -= 1
            await trio.aclose_forcefully(stream)

    async def _converse(self, stream: trio.abc.Stream) -> None:
        service = self.service
        wire = self.new_wire(service.limits)
        client = format_address(peer_address(stream))
        scheme = "https" if isinstance(stream, trio.SSLStream) else "http"
        link = Link(stream, wire, service.limits, service.half_close)
        conversation = Conversation(service, link, wire, client, scheme)
        self.conversations.add(conversation)
        try:
            with link.scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(link.read)
                    await conversation.run()
                    nursery.cancel_scope.cancel()
        finally:
            self.conversations.discard(conversation)
            await self._end(conversation)  # noqa: ASYNC102 - shields itself, with a deadline

    async def _end(self, conversation: Conversation) -> None:
        counters, link = self.service.counters, conversation.link
        if conversation.was_cut or link.watched:
            if link.gone:
                counters.clients_left += 1
            elif not conversation.finished:
                counters.responses_cut += 1
            await link.cut(reset=conversation.wire.framed_by_close)
        else:
            await link.close()


async def serve_http(  # noqa: ASYNC114, ASYNC128 - serve_listeners calls started()
    handler: Handler,
    listeners: Sequence[trio.abc.Listener[trio.abc.Stream]],
    *,
    limits: HttpLimits = _DEFAULT_LIMITS,
    graceful: GracefulClose | None = None,
    counters: HttpCounters | None = None,
    half_close: bool = False,
    new_wire: Callable[[HttpLimits], ServerWire] = H11ServerWire,
    task_status: trio.TaskStatus[
        Sequence[trio.abc.Listener[trio.abc.Stream]]
    ] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve HTTP/1 on listeners, which are closed at the end.

    Each request is handled by `await handler(exchange)`. A handler that raises is logged and
    counted; its client gets the status that the exception hints at, else 500, or sees the
    response cut if it was begun. When a client leaves, its handler is cancelled.

    Args:
        handler: Called for each request; requests of one connection follow one another.
        listeners: Of TCP, of TLS (`trio.SSLListener`), or any others of streams.
        limits: How much and how long is taken from one client.
        graceful: The handle to close the server by; without it, cancelling cuts everything.
        counters: Where to count; may be shared with other servers.
        half_close: Answer clients also that have closed their sending direction. It is then
            noticed by a failing send only that a client has left.
        new_wire: Makes the parser of a connection.
        task_status: `started()` gets the listeners, once they accept.

    Returns:
        After `graceful` was begun, when the last connection has ended.

    Cancellation: Every exchange is cut.
    """
    graceful = graceful if graceful is not None else GracefulClose()
    counters = counters if counters is not None else HttpCounters()
    server = _Server(Service(handler, limits, counters, half_close), new_wire)
    graceful._servers.add(server)
    try:
        if graceful.begun:
            server.stop(graceful._deadline)
        await server.run(listeners, task_status)
    finally:
        graceful._servers.discard(server)
