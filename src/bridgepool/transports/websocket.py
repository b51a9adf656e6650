"""Message channels over websockets (RFC 6455), by trio-websocket.

Needs `pip install 'bridgepool[remote]'`. A message is one binary websocket message; compression
is not used.
"""

from bridgepool._connection_limiter import ConnectionLimiter, ConnectionPlace
from bridgepool.transports._channel import WebSocketChannel
from bridgepool.transports._client import open_websocket_channel
from bridgepool.transports._handshake import Handshake, Refused, WebSocketLimits
from bridgepool.transports._server import WebSocketCounters, serve_websockets

__all__ = [
    "ConnectionLimiter",
    "ConnectionPlace",
    "Handshake",
    "Refused",
    "WebSocketChannel",
    "WebSocketCounters",
    "WebSocketLimits",
    "open_websocket_channel",
    "serve_websockets",
]
