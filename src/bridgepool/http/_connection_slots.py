"""The connection slots of an upstream client: who may have a connection, and who is next.

Theory of operation. `ConnectionSlots` hands out *slots*, at most `limit` of them. A slot is *taken*
(its holder opens a connection in it, or uses the one it was given) or *idle* (a kept connection
waits in it); all others are *free*. `take` grants, in this order: the connection that was idle for
the shortest time (the one most likely to be alive; the others may expire), a free slot to open one
in, or a turn in the queue. A slot that is given back goes to the next in the queue at once, with
its connection if that can be kept.

    free --take--> taken --keep--> idle --take--> taken --release--> free
                                   idle --expire / drain--> free

Slots are shared between *tenants*, named by whoever takes one. A tenant may hold at most `share` of
the slots that the others leave it. So the slots that are left get fewer with each tenant that takes
all it can get, and are never used up by one: with a share of 0.5, one greedy tenant gets a half,
two get a third each. A tenant without a slot can always take one that is free. The places in the
queue are shared in the same way. Tenants that wait take turns, each tenant's own tasks in their
order of arrival.

Three invariants hold, and the tests check them after every step: taken + idle <= limit; no task
waits while a slot is idle or free, unless its tenant has its share; each slot is granted to exactly
one task, and never to a task that was cancelled while it waited.

Every method but `take` is a plain function that changes the state and returns the connections to
be closed: there is no await between a decision and its record. `take` only awaits its turn.
`ConnectionSlots` neither opens nor closes connections, and of a connection it reads only `due`.

Cancellation: a grant is recorded before the waiter runs again. If the waiter was cancelled before
that, Trio calls `abandon` and the slot stays with the others; if after, the waiter still returns
from `take` with its slot and is cancelled at its next checkpoint.
"""

from collections import OrderedDict
from collections.abc import Hashable
from contextlib import suppress
from typing import Generic, Protocol, TypeVar

import attrs
import trio

from bridgepool.http._errors import PoolFull, ShareExceeded


class Expiring(Protocol):
    """A connection as the slots know it."""

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
    share: float = 1.0
    taken: int = 0
    waiting: int = 0
    closed: bool = False  # drained: no slot is granted any more
    _idle: list[C] = attrs.field(factory=list)  # least recently used first
    _held: dict[Hashable, int] = attrs.field(factory=dict)  # tenant -> slots taken, if any
    # tenant -> its waiters, the first of them next; the first tenant is next
    _queues: OrderedDict[Hashable, OrderedDict[_Waiter[C], None]] = attrs.field(factory=OrderedDict)

    @property
    def idle(self) -> int:
        """The number of kept connections that wait for a request."""
        return len(self._idle)

    @property
    def _has_slot(self) -> bool:
        return bool(self._idle) or self.taken < self.limit

    def has_share(self, tenant: Hashable) -> bool:
        """Return whether a tenant holds as many slots as it may."""
        held = self._held.get(tenant, 0)
        return held >= self.share * (self.limit - (self.taken - held))

    def take_nowait(self, tenant: Hashable = None) -> C | None:
        """Take a slot; return its idle connection, or None to open one in it.

        Raises:
            trio.WouldBlock: There is none, or the tenant has its share.
            trio.ClosedResourceError: The pool was drained.
        """
        if self.closed:
            raise trio.ClosedResourceError("the upstream client is closed")
        if not self._has_slot or self.has_share(tenant):
            raise trio.WouldBlock
        return self._grant(tenant)

    async def take(self, tenant: Hashable = None) -> C | None:
        """Take a slot, and wait for a turn if there is none; otherwise as `take_nowait`.

        Only a checkpoint if it must wait: using the connection is one.

        Raises:
            PoolFull: `max_waiting` tasks are waiting already.
            ShareExceeded: The tenant has its share of the places in the queue.
            trio.ClosedResourceError: The pool was drained.
        """
        with suppress(trio.WouldBlock):
            return self.take_nowait(tenant)
        if self.waiting >= self.max_waiting:
            raise PoolFull(f"{self.waiting} requests are already waiting for a connection")
        own = len(self._queues.get(tenant, ()))
        if own >= self.share * (self.max_waiting - (self.waiting - own)):
            raise ShareExceeded(f"{own} requests of this client are already waiting")
        return await self._wait_for_turn(tenant)

    def _grant(self, tenant: Hashable) -> C | None:
        self.taken += 1
        self._held[tenant] = self._held.get(tenant, 0) + 1
        return self._idle.pop() if self._idle else None

    async def _wait_for_turn(self, tenant: Hashable) -> C | None:
        waiter: _Waiter[C] = _Waiter(trio.lowlevel.current_task())
        self._queues.setdefault(tenant, OrderedDict())[waiter] = None
        self.waiting += 1

        def abandon(_: object) -> trio.lowlevel.Abort:
            self._remove(tenant, waiter)
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(abandon)
        if waiter.closed:
            raise trio.ClosedResourceError("the upstream client is closed")
        return waiter.granted

    def _remove(self, tenant: Hashable, waiter: _Waiter[C]) -> None:
        self.waiting -= 1
        queue = self._queues[tenant]
        del queue[waiter]
        if not queue:
            del self._queues[tenant]

    def replace(self) -> C | None:
        """Replace the dead connection of a taken slot by an idle one; None: open a new one."""
        return self._idle.pop() if self._idle else None

    def keep(self, connection: C, tenant: Hashable = None) -> bool:
        """Give a slot back with a connection that can be reused.

        Returns:
            False if the pool is drained: the caller closes it and releases the slot.
        """
        if self.closed:
            return False
        self._idle.append(connection)
        self.release(tenant)
        return True

    def release(self, tenant: Hashable = None) -> None:
        """Give a slot back whose connection is closed, or was never opened."""
        self.taken -= 1
        self._held[tenant] -= 1
        if not self._held[tenant]:
            del self._held[tenant]
        self._grant_turns()

    def _grant_turns(self) -> None:
        """Grant slots to those that wait."""
        while self._queues and self._has_slot:
            for tenant in self._queues:
                if not self.has_share(tenant):
                    break
            else:
                return
            waiter = next(iter(self._queues[tenant]))
            self._remove(tenant, waiter)
            if tenant in self._queues:
                self._queues.move_to_end(tenant)
            waiter.granted = self._grant(tenant)
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
        self.waiting = 0
        while self._queues:
            _, queue = self._queues.popitem(last=False)
            for waiter in queue:
                waiter.closed = True
                trio.lowlevel.reschedule(waiter.task)
        idle, self._idle = self._idle, []
        return idle
