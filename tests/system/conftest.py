"""What the tests of whole systems share: both engines, and simulated upstreams."""

from __future__ import annotations

from functools import partial

import pytest
import trio

from bridgepool.gateway.demo._upstream import SimulatedUpstream, serve_simulated_upstream
from tests.gateway.control.conftest import database_url
from tests.postgres import own_postgres_server, postgres_server

__all__ = ["database_url", "own_postgres_server", "postgres_server"]


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
