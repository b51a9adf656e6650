"""Reloads that fail, hang or are out of date; watchers that are stopped."""

from functools import partial
from math import inf
from typing import Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import (
    PoolClosedError,
)
from bridgepool._changes import ChangeBus
from bridgepool._reload import MemoryReloader, ReloadStatus, watch_providers
from tests.core.reloading import Pool, ScriptedReloader, Snapshot, fails, gives, open_pool


async def test_a_bug_in_the_reloader_is_a_failed_reload_with_its_traceback_in_the_log(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    reloader = ScriptedReloader(
        [
            fails(ZeroDivisionError("hunter2")),
            fails(ExceptionGroup("several", [KeyError("x")])),
            fails(ExceptionGroup("several", [KeyError("x")])),
            gives("b"),
        ]
    )
    status = ReloadStatus()
    async with open_pool("a") as pool:
        watch = partial(watch_providers, status=status)
        await nursery.start(watch, pool, reloader, ChangeBus().subscribe())
        assert pool.snapshot.providers == ("b",)
        assert (status.attempts, status.failures, status.failures_in_a_row) == (4, 3, 0)
        assert status.last_error is not None
        assert "ExceptionGroup" in status.last_error
        assert sum(record.exc_info is not None for record in caplog.records) == 2
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("answer", [None, ["a"]])
async def test_a_reloader_that_returns_no_snapshot_fails_the_start_with_its_own_message(
    autojump_clock: MockClock, answer: Any
) -> None:
    """It was retried for ever, and `nursery.start` never returned."""
    reloader = ScriptedReloader([lambda: answer])
    kind = type(answer).__name__
    says = f"ScriptedReloader.reload must return a ProviderSnapshot, not a {kind}"
    async with open_pool("a") as pool, trio.open_nursery() as nursery:
        with pytest.raises(TypeError, match=says), trio.fail_after(3600):
            await nursery.start(watch_providers, pool, reloader, ChangeBus().subscribe())
        assert pool.snapshot.providers == ("a",)
        assert len(reloader.times) == 1


async def test_a_later_answer_that_is_no_snapshot_ends_the_watcher_with_the_same_message(
    autojump_clock: MockClock,
) -> None:
    nothing: Any = None
    bus = ChangeBus()
    reloader = ScriptedReloader([gives("b"), lambda: nothing])

    async def run(pool: Pool) -> None:
        says = r"reload must return .*, not a NoneType"
        with pytest.raises(TypeError, match=says), trio.fail_after(3600):
            await watch_providers(pool, reloader, bus.subscribe())

    async with open_pool("a") as pool, trio.open_nursery() as nursery:
        nursery.start_soon(run, pool)
        await wait_all_tasks_blocked()
        bus.publish()
    assert pool.snapshot.providers == ("b",)
    assert len(reloader.times) == 2


async def test_a_reload_that_hangs_is_cancelled_and_counts_as_failed(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Hanging:
        calls = 0

        async def reload(self) -> Snapshot:
            self.calls += 1
            if self.calls == 1:
                await trio.sleep_forever()
            return Snapshot(["b"])

    status = ReloadStatus()
    async with open_pool("a") as pool:
        watch = partial(watch_providers, status=status)
        await nursery.start(watch, pool, Hanging(), ChangeBus().subscribe())
        assert 30 <= trio.current_time() <= 30.11
        assert status.last_error == "no answer within 30 s"
        assert status.failures == 1
        nursery.cancel_scope.cancel()


async def test_a_reloader_that_fails_at_being_cancelled_ends_no_watcher(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    class Untidy:
        calls = 0

        async def reload(self) -> Snapshot:
            self.calls += 1
            if self.calls == 1:
                async with trio.open_nursery() as children:
                    children.start_soon(trio.sleep_forever)
                    children.start_soon(self.fail_late)
            return Snapshot(["b"])

        async def fail_late(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("in its cleanup")

    status = ReloadStatus()
    async with open_pool("a") as pool:
        watch = partial(watch_providers, status=status)
        await nursery.start(watch, pool, Untidy(), ChangeBus().subscribe())
        assert 30 <= trio.current_time() <= 30.11
        assert (status.attempts, status.failures) == (2, 1)
        assert pool.snapshot.providers == ("b",)
        nursery.cancel_scope.cancel()


async def test_an_answer_that_comes_in_spite_of_the_cancellation_counts_and_is_the_last(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    class Stubborn:
        async def reload(self) -> Snapshot:
            with trio.CancelScope(shield=True):
                await trio.sleep(31)
            return Snapshot(["b"])

    status = ReloadStatus()
    async with open_pool("a") as pool:
        watch = partial(watch_providers, status=status, poll_interval=inf)
        await nursery.start(watch, pool, Stubborn(), ChangeBus().subscribe())
        assert pool.snapshot.providers == ("b",)
        await trio.sleep(1000)
        assert (status.attempts, status.failures) == (1, 0)
        nursery.cancel_scope.cancel()


async def test_a_notice_and_a_poll_at_the_same_moment_are_one_reload(
    nursery: trio.Nursery, mock_clock: MockClock
) -> None:
    """The clock cancels the pause when the notice has ended it already, but nobody has run yet."""
    bus, status = ChangeBus(), ReloadStatus()
    reloader = MemoryReloader(Snapshot(["a"]))
    async with open_pool("a") as pool:
        watch = partial(watch_providers, status=status, poll_interval=100)
        await nursery.start(watch, pool, reloader, bus.subscribe())
        await wait_all_tasks_blocked()
        reloader.replace(Snapshot(["b"]))
        bus.publish()
        mock_clock.jump(100)
        await wait_all_tasks_blocked()
        assert pool.snapshot.providers == ("b",)
        assert (status.attempts, status.failures) == (2, 0)
        nursery.cancel_scope.cancel()


async def test_an_out_of_date_snapshot_is_counted_changes_nothing_and_is_retried(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """It is logged once: else a source that went back would be ignored without a word."""
    bus = ChangeBus()
    reloader = ScriptedReloader(
        [
            gives("b", revision=2),
            gives("a", revision=0),
            gives("a", revision=1),
            gives("c", revision=3),
        ]
    )
    async with open_pool("a", revision=1) as pool:
        status = await nursery.start(watch_providers, pool, reloader, bus.subscribe())
        await trio.sleep(1)
        bus.publish()
        await wait_all_tasks_blocked()
        assert pool.snapshot == Snapshot(["b"], 2)
        assert (status.out_of_date, status.failures, status.revision) == (1, 0, 2)
        await trio.sleep(2)
        assert pool.snapshot == Snapshot(["c"], 3)
        assert (status.out_of_date, status.failures, status.revision) == (2, 0, 3)
        assert status.last_error == "the source is at revision 1, behind ours"
        assert [one.message for one in caplog.records if one.levelname == "WARNING"] == [
            "reload failed: the source is at revision 0, behind ours"
        ]
        nursery.cancel_scope.cancel()


async def test_not_started_while_the_source_is_behind_what_is_in_force(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    reloader = ScriptedReloader([gives("a", revision=8)] * 5 + [gives("b", revision=9)])
    async with open_pool("b", revision=9) as pool:
        status = await nursery.start(watch_providers, pool, reloader, ChangeBus().subscribe())
        assert (status.out_of_date, status.unchanged, pool.generation) == (5, 1, 1)
        nursery.cancel_scope.cancel()


async def test_before_the_first_success_the_status_says_that_nothing_was_confirmed() -> None:
    status = ReloadStatus()
    assert status.staleness == inf
    assert status.last_attempt is None
    assert status.revision is None


async def test_when_the_pool_is_closed_the_watcher_returns(autojump_clock: MockClock) -> None:
    source = MemoryReloader(Snapshot(["a"]))
    async with trio.open_nursery() as nursery:
        async with open_pool("a") as pool:
            await nursery.start(watch_providers, pool, source, source.subscribe())
        source.replace(Snapshot(["b"]))
    assert trio.current_time() < 1


async def test_starting_on_a_closed_pool_is_an_error_and_not_a_group_of_one(
    autojump_clock: MockClock,
) -> None:
    source = MemoryReloader(Snapshot(["a"]))
    async with open_pool("a") as pool:
        pass
    with pytest.raises(PoolClosedError):
        await watch_providers(pool, source, source.subscribe())


async def test_cancelling_the_watcher_cancels_its_reload_and_leaves_nothing(
    autojump_clock: MockClock,
) -> None:
    cancelled: list[bool] = []

    class Slow:
        async def reload(self) -> Snapshot:
            try:
                await trio.sleep_forever()
            finally:
                cancelled.append(True)
            raise AssertionError

    async with open_pool("a") as pool:
        with trio.move_on_after(5) as scope:
            await watch_providers(pool, Slow(), ChangeBus().subscribe())
        assert scope.cancelled_caught
        assert cancelled == [True]
        assert pool.snapshot.providers == ("a",)


@pytest.mark.parametrize("seconds", [0.0, -1.0])
async def test_an_interval_that_would_make_a_hot_loop_is_refused(seconds: float) -> None:
    source = MemoryReloader(Snapshot(["a"]))
    async with open_pool("a") as pool:
        with pytest.raises(ValueError, match="poll_interval"):
            await watch_providers(pool, source, source.subscribe(), poll_interval=seconds)
        with pytest.raises(ValueError, match="min_interval"):
            await watch_providers(pool, source, source.subscribe(), min_interval=seconds)
