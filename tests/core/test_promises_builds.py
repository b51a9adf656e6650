"""Promises 7, 8 and 14: waiters, failures and how many builds run at once."""

import contextvars
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import (
    BuildError,
    BuildOutcome,
    BuildTimeoutError,
    ProviderSnapshot,
    ShortLived,
    open_bridge_pool,
)
from tests.core.rig import Bridges, BrokenBridgeError, Callers, providers, use

# -- promise 7: independent waiters ---------------------------------------------------------


async def test_cancelling_the_leader_disturbs_no_follower() -> None:
    """Promise 7; invariants 9, 18 and 34."""
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        leader = await Callers(pool, nursery).settled()
        follower = await Callers(pool, nursery).settled()
        leader.scope.cancel()
        await wait_all_tasks_blocked()
        assert leader.has_ended
        assert pool.statistics().waiting == 1
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert follower.bridge is bridges.last
        assert len(bridges.made) == 1
        follower.release()


@pytest.mark.parametrize("grace", [2.0, 0.0, inf])
async def test_a_build_that_nobody_waits_for_lives_for_its_grace(
    mock_clock: MockClock, grace: float
) -> None:
    """Promise 7; invariants 20 and 21."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(
            bridges.open, providers(1), abandon_grace=grace, build_timeout=inf
        ) as pool,
        trio.open_nursery() as nursery,
    ):
        caller = await Callers(pool, nursery).settled()
        caller.scope.cancel()
        mock_clock.jump(grace * 0.99 if grace < inf else 1e6)
        await wait_all_tasks_blocked()
        assert pool.statistics().building == (1 if grace else 0)
        if grace < inf:
            mock_clock.jump(grace)
            await wait_all_tasks_blocked()
            assert bridges.last.build_was_cancelled
            assert pool.statistics().building == 0
            assert pool.statistics().builds[BuildOutcome.ABANDONED] == 1
        else:
            bridges.last.succeed()
            await wait_all_tasks_blocked()
            assert await use(pool) is bridges.made[0]


async def test_a_caller_that_tries_again_in_time_joins_the_build_it_left(
    mock_clock: MockClock,
) -> None:
    """Promise 7: a client that retries with a short timeout gets its bridge in the end."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), abandon_grace=2) as pool,
        trio.open_nursery() as nursery,
    ):
        for _ in range(5):
            impatient = await Callers(pool, nursery).settled()
            impatient.scope.cancel()
            mock_clock.jump(1.9)
            await wait_all_tasks_blocked()
        last_try = await Callers(pool, nursery).settled()
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert len(bridges.made) == 1
        assert last_try.bridge is bridges.last
        assert pool.statistics().builds[BuildOutcome.ABANDONED] == 0
        last_try.release()


async def test_a_build_and_a_close_run_in_the_context_variables_of_the_pool() -> None:
    """Promise 7; invariant 39."""
    who = contextvars.ContextVar("who", default="nobody")
    seen = []

    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        seen.append(f"build for {who.get()}")
        yield key
        seen.append(f"close for {who.get()}")

    who.set("the opener")
    async with open_bridge_pool(open_bridge, providers(1)) as pool:
        who.set("a caller")
        async with pool.acquire("a"):
            pool.replace_providers(providers(2))
        await wait_all_tasks_blocked()
    assert seen == ["build for the opener", "close for the opener"]


# -- promise 8: failure ---------------------------------------------------------------------


async def test_each_waiter_gets_an_error_of_its_own_with_the_builds_as_cause() -> None:
    """Promise 8; invariant 35."""
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        callers = [await Callers(pool, nursery).settled() for _ in range(3)]
        cause = BrokenBridgeError("no route to the upstream")
        bridges.last.fail(cause)
        await wait_all_tasks_blocked()
        errors = [caller.error for caller in callers]
        assert len({id(error) for error in errors}) == 3
        for error in errors:
            assert isinstance(error, BuildError)
            assert error.__cause__ is cause
            assert (error.key, error.generation, error.status_hint) == ("a", 1, 502)
            assert str(error) == (
                "build of 'a' for generation 1 failed: BrokenBridgeError: no route to the upstream"
            )
        stats = pool.statistics()
        assert (stats.listed, stats.building, stats.waiting) == (0, 0, 0)
        assert stats.builds[BuildOutcome.FAILED] == 1


async def test_a_failure_is_not_kept() -> None:
    """Promise 8: the next acquire builds anew."""
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        first = await Callers(pool, nursery).settled()
        bridges.last.fail()
        await wait_all_tasks_blocked()
        assert isinstance(first.error, BuildError)
        second = await Callers(pool, nursery).settled()
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert second.bridge is bridges.made[1]
        second.release()


async def test_a_build_that_takes_too_long_is_cancelled(autojump_clock: MockClock) -> None:
    """Promise 7, `build_timeout`; bad build: it hangs."""
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1), build_timeout=30) as pool:
        with pytest.raises(BuildTimeoutError, match="build of 'a' for generation 1 timed out") as e:
            await use(pool)
        assert isinstance(e.value, trio.TooSlowError)
        assert e.value.status_hint == 504
        assert trio.current_time() == pytest.approx(30, abs=0.001)
        assert bridges.last.build_was_cancelled
        assert pool.statistics().build_seconds == pytest.approx(30, abs=0.001)


