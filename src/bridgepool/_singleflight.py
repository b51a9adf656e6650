"""One run for many callers, by key and version: the asynchronous half of the flights.

`FlightScheduler` parks callers on flights and wakes them; it serves both faces, the public
`VersionedSingleflight` here and the pool. What is joinable, and who is counted, is decided in
`_flights`; each method here makes one such decision and carries it out before the next
checkpoint.

A waiter is a parked task with an abort function, not an event and a counter: Trio aborts a
task that it has not rescheduled, and never one that it has. So a caller is either still
counted and can be cancelled, or was handed an outcome and gets it; there is no third state
(race 1 of `docs/invariants.md`).
"""

import contextvars
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Iterable
from contextlib import asynccontextmanager
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar

import outcome
import trio

from ._errors import (
    BridgePoolError,
    BuildError,
    BuildTimeoutError,
    CircularWaitError,
    PoolClosedError,
)
from ._flights import Flight, FlightTable, path_between
from ._options import FlightOptions
from ._services import open_service_nursery, require_run
from ._shared_value import SharedValue

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")
Task = trio.lowlevel.Task


# The flight whose build the current task belongs to: set in the task that runs it, inherited by
# the tasks that it starts.
_own_flight: contextvars.ContextVar[Flight[Any, Any] | None] = contextvars.ContextVar(
    "bridgepool_flight", default=None
)


def enter_flight(flight: Flight[Any, Any]) -> None:
    """Note that the current task runs the build of `flight`."""
    _own_flight.set(flight)


class FlightScheduler(Generic[K, T]):
    """Parks callers on flights, wakes them, and keeps the flights' scopes to their deadlines."""

    def __init__(self, abandon_grace: float) -> None:
        self.table: FlightTable[K, Task] = FlightTable(abandon_grace)
        # Trio's clock, looked up once: it is read several times for each caller.
        self.clock = trio.lowlevel.current_clock()
        self._run = trio.lowlevel.current_trio_token()

    def require_own_run(self) -> None:
        """Raise `RuntimeError` in another run or thread, whose tasks cannot be woken from here."""
        require_run(self._run)

    def open(
        self,
        key: K,
        version: Hashable,
        build_deadline: float,
    ) -> Flight[K, Task]:
        """Open a flight; the caller runs it, all of it inside the flight's scope."""
        # Shielded: cancelling a caller, or the block of all, does not cancel the build.
        scope = trio.CancelScope(shield=True, deadline=build_deadline)
        return self.table.open(key, version, scope, build_deadline)

    def wait(self, flight: Flight[K, Task], moves: int = 0) -> Awaitable[T]:
        """Count the current task in; awaiting, at once, parks it for the outcome. A checkpoint.

        Raises:
            CircularWaitError: It would wait for the build that it is part of.
            RuntimeError: This is another run.
        """
        self.require_own_run()
        build = _own_flight.get()
        if build is None or build.landed:  # the tasks of a bridge outlive its build
            return self._park(flight, moves)
        circle = path_between(flight, build)
        if circle:
            raise CircularWaitError([build.key, *(link.key for link in circle)])
        return self._park_in_build(build, flight, moves)

    async def _park_in_build(
        self, build: Flight[Any, Any], flight: Flight[K, Task], moves: int
    ) -> T:
        build.waits_for.append(flight)
        try:
            self.needed_by(build, flight)
            return await self._park(flight, moves)
        finally:
            build.waits_for.remove(flight)

    def needed_by(self, build: Flight[Any, Any], flight: Flight[K, Task]) -> None:
        """Prepare for `build`, a flight of any scheduler, to wait for `flight`."""

    def _park(self, flight: Flight[K, Task], moves: int) -> Awaitable[T]:
        """Count the current task in; awaiting, at once, parks it for the outcome."""
        task = trio.lowlevel.current_task()
        if self.table.add(flight, task, moves):
            self.update_deadline(flight)
        leave = partial(self._leave, flight, task)
        return trio.lowlevel.wait_task_rescheduled(leave)  # noqa: ASYNC105 -- by the caller

    def _leave(
        self, flight: Flight[K, Task], task: Task, _: trio.lowlevel.RaiseCancelT
    ) -> trio.lowlevel.Abort:
        self.table.leave(flight, task, self.clock.current_time())
        self.update_deadline(flight)
        return trio.lowlevel.Abort.SUCCEEDED

    def land(self, flight: Flight[K, Task], value: T) -> None:
        """End the flight and wake its waiters, each with `value`."""
        self.wake(self.table.land(flight), value)

    def wake(self, waiters: Iterable[Task], value: T) -> None:
        """Wake `waiters`, taken off their flight, each with `value`."""
        handed = SharedValue(value)
        for task in waiters:
            trio.lowlevel.reschedule(task, handed)

    def fail(
        self,
        flight: Flight[K, Task],
        error: Callable[[], BridgePoolError],
        cause: BaseException | None = None,
    ) -> None:
        """End the flight; each waiter gets an exception object of its own, with `cause`."""
        for task in self.table.land(flight):
            raised = error()
            raised.__cause__ = cause
            trio.lowlevel.reschedule(task, outcome.Error(raised))

    def cancel(self, flight: Flight[K, Task]) -> None:
        """Cancel the flight's task; first of all, nobody can join it any more."""
        self.table.doom(flight)
        flight.scope.cancel()

    def update_deadline(self, flight: Flight[K, Task]) -> None:
        """See that the flight is cancelled at its deadline, which has changed."""
        flight.scope.deadline = flight.deadline


