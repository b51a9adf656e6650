"""`VersionedSingleflight`: one run for all who ask for the same key and version (design 4.2)."""

import contextvars
from collections.abc import Awaitable, Callable
from math import inf

import attrs
import pytest
import trio
from trio.testing import (
    MockClock,
    assert_checkpoints,
    wait_all_tasks_blocked,
)

from bridgepool import (
    BuildError,
    BuildTimeoutError,
    PoolClosedError,
    VersionedSingleflight,
    open_singleflight,
)


@attrs.define(eq=False)
class Run:
    """A function to share, whose end the test decides."""

    result: str = "made"
    error: BaseException | None = None
    gate: trio.Event = attrs.field(factory=trio.Event)
    started: int = 0
    was_cancelled: bool = False

    async def __call__(self) -> str:
        self.started += 1
        try:
            await self.gate.wait()
        except trio.Cancelled:
            self.was_cancelled = True
            raise
        if self.error is not None:
            raise self.error
        return self.result


@attrs.define(eq=False)
class Asker:
    """A task that asks for one run and keeps what it gets."""

    flights: VersionedSingleflight
    run_it: Run
    version: int = 1
    got: str | None = None
    error: Exception | None = None
    scope: trio.CancelScope = attrs.field(factory=trio.CancelScope)

    async def run(self) -> None:
        with self.scope:
            try:
                self.got = await self.flights.do("key", self.version, self.run_it)
            except Exception as error:  # kept for the test to look at
                self.error = error


async def ask(
    nursery: trio.Nursery, flights: VersionedSingleflight, run: Run, version: int = 1
) -> Asker:
    asker = Asker(flights, run, version)
    nursery.start_soon(asker.run)
    await wait_all_tasks_blocked()
    return asker


async def test_callers_of_one_key_and_version_share_one_run() -> None:
    """Promises 2 and 7; invariants 16 and 18."""
    async with open_singleflight() as flights, trio.open_nursery() as nursery:
        run, ignored = Run(), Run()
        askers = [await ask(nursery, flights, run)]
        askers += [await ask(nursery, flights, ignored) for _ in range(9)]
        assert (flights.waiting, flights.running) == (10, 1)
        run.gate.set()
        await wait_all_tasks_blocked()
        assert (run.started, ignored.started) == (1, 0)
        assert all(asker.got is run.result for asker in askers)
        assert (flights.waiting, flights.running) == (0, 0)


async def test_a_finished_run_is_not_kept() -> None:
    async with open_singleflight() as flights, trio.open_nursery() as nursery:
        run = Run()
        run.gate.set()
        for _ in range(3):
            assert (await ask(nursery, flights, run)).got == "made"
        assert run.started == 3


async def test_a_newer_version_never_joins_the_older_run_which_goes_on() -> None:
    """Promise 3; invariant 11."""
    async with open_singleflight() as flights, trio.open_nursery() as nursery:
        old, new = Run("old"), Run("new")
        patient = await ask(nursery, flights, old, version=1)
        modern = await ask(nursery, flights, new, version=2)
        also_old = await ask(nursery, flights, new, version=1)
        assert flights.running == 2
        new.gate.set()
        await wait_all_tasks_blocked()
        assert (modern.got, patient.got) == ("new", None)
        old.gate.set()
        await wait_all_tasks_blocked()
        assert (patient.got, also_old.got) == ("old", "old")


async def test_two_keys_of_one_version_are_two_runs() -> None:
    async with open_singleflight() as flights:

        async def make(key: str) -> str:
            await trio.lowlevel.checkpoint()
            return key.upper()

        assert await flights.do("a", 1, lambda: make("a")) == "A"
        assert await flights.do("b", 1, lambda: make("b")) == "B"


async def test_each_waiter_gets_an_error_of_its_own() -> None:
    """Promise 8; invariant 35."""
    async with open_singleflight() as flights, trio.open_nursery() as nursery:
        run = Run(error=ValueError("no such thing"))
        askers = [await ask(nursery, flights, run) for _ in range(3)]
        run.gate.set()
        await wait_all_tasks_blocked()
        assert len({id(asker.error) for asker in askers}) == 3
        for asker in askers:
            assert isinstance(asker.error, BuildError)
            assert asker.error.__cause__ is run.error
            assert str(asker.error) == (
                "build of 'key' for generation 1 failed: ValueError: no such thing"
            )
        run.error = None
        assert (await ask(nursery, flights, run)).got == "made"


async def test_cancelling_one_waiter_disturbs_no_other() -> None:
    """Promise 7; invariants 9 and 34."""
    async with open_singleflight() as flights, trio.open_nursery() as nursery:
        run = Run()
        leader, follower = [await ask(nursery, flights, run) for _ in range(2)]
        leader.scope.cancel()
        await wait_all_tasks_blocked()
        assert leader.scope.cancelled_caught
        assert flights.waiting == 1
        run.gate.set()
        await wait_all_tasks_blocked()
        assert follower.got == "made"


async def test_a_waiter_cancelled_in_the_tick_of_its_hand_over_still_gets_it() -> None:
    """Promise 7: a result that was handed over is never lost. Race 1."""
    async with open_singleflight() as flights, trio.open_nursery() as nursery:
        run = Run()
        got: list[str] = []
        scopes = [trio.CancelScope(), trio.CancelScope()]

        async def cancel_the_other(mine: int) -> None:
            with scopes[mine]:
                got.append(await flights.do("key", 1, run))
                scopes[1 - mine].cancel()

        for number in range(2):
            nursery.start_soon(cancel_the_other, number)
        await wait_all_tasks_blocked()
        run.gate.set()
        await wait_all_tasks_blocked()
        assert got == ["made", "made"]


