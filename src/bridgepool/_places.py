"""Whose turn it is to build: the bounds on builds under way and on bridges alive.

First come, first served. A build that was given its turn has it, even if it is cancelled in
the same step: it gives the place back when it ends. So no place is lost between the two.
"""

from collections.abc import Callable

import trio


class BuildPlaces:
    """Places for builds: `max_builds` at once, and `max_live` together with open bridges."""

    def __init__(self, max_builds: float, max_live: float, open_bridges: Callable[[], int]) -> None:
        self._max_builds = max_builds
        self._max_live = max_live
        self._open_bridges = open_bridges
        # tasks parked for their turn, the first to come first; a dict for quick removal
        self._queue: dict[trio.lowlevel.Task, None] = {}
        self.building = 0

    @property
    def queued(self) -> int:
        """How many builds wait for their turn."""
        return len(self._queue)

    def try_take(self) -> bool:
        """Take a place if one is free and nobody came before."""
        if self._queue or not self._has_room():
            return False
        self.building += 1
        return True

    def queue_up(self) -> None:
        """Queue the current task, which calls `wait_turn` next, with no checkpoint between."""
        self._queue[trio.lowlevel.current_task()] = None

    async def wait_turn(self) -> None:
        """Wait until the current task, which has queued up, has a place. A checkpoint."""
        task = trio.lowlevel.current_task()

        def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            del self._queue[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    def admit(self) -> None:
        """Give the places that have become free to those whose turn it is."""
        while self._queue and self._has_room():
            task = next(iter(self._queue))
            del self._queue[task]
            self.building += 1
            trio.lowlevel.reschedule(task)

    def starved(self) -> int:
        """How many builds in the queue could run if as many open bridges were closed."""
        spare = self._max_builds - self.building
        if not self._queue or spare <= 0:
            return 0
        return int(min(len(self._queue), spare))

    def _has_room(self) -> bool:
        return (
            self.building < self._max_builds
            and self.building + self._open_bridges() < self._max_live
        )
