"""The end of a gateway in the moment in which something has just come."""

from __future__ import annotations

import attrs
import trio


@attrs.define(eq=False)
class AtOnce(trio.abc.Instrument):
    """Cancels a scope when a task has what it waited for, and has not run yet."""

    task_name: str
    """The end of its name."""
    scope: trio.CancelScope
    has_cancelled: bool = False

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        """See `trio.abc.Instrument`."""
        if not self.has_cancelled and task.name.endswith(self.task_name):
            self.has_cancelled = True
            self.scope.cancel()


async def host(task_status: trio.TaskStatus[trio.Nursery]) -> None:
    """Hold what is cancelled (runs as a task)."""
    async with trio.open_nursery() as nursery:
        task_status.started(nursery)
        await trio.sleep_forever()
