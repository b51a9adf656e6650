"""The pool: leases on bridges that are built once, replaced atomically, never cut.

The ledger decides, in one step between checkpoints; the supervisor runs builds and closes, in tasks
of the pool's nursery. This module is the public interface to both.
"""

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from math import inf
from types import MappingProxyType
from typing import Generic, TypeVar

import attrs
import trio

from ._alarm import Alarm
from ._bridge import OpenBridge, PoolLedger, require_open_bridge
from ._ledger import Ledger, ReplaceOutcome
from ._lookup import BridgeLookup, Lease, NowaitLease
from ._options import PoolOptions
from ._reaper import reap
from ._services import open_service_nursery
from ._snapshot import ProviderSnapshot, require_snapshot
from ._statistics import PoolStatistics
from ._supervisor import BridgeSupervisor

K = TypeVar("K", bound=Hashable)
P = TypeVar("P")
B = TypeVar("B")


@attrs.frozen
class Replacement:
    """The result of `CachedBridgePool.replace_providers`."""

    outcome: ReplaceOutcome
    generation: int
    """The generation in force after the call."""

    @property
    def applied(self) -> bool:
        """Whether the snapshot is in force as a new generation."""
        return self.outcome is ReplaceOutcome.APPLIED


class CachedBridgePool(Generic[K, P, B]):
    """A pool of live bridges, one for each key, built from the providers in force.

    Made by `open_bridge_pool`.
    """

    def __init__(
        self,
        open_bridge: OpenBridge[K, P, B],
        snapshot: ProviderSnapshot[P],
        options: PoolOptions,
        nursery: trio.Nursery,
        owners: trio.Nursery,
    ) -> None:
        self._options = options
        self._ledger: PoolLedger[K, P, B] = Ledger(
            snapshot,
            max_items=options.max_items,
            drain_timeout=options.drain_timeout,
            reap_period=options.reap_period,
        )
        self._alarm = Alarm()
        self._supervisor: BridgeSupervisor[K, P, B] = BridgeSupervisor(
            open_bridge, self._ledger, options, nursery, owners, self._alarm
        )
        self._lookup = BridgeLookup(self._ledger, self._supervisor, options.max_rebuilds)

    def acquire(self, key: K) -> Lease[K, P, B]:
        """Lease the bridge of `key` for the length of an `async with`, building it on a miss.

        ::

            async with pool.acquire(key) as bridge:
                ...

        The bridge was built from the providers in force when the block is entered, and stays
        open until the block is left, whatever is replaced, evicted or expires meanwhile; only
        `drain_timeout` after a replacement, or `shutdown_timeout`, can end it earlier. (Under
        replacements faster than builds a caller gets a bridge that was overtaken, after it
        was moved `max_rebuilds` times.)

        Returns:
            A lease. It can be in use once at a time, and also reports when its bridge is retired.

        Raises:
            BuildError: On entering: the bridge could not be built. The exception is this
                caller's own, its cause is the one that `open_bridge` raised.
            BuildTimeoutError: On entering: the build was cancelled after `build_timeout`.
            CircularWaitError: On entering, inside an `open_bridge`: that build would wait for
                itself, directly or through others.
            PoolClosedError: On entering: the pool's block was left, or is being left.
            RuntimeError: On entering: this lease is in use, by another task for example; or this
                is another Trio run than the pool's.

        Cancellation:
            Entering is a checkpoint, on a hit as on a miss, before the look-up; leaving is not
            one and cannot fail. A cancelled caller does not affect others: the build
            continues for those that wait for it.
        """
        lease: Lease[K, P, B] = Lease()
        lease._lookup, lease._key, lease._entry = self._lookup, key, None
        lease._is_entered = False
        return lease

    def acquire_nowait(self, key: K) -> NowaitLease[K, P, B]:
        """Lease the bridge of `key` for the length of a `with` if it is there; else build nothing.

        Not a checkpoint. The look-up, and so each of these errors, comes on entering the `with`.

        Raises:
            trio.WouldBlock: No bridge of `key` is listed.
            PoolClosedError: The pool's block was left, or is being left.
        """
        lease: NowaitLease[K, P, B] = NowaitLease()
        lease._lookup, lease._key, lease._entry = self._lookup, key, None
        return lease

    def replace_providers(self, snapshot: ProviderSnapshot[P]) -> Replacement:
        """Put `snapshot` in force immediately.

        Every acquire that gets control from here on uses `snapshot`. The bridges built before
        are retired: those in use close when their last lease ends, or `drain_timeout` later.
        A snapshot with equal providers keeps every bridge; one with a lower revision is
        refused; a pool that is being left ignores it. The return value reports which.

        Not a checkpoint. The cost does not grow with the number of bridges.

        Raises:
            TypeError: It is not a `ProviderSnapshot`.
            RuntimeError: This is another thread, or another Trio run, than the pool's.
        """
        require_snapshot(snapshot, "replace_providers")
        self._supervisor.scheduler.require_own_run()
        number = self._ledger.current.number
        outcome = self._ledger.replace(snapshot, trio.current_time())
        if outcome is ReplaceOutcome.APPLIED:
            self._supervisor.scheduler.table.close_version(number)
            if self._ledger.is_unswept:
                self._alarm.ring_by(-inf)
        return Replacement(outcome, self._ledger.current.number)

    async def wait_drained(self, generation: int) -> None:
        """Wait until nothing of `generation`, or of an earlier one, is open or being built.

        After `r = pool.replace_providers(...)`, `await pool.wait_drained(r.generation - 1)`
        returns when the last request on the old providers has ended and its bridge is closed.
        For the generation in force it waits until nothing is open at all. A checkpoint.
        """
        self._supervisor.scheduler.require_own_run()
        await trio.lowlevel.checkpoint()
        while not self._ledger.is_drained(generation):
            await self._supervisor.endings.park()

    @property
    def snapshot(self) -> ProviderSnapshot[P]:
        """The snapshot in force."""
        return self._ledger.current.snapshot

    @property
    def generation(self) -> int:
        """The number of the snapshot in force: 1 for the first, then 1 more for each applied."""
        return self._ledger.current.number

    def statistics(self) -> PoolStatistics:
        """Return the current state and the counts. Not a checkpoint; cheap, and resets nothing."""
        ledger, supervisor = self._ledger, self._supervisor
        listed = len(ledger.current.listed)
        return PoolStatistics(
            generation=ledger.current.number,
            listed=listed,
            leased=ledger.leases,
            draining=ledger.open_count - listed,
            building=len(supervisor.limiter.holders),
            queued=len(supervisor.limiter.queue),
            waiting=supervisor.scheduler.table.waiting,
            hits=ledger.hits,
            misses=self._lookup.misses,
            joins=self._lookup.joins,
            rebuilds=self._lookup.rebuilds,
            builds=MappingProxyType(dict(supervisor.builds)),
            build_seconds=supervisor.build_seconds,
            retired=MappingProxyType(dict(ledger.retired)),
            forced_closes=supervisor.forced_closes,
            close_overruns=supervisor.close_overruns,
            close_failures=supervisor.close_failures,
            replacements=MappingProxyType(dict(ledger.replacements)),
        )

    async def _leave(self, body_raised: bool) -> None:
        """Close admission, let leases end in their time, and wait until nothing is left."""
        ledger, supervisor, alarm = self._ledger, self._supervisor, self._alarm
        ledger.close(trio.current_time() + self._options.shutdown_timeout)
        for generation in ledger.generations.values():
            for flight in generation.flights:
                supervisor.reject(flight)
        alarm.ring_by(-inf)
        try:
            while ledger.generations:
                await supervisor.endings.park()
        except trio.Cancelled:  # noqa: ASYNC103 -- unless something else is on its way out
            # Users leave before services: holders outside this block, who may be unwinding
            # too, find working bridges for as long as a close may take. The nursery waits.
            ledger.hasten(trio.current_time() + self._options.close_timeout)
            alarm.ring_by(-inf)
            if not body_raised:
                raise


