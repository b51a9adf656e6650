"""The connections of an upstream client: a limited number, kept alive and reused.

`UpstreamPool` opens, checks and closes connections, and keeps their deadlines. `_connection_slots`
decides who may have one.
"""

import logging
import math
from collections.abc import Callable, Hashable

import attrs
import trio

from bridgepool._network import Dial, describe_failure
from bridgepool.http._connection_slots import ConnectionSlots
from bridgepool.http._errors import ConnectFailed, PoolFull, ShareExceeded, UpstreamTimeout
from bridgepool.http._limits import MessageLimits, UpstreamLimits
from bridgepool.http._upstream_connection import UpstreamConnection
from bridgepool.http._wire import ClientWire

_log = logging.getLogger("bridgepool.http")

_MAX_FAULTS = 8  # that are logged of one upstream: some name a field


@attrs.frozen
class UpstreamStatistics:
    """The current connections of an upstream client, and counters since it was opened."""

    in_use: int
    """Connections that carry a request or are being opened for one."""
    idle: int
    """Kept connections that wait for a request."""
    waiting: int
    """Requests that wait for a connection."""
    opened: int
    """Connections opened."""
    reused: int
    """Requests that began on a kept connection."""
    found_dead: int
    """Kept connections that were found closed before anything was sent on them."""
    retried: int
    """Requests repeated because their kept connection ended without a byte of a response."""
    expired: int
    """Kept connections closed after `idle_expiry`."""
    timed_out: int
    """Connections closed because their upstream exceeded a timeout."""


