"""Runs one script against one pool, step by step, on a clock that only the script advances.

The driver chooses one of the possible steps, performs it without awaiting, and runs the checks A.
Then it waits until all tasks are blocked and runs the checks Q; or it continues after one tick; or
*in the same tick*, where races occur.
"""

from collections.abc import Callable, Sequence
from typing import TypeAlias, TypeVar

import attrs
import trio
import trio.testing

from .._errors import BuildError, PoolClosedError
from .._ledger import ReplaceOutcome
from .._options import PoolOptions
from .._pool import open_bridge_pool
from .._snapshot import ProviderSnapshot
from .._statistics import PoolStatistics
from ._bridges import BridgeFactory, Closing, Findings, InnerOpen, ScriptedBuild
from ._callers import Caller, CallerState, ScriptedPool
from ._oracle import Oracle

T = TypeVar("T")
Step: TypeAlias = tuple[str, Callable[[], None]]

_KEYS = ("a", "b", "c")
_CLOSINGS = (Closing.QUICK, Closing.QUICK, Closing.SLOW, Closing.RAISES, Closing.HANGS)
# From less than all durations below to more than most.
_ADVANCES = (0.4, 0.1, 1.0, 3.0, 12.0)
_INF = float("inf")
_OPTIONS: dict[str, Sequence[float]] = {
    "max_items": (2, 1, 5),
    "max_live": (_INF, _INF, 3, 1),
    "max_concurrent_builds": (_INF, _INF, 2, 1),
    "max_rebuilds": (3, 0, 1),
    "ttl": (10.0, 2.0, _INF),
    "refresh_ahead": (0.0, 1.0),
    "build_timeout": (5.0, 0.4),
    "abandon_grace": (2.0, 0.0, _INF),
    "retry_after_error": (0.0, 0.0, 1.0),
    "drain_timeout": (10.0, 0.4, 0.0, _INF),
    "shutdown_timeout": (3.0, 0.0),
    "close_timeout": (1.0,),
}


class Choices:
    """A script: a list of numbers, one per choice. After its end, each choice is the first."""

    def __init__(self, numbers: Sequence[int]) -> None:
        self._numbers = list(reversed(numbers))
        # the steps performed, for the error message
        self.trace: list[str] = []

    @property
    def left(self) -> bool:
        """Whether the script has more numbers."""
        return bool(self._numbers)

    def among(self, options: Sequence[T]) -> T:
        """Choose one of `options`."""
        number = self._numbers.pop() if self._numbers else 0
        return options[number % len(options)]


