"""Promises 12 and 13: a change that changes nothing costs nothing; any other costs little."""

import gc
import sys
from itertools import pairwise
from types import FrameType

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from bridgepool import (
    ProviderSnapshot,
    ReplaceOutcome,
    RetireReason,
    open_bridge_pool,
)
from tests.core.rig import Bridges, Callers, Pool, providers, use

# -- promise 12: no-op ----------------------------------------------------------------------


async def test_equal_providers_keep_every_bridge() -> None:
    """Promise 12, no-op; invariant 33."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1)) as pool:
        before = await use(pool)
        result = pool.replace_providers(providers(1))
        assert (result.outcome, result.generation) == (ReplaceOutcome.UNCHANGED, 1)
        assert not result.applied
        assert await use(pool) is before
        assert pool.statistics().replacements[ReplaceOutcome.UNCHANGED] == 1


async def test_providers_in_another_order_are_a_change() -> None:
    """Promise 12: the set is ordered, and bridges may depend on it."""
    async with open_bridge_pool(Bridges().open, ProviderSnapshot([1, 2])) as pool:
        assert pool.replace_providers(ProviderSnapshot([2, 1])).applied


async def test_equal_providers_of_a_newer_revision_move_the_revision_alone() -> None:
    """Promise 12: so that what is older than them is known to be out of date."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, ProviderSnapshot([1], 5)) as pool:
        bridge = await use(pool)
        assert pool.replace_providers(ProviderSnapshot([1], 9)).outcome is ReplaceOutcome.UNCHANGED
        assert (pool.snapshot.revision, pool.generation) == (9, 1)
        late = pool.replace_providers(ProviderSnapshot([2], 7))
        assert (late.outcome, late.generation) == (ReplaceOutcome.OUT_OF_DATE, 1)
        assert await use(pool) is bridge


async def test_a_lower_revision_is_refused_and_counted() -> None:
    """Promise 12; invariant 33: it changes nothing that can be observed."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, ProviderSnapshot([1], 5)) as pool:
        bridge = await use(pool)
        for _ in range(2):
            result = pool.replace_providers(ProviderSnapshot([2], 4))
            assert result.outcome is ReplaceOutcome.OUT_OF_DATE
        assert pool.snapshot == ProviderSnapshot([1], 5)
        assert await use(pool) is bridge
        assert pool.statistics().replacements[ReplaceOutcome.OUT_OF_DATE] == 2
        # The same revision with other providers is news, and so is one without a revision.
        assert pool.replace_providers(ProviderSnapshot([2], 5)).applied
        assert pool.replace_providers(ProviderSnapshot([3])).applied
        assert pool.replace_providers(ProviderSnapshot([4], 1)).applied
        assert pool.generation == 4


async def test_generations_are_numbered_by_the_pool_one_by_one() -> None:
    """Invariant 33."""
    async with open_bridge_pool(Bridges().open, ProviderSnapshot([1], 700)) as pool:
        assert pool.generation == 1
        for number in range(2, 6):
            result = pool.replace_providers(ProviderSnapshot([number], 700 + 10 * number))
            assert result.generation == pool.generation == number
            assert pool.snapshot.providers == (number,)
        assert pool.statistics().replacements[ReplaceOutcome.APPLIED] == 4


# -- promise 13: atomic and cheap -----------------------------------------------------------


async def _fill(pool: Pool, count: int) -> None:
    for number in range(count):
        await use(pool, f"key {number}")


async def test_the_cost_of_a_replacement_does_not_grow_with_the_bridges() -> None:
    """Promise 13: the calls that it makes are counted, with 5 bridges and with 1,000."""

    async def calls_of_a_replacement(bridge_count: int) -> int:
        calls = 0

        def count(frame: FrameType, event: str, argument: object) -> None:
            nonlocal calls
            calls += event in ("call", "c_call")

        async with open_bridge_pool(Bridges().open, providers(1)) as pool:
            await _fill(pool, bridge_count)
            await wait_all_tasks_blocked()
            snapshot = providers(2)
            gc.disable()  # a collection may call back, and would be counted
            sys.setprofile(count)
            try:
                pool.replace_providers(snapshot)
            finally:
                sys.setprofile(None)
                gc.enable()
            assert pool.statistics().listed == 0
            return calls

    few = await calls_of_a_replacement(5)
    assert 0 < few == await calls_of_a_replacement(1000)


class ClosesPerTick(trio.abc.Instrument):
    """Counts how many bridges begin to close in each round of Trio's scheduler."""

    def __init__(self, bridges: Bridges) -> None:
        self._bridges = bridges
        self._closes = [0]

    def after_io_wait(self, timeout: float) -> None:
        self._closes.append(sum(bridge.closes for bridge in self._bridges.made))

    @property
    def most(self) -> int:
        return max(after - before for before, after in pairwise(self._closes))


