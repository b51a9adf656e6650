"""HTTP/1.1 on Trio, both ways: a server of handlers, and a client for upstreams.

The server is `serve_http`, the client `open_upstream_client`; both speak through a wire
(`bridgepool.http.wire`), whose parser is h11. `bridgepool.http.asgi` runs the server's handlers
under ASGI servers, `bridgepool.http.headers` has the rules of what a proxy hands on, and
`bridgepool.http.errors` what can go wrong.
"""

try:
    import h11 as _h11  # noqa: F401 - only to say in time what is missing
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "bridgepool.http needs h11: pip install 'bridgepool[http]'", name="h11"
    ) from error

from bridgepool.http.client import UpstreamClient, open_upstream_client
from bridgepool.http.conversation import HttpCounters
from bridgepool.http.exchange import Exchange, Handler, RequestBody, ResponseStream
from bridgepool.http.limits import HttpLimits
from bridgepool.http.messages import EndOfMessage, Headers, Request, ResponseHead, get_header
from bridgepool.http.server import GracefulClose, serve_http
from bridgepool.http.upstream_call import UpstreamResponse
from bridgepool.http.upstream_links import UpstreamLimits, UpstreamStatistics

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
