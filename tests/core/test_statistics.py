"""What a pool tells about itself; invariants 25 and 26 in plain examples."""

import json
from enum import Enum

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import (
    BuildOutcome,
    ChangeBus,
    ReloadStatus,
    ReplaceOutcome,
    RetireReason,
    open_bridge_pool,
)
from bridgepool._statistics import as_json
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


async def test_statistics_become_json_with_enums_by_their_values() -> None:
    """`attrs.asdict` gave mappings that cannot be copied, with enums for keys."""
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        await use(pool)
        stats = pool.statistics()
        given = json.loads(json.dumps(stats.as_dict()))
        assert list(given) == [field.name for field in attrs.fields(type(stats))]
        assert given["builds"] == {
            "ok": 1, "failed": 0, "timed out": 0, "abandoned": 0, "overtaken": 0,
        }  # fmt: skip
        assert given["retired"] == {reason.value: 0 for reason in RetireReason}
        assert given["replacements"] == {outcome.value: 0 for outcome in ReplaceOutcome}
        assert (given["listed"], given["hits"], given["misses"]) == (1, 0, 1)


async def test_the_status_of_reloads_becomes_json_with_none_for_never(
    autojump_clock: MockClock,
) -> None:
    status = ReloadStatus()
    given = json.loads(json.dumps(status.as_dict()))
    assert list(given) == [*(field.name for field in attrs.fields(ReloadStatus)), "staleness"]
    assert (given["staleness"], given["last_success"], given["following"]) == (None, None, True)
    status.last_success = trio.current_time()
    await trio.sleep(3)
    assert status.as_dict()["staleness"] == 3


def test_the_statistics_of_a_bus_become_json() -> None:
    bus = ChangeBus()
    subscription = bus.subscribe()
    assert json.dumps(bus.statistics().as_dict()) == '{"subscribers": 1}'
    del subscription


def test_what_json_cannot_hold_is_no_statistic() -> None:
    class Level(Enum):
        HIGH = float("inf")

    @attrs.frozen
    class Odd:
        field: object

    assert as_json(Odd(Level.HIGH)) == {"field": None}
    with pytest.raises(TypeError, match="set has no form in JSON"):
        as_json(Odd({1}))
