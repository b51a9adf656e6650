"""A TCP proxy whose upstreams change while connections run: `embed_pool.py PORT FILE`.

FILE has one HOST:PORT per line; send SIGHUP when you have changed it."""

import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path

import trio

from bridgepool import BridgePoolError, CachedBridgePool, ProviderSnapshot, open_bridge_pool

Upstream = tuple[str, int]


def read(path: Path) -> ProviderSnapshot[Upstream]:
    rows = (line.rpartition(":") for line in path.read_text().split())
    return ProviderSnapshot([(host, int(port)) for host, _, port in rows])


@asynccontextmanager
async def open_bridge(key: str, snapshot: ProviderSnapshot[Upstream]) -> AsyncGenerator[Upstream]:
    # This bridge is only the client's upstream. Yours opens more: sessions, tasks.
    yield snapshot.providers[hash(key) % len(snapshot.providers)]


async def pump(source: trio.SocketStream, sink: trio.SocketStream) -> None:
    async for data in source:
        await sink.send_all(data)
    await sink.send_eof()


async def proxy(pool: CachedBridgePool[str, Upstream, Upstream], client: trio.SocketStream) -> None:
    try:
        async with (
            pool.acquire(client.socket.getpeername()[0]) as upstream,
            await trio.open_tcp_stream(*upstream) as server,
            trio.open_nursery() as both,
        ):
            both.start_soon(pump, client, server)
            both.start_soon(pump, server, client)
    except* (OSError, trio.BrokenResourceError, BridgePoolError) as lost:
        print("connection lost:", *lost.exceptions, flush=True)


async def main(port: int, path: Path) -> None:
    async with open_bridge_pool(open_bridge, read(path)) as pool, trio.open_nursery() as nursery:
        with trio.open_signal_receiver(signal.SIGHUP) as edits:
            listeners = await nursery.start(trio.serve_tcp, partial(proxy, pool), port)
            print(f"listening on port {listeners[0].socket.getsockname()[1]}", flush=True)
            async for _ in edits:
                with suppress(OSError, ValueError):  # an invalid edit changes nothing
                    print(pool.replace_providers(read(path)).outcome.value, flush=True)


trio.run(main, int(sys.argv[1]), Path(sys.argv[2]))
