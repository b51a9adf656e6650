"""Promises 10 and 11: never more than so many bridges, and none too old."""

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from math import inf

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import (
    BuildOutcome,
    ProviderSnapshot,
    RetireReason,
    ShortLived,
    open_bridge_pool,
)
from tests.core.rig import Bridges, Callers, providers, use

# -- promise 10: bound ----------------------------------------------------------------------


async def test_no_more_than_max_items_are_listed() -> None:
    """Promise 10; invariant 6: room is made before the acquire that needs it returns."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1), max_items=3) as pool:
        for number in range(10):
            async with pool.acquire(f"key {number}"):
                assert pool.statistics().listed == min(number + 1, 3)
            assert pool.statistics().listed <= 3
        await wait_all_tasks_blocked()
        assert len(bridges.open_now) == 3
        assert pool.statistics().retired[RetireReason.CAPACITY] == 7


async def test_what_makes_room_is_idle_while_anything_is_idle() -> None:
    """Promise 10; invariant 38."""
    bridges = Bridges()
    async with (
        open_bridge_pool(bridges.open, providers(1), max_items=2) as pool,
        pool.acquire("in use") as in_use,
    ):
        for key in "abc":
            await use(pool, key)
        assert await use(pool, "in use") is in_use
        assert await use(pool, "c") is bridges.last


async def test_with_everything_in_use_the_longest_listed_makes_room() -> None:
    """Promise 10; invariant 38: it keeps serving those who hold it."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1), max_items=2) as pool:
        async with pool.acquire("a") as a, pool.acquire("b"), pool.acquire("c"):
            assert a.is_open
            assert pool.statistics().draining == 1
            with pytest.raises(trio.WouldBlock):
                pool.acquire_nowait("a").__enter__()
            with pool.acquire_nowait("b") as b:
                assert b is bridges.made[1]
        await wait_all_tasks_blocked()
        assert not a.is_open


async def test_keys_used_once_displace_none_that_are_used_again() -> None:
    """Promise 10: a scan over many keys costs the others nothing."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1), max_items=10) as pool:
        regulars = [f"regular {number}" for number in range(8)]
        for key in regulars * 2:
            await use(pool, key)
        for number in range(100):
            await use(pool, f"stranger {number}")
        builds = len(bridges.made)
        for key in regulars:
            await use(pool, key)
        assert len(bridges.made) == builds


async def test_what_was_published_is_found() -> None:
    """Promise 10: exact, never lossy."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1), max_items=50) as pool:
        for _ in range(3):
            for number in range(50):
                await use(pool, f"key {number}")
        assert len(bridges.made) == 50
        assert pool.statistics().hits == 100


