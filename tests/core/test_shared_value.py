"""The outcome that a flight hands to all its waiters."""

from collections.abc import AsyncGenerator, Generator

import outcome
import trio
import trio.testing

from bridgepool._shared_value import SharedValue


def test_is_unwrapped_as_often_as_there_are_waiters() -> None:
    handed = SharedValue("bridge")
    assert [handed.unwrap() for _ in range(3)] == ["bridge"] * 3
    assert isinstance(handed, outcome.Outcome)


async def test_wakes_any_number_of_tasks() -> None:
    got: list[object] = []

    async def wait() -> None:
        tasks.append(trio.lowlevel.current_task())
        got.append(await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED))

    tasks: list[trio.lowlevel.Task] = []
    async with trio.open_nursery() as nursery:
        for _ in range(3):
            nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        handed = SharedValue("bridge")
        for task in tasks:
            trio.lowlevel.reschedule(task, handed)
    assert got == ["bridge"] * 3


def test_is_sent_into_a_generator() -> None:
    def echo() -> Generator[str, str, None]:
        yield "got " + (yield "ready")

    generator = echo()
    assert next(generator) == "ready"
    assert SharedValue("it").send(generator) == "got it"


async def test_is_sent_into_an_asynchronous_generator() -> None:
    async def echo() -> AsyncGenerator[str, str]:
        yield "got " + (yield "ready")

    generator = echo()
    assert await anext(generator) == "ready"
    assert await SharedValue("it").asend(generator) == "got it"
    await generator.aclose()
