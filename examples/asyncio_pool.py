"""A pool in an asyncio program: `asyncio_pool.py thread` or `asyncio_pool.py guest`.

Trio runs in a thread of its own, or as a guest in asyncio's thread. The rest is the same."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeVar

import outcome
import trio

from bridgepool import CachedBridgePool, ProviderSnapshot, open_bridge_pool

T = TypeVar("T")


@asynccontextmanager
async def open_bridge(client: str, snapshot: ProviderSnapshot[str]) -> AsyncGenerator[str]:
    yield f"{client} by {snapshot.providers[0]}"


class TrioSide:
    """A Trio run with a pool in it, seen from asyncio."""

    pool: CachedBridgePool[str, str, str]

    def __init__(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self.loop.create_future()
        self.ended: asyncio.Future[outcome.Outcome[None]] = self.loop.create_future()

    async def main(self) -> None:
        """Hold the pool open until `stop`. Runs on Trio."""
        snapshot = ProviderSnapshot(["north"])
        async with (
            open_bridge_pool(open_bridge, snapshot) as self.pool,
            trio.open_nursery() as self.nursery,
        ):
            self.token = trio.lowlevel.current_trio_token()
            self.loop.call_soon_threadsafe(self.ready.set_result, None)
            await trio.sleep_forever()

    def run_in_thread(self) -> None:
        """Start Trio in a thread of its own."""

        def run() -> None:
            ended = outcome.capture(trio.run, self.main)
            self.loop.call_soon_threadsafe(self.ended.set_result, ended)

        threading.Thread(target=run, daemon=True).start()

    def run_as_guest(self) -> None:
        """Start Trio in this thread, driven by asyncio's loop."""
        trio.lowlevel.start_guest_run(
            self.main,
            run_sync_soon_threadsafe=self.loop.call_soon_threadsafe,
            done_callback=self.ended.set_result,
            host_uses_signal_set_wakeup_fd=True,
        )

    async def call(self, function: Callable[[], Awaitable[T]]) -> T:
        """Run `function` on Trio and wait for it on asyncio, which may cancel it."""
        answer: asyncio.Future[outcome.Outcome[T]] = self.loop.create_future()
        scope = trio.CancelScope()

        def deliver(result: outcome.Outcome[T]) -> None:
            if not answer.done():
                answer.set_result(result)

        async def run() -> None:
            result: outcome.Outcome[T] = outcome.Error(RuntimeError("the Trio run has ended"))
            try:
                with scope:
                    result = outcome.Value(await function())
            except Exception as error:
                result = outcome.Error(error)
            finally:
                self.loop.call_soon_threadsafe(deliver, result)

        self.token.run_sync_soon(self.nursery.start_soon, run)
        try:
            return (await answer).unwrap()
        except asyncio.CancelledError:
            self.token.run_sync_soon(scope.cancel)
            raise

    async def stop(self) -> None:
        """Close the pool, and wait until Trio has ended."""
        self.token.run_sync_soon(self.nursery.cancel_scope.cancel)
        (await self.ended).unwrap()


async def main(way: str) -> None:
    side = TrioSide()
    if way == "guest":
        side.run_as_guest()
    else:
        side.run_in_thread()
    await side.ready

    async def ask() -> str:
        async with side.pool.acquire("ada") as bridge:  # do all of the work in here
            return bridge

    print(await side.call(ask))
    side.token.run_sync_soon(side.pool.replace_providers, ProviderSnapshot(["south"]))
    print(await side.call(ask))
    try:
        await asyncio.wait_for(side.call(trio.sleep_forever), timeout=0.1)
    except TimeoutError:
        print("cancelled")
    began, times = time.perf_counter(), 500
    for _ in range(times):
        await side.call(ask)
    print(f"{(time.perf_counter() - began) / times * 1e6:.0f} us a call")
    await side.stop()


asyncio.run(main(sys.argv[1]))
