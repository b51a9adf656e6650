"""Whose turn it is to build: the bounds on builds under way and on bridges alive.

First come, first served, with one exception: a build that a running build of the same pool waits
for needs no turn, only room alive. The one that waits does nothing meanwhile, so no more of them
work at once; if it kept the other from beginning, both would wait for ever. Where even the room
alive cannot come, because every build that has a place waits for one that has none, that is found
out at once.

A build that was given its turn has it, even if it is cancelled in the same step: it gives the
place back when it ends. So no place is lost between the two.
"""

from collections.abc import Hashable
from itertools import takewhile
from typing import Generic, TypeVar

import trio

from ._bridge import PoolFlight, PoolLedger
from ._errors import CircularWaitError
from ._options import PoolOptions

K = TypeVar("K", bound=Hashable)
P = TypeVar("P")
B = TypeVar("B")


class BuildLimiter(Generic[K, P, B]):
    """Places for builds: so many at once, and so many together with open bridges."""

    def __init__(self, options: PoolOptions, ledger: PoolLedger[K, P, B]) -> None:
        self._max_builds = options.max_concurrent_builds
        self._max_live = options.max_live
        self._ledger = ledger
        # builds that have a place; dicts for their order and for quick removal
        self.holders: dict[PoolFlight[K], None] = {}
        # build -> its task, parked until its turn; those that builds wait for come first
        self.queue: dict[PoolFlight[K], trio.lowlevel.Task] = {}

    def try_admit(self, flight: PoolFlight[K]) -> bool:
        """Give `flight` a place if one is free and nobody came before."""
        if (self.queue and not flight.is_needed) or not self._has_room(flight):
            return False
        self.holders[flight] = None
        return True

    def release(self, flight: PoolFlight[K]) -> None:
        """Take back the place of a build that has ended."""
        del self.holders[flight]

    def queue_up(self, flight: PoolFlight[K]) -> None:
        """Queue the current task, which calls `wait_turn` next, with no checkpoint between."""
        self.queue[flight] = trio.lowlevel.current_task()
        if flight.is_needed:
            self.put_first(flight)
        try:
            self.check_deadlock()
        except CircularWaitError:
            del self.queue[flight]
            raise

    async def wait_turn(self, flight: PoolFlight[K]) -> None:
        """Wait until `flight`, which has queued up, has a place. A checkpoint."""

        def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            del self.queue[flight]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    def put_first(self, flight: PoolFlight[K]) -> None:
        """Let `flight` begin without a turn: a build that has a place waits for it."""
        flight.is_needed = True
        if flight in self.queue:
            self.queue = {flight: self.queue.pop(flight), **self.queue}

    def admit(self) -> None:
        """Give the places that have become free to those whose turn it is."""
        while self.queue and self._has_room(flight := next(iter(self.queue))):
            self.holders[flight] = None
            trio.lowlevel.reschedule(self.queue.pop(flight))

    def starved(self) -> int:
        """Count the builds in the queue that could run if as many open bridges were closed."""
        needed = sum(1 for _ in takewhile(lambda flight: flight.is_needed, self.queue))
        spare = max(0, self._max_builds - len(self.holders))
        return int(min(len(self.queue), needed + spare))

    def check_deadlock(self) -> None:
        """Raise `CircularWaitError` if no build can ever go on.

        That is so when no bridge is open that could close, and each build that has a place waits,
        directly or through others, for one that has none.
        """
        if not self.queue or self._ledger.open_count:
            return
        chains = [self._blocked_by(build) for build in self.holders]
        if all(chains):
            keys = [flight.key for flight in (*chains[0], chains[0][0])]
            reason = f"{keys[-2]!r} lacks a place: max_live={self._max_live:g}"
            raise CircularWaitError(keys, reason)

    def _blocked_by(self, build: PoolFlight[K]) -> list[PoolFlight[K]]:
        """List the flights from `build` to one in the queue that it waits for; empty if none."""
        for other in build.waits_for:
            if other in self.queue:
                return [build, other]
            if other in self.holders and (rest := self._blocked_by(other)):
                return [build, *rest]
        return []

    def _has_room(self, flight: PoolFlight[K]) -> bool:
        building = len(self.holders)
        has_turn = flight.is_needed or building < self._max_builds
        return has_turn and building + self._ledger.open_count < self._max_live
