"""What an operator can set, apart from the providers."""

from __future__ import annotations

import math

import attrs

from bridgepool.http import UpstreamLimits


@attrs.frozen(kw_only=True)
class GatewaySettings:
    """The gateway's policy. Durations are in seconds, `math.inf` for none."""

    allow_anyone: bool = False
    """Serve local programs without a key while no clients are configured. For listeners on
    loopback addresses only."""
    expose_route_headers: bool = False
    """Say in `x-bridgepool-provider` and `x-bridgepool-generation` who served an answer."""
    max_stale: float = math.inf
    """How long after its last successful reload the gateway still calls itself ready."""
    max_bridges: int = 5000
    """Most client keys that have a bridge at the same time."""
    bridge_ttl: float = 900.0
    """How long a bridge is used before it is built anew."""
    drain_timeout: float = 600.0
    """How long a request may go on after its provider was replaced, or the gateway was left."""
    poll_interval: float = 300.0
    """Between two reloads without a notice."""
    min_reload_interval: float = 0.1
    """Between two reloads that notices cause."""
    upstream_limits: UpstreamLimits = attrs.field(factory=UpstreamLimits)
    """How many connections each provider gets, and how long they may be silent."""
