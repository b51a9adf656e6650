"""A pool of your own that follows a control plane and acknowledges each revision.

python follow_control_plane.py ws://127.0.0.1:8181 gateway.key
"""

import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import trio

from bridgepool import (
    CachedBridgePool,
    ProviderSnapshot,
    Replacement,
    ReplaceOutcome,
    Secret,
    open_bridge_pool,
    watch_providers,
)
from bridgepool.gateway import provider_rows
from bridgepool.gateway.providers import Provider
from bridgepool.remote import RemoteProviders, open_remote_providers, websocket_connector

Bridge = dict[str, str]
Pool = CachedBridgePool[str, Provider, Bridge]


@asynccontextmanager
async def open_bridge(user: str, providers: ProviderSnapshot[Provider]) -> AsyncGenerator[Bridge]:
    """Yield the base URLs; in your program, the connections and sessions of one user."""
    yield {row.name: str(row.base_url) for row in providers.providers if row.enabled}


@attrs.frozen
class Acknowledging:
    """A pool that sends a receipt for each revision in force."""

    pool: Pool
    remote: RemoteProviders[Provider]

    def replace_providers(self, snapshot: ProviderSnapshot[Provider]) -> Replacement:
        """Put providers in force, and acknowledge them."""
        replacement = self.pool.replace_providers(snapshot)
        good = replacement.outcome in (ReplaceOutcome.APPLIED, ReplaceOutcome.UNCHANGED)
        if good and snapshot.revision is not None:
            self.remote.acknowledge(snapshot.revision, self.remote.rejected)
        return replacement


async def main(url: str, key: Secret) -> None:
    connect = websocket_connector(url, key)
    async with (
        open_remote_providers(connect, provider_rows(), name="follower") as remote,
        open_bridge_pool(open_bridge, ProviderSnapshot[Provider](())) as pool,
        trio.open_nursery() as nursery,
    ):
        await nursery.start(watch_providers, Acknowledging(pool, remote), remote, remote.changes)
        while True:
            async with pool.acquire("ada") as bridge:
                print("serving", ", ".join(f"{k} at {v}" for k, v in bridge.items()), flush=True)
            await pool.wait_drained(pool.generation)  # until the next change is in force


if __name__ == "__main__":
    try:
        trio.run(main, sys.argv[1], Secret(Path(sys.argv[2]).read_text().strip()))
    except* KeyboardInterrupt:
        print("stopped")
