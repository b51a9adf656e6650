import logging
from functools import partial
from math import inf

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import (
    ReloadError,
)
from bridgepool._changes import ChangeBus
from bridgepool._reload import MemoryReloader, watch_providers
from tests.core.reloading import (
    ScriptedReloader,
    Snapshot,
    fails,
    gaps,
    gives,
    open_pool,
    watched,
)


async def test_started_comes_when_the_first_snapshot_is_in_force(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    source = MemoryReloader(Snapshot(["new"]))
    async with open_pool("old") as pool:
        status = await nursery.start(watch_providers, pool, source, source.subscribe())
        assert pool.snapshot.providers == ("new",)
        assert (status.attempts, status.applied, status.unchanged) == (1, 1, 0)
        nursery.cancel_scope.cancel()


async def test_started_comes_as_well_when_the_source_confirms_what_is_in_force(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    source = MemoryReloader(Snapshot(["same"]))
    async with open_pool("same") as pool:
        status = await nursery.start(watch_providers, pool, source, source.subscribe())
        assert pool.generation == 1
        assert (status.applied, status.unchanged) == (0, 1)
        nursery.cancel_scope.cancel()


async def test_a_change_in_memory_is_in_force_at_once(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    source = MemoryReloader(Snapshot(["a"], 1))
    async with open_pool("a") as pool:
        status = await nursery.start(watch_providers, pool, source, source.subscribe())
        await trio.sleep(10)
        before = trio.current_time()
        source.replace(Snapshot(["b"], 2))
        assert source.snapshot.providers == ("b",)
        async with pool.acquire("k"):
            pass
        await wait_all_tasks_blocked()
        assert pool.snapshot == Snapshot(["b"], 2)
        assert status.revision == 2
        assert trio.current_time() == before
        nursery.cancel_scope.cancel()


async def test_a_burst_of_a_thousand_notices_costs_one_or_two_reloads(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    source = MemoryReloader(Snapshot(["0"]))
    async with open_pool("0") as pool:
        status = await nursery.start(watch_providers, pool, source, source.subscribe())
        await trio.sleep(10)
        for number in range(1000):
            source.replace(Snapshot([str(number)]))
        await trio.sleep(10)
        assert pool.snapshot.providers == ("999",)
        assert status.attempts <= 3
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("works", [True, False])
async def test_a_storm_of_notices_is_not_a_storm_of_reloads(
    autojump_clock: MockClock, works: bool
) -> None:
    broken = fails(ReloadError("down"))
    reloader = ScriptedReloader([gives("a"), gives("a") if works else broken])
    async with watched(reloader) as (_, bus, _):
        storm = trio.current_time()
        while trio.current_time() < storm + 10:
            bus.publish()
            await trio.sleep(0.005)
        assert 10 <= len(reloader.times) <= 102
        # By a notice never sooner; by the timer a retry may fall anywhere.
        if works:
            assert min(gaps(reloader.times)) >= 0.0999
            assert [round(time, 1) for time in reloader.times[:6]] == [0, 0.1, 0.3, 0.7, 1.5, 2.5]
            assert len(reloader.times) == 13


async def test_changes_a_few_tenths_of_a_second_apart_do_not_wait_after_a_storm_either(
    autojump_clock: MockClock,
) -> None:
    reloader = ScriptedReloader([gives("a")])
    async with watched(reloader) as (_, bus, _):
        for _ in range(600):
            bus.publish()
            await trio.sleep(0.005)
        late = []
        for number in range(20):
            await trio.sleep(0.3)
            before = len(reloader.times)
            bus.publish()
            await trio.sleep(0.0002)
            if len(reloader.times) == before:
                late.append(number)
        assert late in ([0, 1, 2], [0, 1], [0], []), "those that fell into the storm's last wait"


async def test_after_a_rest_a_notice_is_followed_at_once_again(autojump_clock: MockClock) -> None:
    reloader = ScriptedReloader([gives("a")])
    async with watched(reloader) as (_, bus, _):
        for _ in range(1000):
            bus.publish()
            await trio.sleep(0.005)
        await trio.sleep(2.5)
        for wait in (0.0, *[0.15] * 10):
            await trio.sleep(wait)
            before = len(reloader.times)
            bus.publish()
            await trio.sleep(0.0002)
            assert len(reloader.times) == before + 1


async def test_a_notice_during_a_reload_causes_another(autojump_clock: MockClock) -> None:
    reloader = ScriptedReloader([gives("a"), gives("b"), gives("c")], seconds=5)
    async with watched(reloader) as (pool, bus, _):
        bus.publish()
        await trio.sleep(1)
        assert len(reloader.times) == 2
        bus.publish()
        await trio.sleep(10)
        assert reloader.times == [0, 5, 10]
        assert pool.snapshot.providers == ("c",)


async def test_a_failed_reload_keeps_the_last_good_and_is_retried_until_it_succeeds(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    down = fails(ReloadError("the source is down"))
    reloader = ScriptedReloader([gives("a", revision=1)] + [down] * 40 + [gives("b", revision=2)])
    caplog.set_level(logging.INFO, "bridgepool")
    async with watched(reloader) as (pool, bus, status):
        await trio.sleep(1)
        bus.publish()
        await trio.sleep(1)
        assert pool.snapshot.providers == ("a",)
        assert status.failures_in_a_row > 0
        assert status.last_error == "the source is down"
        assert status.last_error_time is not None
        assert 1 < status.staleness <= 2
        await trio.sleep(40 * 30)
        assert pool.snapshot.providers == ("b",)
        assert (status.failures, status.failures_in_a_row, status.revision) == (40, 0, 2)
        assert status.last_error == "the source is down"
    # Told when it begins and when it is over, not forty times.
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]


async def test_waits_between_retries_grow_are_capped_and_stay_spread_at_the_cap(
    autojump_clock: MockClock,
) -> None:
    reloader = ScriptedReloader([gives("a"), fails(ReloadError("down"))])
    async with watched(reloader, retry_delay=1, max_retry_delay=8) as (_, bus, _):
        bus.publish()
        await trio.sleep(2000)
        waits = gaps(reloader.times[1:])
        assert all(wait <= limit + 1e-6 for wait, limit in zip(waits, [1, 2, 4, 8], strict=False))
        late = waits[4:]
        assert max(late) <= 8 + 1e-6
        assert len({round(wait, 6) for wait in late}) > len(late) // 2
        assert 2 < sum(late) / len(late) < 6


async def test_a_notice_ends_the_wait_for_a_retry(autojump_clock: MockClock) -> None:
    down = fails(ReloadError("down"))
    reloader = ScriptedReloader([gives("a"), down, gives("b")])
    async with watched(reloader, retry_delay=1e9, max_retry_delay=1e9) as (pool, bus, _):
        await trio.sleep(1)
        bus.publish()
        await trio.sleep(1)
        assert len(reloader.times) == 2
        bus.publish()
        await wait_all_tasks_blocked()
        assert reloader.times[2:] == [2]
        assert pool.snapshot.providers == ("b",)


async def test_a_retry_that_falls_due_meanwhile_makes_a_notice_no_earlier(
    autojump_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("random.random", lambda: 0.5)
    reloader = ScriptedReloader([gives("a"), fails(ReloadError("away")), gives("b")])
    async with watched(reloader, min_interval=1, retry_delay=1) as (_, bus, _):
        await trio.sleep(10)
        bus.publish()
        await trio.sleep(0.1)
        bus.publish()  # waits for a second after the failed reload; the retry was due in half
        await trio.sleep(10)
        assert gaps(reloader.times) == [10, 1]


async def test_a_lost_notice_is_repaired_by_a_poll_that_is_not_in_step(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    reloader = ScriptedReloader([gives("a"), gives("a"), gives("b")])
    async with open_pool("a") as pool:
        watch = partial(watch_providers, poll_interval=100)
        await nursery.start(watch, pool, reloader, ChangeBus().subscribe())
        await trio.sleep(2000)
        waits = gaps(reloader.times)
        assert all(80 - 1e-6 <= wait <= 100 + 1e-6 for wait in waits)
        assert len({round(wait, 3) for wait in waits}) > len(waits) // 2
        assert pool.snapshot.providers == ("b",)
        nursery.cancel_scope.cancel()


async def test_a_source_without_notices_is_polled(autojump_clock: MockClock) -> None:
    reloader = ScriptedReloader([gives("a"), gives("b")])
    async with open_pool("a") as pool, trio.open_nursery() as nursery:
        status = await nursery.start(partial(watch_providers, poll_interval=10), pool, reloader)
        assert not status.following
        await trio.sleep(11)
        assert pool.snapshot.providers == ("b",)
        nursery.cancel_scope.cancel()


async def test_without_a_poll_only_notices_cause_reloads(autojump_clock: MockClock) -> None:
    reloader = ScriptedReloader([gives("a")])
    async with watched(reloader, poll_interval=inf) as (_, bus, _):
        await trio.sleep(80_000)
        assert len(reloader.times) == 1
        bus.publish()
        await trio.sleep(1)
        assert len(reloader.times) == 2


async def test_when_the_notices_end_the_poll_goes_on_and_the_status_tells(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    reloader = ScriptedReloader([gives("a"), gives("b")])
    async with watched(reloader) as (pool, bus, status):
        assert status.following
        bus.close()
        await wait_all_tasks_blocked()
        assert not status.following
        assert "notices ended" in caplog.text
        await trio.sleep(300)
        assert pool.snapshot.providers == ("b",)


async def test_when_the_channel_of_notices_breaks_the_poll_goes_on(
    nursery: trio.Nursery, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    changes = ChangeBus().subscribe()
    reloader = ScriptedReloader([gives("a"), gives("b")])
    async with open_pool("a") as pool:
        status = await nursery.start(watch_providers, pool, reloader, changes)
        changes.close()
        await trio.sleep(300)
        assert not status.following
        assert "notices failed (ClosedResourceError)" in caplog.text
        assert pool.snapshot.providers == ("b",)
        nursery.cancel_scope.cancel()


async def test_once_a_watcher_has_ended_others_receive_from_its_subscription(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    bus, received = ChangeBus(), trio.Event()
    changes = bus.subscribe()

    async def receive() -> None:
        await changes.receive()
        received.set()

    async with open_pool("a") as pool:
        async with trio.open_nursery() as watchers:
            watcher = partial(watch_providers, pool, ScriptedReloader([gives("a")]))
            await watchers.start(watcher, changes)
            watchers.cancel_scope.cancel()
        nursery.start_soon(receive)
        await wait_all_tasks_blocked()
        bus.publish()
        with trio.fail_after(1):
            await received.wait()


async def test_notices_may_come_from_any_receive_channel(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    send, receive = trio.open_memory_channel[int](0)
    reloader = ScriptedReloader([gives("a"), gives("b")])
    async with open_pool("a") as pool:
        with send, receive:
            await nursery.start(watch_providers, pool, reloader, receive)
            await send.send(7)
            await trio.sleep(1)
            assert pool.snapshot.providers == ("b",)
            nursery.cancel_scope.cancel()