class Driver:
    """One run of one script.

    Args:
        choices: The script.
        inner: The user's own `open_bridge`, if it is under test.
    """

    def __init__(self, choices: Choices, inner: InnerOpen | None) -> None:
        self._choices = choices
        self._findings = Findings()
        self._callers: list[Caller] = []
        self._errors: list[BuildError] = []
        self._closing = Closing.QUICK
        self._block = trio.CancelScope()
        self._leave = trio.Event()
        self._has_ended = False
        self._revision = 1
        self._factory = BridgeFactory(inner, lambda: self._closing, self._may_close, self._findings)
        picked = {name: choices.among(values) for name, values in _OPTIONS.items()}
        self._options = PoolOptions(**picked)  # type: ignore[arg-type] # one is an int, and is
        choices.trace.append(", ".join(f"{name}={value}" for name, value in picked.items()))

    async def run(self, clock: trio.testing.MockClock) -> None:
        """Perform the script, then leave the pool and check the end."""
        self._clock = clock
        async with trio.open_nursery() as self._outside:
            await self._outside.start(self._host)
            try:
                while self._choices.left:
                    await self._perform(self._possible_steps())
                await self._finish()
            finally:
                # After a broken promise, tasks may still wait for time; the script has ended.
                clock.autojump_threshold = 0
                self._outside.cancel_scope.cancel()

    async def _host(  # noqa: ASYNC114 -- started by `nursery.start`
        self, task_status: trio.TaskStatus[None]
    ) -> None:
        options = attrs.asdict(self._options)
        snapshot = ProviderSnapshot([1], self._revision)
        with self._block:
            async with open_bridge_pool(self._factory.open_bridge, snapshot, **options) as pool:
                self._pool: ScriptedPool = pool
                nursery = pool._supervisor._owners
                self._oracle = Oracle(
                    pool, self._options, self._factory, self._findings, self._callers, nursery
                )
                async with trio.open_nursery() as self._inside:
                    task_status.started()
                    await self._leave.wait()
                self._oracle.left_at = trio.current_time()
        self._has_ended = True

    # -- steps ----------------------------------------------------------------------------

    async def _perform(self, steps: Sequence[Step]) -> None:
        name, act = self._choices.among(steps)
        self._choices.trace.append(name)
        act()
        self._oracle.check_always()
        pause = self._choices.among(("settle", "same tick", "tick", "settle"))
        if pause == "settle":
            await trio.testing.wait_all_tasks_blocked()
            self._oracle.check_quiet()
        elif pause == "tick":
            await trio.lowlevel.checkpoint()
        self._choices.trace[-1] += f" [{pause}]"
        self._oracle.check_always()

    def _possible_steps(self) -> list[Step]:
        steps: list[Step] = [
            ("acquire", self._acquire),
            ("acquire", self._acquire),
            ("advance", self._advance),
            ("acquire_nowait", self._acquire_nowait),
            ("replace", self._replace),
            ("replace with equal", self._replace_with_equal),
            ("replace with older", self._replace_with_older),
        ]
        if self._callers_in(CallerState.HOLDING):
            steps += [("release", self._release), ("release", self._release)]
            steps += [("cancel a holder", lambda: self._cancel(CallerState.HOLDING))]
        if self._callers_in(CallerState.WAITING):
            steps += [("cancel a waiter", lambda: self._cancel(CallerState.WAITING))]
        if self._unanswered():
            steps += [("build succeeds", self._succeed), ("build succeeds", self._succeed)]
            steps += [("build fails", self._fail)]
        if self._crashable():
            steps += [("crash", self._crash)]
        return steps

    def _callers_in(self, state: CallerState) -> list[Caller]:
        return [caller for caller in self._callers if caller.state is state]

    def _unanswered(self) -> list[ScriptedBuild]:
        return [b for b in self._factory.builds if b.is_building and b.verdict is None]

    def _crashable(self) -> list[ScriptedBuild]:
        return [b for b in self._factory.builds if b.is_open and not b.has_crashed]

    def _acquire(self) -> None:
        self._closing = self._choices.among(_CLOSINGS)
        can_be_inside = not self._leave.is_set() and not self._block.cancel_called
        is_inside = can_be_inside and self._choices.among((False, True))
        caller = Caller(
            self._pool, self._choices.among(_KEYS), self._options.max_rebuilds,
            self._findings, self._errors, is_inside, block=self._block,
        )  # fmt: skip
        self._callers.append(caller)
        (self._inside if is_inside else self._outside).start_soon(caller.run)

    def _acquire_nowait(self) -> None:
        key = self._choices.among(_KEYS)
        try:
            with self._pool.acquire_nowait(key) as bridge:
                self._findings.must(1, bridge.is_open, f"{key}: the bridge is closed")
                self._findings.must(2, bridge.key == key, f"{key}: got the bridge of {bridge.key}")
        except (trio.WouldBlock, PoolClosedError):
            pass

    def _release(self) -> None:
        self._choices.among(self._callers_in(CallerState.HOLDING)).release()

    def _cancel(self, state: CallerState) -> None:
        self._choices.among(self._callers_in(state)).cancel()

    def _succeed(self) -> None:
        self._choices.among(self._unanswered()).succeed()

    def _fail(self) -> None:
        self._choices.among(self._unanswered()).fail()

    def _crash(self) -> None:
        self._choices.among(self._crashable()).break_down()

    def _advance(self) -> None:
        self._clock.jump(self._choices.among(_ADVANCES))

    def _replace(self) -> None:
        before, old = self._pool.statistics(), self._pool.snapshot
        self._revision += 1
        result = self._pool.replace_providers(ProviderSnapshot([self._revision], self._revision))
        must = self._findings.must
        if result.applied:
            must(33, result.generation == before.generation + 1, "the generation skips")
            deadline = trio.current_time() + self._options.drain_timeout
            self._oracle.drain_deadlines[before.generation] = deadline
            self._oracle.generations[before.generation] = old.providers
        else:
            must(33, result.outcome is ReplaceOutcome.CLOSED, f"refused: {result.outcome}")
            self._check_nothing_changed(before)

    def _replace_with_equal(self) -> None:
        before = self._pool.statistics()
        result = self._pool.replace_providers(self._pool.snapshot)
        self._findings.must(33, not result.applied, "an equal snapshot was applied")
        self._check_nothing_changed(before)

    def _replace_with_older(self) -> None:
        before = self._pool.statistics()
        older = ProviderSnapshot([-self._revision], self._revision - 1)
        result = self._pool.replace_providers(older)
        self._findings.must(33, not result.applied, "an older snapshot was applied")
        self._check_nothing_changed(before)

    def _check_nothing_changed(self, before: PoolStatistics) -> None:
        after = attrs.evolve(self._pool.statistics(), replacements=before.replacements)
        self._findings.must(33, after == before, "a refused replacement changed something")

    def _may_close(self, build: ScriptedBuild) -> None:
        self._oracle.may_close(build)

    # -- the end --------------------------------------------------------------------------

    async def _finish(self) -> None:
        ends: tuple[Step, Step] = (("leave", self._leave.set), ("cancel the block", self._hard))
        await self._perform(ends)
        for _ in range(200):  # every wait of a script is shorter than this many half seconds
            if self._has_ended and all(c.state is CallerState.ENDED for c in self._callers):
                break
            for build in self._unanswered():
                build.succeed()
            for caller in self._callers_in(CallerState.HOLDING):
                caller.release()
            self._clock.jump(0.5)
            await trio.testing.wait_all_tasks_blocked()
            self._oracle.check_always()
        await trio.testing.wait_all_tasks_blocked()
        self._oracle.check_end()

    def _hard(self) -> None:
        self._oracle.was_cancelled = True
        self._block.cancel()