async def test_beyond_max_live_a_build_waits_for_a_place() -> None:
    """Promise 10; invariant 37: draining bridges count, and idle ones make a place."""
    bridges = Bridges()
    async with (
        open_bridge_pool(bridges.open, providers(1), max_live=2) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        first = await callers.settled("a")
        await use(pool, "b")
        third = await callers.settled("c")  # the place of "b", which was idle
        assert third.bridge is bridges.made[2]
        assert bridges.made[1].closes_ended == 1
        pool.replace_providers(providers(2))
        fourth = await callers.settled("d")
        stats = pool.statistics()
        assert (stats.draining, stats.queued, stats.building) == (2, 1, 0)
        first.release()
        await wait_all_tasks_blocked()
        assert fourth.generation == 2
        for caller in (third, fourth):
            caller.release()


async def test_a_bridge_that_becomes_idle_makes_the_place_that_is_waited_for() -> None:
    """Promise 10; invariant 37: all in use as the build asked; then a lease ends."""
    bridges = Bridges()
    async with (
        open_bridge_pool(bridges.open, providers(1), max_live=2) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = [await Callers(pool, nursery).settled(key) for key in "abc"]
        assert callers[2].bridge is None
        callers[1].release()
        await wait_all_tasks_blocked()
        assert callers[2].bridge is not None
        assert [bridge.is_open for bridge in bridges.made] == [True, False, True]
        assert pool.statistics().retired[RetireReason.CAPACITY] == 1
        for caller in callers:
            caller.release()


async def test_a_place_is_free_only_when_the_bridge_before_is_closed(
    mock_clock: MockClock,
) -> None:
    """Promise 10; invariant 37: one idle bridge is enough for one build, however slow its close."""
    bridges = Bridges(close_time=3)
    async with (
        open_bridge_pool(bridges.open, providers(1), max_live=3) as pool,
        trio.open_nursery() as nursery,
    ):
        for key in "abc":
            await use(pool, key)
        caller = await Callers(pool, nursery).settled("d")
        assert [bridge.closes for bridge in bridges.made] == [1, 0, 0]
        await use(pool, "c")  # becomes idle once more, and is asked for no more than it was
        await wait_all_tasks_blocked()
        assert [bridge.closes for bridge in bridges.made] == [1, 0, 0]
        assert caller.bridge is None
        mock_clock.jump(3)
        await wait_all_tasks_blocked()
        assert caller.bridge is bridges.last
        assert [bridge.closes for bridge in bridges.made] == [1, 0, 0, 0]
        caller.release()
        mock_clock.autojump_threshold = 0


# -- promise 11: time to live ---------------------------------------------------------------


async def test_an_expired_bridge_is_not_found_however_often_it_was_hit(
    mock_clock: MockClock,
) -> None:
    """Promise 11; invariants 4 and 24: the time counts from the build, and a hit adds none."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1), ttl=100) as pool:
        await use(pool)
        for _ in range(8):
            mock_clock.jump(10)
            assert await use(pool) is bridges.made[0]
        mock_clock.jump(20)
        with pytest.raises(trio.WouldBlock), pool.acquire_nowait("a"):
            raise AssertionError("it has expired")
        assert await use(pool) is bridges.made[1]
        assert pool.statistics().retired[RetireReason.EXPIRED] == 1


async def test_a_bridge_that_expires_between_the_look_up_and_the_entering_is_not_used(
    mock_clock: MockClock,
) -> None:
    """Promise 11; invariant 4."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1), ttl=100) as pool:
        await use(pool)
        lease = pool.acquire_nowait("a")
        mock_clock.jump(100)
        with pytest.raises(trio.WouldBlock):
            lease.__enter__()
        # Both ways in retire it; the reaper had no turn yet.
        assert pool.statistics().retired[RetireReason.EXPIRED] == 1


async def test_lives_are_shortened_by_up_to_a_tenth_at_random(mock_clock: MockClock) -> None:
    """Promise 11: bridges that are born together do not die together, and never outlive the ttl."""
    random.seed(7)
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1), ttl=1000) as pool:
        for number in range(200):
            await use(pool, f"key {number}")
        alive = []
        for _ in range(13):
            alive.append(pool.statistics().listed)
            mock_clock.jump(900 if len(alive) == 1 else 10.5)
            await wait_all_tasks_blocked()
        assert alive[0] == alive[1] == 200
        assert alive[-1] == 0
        deaths = [before - after for before, after in pairwise(alive)]
        assert max(deaths) < 60


async def test_idle_bridges_are_reaped_without_traffic(autojump_clock: MockClock) -> None:
    """Promise 11; invariant 24: within a reaper period, here five seconds."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1), ttl=100) as pool:
        await use(pool)
        await trio.sleep(89)
        assert bridges.last.is_open
        await trio.sleep(16.1)
        assert bridges.last.closes_ended == 1
        assert pool.statistics().retired[RetireReason.EXPIRED] == 1


async def test_an_infinite_ttl_never_ends(mock_clock: MockClock) -> None:
    """Promise 11."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1), ttl=inf) as pool:
        first = await use(pool)
        mock_clock.jump(1e9)
        await wait_all_tasks_blocked()
        assert await use(pool) is first


