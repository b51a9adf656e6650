"""What the core leaves to the garbage collector: nothing, however a build ends."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from bridgepool import (
    BridgePoolError,
    CachedBridgePool,
    ProviderSnapshot,
    ReloadError,
    open_bridge_pool,
    open_singleflight,
    watch_providers,
)
from bridgepool._changes import ChangeBus
from bridgepool._services import open_background_nursery
from tests.core.reloading import ScriptedReloader, fails, gives, open_pool
from tests.garbage import cycles_left_by

Pool = CachedBridgePool[str, int, str]


@asynccontextmanager
async def open_bridge(key: str, snapshot: ProviderSnapshot[int]) -> AsyncIterator[str]:
    if key == "fails":
        raise ValueError("of a test")
    if key == "hangs":
        await trio.sleep_forever()
    async with trio.open_nursery() as nursery:
        if key == "crashes":
            nursery.start_soon(fail)
        yield key
        if key == "cannot close":
            raise ValueError("of a test")


async def fail() -> None:
    await trio.lowlevel.checkpoint()
    raise ValueError("of a test")


async def acquire(pool: Pool, key: str) -> None:
    with suppress(BridgePoolError):
        async with pool.acquire(key):
            await wait_all_tasks_blocked()


async def give_up(pool: Pool, key: str) -> None:
    with trio.move_on_after(1):
        await acquire(pool, key)
    await trio.sleep(10)  # the build is abandoned


async def join(pool: Pool, key: str) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(acquire, pool, key)
        nursery.start_soon(acquire, pool, key)


async def find_none(pool: Pool, key: str) -> None:
    with suppress(trio.WouldBlock), pool.acquire_nowait(f"no {key}"):
        raise AssertionError


@pytest.mark.parametrize("key", ["serves", "fails", "hangs", "crashes", "cannot close"])
@pytest.mark.parametrize("use", [acquire, give_up, join, find_none])
@pytest.mark.parametrize("replaces", [True, False])
async def test_a_use_of_a_pool_leaves_nothing_to_the_garbage_collector(
    key: str,
    use: Callable[[Pool, str], Awaitable[None]],
    replaces: bool,
    autojump_clock: MockClock,
) -> None:
    numbers = count(1)
    async with open_bridge_pool(open_bridge, ProviderSnapshot([0])) as pool:

        async def use_once() -> None:
            await use(pool, key)
            if replaces:
                pool.replace_providers(ProviderSnapshot([next(numbers)]))
                await wait_all_tasks_blocked()

        assert await cycles_left_by(use_once) == []


@pytest.mark.parametrize("raises", [True, False])
async def test_a_shared_run_leaves_nothing_to_the_garbage_collector(raises: bool) -> None:
    async with open_singleflight() as flights:

        async def share() -> None:
            with suppress(BridgePoolError):
                await flights.do("a", 1, fail if raises else trio.lowlevel.checkpoint)

        assert await cycles_left_by(share) == []


async def test_a_reload_leaves_nothing_to_the_garbage_collector(
    autojump_clock: MockClock,
) -> None:
    source = ScriptedReloader([gives("a"), gives("b"), fails(ReloadError("of a test"))] * 20)
    async with open_pool("old") as pool, trio.open_nursery() as nursery:
        await nursery.start(watch_providers, pool, source, ChangeBus().subscribe())

        async def reload() -> None:
            await trio.sleep(1000)

        assert await cycles_left_by(reload) == []
        nursery.cancel_scope.cancel()


async def test_a_cancelled_service_nursery_leaves_nothing_to_the_garbage_collector() -> None:
    async def cancel() -> None:
        with trio.CancelScope() as scope:
            scope.cancel()
            async with open_background_nursery() as nursery:
                nursery.start_soon(trio.sleep_forever)
                await trio.lowlevel.checkpoint()

    # From Python 3.12 on contextlib keeps what was thrown in, if something else comes out.
    cycles = await cycles_left_by(cancel)
    assert [each for each in cycles if "ContextManager.__aexit__" not in each] == []
