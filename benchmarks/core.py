"""What the pool costs: hits, misses, waiters, replacements, memory.

Times are CPU seconds of this process, so that other work on a shared machine does not count;
each figure and its floor are measured in turn, round after round. The collector is off inside
a sample, as in `timeit`, and runs between samples.
"""

import contextlib
import gc
import time
import tracemalloc
from collections.abc import AsyncIterator, Awaitable, Callable

import attrs
import trio

import bridgepool
from benchmarks.table import Row, row

_ROUNDS = 31
_TICK = "checkpoint + dict look-up"
_SPAWN = "a task in a scope that wakes its caller"


@attrs.frozen
class Bridge:
    """The least that a bridge can be: what it costs beyond this is the pool's."""

    key: int


@contextlib.asynccontextmanager
async def open_bridge(
    key: int, snapshot: bridgepool.ProviderSnapshot[int]
) -> AsyncIterator[Bridge]:
    """Build a bridge that costs nothing."""
    yield Bridge(key)


Pool = bridgepool.CachedBridgePool[int, int, Bridge]
Sample = Callable[[], Awaitable[None]]


def open_pool() -> contextlib.AbstractAsyncContextManager[Pool]:
    """Open a pool that never evicts."""
    return bridgepool.open_bridge_pool(
        open_bridge, bridgepool.ProviderSnapshot([0]), max_items=100_000
    )


async def timed(sample: Sample, count: int) -> float:
    """Return the microseconds of CPU that `sample` took for each of its `count` operations."""
    gc.collect()
    gc.disable()
    try:
        begun = time.process_time()
        await sample()
        return (time.process_time() - begun) / count * 1e6
    finally:
        gc.enable()


async def interleaved(samples: dict[str, Sample], count: int) -> dict[str, list[float]]:
    """Time each sample once a round, in turn."""
    times: dict[str, list[float]] = {name: [] for name in samples}
    for _ in range(_ROUNDS):
        for name, sample in samples.items():
            times[name].append(await timed(sample, count))
    return times


async def replace(pool: Pool) -> None:
    """Put other providers in force, and wait until what was built before is closed."""
    pool.replace_providers(bridgepool.ProviderSnapshot([pool.generation]))
    await pool.wait_drained(pool.generation - 1)


async def hits(pool: Pool) -> list[Row]:
    """Time a hit, waiting and not."""
    n, table = 3000, {1: 1}

    async def look_up(key: int) -> int:
        return table[key]

    async def tick() -> None:
        for _ in range(n):
            await trio.lowlevel.checkpoint()
            table[1]

    async def hit() -> None:
        for _ in range(n):
            async with pool.acquire(1):
                pass

    async def plain() -> None:
        for _ in range(n):
            await look_up(1)

    async def nowait() -> None:
        for _ in range(n):
            with pool.acquire_nowait(1):
                pass

    async with pool.acquire(1):
        pass
    samples: dict[str, Sample] = {"tick": tick, "hit": hit, "plain": plain, "nowait": nowait}
    t = await interleaved(samples, n)
    return [
        row(_TICK, t["tick"], "us"),
        row("a hit", t["hit"], "us", base=t["tick"], to=_TICK, target="<= 1.35 x", in_turn=True),
        row("async dict look-up", t["plain"], "us"),
        row(
            "acquire_nowait", t["nowait"], "us",
            base=t["plain"], to="async dict look-up", target="<= 7 x", in_turn=True,
        ),
    ]  # fmt: skip


async def misses(pool: Pool) -> list[Row]:
    """Time a miss over the build itself."""
    n, table = 1000, {1: 1}
    snapshot = bridgepool.ProviderSnapshot([0])

    async def tick() -> None:
        for _ in range(n):
            await trio.lowlevel.checkpoint()
            table[1]

    async def build() -> None:
        for key in range(n):
            async with open_bridge(key, snapshot):
                pass

    async def miss() -> None:
        for key in range(n):
            async with pool.acquire(key):
                pass

    async def own(caller: trio.lowlevel.Task) -> None:
        with trio.CancelScope(shield=True) as scope:
            scopes.append(scope)
            trio.lowlevel.reschedule(caller)
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.SUCCEEDED)

    async def spawn() -> None:
        caller = trio.lowlevel.current_task()
        for _ in range(n):
            nursery.start_soon(own, caller)
            await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)

    ticks: list[float] = []
    floor: list[float] = []
    extra: list[float] = []
    scopes: list[trio.CancelScope] = []
    for _ in range(_ROUNDS):
        await replace(pool)
        ticks.append(await timed(tick, n))
        async with trio.open_nursery() as nursery:
            floor.append(await timed(spawn, n))
            while scopes:
                scopes.pop().cancel()
        bare = await timed(build, n)
        extra.append(await timed(miss, n) - bare)
    return [
        row(_SPAWN, floor, "us", base=ticks, to=_TICK, in_turn=True),
        row(
            "a miss over its build", extra, "us",
            base=floor, to=_SPAWN, target="<= 2.5 x", in_turn=True,
        ),
    ]  # fmt: skip


