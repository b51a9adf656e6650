"""`TrioMachine` runs its rules inside one Trio run, and fails when a task of that run fails."""

import pytest
import trio
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    precondition,
    rule,
    run_state_machine_as_test,
)

from bridgepool.testing import TrioMachine


class ChannelMachine(TrioMachine):
    """A memory channel against a list."""

    def __init__(self) -> None:
        super().__init__()
        self._send, self._receive = trio.open_memory_channel[int](3)
        self._model: list[int] = []

    @precondition(lambda self: len(self._model) < 3)
    @rule(value=st.integers())
    def send(self, value: int) -> None:
        self.do(self._send.send, value)
        self._model.append(value)

    @precondition(lambda self: self._model)
    @rule()
    def receive(self) -> None:
        assert self.do(self._receive.receive) == self._model.pop(0)

    @rule(seconds=st.floats(0.1, 1e6))
    def sleep(self, seconds: float) -> None:
        before = self.do(self._time)
        self.do(trio.sleep, seconds)
        assert self.do(self._time) >= before + seconds

    @rule()
    def look(self) -> None:
        with pytest.raises(trio.WouldBlock):
            self.do(self._full_or_empty)

    async def _time(self) -> float:
        return trio.current_time()

    async def _full_or_empty(self) -> None:
        if self._model:
            for _ in range(4 - len(self._model)):
                self._send.send_nowait(0)
                self._model.append(0)
        self._receive.receive_nowait()


class CrashingMachine(TrioMachine):
    """A background task raises, once there were two rules."""

    count = 0

    @rule()
    def spawn(self) -> None:
        self.count += 1
        if self.count > 2:
            self.nursery.start_soon(self._crash)
            self.settle()

    async def _crash(self) -> None:
        raise ZeroDivisionError


QUICK = settings(max_examples=15, stateful_step_count=15, deadline=None)


def test_rules_share_one_run_with_its_tasks_channels_and_clock() -> None:
    run_state_machine_as_test(ChannelMachine, settings=QUICK)


def test_a_task_that_crashes_between_rules_fails_the_example() -> None:
    with pytest.RaisesGroup(ZeroDivisionError):
        run_state_machine_as_test(CrashingMachine, settings=QUICK)
