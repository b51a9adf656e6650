"""Open one bridge for each user; the providers change while a bridge is in use."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import attrs
import trio

from bridgepool import ProviderSnapshot, open_bridge_pool


@attrs.frozen
class Bridge:
    """The state of one user: in your program connections, sessions, tasks."""

    user: str
    upstream: str


@asynccontextmanager
async def open_bridge(user: str, snapshot: ProviderSnapshot[str]) -> AsyncGenerator[Bridge]:
    upstream = snapshot.providers[0]
    print(f"  open   {user}'s bridge to {upstream}")
    yield Bridge(user, upstream)
    print(f"  close  {user}'s bridge to {upstream}")


async def main() -> None:
    async with open_bridge_pool(open_bridge, ProviderSnapshot(["north"])) as pool:
        async with pool.acquire("ada") as bridge:
            print(f"ada's long request begins on {bridge.upstream}")
            pool.replace_providers(ProviderSnapshot(["south"]))
            async with pool.acquire("ada") as newer:
                print(f"her second request begins on {newer.upstream}")
            print(f"the first request still runs on {bridge.upstream}, and now ends")
        await pool.wait_drained(1)
        print("generation 1 is closed")


if __name__ == "__main__":
    trio.run(main)
