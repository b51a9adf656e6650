"""Follow a source of providers, and serve many concurrent requests."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import trio

from bridgepool import (
    CachedBridgePool,
    MemoryReloader,
    ProviderSnapshot,
    open_bridge_pool,
    watch_providers,
)

Pool = CachedBridgePool[str, str, str]


@asynccontextmanager
async def open_bridge(user: str, snapshot: ProviderSnapshot[str]) -> AsyncGenerator[str]:
    print(f"  build for {user} from {', '.join(snapshot.providers)}")
    await trio.sleep(0.1)  # a slow build
    yield f"{user}@{snapshot.providers[0]}"


async def ask(pool: Pool, user: str, answers: list[str]) -> None:
    async with pool.acquire(user) as bridge:
        answers.append(bridge)


async def stream(pool: Pool, user: str, begun: trio.Event) -> None:
    lease = pool.acquire(user)
    async with lease as bridge:
        begun.set()
        await lease.wait_retired()
        print(f"{bridge} is retired, and stays open for this request")


async def main() -> None:
    source = MemoryReloader(ProviderSnapshot(["north"]))
    changes = source.subscribe()
    async with (
        open_bridge_pool(open_bridge, source.snapshot) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(watch_providers, pool, source, changes)

        answers: list[str] = []
        async with trio.open_nursery() as requests:
            for _ in range(100):
                requests.start_soon(ask, pool, "ada", answers)
        print(f"{len(answers)} requests, {len(set(answers))} bridge")

        begun = trio.Event()
        nursery.start_soon(stream, pool, "ada", begun)
        await begun.wait()
        source.replace(ProviderSnapshot(["south"]))  # from anywhere in this Trio run
        await pool.wait_drained(1)
        await ask(pool, "ada", answers)
        print(f"the next request uses {answers[-1]}")
        nursery.cancel_scope.cancel()  # the watcher runs until it is cancelled


if __name__ == "__main__":
    trio.run(main)
