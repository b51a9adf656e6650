"""Promise 15: leaving closes admission, lets users leave first, and leaves nothing behind."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from math import inf

import attrs
import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import (
    BuildOutcome,
    PoolClosedError,
    ProviderSnapshot,
    ReplaceOutcome,
    RetireReason,
    open_bridge_pool,
)
from tests.core.rig import Bridge, Bridges, Caller, Callers, Pool, providers, use

_GROUP = ExceptionGroup("of the body's own", [ValueError(), KeyError()])


@pytest.mark.parametrize(
    "error",
    [ValueError("body"), KeyboardInterrupt(), StopIteration(7), GeneratorExit(), _GROUP],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("in_use", [False, True], ids=["idle", "in use"])
async def test_what_the_body_raises_comes_out_unchanged(error: BaseException, in_use: bool) -> None:
    """Promise 15, leaving: the same object, in no group."""
    bridges = Bridges()
    caught: BaseException | None = None
    try:
        async with open_bridge_pool(bridges.open, providers(1)) as pool:
            await use(pool)
            if in_use:
                async with pool.acquire("a"):
                    raise error
            raise error
    except BaseException as out:  # noqa: ASYNC103 -- it is what this test is about
        caught = out
    assert caught is error
    assert bridges.last.closes_ended == 1


async def test_the_cancellation_of_the_body_comes_out_unchanged() -> None:
    """Promise 15: a plain `Cancelled`, which the scope that was cancelled catches."""
    bridges = Bridges()
    seen: list[type[BaseException]] = []
    with trio.CancelScope() as scope:
        try:
            async with open_bridge_pool(bridges.open, providers(1)) as pool:
                await use(pool)
                scope.cancel()
                await trio.sleep_forever()
        except BaseException as error:
            seen.append(type(error))
            raise
    assert seen == [trio.Cancelled]
    assert scope.cancelled_caught
    assert bridges.last.closes_ended == 1


@attrs.define(eq=False)
class HostedPool:
    """A pool in a task of its own, so that who holds or waits can be outside of its block."""

    pool: Pool
    callers: Callers
    block: trio.CancelScope
    leave: trio.Event
    has_left: trio.Event


@asynccontextmanager
async def host(
    bridges: Bridges, *, shutdown_timeout: float = 30.0, close_timeout: float = 5.0
) -> AsyncIterator[HostedPool]:
    block, leave, has_left = trio.CancelScope(), trio.Event(), trio.Event()

    async def run(  # noqa: ASYNC114 -- the linter cannot be told of every startable
        task_status: trio.TaskStatus[Pool],
    ) -> None:
        with block:
            async with open_bridge_pool(
                bridges.open,
                providers(1),
                shutdown_timeout=shutdown_timeout,
                close_timeout=close_timeout,
            ) as pool:
                task_status.started(pool)
                await leave.wait()
        has_left.set()

    async with trio.open_nursery() as nursery:
        pool: Pool = await nursery.start(run)
        yield HostedPool(pool, Callers(pool, nursery), block, leave, has_left)
        leave.set()


async def _assert_closed(pool: Pool) -> None:
    with pytest.raises(PoolClosedError, match="block was left") as caught:
        async with pool.acquire("a"):
            raise AssertionError("the pool is closed")
    assert isinstance(caught.value, trio.ClosedResourceError)
    with pytest.raises(PoolClosedError):
        pool.acquire_nowait("a").__enter__()
    before = pool.statistics()
    result = pool.replace_providers(providers(99))
    assert (result.outcome, result.generation) == (ReplaceOutcome.CLOSED, before.generation)
    assert pool.snapshot == providers(1)
    after = attrs.evolve(pool.statistics(), replacements=before.replacements)
    assert after == before


async def test_while_it_is_left_a_pool_admits_nobody_and_lets_leases_end() -> None:
    """Promise 15; invariants 15, 28 and 33: a replacement meanwhile does nothing."""
    bridges = Bridges()
    async with host(bridges) as hosted:
        holder = await hosted.callers.settled()
        idle = await use(hosted.pool, "b")
        at_once = hosted.pool.acquire_nowait("a")
        hosted.leave.set()
        await wait_all_tasks_blocked()
        assert not hosted.has_left.is_set()
        assert not idle.is_open
        assert bridges.made[0].is_open
        with pytest.raises(PoolClosedError):
            at_once.__enter__()
        await _assert_closed(hosted.pool)
        holder.release()
        await wait_all_tasks_blocked()
        assert hosted.has_left.is_set()
        assert bridges.made[0].closes_ended == 1
        stats = hosted.pool.statistics()
        assert stats.retired[RetireReason.CLOSED] == 2
        assert stats.forced_closes == 0
        await _assert_closed(hosted.pool)
    assert len(bridges.made) == 2


async def test_leaving_cancels_builds_and_wakes_all_who_wait() -> None:
    """Promise 15; invariants 27, 29 and 32."""
    bridges = Bridges(held=True)
    async with host(bridges) as hosted:
        pair = [await hosted.callers.settled() for _ in range(2)]
        alone = await hosted.callers.settled("b")
        hosted.leave.set()
        await wait_all_tasks_blocked()
        assert hosted.has_left.is_set()
        assert all(bridge.build_was_cancelled for bridge in bridges.made)
        assert all(isinstance(c.error, PoolClosedError) for c in (*pair, alone))
        assert pair[0].error is not pair[1].error
        assert hosted.pool.statistics().builds[BuildOutcome.ABANDONED] == 2


async def test_leaving_closes_what_an_abandoned_build_brings_too_late() -> None:
    """Promise 15; invariants 14 and 28: the build ends well in the tick of leaving."""
    bridges = Bridges(held=True)
    async with host(bridges) as hosted:
        caller = await hosted.callers.settled()
        bridges.last.succeed()
        hosted.leave.set()
        await wait_all_tasks_blocked()
        assert hosted.has_left.is_set()
        assert isinstance(caller.error, PoolClosedError)
        assert not bridges.last.is_open


async def test_a_lease_handed_over_as_the_pool_is_left_is_given_back() -> None:
    """Promise 15; invariant 34: admission was closed between the hand-over and the control.

    The body waits for the same build as a caller outside, and leaves as soon as it has it. So
    one of the two runs first, by chance: tried until both orders were seen.
    """
    seen: set[bool] = set()
    for _ in range(100):
        bridges = Bridges(held=True)
        async with (
            trio.open_nursery() as nursery,
            open_bridge_pool(bridges.open, providers(1)) as pool,
        ):
            outside = await Callers(pool, nursery).settled()
            nursery.start_soon(_succeed_when_quiet, bridges)
            async with pool.acquire("a"):
                pass
            outside.release()
        seen.add(isinstance(outside.error, PoolClosedError))
        assert (outside.error is None) == (outside.bridge is not None)
        assert pool.statistics().leased == 0
        assert bridges.last.closes_ended == 1
        if len(seen) == 2:
            break
    assert seen == {True, False}


async def _succeed_when_quiet(bridges: Bridges) -> None:
    await wait_all_tasks_blocked()
    bridges.last.succeed()


async def test_shutdown_timeout_is_how_long_leases_may_take(mock_clock: MockClock) -> None:
    """Promise 15; invariant 15: then bridges are closed under them, counted."""
    bridges = Bridges()
    async with host(bridges, shutdown_timeout=30) as hosted:
        holder = await hosted.callers.settled()
        hosted.leave.set()
        await wait_all_tasks_blocked()
        mock_clock.jump(29.9)
        await wait_all_tasks_blocked()
        assert bridges.last.is_open
        mock_clock.jump(0.1)
        await wait_all_tasks_blocked()
        assert bridges.last.closes_ended == 1
        assert hosted.has_left.is_set()
        assert hosted.pool.statistics().forced_closes == 1
        assert not holder.has_ended
        holder.release()
        await wait_all_tasks_blocked()
        assert (holder.error, holder.has_ended) == (None, True)
        assert hosted.pool.statistics().leased == 0


async def test_leaving_brings_earlier_drain_deadlines_forward(mock_clock: MockClock) -> None:
    """Promise 15: a replaced bridge in use has no longer than any other."""
    bridges = Bridges()
    async with host(bridges, shutdown_timeout=10) as hosted:
        holder = await hosted.callers.settled()
        hosted.pool.replace_providers(ProviderSnapshot([1, 1]))
        hosted.leave.set()
        await wait_all_tasks_blocked()
        assert bridges.last.is_open
        mock_clock.jump(10)
        await wait_all_tasks_blocked()
        assert hosted.has_left.is_set()
        holder.release()


@pytest.mark.parametrize("cancelled", ["before", "while leaving"])
async def test_a_cancelled_pool_gives_leases_outside_no_more_than_a_close_may_take(
    mock_clock: MockClock, cancelled: str
) -> None:
    """Promise 15; invariant 31."""
    bridges = Bridges()
    async with host(bridges, shutdown_timeout=inf, close_timeout=5) as hosted:
        holder = await hosted.callers.settled()
        if cancelled == "while leaving":
            hosted.leave.set()
            mock_clock.jump(100)
            await wait_all_tasks_blocked()
        hosted.block.cancel()
        await wait_all_tasks_blocked()
        assert bridges.last.is_open
        mock_clock.jump(4.9)
        await wait_all_tasks_blocked()
        assert bridges.last.is_open
        mock_clock.jump(0.1)
        await wait_all_tasks_blocked()
        assert bridges.last.closes_ended == 1
        assert hosted.has_left.is_set()
        holder.release()


@pytest.mark.parametrize("how", ["left", "cancelled"])
async def test_a_holders_finally_still_finds_a_working_bridge(
    autojump_clock: MockClock, how: str
) -> None:
    """Promise 15: users leave before services."""
    bridges = Bridges()
    was_open: list[bool] = []

    async def hold() -> None:
        async with pool.acquire("a") as bridge:
            try:
                await trio.sleep_forever()
            finally:
                with trio.move_on_after(3, shield=True):
                    await trio.sleep(2)  # says goodbye through the bridge
                was_open.append(bridge.is_open)

    with trio.CancelScope() as outer:
        async with (
            open_bridge_pool(bridges.open, providers(1)) as pool,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(hold)
            await wait_all_tasks_blocked()
            (outer if how == "cancelled" else nursery.cancel_scope).cancel()
    assert was_open == [True]
    assert bridges.last.closes_ended == 1


async def test_a_holder_outside_a_cancelled_pool_may_still_say_goodbye(
    autojump_clock: MockClock,
) -> None:
    """Promise 15: also when it is the whole program that is cancelled."""
    bridges = Bridges()
    was_open: list[bool] = []
    with trio.CancelScope() as everything:
        async with host(bridges) as hosted, trio.open_nursery() as users:

            async def hold() -> None:
                async with hosted.pool.acquire("a") as bridge:
                    try:
                        await trio.sleep_forever()
                    finally:
                        with trio.move_on_after(3, shield=True):
                            await trio.sleep(2)
                        was_open.append(bridge.is_open)

            users.start_soon(hold)
            await wait_all_tasks_blocked()
            everything.cancel()
    assert was_open == [True]
    assert bridges.last.closes_ended == 1


async def test_nothing_is_left_of_a_pool_that_was_left() -> None:
    """Promises 15 and 16; invariant 28: no task, no bridge, no flight."""
    before = trio.lowlevel.current_statistics().tasks_living
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1)) as pool:
        for number in range(1, 4):
            pool.replace_providers(providers(number))
            for key in "abc":
                await use(pool, key)
        assert trio.lowlevel.current_statistics().tasks_living > before
    assert trio.lowlevel.current_statistics().tasks_living == before
    assert [bridge.closes_ended for bridge in bridges.made] == [1] * 9
    stats = pool.statistics()
    assert (stats.listed, stats.draining, stats.building, stats.leased) == (0, 0, 0, 0)
    assert stats.generation == 3
    with trio.fail_after(1):
        await pool.wait_drained(3)


async def test_a_pool_that_was_never_used_is_left_at_once() -> None:
    """Promise 15."""
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        pass
    assert pool.statistics().listed == 0


async def test_a_caller_in_the_bodys_own_nursery_is_cancelled_with_the_body() -> None:
    """Promise 15; invariant 9: it gets the `Cancelled` of its own scope, no `PoolClosedError`."""
    bridges = Bridges(held=True)
    with trio.CancelScope() as scope:
        async with (
            open_bridge_pool(bridges.open, providers(1)) as pool,
            trio.open_nursery() as nursery,
        ):
            caller = Caller(pool)
            nursery.start_soon(caller.run)
            await wait_all_tasks_blocked()
            scope.cancel()
    assert (caller.error, caller.bridge) == (None, None)
    assert bridges.last.build_was_cancelled


async def test_an_interrupt_in_the_code_of_a_bridge_ends_the_block(
    autojump_clock: MockClock,
) -> None:
    """Promise 15: as in any nursery, at once; the other bridges are closed all the same."""

    class InterruptError(BaseException):
        pass

    bridges = Bridges()

    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[Bridge]:
        async with bridges.open(key, snapshot) as bridge:
            yield bridge
            if key == "a":
                raise InterruptError

    async def run() -> None:
        async with open_bridge_pool(open_bridge, providers(1), max_items=2) as pool:
            for key in "abc":  # the third takes the place of the first
                await use(pool, key)
            await trio.sleep(1000)

    with pytest.raises(BaseExceptionGroup) as caught:
        await run()
    assert caught.group_contains(InterruptError)
    assert trio.current_time() < 1
    assert [bridge.closes for bridge in bridges.made] == [1, 1, 1]
    assert [bridge.closes_ended for bridge in bridges.made] == [1, 1, 1]
