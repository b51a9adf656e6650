"""The tasks that own bridges: each builds one, keeps it open, and closes it.

Theory of operation
-------------------
One task is one bridge's whole life, written as one `async with`: enter the user's context
manager (the build), publish, park until retired, leave it (the close). So a bridge may hold
nurseries and cancel scopes open, and closing it is unwinding it, in the task that opened it.

One cancel scope lies around that life: the flight's. It shields the task from the nursery that
it runs in, which is cancelled from the start. What cancels the *build* (timeout, abandonment,
being overtaken, leaving the pool) takes the shield away; it is back in the step in which the
build succeeds, so that it never reaches the *bridge*, not even when both happened in the same
step, and the bridge has to be closed unused (race 3 of `docs/invariants.md`). The deadline of
the scope bounds the close.

While a published bridge is parked, only its own context manager can cancel the task, as a
nursery does when a task in it fails. That is how a crash is seen, in the very step in which
the nursery is cancelled.
"""

import contextvars
import logging
from collections.abc import Hashable
from functools import partial
from math import inf
from typing import Any, Generic, TypeVar

import trio

from ._alarm import Alarm
from ._backoff import shorten
from ._bridge import (
    OpenBridge,
    Owner,
    PoolEntry,
    PoolFlight,
    PoolGeneration,
    PoolLedger,
    ShortLived,
    unwrap,
)
from ._build_limiter import BuildLimiter
from ._build_scheduler import BuildScheduler
from ._errors import BuildError, BuildTimeoutError, PoolClosedError
from ._flights import Flight
from ._generation import Entry
from ._ledger import RetireReason
from ._options import PoolOptions
from ._singleflight import enter_flight
from ._statistics import BuildOutcome

K = TypeVar("K", bound=Hashable)
P = TypeVar("P")
B = TypeVar("B")

_log = logging.getLogger("bridgepool.pool")

# By which part lifetimes are shortened at random: bridges born together do not die together.
_TTL_SPREAD = 0.1


