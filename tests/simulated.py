"""Simulated upstreams as fixtures, and a gate for their streams."""

import pytest
import trio

from bridgepool.gateway.demo._upstream import SimulatedUpstream
from tests.gateway.proxy.rig import start_upstream


class Gate:
    """Lets an upstream say its words up to one, and the others when it is opened."""

    def __init__(self, upstream: SimulatedUpstream, at: int = 2) -> None:
        self.at = at
        self.reached = trio.Event()
        self.opened = trio.Event()
        upstream.before_word = self.before_word

    async def before_word(self, number: int) -> None:
        if number == self.at:
            self.reached.set()
            await self.opened.wait()


@pytest.fixture
async def north(nursery: trio.Nursery) -> SimulatedUpstream:
    return await start_upstream(nursery)


@pytest.fixture
async def south(nursery: trio.Nursery) -> SimulatedUpstream:
    return await start_upstream(nursery, "south")


@pytest.fixture
async def steady(nursery: trio.Nursery) -> SimulatedUpstream:
    """One that nothing happens to: for the requests of others meanwhile."""
    return await start_upstream(nursery, "steady")
