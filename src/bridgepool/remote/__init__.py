"""Providers over a network: the protocol, the gateway's end of it, and the control plane's.

A gateway follows a control plane with `open_remote_providers`; a control plane serves its
gateways with `serve_providers`. Needs ``pip install 'bridgepool[remote]'``.
"""

from bridgepool.gateway.providers._wire import ProviderRow
from bridgepool.remote._admission import Admitted
from bridgepool.remote._authorization import AuthorizationLimits
from bridgepool.remote._backend import GatewayIdentity, ProviderBackend, SessionInfo
from bridgepool.remote._client import (
    Connect,
    RemoteProviders,
    open_remote_providers,
    websocket_connector,
)
from bridgepool.remote._memory import MemoryBackend
from bridgepool.remote._messages import Acknowledge, Rejection, Revisions
from bridgepool.remote._rows import ProviderTable, TableBuilder
from bridgepool.remote._service import ProviderService, open_provider_service, serve_providers
from bridgepool.remote._status import Refusal, RemoteLimits, RemoteStatus
from bridgepool.remote._versions import PROTOCOL, ProtocolVersion

__all__ = [
    "PROTOCOL",
    "Acknowledge",
    "Admitted",
    "AuthorizationLimits",
    "Connect",
    "GatewayIdentity",
    "MemoryBackend",
    "ProtocolVersion",
    "ProviderBackend",
    "ProviderRow",
    "ProviderService",
    "ProviderTable",
    "Refusal",
    "Rejection",
    "RemoteLimits",
    "RemoteProviders",
    "RemoteStatus",
    "Revisions",
    "SessionInfo",
    "TableBuilder",
    "open_provider_service",
    "open_remote_providers",
    "serve_providers",
    "websocket_connector",
]
