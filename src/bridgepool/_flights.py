"""Who waits for which build: the pure half of the versioned singleflight.

Theory of operation
-------------------
A *flight* is one running build, shared by all who wait for it. It is found by key and
version while it is *joinable*. It stops being joinable for good, and always *before* it is
cancelled, when one of these comes first:

* it landed: its outcome was handed to its waiters;
* its time is over: the deadline of its build, or the grace that an abandoned flight keeps;
* it was unlisted: its version was closed, it was forgotten, or it was doomed.

Whether the time is over is decided here, by comparing clocks, whenever a flight is looked up. The
task that runs the build is cancelled a scheduling step later. In between, a new caller must not
join a flight that is over (race 2 of `docs/invariants.md`), and the result of a build that returns
nevertheless must not be used (race 3).

A build may itself wait for another flight. If that one waits for it in turn, directly or through
others, none would ever end; so each flight knows which flights its build waits for, and who is
about to wait looks along these first (`path_between`).

Waiters are opaque here: the asynchronous half parks Trio tasks. A waiter is in
`Flight.waiters` exactly while it is parked, so the head count needs no second counter: it is
taken out in the same step that wakes it, and the outcome travels with the wake-up.

Nothing here awaits or reads a clock; time is an argument, in seconds.
"""

from collections.abc import Hashable, Iterable
from math import inf
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import attrs

if TYPE_CHECKING:
    import trio

K = TypeVar("K", bound=Hashable)
W = TypeVar("W", bound=Hashable)


@attrs.define(eq=False)
class Flight(Generic[K, W]):
    """One running build and those who wait for it."""

    key: K
    version: Hashable
    # what its build runs in; never touched here
    scope: "trio.CancelScope"
    # seconds for which it lives on when its last waiter has gone
    grace: float
    # when the build times out, on Trio's clock
    build_deadline: float
    # when it is to be cancelled: then, or earlier when its last waiter has gone
    deadline: float
    # nobody needs to wait for it to be wanted (refresh-ahead)
    background: bool = False
    # when the build itself began, after any wait for its turn
    began_at: float | None = None
    # waiter -> how often it was moved to a newer flight before it came here
    waiters: dict[W, int] = attrs.field(factory=dict)
    # the flights that its own build waits for, of whatever table; one for each waiting task
    waits_for: "list[Flight[Any, Any]]" = attrs.field(factory=list)
    # a build that holds a place waits for it, see `_build_limiter`
    is_needed: bool = False
    # being cancelled for a reason other than time; a success is not to be used
    doomed: bool = False
    landed: bool = False

    def is_dead(self, now: float) -> bool:
        """Return whether the result of this flight must not be used."""
        return self.doomed or now >= self.deadline


def path_between(start: Flight[Any, Any], goal: Flight[Any, Any]) -> list[Flight[Any, Any]]:
    """List the flights from `start` to `goal`, each waiting for the next; empty if there is no way.

    What has landed keeps nobody waiting.
    """
    paths = [[start]]
    seen = {start}
    while paths:
        path = paths.pop()
        if path[-1] is goal:
            return path
        for flight in path[-1].waits_for:
            if flight not in seen and not flight.landed:
                seen.add(flight)
                paths.append([*path, flight])
    return []


class FlightTable(Generic[K, W]):
    """The flights that can be joined, by version and key, and the number of waiters."""

    def __init__(self, abandon_grace: float) -> None:
        self._abandon_grace = abandon_grace
        # version -> key -> the one joinable flight; whole versions are closed in one step
        self._joinable: dict[Hashable, dict[K, Flight[K, W]]] = {}
        self.waiting = 0

    def joinable(self) -> list[Flight[K, W]]:
        """List the flights that a caller with the right key and version would find."""
        return [flight for flights in self._joinable.values() for flight in flights.values()]

    def find(self, key: K, version: Hashable, now: float) -> Flight[K, W] | None:
        """Return the flight to join, or None when one has to be opened."""
        flights = self._joinable.get(version)
        flight = flights.get(key) if flights is not None else None
        if flight is not None and now >= flight.deadline:  # a doomed one is not listed
            self.unlist(flight)
            return None
        return flight

    def open(
        self,
        key: K,
        version: Hashable,
        scope: "trio.CancelScope",
        build_deadline: float = inf,
        background: bool = False,
    ) -> Flight[K, W]:
        """Make a flight joinable; `find` has just returned None for it."""
        flight: Flight[K, W] = Flight(
            key, version, scope, self._abandon_grace, build_deadline, build_deadline, background
        )
        self._joinable.setdefault(version, {})[key] = flight
        return flight

    def begin(self, flight: Flight[K, W], now: float, timeout: float) -> None:
        """Start the clock of the build itself, of a flight opened without a deadline."""
        flight.began_at = now
        flight.build_deadline = now + timeout
        flight.deadline = min(flight.deadline, flight.build_deadline)

    def add(self, flight: Flight[K, W], waiter: W, moves: int = 0) -> bool:
        """Count `waiter` in; True if the flight was abandoned, and its deadline has changed."""
        flight.waiters[waiter] = moves
        self.waiting += 1
        if flight.deadline == flight.build_deadline:
            return False
        flight.deadline = flight.build_deadline
        return True

    def leave(self, flight: Flight[K, W], waiter: W, now: float) -> None:
        """Count a cancelled waiter out; the last one to go starts the grace period."""
        del flight.waiters[waiter]
        self.waiting -= 1
        if not flight.waiters and not flight.background:
            flight.deadline = min(flight.build_deadline, now + flight.grace)

    def unlist(self, flight: Flight[K, W]) -> None:
        """Let nobody join any more; by identity: a late flight never unlists a fresh one."""
        flights = self._joinable.get(flight.version)
        if flights is not None and flights.get(flight.key) is flight:
            del flights[flight.key]
            if not flights:
                del self._joinable[flight.version]

    def doom(self, flight: Flight[K, W]) -> None:
        """Unlist the flight and refuse its result; the caller cancels it afterwards."""
        self.unlist(flight)
        flight.doomed = True

    def close_version(self, version: Hashable) -> None:
        """Unlist all flights of `version`, at a cost that does not grow with their number."""
        self._joinable.pop(version, None)

    def land(self, flight: Flight[K, W]) -> Iterable[W]:
        """End the flight and take out all waiters; the caller wakes each with the outcome."""
        self.unlist(flight)
        flight.landed = True
        waiters, flight.waiters = flight.waiters, {}
        self.waiting -= len(waiters)
        return waiters

    def take(self, flight: Flight[K, W], below: float = inf) -> list[W]:
        """Take out the waiters that were moved fewer than `below` times so far."""
        taken = [waiter for waiter, moves in flight.waiters.items() if moves < below]
        if len(taken) == len(flight.waiters):
            flight.waiters.clear()
        else:
            for waiter in taken:
                del flight.waiters[waiter]
        self.waiting -= len(taken)
        return taken
