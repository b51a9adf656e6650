"""A wake-up time that others can bring forward."""

from math import inf

import trio


class Alarm:
    """Lets one task sleep until something is due, which may turn out to be earlier."""

    def __init__(self) -> None:
        self._due = inf
        self._rung = trio.Event()

    def ring_by(self, when: float) -> None:
        """Wake the sleeper by `when` on Trio's clock; at once if it sleeps for longer."""
        if when < self._due:
            self._rung.set()

    async def wait_until(self, due: float) -> None:
        """Sleep until `due`, or until somebody brings it forward. A checkpoint."""
        self._due = due
        with trio.move_on_at(due):
            await self._rung.wait()
        self._rung = trio.Event()
