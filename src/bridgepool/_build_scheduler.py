"""The flights of a pool: when a build is cancelled, and how.

The owners of bridges run in a nursery that is cancelled from the start; each keeps that off by
the shield of its one cancel scope, the flight's. To cancel a build is to take its shield away.
So it can be given back: a build that succeeds although it was cancelled has a bridge to close,
undisturbed (race 3 of `docs/invariants.md`). A scope that was cancelled stays so for good.

For the same reason deadlines are kept here and not by the scopes. They are in order anyway: all
builds have the same time, and queues are cheaper than Trio's heap, out of which thousands of
spent deadlines would have to be cleared at some later tick.
"""

from collections import deque
from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any, Generic, TypeVar

from ._alarm import Alarm
from ._bridge import PoolEntry, PoolFlight
from ._flights import Flight
from ._options import PoolOptions
from ._singleflight import FlightScheduler

K = TypeVar("K", bound=Hashable)
P = TypeVar("P")
B = TypeVar("B")


class BuildScheduler(FlightScheduler[K, PoolEntry[K, P, B] | None], Generic[K, P, B]):
    """Parks callers on builds, and cancels those whose time is over.

    A caller is handed a lease on what was built, or None: it has to look again, for what it
    waited for was overtaken.
    """

    def __init__(
        self,
        options: PoolOptions,
        alarm: Alarm,
        needed_by: Callable[[Flight[Any, Any], PoolFlight[K]], None],
    ) -> None:
        super().__init__(options.abandon_grace)
        self._timeout = options.build_timeout
        self._alarm = alarm
        self._needed_by = needed_by
        # builds under way, the first to time out first; landed ones are dropped as they are met
        self._timed: deque[PoolFlight[K]] = deque()
        # a heap of when to look at flights that nobody waited for any more; they may be joined
        self._abandoned: list[tuple[float, int, PoolFlight[K]]] = []
        self._serial = count()

    def begin(self, flight: PoolFlight[K], now: float) -> None:
        """Start the clock of a build that has its place."""
        self.table.begin(flight, now, self._timeout)
        if flight.build_deadline < inf:
            while self._timed and self._timed[0].landed:
                self._timed.popleft()
            self._timed.append(flight)
            self._alarm.ring_by(flight.build_deadline)

    def needed_by(self, build: Flight[Any, Any], flight: PoolFlight[K]) -> None:
        """Pass on that `build` is about to wait for `flight`."""
        self._needed_by(build, flight)

    def update_deadline(self, flight: PoolFlight[K]) -> None:
        """See that a flight that nobody waits for is cancelled when its grace is over."""
        if flight.deadline < flight.build_deadline:
            heappush(self._abandoned, (flight.deadline, next(self._serial), flight))
            self._alarm.ring_by(flight.deadline)

    def cancel(self, flight: PoolFlight[K]) -> None:
        """Cancel a build that has not ended; first of all, nobody can join it any more."""
        self.table.doom(flight)
        flight.scope.shield = False

    def next_due(self) -> float:
        """Return when the next build is to be looked at, `math.inf` for never."""
        timeout = self._timed[0].build_deadline if self._timed else inf
        return min(timeout, self._abandoned[0][0]) if self._abandoned else timeout

    def cancel_late(self, now: float) -> None:
        """Cancel the builds whose time is over."""
        while self._timed and (self._timed[0].landed or self._timed[0].build_deadline <= now):
            self._cancel_if_late(self._timed.popleft(), now)
        while self._abandoned and self._abandoned[0][0] <= now:
            self._cancel_if_late(heappop(self._abandoned)[2], now)

    def _cancel_if_late(self, flight: PoolFlight[K], now: float) -> None:
        if not flight.landed and flight.is_dead(now):
            self.cancel(flight)
