"""A pool to reload, and a reloader that follows a script."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from itertools import pairwise

import attrs
import trio

from bridgepool import (
    CachedBridgePool,
    ProviderSnapshot,
    open_bridge_pool,
)

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


def gives(*providers: str, revision: int | None = None) -> Callable[[], Snapshot]:
    return lambda: Snapshot(providers, revision)


def fails(error: Exception) -> Callable[[], Snapshot]:
    def step() -> Snapshot:
        raise error

    return step


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times)]