@attrs.define(eq=False)
class UpstreamPool:
    """Opens connections for requests, lends them, and closes them."""

    _name: str  # of the upstream, for messages
    _dial: Dial
    _new_wire: Callable[[MessageLimits], ClientWire]
    limits: UpstreamLimits
    _slots: ConnectionSlots[UpstreamConnection]
    _open_connections: set[UpstreamConnection] = attrs.field(factory=set)  # taken or idle
    _first_opened: trio.Event = attrs.field(factory=trio.Event)  # wakes an idle timekeeper
    _faults: set[str] = attrs.field(factory=set)  # of response heads, those logged
    _opened: int = 0
    _reused: int = 0
    _found_dead: int = 0
    _retried: int = 0
    _expired: int = 0
    _timed_out: int = 0

    async def take(self, tenant: Hashable) -> UpstreamConnection:
        """Return a live connection, kept or newly opened.

        Raises:
            PoolFull: No connection became free in time, or too many requests wait already.
            ShareExceeded: The same, because the tenant has its share.
            ConnectFailed: A new connection could not be opened.
            UpstreamTimeout: It could not be opened within `connect_timeout`.
            trio.ClosedResourceError: The client is closed.
        """
        slots = self._slots
        try:
            connection = slots.take_nowait(tenant)
        except trio.WouldBlock:
            connection = await self._wait_for_slot(tenant)
        try:
            while connection is not None and connection.is_dead:
                self._found_dead += 1
                await self._close(connection)
                connection = slots.replace()
            if connection is None:
                connection = await self._open()
            else:
                self._reused += 1
        except BaseException:
            slots.release(tenant)
            raise
        connection.tenant = tenant
        return connection

    async def _wait_for_slot(self, tenant: Hashable) -> UpstreamConnection | None:
        with trio.move_on_after(self.limits.wait_timeout):
            return await self._slots.take(tenant)
        waited = f"within {self.limits.wait_timeout} s"
        if self._slots.has_share(tenant):
            raise ShareExceeded(f"no connection to {self._name} of this client ended {waited}")
        raise PoolFull(f"no connection to {self._name} became free {waited}")

    async def _open(self) -> UpstreamConnection:
        with trio.move_on_after(self.limits.connect_timeout) as scope:
            try:
                stream = await self._dial()
            except (OSError, trio.BrokenResourceError) as error:
                raise ConnectFailed(
                    f"cannot connect to {self._name}: {describe_failure(error)}"
                ) from error
        if scope.cancelled_caught:
            raise UpstreamTimeout(
                f"could not connect to {self._name} within {self.limits.connect_timeout} s"
            )
        if self._slots.closed:
            await trio.aclose_forcefully(stream)
            raise trio.ClosedResourceError("the upstream client is closed")
        connection = UpstreamConnection(stream, self._new_wire(self.limits))
        self._opened += 1
        self._open_connections.add(connection)
        self._first_opened.set()
        return connection

    async def reopen(self, dead: UpstreamConnection) -> UpstreamConnection:
        """Close a dead connection and open a new one in its slot."""
        self._retried += 1
        await self._close(dead)
        connection = await self._open()
        connection.tenant = dead.tenant
        return connection

    def keep(self, connection: UpstreamConnection) -> bool:
        """Take back a connection after a complete exchange; False: it must be discarded."""
        if not connection.start_next():
            return False
        connection.read_due = trio.current_time() + self.limits.idle_expiry
        connection.write_due = math.inf
        return self._slots.keep(connection, connection.tenant)

    async def discard(self, connection: UpstreamConnection) -> None:
        """Close a connection and give its slot back, also when cancelled."""
        fault = connection.wire.fault
        if fault and fault not in self._faults and len(self._faults) < _MAX_FAULTS:
            self._faults.add(fault)
            fields = {"upstream": self._name, "fault": fault}
            _log.warning("response heads of an upstream are malformed", extra=fields)
        try:
            await self._close(connection)
        finally:
            self._slots.release(connection.tenant)
            connection.failure = None  # its traceback, once raised, leads back to the connection

    async def _close(self, connection: UpstreamConnection) -> None:
        self._open_connections.discard(connection)
        await connection.aclose()

    async def keep_time(self) -> None:
        """Close overdue connections (runs as a task)."""
        limits = self.limits
        times = limits.head_timeout, limits.read_timeout, limits.write_timeout, limits.idle_expiry
        shortest = min(times)
        if shortest == math.inf:
            return
        while True:
            while not self._open_connections:
                self._first_opened = trio.Event()
                await self._first_opened.wait()
            # A deadline that is set from now on is at least `shortest` ahead, so none is missed.
            now = trio.current_time()
            first = min(connection.due for connection in self._open_connections)
            await trio.sleep_until(max(min(first, now + shortest), now + shortest / 20))
            await self._close_overdue(trio.current_time())

    async def _close_overdue(self, now: float) -> None:
        expired = self._slots.expire(now)
        self._expired += len(expired)
        overdue = [each for each in self._open_connections if each.due <= now]
        silent = [each for each in overdue if each not in expired]
        self._timed_out += len(silent)
        for connection in silent:  # all of them before the first await
            begun = connection.response_begun
            what = "stopped during a response" if begun else "did not respond to a request"
            connection.failure = connection.failure or UpstreamTimeout(f"{self._name} {what}")
        for connection in expired:
            await self._close(connection)
        for connection in silent:
            await connection.aclose()

    async def aclose(self) -> None:
        """Close all connections; running requests get `trio.ClosedResourceError`."""
        self._slots.drain()
        with trio.move_on_after(1, shield=True):
            # Concurrently: each close takes a turn of the scheduler, and hundreds in a row would
            # exceed the deadline in a busy program.
            async with trio.open_nursery() as closing:
                for connection in self._open_connections:
                    closing.start_soon(
                        connection.abort, trio.ClosedResourceError("the upstream client is closed")
                    )
        self._open_connections.clear()

    def statistics(self) -> UpstreamStatistics:
        """Return the current state and the counters."""
        return UpstreamStatistics(
            in_use=self._slots.taken,
            idle=self._slots.idle,
            waiting=self._slots.waiting,
            opened=self._opened,
            reused=self._reused,
            found_dead=self._found_dead,
            retried=self._retried,
            expired=self._expired,
            timed_out=self._timed_out,
        )