async def test_the_next_bridge_is_built_ahead_while_the_old_one_serves(
    mock_clock: MockClock,
) -> None:
    """Promise 11, `refresh_ahead`: one build in the background, and no caller ever waits."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), ttl=100, refresh_ahead=20) as pool,
        trio.open_nursery() as nursery,
    ):
        holder = await Callers(pool, nursery).settled()
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        mock_clock.jump(60)
        assert await use(pool) is bridges.made[0]
        await wait_all_tasks_blocked()
        assert len(bridges.made) == 1  # not due yet
        mock_clock.jump(25)
        for _ in range(3):
            assert await use(pool) is bridges.made[0]
        await wait_all_tasks_blocked()
        assert len(bridges.made) == 2
        assert (pool.statistics().waiting, pool.statistics().misses) == (0, 1)
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        with pool.acquire_nowait("a") as bridge:
            assert bridge is bridges.made[1]
        assert bridges.made[0].is_open  # its lease is held
        assert pool.statistics().retired[RetireReason.EXPIRED] == 1
        holder.release()
        await wait_all_tasks_blocked()
        assert not bridges.made[0].is_open


async def test_a_bridge_of_a_short_life_is_not_built_ahead_at_once(mock_clock: MockClock) -> None:
    """Promise 11: else each hit on the fresh bridge began another build, as fast as they end."""

    @asynccontextmanager
    async def open_bridge(
        key: str, _: ProviderSnapshot[int]
    ) -> AsyncIterator[str | ShortLived[str]]:
        yield ShortLived(key, 10)

    async with open_bridge_pool(open_bridge, providers(1), refresh_ahead=60) as pool:
        for _ in range(20):
            async with pool.acquire("a"):
                await wait_all_tasks_blocked()
            mock_clock.jump(0.2)
        assert pool.statistics().builds[BuildOutcome.OK] == 1
        mock_clock.jump(4)
        async with pool.acquire("a"):
            await wait_all_tasks_blocked()
        assert pool.statistics().builds[BuildOutcome.OK] == 2
        assert pool.statistics().misses == 1


async def test_a_failed_build_ahead_keeps_the_old_bridge(mock_clock: MockClock) -> None:
    """Promise 11; invariant 13: nobody hears of it; a later miss builds anew."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), ttl=100, refresh_ahead=20) as pool,
        trio.open_nursery() as nursery,
    ):
        caller = await Callers(pool, nursery).settled()
        bridges.last.succeed()
        caller.release()
        await wait_all_tasks_blocked()
        mock_clock.jump(85)
        with pool.acquire_nowait("a") as bridge:  # this way in builds ahead as well
            assert bridge is bridges.made[0]
        await wait_all_tasks_blocked()
        bridges.last.fail()
        await wait_all_tasks_blocked()
        assert pool.statistics().builds[BuildOutcome.FAILED] == 1
        assert await use(pool) is bridges.made[0]
        await wait_all_tasks_blocked()
        assert len(bridges.made) == 2


async def test_a_caller_that_comes_too_late_joins_the_build_ahead(mock_clock: MockClock) -> None:
    """Promise 11; invariants 13 and 18."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), ttl=100, refresh_ahead=20) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        (await callers.settled()).release()
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        mock_clock.jump(85)
        await use(pool)
        mock_clock.jump(15)
        await wait_all_tasks_blocked()
        late = await callers.settled()
        assert len(bridges.made) == 2
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert late.bridge is bridges.made[1]
        late.release()


async def test_a_build_ahead_needs_nobody_to_wait_for_it(mock_clock: MockClock) -> None:
    """Promise 11; invariant 21: a caller that joins it and gives up does not end it."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(
            bridges.open, providers(1), ttl=100, refresh_ahead=20, abandon_grace=0
        ) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        (await callers.settled()).release()
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        mock_clock.jump(85)
        await use(pool)
        mock_clock.jump(15)
        await wait_all_tasks_blocked()
        impatient = await callers.settled()
        impatient.scope.cancel()
        await wait_all_tasks_blocked()
        assert not bridges.last.build_was_cancelled
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert await use(pool) is bridges.made[1]


async def test_a_bridge_that_nobody_waits_for_makes_room_as_soon_as_it_is_listed() -> None:
    """Promise 10; invariants 26 and 37: evicted in the step in which it was published."""
    bridges = Bridges(held=True)
    async with (
        open_bridge_pool(bridges.open, providers(1), max_live=1, abandon_grace=inf) as pool,
        trio.open_nursery() as nursery,
    ):
        gone = await Callers(pool, nursery).settled("a")
        gone.scope.cancel()
        stays = await Callers(pool, nursery).settled("b")
        assert pool.statistics().queued == 1
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert [(bridge.key, bridge.closes_ended) for bridge in bridges.made] == [
            ("a", 1),
            ("b", 0),
        ]
        assert pool.statistics().retired[RetireReason.CAPACITY] == 1
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert stays.bridge is bridges.last
        stays.release()
