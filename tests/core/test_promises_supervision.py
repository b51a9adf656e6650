"""Promise 9: a bridge that crashes takes nobody along."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import BuildError, ProviderSnapshot, RetireReason, open_bridge_pool
from tests.core.rig import Bridges, BrokenBridgeError, Callers, providers, use


async def test_a_crashed_idle_bridge_is_retired_counted_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Promise 9, supervision; invariants 26 and 41: the next acquire builds anew."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1)) as pool:
        await use(pool, "b")
        await use(pool, "a")
        bridges.last.crash()
        await wait_all_tasks_blocked()
        stats = pool.statistics()
        assert (stats.listed, stats.draining) == (1, 0)
        assert stats.retired[RetireReason.CRASHED] == 1
        assert (stats.close_failures, stats.forced_closes) == (0, 0)
        assert "bridge of 'a' crashed" in caplog.text
        assert "BrokenBridgeError: crash of a" in caplog.text
        assert await use(pool, "a") is bridges.made[2]
        assert await use(pool, "b") is bridges.made[0]


async def test_a_bridge_that_crashes_under_a_lease_cancels_no_caller() -> None:
    """Promise 9; invariants 9, 16 and 41: the holder hears of it from its lease, if it asks."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        other = await Callers(pool, nursery).settled("b")
        lease = pool.acquire("a")
        async with lease as bridge:
            bridge.crash()
            await lease.wait_retired()
            await wait_all_tasks_blocked()
            assert not bridge.is_open
            assert pool.statistics().leased == 2
            async with pool.acquire("a") as fresh:
                assert fresh is not bridge
        assert pool.statistics().leased == 1
        assert pool.statistics().forced_closes == 0
        assert other.bridge is not None
        assert other.bridge.is_open
        other.release()
    assert [b.closes for b in bridges.made] == [1, 1, 1]


async def test_a_bridge_that_ends_itself_without_an_exception_is_retired_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Promise 9; invariant 41: its own cancel scope, around its `yield`, was cancelled."""
    scopes = []

    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        with trio.CancelScope() as scope:  # noqa: ASYNC100 -- the pool waits in it
            scopes.append(scope)
            yield key

    async with open_bridge_pool(open_bridge, providers(1)) as pool:
        async with pool.acquire("a"):
            pass
        scopes[0].cancel()
        with pytest.raises(trio.WouldBlock):  # in the very step in which it is cancelled
            pool.acquire_nowait("a").__enter__()
        async with pool.acquire("a"):
            assert len(scopes) == 2
        assert pool.statistics().retired[RetireReason.CRASHED] == 1
        assert "crashed: a cancel scope around its `yield` was cancelled" in caplog.text


async def test_a_bridge_whose_own_deadline_passes_is_retired(mock_clock: MockClock) -> None:
    """Promise 9."""

    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        with trio.move_on_after(7):  # noqa: ASYNC100 -- the pool waits in it
            yield key

    async with open_bridge_pool(open_bridge, providers(1)) as pool:
        async with pool.acquire("a"):
            pass
        mock_clock.jump(7)
        await wait_all_tasks_blocked()
        stats = pool.statistics()
        assert (stats.listed, stats.retired[RetireReason.CRASHED]) == (0, 1)


async def test_a_bridge_that_crashes_as_it_is_handed_over_is_used_by_nobody() -> None:
    """Promise 9; invariants 1 and 41: the second waiter runs after the first has crashed it."""
    scopes: list[trio.CancelScope] = []
    gate = trio.Event()
    got: list[int] = []

    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[int]:
        await gate.wait()
        with trio.CancelScope() as scope:  # noqa: ASYNC100 -- the pool waits in it
            scopes.append(scope)
            yield len(scopes)

    async def crash_the_first() -> None:
        async with pool.acquire("a") as bridge:
            got.append(bridge)
            scopes[0].cancel()

    async with open_bridge_pool(open_bridge, providers(1)) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(crash_the_first)
            nursery.start_soon(crash_the_first)
            await wait_all_tasks_blocked()
            gate.set()
        assert got == [1, 2]
        assert pool.statistics().leased == 0


async def test_bridges_that_always_crash_at_birth_are_an_error_in_the_end() -> None:
    """Promise 9; invariant 27: a caller is not kept for ever by bridges that are born dead."""
    births = 0

    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        nonlocal births
        births += 1
        with trio.CancelScope() as scope:  # noqa: ASYNC100 -- the pool waits in it
            scope.cancel()
            yield key

    async with open_bridge_pool(open_bridge, providers(1), max_rebuilds=3) as pool:
        with pytest.raises(BuildError, match="crashed before its first use"):
            async with pool.acquire("a"):
                raise AssertionError("the bridge is dead")
        assert pool.statistics().leased == 0
    assert births == 4


async def test_a_crash_while_closing_is_a_failed_close_and_no_crash(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Promise 9; invariant 26: retired once, for one reason."""

    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        async with trio.open_nursery() as nursery:
            yield key
            nursery.start_soon(_fail)

    async with open_bridge_pool(open_bridge, providers(1)) as pool:
        async with pool.acquire("a"):
            pass
        pool.replace_providers(providers(2))
        await wait_all_tasks_blocked()
        stats = pool.statistics()
        assert stats.retired[RetireReason.REPLACED] == 1
        assert stats.retired[RetireReason.CRASHED] == 0
        assert (stats.close_failures, stats.draining) == (1, 0)


async def _fail() -> None:
    await trio.lowlevel.checkpoint()
    raise BrokenBridgeError


async def test_a_crash_of_a_retired_bridge_in_use_leaves_the_fresh_one_alone() -> None:
    """Promise 9; invariants 7 and 26: removed by identity, counted once."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1)) as pool, pool.acquire("a") as old:
        pool.replace_providers(providers(2))
        fresh = await use(pool)
        old.crash()
        await wait_all_tasks_blocked()
        assert not old.is_open
        assert await use(pool) is fresh
        stats = pool.statistics()
        assert stats.retired[RetireReason.REPLACED] == 1
        assert stats.retired[RetireReason.CRASHED] == 0


async def test_what_a_crashed_bridge_does_to_clean_up_is_bounded_too(
    autojump_clock: MockClock,
) -> None:
    """Promises 6 and 9; invariant 31: from the crash on it has `close_timeout`."""

    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_fail)
                yield key
        finally:
            await trio.sleep(1000)  # noqa: ASYNC102 -- what the pool has to bound

    async with open_bridge_pool(open_bridge, providers(1), close_timeout=5) as pool:
        async with pool.acquire("a"):
            await wait_all_tasks_blocked()
            assert pool.statistics().retired[RetireReason.CRASHED] == 1
        await trio.sleep(6)
        stats = pool.statistics()
        assert (stats.draining, stats.close_overruns) == (0, 1)
    assert trio.current_time() == pytest.approx(6, abs=0.001)
