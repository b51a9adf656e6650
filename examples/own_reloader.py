"""A reloader of your own: the list of upstreams is a file, `own_reloader.py FILE`.

FILE has one HOST:PORT per line, and is read every second."""

import logging
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from bridgepool import ProviderSnapshot, ReloadError, open_bridge_pool, watch_providers


@attrs.frozen
class FileReloader:
    """A `ProviderReloader[str]`."""

    path: trio.Path

    async def reload(self) -> ProviderSnapshot[str]:
        """Read the file once. If it cannot be used, the upstreams in force stay."""
        try:
            upstreams = (await self.path.read_text()).split()
        except (OSError, ValueError) as error:
            raise ReloadError(f"the list of upstreams cannot be read: {error}") from error
        if not upstreams:
            raise ReloadError("the list of upstreams is empty")
        for upstream in upstreams:
            if ":" not in upstream:
                raise ReloadError(f"the list of upstreams has {upstream!r}, which is not HOST:PORT")
        return ProviderSnapshot(upstreams)


@asynccontextmanager
async def open_bridge(_: str, snapshot: ProviderSnapshot[str]) -> AsyncGenerator[str]:
    yield ", ".join(snapshot.providers)  # your program opens its connections here


async def main(path: str) -> None:
    async with (
        open_bridge_pool(open_bridge, ProviderSnapshot[str]([])) as pool,
        trio.open_nursery() as nursery,
    ):
        # `start` returns when the file has been read for the first time.
        watch = partial(watch_providers, poll_interval=1)
        await nursery.start(watch, pool, FileReloader(trio.Path(path)))
        while True:
            lease = pool.acquire("ada")
            async with lease as bridge:
                print(bridge, flush=True)
                await lease.wait_retired()  # until other upstreams are in force


if __name__ == "__main__":
    logging.basicConfig()  # shows why a reload failed
    trio.run(main, sys.argv[1])
