"""Who may use which of a limited number of connections: the keep-alive pool's state.

Theory of operation. The pool hands out *places*, at most `limit` of them. A place is *taken*
(its holder opens a connection in it, or uses the one it was given) or *idle* (a kept
connection waits in it); all others are *free*. Who asks gets, in this order, the connection
that was idle for the shortest time (the likeliest to live, and the others may grow old and
go), a free place to open one in, or a turn in the queue. A place that is given up goes to the
head of the queue at once, together with its connection if that can be kept.

    free --take--> taken --keep--> idle --take--> taken --release--> free
                                   idle --expire / drain--> free

Three things always hold, and the tests check them after every step: taken + idle <= limit;
nobody waits while a place is idle or free; a place is granted to exactly one task, and a task
that was cancelled while it waited was granted none.

Every method but `take` is a plain function that changes the state and returns what is to be
closed: no await stands between a decision and its record. `take` only awaits its turn. The
pool neither opens nor closes a connection and never looks into one, but for `due`.

Cancellation: a grant is recorded before the waiter runs again. If the waiter was cancelled
before that, Trio runs `abandon` and the place goes to the next; if after, the waiter still
returns from `take` with its place and meets the cancellation at its next checkpoint.
"""

from collections import OrderedDict
from typing import Generic, Protocol, TypeVar

import attrs
import trio

from bridgepool.http._errors import PoolFull


class Perishable(Protocol):
    """What a connection must tell the pool."""

    @property
    def due(self) -> float:
        """When to close it, on Trio's clock, should it still be idle."""
        ...


C = TypeVar("C", bound=Perishable)


@attrs.define(eq=False)
class _Waiter(Generic[C]):
    task: trio.lowlevel.Task
    granted: C | None = None
    closed: bool = False


@attrs.define(eq=False)
class ConnectionPool(Generic[C]):
    """Places for connections to one origin; see the module's theory of operation."""

    limit: int
    max_waiting: int
    taken: int = 0
    _idle: list[C] = attrs.field(factory=list)  # the one used last is last
    _waiters: OrderedDict[_Waiter[C], None] = attrs.field(factory=OrderedDict)  # first come first
    closed: bool = False  # drained: admits nobody

    @property
    def idle(self) -> int:
        """How many kept connections wait to be used."""
        return len(self._idle)

    @property
    def waiting(self) -> int:
        """How many tasks wait for a place."""
        return len(self._waiters)

    @property
    def has_room(self) -> bool:
        """Whether `take` would return without waiting."""
        return bool(self._idle) or self.taken < self.limit or self.closed

    async def take(self) -> C | None:
        """Take a place; return its idle connection, or None to open one in it.

        Not a checkpoint unless it has to wait: what the place is for is one.

        Raises:
            PoolFull: `max_waiting` tasks wait already.
            trio.ClosedResourceError: The pool was drained.
        """
        if self.closed:
            raise trio.ClosedResourceError("this client is closed")
        if self.has_room:
            self.taken += 1
            return self._idle.pop() if self._idle else None
        if len(self._waiters) >= self.max_waiting:
            raise PoolFull(f"{len(self._waiters)} requests wait for a connection already")
        return await self._wait_for_turn()

    async def _wait_for_turn(self) -> C | None:
        waiter: _Waiter[C] = _Waiter(trio.lowlevel.current_task())
        self._waiters[waiter] = None

        def abandon(_: object) -> trio.lowlevel.Abort:
            del self._waiters[waiter]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abandon)
        if waiter.closed:
            raise trio.ClosedResourceError("this client is closed")
        return waiter.granted

    def replace(self) -> C | None:
        """Swap the dead connection of a taken place for an idle one; None: open a new one."""
        return self._idle.pop() if self._idle else None

    def keep(self, connection: C) -> bool:
        """Give a place back with a connection that can be used again.

        Returns:
            False when the pool is drained: the caller closes it, and releases the place.
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
        """Give a place back whose connection is closed, or was never opened."""
        if self._waiters:
            self._grant(None)
        else:
            self.taken -= 1

    def _grant(self, connection: C | None) -> None:
        """Hand a taken place to the head of the queue: it stays taken throughout."""
        waiter, _ = self._waiters.popitem(last=False)
        waiter.granted = connection
        trio.lowlevel.reschedule(waiter.task)

    def expire(self, now: float) -> list[C]:
        """Take out the idle connections that are due by `now`; the caller closes them."""
        expired = [connection for connection in self._idle if connection.due <= now]
        if expired:
            self._idle = [connection for connection in self._idle if connection.due > now]
        return expired

    def drain(self) -> list[C]:
        """Admit nobody any more, send those who wait away; the caller closes what was idle."""
        self.closed = True
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            waiter.closed = True
            trio.lowlevel.reschedule(waiter.task)
        idle, self._idle = self._idle, []
        return idle
