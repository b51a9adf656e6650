"""HTTP/1.1 on Trio, both ways: a server of handlers, and a client for upstreams."""

from bridgepool.http.conversation import HttpCounters
from bridgepool.http.exchange import Exchange, Handler, RequestBody, ResponseStream
from bridgepool.http.limits import HttpLimits
from bridgepool.http.messages import EndOfMessage, Headers, Request, ResponseHead, get_header
from bridgepool.http.server import GracefulClose, serve_http

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
    "get_header",
    "serve_http",
]
