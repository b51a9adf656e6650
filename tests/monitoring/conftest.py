from __future__ import annotations

from functools import partial

import pytest
import trio

from bridgepool.gateway.demo._upstream import SimulatedUpstream, serve_simulated_upstream


@pytest.fixture
async def north(nursery: trio.Nursery) -> SimulatedUpstream:
    upstream: SimulatedUpstream = await nursery.start(partial(serve_simulated_upstream, "north"))
    return upstream
