"""Files that are read again: what is used, logged and reported of a good, a bad and a slow one."""

from __future__ import annotations

import logging
import threading

import pytest
import trio
import trio.testing

from bridgepool.gateway.serving._files_in_use import FileInUse, open_files_in_use
from bridgepool.gateway.serving._listening import StartError

KEPT = "file cannot be used; keeping what it held before"


class File:
    """A file that can be bad, and slow to read."""

    def __init__(self) -> None:
        self.content: object = 1
        self.readings = trio.Semaphore(0)
        """Those that have begun."""
        self.free = threading.Event()
        self.free.set()

    def read(self) -> object:
        trio.from_thread.run_sync(self.readings.release)
        assert self.free.wait(60)
        if isinstance(self.content, Exception):
            raise self.content
        return self.content


async def test_what_a_bad_file_held_before_stays_in_use_and_status_has_the_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    file, used = File(), list[object]()

    async def use(value: object) -> None:
        await trio.lowlevel.checkpoint()
        if value == "refused":
            raise StartError("of another currency")
        used.append(value)

    in_use = FileInUse[object]("price table", "/etc/prices", file.read, 1, use)
    fields = {"kind": "price table", "path": "/etc/prices"}
    with caplog.at_level(logging.INFO, "bridgepool"):
        for content, held, problem in (
            (2, 2, None),
            (StartError("is empty"), 2, "is empty"),
            ("refused", 2, "of another currency"),
            (3, 3, None),
        ):
            caplog.clear()
            file.content = content
            await in_use.read_again()
            assert in_use.value == held
            assert {**in_use.report(), "age": 0} == {**fields, "age": 0, "problem": problem}
            [record] = caplog.records
            assert fields.items() <= vars(record).items()
            expected = ("file read again", None) if problem is None else (KEPT, problem)
            assert (record.message, vars(record).get("error")) == expected
    assert used == [2, 3]


async def test_the_age_is_that_of_what_is_in_use(autojump_clock: trio.testing.MockClock) -> None:
    file = File()
    in_use = FileInUse[object]("certificate", "/cert", file.read, 1)
    autojump_clock.jump(10)
    file.content = StartError("is empty")
    await in_use.read_again()
    assert in_use.report()["age"] == 10
    file.content = 1
    await in_use.read_again()
    assert in_use.report()["age"] == 0


async def test_a_file_that_hangs_delays_no_other_and_is_read_once_more_for_all_notices() -> None:
    """Files were read one after another: one that hung kept a renewed certificate out of use."""
    slow, other = File(), File()
    slow.free.clear()
    send, used = trio.open_memory_channel[object](10)
    files = [
        FileInUse[object]("admin token", "/slow", slow.read, 1, send.send_nowait),
        FileInUse[object]("certificate", "/other", other.read, 1, send.send_nowait),
    ]
    with trio.fail_after(60):
        async with open_files_in_use(files) as in_use:
            for other.content in (2, 3, 4):
                in_use.read_again()
                assert await used.receive() == other.content
            slow.content = "renewed"
            slow.free.set()
            assert [await used.receive(), await used.receive()] == ["renewed"] * 2
            await trio.testing.wait_all_tasks_blocked()
            assert slow.readings.value == 2


async def test_a_bug_in_the_reading_of_a_file_is_logged_and_ends_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    file, used = File(), trio.Event()
    in_use = FileInUse[object]("certificate", "/cert", file.read, 1, lambda _: used.set())
    file.content = ZeroDivisionError()
    file.free.clear()
    with trio.fail_after(60):
        async with open_files_in_use([in_use]) as files:
            files.read_again()
            await file.readings.acquire()
            files.read_again()
            file.free.set()
            await file.readings.acquire()
            file.content = 2
            files.read_again()
            await used.wait()
    assert "file could not be read again" in caplog.text
