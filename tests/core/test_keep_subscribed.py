"""A subscription that is kept open: notices, outages, delays, the end."""

import logging
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import pytest
import trio
from trio.testing import MockClock

from bridgepool import (
    ChangeBus,
    MemoryReloader,
    ProviderSnapshot,
    keep_subscribed,
    open_bridge_pool,
    watch_providers,
)

Events = trio.MemorySendChannel[int]


@attrs.define(eq=False)
class Source:
    """Gives a subscription at a time; `fails` are raised by the first attempts."""

    fails: list[Exception] = attrs.field(factory=list)
    attempts: list[float] = attrs.field(factory=list)  # when
    is_open: bool = False
    opened: trio.Event = attrs.field(factory=trio.Event)
    events: Events | None = None

    @asynccontextmanager
    async def open(self) -> AsyncIterator[trio.MemoryReceiveChannel[int]]:
        self.attempts.append(trio.current_time())
        await trio.lowlevel.checkpoint()
        if self.fails:
            raise self.fails.pop(0)
        self.events, events = trio.open_memory_channel[int](10)
        self.is_open = True
        self.opened.set()
        try:
            yield events
        finally:
            self.is_open = False

    def send(self) -> None:
        assert self.events is not None
        self.events.send_nowait(1)

    def end(self) -> None:
        assert self.events is not None
        self.events.close()


@pytest.fixture
def longest_delays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 1.0)


async def test_a_notice_comes_when_it_is_open_and_for_each_event() -> None:
    source = Source()
    with ChangeBus() as bus, bus.subscribe() as changes:
        async with trio.open_nursery() as nursery:
            await nursery.start(keep_subscribed, source.open, bus)
            await changes.receive()
            for _ in range(3):
                source.send()
                await changes.receive()
            nursery.cancel_scope.cancel()
    assert not source.is_open


@pytest.mark.usefixtures("longest_delays")
async def test_an_outage_is_logged_once_and_ends_with_a_notice(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source()
    with ChangeBus() as bus, bus.subscribe() as changes, caplog.at_level(logging.INFO):
        async with trio.open_nursery() as nursery:
            await nursery.start(keep_subscribed, source.open, bus)
            await changes.receive()
            source.fails = [OSError("down"), ExceptionGroup("", [ExceptionGroup("", [OSError()])])]
            source.end()
            await changes.receive()
            assert source.is_open
            assert source.attempts == [0.0, 0.1, 0.1 + 0.2, 0.1 + 0.2 + 0.4]
            nursery.cancel_scope.cancel()
    assert [record.getMessage() for record in caplog.records] == [
        "change subscription lost: it ended",
        "change subscription opened again",
    ]


@pytest.mark.usefixtures("longest_delays")
async def test_delays_double_up_to_the_longest_and_are_short_again_after_a_steady_time(
    autojump_clock: MockClock,
) -> None:
    source = Source(fails=[OSError() for _ in range(6)])
    keep = partial(keep_subscribed, source.open, first_delay=1, max_delay=4)
    with ChangeBus() as bus:
        async with trio.open_nursery() as nursery:
            await nursery.start(keep, bus)
            delays = [b - a for a, b in zip(source.attempts, source.attempts[1:], strict=False)]
            assert delays == [1, 2, 4, 4, 4, 4]
            await _end_after(3.9, source)
            assert source.attempts[-1] - source.attempts[-2] == pytest.approx(3.9 + 4)
            await _end_after(4, source)
            assert source.attempts[-1] - source.attempts[-2] == pytest.approx(4 + 1)
            nursery.cancel_scope.cancel()


async def _end_after(seconds: float, source: Source) -> None:
    """End the subscription when it was open for so long, and wait until it is opened again."""
    await trio.sleep(seconds)
    source.end()
    source.opened = trio.Event()
    await source.opened.wait()


@pytest.mark.parametrize("error", [OSError("down"), TypeError("a bug of the source")])
async def test_it_starts_when_it_is_open_however_long_that_takes(
    error: Exception, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    source = Source(fails=[error, error])
    with ChangeBus() as bus:
        async with trio.open_nursery() as nursery:
            await nursery.start(keep_subscribed, source.open, bus)
            assert source.is_open
            assert len(source.attempts) == 3
            nursery.cancel_scope.cancel()
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert warnings == [f"change subscription lost: {error!r}"]


async def test_a_closed_bus_ends_it_with_an_error_and_leaves_the_subscription() -> None:
    source = Source()

    async def keep(*, task_status: trio.TaskStatus[None]) -> None:
        with pytest.raises(trio.ClosedResourceError):
            await keep_subscribed(source.open, bus, task_status=task_status)

    with ChangeBus() as bus:
        async with trio.open_nursery() as nursery:
            await nursery.start(keep)
            bus.close()
            source.send()
    assert not source.is_open


async def test_what_is_no_error_of_the_source_comes_out() -> None:
    @asynccontextmanager
    async def interrupted() -> AsyncIterator[trio.MemoryReceiveChannel[int]]:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt
        yield

    with ChangeBus() as bus, pytest.raises(KeyboardInterrupt):
        await keep_subscribed(interrupted, bus)


@pytest.mark.parametrize(("first", "longest"), [(0, 1), (-1, 1), (2, 1), (1, math.inf)])
async def test_delays_that_make_no_sense_are_refused(first: float, longest: float) -> None:
    with ChangeBus() as bus, pytest.raises(ValueError, match="delays"):
        await keep_subscribed(Source().open, bus, first_delay=first, max_delay=longest)


async def test_a_pool_follows_a_source_whose_events_come_this_way() -> None:
    reloader = MemoryReloader(ProviderSnapshot(["north"]))
    source = Source()

    @asynccontextmanager
    async def open_bridge(_: str, snapshot: ProviderSnapshot[str]) -> AsyncIterator[str]:
        yield snapshot.providers[0]

    with ChangeBus() as bus, bus.subscribe() as changes:
        async with (
            open_bridge_pool(open_bridge, reloader.snapshot) as pool,
            trio.open_nursery() as nursery,
        ):
            await nursery.start(keep_subscribed, source.open, bus)
            watch = partial(watch_providers, poll_interval=math.inf)
            await nursery.start(watch, pool, reloader, changes)
            lease = pool.acquire("ada")
            async with lease as bridge:
                assert bridge == "north"
                reloader.replace(ProviderSnapshot(["south"]))
                source.send()
                await lease.wait_retired()
            async with pool.acquire("ada") as bridge:
                assert bridge == "south"
            nursery.cancel_scope.cancel()
