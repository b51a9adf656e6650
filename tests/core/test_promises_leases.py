"""Promises 5 and 6: a lease keeps its bridge open; each bridge is closed once, by its own task."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import pytest
import trio
from trio.testing import MockClock, assert_checkpoints, wait_all_tasks_blocked

from bridgepool import ProviderSnapshot, RetireReason, open_bridge_pool
from tests.core.rig import Bridges, BrokenBridgeError, Callers, providers, use


@pytest.mark.parametrize("why", ["replaced", "evicted", "expired"])
async def test_a_bridge_in_use_stays_open_until_its_last_lease_ends(
    mock_clock: MockClock, why: str
) -> None:
    """Promise 5, leases; invariants 15, 23 and 26."""
    bridges = Bridges()
    async with (
        open_bridge_pool(bridges.open, providers(1), max_items=1, ttl=10) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = Callers(pool, nursery)
        pair = [await callers.settled() for _ in range(2)]
        if why == "replaced":
            pool.replace_providers(providers(2))
        elif why == "evicted":
            await use(pool, "b")
        else:
            mock_clock.jump(11)
        await wait_all_tasks_blocked()
        assert pool.statistics().draining == 1
        for caller in pair:
            assert bridges.made[0].is_open
            caller.release()
            await wait_all_tasks_blocked()
        assert bridges.made[0].closes_ended == 1
        assert pool.statistics().forced_closes == 0


async def test_the_drain_deadline_of_a_replacement_closes_a_bridge_in_use(
    mock_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 5; invariants 15 and 23: at the deadline, not before, counted and logged.

    The pool does not cancel the caller: it is the bridge's own exit that ends the request.
    """
    bridges = Bridges()
    async with (
        open_bridge_pool(bridges.open, providers(1), drain_timeout=60) as pool,
        trio.open_nursery() as nursery,
    ):
        caller = await Callers(pool, nursery).settled()
        pool.replace_providers(providers(2))
        await wait_all_tasks_blocked()
        mock_clock.jump(59.9)
        await wait_all_tasks_blocked()
        assert bridges.last.is_open
        mock_clock.jump(0.1)
        await wait_all_tasks_blocked()
        assert bridges.last.closes_ended == 1
        assert not caller.has_ended
        assert pool.statistics().leased == 1
        assert pool.statistics().forced_closes == 1
        assert "bridge of 'a' closed under 1 leases at its drain deadline" in caplog.text
        caller.release()
        await wait_all_tasks_blocked()
        assert caller.error is None
        assert pool.statistics().leased == 0
    assert bridges.last.closes == 1


async def test_an_infinite_drain_timeout_never_cuts_a_lease(mock_clock: MockClock) -> None:
    """Promise 5."""
    bridges = Bridges()
    async with (
        open_bridge_pool(bridges.open, providers(1), drain_timeout=inf, ttl=inf) as pool,
        trio.open_nursery() as nursery,
    ):
        caller = await Callers(pool, nursery).settled()
        pool.replace_providers(providers(2))
        mock_clock.jump(1e6)
        await wait_all_tasks_blocked()
        assert bridges.last.is_open
        caller.release()
        await wait_all_tasks_blocked()
        assert not bridges.last.is_open


async def test_capacity_and_age_never_force(mock_clock: MockClock) -> None:
    """Promise 5; invariants 15 and 30: only deadlines of replacement and shutdown do."""
    bridges = Bridges()
    async with (
        open_bridge_pool(bridges.open, providers(1), ttl=1, max_items=1, drain_timeout=0) as pool,
        trio.open_nursery() as nursery,
    ):
        callers = [await Callers(pool, nursery).settled(key) for key in "abc"]
        mock_clock.jump(1000)
        await wait_all_tasks_blocked()
        assert [bridge.is_open for bridge in bridges.made] == [True, True, True]
        for caller in callers:
            caller.release()