class VersionedSingleflight:
    """Share one run of a function among all callers of the same key and version.

    Made by `open_singleflight`. The pool is built on the same flights.
    """

    def __init__(self, nursery: trio.Nursery, options: FlightOptions) -> None:
        self._scheduler: FlightScheduler[Hashable, Any] = FlightScheduler(options.abandon_grace)
        self._nursery = nursery
        self._build_timeout = options.build_timeout
        self._context = contextvars.copy_context()
        # flights whose task has not ended, joinable or not
        self._running: dict[Flight[Hashable, Task], None] = {}
        self._closed = False

    async def do(self, key: Hashable, version: Hashable, fn: Callable[[], Awaitable[T]]) -> T:
        """Run `fn`, or join the run that callers of the same key and version share.

        A caller with another version never joins: its own run starts beside the older one,
        which goes on for those who wait for it. `fn` runs in the singleflight's nursery, in
        the context variables of the task that opened it, so a cancelled caller disturbs nobody.
        When the last caller was cancelled, the run can still be joined for `abandon_grace`
        seconds, and is cancelled then.

        Args:
            key: What is being made.
            version: What it is made from; compared by equality.
            fn: Makes it. Called once for all who share the run; the others' are ignored.

        Returns:
            What `fn` returned: the same object for every caller.

        Raises:
            BuildError: `fn` raised; its exception is the cause, the object is this caller's own.
            BuildTimeoutError: `fn` was cancelled after `build_timeout`.
            CircularWaitError: This is called from within a run that would wait for itself.
            PoolClosedError: The block of `open_singleflight` was left.
            RuntimeError: This is another Trio run than that of `open_singleflight`.

        Cancellation:
            A checkpoint. A result that was handed over is not lost to a late cancellation.
        """
        if self._closed:
            await trio.lowlevel.checkpoint_if_cancelled()
            raise PoolClosedError("the singleflight is closed")
        now = self._scheduler.clock.current_time()
        flight = self._scheduler.table.find(key, version, now)
        if flight is None:
            self._scheduler.require_own_run()
            await trio.lowlevel.checkpoint_if_cancelled()
            flight = self._scheduler.open(key, version, now + self._build_timeout)
            self._running[flight] = None
            self._context.run(self._nursery.start_soon, self._run, flight, fn)
        result: T = await self._scheduler.wait(flight)
        return result

    def forget(self, key: Hashable, version: Hashable) -> None:
        """Prevent further callers from joining the current run, which continues for its callers.

        Not a checkpoint. Does nothing if there is no such run.
        """
        flight = self._scheduler.table.find(key, version, self._scheduler.clock.current_time())
        if flight is not None:
            self._scheduler.table.unlist(flight)

    @property
    def waiting(self) -> int:
        """How many callers wait for a run."""
        return self._scheduler.table.waiting

    @property
    def running(self) -> int:
        """How many runs have not ended."""
        return len(self._running)

    async def _run(
        self, flight: Flight[Hashable, Task], fn: Callable[[], Awaitable[object]]
    ) -> None:
        enter_flight(flight)
        result: outcome.Outcome[object] | None = None
        with flight.scope:
            try:
                result = outcome.Value(await fn())
            except Exception as error:  # the user's function; every waiter gets it
                result = outcome.Error(error)
        # No checkpoint from here on: the verdict and the wake-ups are one step.
        self._settle(flight, result)
        del self._running[flight]
        del result  # the traceback of an error refers to this frame

    def _settle(
        self, flight: Flight[Hashable, Task], result: outcome.Outcome[object] | None
    ) -> None:
        key, version = flight.key, flight.version
        if flight.is_dead(self._scheduler.clock.current_time()) or result is None:
            self._scheduler.fail(flight, lambda: BuildTimeoutError(key, version))
        elif isinstance(result, outcome.Error):
            self._scheduler.fail(flight, lambda: BuildError(key, version), result.error)
        else:
            self._scheduler.land(flight, result.unwrap())

    def _close(self) -> None:
        self._closed = True
        for flight in self._running:
            self._scheduler.fail(flight, lambda: PoolClosedError("the singleflight was closed"))
            self._scheduler.cancel(flight)


@asynccontextmanager
async def open_singleflight(
    *, abandon_grace: float = 2.0, build_timeout: float = inf
) -> AsyncIterator[VersionedSingleflight]:
    """Open a singleflight whose runs live no longer than this block.

    Args:
        abandon_grace: Seconds for which a run that nobody waits for any more can be joined
            before it is cancelled; 0 for at once, `math.inf` to let it always finish.
        build_timeout: Seconds after which a run is cancelled.

    Raises:
        ValueError: An option is out of its range.
        RuntimeError: It is not called under Trio, but under asyncio, for example.

    Cancellation:
        Leaving the block cancels the runs, wakes those who wait with `PoolClosedError`, and
        waits until every run has unwound. The body's own exception comes out unchanged.
    """
    options = FlightOptions(abandon_grace=abandon_grace, build_timeout=build_timeout)
    async with open_service_nursery() as nursery:
        flights = VersionedSingleflight(nursery, options)
        try:
            yield flights
        finally:
            flights._close()
