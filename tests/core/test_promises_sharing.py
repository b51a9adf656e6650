"""Promises 1 to 4: one bridge for all who ask, built once, never from providers of the past."""

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import BuildOutcome, RetireReason, open_bridge_pool
from tests.core.rig import Bridges, Callers, providers, use


async def test_every_acquire_of_a_listed_key_yields_the_same_object() -> None:
    """Promise 1, identity; invariants 2 and 5."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1)) as pool:
        first = await use(pool, "a")
        other = await use(pool, "b")
        async with pool.acquire("a") as again, pool.acquire("a") as once_more:
            assert again is once_more is first
        with pool.acquire_nowait("a") as at_once:
            assert at_once is first
        assert other is not first
        assert (first.key, other.key) == ("a", "b")
    assert len(bridges.made) == 2


async def test_a_thousand_callers_of_one_key_share_one_build() -> None:
    """Promise 2, coalescing; invariant 18."""
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        crowd = [Callers(pool, nursery).start() for _ in range(1000)]
        await wait_all_tasks_blocked()
        stats = pool.statistics()
        assert (stats.misses, stats.joins, stats.waiting, stats.building) == (1, 999, 1000, 1)
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert {caller.bridge for caller in crowd} == {bridges.last}
        assert pool.statistics().leased == 1000
        for caller in crowd:
            caller.release()
    assert len(bridges.made) == 1


async def test_two_keys_are_built_at_the_same_time() -> None:
    """Promise 2: a slow build of one key holds up no other."""
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        slow = await Callers(pool, nursery).settled("a")
        quick = await Callers(pool, nursery).settled("b")
        bridges.made[1].succeed()
        await wait_all_tasks_blocked()
        assert quick.bridge is bridges.made[1]
        assert slow.bridge is None
        bridges.made[0].succeed()
        for caller in (slow, quick):
            caller.release()


async def test_an_acquire_after_a_replacement_never_sees_the_old_bridge() -> None:
    """Promise 3, freshness; invariants 3 and 8."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1)) as pool:
        old = await use(pool)
        async with pool.acquire("a") as in_use:
            assert pool.replace_providers(providers(2)).applied
            lease = pool.acquire("a")
            async with lease as new:
                assert in_use is old
                assert lease.generation == new.generation == 2
                assert new.snapshot is pool.snapshot
                assert old.is_open


async def test_an_acquire_under_way_as_the_providers_change_gets_the_new_bridge() -> None:
    """Promise 3: what counts is the moment of control, not the moment of the call."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        await use(pool)
        caller = Callers(pool, nursery).start()
        pool.replace_providers(providers(2))  # the caller has not run yet
        await wait_all_tasks_blocked()
        assert caller.generation == 2
        caller.release()
        late = pool.acquire("a")
        pool.replace_providers(providers(3))
        async with late as bridge:
            assert bridge.generation == 3


async def test_a_newcomer_does_not_join_a_build_of_the_old_providers() -> None:
    """Promise 3; invariants 11 and 18."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), max_rebuilds=0) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        before = await callers.settled()
        pool.replace_providers(providers(2))
        after = await callers.settled()
        assert [bridge.generation for bridge in bridges.made] == [1, 2]
        for bridge in bridges.made:
            bridge.succeed()
        await wait_all_tasks_blocked()
        assert after.generation == 2
        for caller in (before, after):
            caller.release()


async def test_those_who_wait_for_an_overtaken_build_move_to_the_new_one() -> None:
    """Promise 4, no stale publication; invariants 8, 12 and 19."""
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        pair = [await Callers(pool, nursery).settled() for _ in range(2)]
        pool.replace_providers(providers(2))
        await wait_all_tasks_blocked()
        old, new = bridges.made
        assert old.build_was_cancelled
        new.succeed()
        await wait_all_tasks_blocked()
        for caller in pair:
            assert (caller.bridge, caller.generation) == (new, 2)
            caller.release()
        stats = pool.statistics()
        assert stats.builds[BuildOutcome.OVERTAKEN] == 1
        assert (stats.misses, stats.joins, stats.rebuilds) == (1, 1, 2)


