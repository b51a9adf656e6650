"""Fixtures: simulated upstreams."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from bridgepool.gateway.demo._upstream import SimulatedUpstream, serve_simulated_upstream


@pytest.fixture
async def north(nursery: trio.Nursery) -> SimulatedUpstream:
    upstream: SimulatedUpstream = await nursery.start(partial(serve_simulated_upstream, "north"))
    return upstream


@pytest.fixture
async def south(nursery: trio.Nursery) -> SimulatedUpstream:
    upstream: SimulatedUpstream = await nursery.start(partial(serve_simulated_upstream, "south"))
    return upstream


@pytest.fixture
async def steady(nursery: trio.Nursery) -> SimulatedUpstream:
    """One that nothing happens to: for the requests of others meanwhile."""
    upstream: SimulatedUpstream = await nursery.start(partial(serve_simulated_upstream, "steady"))
    return upstream
