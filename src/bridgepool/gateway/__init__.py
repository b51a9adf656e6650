"""The AI gateway: OpenAI- and Anthropic-style clients, any number of providers, live changes.

`open_gateway` is for programs, `bridgepool gateway` for operators. Names are imported on first
use, so that the `bridgepool` command, a subpackage, starts without the data plane.
"""

from typing import TYPE_CHECKING

from bridgepool._lazy import find_name

if TYPE_CHECKING:
    from bridgepool.gateway._opening import open_gateway
    from bridgepool.gateway._protocol import provider_rows
    from bridgepool.gateway.limits._prices import Price, PriceTable, PriceTableError, parse_prices
    from bridgepool.gateway.providers._key_status import KeyReport, KeyStatus
    from bridgepool.gateway.proxy._access_log import (
        AccessRecord,
        Outcome,
        RequestObserver,
        console_line,
        json_line,
    )
    from bridgepool.gateway.proxy._app import Gateway
    from bridgepool.gateway.proxy._auth import Authorizer, ListedClients
    from bridgepool.gateway.proxy._bridge import Bridge, BridgeKey
    from bridgepool.gateway.proxy._provider_runtime import ProviderRuntime
    from bridgepool.gateway.proxy._readiness import SourceReport
    from bridgepool.gateway.proxy._receipts import FailedProvider, OnApplied, Receipt
    from bridgepool.gateway.proxy._recorder import Tracing
    from bridgepool.gateway.proxy._refusals import Refusal, Retry
    from bridgepool.gateway.proxy._runtimes import UnavailableProvider
    from bridgepool.gateway.proxy._settings import GatewaySettings
    from bridgepool.gateway.proxy._status import GatewayStatistics
    from bridgepool.gateway.proxy._tracing import RequestTrace
    from bridgepool.gateway.proxy._usage import OnUsage
    from bridgepool.gateway.proxy.websockets._limits import WebSocketLimits
    from bridgepool.gateway.serving._line_writer import LineWriter
    from bridgepool.gateway.sources._authorization import (
        AuthorizationLimits,
        KnownClient,
        RemoteClients,
    )
    from bridgepool.gateway.sources._control_plane import ControlPlane, open_control_plane
    from bridgepool.gateway.tracing._otlp import open_tracing
    from bridgepool.gateway.usage._bodies import (
        BodyRecorder,
        OnBodies,
        RecordedBodies,
        bodies_line,
    )
    from bridgepool.gateway.usage._journal import JournalError
    from bridgepool.gateway.usage._reader import UsageReader
    from bridgepool.gateway.usage._records import UsageRecord, usage_line
    from bridgepool.gateway.usage._spool import (
        NotStoredError,
        SpoolStatistics,
        StoreRecords,
        UsageSpool,
        open_usage_spool,
    )
    from bridgepool.gateway.usage._tokens import Tokens, Usage

__all__ = [
    "AccessRecord",
    "AuthorizationLimits",
    "Authorizer",
    "BodyRecorder",
    "Bridge",
    "BridgeKey",
    "ControlPlane",
    "FailedProvider",
    "Gateway",
    "GatewaySettings",
    "GatewayStatistics",
    "JournalError",
    "KeyReport",
    "KeyStatus",
    "KnownClient",
    "LineWriter",
    "ListedClients",
    "NotStoredError",
    "OnApplied",
    "OnBodies",
    "OnUsage",
    "Outcome",
    "Price",
    "PriceTable",
    "PriceTableError",
    "ProviderRuntime",
    "Receipt",
    "RecordedBodies",
    "Refusal",
    "RemoteClients",
    "RequestObserver",
    "RequestTrace",
    "Retry",
    "SourceReport",
    "SpoolStatistics",
    "StoreRecords",
    "Tokens",
    "Tracing",
    "UnavailableProvider",
    "Usage",
    "UsageReader",
    "UsageRecord",
    "UsageSpool",
    "WebSocketLimits",
    "bodies_line",
    "console_line",
    "json_line",
    "open_control_plane",
    "open_gateway",
    "open_tracing",
    "open_usage_spool",
    "parse_prices",
    "provider_rows",
    "usage_line",
]

_MODULES = (
    "_opening",
    "_protocol",
    "limits._prices",
    "providers._key_status",
    "proxy._access_log",
    "proxy._app",
    "proxy._auth",
    "proxy._bridge",
    "proxy._provider_runtime",
    "proxy._readiness",
    "proxy._receipts",
    "proxy._recorder",
    "proxy._refusals",
    "proxy._runtimes",
    "proxy._status",
    "proxy._settings",
    "proxy._tracing",
    "proxy.websockets._limits",
    "proxy._usage",
    "serving._line_writer",
    "sources._authorization",
    "sources._control_plane",
    "usage._bodies",
    "usage._reader",
    "usage._journal",
    "usage._records",
    "usage._spool",
    "usage._tokens",
    "tracing._otlp",  # the last one: it needs an extra of its own
)


def __getattr__(name: str) -> object:
    return find_name(__name__, name, __all__, _MODULES)
