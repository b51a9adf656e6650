"""What a gateway reports of itself: statistics for programs, one JSON document for operators."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from typing import Final

import attrs
import trio

from bridgepool import CachedBridgePool, ReloadStatus
from bridgepool.gateway.providers import Provider
from bridgepool.gateway.providers._key_status import KeyStatus
from bridgepool.gateway.proxy._access_log import AccessRecord, Outcome
from bridgepool.gateway.proxy._bridge import Bridge, BridgeKey
from bridgepool.gateway.proxy._prices import Prices
from bridgepool.gateway.proxy._runtimes import ProviderEntry
from bridgepool.gateway.upstreams._admission import Admission

MAX_REQUESTS: Final = 1000  # listed; the oldest ones


@attrs.frozen
class GatewayStatistics:
    """Statistics of a gateway. Counts only grow."""

    requests: int
    """Requests in progress."""
    ended: Mapping[Outcome, int]
    """Ended requests by outcome."""
    runtimes: int
    """Open provider runtimes."""


def status_document(
    ready: Mapping[str, object],
    pool: CachedBridgePool[BridgeKey, Provider, Bridge],
    reloads: ReloadStatus,
    providers: Iterable[ProviderEntry],
    keys: Iterable[KeyStatus],
    running: Iterable[AccessRecord],
    admission: Admission,
    prices: Prices,
) -> Mapping[str, object]:
    """Return the document of `/status`, from that of `/readyz` and the parts of a gateway."""
    by_provider: dict[str, list[KeyStatus]] = {}
    for key in keys:
        by_provider.setdefault(key.provider, []).append(key)
    return {
        "ready": ready,
        "pool": pool.statistics().as_dict(),
        "reloads": reloads.as_dict(),
        "providers": [
            _provider_document(entry, by_provider.get(entry.provider.name, ()))
            for entry in providers
        ],
        "requests": _requests_document(running),
        "admission": admission.document() if admission.rules.limit else None,
        "prices": prices.document(),
    }


def _provider_document(entry: ProviderEntry, keys: Iterable[KeyStatus]) -> Mapping[str, object]:
    """Return the status of one provider. It has no address, no header, and keys masked."""
    provider = entry.provider
    document: dict[str, object] = {
        "name": provider.name,
        "type": provider.type,
        "state": entry.state.value,
    }
    if entry.reason:
        document["reason"] = entry.reason
    if entry.runtime is not None:
        connections = entry.runtime.client.statistics()
        document["connections"] = {
            "in_use": connections.in_use,
            "idle": connections.idle,
            "waiting": connections.waiting,
        }
        resilience = entry.runtime._resilience
        if resilience.in_use:
            document["resilience"] = resilience.document(trio.current_time())
    document["keys"] = [_key_document(key) for key in keys]
    return document


def _key_document(key: KeyStatus) -> Mapping[str, object]:
    """Return the status of one key; see `KeyStatus`."""
    document = attrs.asdict(key)
    del document["provider"]
    return document


def _requests_document(running: Iterable[AccessRecord]) -> Mapping[str, object]:
    """Return the requests that are being served: their number, and the oldest of them."""
    records, now = sorted(running, key=lambda record: record.started), time.perf_counter()
    return {
        "running": len(records),
        "websockets": sum(record.websocket for record in records),
        "oldest": [_request_document(record, now) for record in records[:MAX_REQUESTS]],
    }


def _request_document(record: AccessRecord, now: float) -> Mapping[str, object]:
    return {
        "request_id": record.request_id,
        "peer": record.peer,
        "client": record.client,
        "key": record.key,
        "provider": record.provider,
        "generation": record.generation,
        "method": record.method,
        "route": record.route,
        "websocket": record.websocket,
        "attempts": record.attempts,
        "status": record.status,
        "bytes": record.bytes_sent,
        "bytes_received": record.bytes_received,
        "seconds": round(now - record.started, 3),
    }
