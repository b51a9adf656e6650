"""The gateway: OpenAI- and Anthropic-style clients in, their providers out, changed while it runs.

`open_gateway` is the way in for programs, `bridgepool gateway` for operators.
"""

from bridgepool.gateway.access_log import (
    AccessLog,
    AccessRecord,
    LineWriter,
    Outcome,
    console_line,
    json_line,
)
from bridgepool.gateway.app import Gateway, GatewayStatistics
from bridgepool.gateway.auth import Authorizer, ListedClients
from bridgepool.gateway.bridge import Bridge, BridgeKey
from bridgepool.gateway.opening import open_gateway
from bridgepool.gateway.readiness import SourceReport
from bridgepool.gateway.receipts import FailedProvider, OnApplied, Receipt
from bridgepool.gateway.settings import GatewaySettings

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