class BridgeSupervisor(Generic[K, P, B]):
    """Builds and closes what the ledger decides, in the pool's nursery."""

    def __init__(
        self,
        open_bridge: OpenBridge[K, P, B],
        ledger: PoolLedger[K, P, B],
        options: PoolOptions,
        nursery: trio.Nursery,
        owners: trio.Nursery,
        alarm: Alarm,
    ) -> None:
        self._open_bridge = open_bridge
        self._ledger = ledger
        self._options = options
        self._nursery = nursery
        # `owners` is cancelled from the start, see above
        self._owners = owners
        self._alarm = alarm
        # Builds and closes see the context variables of the pool, not those of a caller.
        self._context = contextvars.copy_context()
        self.scheduler: BuildScheduler[K, P, B] = BuildScheduler(options, alarm, self._needed_by)
        self.limiter: BuildLimiter[K, P, B] = BuildLimiter(options, ledger)
        # those who wait for generations to drain; woken whenever a bridge or a build is gone
        self.endings = trio.lowlevel.ParkingLot()
        self.builds = dict.fromkeys(BuildOutcome, 0)
        self.build_seconds = 0.0
        self.forced_closes = 0
        self.close_overruns = 0
        self.close_failures = 0
        self._leaving = 0

    # -- from the pool --------------------------------------------------------------------

    def launch(self, key: K, now: float, *, background: bool = False) -> PoolFlight[K]:
        """Start a build of `key` for the generation in force; `PoolClosedError` if closed."""
        self.scheduler.require_own_run()
        self._ledger.check_open()
        generation = self._ledger.current
        scope = trio.CancelScope(shield=True)
        flight = self.scheduler.table.open(key, generation.number, scope, background=background)
        generation.flights[flight] = None
        if not generation.pauses and self.limiter.try_admit(flight):
            self.scheduler.begin(flight, now)
        self._context.run(self._start_owner, flight, generation)
        return flight

    def _start_owner(self, flight: PoolFlight[K], generation: PoolGeneration[K, P, B]) -> None:
        self._owners.start_soon(self._own, flight, generation, name="owner of a bridge")

    def close_when_idle(self, entry: PoolEntry[K, P, B]) -> None:
        """Notify the lease holders of a retired entry, or close it if there are none."""
        entry.value.notify_retired()
        if not entry.leases:
            self.close(entry)

    def became_idle(self, entry: PoolEntry[K, P, B]) -> None:
        """Close a retired bridge whose last lease has ended, or a listed one to free its place."""
        if self._ledger.is_retired(entry):
            self.close(entry)
        else:
            self.admit_waiting()

    def close(self, entry: PoolEntry[K, P, B]) -> None:
        """Wake the owner to close its bridge, leases or not; once."""
        owner = entry.value
        if owner.is_leaving:
            return
        if entry.leases:
            self.forced_closes += 1
            _log.warning(
                "bridge of %r closed under %d leases at its drain deadline", entry.key, entry.leases
            )
        owner.is_leaving = True
        self._leaving += 1
        owner.notify_retired()
        if owner.task is not None:
            trio.lowlevel.reschedule(owner.task)

    def overtake(self, flight: PoolFlight[K], *, everyone: bool = False) -> None:
        """Move waiters on to a build of the current generation; cancel if none stays.

        Those who were moved often enough stay, unless `everyone` has to go.
        """
        if not flight.landed:
            self._move_on(flight, inf if everyone else self._options.max_rebuilds)
            if flight.landed:
                self.scheduler.cancel(flight)

    def _move_on(self, flight: PoolFlight[K], below: float) -> None:
        """Move waiters that were moved fewer than `below` times; end the flight if none stays."""
        flight.grace = 0.0
        self.scheduler.wake(self.scheduler.table.take(flight, below), None)
        if not flight.waiters:
            self.builds[BuildOutcome.OVERTAKEN] += 1
            self.scheduler.land(flight, None)

    def reject(self, flight: PoolFlight[K]) -> None:
        """Cancel a flight because the pool is being left."""
        if not flight.landed:
            self.builds[BuildOutcome.ABANDONED] += 1
            self.scheduler.fail(flight, lambda: PoolClosedError("the pool was closed"))
            self.scheduler.cancel(flight)

    def admit_waiting(self) -> None:
        """Let builds begin that can, and close idle bridges for those that lack a place."""
        self._ledger.wants_idle = False
        if self.limiter.queue:
            self.limiter.admit()
            self._evict_for_queue()

    def _needed_by(self, build: Flight[Any, Any], flight: PoolFlight[K]) -> None:
        """Let `flight` begin if `build`, which is about to wait for it, has a place here."""
        holders = self.limiter.holders
        if build in holders:
            if flight not in holders:
                self.limiter.put_first(flight)
                self.admit_waiting()
            self.limiter.check_deadlock()

    def _evict_for_queue(self) -> None:
        for _ in range(self.limiter.starved() - self._leaving):
            victim = self._ledger.evict_idle()
            if victim is None:
                break
            self.close_when_idle(victim)
        self._ledger.wants_idle = self.limiter.starved() > 0

    # -- the life of a bridge ---------------------------------------------------------------

    async def _own(self, flight: PoolFlight[K], generation: PoolGeneration[K, P, B]) -> None:
        """Build, keep and close one bridge."""
        enter_flight(flight)
        entry: PoolEntry[K, P, B] | None = None
        error: Exception | None = None
        life = flight.scope
        try:
            with life:
                try:
                    if flight.began_at is None:
                        await self._turn_to_build(flight, generation)
                        self.scheduler.begin(flight, self.scheduler.clock.current_time())
                    async with self._open_bridge(flight.key, generation.snapshot) as bridge:
                        if flight.doomed:
                            life.shield = True  # what cancels the build must not reach the bridge
                        entry = self._landed(flight, generation, bridge)
                        if entry is not None and not entry.value.is_leaving:
                            await self._retirement(entry)
                        life.deadline = (
                            self.scheduler.clock.current_time() + self._options.close_timeout
                        )
                finally:
                    if flight.doomed:  # what is left of its cancellation ends here
                        life.shield = True
                        life.cancel()
        except Exception as raised:  # the task's root: the bridge's code is the user's
            error = raised
        except BaseException:
            # An interrupt, for example. Trio cancels the nursery for it, but that one is cancelled.
            self._nursery.cancel_scope.cancel()
            raise
        finally:
            # No checkpoint in here: what has ended is recorded in one step.
            if entry is not None:
                self._closed(entry, error)
            else:
                self._failed(flight, generation, error)
                self._build_ended(flight, generation, self.scheduler.clock.current_time())
            self.admit_waiting()
            self.endings.unpark_all()
            if self._ledger.closed:
                self._alarm.ring_by(-inf)  # the reaper goes when nothing is left
            del error  # its traceback refers to this frame

    async def _turn_to_build(
        self, flight: PoolFlight[K], generation: PoolGeneration[K, P, B]
    ) -> None:
        """Wait out the pause after an error, and for a place."""
        begin_at = generation.pauses.get(flight.key)
        if begin_at is not None and begin_at > self.scheduler.clock.current_time():
            await trio.sleep_until(begin_at)
        if not self.limiter.try_admit(flight):
            self.limiter.queue_up(flight)
            self._evict_for_queue()
            await self.limiter.wait_turn(flight)

    def _landed(
        self,
        flight: PoolFlight[K],
        generation: PoolGeneration[K, P, B],
        opened: B | ShortLived[B],
    ) -> PoolEntry[K, P, B] | None:
        """Publish the bridge with a lease for each waiter; None if it is to be closed unused."""
        # No checkpoint in here: the head count, the leases and the wake-ups are one step.
        now = self.scheduler.clock.current_time()
        is_current = generation is self._ledger.current
        if not is_current and not flight.landed:
            self._move_on(flight, self._options.max_rebuilds)
        if flight.landed or flight.is_dead(now):
            self._failed(flight, generation, None)
            return None
        bridge, ttl = unwrap(opened, self._options.ttl)
        owner = Owner(bridge, flight.scope)
        life = shorten(ttl, _TTL_SPREAD)
        expires_at = now + life
        # Not before half of its life, or each bridge of a short one would be rebuilt at once.
        fresh_until = max(now + life / 2, expires_at - self._options.refresh_ahead)
        entry: PoolEntry[K, P, B] = Entry(
            flight.key, owner, generation, generation.once, fresh_until, expires_at
        )
        victim = self._ledger.publish(entry, leases=len(flight.waiters))
        self.scheduler.land(flight, entry)
        self.builds[BuildOutcome.OK if is_current else BuildOutcome.OVERTAKEN] += 1
        self._build_ended(flight, generation, now)
        if victim is not None:
            self.close_when_idle(victim)
        self.admit_waiting()
        self._alarm.ring_by(expires_at)
        return entry

    async def _retirement(self, entry: PoolEntry[K, P, B]) -> None:
        """Park until `close`; `Cancelled` means that the bridge has crashed."""
        entry.value.task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(partial(self._crashed, entry))

    def _crashed(
        self, entry: PoolEntry[K, P, B], _: trio.lowlevel.RaiseCancelT
    ) -> trio.lowlevel.Abort:
        owner = entry.value
        owner.is_leaving = owner.has_crashed = True
        owner.life.deadline = self.scheduler.clock.current_time() + self._options.close_timeout
        self._leaving += 1
        self._ledger.retire(entry, RetireReason.CRASHED)
        owner.notify_retired()
        return trio.lowlevel.Abort.SUCCEEDED

    # -- endings ----------------------------------------------------------------------------

    def _failed(
        self,
        flight: PoolFlight[K],
        generation: PoolGeneration[K, P, B],
        error: Exception | None,
    ) -> None:
        """Deliver the verdict on a build that brought no usable bridge, once."""
        if flight.landed:
            return
        key, number, now = flight.key, generation.number, self.scheduler.clock.current_time()
        if generation is not self._ledger.current:
            outcome = BuildOutcome.OVERTAKEN  # not even the last moved see an old error
            self.scheduler.land(flight, None)
        elif not flight.is_dead(now):
            outcome = BuildOutcome.FAILED
            if self._options.retry_after_error:
                generation.pause(key, now, now + self._options.retry_after_error)
            self.scheduler.fail(flight, lambda: BuildError(key, number), error)
        elif flight.waiters or now >= flight.build_deadline:
            outcome = BuildOutcome.TIMED_OUT
            self.scheduler.fail(flight, lambda: BuildTimeoutError(key, number), error)
        else:
            outcome = BuildOutcome.ABANDONED
            self.scheduler.land(flight, None)
        self.builds[outcome] += 1

    def _build_ended(
        self, flight: PoolFlight[K], generation: PoolGeneration[K, P, B], now: float
    ) -> None:
        self._ledger.ended_flight(generation, flight)
        if flight.began_at is not None:  # it had its turn
            self.limiter.release(flight)
            self.build_seconds += now - flight.began_at

    def _closed(self, entry: PoolEntry[K, P, B], error: Exception | None) -> None:
        owner = entry.value
        self._leaving -= 1
        self._ledger.closed_entry(entry)
        if self.scheduler.clock.current_time() >= owner.life.deadline:
            self.close_overruns += 1
            limit = self._options.close_timeout
            _log.warning("close of the bridge of %r cancelled after %g s", entry.key, limit)
        if owner.has_crashed:
            why = "" if error is not None else ": a cancel scope around its `yield` was cancelled"
            _log.error("bridge of %r crashed%s", entry.key, why, exc_info=error)
        elif error is not None:
            self.close_failures += 1
            _log.error("close of the bridge of %r failed", entry.key, exc_info=error)
