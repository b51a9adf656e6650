"""Tests of code that uses a pool; the test decides when each build ends."""

import trio
from trio.testing import wait_all_tasks_blocked

from bridgepool import BuildError, CachedBridgePool, ProviderSnapshot, open_bridge_pool
from bridgepool.testing import BridgeFactory, ScriptedBuild

Pool = CachedBridgePool[str, int, ScriptedBuild]


async def serve(pool: Pool, user: str, answers: list[str]) -> None:
    """The code under test: it apologises when there is no bridge."""
    try:
        async with pool.acquire(user) as bridge:
            answers.append(f"served by the bridge of {bridge.key}")
    except BuildError:
        answers.append("sorry, come back later")


def test_users_get_an_apology_when_their_bridge_cannot_be_built() -> None:
    async def main() -> None:
        bridges, answers = BridgeFactory(), list[str]()
        snapshot = ProviderSnapshot([1])
        async with (
            open_bridge_pool(bridges.open_bridge, snapshot) as pool,
            trio.open_nursery() as nursery,
        ):
            for _ in range(2):
                nursery.start_soon(serve, pool, "ada", answers)
            await wait_all_tasks_blocked()  # both wait for one build
            bridges.builds[0].fail()
            await wait_all_tasks_blocked()
            nursery.start_soon(serve, pool, "ada", answers)
            await wait_all_tasks_blocked()
            bridges.builds[1].succeed()
        sorry = "sorry, come back later"
        assert answers == [sorry, sorry, "served by the bridge of ada"]  # noqa: S101 -- a test

    trio.run(main)
