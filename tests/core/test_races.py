"""The races of `docs/invariants.md`, and the two mistakes beside them, one test each.

Race 3 is in `test_race_of_success.py`.

Events of one tick are arranged by acting from one task without a checkpoint between; each test
runs under several orders of the pool's own tasks.
"""

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import (
    BuildOutcome,
    BuildTimeoutError,
    PoolClosedError,
    RetireReason,
    open_bridge_pool,
)
from tests.core.rig import (
    Bridges,
    Caller,
    Callers,
    providers,
    under_many_schedules,
    use,
)


@under_many_schedules
async def test_a_waiter_cancelled_in_the_tick_of_its_hand_over_leaks_no_lease(
    clock: MockClock,
) -> None:
    """Race 1; invariants 16, 17, 34.

    The bug: with an event and a counter, a waiter that is cancelled after the build counted it
    in, and before it ran, holds a lease that nobody ends.
    The gate: both waiters were handed a lease; the one that runs first cancels the other.
    The proof: the other has its bridge all the same, and in the end no lease is left.
    """
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        pair: list[Caller] = []

        def cancel_the_other() -> None:
            for caller in pair:
                if caller.bridge is None:
                    caller.scope.cancel()

        callers = Callers(pool, nursery)
        pair += [callers.start(got_control=cancel_the_other) for _ in range(2)]
        await wait_all_tasks_blocked()
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert [caller.bridge for caller in pair] == [bridges.last, bridges.last]
        assert [caller.has_ended for caller in pair].count(True) == 1
        assert pool.statistics().leased == 1
        for caller in pair:
            caller.release()
        await wait_all_tasks_blocked()
        assert pool.statistics().leased == 0
        assert pool.statistics().waiting == 0
        assert bridges.last.is_open


@under_many_schedules
async def test_a_waiter_cancelled_in_the_tick_before_its_hand_over_is_not_counted(
    clock: MockClock,
) -> None:
    """Race 1, the other order; invariants 16, 17, 34.

    The bug: the cancelled waiter is still counted when the build gives out leases.
    The gate: the build is let go and one of two waiters cancelled, without a checkpoint between.
    The proof: one lease, of the one that stayed.
    """
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        callers = Callers(pool, nursery)
        gone, stays = await callers.settled(), await callers.settled()
        bridges.last.succeed()
        gone.scope.cancel()
        await wait_all_tasks_blocked()
        assert gone.bridge is None
        assert stays.bridge is bridges.last
        assert pool.statistics().leased == 1
        stays.release()


@under_many_schedules
async def test_a_newcomer_in_the_tick_of_a_timeout_gets_a_build_of_its_own(
    clock: MockClock,
) -> None:
    """Race 2; invariant 12.

    The bug: the newcomer joins a flight whose time is over, and times out after no time at all.
    The gate: the clock jumps to the deadline, and the newcomer asks before Trio has looked at it.
    The proof: the one who waited gets the timeout, the newcomer a bridge.
    """
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), build_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        patient = await Callers(pool, nursery).settled()
        clock.jump(5)
        with trio.CancelScope() as scope:
            nursery.start_soon(let_the_next_succeed, bridges)
            async with pool.acquire("a") as bridge:
                assert bridge is bridges.made[1]
        assert not scope.cancelled_caught
        assert isinstance(patient.error, BuildTimeoutError)
        assert bridges.made[0].build_was_cancelled
        assert pool.statistics().builds[BuildOutcome.TIMED_OUT] == 1


async def let_the_next_succeed(bridges: Bridges) -> None:
    await wait_all_tasks_blocked()
    bridges.last.succeed()


@under_many_schedules
async def test_a_waiter_woken_by_a_replacement_owns_nothing_of_a_build_that_still_succeeds(
    clock: MockClock,
) -> None:
    """Race 4; invariants 16, 17, 40.

    The bug: a woken waiter reads its outcome from the flight, where it finds a success that was
    not meant for it, and ends a lease that it never had.
    The gate: the providers are replaced and the build let go, in one step; so the waiter is
    woken to move on while the build succeeds.
    The proof: leases are exact at every stop, and the old bridge is closed without any.
    """
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        pair = [await Callers(pool, nursery).settled() for _ in range(2)]
        pool.replace_providers(providers(2))
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        stats = pool.statistics()
        assert (stats.leased, stats.waiting, stats.rebuilds) == (0, 2, 2)
        assert bridges.made[0].is_open is False
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert pool.statistics().leased == 2
        assert pool.statistics().forced_closes == 0
        for caller in pair:
            assert caller.bridge is bridges.made[1]
            caller.release()
        await wait_all_tasks_blocked()
        assert pool.statistics().leased == 0


@under_many_schedules
async def test_a_waiter_who_moves_on_owns_nothing_of_what_another_is_handed(
    clock: MockClock,
) -> None:
    """Race 4; invariants 3, 16, 17.

    The bug: a waiter that was sent on reads its outcome from the flight, where it finds the
    bridge of the one who stays, and ends a lease that it never had.
    The gate: one was moved as often as may be, the other never; the providers are replaced and
    the build let go, in one step; so the first is handed the bridge and the other sent on.
    The proof: there is one lease on the overtaken bridge, and the other waits for a new one.
    """
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), max_rebuilds=1) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        stays = await callers.settled()
        pool.replace_providers(providers(2))
        await wait_all_tasks_blocked()
        moves = await callers.settled()
        pool.replace_providers(providers(3))
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert stays.bridge is bridges.made[1]
        assert (pool.statistics().leased, pool.statistics().waiting) == (1, 1)
        assert bridges.made[1].is_open
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert moves.bridge is bridges.made[2]
        for caller in (stays, moves):
            caller.release()
        await wait_all_tasks_blocked()
        assert pool.statistics().leased == 0
        assert pool.statistics().forced_closes == 0


