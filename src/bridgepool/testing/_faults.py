"""A TCP proxy on loopback that injects the faults of real networks on request.

Each connection has one task for each direction, a leg. Before each piece a leg reads the current
faults of the proxy; a change of the faults wakes the legs that wait.
"""

import contextlib
import enum
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from .._services import open_background_nursery

_PIECE = 16 << 10


class Toward(enum.Flag):
    """A direction of the bytes."""

    TARGET = enum.auto()
    """From the client to the server behind the proxy."""
    CLIENT = enum.auto()
    """From the server behind the proxy to the client."""
    BOTH = TARGET | CLIENT


@attrs.frozen
class FaultProxyStatistics:
    """The counts of a `FaultProxy` so far."""

    accepted: int
    """All connections, including refused ones."""
    refused: int
    """Connections reset immediately: by `refuse`, or because the target did not listen."""
    open: int
    """Connections that the proxy still holds."""
    cut: int
    """Connections reset by `cut` and `cut_after`."""
    bytes_to_target: int
    bytes_to_client: int


@attrs.define(eq=False)
class _Fault:
    """The faults of one direction."""

    hole: bool = False
    delay: float = 0.0
    rate: float = 0.0
    # bytes to pass before the bytes to invert, and how many of those; none if 0
    skip: int = 0
    corrupt: int = 0
    # bytes to pass before the reset; None for no reset
    cut_after: int | None = None


@attrs.define(eq=False)
class _Connection:
    """One connection through the proxy, and its two sockets."""

    client: trio.SocketStream
    target: trio.SocketStream | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)
    # the directions that have ended
    ended: Toward = attrs.field(factory=lambda: Toward(0))

    def sink(self, toward: Toward) -> trio.SocketStream | None:
        return self.target if toward is Toward.TARGET else self.client


def _reset(stream: trio.SocketStream | None) -> None:
    """Close a socket immediately, so that the other end sees a reset."""
    if stream is not None and stream.socket.fileno() >= 0:
        linger = struct.pack("ii", 1, 0)
        stream.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        stream.socket.close()