async def test_the_error_of_an_overtaken_build_reaches_nobody() -> None:
    """Promise 4; invariant 12: not even those who were moved as often as they may be see it."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), max_rebuilds=0) as pool,
        trio.open_nursery() as nursery,
    ):
        caller = await Callers(pool, nursery).settled()
        pool.replace_providers(providers(2))
        bridges.last.fail()
        await wait_all_tasks_blocked()
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert (caller.error, caller.generation) == (None, 2)
        caller.release()


async def test_an_error_handed_over_in_the_tick_of_a_replacement_is_not_delivered() -> None:
    """Promise 4; invariant 12: the failure was current as it was handed over, and is not any more.

    Another waiter of the same build replaces the providers as it learns of the failure.
    """
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        outcomes: list[str] = []

        async def fix_the_providers_on_an_error() -> None:
            try:
                outcomes.append(f"generation {(await use(pool)).generation}")
            except Exception:  # whoever is first to see it
                outcomes.append("error")
                pool.replace_providers(providers(2))

        for _ in range(3):
            nursery.start_soon(fix_the_providers_on_an_error)
        await wait_all_tasks_blocked()
        bridges.last.fail()
        await wait_all_tasks_blocked()
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert outcomes == ["error", "generation 2", "generation 2"]


async def test_a_bridge_handed_over_in_the_tick_of_a_replacement_is_not_used() -> None:
    """Promise 3; invariants 3 and 34: there is a step between the hand-over and the control."""
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        generations: list[int] = []

        async def replace_once() -> None:
            lease = pool.acquire("a")
            async with lease as bridge:
                assert bridge.generation == pool.generation
                generations.append(bridge.generation)
                if pool.generation == 1:
                    pool.replace_providers(providers(2))
                await trio.lowlevel.checkpoint()

        for _ in range(3):
            nursery.start_soon(replace_once)
        await wait_all_tasks_blocked()
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert generations == [1, 2, 2]
        assert [bridge.closes for bridge in bridges.made] == [1, 0]
        assert pool.statistics().leased == 0


async def test_replacements_faster_than_builds_cannot_starve_a_caller() -> None:
    """Promise 4: after `max_rebuilds` moves a caller gets the overtaken build, unlisted."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), max_rebuilds=3) as pool,
        trio.open_nursery() as nursery,
    ):
        caller = await Callers(pool, nursery).settled()
        for number in range(2, 7):
            pool.replace_providers(providers(number))
            await wait_all_tasks_blocked()
        assert [bridge.generation for bridge in bridges.made] == [1, 2, 3, 4]
        assert not bridges.last.build_was_cancelled
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert caller.generation == 4
        stats = pool.statistics()
        assert (stats.listed, stats.draining, stats.leased) == (0, 1, 1)
        assert stats.retired[RetireReason.REPLACED] == 1
        assert stats.builds[BuildOutcome.OVERTAKEN] == 4
        caller.release()
        await wait_all_tasks_blocked()
        assert bridges.last.closes_ended == 1


async def test_an_overtaken_build_is_shared_only_with_those_who_were_moved_as_often() -> None:
    """Promise 4: one waiter has to stay with the overtaken build, the other can still move."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), max_rebuilds=1) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        old_hand = await callers.settled()
        pool.replace_providers(providers(2))
        await wait_all_tasks_blocked()
        newcomer = await callers.settled()
        pool.replace_providers(providers(3))
        await wait_all_tasks_blocked()
        for bridge in bridges.made:
            bridge.succeed()
        await wait_all_tasks_blocked()
        assert (old_hand.generation, newcomer.generation) == (2, 3)
        for caller in (old_hand, newcomer):
            caller.release()


async def test_an_overtaken_build_whose_last_waiter_leaves_has_no_grace(
    mock_clock: MockClock,
) -> None:
    """Promise 4; invariant 19: nobody can come back to a build that nobody can join."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), max_rebuilds=0, abandon_grace=60) as pool,
        trio.open_nursery() as nursery,
    ):
        caller = await Callers(pool, nursery).settled()
        pool.replace_providers(providers(2))
        await wait_all_tasks_blocked()
        assert not bridges.last.build_was_cancelled
        caller.scope.cancel()
        await wait_all_tasks_blocked()
        assert bridges.last.build_was_cancelled
        assert pool.statistics().building == 0


async def test_a_build_that_nobody_waits_for_as_it_is_overtaken_is_cancelled() -> None:
    """Promise 4; invariant 19."""
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        caller = await Callers(pool, nursery).settled()
        caller.scope.cancel()
        await wait_all_tasks_blocked()
        assert pool.statistics().building == 1  # its grace
        pool.replace_providers(providers(2))
        await wait_all_tasks_blocked()
        assert bridges.last.build_was_cancelled
        assert pool.statistics().builds[BuildOutcome.OVERTAKEN] == 1