@under_many_schedules
async def test_more_keys_in_use_than_places_take_no_granted_lease_back(clock: MockClock) -> None:
    """Race 5; invariants 6, 15, 30.

    The bug: a lease that was handed over is taken back to make room, its caller builds anew, and
    takes back the next one's: nobody ever gets on.
    The gate: five callers of five keys in a pool of two, all builds let go in one step.
    The proof: five builds, five callers with an open bridge, two of them listed.
    """
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), max_items=2) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = [Callers(pool, nursery).start(key) for key in "abcde"]
        await wait_all_tasks_blocked()
        for bridge in bridges.made:
            bridge.succeed()
        await wait_all_tasks_blocked()
        assert len(bridges.made) == 5
        assert all(caller.bridge is not None and caller.bridge.is_open for caller in callers)
        stats = pool.statistics()
        assert (stats.listed, stats.draining, stats.leased) == (2, 3, 5)
        assert stats.retired[RetireReason.CAPACITY] == 3
        for caller in callers:
            caller.release()
        await wait_all_tasks_blocked()
        assert len(bridges.open_now) == 2


@under_many_schedules
async def test_cancelling_the_pool_wakes_those_who_wait_outside_it(clock: MockClock) -> None:
    """Race 6; invariants 9, 29, 32.

    The bug: the builds are cancelled with the pool, and those who wait for them hang.
    The gate: two callers outside the block wait for one build as the block is cancelled.
    The proof: both get `PoolClosedError`, not `Cancelled`.
    """
    bridges = Bridges(held=True)
    async with trio.open_nursery() as nursery:
        with trio.CancelScope() as block:
            async with open_bridge_pool(bridges.open, providers(1)) as pool:
                pair = [await Callers(pool, nursery).settled() for _ in range(2)]
                block.cancel()
                await trio.lowlevel.checkpoint()
        assert block.cancelled_caught
        assert bridges.last.build_was_cancelled
        await wait_all_tasks_blocked()
        assert [type(caller.error) for caller in pair] == [PoolClosedError, PoolClosedError]
        assert pair[0].error is not pair[1].error


@under_many_schedules
async def test_a_newcomer_never_joins_an_abandoned_build_that_is_being_cancelled(
    clock: MockClock,
) -> None:
    """Invariant 11: an abandoned flight leaves the map first and is cancelled then.

    The bug: a newcomer joins a flight that is dying, and dies with it.
    The gate: the last waiter is cancelled and the newcomer asks, in one step.
    The proof: a second build, and the newcomer gets its bridge.
    """
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), abandon_grace=0) as pool,
        trio.open_nursery() as nursery,
    ):
        first = await Callers(pool, nursery).settled()
        nursery.start_soon(let_the_next_succeed, bridges)
        first.scope.cancel()
        assert await use(pool) is bridges.made[1]
        assert bridges.made[0].build_was_cancelled
        assert pool.statistics().builds[BuildOutcome.ABANDONED] == 1


@under_many_schedules
async def test_an_old_build_that_fails_late_leaves_the_fresh_bridge_listed(
    clock: MockClock,
) -> None:
    """Invariants 7 and 13: entries and flights are removed by identity, not by key.

    The bug: the end of an old build takes what its key has now off the list.
    The gate: an overtaken build, kept by a caller that is not moved on, ends after its successor.
    The proof: the successor is listed still, and yields hits.
    """
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), max_rebuilds=0) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        stayed = await callers.settled()
        pool.replace_providers(providers(2))
        fresh = await callers.settled()
        old, new = bridges.made
        new.succeed()
        await wait_all_tasks_blocked()
        assert fresh.bridge is new
        old.fail()
        await wait_all_tasks_blocked()
        # It does not see the old error, and finds the new bridge instead.
        assert (stayed.error, stayed.bridge) == (None, new)
        assert await use(pool) is new
        assert len(bridges.made) == 2
        for caller in (stayed, fresh):
            caller.release()


@under_many_schedules
async def test_a_cancelled_build_that_ends_late_leaves_its_successor_joinable(
    clock: MockClock,
) -> None:
    """Invariant 13, for flights.

    The bug: a cancelled build that takes its time to unwind unlists the flight after it.
    The gate: the first build ignores its cancellation, and ends when the second is under way.
    The proof: the second can still be joined, and serves all who wait for it.
    """
    bridges = Bridges(held=True, stubborn=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), abandon_grace=0) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        gone = await callers.settled()
        gone.scope.cancel()
        await wait_all_tasks_blocked()
        joiners = [await callers.settled()]
        assert len(bridges.made) == 2
        bridges.made[0].fail()
        joiners.append(callers.start())
        await wait_all_tasks_blocked()
        joiners.append(await callers.settled())
        assert len(bridges.made) == 2
        bridges.made[1].succeed()
        await wait_all_tasks_blocked()
        for caller in joiners:
            assert caller.bridge is bridges.made[1]
            caller.release()
