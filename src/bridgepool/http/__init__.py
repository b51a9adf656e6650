"""HTTP/1.1 on Trio, both ways: a server of handlers, and a client for upstreams.

The server is `serve_http`, the client `open_upstream_client`. `forward_request_headers` and its
neighbours have the rules for the fields that a proxy forwards. `bridgepool.http.asgi` runs the
server's handlers under ASGI servers. Both ends parse by h11, behind `ServerWire` and `ClientWire`.
"""

try:
    import h11 as _h11  # noqa: F401 -- reports a missing extra by name
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        "bridgepool.http needs h11: pip install 'bridgepool[http]'", name="h11"
    ) from _error

from bridgepool._connection_limiter import ConnectionLimiter, ConnectionPlace
from bridgepool._network import Dial, default_dial, peer_address, upstream_ssl_context
from bridgepool.http._client import UpstreamClient, open_upstream_client
from bridgepool.http._errors import (
    BodyTooLarge,
    ConnectFailed,
    ExpectationFailed,
    HeadTooLarge,
    HttpError,
    LocalProtocolError,
    NotSupported,
    PoolFull,
    RemoteProtocolError,
    RequestTimeout,
    ShareExceeded,
    TargetTooLong,
    UpstreamCut,
    UpstreamError,
    UpstreamProtocolError,
    UpstreamTimeout,
    VersionNotSupported,
)
from bridgepool.http._exchange import Exchange, Handler, RequestBody, ResponseStream
from bridgepool.http._forwarding import (
    ForwardedMode,
    forward_request_headers,
    forward_response_headers,
    forward_trailers,
)
from bridgepool.http._invalid_request import AnswerInvalid, InvalidRequest
from bridgepool.http._limits import HttpLimits, MessageLimits, UpstreamLimits
from bridgepool.http._messages import (
    EndOfMessage,
    Headers,
    Request,
    ResponseHead,
    get_header,
    is_websocket_handshake,
)
from bridgepool.http._server import GracefulClose, serve_http
from bridgepool.http._server_connection import HttpCounters
from bridgepool.http._upload import ReceivesBody, UpstreamBody
from bridgepool.http._upstream_call import UpstreamResponse
from bridgepool.http._upstream_pool import UpstreamStatistics
from bridgepool.http._websocket_frames import (
    ControlFrame,
    DataPiece,
    FrameScanner,
    Opcode,
    WebSocketError,
    encode_close,
    encode_frame,
    websocket_accept,
)
from bridgepool.http._wire import ClientWire, ServerWire

__all__ = [
    "AnswerInvalid",
    "BodyTooLarge",
    "ClientWire",
    "ConnectFailed",
    "ConnectionLimiter",
    "ConnectionPlace",
    "ControlFrame",
    "DataPiece",
    "Dial",
    "EndOfMessage",
    "Exchange",
    "ExpectationFailed",
    "ForwardedMode",
    "FrameScanner",
    "GracefulClose",
    "Handler",
    "HeadTooLarge",
    "Headers",
    "HttpCounters",
    "HttpError",
    "HttpLimits",
    "InvalidRequest",
    "LocalProtocolError",
    "MessageLimits",
    "NotSupported",
    "Opcode",
    "PoolFull",
    "ReceivesBody",
    "RemoteProtocolError",
    "Request",
    "RequestBody",
    "RequestTimeout",
    "ResponseHead",
    "ResponseStream",
    "ServerWire",
    "ShareExceeded",
    "TargetTooLong",
    "UpstreamBody",
    "UpstreamClient",
    "UpstreamCut",
    "UpstreamError",
    "UpstreamLimits",
    "UpstreamProtocolError",
    "UpstreamResponse",
    "UpstreamStatistics",
    "UpstreamTimeout",
    "VersionNotSupported",
    "WebSocketError",
    "default_dial",
    "encode_close",
    "encode_frame",
    "forward_request_headers",
    "forward_response_headers",
    "forward_trailers",
    "get_header",
    "is_websocket_handshake",
    "open_upstream_client",
    "peer_address",
    "serve_http",
    "upstream_ssl_context",
    "websocket_accept",
]
