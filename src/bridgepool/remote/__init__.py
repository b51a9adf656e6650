"""Providers of any type over a network: an owner has them, followers use them.

A follower has a reloader from `open_remote_providers`, an owner serves any source with
`open_remote_service`; `RowFormat` says how a provider is sent. Needs
``pip install 'bridgepool[remote]'``.
"""

from bridgepool.remote._connector import Connect, websocket_connector
from bridgepool.remote._errors import (
    ConnectionLostError,
    InvalidMessageError,
    RemoteError,
    UnsendableError,
    UnusableRowError,
)
from bridgepool.remote._follower import RemoteProviders, open_remote_providers
from bridgepool.remote._messages import Acknowledge, RejectedRow, Row
from bridgepool.remote._owner import Admit, RemoteService, open_remote_service
from bridgepool.remote._owner_rows import CatchUp
from bridgepool.remote._owner_session import Admitted, SessionEnd, SessionObserver
from bridgepool.remote._rows import GoodRow, RowFormat, RowTable
from bridgepool.remote._session import Identity, Seen, Service, ServiceSession, SessionInfo
from bridgepool.remote._status import RemoteLimits, RemoteStatus
from bridgepool.remote._versions import PROTOCOL, ProtocolVersion
from bridgepool.transports._handshake import Handshake, Refused

__all__ = [
    "PROTOCOL",
    "Acknowledge",
    "Admit",
    "Admitted",
    "CatchUp",
    "Connect",
    "ConnectionLostError",
    "GoodRow",
    "Handshake",
    "Identity",
    "InvalidMessageError",
    "ProtocolVersion",
    "Refused",
    "RejectedRow",
    "RemoteError",
    "RemoteLimits",
    "RemoteProviders",
    "RemoteService",
    "RemoteStatus",
    "Row",
    "RowFormat",
    "RowTable",
    "Seen",
    "Service",
    "ServiceSession",
    "SessionEnd",
    "SessionInfo",
    "SessionObserver",
    "UnsendableError",
    "UnusableRowError",
    "open_remote_providers",
    "open_remote_service",
    "websocket_connector",
]
