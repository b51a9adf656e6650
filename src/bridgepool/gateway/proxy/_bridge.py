"""The gateway's bridge: what one client's key has open, built from one snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs
import trio

from bridgepool.gateway.proxy._provider_runtime import ProviderRuntime
from bridgepool.gateway.proxy._runtimes import (
    Runtimes,
    RuntimeTable,
    Snapshot,
    UnavailableProvider,
)
from bridgepool.http import Exchange


@attrs.frozen
class BridgeKey:
    """Who a bridge is for."""

    client_id: str
    key_id: str


ANONYMOUS = BridgeKey("-", "-")
"""The one key of a gateway without clients."""


@attrs.define(eq=False)
class Bridge:
    """One client key's way to the providers of one generation. Made by `open_bridge`."""

    key: BridgeKey
    _table: RuntimeTable
    _requests: set[Exchange] = attrs.field(factory=set)
    _idle: trio.Event | None = None  # wanted by the close; set by the last request
    closing: bool = False
    """The bridge is being closed: requests that are still running are ended."""

    async def route(self, name: str) -> ProviderRuntime | UnavailableProvider | None:
        """Return what serves that provider; None if there is none of that name."""
        return await self._table.use(name)

    def enter(self, exchange: Exchange) -> None:
        """Count a request in; it is cancelled if the bridge has to close first."""
        self._requests.add(exchange)
        if self.closing:
            exchange.cancel()

    def leave(self, exchange: Exchange) -> None:
        """Count a request out."""
        self._requests.discard(exchange)
        if self._idle is not None and not self._requests:
            self._idle.set()

    async def _end_requests(self) -> None:
        """End what is still running: the drain deadline has passed, or all ends."""
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
    """Open a bridge: take the snapshot's route table and wait until those are open that were begun.

    Leaving ends the requests that are still running on it, and gives the table back.
    """
    table = runtimes.take(snapshot)
    try:
        await table.wait_opened()
        bridge = Bridge(key, table)
        try:
            yield bridge
        finally:
            await bridge._end_requests()  # noqa: ASYNC102  # the pool shields and bounds a close
    finally:
        runtimes.release(table)
