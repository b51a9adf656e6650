"""The limits of websockets."""

from __future__ import annotations

import attrs

from bridgepool._options import amount, count, positive_seconds


@attrs.frozen(kw_only=True)
class WebSocketLimits:
    """The limits of websockets. Durations are in seconds, `math.inf` for none."""

    max_websockets: int = attrs.field(default=2000, validator=amount)
    """Maximum number of open websockets; 0 to relay none."""
    max_per_client: int = attrs.field(default=100, validator=count)
    """Maximum number of them of one client."""
    max_message_bytes: float = attrs.field(default=16 * 2**20, validator=amount)
    """Longest message in either direction; the websocket is closed with 1009 beyond."""
    ping_interval: float = attrs.field(default=20.0, validator=positive_seconds)
    """Silence of a peer after which it is pinged."""
    ping_timeout: float = attrs.field(default=20.0, validator=positive_seconds)
    """Time that it then has to send anything."""
    max_age: float = attrs.field(default=3600.0, validator=positive_seconds)
    """Age at which a websocket is closed with 1001, between two messages."""
