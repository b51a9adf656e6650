"""The gateway's bridge: one client key's access to the providers of one snapshot."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

import attrs
import trio

from bridgepool.gateway.proxy._provider_runtime import ProviderRuntime
from bridgepool.gateway.proxy._refusals import DRAIN_DEADLINE, SHUTTING_DOWN, Refusal
from bridgepool.gateway.proxy._runtimes import Runtimes, RuntimeTable, Snapshot, UnavailableProvider
from bridgepool.http import Exchange


class BridgeKey(NamedTuple):
    """The key of a bridge: a client and one of its keys.

    A plain tuple, since each request hashes and compares it several times.
    """

    client_id: str
    """The client's id."""
    key_id: str
    """The id of its key."""


ANONYMOUS = BridgeKey("-", "-")
"""The only key of a gateway without clients."""


@attrs.define(eq=False)
class Bridge:
    """One client key's access to the providers of one generation. Made by `open_bridge`."""

    key: BridgeKey
    _table: RuntimeTable
    built: tuple[float, float]
    """`time.perf_counter()` when its build began and ended."""
    _requests: set[Exchange] = attrs.field(factory=set)
    _idle: trio.Event | None = None  # made by the close, set by the last request
    closing: bool = False
    """The bridge is closing: requests that are still running are cancelled."""

    async def route(self, name: str) -> ProviderRuntime | UnavailableProvider | None:
        """Return the runtime of that provider; None if there is no provider of that name."""
        return await self._table.use(name)

    @property
    def provider_names(self) -> tuple[str, ...]:
        """The names of the providers, in their order."""
        return tuple(provider.name for provider in self._table.snapshot.providers)

    def why_cancelled(self) -> Refusal:
        """Return why requests are cancelled now: at the drain deadline, or by the shutdown."""
        return DRAIN_DEADLINE if self.closing else SHUTTING_DOWN

    def enter(self, exchange: Exchange) -> None:
        """Register a request; it is cancelled if the bridge has to close before its end."""
        self._requests.add(exchange)
        if self.closing:
            exchange.cancel()

    def leave(self, exchange: Exchange) -> None:
        """Unregister a request."""
        self._requests.discard(exchange)
        if self._idle is not None and not self._requests:
            self._idle.set()

    async def _end_requests(self) -> None:
        """Cancel running requests: the drain deadline has passed, or the pool closes."""
        self.closing = True
        if not self._requests:
            return
        self._idle = trio.Event()
        for exchange in self._requests:
            exchange.cancel()
        await self._idle.wait()  # the pool's close_timeout bounds it


@asynccontextmanager
async def open_bridge(
    key: BridgeKey, snapshot: Snapshot, runtimes: Runtimes
) -> AsyncIterator[Bridge]:
    """Open a bridge: lease the snapshot's runtime table.

    Leaving cancels the requests that are still running on it, and returns the table.
    """
    begun = time.perf_counter()
    table = runtimes.take(snapshot)
    try:
        await table.wait_opened()
        bridge = Bridge(key, table, (begun, time.perf_counter()))
        try:
            yield bridge
        finally:
            await bridge._end_requests()  # noqa: ASYNC102 -- the pool shields and bounds a close
    finally:
        runtimes.release(table)