class FaultProxy:
    """A proxy in front of a server under test; see `open_fault_proxy`.

    Faults add up, hold for the connections that are there and for those to come, and last
    until `heal`.
    """

    def __init__(self, host: str, port: int, listener: trio.SocketListener) -> None:
        self._target = (host, port)
        self._listener = listener
        self.port: int = listener.socket.getsockname()[1]
        """The port to connect to, on 127.0.0.1."""
        self._faults = {Toward.TARGET: _Fault(), Toward.CLIENT: _Fault()}
        self._refusing = False
        self._connections: set[_Connection] = set()
        self._passed = {Toward.TARGET: 0, Toward.CLIENT: 0}
        self._accepted = self._refused = self._cut = 0
        # set, and replaced, at each change
        self._changed = trio.Event()

    # -- faults ---------------------------------------------------------------------------

    def delay(self, seconds: float, toward: Toward = Toward.BOTH) -> None:
        """Delay each piece; bytes that arrive meanwhile belong to the next piece."""
        for fault in self._of(toward):
            fault.delay = seconds

    def throttle(self, bytes_per_second: float, toward: Toward = Toward.BOTH) -> None:
        """Limit each connection to `bytes_per_second`."""
        for fault in self._of(toward):
            fault.rate = bytes_per_second

    def black_hole(self, toward: Toward = Toward.BOTH) -> None:
        """Pass nothing, not even the end of a connection; new connections are accepted and wait.

        Nothing is lost: held bytes are passed after `heal`, as TCP would retransmit them.
        """
        for fault in self._of(toward):
            fault.hole = True

    def corrupt(self, count: int = 1, *, skip: int = 0, toward: Toward = Toward.BOTH) -> None:
        """Invert the next `count` bytes, after `skip` bytes that pass unchanged."""
        for fault in self._of(toward):
            fault.corrupt, fault.skip = count, skip

    def cut(self, toward: Toward = Toward.BOTH) -> None:
        """Reset every open connection.

        Args:
            toward: The sides that see a reset. With one side only, the connection is half-open:
                the other side receives nothing more until `heal`.
        """
        for connection in tuple(self._connections):
            self._cut_one(connection, toward)

    def cut_after(self, count: int, toward: Toward) -> None:
        """Reset once the connection on which the next `count` bytes of a direction have passed."""
        for fault in self._of(toward):
            fault.cut_after = count

    def close_half(self, toward: Toward) -> None:
        """End one direction of each open connection, as `shutdown` of a socket does."""
        for connection in tuple(self._connections):
            connection.ended |= toward
            for one in (Toward.TARGET, Toward.CLIENT):
                sink = connection.sink(one)
                if one in toward and sink is not None:
                    with contextlib.suppress(OSError):  # it has ended already
                        sink.socket.shutdown(socket.SHUT_WR)
        self._change()

    def refuse(self) -> None:
        """Reset new connections immediately."""
        self._refusing = True

    def heal(self) -> None:
        """End all faults. Connections that were cut stay cut; half-open ones are reset."""
        self._faults = {Toward.TARGET: _Fault(), Toward.CLIENT: _Fault()}
        self._refusing = False
        for connection in tuple(self._connections):
            if connection.client.socket.fileno() < 0 or (
                connection.target is not None and connection.target.socket.fileno() < 0
            ):
                self._drop(connection)
        self._change()

    # -- what happened --------------------------------------------------------------------

    def statistics(self) -> FaultProxyStatistics:
        """Return the counts so far."""
        return FaultProxyStatistics(
            self._accepted,
            self._refused,
            len(self._connections),
            self._cut,
            self._passed[Toward.TARGET],
            self._passed[Toward.CLIENT],
        )

    async def wait_accepted(self, count: int) -> None:
        """Wait until `count` connections were accepted since the proxy was opened.

        A checkpoint.
        """
        await trio.lowlevel.checkpoint()
        while self._accepted < count:
            await self._changed.wait()

    # -- the works ------------------------------------------------------------------------

    def _of(self, toward: Toward) -> list[_Fault]:
        """Return the faults of the directions, to be changed now."""
        self._change()
        return [fault for one, fault in self._faults.items() if one in toward]

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def _cut_one(self, connection: _Connection, toward: Toward) -> None:
        self._cut += 1
        if toward is Toward.BOTH:
            self._drop(connection)
        else:
            connection.ended = Toward.BOTH
            _reset(connection.sink(toward))
            self._change()

    def _drop(self, connection: _Connection) -> None:
        _reset(connection.client)
        _reset(connection.target)
        connection.scope.cancel()

    async def _serve(self, client: trio.SocketStream) -> None:
        self._accepted += 1
        self._change()
        connection = _Connection(client)
        self._connections.add(connection)
        try:
            with connection.scope:
                await self._carry(connection)
        finally:
            self._drop(connection)
            self._connections.discard(connection)

    async def _carry(self, connection: _Connection) -> None:
        if self._refusing:
            self._refused += 1
            return
        await self._pass_hole(Toward.TARGET)
        try:
            connection.target = await trio.open_tcp_stream(*self._target)
        except OSError:
            self._refused += 1
            return
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_leg, connection, Toward.TARGET)
            nursery.start_soon(self._run_leg, connection, Toward.CLIENT)
        if connection.ended is Toward.BOTH:  # half-open: one side is not to know
            await trio.sleep_forever()
        # Both directions have ended normally: let the bytes in flight arrive.
        for stream in (connection.client, connection.target):
            await stream.aclose()

    async def _run_leg(self, connection: _Connection, toward: Toward) -> None:
        source = connection.client if toward is Toward.TARGET else connection.target
        sink = connection.sink(toward)
        if source is None or sink is None:
            raise AssertionError(connection)
        try:
            while data := await source.receive_some(_PIECE):
                await self._pass(connection, toward, sink, bytes(data))
            await self._pass_hole(toward)
            if toward not in connection.ended:
                await sink.send_eof()
        except (trio.BrokenResourceError, trio.ClosedResourceError):
            if connection.ended is not Toward.BOTH:
                await self._pass_hole(toward)  # a reset is no more passed than anything else
                self._drop(connection)

    async def _pass_hole(self, toward: Toward) -> None:
        while self._faults[toward].hole:
            await self._changed.wait()

    async def _pass(
        self, connection: _Connection, toward: Toward, sink: trio.SocketStream, data: bytes
    ) -> None:
        if delay := self._faults[toward].delay:
            await self._rest(delay, toward)
        while data and toward not in connection.ended:
            await self._pass_hole(toward)
            fault = self._faults[toward]
            size = len(data) if not fault.rate else max(1, int(fault.rate / 20))
            if fault.cut_after is not None:
                size = min(size, max(fault.cut_after, 0))
            piece, data = data[:size], data[size:]
            if piece:
                await sink.send_all(_damage(fault, piece))
                self._passed[toward] += len(piece)
            if fault.cut_after is not None:
                fault.cut_after -= len(piece)
                if fault.cut_after <= 0:
                    fault.cut_after = None
                    self._cut_one(connection, Toward.BOTH)
                    await trio.sleep_forever()  # cancelled with the connection
            if fault.rate:
                await self._rest(len(piece) / fault.rate, toward)

    async def _rest(self, seconds: float, toward: Toward) -> None:
        """Sleep, at most until the fault ends."""
        fault = self._faults[toward]
        with trio.move_on_after(seconds):
            while fault is self._faults[toward]:
                await self._changed.wait()


def _damage(fault: _Fault, piece: bytes) -> bytes:
    if not fault.corrupt:
        return piece
    start = min(fault.skip, len(piece))
    end = min(start + fault.corrupt, len(piece))
    fault.skip -= start
    fault.corrupt -= end - start
    return piece[:start] + bytes(byte ^ 0xFF for byte in piece[start:end]) + piece[end:]


@asynccontextmanager
async def open_fault_proxy(target_host: str, target_port: int) -> AsyncIterator[FaultProxy]:
    """Open a TCP proxy on loopback that breaks connections on request.

    It passes bytes faithfully until one of its methods is called; they take effect at once, on
    live connections too, and none of them is async.

    Args:
        target_host: Where the server under test is.
        target_port: Its port. It need not be listening yet.

    Resource handling: All connections are reset at the end of the block.
    """
    listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
    proxy = FaultProxy(target_host, target_port, listeners[0])
    async with open_background_nursery() as nursery:
        await nursery.start(trio.serve_listeners, proxy._serve, listeners)
        yield proxy
