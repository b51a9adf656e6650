"""What a pool tells about itself; invariants 25 and 26 in plain examples."""

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import (
    BuildOutcome,
    ReplaceOutcome,
    RetireReason,
    open_bridge_pool,
)
from tests.core.rig import Bridges, Callers, providers, use


async def test_a_fresh_pool_counts_nothing() -> None:
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        stats = pool.statistics()
        numbers = attrs.asdict(stats)
        assert numbers.pop("generation") == 1
        assert stats.builds == dict.fromkeys(BuildOutcome, 0)
        assert stats.retired == dict.fromkeys(RetireReason, 0)
        assert stats.replacements == dict.fromkeys(ReplaceOutcome, 0)
        for name in ("builds", "retired", "replacements"):
            del numbers[name]
        assert set(numbers.values()) == {0}


async def test_every_field_tells_what_its_name_says(mock_clock: MockClock) -> None:
    bridges = Bridges(held=True, close_time=2)
    async with (
        open_bridge_pool(
            bridges.open, providers(1), max_items=2, max_concurrent_builds=2, build_timeout=50
        ) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        waiting = [await callers.settled(key) for key in "aabc"]
        stats = pool.statistics()
        assert (stats.building, stats.queued, stats.waiting, stats.leased) == (2, 1, 4, 0)
        assert (stats.misses, stats.joins, stats.hits) == (3, 1, 0)
        mock_clock.jump(10)
        for number in range(3):
            bridges.made[number].succeed()
            await wait_all_tasks_blocked()
        stats = pool.statistics()
        assert (stats.listed, stats.draining, stats.leased, stats.waiting) == (2, 1, 4, 0)
        assert stats.builds[BuildOutcome.OK] == 3
        assert stats.build_seconds == pytest.approx(20)
        assert stats.retired[RetireReason.CAPACITY] == 1
        waiting.append(await callers.settled("c"))
        assert pool.statistics().hits == 1
        for caller in waiting:
            caller.release()
        await wait_all_tasks_blocked()
        stats = pool.statistics()
        assert (stats.listed, stats.draining, stats.leased) == (2, 1, 0)
        mock_clock.jump(2)
        await wait_all_tasks_blocked()
        assert pool.statistics().draining == 0
        mock_clock.autojump_threshold = 0
    stats = pool.statistics()
    assert stats.retired[RetireReason.CLOSED] == 2
    assert (stats.close_overruns, stats.close_failures, stats.forced_closes) == (0, 0, 0)


async def test_taking_stock_resets_nothing_and_cannot_be_tampered_with() -> None:
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        await use(pool)
        await use(pool)
        first, second = pool.statistics(), pool.statistics()
        assert first == second
        assert (first.misses, first.hits) == (1, 1)
        with pytest.raises(TypeError):
            first.builds[BuildOutcome.OK] = 7  # type: ignore[index]  # that it is refused is the point
        with pytest.raises(attrs.exceptions.FrozenInstanceError):
            first.hits = 7  # type: ignore[misc]  # that it is refused is the point
        await use(pool)
        assert first == second
        assert pool.statistics().hits == 2