async def test_a_lease_tells_its_generation_and_when_its_bridge_is_retired() -> None:
    """Promise 5: so that a long user may finish early."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        heard: list[str] = []

        async def finish_early(name: str) -> None:
            lease = pool.acquire("a")
            async with lease:
                assert (lease.generation, lease.is_retired) == (1, False)
                await lease.wait_retired()
                assert (lease.generation, lease.is_retired) == (1, True)
                heard.append(name)
                await lease.wait_retired()  # it stays so

        nursery.start_soon(finish_early, "one")
        nursery.start_soon(finish_early, "two")
        await wait_all_tasks_blocked()
        assert heard == []
        pool.replace_providers(providers(2))
        await wait_all_tasks_blocked()
        assert sorted(heard) == ["one", "two"]
        assert bridges.last.closes_ended == 1


async def test_waiting_for_a_retirement_that_was_is_a_checkpoint_and_no_wait() -> None:
    """Promise 5: nobody waited as it happened."""
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        lease = pool.acquire("a")
        async with lease:
            pool.replace_providers(providers(2))
            await wait_all_tasks_blocked()
            with assert_checkpoints(), trio.fail_after(1):
                await lease.wait_retired()


async def test_waiting_for_retirement_can_be_cancelled() -> None:
    """Promise 5."""
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        lease = pool.acquire("a")
        async with lease:
            with trio.CancelScope() as scope:
                scope.cancel()
                await lease.wait_retired()
            assert scope.cancelled_caught
            assert not lease.is_retired


async def test_a_lease_that_is_not_held_tells_nothing_and_cannot_be_left() -> None:
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        lease = pool.acquire("a")
        with pytest.raises(RuntimeError, match="not held: ask inside"):
            _ = lease.generation
        with pytest.raises(RuntimeError, match="not held: it was left"):
            await lease.__aexit__(None, None, None)
        async with lease:
            with pytest.raises(RuntimeError, match="call `acquire` for each"):
                await lease.__aenter__()
        with pytest.raises(RuntimeError, match="not held: ask inside"):
            _ = lease.is_retired
        at_once = pool.acquire_nowait("a")
        with pytest.raises(RuntimeError, match="not held: it was left"):
            at_once.__exit__(None, None, None)
        with at_once:
            assert (at_once.generation, at_once.is_retired) == (1, False)
            with pytest.raises(RuntimeError, match="call `acquire_nowait` for each"):
                at_once.__enter__()
        assert pool.statistics().leased == 0


async def test_the_end_of_a_lease_without_waiting_closes_what_was_retired_meanwhile() -> None:
    """Promise 5: both kinds of lease are the same in this."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1)) as pool:
        old = await use(pool)
        with pool.acquire_nowait("a") as bridge:
            assert bridge is old
            pool.replace_providers(providers(2))
            await wait_all_tasks_blocked()
            assert old.is_open
        await wait_all_tasks_blocked()
        assert old.closes_ended == 1


async def test_one_lease_entered_by_two_tasks_at_once_is_refused_and_leaks_nothing(
    nursery: trio.Nursery,
) -> None:
    """Invariant 17. Both got the bridge, and one of the two leases was never ended."""
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool:
        lease = pool.acquire("a")
        leave = trio.Event()

        async def hold() -> None:
            async with lease:
                await leave.wait()

        nursery.start_soon(hold)
        await wait_all_tasks_blocked()
        with pytest.raises(RuntimeError, match="in use: call `acquire` for each"):
            async with lease:
                raise AssertionError("it was entered twice")
        bridges.last.succeed()
        await wait_all_tasks_blocked()
        assert (pool.statistics().leased, pool.statistics().waiting) == (1, 0)
        leave.set()
        await wait_all_tasks_blocked()
        assert pool.statistics().leased == 0


async def test_a_lease_that_could_not_be_entered_can_be_tried_again() -> None:
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool:
        lease = pool.acquire("a")
        with trio.move_on_after(0):
            async with lease:
                raise AssertionError("it was entered")
        bridges.held = False
        async with lease as bridge:
            assert bridge is bridges.last
        with pytest.raises(trio.WouldBlock), (nowait := pool.acquire_nowait("b")):
            raise AssertionError("it was entered")
        await use(pool, "b")
        with nowait as bridge:
            assert bridge.key == "b"
        assert pool.statistics().leased == 0


