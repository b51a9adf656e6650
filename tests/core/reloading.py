"""A pool to reload, and a reloader that follows a script."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import attrs
import trio

from bridgepool import (
    CachedBridgePool,
    ProviderSnapshot,
    ReloadStatus,
    open_bridge_pool,
)
from bridgepool._changes import ChangeBus
from bridgepool._reload import watch_providers

Snapshot = ProviderSnapshot[str]
Pool = CachedBridgePool[str, str, str]


@asynccontextmanager
async def open_bridge(key: str, snapshot: Snapshot) -> AsyncIterator[str]:
    yield f"{key} on {snapshot.providers}"


@asynccontextmanager
async def open_pool(*providers: str, revision: int | None = None) -> AsyncIterator[Pool]:
    async with open_bridge_pool(open_bridge, Snapshot(providers, revision)) as pool:
        yield pool


@attrs.define(eq=False)
class ScriptedReloader:
    """Answers each reload by the next step of a script; the last one goes on for ever."""

    script: list[Callable[[], Snapshot]]
    times: list[float] = attrs.field(factory=list)
    seconds: float = 0.0

    async def reload(self) -> Snapshot:
        self.times.append(trio.current_time())
        step = self.script[min(len(self.times), len(self.script)) - 1]
        await trio.sleep(self.seconds)
        return step()


@asynccontextmanager
async def watched(
    reloader: ScriptedReloader, **options: Any
) -> AsyncIterator[tuple[Pool, ChangeBus, ReloadStatus]]:
    """Keep a pool of the provider "a" up to date for the block, by the notices of a bus."""
    bus = ChangeBus()
    async with open_pool("a") as pool, trio.open_nursery() as nursery:
        watch = partial(watch_providers, **options)
        yield pool, bus, await nursery.start(watch, pool, reloader, bus.subscribe())
        nursery.cancel_scope.cancel()


def gives(*providers: str, revision: int | None = None) -> Callable[[], Snapshot]:
    return lambda: Snapshot(providers, revision)


def fails(error: Exception) -> Callable[[], Snapshot]:
    def step() -> Snapshot:
        raise error

    return step


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]
