"""A guard for tests on a clock that stands still: a bug may show as a task that never ends."""

import signal
from collections.abc import Iterator
from types import FrameType

import pytest

# Of real time, and far more than the slowest test here takes on a busy machine.
_SECONDS = 60


@pytest.fixture(autouse=True)
def no_test_hangs() -> Iterator[None]:
    def give_up(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"the test did not end in {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