@pytest.mark.parametrize("grace", [2.0, 0.0, inf])
async def test_an_abandoned_run_can_be_joined_for_its_grace(
    mock_clock: MockClock, grace: float
) -> None:
    """Promise 7; invariant 21."""
    async with open_singleflight(abandon_grace=grace) as flights, trio.open_nursery() as nursery:
        run = Run()
        asker = await ask(nursery, flights, run)
        asker.scope.cancel()
        mock_clock.jump(1.9)
        asker = await ask(nursery, flights, run)
        assert run.started == (1 if grace else 2)
        asker.scope.cancel()
        mock_clock.jump(2)
        await wait_all_tasks_blocked()
        assert flights.running == (1 if grace == inf else 0)
        assert run.was_cancelled == (grace < inf)


async def test_an_abandoned_run_is_not_joined_in_the_tick_in_which_it_is_cancelled() -> None:
    """Invariant 11: first it cannot be joined any more, then it is cancelled."""
    async with open_singleflight(abandon_grace=0) as flights, trio.open_nursery() as nursery:
        first, second = Run("first"), Run("second")
        second.gate.set()
        asker = await ask(nursery, flights, first)
        asker.scope.cancel()
        assert await flights.do("key", 1, second) == "second"
        assert first.was_cancelled


async def test_a_run_that_takes_too_long_is_cancelled(mock_clock: MockClock) -> None:
    async with open_singleflight(build_timeout=5) as flights, trio.open_nursery() as nursery:
        run = Run()
        asker = await ask(nursery, flights, run)
        mock_clock.jump(5)
        await wait_all_tasks_blocked()
        assert isinstance(asker.error, BuildTimeoutError)
        assert run.was_cancelled


async def test_a_newcomer_in_the_tick_of_a_timeout_starts_a_run_of_its_own(
    mock_clock: MockClock,
) -> None:
    """Race 2; invariant 12."""
    async with open_singleflight(build_timeout=5) as flights, trio.open_nursery() as nursery:
        slow, quick = Run(), Run("quick")
        quick.gate.set()
        await ask(nursery, flights, slow)
        mock_clock.jump(5)
        assert await flights.do("key", 1, quick) == "quick"


async def test_a_run_that_succeeds_in_the_tick_of_its_timeout_has_timed_out(
    mock_clock: MockClock,
) -> None:
    """Race 3."""
    async with open_singleflight(build_timeout=5) as flights, trio.open_nursery() as nursery:
        run = Run()
        asker = await ask(nursery, flights, run)
        run.gate.set()
        mock_clock.jump(5)
        await wait_all_tasks_blocked()
        assert isinstance(asker.error, BuildTimeoutError)
        assert asker.got is None


async def test_a_forgotten_run_goes_on_for_those_who_wait_and_admits_nobody() -> None:
    async with open_singleflight() as flights, trio.open_nursery() as nursery:
        old, new = Run("old"), Run("new")
        before = await ask(nursery, flights, old)
        flights.forget("key", 1)
        flights.forget("key", 1)  # no run of that name: nothing happens
        after = await ask(nursery, flights, new)
        for run in (old, new):
            run.gate.set()
            await wait_all_tasks_blocked()
        assert (before.got, after.got) == ("old", "new")


async def test_leaving_cancels_runs_and_turns_waiters_away() -> None:
    """Promise 15; invariants 29 and 32."""
    run = Run()
    async with trio.open_nursery() as nursery:
        async with open_singleflight() as flights:
            askers = [await ask(nursery, flights, run) for _ in range(2)]
        assert run.was_cancelled
        assert flights.running == 0
        await wait_all_tasks_blocked()
        assert [type(asker.error) for asker in askers] == [PoolClosedError] * 2
        assert askers[0].error is not askers[1].error
    with pytest.raises(PoolClosedError):
        await flights.do("key", 1, run)


async def test_leaving_waits_for_a_run_that_takes_its_time_to_end(
    autojump_clock: MockClock,
) -> None:
    async def stubborn() -> str:
        with trio.CancelScope(shield=True):
            await trio.sleep(7)
        return "too late"

    async with trio.open_nursery() as nursery:
        async with open_singleflight() as flights:
            nursery.start_soon(_expect_closed, flights, stubborn)  # noqa: ASYNC111 -- the point
            await trio.sleep(1)
        assert trio.current_time() == pytest.approx(7, abs=0.001)


async def _expect_closed(flights: VersionedSingleflight, fn: Callable[[], Awaitable[str]]) -> None:
    with pytest.raises(PoolClosedError):
        await flights.do("key", 1, fn)


async def test_the_bodys_exception_comes_out_unchanged() -> None:
    """Promise 15."""
    error = ValueError("of the body")
    with pytest.raises(ValueError, match="of the body") as caught:
        async with open_singleflight():
            raise error
    assert caught.value is error


async def test_a_run_sees_the_context_variables_of_who_opened_the_flights() -> None:
    """Invariant 39."""
    who = contextvars.ContextVar("who", default="nobody")

    async def tell() -> str:
        await trio.lowlevel.checkpoint()
        return who.get()

    who.set("the opener")
    async with open_singleflight() as flights:
        who.set("the caller")
        assert await flights.do("key", 1, tell) == "the opener"


async def test_asking_is_a_checkpoint_and_heeds_cancellation() -> None:
    """Promise 16."""
    async with open_singleflight() as flights:
        run = Run()
        run.gate.set()
        with assert_checkpoints():
            await flights.do("key", 1, run)
        with trio.CancelScope() as scope:
            scope.cancel()
            await flights.do("key", 1, run)
        assert scope.cancelled_caught
        assert flights.waiting == 0