async def test_a_lease_can_be_entered_again_after_it_was_left() -> None:
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        lease = pool.acquire("a")
        async with lease as first:
            pass
        async with lease as second:
            assert second is first
        assert pool.statistics().leased == 0


@pytest.mark.parametrize("why", ["replaced", "evicted", "expired", "crashed", "left"])
async def test_every_bridge_is_closed_once_by_the_task_that_opened_it(
    mock_clock: MockClock, why: str
) -> None:
    """Promise 6, exactly one close; invariants 14, 22, 26 and 28."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1), max_items=1, ttl=10) as pool:
        await use(pool)
        bridge = bridges.last
        if why == "replaced":
            pool.replace_providers(providers(2))
        elif why == "evicted":
            await use(pool, "b")
        elif why == "expired":
            mock_clock.jump(11)
        elif why == "crashed":
            bridge.crash()
        await wait_all_tasks_blocked()
        assert bridge.is_open == (why == "left")
    assert bridge.closes == 1
    assert bridge.closed_by is bridge.task
    assert sum(pool.statistics().retired.values()) == len(bridges.made)
    assert pool.statistics().draining == 0


async def test_a_close_is_shielded_from_what_cancels_the_pool(autojump_clock: MockClock) -> None:
    """Promise 6; invariant 31."""
    bridges = Bridges(close_time=4)
    with trio.CancelScope() as scope:
        async with open_bridge_pool(bridges.open, providers(1), close_timeout=5) as pool:
            await use(pool)
            scope.cancel()
    assert scope.cancelled_caught
    assert bridges.last.closes_ended == 1
    assert trio.current_time() == pytest.approx(4, abs=0.001)


async def test_a_close_that_overruns_is_cancelled_counted_and_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Promise 6; invariant 31: nothing holds the pool up for longer than `close_timeout`."""
    bridges = Bridges(close_time=1000)
    async with open_bridge_pool(bridges.open, providers(1), close_timeout=5) as pool:
        await use(pool)
    assert trio.current_time() == pytest.approx(5, abs=0.001)
    assert (bridges.last.closes, bridges.last.closes_ended) == (1, 0)
    assert pool.statistics().close_overruns == 1
    assert "close of the bridge of 'a' cancelled after 5 s" in caplog.text


async def test_a_close_in_time_is_no_overrun(autojump_clock: MockClock) -> None:
    """Promise 6."""
    bridges = Bridges(close_time=4.9)
    async with open_bridge_pool(bridges.open, providers(1), close_timeout=5) as pool:
        await use(pool)
    assert bridges.last.closes_ended == 1
    assert pool.statistics().close_overruns == 0


async def test_the_close_of_a_bridge_built_too_late_is_bounded_too(
    mock_clock: MockClock,
) -> None:
    """Promise 6; invariant 31: a bridge that nobody ever saw is closed by the same rules."""
    bridges = Bridges(held=True, close_time=1000)
    async with (
        open_bridge_pool(bridges.open, providers(1), build_timeout=9, close_timeout=5) as pool,
        trio.open_nursery() as nursery,
    ):
        await Callers(pool, nursery).settled()
        bridges.last.succeed()
        mock_clock.jump(9)
        await wait_all_tasks_blocked()
        assert (bridges.last.closes, pool.statistics().building) == (1, 1)
        mock_clock.jump(5)
        await wait_all_tasks_blocked()
        assert pool.statistics().building == 0


async def test_a_close_that_raises_is_counted_and_logged_and_harms_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Promise 6: what a bridge raises as it closes reaches neither the block nor a caller."""

    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        yield key
        raise BrokenBridgeError("cannot say goodbye")

    async with open_bridge_pool(open_bridge, providers(1)) as pool:
        async with pool.acquire("a"):
            pool.replace_providers(providers(2))
        await wait_all_tasks_blocked()
        async with pool.acquire("a") as bridge:
            assert bridge == "a"
    stats = pool.statistics()
    assert (stats.close_failures, stats.draining) == (2, 0)
    assert stats.retired[RetireReason.CRASHED] == 0
    assert "cannot say goodbye" in caplog.text
