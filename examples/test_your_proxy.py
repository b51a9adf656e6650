"""Tests of code that uses a pool, with builds that end when the test says so."""

import trio
from trio.testing import wait_all_tasks_blocked

from bridgepool import BuildError, CachedBridgePool, ProviderSnapshot, open_bridge_pool
from bridgepool.testing import BridgeFactory, ScriptedBuild

Pool = CachedBridgePool[str, int, ScriptedBuild]


async def serve(pool: Pool, user: str, said: list[str]) -> None:
    """Stand in for the code under test: it says sorry when there is no bridge."""
    try:
        async with pool.acquire(user) as bridge:
            said.append(f"served by the bridge of {bridge.key}")
    except BuildError:
        said.append("sorry, come back later")


def test_users_are_told_when_their_bridge_cannot_be_built() -> None:
    async def main() -> None:
        bridges, said = BridgeFactory(), list[str]()
        snapshot = ProviderSnapshot([1])
        async with (
            open_bridge_pool(bridges.open_bridge, snapshot) as pool,
            trio.open_nursery() as nursery,
        ):
            for _ in range(2):
                nursery.start_soon(serve, pool, "ada", said)
            await wait_all_tasks_blocked()  # both wait for one build
            bridges.builds[0].fail()
            await wait_all_tasks_blocked()
            nursery.start_soon(serve, pool, "ada", said)
            await wait_all_tasks_blocked()
            bridges.builds[1].succeed()
        sorry = "sorry, come back later"
        assert said == [sorry, sorry, "served by the bridge of ada"]  # noqa: S101 -- a test

    trio.run(main)
