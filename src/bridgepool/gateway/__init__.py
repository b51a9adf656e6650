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
from bridgepool.gateway.bridge import Bridge, BridgeKey
from bridgepool.gateway.opening import open_gateway
from bridgepool.gateway.settings import GatewaySettings

__all__ = [
    "AccessLog",
    "AccessRecord",
    "Bridge",
    "BridgeKey",
    "Gateway",
    "GatewaySettings",
    "GatewayStatistics",
    "LineWriter",
    "Outcome",
    "console_line",
    "json_line",
    "open_gateway",
]
