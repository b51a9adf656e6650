"""Whether the store can be used: how a failure and its end are noticed."""

from __future__ import annotations

import logging
import math
from functools import partial

import attrs
import pytest
import trio
import trio.testing

from bridgepool.gateway.control._errors import StoreUnavailableError
from bridgepool.gateway.control._store_access import StoreAccess


@attrs.define(eq=False)
class Attempts:
    """What is tried; a test says how it ends."""

    failure: Exception | None = None
    duration: float = 0.0
    count: int = 0

    async def attempt(self) -> None:
        self.count += 1
        await trio.sleep(self.duration)
        if self.failure is not None:
            raise self.failure


async def test_a_failure_and_its_end_are_noticed_and_logged_once(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "bridgepool.control")
    access = StoreAccess("lost", "regained", lambda: {"revision": 7})
    tried = Attempts()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(access.keep_trying, tried.attempt, partial(trio.sleep, 10))
        await trio.sleep(25)
        assert (access.problem, tried.count) == (None, 3)
        tried.failure = StoreUnavailableError("the database is away")
        await trio.sleep(10)
        assert access.problem == "the database is away"
        assert tried.count > 5  # more often than every 10 s
        tried.failure = StoreUnavailableError("it is away in another way")
        await trio.sleep(10)
        assert access.problem == "it is away in another way"
        tried.failure = None
        await trio.sleep(2)
        assert access.problem is None
        nursery.cancel_scope.cancel()
    logged = [(record.getMessage(), vars(record)["revision"]) for record in caplog.records]
    assert logged == [("lost", 7), ("regained", 7)]


async def test_a_store_that_does_not_answer_counts_as_unavailable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    access = StoreAccess("lost", "regained")
    tried = Attempts(duration=math.inf)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(access.keep_trying, tried.attempt, partial(trio.sleep, 10))
        await trio.sleep(46)
        assert access.problem == "the store did not answer within 45 s"
        tried.duration = 0
        await trio.sleep(50)
        assert access.problem is None
        nursery.cancel_scope.cancel()


async def test_an_unexpected_failure_ends_nothing_and_is_logged_with_its_place(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    access = StoreAccess("lost", "regained")
    tried = Attempts(failure=LookupError("of a fault in here"))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(access.keep_trying, tried.attempt, partial(trio.sleep, 10))
        await trio.sleep(5)
        assert access.problem == "it failed with LookupError"
        tried.failure = None
        await trio.sleep(5)
        assert access.problem is None
        nursery.cancel_scope.cancel()
    assert [record.exc_info is not None for record in caplog.records] == [True, False]
