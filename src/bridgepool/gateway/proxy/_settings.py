"""The policy of a gateway."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

import attrs

from bridgepool._options import amount, count, positive_seconds, seconds
from bridgepool.gateway.proxy._cors import parse_origin
from bridgepool.gateway.proxy.websockets._limits import WebSocketLimits
from bridgepool.http import UpstreamLimits

_WEBSOCKET_LIMITS: Final = WebSocketLimits()
_UPSTREAM_LIMITS: Final = UpstreamLimits(max_connections=2000, max_waiting=2000, tenant_share=0.5)


def _to_origins(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(parse_origin(text).decode() for text in texts)


@attrs.frozen(kw_only=True)
class GatewaySettings:
    """The gateway's policy. Durations are in seconds, `math.inf` for none."""

    allow_anonymous: bool = False
    """Serve local programs without a key while no clients are configured. For listeners on
    loopback addresses only, without proxies in front. Web pages from elsewhere are refused, and
    what a proxy brings with an `X-Forwarded-For` (or the like) that names another machine."""
    cors_origins: tuple[str, ...] = attrs.field(default=(), converter=_to_origins)
    """The origins whose web pages may call the gateway, of the web, of the schemes of apps, and
    `null`; as `--cors-origin` takes them."""
    no_retry_status: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(attrs.validators.in_(range(400, 600)))
    )
    """The status of refusals that a retry cannot help, for all clients. None: each refusal's own,
    and 400 for clients that are known to ignore `x-should-retry`."""
    expose_route_headers: bool = False
    """Add `x-bridgepool-provider` and `x-bridgepool-generation` to responses."""
    max_stale: float = attrs.field(default=math.inf, validator=positive_seconds)
    """Age of the snapshot in force above which the gateway is not ready."""
    max_bridges: int = attrs.field(default=5000, validator=count)
    """Maximum number of client keys with an open bridge."""
    bridge_ttl: float = attrs.field(default=900.0, validator=positive_seconds)
    """Maximum age of a bridge before it is rebuilt."""
    drain_timeout: float = attrs.field(default=600.0, validator=seconds)
    """Time that a request may take after its provider was replaced, or the gateway was left."""
    poll_interval: float = attrs.field(default=300.0, validator=positive_seconds)
    """Time between two reloads without a notice."""
    min_reload_interval: float = attrs.field(default=0.1, validator=positive_seconds)
    """Minimum time between two reloads that notices cause."""
    reads_usage: bool = False
    """Read what answers tell of tokens also if `open_gateway` gets no `on_usage`: for observers
    that use `AccessRecord.usage`."""
    max_concurrent: int = attrs.field(default=0, validator=amount)
    """Maximum number of requests of authenticated clients at a time; 0 for no limit."""
    max_waiting: int = attrs.field(default=100, validator=amount)
    """Maximum number of requests that wait for one of `max_concurrent`; others are refused."""
    wait_timeout: float = attrs.field(default=5.0, validator=seconds)
    """Maximum time that they wait."""
    trusted_proxies: tuple[str, ...] = ()
    """Addresses and networks of proxies in front, whose `X-Forwarded-For` is believed for
    `AccessRecord.peer`."""
    websockets: WebSocketLimits = _WEBSOCKET_LIMITS
    """Number, sizes and times of websockets; the clients are counted by their ids."""
    upstream_limits: UpstreamLimits = _UPSTREAM_LIMITS
    """Number and timeouts of the connections to each provider; the tenants are the clients."""
    max_replay_memory: int = attrs.field(default=64 << 20, validator=count)
    """Bytes of all request bodies together that are kept for another attempt, beside those of up to
    64 kB; see `ProviderFields.max_replay_bytes`."""
