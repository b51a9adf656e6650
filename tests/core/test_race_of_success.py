"""Race 3 of `docs/invariants.md`: a build succeeds in the tick in which something cancels it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import BuildOutcome, BuildTimeoutError, ProviderSnapshot, open_bridge_pool
from tests.core.rig import Bridges, Callers, providers, under_many_schedules


@under_many_schedules
async def test_a_build_that_succeeds_in_the_tick_of_its_timeout_is_closed_unused(
    clock: MockClock,
) -> None:
    """Race 3; invariants 7, 14, 28.

    The bug: the build returns although its scope is cancelled, and the dying bridge is listed.
    The gate: the build is let go, and the clock jumps to its deadline, in one step.
    The proof: the waiter gets its timeout, nothing is listed, and the bridge is closed, once,
    to the end: the cancellation of the build does not reach the close.
    """
    bridges = Bridges(held=True, close_time=1.0)
    async with (
        open_bridge_pool(bridges.open, providers(1), build_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        caller = await Callers(pool, nursery).settled()
        bridges.last.succeed()
        clock.jump(5)
        await wait_all_tasks_blocked()
        assert isinstance(caller.error, BuildTimeoutError)
        assert pool.statistics().listed == 0
        assert bridges.last.closes == 1
        assert pool.statistics().building == 1  # until it is closed it has its place
        clock.jump(1)
        await wait_all_tasks_blocked()
        assert bridges.last.closes_ended == 1
        assert pool.statistics().building == 0


@under_many_schedules
async def test_a_build_that_succeeds_as_its_grace_ends_is_closed_unused_and_in_peace(
    clock: MockClock,
) -> None:
    """Race 3; invariants 14, 21, 28 and 31.

    The bug: what cancels an abandoned build stays in force, and cuts the close of its bridge;
    or leaving the pool does, for which the flight has not ended.
    The gate: the build is let go, and the clock jumps to the end of the grace, in one step; the
    block is left while the bridge closes.
    The proof: nothing is listed, and the bridge is closed once, to the end.
    """
    bridges = Bridges(held=True, close_time=1.0)
    async with (
        open_bridge_pool(bridges.open, providers(1), abandon_grace=2) as pool,
        trio.open_nursery() as nursery,
    ):
        caller = await Callers(pool, nursery).settled()
        caller.scope.cancel()
        await wait_all_tasks_blocked()
        bridges.last.succeed()
        clock.jump(2)
        await wait_all_tasks_blocked()
        stats = pool.statistics()
        assert (stats.listed, stats.building, bridges.last.closes) == (0, 1, 1)
        assert stats.builds[BuildOutcome.ABANDONED] == 1
        clock.autojump_threshold = 0
    assert (bridges.last.closes, bridges.last.closes_ended) == (1, 1)
    assert pool.statistics().builds[BuildOutcome.ABANDONED] == 1


@under_many_schedules
async def test_a_build_that_succeeds_in_the_tick_of_a_replacement_is_closed_unused(
    clock: MockClock,
) -> None:
    """Race 3; invariants 3, 8, 14.

    The bug: a build of the old providers is listed under the new ones.
    The gate: the build is let go and the providers are replaced, in one step.
    The proof: the waiter gets a bridge of the new providers, and the old one is closed, once.
    """
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        caller = await Callers(pool, nursery).settled()
        bridges.last.succeed()
        pool.replace_providers(providers(2))
        await wait_all_tasks_blocked()
        assert caller.bridge is None
        assert bridges.made[0].closes_ended == 1
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert caller.generation == bridges.last.generation == 2
        assert len(bridges.made) == 2
        assert pool.statistics().builds[BuildOutcome.OVERTAKEN] == 1
        caller.release()


@under_many_schedules
async def test_a_build_overtaken_in_the_step_of_its_success_keeps_its_tasks_until_it_closes(
    clock: MockClock,
) -> None:
    """Race 3; invariants 14 and 31: what cancels a build reaches no task of a bridge.

    The bug: the build has returned and is found to be overtaken; it is cancelled all the same,
    and so are the tasks that it has started, and with them the close.
    The gate: the build itself replaces the providers as the last thing it does.
    The proof: the background task ends with the close, which takes its time.
    """
    ends: list[str] = []

    async def background() -> None:
        try:
            await trio.sleep_forever()
        finally:
            ends.append("background")

    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(background)
            await trio.sleep(1)
            pool.replace_providers(providers(2))
            yield key
            await trio.sleep(1)
            ends.append("close")
            nursery.cancel_scope.cancel()

    clock.autojump_threshold = 0
    async with open_bridge_pool(open_bridge, providers(1)) as pool:
        async with pool.acquire("a"):
            await pool.wait_drained(1)
        assert ends == ["close", "background"]
        assert pool.statistics().builds[BuildOutcome.OVERTAKEN] == 1