async def test_old_bridges_are_retired_about_a_hundred_a_tick() -> None:
    """Promise 13: another task gets its turn between any two batches."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1)) as pool:
        await _fill(pool, 1000)
        pool.replace_providers(providers(2))
        trio.lowlevel.add_instrument(ticks := ClosesPerTick(bridges))
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(ticks)
        assert bridges.open_now == []
        assert 1 < ticks.most <= 100
        assert pool.statistics().retired[RetireReason.REPLACED] == 1000


async def test_bridges_that_a_deadline_forces_close_about_a_hundred_a_tick(
    mock_clock: MockClock,
) -> None:
    """Promise 13, for what is in use as its drain deadline comes."""
    bridges = Bridges()
    async with (
        open_bridge_pool(bridges.open, providers(1), drain_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = [Callers(pool, nursery).start(f"key {number}") for number in range(250)]
        await wait_all_tasks_blocked()
        pool.replace_providers(providers(2))
        await wait_all_tasks_blocked()
        mock_clock.jump(5)
        trio.lowlevel.add_instrument(ticks := ClosesPerTick(bridges))
        await wait_all_tasks_blocked()
        trio.lowlevel.remove_instrument(ticks)
        assert bridges.open_now == []
        assert 1 < ticks.most <= 100
        assert pool.statistics().forced_closes == 250
        for caller in callers:
            caller.release()


async def test_a_replacement_is_in_force_before_the_next_checkpoint() -> None:
    """Promise 13, atomic: it is not async, and there is nothing in between."""
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        await use(pool)
        pool.replace_providers(providers(2))
        assert (pool.generation, pool.snapshot) == (2, providers(2))
        with pytest.raises(trio.WouldBlock):
            pool.acquire_nowait("a").__enter__()


# -- waiting for the old to be gone ---------------------------------------------------------


async def test_wait_drained_returns_when_the_last_old_bridge_is_closed(
    mock_clock: MockClock,
) -> None:
    """It waits for leases, closes and builds of that generation, and of those before it."""
    bridges = Bridges(close_time=1)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        drained: list[int] = []

        async def wait(generation: int) -> None:
            await pool.wait_drained(generation)
            drained.append(generation)

        callers = Callers(pool, nursery)
        first = await callers.settled()
        pool.replace_providers(providers(2))
        second = await callers.settled()
        pool.replace_providers(providers(3))
        for generation in (1, 2):
            nursery.start_soon(wait, generation)
        await wait_all_tasks_blocked()
        second.release()
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert bridges.made[1].closes_ended == 0
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert bridges.made[1].closes_ended == 1
        assert drained == []
        first.release()
        await wait_all_tasks_blocked()
        assert drained == []
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert sorted(drained) == [1, 2]


async def test_wait_drained_waits_for_builds_too() -> None:
    bridges = Bridges(held=True, stubborn=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        caller = await Callers(pool, nursery).settled()
        pool.replace_providers(providers(2))
        drained = trio.Event()

        async def wait() -> None:
            await pool.wait_drained(1)
            drained.set()

        nursery.start_soon(wait)
        await wait_all_tasks_blocked()
        assert not drained.is_set()
        bridges.made[0].succeed()
        await wait_all_tasks_blocked()
        assert drained.is_set()
        bridges.made[1].succeed()
        caller.release()


async def test_wait_drained_of_the_generation_in_force_waits_until_nothing_is_open() -> None:
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        with assert_checkpoints():
            await pool.wait_drained(1)
        await use(pool)
        with trio.CancelScope() as scope:
            scope.cancel()
            await pool.wait_drained(1)
        assert scope.cancelled_caught
    await pool.wait_drained(1)
