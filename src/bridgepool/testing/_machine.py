"""A Hypothesis state machine whose rules run inside one Trio run.

Hypothesis calls rules one after the other, outside any event loop, but `trio.run` does not return
between them. In guest mode the run puts its steps into a queue, and the machine takes them only
while a rule waits. So tasks, channels and pools continue from rule to rule, and nothing runs
between rules.
"""

import queue
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import outcome
import trio
import trio.testing
from hypothesis.stateful import RuleBasedStateMachine

T = TypeVar("T")

# Without a step for so long, the run is stuck in a thread.
_STEP_TIMEOUT = 60.0


class TrioMachine(RuleBasedStateMachine):
    """A `RuleBasedStateMachine` with a Trio run of its own.

    ::

        class Machine(TrioMachine):
            @rule(n=st.integers())
            def send(self, n):
                self.do(self.channel.send, n)

    `nursery` is open from the first rule to the teardown. A task in it that raises fails the
    example. The clock is a `MockClock` that jumps when all tasks are blocked; override `make_clock`
    for another clock.
    """

    nursery: trio.Nursery

    def __init__(self) -> None:
        super().__init__()
        self._steps: queue.SimpleQueue[Callable[[], object]] = queue.SimpleQueue()
        self._ended: outcome.Outcome[None] | None = None
        self._is_up = False
        trio.lowlevel.start_guest_run(
            self._main,
            run_sync_soon_threadsafe=self._steps.put,
            done_callback=self._end,
            host_uses_signal_set_wakeup_fd=True,
            restrict_keyboard_interrupt_to_checkpoints=True,
            clock=self.make_clock(),
        )
        self._run_until(lambda: self._is_up)

    def make_clock(self) -> trio.abc.Clock:
        """Make the clock of the run."""
        return trio.testing.MockClock(autojump_threshold=0)

    def do(self, fn: Callable[..., Awaitable[T]], *args: Any) -> T:
        """Run `await fn(*args)` to its end inside the run; return its result or raise its error."""
        results: list[outcome.Outcome[T]] = []

        async def call() -> None:
            async def capture() -> T:
                return await fn(*args)

            result = await outcome.acapture(capture)
            if isinstance(result, outcome.Error) and isinstance(result.error, trio.Cancelled):
                raise result.error  # the run is ending; that is not the rule's result
            results.append(result)

        def start() -> None:
            if self._is_up:  # else a background task has crashed: the run ends without this call
                self.nursery.start_soon(call)

        self._token.run_sync_soon(start)
        self._run_until(lambda: bool(results))
        return results[0].unwrap()

    def settle(self) -> None:
        """Let everything run until all tasks are blocked."""
        self.do(trio.testing.wait_all_tasks_blocked)

    def teardown(self) -> None:
        """Cancel the tasks in the nursery, end the run, and raise the error of a task, if any."""
        if self._ended is None:
            self._token.run_sync_soon(self.nursery.cancel_scope.cancel)
            self._run_until(lambda: self._ended is not None)
        ended, self._ended = self._ended, outcome.Value(None)
        if ended is not None:
            ended.unwrap()

    async def _main(self) -> None:
        self._token = trio.lowlevel.current_trio_token()
        async with trio.open_nursery() as self.nursery:
            self._is_up = True
            try:
                await trio.sleep_forever()
            finally:
                self._is_up = False

    def _end(self, result: outcome.Outcome[None]) -> None:
        self._ended = result

    def _run_until(self, is_done: Callable[[], bool]) -> None:
        while not is_done():
            if self._ended is not None:  # a background task crashed: `teardown` raises its error
                self.teardown()
                raise RuntimeError("the Trio run has ended")
            self._steps.get(timeout=_STEP_TIMEOUT)()
