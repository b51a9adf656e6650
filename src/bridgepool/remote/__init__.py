"""Providers over a network: the protocol, the gateway's end of it, and the control plane's.

A gateway follows a control plane with `open_remote_providers`; a control plane serves its
gateways with `serve_providers`. Needs ``pip install 'bridgepool[remote]'``.
"""

from bridgepool.remote.admission import Admitted
from bridgepool.remote.authorization import AuthorizationLimits
from bridgepool.remote.backend import GatewayIdentity, ProviderBackend, SessionInfo
from bridgepool.remote.client import (
    Connect,
    RemoteProviders,
    open_remote_providers,
    websocket_connector,
)
from bridgepool.remote.memory import MemoryBackend
from bridgepool.remote.messages import Acknowledge, ProviderRow, Rejection, Revisions
from bridgepool.remote.rows import ProviderTable, TableBuilder
from bridgepool.remote.service import ProviderService, open_provider_service, serve_providers
from bridgepool.remote.status import Refusal, RemoteLimits, RemoteStatus
from bridgepool.remote.versions import PROTOCOL, ProtocolVersion

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
