"""Whose turn it is to build: the bounds on builds under way and on bridges alive.

First come, first served. A build that was given its turn has it, even if it is cancelled in
the same step: it gives the place back when it ends. So no place is lost between the two.
"""

import trio


class BuildLimiter:
    """Places for builds: `max_builds` at once, and `max_live` together with open bridges."""

    def __init__(self, max_builds: float, max_live: float) -> None:
        self._max_builds = max_builds
        self._max_live = max_live
        # tasks parked for their turn, the first to come first; a dict for quick removal
        self.queue: dict[trio.lowlevel.Task, None] = {}
        self.building = 0

    def try_take(self, open_bridges: int) -> bool:
        """Take a place if one is free and nobody came before."""
        if self.queue or not self._has_room(open_bridges):
            return False
        self.building += 1
        return True

    def queue_up(self) -> None:
        """Queue the current task, which calls `wait_turn` next, with no checkpoint between."""
        self.queue[trio.lowlevel.current_task()] = None

    async def wait_turn(self) -> None:
        """Wait until the current task, which has queued up, has a place. A checkpoint."""
        task = trio.lowlevel.current_task()

        def leave(_: trio.lowlevel.RaiseCancelT) -> trio.lowlevel.Abort:
            del self.queue[task]
            return trio.lowlevel.Abort.SUCCEEDED

        await trio.lowlevel.wait_task_rescheduled(leave)

    def admit(self, open_bridges: int) -> None:
        """Give the places that have become free to those whose turn it is."""
        while self.queue and self._has_room(open_bridges):
            task = next(iter(self.queue))
            del self.queue[task]
            self.building += 1
            trio.lowlevel.reschedule(task)

    def starved(self) -> int:
        """How many builds in the queue could run if as many open bridges were closed."""
        spare = self._max_builds - self.building
        if not self.queue or spare <= 0:
            return 0
        return int(min(len(self.queue), spare))

    def _has_room(self, open_bridges: int) -> bool:
        return self.building < self._max_builds and self.building + open_bridges < self._max_live
