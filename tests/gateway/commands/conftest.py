from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

import pytest
import trio

from bridgepool.gateway.demo._upstream import SimulatedUpstream, serve_simulated_upstream


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
async def north(nursery: trio.Nursery) -> SimulatedUpstream:
    upstream: SimulatedUpstream = await nursery.start(partial(serve_simulated_upstream, "north"))
    return upstream


@pytest.fixture
async def south(nursery: trio.Nursery) -> SimulatedUpstream:
    upstream: SimulatedUpstream = await nursery.start(partial(serve_simulated_upstream, "south"))
    return upstream
