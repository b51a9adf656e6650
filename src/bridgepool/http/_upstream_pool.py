"""The connections of an upstream client: a limited number, kept alive and reused.

Theory of operation. `ConnectionSlots` hands out *slots*, at most `limit` of them. A slot is *taken*
(its holder opens a connection in it, or uses the one it was given) or *idle* (a kept connection
waits in it); all others are *free*. `take` grants, in this order: the connection that was idle for
the shortest time (the one most likely to be alive; the others may expire), a free slot to open one
in, or a turn in the queue. A slot that is given back goes to the head of the queue at once, with
its connection if that can be kept.

    free --take--> taken --keep--> idle --take--> taken --release--> free
                                   idle --expire / drain--> free

Three invariants hold, and the tests check them after every step: taken + idle <= limit; no task
waits while a slot is idle or free; each slot is granted to exactly one task, and never to a task
that was cancelled while it waited.

Every method but `take` is a plain function that changes the state and returns the connections to
be closed: there is no await between a decision and its record. `take` only awaits its turn.
`ConnectionSlots` neither opens nor closes connections, and of a connection it reads only `due`.
`UpstreamPool` does the I/O: it opens, checks and closes connections, and keeps their deadlines.

Cancellation: a grant is recorded before the waiter runs again. If the waiter was cancelled before
that, Trio calls `abandon` and the slot goes to the next; if after, the waiter still returns from
`take` with its slot and is cancelled at its next checkpoint.
"""

import math
from collections import OrderedDict
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar

import attrs
import trio

from bridgepool._network import Dial, describe_failure
from bridgepool.http._errors import ConnectFailed, PoolFull, UpstreamTimeout
from bridgepool.http._limits import MessageLimits, UpstreamLimits
from bridgepool.http._upstream_connection import UpstreamConnection
from bridgepool.http._wire import ClientWire


class Expiring(Protocol):
    """A connection as the pool knows it."""

    @property
    def due(self) -> float:
        """When to close it if it is still idle, on Trio's clock."""
        ...


C = TypeVar("C", bound=Expiring)


@attrs.define(eq=False)
class _Waiter(Generic[C]):
    task: trio.lowlevel.Task
    granted: C | None = None
    closed: bool = False


@attrs.define(eq=False)
class ConnectionSlots(Generic[C]):
    """The slots for connections to one origin; see the module's theory of operation."""

    limit: int
    max_waiting: int
    taken: int = 0
    _idle: list[C] = attrs.field(factory=list)  # least recently used first
    _waiters: OrderedDict[_Waiter[C], None] = attrs.field(
        factory=OrderedDict
    )  # the first one is next
    closed: bool = False  # drained: no slot is granted any more

    @property
    def idle(self) -> int:
        """The number of kept connections that wait for a request."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """The number of tasks that wait for a slot."""
        return len(self._waiters)

    @property
    def has_room(self) -> bool:
        """Whether `take` would return without waiting."""
        return bool(self._idle) or self.taken < self.limit or self.closed

    async def take(self) -> C | None:
        """Take a slot; return its idle connection, or None to open one in it.

        Only a checkpoint if it must wait: using the connection is one.

        Raises:
            PoolFull: `max_waiting` tasks are waiting already.
            trio.ClosedResourceError: The pool was drained.
        """
        if self.closed:
            raise trio.ClosedResourceError("the upstream client is closed")
        if self.has_room:
            self.taken += 1
            return self._idle.pop() if self._idle else None
        if len(self._waiters) >= self.max_waiting:
            raise PoolFull(f"{len(self._waiters)} requests are already waiting for a connection")
        return await self._wait_for_turn()

    async def _wait_for_turn(self) -> C | None:
        waiter: _Waiter[C] = _Waiter(trio.lowlevel.current_task())
        self._waiters[waiter] = None

        def abandon(_: object) -> trio.lowlevel.Abort:
            del self._waiters[waiter]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abandon)
        if waiter.closed:
            raise trio.ClosedResourceError("the upstream client is closed")
        return waiter.granted

    def replace(self) -> C | None:
        """Replace the dead connection of a taken slot by an idle one; None: open a new one."""
        return self._idle.pop() if self._idle else None

    def keep(self, connection: C) -> bool:
        """Give a slot back with a connection that can be reused.

        Returns:
            False if the pool is drained: the caller closes it and releases the slot.
        """
        if self.closed:
            return False
        if self._waiters:
            self._grant(connection)
        else:
            self.taken -= 1
            self._idle.append(connection)
        return True

    def release(self) -> None:
        """Give a slot back whose connection is closed, or was never opened."""
        if self._waiters:
            self._grant(None)
        else:
            self.taken -= 1

    def _grant(self, connection: C | None) -> None:
        """Pass a taken slot to the head of the queue; it stays taken throughout."""
        waiter, _ = self._waiters.popitem(last=False)
        waiter.granted = connection
        trio.lowlevel.reschedule(waiter.task)

    def expire(self, now: float) -> list[C]:
        """Remove the idle connections that are due by `now`; the caller closes them."""
        expired = [connection for connection in self._idle if connection.due <= now]
        if expired:
            self._idle = [connection for connection in self._idle if connection.due > now]
        return expired

    def drain(self) -> list[C]:
        """Grant no more slots and fail the waiters; the caller closes the idle connections."""
        self.closed = True
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            waiter.closed = True
            trio.lowlevel.reschedule(waiter.task)
        idle, self._idle = self._idle, []
        return idle


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
    _opened: int = 0
    _reused: int = 0
    _found_dead: int = 0
    _retried: int = 0
    _expired: int = 0
    _timed_out: int = 0

    async def take(self) -> UpstreamConnection:
        """Return a live connection, kept or newly opened.

        Raises:
            PoolFull: No connection became free in time, or too many requests wait already.
            ConnectFailed: A new connection could not be opened.
            UpstreamTimeout: It could not be opened within `connect_timeout`.
            trio.ClosedResourceError: The client is closed.
        """
        slots = self._slots
        connection = await (slots.take() if slots.has_room else self._wait_for_slot())
        try:
            while connection is not None and connection.is_dead:
                self._found_dead += 1
                await self._close(connection)
                connection = slots.replace()
            if connection is None:
                return await self._open()
        except BaseException:
            slots.release()
            raise
        self._reused += 1
        return connection

    async def _wait_for_slot(self) -> UpstreamConnection | None:
        with trio.move_on_after(self.limits.wait_timeout):
            return await self._slots.take()
        raise PoolFull(
            f"no connection to {self._name} became free within {self.limits.wait_timeout} s"
        )

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
        return await self._open()

    def keep(self, connection: UpstreamConnection) -> bool:
        """Take back a connection after a complete exchange; False: it must be discarded."""
        if not connection.start_next():
            return False
        connection.read_due = trio.current_time() + self.limits.idle_expiry
        connection.write_due = math.inf
        return self._slots.keep(connection)

    async def discard(self, connection: UpstreamConnection) -> None:
        """Close a connection and give its slot back, also when cancelled."""
        try:
            await self._close(connection)
        finally:
            self._slots.release()

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
