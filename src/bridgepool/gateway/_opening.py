"""`open_gateway`: the pool, the provider runtimes and the watcher of the providers."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import attrs
import trio

from bridgepool import (
    CachedBridgePool,
    ProviderReloader,
    ProviderSnapshot,
    ReloadError,
    ReloadStatus,
    Replacement,
    ReplaceOutcome,
    open_bridge_pool,
    watch_providers,
)
from bridgepool._services import open_service_nursery, require_trio
from bridgepool.gateway.limits._prices import PriceTable
from bridgepool.gateway.providers import PROVIDER_TYPES, Clients, Provider, ProviderType
from bridgepool.gateway.proxy._access_log import RequestObserver
from bridgepool.gateway.proxy._app import Gateway
from bridgepool.gateway.proxy._auth import Authorizer, ListedClients
from bridgepool.gateway.proxy._bridge import Bridge, BridgeKey, open_bridge
from bridgepool.gateway.proxy._client_use import ClientUses
from bridgepool.gateway.proxy._key_report import KeyReporter
from bridgepool.gateway.proxy._prices import Prices
from bridgepool.gateway.proxy._provider_runtime import check_provider, open_provider_runtime
from bridgepool.gateway.proxy._readiness import Readiness, SourceReport
from bridgepool.gateway.proxy._receipts import OnApplied, ReceiptReporter
from bridgepool.gateway.proxy._recorded_bodies import report_bodies
from bridgepool.gateway.proxy._recorder import Recorder, Tracing
from bridgepool.gateway.proxy._replay import ReplayBudget
from bridgepool.gateway.proxy._runtimes import Runtimes, Snapshot
from bridgepool.gateway.proxy._settings import GatewaySettings
from bridgepool.gateway.proxy._usage import OnUsage, UsageReporter
from bridgepool.gateway.serving._peer import find_peer_behind
from bridgepool.gateway.sources._authorization import RemoteClients
from bridgepool.gateway.upstreams._admission import Admission, AdmissionRules
from bridgepool.gateway.upstreams._upstream_state import UpstreamStates
from bridgepool.gateway.usage._bodies import BodyRecorder

logger = logging.getLogger("bridgepool.gateway")

_DEFAULT_SETTINGS = GatewaySettings()


@asynccontextmanager
async def open_gateway(
    reloader: ProviderReloader[Provider],
    changes: trio.abc.ReceiveChannel[object],
    *,
    clients: Callable[[], Clients] | Authorizer = Clients,
    first: ProviderSnapshot[Provider] | None = None,
    first_age: float = 0.0,
    settings: GatewaySettings = _DEFAULT_SETTINGS,
    types: Iterable[ProviderType] = PROVIDER_TYPES,
    observers: Iterable[RequestObserver] = (),
    tracing: Tracing | None = None,
    on_usage: OnUsage | None = None,
    prices: PriceTable | None = None,
    usage_full: Callable[[], bool] | None = None,
    usage_report: Callable[[], Mapping[str, object]] | None = None,
    bodies: BodyRecorder | None = None,
    on_applied: OnApplied | None = None,
    report: Callable[[], SourceReport] | None = None,
    log_lines_dropped: Callable[[], int] | None = None,
) -> AsyncIterator[Gateway]:
    """Open a gateway: its pool of bridges, its provider runtimes, its watcher of changes.

    It does not listen: give `Gateway.handle` to `bridgepool.http.serve_http` or
    `bridgepool.http.asgi`. Before the first snapshot, requests get 503 `not_ready`.

    ::

        async with open_provider_file("providers.toml") as source:
            async with open_gateway(
                source, source.changes, clients=lambda: source.clients
            ) as gateway:
                await serve_http(gateway.handle, await trio.open_tcp_listeners(8080))

    Args:
        reloader: The source of the providers, such as a `MemoryReloader` or the result of
            `open_provider_file`. A snapshot without providers does not replace any, unless it
            has `allow_empty`: that reload counts as failed.
        changes: Notices that the providers may have changed; subscribe before this call.
        clients: Returns the clients in force; called for each request, so it must be cheap. Or
            an `Authorizer`. The default has no clients: every request is refused, unless
            `settings.allow_anonymous`.
        first: A snapshot that the reloader has already returned, to be ready immediately.
        first_age: Seconds since the source confirmed `first`; `math.inf` if unknown.
        settings: The gateway's policy.
        types: The provider types: `PROVIDER_TYPES`, or those and your own. A provider of another
            type is misconfigured.
        observers: Each is called once for each request, after its end, with its record.
        tracing: Traces requests, such as the result of `open_tracing`.
        on_usage: Called once for each request to a provider, after its end, with its
            `UsageRecord`. Must not block. Without it, and without `settings.reads_usage`, answers
            are not read.
        prices: What tokens cost, for usage records, and for clients with a budget of money; see
            `parse_prices` and `Gateway.replace_prices`. Without it those are refused.
        usage_full: Returns whether usage records cannot be taken now, such as `UsageSpool.full`;
            then requests are refused with 503 `usage_unavailable`, and `/readyz` answers 503.
            Called for each request.
        usage_report: Returns the state of the spool for `/readyz`: `UsageSpool.report`.
        bodies: Records the bodies of requests and answers of some clients or providers.
        on_applied: Called with a `Receipt` after every good reload, once its providers have been
            checked. Must not block.
        report: Returns the source's report for `/readyz`.
        log_lines_dropped: Returns how many lines the logs of the program have lost, for `/readyz`;
            such as `LineWriter.dropped`.

    Resource handling:
        Leaving the block admits no more requests, closes websockets on which no response is under
        way, gives running requests `settings.drain_timeout` to end, and closes everything. An
        exception of the block comes out unchanged.
    """
    require_trio()
    status, known, in_force = ReloadStatus(), tuple(types), Prices(prices)
    response_observers: tuple[RequestObserver, ...] = ()
    if on_usage is not None:
        settings = attrs.evolve(settings, reads_usage=True)
        reporter = UsageReporter(on_usage, in_force)
        observers = (*observers, reporter.observe)
        response_observers = (reporter.report,)
    if bodies is not None:
        observers = (*observers, report_bodies)
    if tracing is not None:
        observers = (*observers, tracing.observe)
        response_observers = (*response_observers, tracing.observe)
    authorizer = clients if isinstance(clients, Authorizer) else ListedClients(clients)
    age = first_age if first is not None else None
    async with open_service_nursery() as nursery:
        states = UpstreamStates()
        open_runtime = partial(
            open_provider_runtime, types=known, limits=settings.upstream_limits, states=states
        )
        runtimes = Runtimes(nursery, open_runtime, partial(check_provider, types=known), states)
        readiness = Readiness(
            status, settings.max_stale, age, report, runtimes, log_lines_dropped,
            usage_full, usage_report,
        )  # fmt: skip
        readiness.allow_empty = first is not None and first.allow_empty
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
                receipts = ReceiptReporter(runtimes, on_applied) if on_applied is not None else None
                keys = KeyReporter(runtimes)
                if first is not None:
                    keys.note(first.revision, first.epoch)
                target = _PoolAndRuntimes(pool, runtimes, readiness, receipts, keys)

                watch = partial(
                    watch_providers,
                    target,
                    reloader,
                    changes,
                    poll_interval=settings.poll_interval,
                    min_interval=settings.min_reload_interval,
                    status=status,
                )
                async with open_service_nursery() as tasks:
                    tasks.start_soon(watch)
                    if receipts is not None:
                        tasks.start_soon(receipts.run)
                    leases = clients._leases if isinstance(clients, RemoteClients) else None
                    try:
                        gateway = Gateway(
                            pool, status, runtimes, settings, authorizer, readiness,
                            Recorder(
                                known, tuple(observers), settings.reads_usage,
                                find_peer_behind(settings.trusted_proxies),
                                tracing.begin if tracing is not None else None, bodies,
                                response_observers,
                            ), ReplayBudget(settings.max_replay_memory), keys,
                            ClientUses(in_force, leases), _admission(settings), usage_full,
                        )  # fmt: skip
                        try:
                            yield gateway
                        finally:
                            gateway.close_websockets()
                    finally:
                        tasks.cancel_scope.cancel()
        finally:
            runtimes.close()


def _admission(settings: GatewaySettings) -> Admission:
    rules = AdmissionRules(settings.max_concurrent, settings.max_waiting, settings.wait_timeout)
    return Admission(rules)


@attrs.frozen
class _PoolAndRuntimes:
    """The target of the watcher: the pool and the runtimes."""

    _pool: CachedBridgePool[BridgeKey, Provider, Bridge]
    _runtimes: Runtimes
    _readiness: Readiness
    _receipts: ReceiptReporter | None
    _keys: KeyReporter

    def replace_providers(self, snapshot: Snapshot) -> Replacement:
        """Put a snapshot in force in both, without a checkpoint in between.

        Raises:
            ReloadError: It would leave no provider, and the source does not state that this is
                intended.
        """
        if not snapshot.providers and not snapshot.allow_empty and self._pool.snapshot.providers:
            raise ReloadError(
                "the source has no providers any more and does not state that this is intended "
                "(allow_empty); the providers in force stay"
            )
        replacement = self._pool.replace_providers(snapshot)
        if replacement.applied:
            self._runtimes.put_in_force(snapshot)
            facts = {"generation": replacement.generation, "providers": len(snapshot.providers)}
            logger.info("providers replaced", extra=facts)
        if replacement.outcome in (ReplaceOutcome.APPLIED, ReplaceOutcome.UNCHANGED):
            self._readiness.allow_empty = snapshot.allow_empty
            self._keys.note(snapshot.revision, snapshot.epoch)
            if self._receipts is not None:
                self._receipts.note(snapshot.revision, snapshot.epoch)
        return replacement
