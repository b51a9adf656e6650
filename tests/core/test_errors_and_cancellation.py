"""What comes out of a block whose body raised while the block was cancelled as well."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import trio
from trio.testing import MockClock

from bridgepool import ProviderSnapshot, open_bridge_pool

Snapshot = ProviderSnapshot[str]


@asynccontextmanager
async def open_slow_bridge(key: str, snapshot: Snapshot) -> AsyncIterator[str]:
    yield key
    await trio.sleep(1)


async def test_what_the_body_raised_is_not_lost_to_a_cancellation(
    autojump_clock: MockClock,
) -> None:
    """Promise 15: the body's own exception comes out unchanged, though closing had to wait."""
    scope = trio.CancelScope()
    with scope, pytest.raises(ValueError, match="the body's own"):  # noqa: PT012 -- one block
        async with open_bridge_pool(open_slow_bridge, Snapshot(["a"])) as pool:
            async with pool.acquire("k"):
                scope.cancel()
            raise ValueError("the body's own")
    assert trio.current_time() == 1, "the close was not cut short"


async def test_a_block_that_is_cancelled_while_it_closes_raises_cancelled(
    autojump_clock: MockClock,
) -> None:
    went_on = False
    with trio.CancelScope() as scope:
        async with open_bridge_pool(open_slow_bridge, Snapshot(["a"])) as pool:
            async with pool.acquire("k"):
                pass
            scope.cancel()
        went_on = True
    assert not went_on
    assert scope.cancelled_caught
