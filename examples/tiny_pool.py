"""A pool with a provider type of its own; the providers change while a bridge is in use."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio

from bridgepool import ProviderSnapshot, open_bridge_pool


@attrs.frozen
class Upstream:
    host: str


@asynccontextmanager
async def open_bridge(client: str, snapshot: ProviderSnapshot[Upstream]) -> AsyncGenerator[str]:
    yield f"{client} on {snapshot.providers[0].host}"  # open what you need before, close it after


async def main() -> None:
    async with open_bridge_pool(open_bridge, ProviderSnapshot([Upstream("north")])) as pool:
        async with pool.acquire("ada") as bridge:
            pool.replace_providers(ProviderSnapshot([Upstream("south")]))
            print("a running request:", bridge)
        async with pool.acquire("ada") as bridge:
            print("the next request: ", bridge)


if __name__ == "__main__":
    trio.run(main)
