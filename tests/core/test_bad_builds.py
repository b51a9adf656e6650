"""Builds that raise, hang, ignore cancellation, or are no proper context manager at all."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import cast

import pytest
import trio
from trio.testing import MockClock

from bridgepool import (
    BuildError,
    BuildOutcome,
    BuildTimeoutError,
    ProviderSnapshot,
    open_bridge_pool,
)
from tests.core.rig import BrokenBridgeError, providers

OpenBridge = Callable[[str, ProviderSnapshot[int]], AbstractAsyncContextManager[str]]


@asynccontextmanager
async def _raises(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
    raise BrokenBridgeError("refused")
    yield key


@asynccontextmanager
async def _raises_a_group(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_fail)
        await trio.sleep_forever()
        yield key


async def _fail() -> None:
    await trio.lowlevel.checkpoint()
    raise BrokenBridgeError("refused in the background")


@asynccontextmanager
async def _yields_never(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
    if key == "none such":
        yield key


@asynccontextmanager
async def _is_cancelled_by_itself(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
    with trio.CancelScope() as scope:
        scope.cancel()
        await trio.lowlevel.checkpoint()
        yield key


def _raises_at_once(key: str, snapshot: ProviderSnapshot[int]) -> AbstractAsyncContextManager[str]:
    raise BrokenBridgeError("not even called properly")


def _is_no_context_manager(
    key: str, snapshot: ProviderSnapshot[int]
) -> AbstractAsyncContextManager[str]:
    return cast("AbstractAsyncContextManager[str]", key)


@pytest.mark.parametrize(
    ("open_bridge", "cause"),
    [
        (_raises, BrokenBridgeError),
        (_raises_a_group, ExceptionGroup),
        (_yields_never, RuntimeError),
        (_is_cancelled_by_itself, RuntimeError),
        (_raises_at_once, BrokenBridgeError),
        (_is_no_context_manager, TypeError),
    ],
)
async def test_a_bad_build_is_its_callers_error_and_leaves_nothing(
    open_bridge: OpenBridge, cause: type[Exception]
) -> None:
    """Promise 8; invariants 27 and 29."""
    async with open_bridge_pool(open_bridge, providers(1)) as pool:
        for _ in range(2):
            with pytest.raises(BuildError) as caught:
                async with pool.acquire("a"):
                    raise AssertionError("there is no bridge")
            assert isinstance(caught.value.__cause__, cause)
        stats = pool.statistics()
        assert (stats.listed, stats.building, stats.draining, stats.waiting) == (0, 0, 0, 0)
        assert stats.builds[BuildOutcome.FAILED] == 2


async def test_the_error_of_a_build_shows_what_failed_in_its_nursery() -> None:
    async with open_bridge_pool(_raises_a_group, providers(1)) as pool:
        with pytest.raises(BuildError, match=r"failed: BrokenBridgeError: refused in the back"):
            async with pool.acquire("a"):
                raise AssertionError("there is no bridge")


async def test_a_bridge_that_yields_twice_is_a_failed_close(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        yield key
        yield key

    async with open_bridge_pool(open_bridge, providers(1)) as pool, pool.acquire("a"):
        pass
    assert pool.statistics().close_failures == 1
    assert "didn't stop" in caplog.text


async def test_a_build_that_raises_while_it_is_cancelled_has_timed_out(
    autojump_clock: MockClock,
) -> None:
    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        try:
            await trio.sleep_forever()
        finally:
            raise BrokenBridgeError("and cannot clean up")
        yield key

    async with open_bridge_pool(open_bridge, providers(1), build_timeout=3) as pool:
        with pytest.raises(BuildTimeoutError) as caught:
            async with pool.acquire("a"):
                raise AssertionError("there is no bridge")
        assert isinstance(caught.value.__cause__, BrokenBridgeError)


async def test_a_build_that_ignores_its_cancellation_is_told_off_when_it_ends(
    autojump_clock: MockClock,
) -> None:
    """Promise 7; invariants 18 and 37: what comes too late is closed, and never listed."""
    closed = trio.Event()

    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        with trio.CancelScope(shield=True):
            await trio.sleep(60)
        try:
            yield key
        finally:
            closed.set()

    async with open_bridge_pool(open_bridge, providers(1), build_timeout=30) as pool:
        with pytest.raises(BuildTimeoutError):
            async with pool.acquire("a"):
                raise AssertionError("there is no bridge in time")
        assert trio.current_time() == pytest.approx(60, abs=0.001)
        assert closed.is_set()
        assert pool.statistics().listed == 0


async def test_leaving_waits_for_a_build_that_ignores_its_cancellation(
    autojump_clock: MockClock,
) -> None:
    """Promise 15; invariants 28, 29 and 32: those who wait for it are not kept waiting."""

    @asynccontextmanager
    async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
        with trio.CancelScope(shield=True):
            await trio.sleep(20)
        yield key

    told_at: list[float] = []

    async def wait_for_it() -> None:
        with pytest.raises(trio.ClosedResourceError):
            async with pool.acquire("a"):
                raise AssertionError("there is no bridge in time")
        told_at.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        async with open_bridge_pool(open_bridge, providers(1)) as pool:
            nursery.start_soon(wait_for_it)
            await trio.sleep(1)
        assert trio.current_time() == pytest.approx(20, abs=0.001)
        assert told_at == [pytest.approx(1, abs=0.001)]
