"""HTTP/1.1 on Trio, both ways: a server of handlers, and a client for upstreams.

The server is `serve_http`, the client `open_upstream_client`; both speak through a wire
(`bridgepool.http._wire`), whose parser is h11. `bridgepool.http.asgi` runs the server's handlers
under ASGI servers, `bridgepool.http._headers` has the rules of what a proxy hands on, and
`bridgepool.http._errors` what can go wrong.
"""

try:
    import h11 as _h11  # noqa: F401 - only to say in time what is missing
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "bridgepool.http needs h11: pip install 'bridgepool[http]'", name="h11"
    ) from error

from bridgepool.http._client import UpstreamClient, open_upstream_client
from bridgepool.http._conversation import HttpCounters
from bridgepool.http._exchange import Exchange, Handler, RequestBody, ResponseStream
from bridgepool.http._limits import HttpLimits
from bridgepool.http._messages import EndOfMessage, Headers, Request, ResponseHead, get_header
from bridgepool.http._server import GracefulClose, serve_http
from bridgepool.http._upstream_call import UpstreamResponse
from bridgepool.http._upstream_links import UpstreamLimits, UpstreamStatistics

__all__ = [
    "EndOfMessage",
    "Exchange",
    "GracefulClose",
    "Handler",
    "Headers",
    "HttpCounters",
    "HttpLimits",
    "Request",
    "RequestBody",
    "ResponseHead",
    "ResponseStream",
    "UpstreamClient",
    "UpstreamLimits",
    "UpstreamResponse",
    "UpstreamStatistics",
    "get_header",
    "open_upstream_client",
    "serve_http",
]