@asynccontextmanager
async def open_bridge_pool(
    open_bridge: OpenBridge[K, P, B],
    snapshot: ProviderSnapshot[P],
    *,
    max_items: float = 5000,
    max_live: float = inf,
    max_concurrent_builds: float = inf,
    max_rebuilds: int = 3,
    ttl: float = 900.0,
    refresh_ahead: float = 0.0,
    build_timeout: float = 30.0,
    abandon_grace: float = 2.0,
    retry_after_error: float = 0.0,
    drain_timeout: float = 600.0,
    shutdown_timeout: float = 30.0,
    close_timeout: float = 5.0,
) -> AsyncIterator[CachedBridgePool[K, P, B]]:
    """Open a pool for the length of an `async with`.

    ::

        async with open_bridge_pool(open_bridge, snapshot) as pool:
            async with pool.acquire(key) as bridge:
                ...

    Durations are seconds; `math.inf` stands for no limit.

    Args:
        open_bridge: Called as `open_bridge(key, snapshot)`; returns an async context manager
            that yields the bridge, or `ShortLived(bridge, ttl)`. It is entered, kept open and
            left in one task of its own, so it may hold nurseries and cancel scopes open. It
            sees the context variables of the task that opened the pool.
        snapshot: What bridges are built from until `replace_providers` is called.
        max_items: How many bridges may be listed. Room for one more is made by retiring an
            idle one while any is idle.
        max_live: How many may be listed, draining and building together; beyond it a build
            waits for a place, and idle bridges are closed to make one. Leave room for those that
            builds acquire while they hold a place themselves.
        max_concurrent_builds: How many builds may run at once; others wait for their turn,
            which counts towards neither timeout nor error. One that a running build of this pool
            waits for needs no turn.
        max_rebuilds: How often a waiting caller is moved to a newer build because its own was
            overtaken, before it gets the overtaken bridge.
        ttl: Seconds from its build after which a bridge is retired, used or not; shortened by
            up to a tenth at random.
        refresh_ahead: Seconds before a bridge is due in which a hit starts the next build in
            the background, but never in the first half of its life; 0 to wait for the first miss.
        build_timeout: Seconds after which a build is cancelled.
        abandon_grace: Seconds for which a build without waiting callers can still be joined,
            before it is cancelled.
        retry_after_error: Seconds after a failed build before the next one of that key may
            begin; callers wait for it.
        drain_timeout: Seconds after a replacement after which bridges of the old providers
            are closed even under a lease.
        shutdown_timeout: The same, after the block is left.
        close_timeout: Seconds that the close of one bridge may take before it is cancelled.

    Raises:
        ValueError: An option is out of its range.
        TypeError: `snapshot` is not a `ProviderSnapshot`, an option is not a number, or
            `open_bridge` is async, a generator, or not callable. Whatever else is wrong with it,
            `acquire` tells by a `BuildError`.
        RuntimeError: It is not called under Trio, but under asyncio, for example.

    Cancellation:
        Leaving the block closes admission, cancels builds, lets leases end, closes every
        bridge and returns when nothing is left. If it is cancelled, leases outside the block
        have no more than `close_timeout`. What the body raised comes out unchanged.
    """
    require_open_bridge(open_bridge, "open_bridge_pool")
    require_snapshot(snapshot, "open_bridge_pool")
    options = PoolOptions(
        max_items=max_items,
        max_live=max_live,
        max_concurrent_builds=max_concurrent_builds,
        max_rebuilds=max_rebuilds,
        ttl=ttl,
        refresh_ahead=refresh_ahead,
        build_timeout=build_timeout,
        abandon_grace=abandon_grace,
        retry_after_error=retry_after_error,
        drain_timeout=drain_timeout,
        shutdown_timeout=shutdown_timeout,
        close_timeout=close_timeout,
    )
    async with open_service_nursery() as nursery:
        with trio.CancelScope(shield=True):  # it starts in its first step
            pool: CachedBridgePool[K, P, B] = await nursery.start(
                _run_pool, open_bridge, snapshot, options, nursery
            )
        body_raised = True
        try:
            yield pool
            body_raised = False
        finally:
            await pool._leave(body_raised)  # noqa: ASYNC102 -- shields what it must by itself


async def _run_pool(  # noqa: ASYNC114 -- the linter cannot be told of every startable
    open_bridge: OpenBridge[K, P, B],
    snapshot: ProviderSnapshot[P],
    options: PoolOptions,
    nursery: trio.Nursery,
    *,
    task_status: trio.TaskStatus[CachedBridgePool[K, P, B]],
) -> None:
    """Make a pool, hand it to `task_status`, and keep it until it is left and empty."""
    async with trio.open_nursery() as owners:
        # Each owner of a bridge shields itself from this, and is cancelled by losing its shield.
        owners.cancel_scope.cancel()
        pool = CachedBridgePool(open_bridge, snapshot, options, nursery, owners)
        task_status.started(pool)
        await reap(pool._ledger, pool._supervisor, pool._alarm)
