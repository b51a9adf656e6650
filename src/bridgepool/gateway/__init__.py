"""The gateway: OpenAI- and Anthropic-style clients in, their providers out, changed while it runs.

`open_gateway` is the way in for programs, `bridgepool gateway` for operators.
"""

from bridgepool.gateway._opening import open_gateway
from bridgepool.gateway.proxy._access_log import (
    AccessLog,
    AccessRecord,
    LineWriter,
    Outcome,
    console_line,
    json_line,
)
from bridgepool.gateway.proxy._app import Gateway, GatewaySettings, GatewayStatistics
from bridgepool.gateway.proxy._auth import Authorizer, ListedClients
from bridgepool.gateway.proxy._bridge import Bridge, BridgeKey
from bridgepool.gateway.proxy._readiness import SourceReport
from bridgepool.gateway.proxy._receipts import FailedProvider, OnApplied, Receipt

__all__ = [
    "AccessLog",
    "AccessRecord",
    "Authorizer",
    "Bridge",
    "BridgeKey",
    "FailedProvider",
    "Gateway",
    "GatewaySettings",
    "GatewayStatistics",
    "LineWriter",
    "ListedClients",
    "OnApplied",
    "Outcome",
    "Receipt",
    "SourceReport",
    "console_line",
    "json_line",
    "open_gateway",
]
