"""Promise 16: the pool keeps Trio's rules."""

import signal
import sys
from collections.abc import Iterator
from types import FrameType

import attrs
import pytest
import trio
from trio.testing import (
    MockClock,
    assert_checkpoints,
    assert_no_checkpoints,
    wait_all_tasks_blocked,
)

from bridgepool import open_bridge_pool
from tests.core.rig import Bridges, Callers, providers, use


class StepsOfThisTask(trio.abc.Instrument):
    """Counts how often the task that made it is run."""

    def __init__(self) -> None:
        self._task = trio.lowlevel.current_task()
        self.count = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self.count += task is self._task


async def test_a_hit_is_one_checkpoint_and_its_end_is_none() -> None:
    """Promise 16, Trio's rules; invariant 36: exactly one schedule point, before the look-up."""
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        await use(pool)
        steps = StepsOfThisTask()
        trio.lowlevel.add_instrument(steps)
        for number in range(1, 4):
            lease = pool.acquire("a")
            with assert_checkpoints():
                await lease.__aenter__()
            assert steps.count == number
            with assert_no_checkpoints():
                await lease.__aexit__(None, None, None)
            assert steps.count == number
        trio.lowlevel.remove_instrument(steps)


async def test_a_hit_looks_up_after_its_checkpoint() -> None:
    """Promise 5 and 16; invariant 36: look-up and lease are one step, with no gap after it."""
    bridges = Bridges()
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        old = await use(pool)
        caller = Callers(pool, nursery).start()
        await trio.lowlevel.checkpoint()  # it is at its checkpoint, or past it
        pool.replace_providers(providers(2))
        await wait_all_tasks_blocked()
        assert caller.bridge is not None
        if caller.bridge is old:  # past it: then it holds a lease, and the bridge is open
            assert old.is_open
        caller.release()


async def test_a_miss_is_a_checkpoint() -> None:
    """Promise 16."""
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        lease = pool.acquire("a")
        with assert_checkpoints():
            await lease.__aenter__()
        with assert_no_checkpoints():
            await lease.__aexit__(None, None, None)


async def test_acquire_nowait_is_no_checkpoint() -> None:
    """Promise 16; invariant 36."""
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        with assert_no_checkpoints(), pytest.raises(trio.WouldBlock):
            pool.acquire_nowait("a").__enter__()
        bridge = await use(pool)
        with assert_no_checkpoints(), pool.acquire_nowait("a") as at_once:
            assert at_once is bridge


@pytest.mark.parametrize("what", ["hit", "miss", "join"])
async def test_an_acquire_in_a_cancelled_scope_does_nothing(what: str) -> None:
    """Promise 16; invariant 34: no build, no lease, no waiter."""
    bridges = Bridges(held=what == "join")
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        if what == "hit":
            await use(pool)
        elif what == "join":
            await Callers(pool, nursery).settled()
        before, builds = pool.statistics(), len(bridges.made)
        with trio.CancelScope() as scope:
            scope.cancel()
            async with pool.acquire("a"):
                raise AssertionError("it is cancelled")
        assert scope.cancelled_caught
        await wait_all_tasks_blocked()
        after = pool.statistics()
        assert attrs.evolve(after, joins=0) == attrs.evolve(before, joins=0)
        assert len(bridges.made) == builds
        for bridge in bridges.made:
            bridge.succeed()
        nursery.cancel_scope.cancel()


async def test_an_acquire_that_is_cancelled_and_too_late_is_cancelled() -> None:
    """Promise 16: the scope's own cancellation goes before what is wrong with the pool."""
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        pass
    with trio.CancelScope() as scope:
        scope.cancel()
        async with pool.acquire("a"):
            raise AssertionError("it is cancelled")
    assert scope.cancelled_caught


async def test_a_lease_ends_in_a_cancelled_scope_like_in_any_other() -> None:
    """Promise 16; invariant 36: the end of a lease is no checkpoint and cannot fail."""
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        with trio.CancelScope() as scope:
            async with pool.acquire("a"):
                scope.cancel()
        assert not scope.cancelled_caught
        assert pool.statistics().leased == 0


async def test_a_cancelled_miss_leaves_nothing_behind(mock_clock: MockClock) -> None:
    """Promise 16; invariants 9 and 34: `Cancelled` reaches the one who was cancelled."""
    bridges = Bridges(held=True)
    async with open_bridge_pool(bridges.open, providers(1)) as pool, trio.open_nursery() as nursery:
        other = await Callers(pool, nursery).settled("b")
        with trio.move_on_after(3) as scope:
            nursery.start_soon(_jump_when_quiet, mock_clock, 3)
            await use(pool)
        assert scope.cancelled_caught
        stats = pool.statistics()
        assert (stats.waiting, stats.leased) == (1, 0)
        bridges.made[0].succeed()
        await wait_all_tasks_blocked()
        assert other.bridge is bridges.made[0]
        other.release()


async def _jump_when_quiet(clock: MockClock, seconds: float) -> None:
    await wait_all_tasks_blocked()
    clock.jump(seconds)


async def test_an_exception_of_the_lease_holder_passes_through_unchanged() -> None:
    """Promise 16: a lease neither swallows nor wraps."""
    async with open_bridge_pool(Bridges().open, providers(1)) as pool:
        for error in (ValueError(), StopIteration()):
            with pytest.raises(type(error)) as caught:
                async with pool.acquire("a"):
                    raise error
            assert caught.value is error
            with pytest.raises(type(error)), pool.acquire_nowait("a"):
                raise error
        assert pool.statistics().leased == 0


# -- interrupts -----------------------------------------------------------------------------


class InterruptOnce:
    """Interrupts from the keyboard at one of the events in bridgepool's own code, counted down."""

    def __init__(self, countdown: int) -> None:
        self._countdown = countdown

    def __enter__(self) -> None:
        sys.setprofile(self._look)

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _look(self, frame: FrameType, event: str, argument: object) -> None:
        if frame.f_globals.get("__name__", "").startswith("bridgepool."):
            self._countdown -= 1
            if self._countdown == 0:
                signal.raise_signal(signal.SIGINT)


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Take interrupts as Python does by itself; programs in the background start without."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("way", ["acquire", "acquire_nowait"])
def test_an_interrupt_in_the_middle_of_a_hit_leaks_no_lease(way: str) -> None:
    """Promise 16; invariants 10 and 34: it waits for a checkpoint, where no lease is lost.

    The gate: the interrupt comes at the first call or return inside the pool's code; in the next
    run at the second; and so on, until one comes too late.
    """
    in_body: list[bool] = []

    async def main(countdown: int) -> None:
        bridges = Bridges()
        async with open_bridge_pool(bridges.open, providers(1)) as pool:
            await use(pool)
            await wait_all_tasks_blocked()
            try:
                with InterruptOnce(countdown):
                    if way == "acquire":
                        async with pool.acquire("a"):
                            in_body.append(True)
                    else:
                        with pool.acquire_nowait("a"):
                            in_body.append(True)
            finally:
                current = pool._ledger.current
                assert pool.statistics().leased == 0
                assert [*current.once, *current.again] == ["a"]
            await trio.lowlevel.checkpoint()  # where an interrupt that was held back comes out

    interrupted = 0
    for countdown in range(1, 200):
        try:
            trio.run(main, countdown)
        except KeyboardInterrupt:
            interrupted += 1
        else:
            break
    assert interrupted >= 10
    assert in_body