async def test_after_an_error_the_next_build_of_the_key_has_to_wait(
    mock_clock: MockClock,
) -> None:
    """Promise 8, `retry_after_error`: a pause holds up no other key, and no new providers."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), retry_after_error=5) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        await callers.settled("a")
        bridges.last.fail()
        await wait_all_tasks_blocked()
        waits = await callers.settled("a")
        other = await callers.settled("b")
        assert [bridge.key for bridge in bridges.made] == ["a", "b"]
        bridges.last.fail()
        mock_clock.jump(4.9)
        await wait_all_tasks_blocked()
        assert isinstance(other.error, BuildError)
        assert len(bridges.made) == 2
        mock_clock.jump(0.1)
        await wait_all_tasks_blocked()
        assert [bridge.key for bridge in bridges.made] == ["a", "b", "a"]
        bridges.last.fail()
        await wait_all_tasks_blocked()
        assert isinstance(waits.error, BuildError)
        mock_clock.jump(1)
        pool.replace_providers(providers(2))
        hopeful = await callers.settled("a")
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert hopeful.generation == 2
        hopeful.release()


async def test_every_key_has_a_pause_of_its_own(mock_clock: MockClock) -> None:
    """Promise 8, `retry_after_error`: a later failure of one key does not end another's pause."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), retry_after_error=5) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        for key in "ab":
            await callers.settled(key)
            bridges.last.fail()
            await wait_all_tasks_blocked()
            mock_clock.jump(2)
        for key in "ab":
            await callers.settled(key)
        assert len(bridges.made) == 2
        mock_clock.jump(1)
        await wait_all_tasks_blocked()
        assert [bridge.key for bridge in bridges.made] == ["a", "b", "a"]
        mock_clock.jump(2)
        await wait_all_tasks_blocked()
        assert [bridge.key for bridge in bridges.made] == ["a", "b", "a", "b"]
        for bridge in bridges.made:
            bridge.fail()


async def test_a_build_may_shorten_the_life_of_its_bridge(mock_clock: MockClock) -> None:
    """Promise 8, `ShortLived`; callers get the bridge unwrapped."""

    @asynccontextmanager
    async def open_bridge(
        key: str, snapshot: ProviderSnapshot[int]
    ) -> AsyncIterator[str | ShortLived[str]]:
        yield ShortLived("degraded", ttl=3) if key == "poor" else ShortLived("whole", ttl=inf)

    async with open_bridge_pool(open_bridge, providers(1), ttl=100) as pool:
        async with pool.acquire("poor") as bridge:
            assert bridge == "degraded"
        async with pool.acquire("rich") as bridge:
            assert bridge == "whole"
        mock_clock.jump(2.6)
        async with pool.acquire("poor"):
            assert pool.statistics().misses == 2
        mock_clock.jump(0.4)
        async with pool.acquire("poor"):
            assert pool.statistics().misses == 3
        mock_clock.jump(97)
        await wait_all_tasks_blocked()
        with pytest.raises(trio.WouldBlock):  # a longer life than the pool's is not given
            pool.acquire_nowait("rich").__enter__()


# -- promise 14: storm control --------------------------------------------------------------


async def test_builds_take_turns_first_come_first_served() -> None:
    """Promise 14; invariant 37: waiting for its turn is part of the flight, and shared."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), max_concurrent_builds=2) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = [await Callers(pool, nursery).settled(key) for key in "abcdec"]
        stats = pool.statistics()
        assert (stats.building, stats.queued, stats.waiting, stats.joins) == (2, 3, 6, 1)
        for number in range(5):
            assert [bridge.key for bridge in bridges.made] == list("abcde")[: number + 2]
            bridges.made[number].succeed()
            await wait_all_tasks_blocked()
        assert [caller.bridge.key for caller in callers if caller.bridge] == list("abcdec")
        for caller in callers:
            caller.release()


async def test_waiting_for_a_turn_counts_towards_no_timeout(mock_clock: MockClock) -> None:
    """Promise 14: the clock of a build starts with its turn."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(
            bridges.open, providers(1), max_concurrent_builds=1, build_timeout=10
        ) as pool,
        trio.open_nursery() as nursery,
    ):
        first, second, third = [await Callers(pool, nursery).settled(key) for key in "abc"]
        for _ in range(2):
            mock_clock.jump(9)
            bridges.last.succeed()
            await wait_all_tasks_blocked()
        assert second.bridge is bridges.made[1]
        mock_clock.jump(9.9)
        await wait_all_tasks_blocked()
        assert (third.error, pool.statistics().building) == (None, 1)
        mock_clock.jump(0.1)
        await wait_all_tasks_blocked()
        assert isinstance(third.error, BuildTimeoutError)
        assert pool.statistics().build_seconds == pytest.approx(28, abs=0.001)
        first.release()
        second.release()


async def test_a_build_that_gives_up_its_wait_for_a_turn_takes_none() -> None:
    """Promise 14; invariants 21 and 37."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(
            bridges.open, providers(1), max_concurrent_builds=1, abandon_grace=0
        ) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        first, gone, third = [await callers.settled(key) for key in "abc"]
        gone.scope.cancel()
        await wait_all_tasks_blocked()
        assert pool.statistics().queued == 1
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert [bridge.key for bridge in bridges.made] == ["a", "c"]
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        for caller in (first, third):
            assert caller.bridge is not None
            caller.release()


async def test_builds_after_a_replacement_run_no_more_than_so_many_at_once() -> None:
    """Promise 14: the storm that it is for."""
    running, most = 0, 0

    @asynccontextmanager
    async def open_bridge(key: int, snapshot: ProviderSnapshot[int]) -> AsyncIterator[int]:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
        running -= 1
        yield key

    async def acquire(key: int) -> None:
        async with pool.acquire(key):
            pass

    async with open_bridge_pool(open_bridge, providers(1), max_concurrent_builds=4) as pool:
        for number in range(2, 4):
            async with trio.open_nursery() as nursery:
                for key in range(50):
                    nursery.start_soon(acquire, key)
            pool.replace_providers(providers(number))
        assert most == 4
        assert pool.statistics().builds[BuildOutcome.OK] == 100
