"""Putting a gateway together: the pool, the runtimes, and the watcher of the providers."""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from bridgepool import (
    CachedBridgePool,
    ProviderReloader,
    ProviderSnapshot,
    ReloadStatus,
    Replacement,
    open_bridge_pool,
    watch_providers,
)
from bridgepool._services import open_service_nursery
from bridgepool.gateway.access_log import AccessLog
from bridgepool.gateway.app import Gateway
from bridgepool.gateway.bridge import Bridge, BridgeKey, open_bridge
from bridgepool.gateway.dialing import dial_provider
from bridgepool.gateway.runtime import ProviderRuntime, Runtimes, Snapshot
from bridgepool.gateway.settings import GatewaySettings
from bridgepool.http import UpstreamLimits, open_upstream_client
from bridgepool.providers import Clients, Provider

logger = logging.getLogger("bridgepool.gateway")

_DEFAULT_SETTINGS = GatewaySettings()


@asynccontextmanager
async def open_gateway(
    reloader: ProviderReloader[Provider],
    changes: trio.abc.ReceiveChannel[object],
    *,
    clients: Callable[[], Clients] = Clients,
    first: Snapshot | None = None,
    settings: GatewaySettings = _DEFAULT_SETTINGS,
    access_log: AccessLog | None = None,
) -> AsyncIterator[Gateway]:
    """Open a gateway: its pool of bridges, its provider runtimes, its watcher of changes.

    It serves nothing by itself: give `Gateway.handle` to `bridgepool.http.serve_http`, or to
    `bridgepool.http.asgi`. Until the first snapshot is there, requests get 503 `not_ready`.

    ::

        async with open_provider_file("providers.toml") as source:
            async with open_gateway(
                source, source.changes, clients=lambda: source.clients
            ) as gateway:
                await serve_http(gateway.handle, await trio.open_tcp_listeners(8080))

    Args:
        reloader: Where the providers come from, such as a `MemoryReloader` or the source of
            `open_provider_file`.
        changes: Notices that they may have changed; open before this is called.
        clients: Returns the clients in force; asked for each request, so it must be cheap. The
            default has none: then nobody is served, unless `settings.allow_anyone`.
        first: What the reloader has already given, to be ready at once.
        settings: The gateway's policy.
        access_log: Called once for each request, after its end.

    Resource handling:
        Leaving the block admits no more requests, gives those that run `settings.drain_timeout`
        to end, and closes everything. What the block raises comes out as it is.
    """
    status = ReloadStatus()
    watching = trio.CancelScope()
    async with open_service_nursery() as nursery:
        runtimes = Runtimes(
            nursery, partial(open_provider_runtime, limits=settings.upstream_limits)
        )
        try:
            async with open_bridge_pool(
                partial(open_bridge, runtimes=runtimes),
                first if first is not None else ProviderSnapshot[Provider](()),
                max_items=settings.max_bridges,
                ttl=settings.bridge_ttl,
                drain_timeout=settings.drain_timeout,
                shutdown_timeout=settings.drain_timeout,
            ) as pool:
                runtimes.put_in_force(pool.snapshot)
                target = _PoolAndRuntimes(pool, runtimes)

                async def watch() -> None:
                    with watching:
                        await watch_providers(
                            target,
                            reloader,
                            changes,
                            poll_interval=settings.poll_interval,
                            min_interval=settings.min_reload_interval,
                            status=status,
                        )

                nursery.start_soon(watch)

                def has_snapshot() -> bool:
                    return first is not None or status.last_success is not None

                try:
                    yield Gateway(
                        pool, status, runtimes, settings, clients, access_log, has_snapshot
                    )
                finally:
                    watching.cancel()
        finally:
            watching.cancel()
            runtimes.close()


@asynccontextmanager
async def open_provider_runtime(
    provider: Provider, *, limits: UpstreamLimits
) -> AsyncIterator[ProviderRuntime]:
    """Open what is needed to call a provider; nothing is connected yet.

    Raises:
        ProviderKeyError: its key is in an environment variable that is not usable.
        ImportError: TLS needs a package that is not installed.
    """
    keys = provider.resolve_keys(os.environ)
    async with open_upstream_client(
        str(provider.base_url), limits=limits, dial=dial_provider(provider)
    ) as client:
        yield ProviderRuntime(provider, client, keys[0] if keys else None)


@attrs.frozen
class _PoolAndRuntimes:
    """What the watcher replaces the providers of."""

    _pool: CachedBridgePool[BridgeKey, Provider, Bridge]
    _runtimes: Runtimes

    def replace_providers(self, snapshot: Snapshot) -> Replacement:
        """Put a snapshot in force in both, in one step."""
        replacement = self._pool.replace_providers(snapshot)
        if replacement.applied:
            self._runtimes.put_in_force(snapshot)
            facts = {"generation": replacement.generation, "providers": len(snapshot.providers)}
            logger.info("providers replaced", extra=facts)
        return replacement