async def waiters(pool: Pool) -> list[Row]:
    """Time callers that share one build against tasks that take one checkpoint."""
    rows = []
    for n, rounds in ((1, _ROUNDS), (100, 4 * _ROUNDS), (10_000, 15)):
        async with bridgepool.open_singleflight() as flights:

            async def make() -> int:
                return 1

            async def tick() -> None:
                await trio.lowlevel.checkpoint()

            async def join() -> None:
                await flights.do(1, pool.generation, make)

            async def lease() -> None:
                async with pool.acquire(2):
                    pass

            async def crowd(one: Callable[[], Awaitable[object]], n: int = n) -> None:
                async with trio.open_nursery() as nursery:
                    for _ in range(n):
                        nursery.start_soon(one)

            times: dict[str, list[float]] = {"tick": [], "join": [], "lease": []}
            for _ in range(rounds):
                await replace(pool)
                times["tick"].append(await timed(lambda: crowd(tick), n))
                times["join"].append(await timed(lambda: crowd(join), n))
                times["lease"].append(await timed(lambda: crowd(lease), n))
        to, target = f"{n:,} tasks, a checkpoint each", "<= 1.35 x" if n > 1 else ""
        base = times["tick"]
        for name, where in (("join", "a flight"), ("lease", "the pool")):
            title = f"a waiter of {n:,} in {where}"
            rows.append(
                row(title, times[name], "us", base=base, to=to, target=target, in_turn=True)
            )
    return rows


async def longest_stall(act: Callable[[], Awaitable[None]]) -> float:
    """Return for how many milliseconds of CPU another task was held up while `act` ran."""
    worst = 0.0

    async def bystander() -> None:
        nonlocal worst
        last = time.process_time()
        while True:
            await trio.lowlevel.checkpoint()
            now = time.process_time()
            worst, last = max(worst, now - last), now

    async with trio.open_nursery() as nursery:
        nursery.start_soon(bystander)
        await trio.lowlevel.checkpoint()
        await act()
        nursery.cancel_scope.cancel()
    return worst * 1e3


async def replacements() -> list[Row]:
    """Time the call with few and many bridges, and see how long others are held up.

    There are always as many bridges, in this pool or another, and an empty pool is replaced just
    before, so that the processor's caches are alike for few bridges and for many.
    """
    rows, few = [], [0.0]
    for n in (5, 0, 100, 5000):
        calls: list[float] = []
        stalls: list[float] = []
        async with open_pool() as pool, open_pool() as other, open_pool() as empty:

            async def drain(pool: Pool = pool) -> None:
                await pool.wait_drained(pool.generation - 1)

            for _ in range(11):
                for key in range(5000 - n):
                    async with other.acquire(key):
                        pass
                for key in range(n):
                    async with pool.acquire(key):
                        pass
                for _ in range(3):
                    await replace(empty)
                snapshot = bridgepool.ProviderSnapshot([pool.generation])
                begun = time.process_time()
                pool.replace_providers(snapshot)
                calls.append((time.process_time() - begun) * 1e6)
                stalls.append(await longest_stall(drain))
                await replace(other)
        if n == 5:
            few = calls
        to = "the same with 5 bridges"
        rows.append(row(f"replace_providers, {n:,} bridges", calls, "us", base=few, to=to))
        rows.append(row(f"longest stall after it, {n:,} bridges", stalls, "ms", target="<= 5 ms"))
    return rows


async def memory() -> list[Row]:
    """Weigh an idle bridge over what it weighs by itself."""
    n = 5000
    snapshot = bridgepool.ProviderSnapshot([0])

    async def weigh_alone() -> float:
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        opened = [open_bridge(key, snapshot) for key in range(n)]
        for manager in opened:
            await manager.__aenter__()
        after = tracemalloc.get_traced_memory()[0]
        for manager in opened:
            await manager.__aexit__(None, None, None)
        tracemalloc.stop()
        return (after - before) / n

    async def weigh_pooled() -> float:
        async with open_pool() as pool:
            tracemalloc.start()
            before = tracemalloc.get_traced_memory()[0]
            for key in range(n):
                async with pool.acquire(key):
                    pass
            gc.collect()
            after = tracemalloc.get_traced_memory()[0]
            tracemalloc.stop()
        return (after - before) / n

    extra = [(await weigh_pooled() - await weigh_alone()) / 1000 for _ in range(3)]
    return [row("an idle bridge over its own state", extra, "kB", target="<= 6 kB")]


def run() -> list[Row]:
    """Measure all of it."""

    async def main() -> list[Row]:
        async with open_pool() as pool:
            rows = await hits(pool) + await misses(pool) + await waiters(pool)
        return rows + await replacements() + await memory()

    return trio.run(main)
