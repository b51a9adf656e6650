"""Types that a checker finds without a hint from the user; for `make types`, never run.

A `type: ignore` here says that the line is wrong and must be found so: one that is not needed is
an error itself.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import assert_type

import trio

from bridgepool import (
    CachedBridgePool,
    Lease,
    NowaitLease,
    ProviderSnapshot,
    Replacement,
    ShortLived,
    open_bridge_pool,
    open_singleflight,
)


class Upstream:
    """A provider."""


class Session:
    """A bridge."""

    async def handle(self, text: str) -> bytes:
        return text.encode()


@asynccontextmanager
async def open_session(key: str, snapshot: ProviderSnapshot[Upstream]) -> AsyncIterator[Session]:
    assert_type(snapshot.providers, tuple[Upstream, ...])
    yield Session()


@asynccontextmanager
async def open_degraded(
    key: tuple[str, int], snapshot: ProviderSnapshot[Upstream]
) -> AsyncIterator[Session | ShortLived[Session]]:
    session = Session()
    yield session if snapshot.providers else ShortLived(session, ttl=5.0)


async def use_a_pool() -> None:
    snapshot = ProviderSnapshot([Upstream()])
    assert_type(snapshot, ProviderSnapshot[Upstream])
    async with open_bridge_pool(open_session, snapshot, max_items=10) as pool:
        assert_type(pool, CachedBridgePool[str, Upstream, Session])
        lease = pool.acquire("client")
        assert_type(lease, Lease[str, Upstream, Session])
        async with lease as session:
            assert_type(session, Session)
            assert_type(await session.handle("hello"), bytes)
        at_once = pool.acquire_nowait("client")
        assert_type(at_once, NowaitLease[str, Upstream, Session])
        with at_once as session_at_once:
            assert_type(session_at_once, Session)
        assert_type(pool.replace_providers(snapshot), Replacement)
        assert_type(pool.snapshot, ProviderSnapshot[Upstream])
        assert_type(lease.generation, int)
        assert_type(lease.is_retired, bool)
        pool.acquire(7)  # type: ignore[arg-type]  # a key of another type
        pool.replace_providers(ProviderSnapshot(["text"]))  # type: ignore[list-item]  # no Upstream
        with pool.acquire("client"):  # type: ignore[attr-defined]  # it needs `async with`
            pass


async def use_a_pool_of_short_lived_bridges() -> None:
    snapshot = ProviderSnapshot([Upstream()])
    async with open_bridge_pool(open_degraded, snapshot) as pool:
        lease = pool.acquire(("client", 1))
        async with lease as session:
            assert_type(session, Session)


def count(snapshot: ProviderSnapshot[object]) -> int:
    return len(snapshot.providers)


def snapshots_are_covariant(snapshot: ProviderSnapshot[Upstream]) -> None:
    assert_type(count(snapshot), int)
    snapshot.older_than(ProviderSnapshot(["text"], 1))


async def make() -> int:
    await trio.lowlevel.checkpoint()
    return 7


async def use_a_singleflight() -> None:
    async with open_singleflight() as flights:
        assert_type(await flights.do("key", 1, make), int)
